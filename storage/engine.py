"""Opens the file: which SQLite, which settings, whose lock; translates its errors. Never touches a row of the log."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from storage.errors import StoreBusy, StoreDamaged, StoreError, StoreFailing, StoreFull, StoreGone

if TYPE_CHECKING:
    from sqlalchemy import Connection

try:
    # The wheel carries SQLite 3.53: 3.7.0 to 3.51.2, Debian 12's among them, can corrupt a database on WAL reset.
    from pysqlite3 import dbapi2 as driver
except ImportError:  # no wheel for this platform
    from sqlite3 import dbapi2 as driver

sqlite = driver
"""SQLite's driver, wherever it is needed."""

# Without an adapter of their own, each bytes, bool and None is searched for one while it is bound: 1.5 µs a value.
sqlite.register_adapter(bytes, bytes)
sqlite.register_adapter(bool, int)
sqlite.register_adapter(type(None), {}.get)

APPLICATION_ID: Final = 0x416D6272
"""`Ambr`: says that a SQLite file is an Amber store."""

SCHEMA_VERSION: Final = 4
PAGE_BYTES: Final = 4096
CHECKPOINT_PAGES: Final = 4000
BUSY_TIMEOUT_MS: Final = 2_000
PATIENCE_MS: Final = 60_000
"""The gateway's transactions may follow each other closely."""


STOP_IT: Final = ": stop it first"
"""The advice when another holds a lock; not for one who waits for it."""


def store_path(store: str | os.PathLike[str]) -> Path:
    """The file that a path or a `sqlite:///…` URL names."""
    text = os.fspath(store)
    if text.startswith("sqlite:///"):
        text = text.removeprefix("sqlite:///")
    elif "://" in text:
        scheme = text.partition("://")[0]
        raise StoreError(f"stores of the kind {scheme}:// are not supported: give a file, or sqlite:///FILE")
    if not text:
        raise StoreError("the store has no name: give a file with --store, or set AMBER_STORE")
    return Path(text)


def see_file(path: Path) -> None:
    """Raises StoreError for a folder, which SQLite opens, and then calls a failing disk."""
    if path.is_dir():
        raise StoreError(f"{path} is a folder: name a file")


def open_reader(path: Path) -> Any:
    """A read-only connection of the driver itself: importing SQLAlchemy would double the time of a short command."""
    with translated(path):
        see_file(path)
        if not path.exists():
            raise StoreError(f"there is no store at {path}: name one with --store, or start one with `amber run`")
        connection = sqlite.connect(
            f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None, check_same_thread=False
        )
        try:
            connection.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
            connection.execute("PRAGMA query_only=1")
            connection.execute("PRAGMA cache_size=-16000")
            check_identity(path, *identity(connection))
        except BaseException:
            connection.close()
            raise
        return connection


