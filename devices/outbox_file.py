"""The durable outbox: one SQLite file for a fleet, which outlives a kill -9. Knows no connection and no broker.

A message may be sent once its COMMIT is on disk, and is deleted some time after it is settled: what was settled just
before a kill is sent once more, under the same identity. While the disk is full, new messages are refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

import msgspec

from devices.errors import DeviceError
from devices.outbox import Held
from devices.outgoing import Outgoing

if TYPE_CHECKING:
    from devices.fleet import Device

try:
    # The wheel carries SQLite 3.53: 3.7.0 to 3.51.2, Debian 12's among them, can corrupt a database on WAL reset.
    from pysqlite3 import dbapi2 as sqlite
except ImportError:  # no wheel for this platform
    import sqlite3 as sqlite

LIMIT = 1_000_000
"""Messages of all devices, if nothing else is said."""

APPLICATION_ID: Final = 0x416D6F78
"""`Amox`: says that a SQLite file is an outbox."""

VERSION: Final = 1
DROP_WITHIN_S: Final = 0.1
"""How long deletions wait for something to share a COMMIT with."""

TRY_AGAIN_AFTER_S: Final = 0.5
"""When the disk was full."""

LOCK_PATIENCE_S: Final = 3.0
"""The workers of a simulation that was killed end a moment after it."""

BUSY_TIMEOUT_MS: Final = 60_000
"""Several workers write to one file, each in short transactions."""


class Left(msgspec.Struct, frozen=True):
    """What an earlier run has left of one device; `qos` and `receipts` are as its group had them."""

    device: str
    qos: int
    receipts: bool
    held: list[Held]


class Claim:
    """The file, created where there is none, checked, and ours alone: a second simulation on it is refused.

    It is taken before workers are forked, who share it.
    """

    def __init__(self, path: Path, *, patience_s: float = LOCK_PATIENCE_S) -> None:
        self.path = path
        try:
            # Not closed before SQLite's last connection: that would take its own locks on the file away.
            self._lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise DeviceError(f"cannot open the outbox {path}: {error.strerror}") from error
        try:
            self._take_lock(time.monotonic() + patience_s)
            self._check_in()
        except BaseException:
            os.close(self._lock)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._lock)

    @property
    def in_place(self) -> bool:
        """Whether the path still leads to this file; deleted or replaced, nobody would find what is kept."""
        try:
            return os.path.samestat(self.path.stat(), os.fstat(self._lock))
        except FileNotFoundError:
            return False

    def _check_in(self) -> None:
        path = self.path
        with _translated(path), contextlib.closing(_connect(path)) as connection:
            _check(path, connection)
            self.next_row = connection.execute("SELECT coalesce(max(id), 0) + 1 FROM messages").fetchone()[0]

    def _take_lock(self, patience: float) -> None:
        while True:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > patience:
                    raise DeviceError(
                        f"the outbox {self.path} is in use by another simulation: stop it first, or name another file"
                    ) from None
                time.sleep(0.05)
            else:
                return


class OutboxFile:
    """One process's part of the file, with a thread that writes: what is kept during one COMMIT shares the next.

    `limit` bounds its messages, `share` those of one device. Of several workers, each takes every `step`-th row.
    `lost` is how many it had taken and could not write to the end, for want of room.
    """

    def __init__(self, claim: Claim, *, limit: int = LIMIT, share: int = LIMIT, worker: int = 0, step: int = 1) -> None:
        self.path = claim.path
        self.share = share
        self.lost = 0
        self._claim = claim
        self._limit = limit
        self._stuck = ""
        self._next_row = claim.next_row + worker
        self._step = step
        self._count = 0
        self._kept: list[tuple[Held, tuple[object, ...], Callable[[Held], None]]] = []
        self._dropped: list[tuple[int]] = []
        self._changed = threading.Condition()
        self._closing = False
        self._encoder = msgspec.msgpack.Encoder()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._failure: asyncio.Future[None] | None = None
        with _translated(self.path):
            self._connection = _connect(self.path)
        self._thread = threading.Thread(target=self._write, name="outbox", daemon=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._thread.is_alive():
            with self._changed:
                self._closing = True
                self._changed.notify()
            self._thread.join()
        self._connection.close()

    @property
    def trouble(self) -> str:
        """Why it takes nothing more, or nothing now; empty if it does."""
        return f"the outbox {self.path} is full" if self._count >= self._limit else self._stuck

    def left(self, *, mine: Callable[[str], bool] = lambda _: True) -> list[Left]:
        """What an earlier run has left, in the order in which it was put; `mine` says of which devices."""
        decoder = msgspec.msgpack.Decoder(Outgoing)
        found: dict[str, Left] = {}
        with _translated(self.path):
            for row, device, qos, receipts, message in self._connection.execute(
                "SELECT id, device, qos, receipts, message FROM messages ORDER BY id"
            ):
                if not mine(device):
                    continue
                try:
                    held = Held(decoder.decode(message), row)
                except (msgspec.DecodeError, TypeError) as error:
                    raise DeviceError(f"the outbox {self.path} is damaged, in row {row}: {error}") from error
                if device not in found:
                    found[device] = Left(device, qos, bool(receipts), [])
                found[device].held.append(held)
                self._count += 1
        return list(found.values())

    def start(self) -> asyncio.Future[None]:
        """Begin to write, and tell in this event loop what is kept. What it returns gets the error, if one comes."""
        self._loop = asyncio.get_running_loop()
        self._failure = self._loop.create_future()
        self._thread.start()
        return self._failure

    def shelf(self, device: Device) -> DeviceShelf:
        """The place of one device."""
        return DeviceShelf(self, device)

    def keep(self, held: Held, row: tuple[object, ...], kept: Callable[[Held], None]) -> bool:
        """Whether there is room; `kept` hears when it is on disk."""
        if self._stuck or self._count >= self._limit:
            return False
        self._count += 1
        held.row = self._next_row
        self._next_row += self._step
        with self._changed:
            self._kept.append((held, (held.row, *row, self._encoder.encode(held.message)), kept))
            self._changed.notify()
        return True

    def drop(self, held: Held) -> None:
        """Delete it, some time."""
        self._count -= 1
        with self._changed:
            self._dropped.append((held.row,))
            self._changed.notify()

    # --- the thread ---

    def _write(self) -> None:
        try:
            while True:
                kept, dropped, last = self._gathered()
                if (kept or dropped) and not self._written([row for _, row, _ in kept], dropped):
                    self.lost = len(kept) + len(self._kept)
                    return
                self._tell(self._admit, kept)
                if last:
                    return
        except (DeviceError, sqlite.Error) as error:
            failure = error if isinstance(error, DeviceError) else _failing(self.path, error)
            self._tell(self._fail, failure)

    def _gathered(self) -> tuple[list[Any], list[tuple[int]], bool]:
        """Wait until there is something to write."""
        with self._changed:
            self._changed.wait_for(lambda: self._kept or self._dropped or self._closing)
            if not self._kept and not self._closing:
                self._changed.wait_for(lambda: self._kept or self._closing, DROP_WITHIN_S)
            kept, self._kept = self._kept, []
            dropped, self._dropped = self._dropped, []
            return kept, dropped, self._closing

    def _written(self, kept: list[tuple[object, ...]], dropped: list[tuple[int]]) -> bool:
        """Once it is on disk, however long there is no room; False: it was to close, and there still was none."""
        while True:
            last = self._closing
            try:
                self._commit(kept, dropped)
            except sqlite.Error as error:
                if not _may_pass(error):
                    raise
                self._stuck = str(_failing(self.path, error))
            else:
                self._stuck = ""
                return True
            if last:
                return False
            with self._changed:
                self._changed.wait_for(lambda: self._closing, TRY_AGAIN_AFTER_S)

    def _commit(self, kept: list[tuple[object, ...]], dropped: list[tuple[int]]) -> None:
        execute = self._connection.execute
        execute("BEGIN IMMEDIATE")
        try:
            # OR REPLACE: where a COMMIT failed, it may be on disk all the same.
            self._connection.executemany(
                "INSERT OR REPLACE INTO messages (id, device, qos, receipts, message) VALUES (?, ?, ?, ?, ?)", kept
            )
            self._connection.executemany("DELETE FROM messages WHERE id = ?", dropped)
            execute("COMMIT")
        except sqlite.Error:
            if self._connection.in_transaction:  # of some errors SQLite has rolled back itself
                execute("ROLLBACK")
            raise
        if not self._claim.in_place:
            raise DeviceError(f"the outbox {self.path} was deleted or replaced: what waited in it is lost")

    def _tell(self, what: Callable[[Any], None], about: object) -> None:
        if self._loop is None:
            return
        with contextlib.suppress(RuntimeError):  # the loop has ended, and nobody waits any more
            self._loop.call_soon_threadsafe(what, about)

    def _admit(self, kept: list[tuple[Held, object, Callable[[Held], None]]]) -> None:
        for held, _, admit in kept:
            admit(held)

    def _fail(self, error: DeviceError) -> None:
        if self._failure is not None and not self._failure.done():
            self._failure.set_exception(error)


class DeviceShelf:
    """The place of one device in the file."""

    __slots__ = ("_about", "_file")

    def __init__(self, file: OutboxFile, device: Device) -> None:
        self._file = file
        self._about = (device.name, device.group.qos, int(device.group.receipts))

    def keep(self, held: Held, kept: Callable[[Held], None]) -> bool:
        return self._file.keep(held, self._about, kept)

    def drop(self, held: Held) -> None:
        self._file.drop(held)


def _connect(path: Path) -> Any:
    connection = sqlite.connect(path, isolation_level=None, check_same_thread=False)
    connection.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
    connection.execute("PRAGMA synchronous=FULL")
    return connection


def _check(path: Path, connection: Any) -> None:
    """Make an outbox of an empty file, and refuse whatever else is not one, untouched."""
    (identity,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if not (identity or version or tables):
        connection.execute("PRAGMA journal_mode=WAL")
        connection.executescript(
            "BEGIN; CREATE TABLE messages (id INTEGER PRIMARY KEY, device TEXT NOT NULL, qos INTEGER NOT NULL, "
            "receipts INTEGER NOT NULL, message BLOB NOT NULL) STRICT;"
            f"PRAGMA application_id={APPLICATION_ID}; PRAGMA user_version={VERSION}; COMMIT;"
        )
    elif identity != APPLICATION_ID:
        raise DeviceError(f"{path} is not an outbox: name another file")
    elif version != VERSION:
        raise DeviceError(f"the outbox {path} is of version {version}, and this Amber knows {VERSION}")
    (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise _damaged(path, verdict)


def _may_pass(error: sqlite.Error) -> bool:
    """Whether there may be room again, or whoever is in the way may go."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (5, 10, 13)  # BUSY, IOERR, FULL (sqlite.org/rescode.html)


@contextlib.contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite.Error as error:
        raise _failing(path, error) from error


def _failing(path: Path, error: Exception) -> DeviceError:
    code = getattr(error, "sqlite_errorname", "")
    if code == "SQLITE_NOTADB" or "not a database" in str(error):
        return DeviceError(f"{path} is not an outbox: name another file")
    if code.startswith("SQLITE_CORRUPT") or "malformed" in str(error):
        return _damaged(path, str(error))
    return DeviceError(f"cannot write the outbox {path}: {error}")


def _damaged(path: Path, why: str) -> DeviceError:
    why = " ".join(why.split())
    return DeviceError(f"the outbox {path} is damaged ({why}): move it away, and what it holds is lost")