def open_writer(path: Path) -> Connection:
    """The one connection that writes, with its settings read back. Creates an empty file where there is none."""
    from sqlalchemy import create_engine
    from sqlalchemy.pool import NullPool

    def connect() -> Any:
        return sqlite.connect(
            path.absolute().as_uri(), uri=True, isolation_level=None, check_same_thread=False, cached_statements=256
        )

    engine = create_engine("sqlite://", module=sqlite, creator=connect, poolclass=NullPool)
    with translated(path):
        see_file(path)
        connection = engine.connect()
        try:
            connection.exec_driver_sql(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
            check_identity(path, *identity(connection.connection.driver_connection))
            connection.exec_driver_sql(f"PRAGMA page_size={PAGE_BYTES}")
            settle(connection, path, "journal_mode", "WAL", "wal")
            settle(connection, path, "synchronous", "FULL", 2)
            connection.exec_driver_sql(f"PRAGMA wal_autocheckpoint={CHECKPOINT_PAGES}")
            connection.exec_driver_sql("PRAGMA journal_size_limit=16777216")
            connection.exec_driver_sql("PRAGMA cache_size=-32000")
            connection.exec_driver_sql("PRAGMA temp_store=MEMORY")
        except BaseException:
            connection.close()
            raise
        return connection


def open_writer_beside(path: Path) -> Any:
    """The driver's own connection, for few rows now and then beside the gateway; commits with `beside` are synced."""
    open_reader(path).close()  # it must be there
    with translated(path):
        connection = sqlite.connect(
            f"{path.absolute().as_uri()}?mode=rw", uri=True, isolation_level=None, check_same_thread=False
        )
        try:
            see_version(path, connection.execute("PRAGMA user_version").fetchone()[0])
            connection.execute(f"PRAGMA busy_timeout={PATIENCE_MS}")
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute(f"PRAGMA wal_autocheckpoint={5 * CHECKPOINT_PAGES}")
        except BaseException:
            connection.close()
            raise
        return connection


@contextlib.contextmanager
def beside(connection: Any, path: Path) -> Iterator[None]:
    """A transaction of `open_writer_beside`: all or nothing, committed when it returns. Raises StoreError."""
    with translated(path):
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            connection.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(Exception):  # a rollback that fails has nothing left to roll back
                connection.execute("ROLLBACK")
            raise


def see_version(path: Path, version: int) -> None:
    """Raises StoreError where the tables of a store are not those of today."""
    if version != SCHEMA_VERSION:
        raise StoreError(f"{path} was written by an older Amber: `amber run` brings it up to date")


def open_beside(path: Path) -> Connection:
    """A connection that writes beside the gateway: waits for it patiently, and leaves the checkpoints to it.

    A commit here is not synced at once. After a power cut it may be undone, whole, as if it had not happened.
    """
    open_reader(path).close()  # it must be there
    connection = open_writer(path)
    try:
        with translated(path):
            see_version(path, connection.exec_driver_sql("PRAGMA user_version").scalar_one())
            connection.exec_driver_sql(f"PRAGMA busy_timeout={PATIENCE_MS}")
            connection.exec_driver_sql("PRAGMA synchronous=NORMAL")
            connection.exec_driver_sql(f"PRAGMA wal_autocheckpoint={5 * CHECKPOINT_PAGES}")
    except BaseException:
        connection.close()
        raise
    return connection


def settle(connection: Connection, path: Path, pragma: str, value: str, expected: object) -> None:
    """Set a pragma that the promise rests on, and read it back: SQLite ignores what it cannot do without a word."""
    connection.exec_driver_sql(f"PRAGMA {pragma}={value}")
    got = connection.exec_driver_sql(f"PRAGMA {pragma}").scalar_one()
    if got != expected:
        raise StoreError(
            f"{path}: SQLite answers {pragma}={got} where {value} is needed: put the store on a local file system"
        )


def identity(connection: Any) -> tuple[int, int, int]:
    """What the file says of itself: application id, schema version, number of tables."""
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    return application, version, tables


def check_identity(path: Path, application: int, version: int, tables: int) -> None:
    if tables and application != APPLICATION_ID:
        raise StoreDamaged(f"{path} is a SQLite database, but not an Amber store: name another with --store")
    if version > SCHEMA_VERSION:
        raise StoreDamaged(
            f"{path} was written by a newer Amber (schema {version}; this one knows {SCHEMA_VERSION}): update Amber"
        )


@contextlib.contextmanager
def translated(path: Path) -> Iterator[None]:
    """Raise the errors of SQLite and SQLAlchemy as errors of the store."""
    try:
        yield
    except StoreError:
        raise
    except Exception as error:
        store_error = translate(error, path)
        if store_error is None:
            raise
        raise store_error from error


def translate(error: Exception, path: Path) -> StoreError | None:
    """The store's word for an error of SQLite, or None where it is no such error."""
    cause = getattr(error, "orig", None) or error
    if isinstance(cause, OSError):
        return StoreFailing(f"{path}: {cause.strerror or cause}")
    if not isinstance(cause, sqlite.Error):
        return None
    code = (getattr(cause, "sqlite_errorcode", None) or 0) & 0xFF
    if code == sqlite.SQLITE_FULL:
        return StoreFull(f"the disk under {path} is full: make room, or move the store")
    if code in (sqlite.SQLITE_BUSY, sqlite.SQLITE_LOCKED):
        return StoreBusy(f"{path} is locked by another program: close what writes to it")
    if code == sqlite.SQLITE_NOTADB:  # also a store whose first bytes are overwritten
        return StoreDamaged(
            f"{path} is no SQLite database, or its beginning is damaged: name a store, or bring back a backup"
        )
    if code == sqlite.SQLITE_CORRUPT:
        return StoreDamaged(f"{path} is damaged ({cause}): move it away or bring back a backup, then start again")
    if code == sqlite.SQLITE_IOERR:
        return StoreFailing(f"the disk under {path} fails ({cause}): look at the system's log")
    if code in (sqlite.SQLITE_CANTOPEN, sqlite.SQLITE_READONLY, sqlite.SQLITE_PERM):
        return StoreError(f"cannot open {path} ({cause}): see that its folder exists and may be written to")
    return None


@contextlib.contextmanager
def transaction(connection: Connection, path: Path) -> Iterator[None]:
    """All that is written within, or nothing; committed when it returns. Raises StoreError."""
    with translated(path):
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        try:
            yield
            connection.commit()
        except BaseException:
            with contextlib.suppress(Exception):  # a rollback that fails has nothing left to roll back
                connection.rollback()
            raise


def data_version(connection: Connection) -> int:
    """Another number when somebody else has committed; asked within a transaction, it stays so until its end."""
    driver: Any = connection.connection.driver_connection
    version: int = driver.execute("PRAGMA data_version").fetchone()[0]
    return version


class Lock:
    """One of a kind per store, a gateway or a `holder` of another kind: an advisory lock on a file beside the store.

    It is gone with the process however that ends.
    """

    def __init__(self, path: Path, holder: str = "gateway", suffix: str = ".lock") -> None:
        with translated(path):
            see_file(path)  # before a name is made of it: `.` has none
            self.path = path.with_name(path.name + suffix)
            self._is_new = not self.path.exists()
        self._take(path, holder)
        while not self._is_there():  # its last holder removed it after we had opened it: the next one makes another
            os.close(self._file)
            self._take(path, holder)
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        os.close(self._file)

    def remove_file(self) -> None:
        """Leave nothing behind; it is held until `release`, and whoever then takes it makes a file of his own."""
        if self._is_there():
            self.path.unlink()

    def undo(self) -> None:
        """Let go as if it had never been taken: the file goes if it was made for this, an older one stays."""
        if self._is_new:
            with contextlib.suppress(OSError):  # why it is undone is what is to be told
                self.remove_file()
        self.release()

    def _take(self, path: Path, holder: str) -> None:
        try:
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise StoreError(f"cannot create {self.path} ({error.strerror}): see that its folder exists") from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            owner = os.pread(self._file, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(self._file)
            raise StoreBusy(f"{path} is in use by another {holder} (process {owner}){STOP_IT}") from error

    def _is_there(self) -> bool:
        """Whether what is locked is still the file that others find."""
        status = os.fstat(self._file)
        return _inode(str(self.path)) == (status.st_dev, status.st_ino)


class Watch:
    """Sees that the database and its write-ahead log are still the files that were opened."""

    def __init__(self, path: Path) -> None:
        self._files = str(path), f"{path}-wal"
        self.opened = self._look()

    def check(self) -> None:
        """Raises StoreGone: SQLite goes on saying ok when its file is deleted or replaced."""
        if self._look() != self.opened:
            raise StoreGone(f"{self._files[0]} was deleted or replaced while the gateway wrote to it: opening it anew")

    def put_orphan_aside(self) -> None:
        """Move a write-ahead log away from a database that it does not belong to: SQLite would play it into it."""
        database, wal = self._look()
        if database != self.opened[0] and wal == self.opened[1] and wal is not None:
            Path(self._files[1]).replace(f"{self._files[1]}.orphan")

    def _look(self) -> tuple[tuple[int, int] | None, tuple[int, int] | None]:
        return _inode(self._files[0]), _inode(self._files[1])


def _inode(file: str) -> tuple[int, int] | None:
    try:
        status = Path(file).stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def see_room(path: Path, floor_bytes: int) -> None:
    """Raises StoreFull where the disk under `path` has less room left for us than the floor."""
    status = os.statvfs(path.parent)
    free = status.f_bavail * status.f_frsize
    if free < floor_bytes:
        raise StoreFull(
            f"the disk under {path} has {free >> 20} MB left, and {floor_bytes >> 20} MB must stay free: make room, "
            "or lower segments.free_floor_mb"
        )
