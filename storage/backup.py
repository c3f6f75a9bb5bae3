"""Copies a store while its gateway writes to it: the whole store as of one moment. Never holds a long read for it.

A long read would keep the writer from starting its write-ahead log over, and so stall the ingest. Segments hardly
change once they are written: they are copied ahead, in many short reads. What changed meanwhile is put right in one
last read, which sees the moment that the copy is of.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from storage.checking import check, is_held
from storage.engine import APPLICATION_ID, PAGE_BYTES, sqlite, translate
from storage.errors import StoreBusy, StoreDamaged, StoreError, StoreFailing, StoreFull, StoreGone
from storage.event import EVENTS_PER_MESSAGE
from storage.snapshot import OpenLog

READ_S = 0.01
"""How long one read takes, about."""

MOST_ROWS = 20_000
MOST_BYTES = 8 << 20
"""What one read copies at most. A single larger payload is copied all the same."""

WRITTEN_BACK_BYTES = 16 << 20
"""So much waits in the kernel's memory at most: the gateway's syncs would wait behind it."""

FLOOR_BYTES = 64 << 20
"""What is left free of the copy's disk, on which a gateway may live, too."""

FEW_MESSAGES = 5_000
"""When no more than these are left to be copied ahead, the last read is short enough."""

MOST_ROUNDS = 8


class BackupError(StoreError):
    """The copy cannot be made where it was asked for, or is not sound."""


class BackedUp(msgspec.Struct, frozen=True):
    """What a copy holds, and how it went; the reads are those of the store."""

    messages: int
    events: int
    position: int
    bytes: int
    seconds: float
    longest_read_s: float
    last_read_s: float


Tell = Callable[[str, int, int], None]
"""What is being done, and how many bytes of about how many are copied."""


def backup(store: Path, target: Path, *, overwrite: bool = False, tell: Tell = lambda *_: None) -> BackedUp:
    """Copy a store to a new file, sound and synced when it returns; it appears there whole or not at all.

    It is written beside as `….part`; one that a killed backup has left is begun anew. Raises StoreError.
    """
    started = time.perf_counter()
    OpenLog(store).close()  # it must be a store of ours
    with errors_of(store, target):
        see_target(store, target, overwrite=overwrite)
    with part_of(store, target) as (part, file):
        expected = store_bytes(store)
        see_room(target, expected)
        with errors_of(store, target), contextlib.closing(Copy(store, part)) as copy:
            for step in paced(copy.steps(), store):
                size = os.fstat(file).st_size
                tell(step, size, max(expected, size))
                if size >= copy.synced_bytes + WRITTEN_BACK_BYTES:
                    os.fdatasync(file)
                    copy.synced_bytes = size
                    see_room(target)
        with errors_of(store, target):
            os.fsync(file)
        size = os.fstat(file).st_size
        tell("verifying", size, size)
        verify(part, target)
        put_in_place(store, part, target, file)
    return BackedUp(
        messages=copy.messages,
        events=copy.events,
        position=copy.position,
        bytes=size,
        seconds=time.perf_counter() - started,
        longest_read_s=copy.longest_read_s,
        last_read_s=copy.last_read_s,
    )


def see_target(store: Path, target: Path, *, overwrite: bool) -> None:
    """Raises BackupError for a place where no copy can be put."""
    part = part_path(target)
    for path in (target, part, beside(target, "-wal"), beside(target, "-shm")):
        for own in (store, beside(store, "-wal"), beside(store, "-shm"), beside(store, ".lock")):
            if path.absolute() == own.absolute() or (path.exists() and own.exists() and path.samefile(own)):
                raise BackupError(f"{target} is the store itself, or belongs to it: name another file")
    if target.is_dir():
        raise BackupError(f"{target} is a folder: name a file in it")
    if not target.parent.is_dir():
        raise BackupError(f"there is no folder {target.parent}: make it first")
    if target.exists():
        if not target.is_file():
            raise BackupError(f"{target} is no ordinary file: name another")
        if not overwrite:
            raise BackupError(f"{target} is there already: name another file, or give --overwrite")
        if is_held(target):
            raise BackupError(f"{target} is in use by a gateway: name another file")
    elif beside(target, "-wal").exists() and not overwrite:
        raise BackupError(f"{target}-wal is there, of a store that is gone: move it away, or give --overwrite")


@contextlib.contextmanager
def part_of(store: Path, target: Path) -> Iterator[tuple[Path, int]]:
    """The empty file that becomes the copy, and a descriptor of it; gone afterwards unless it was put in place."""
    part = part_path(target)
    with errors_of(store, target):
        try:
            file = os.open(part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise BackupError(f"cannot write {part} ({error.strerror}): name another file") from error
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            mine = os.path.samestat(os.fstat(file), part.stat())
        except OSError:
            mine = False
        if not mine or not stat.S_ISREG(os.fstat(file).st_mode):
            raise BackupError(f"another backup writes {part}: wait for it, or name another file")
        try:
            os.ftruncate(file, 0)
            yield part, file
        except BaseException:
            part.unlink(missing_ok=True)
            raise
    finally:
        os.close(file)


def paced(steps: Iterator[str], store: Path) -> Iterator[str]:
    """The steps, with a pause after each for as long as it took while a gateway runs: that wants disk and processor."""
    looked_at, held, began = 0.0, False, time.monotonic()
    for step in steps:
        now = time.monotonic()
        if now - looked_at >= 1:
            looked_at, held = now, is_held(store)
        if held:
            time.sleep(now - began)
        yield step
        began = time.monotonic()


def verify(part: Path, target: Path) -> None:
    """Raises BackupError where the copy is not sound.

    By its pages and counts: single rows are as the store has them, and what is wrong with one there is no reason to
    have no copy at all.
    """
    try:
        broken = [finding for finding in check(part, quick=True) if finding.result == "broken"]
    except StoreDamaged as error:
        raise BackupError(f"the copy is not sound ({error}): try again, to another disk") from error
    if broken:
        raise BackupError(
            f"the copy is not sound ({broken[0].check}: {broken[0].found}), and {target} was not made: "
            "see what `amber check` says of the store"
        )


def put_in_place(store: Path, part: Path, target: Path, file: int) -> None:
    """Give the finished copy its name, as the last thing."""
    with errors_of(store, target):
        os.fchmod(file, stat.S_IMODE(store.stat().st_mode))
        os.fsync(file)
        for suffix in ("-wal", "-shm"):  # SQLite would play another store's log into the copy
            beside(target, suffix).unlink(missing_ok=True)
        part.replace(target)
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


class Copy:
    """A copy that is being made: an empty file becomes the whole store."""

    def __init__(self, store: Path, part: Path) -> None:
        self.messages = self.events = self.position = self.synced_bytes = 0
        self.longest_read_s = self.last_read_s = 0.0
        self._store = store
        self._file = store.stat()
        self._rows = 500
        self._copied: dict[int, tuple[int, int]] = {}
        self._made_after: list[tuple[Any, ...]] = []
        self._connection = sqlite.connect(
            part.absolute().as_uri(), uri=True, isolation_level=None, check_same_thread=False
        )
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._connection.close()

    def steps(self) -> Iterator[str]:
        """Copy it, a short piece at each step; says what was done."""
        tables = self._catalog()
        for table in tables:
            self._create(table)
        summed_from = self._value(_SUMMED)
        exchanged = self._exchanged()
        left: int | None = None
        for _ in range(MOST_ROUNDS):
            yield from self._copy_segments()
            if left is None:
                for table in (*_NAMES, _REJECTIONS, *_ROLLUPS):
                    yield from self._copy_ahead(table)
            before, left = left, self._left()
            if self._settled() and (left <= FEW_MESSAGES or (before is not None and left > before // 2)):
                break  # or ingest is so fast that there will never be less
        self._copy_rest(tables, exchanged, summed_from)
        yield "finishing"
        yield from self._finish()

    def _open(self) -> None:
        run = self._connection.execute
        run(f"PRAGMA page_size={PAGE_BYTES}")
        # What is not finished is thrown away whole: neither a journal nor syncs in between are of any use.
        for pragma in ("journal_mode=OFF", "synchronous=OFF", "locking_mode=EXCLUSIVE", "cache_size=-24000"):
            run(f"PRAGMA main.{pragma}")
        run("PRAGMA busy_timeout=10000")
        run("ATTACH ? AS source", (f"{self._store.absolute().as_uri()}?mode=ro",))
        run("PRAGMA source.cache_size=-16000")
        self._version = self._value("PRAGMA source.user_version")

    def _catalog(self) -> list[str]:
        """All tables but those of segments; also such as this Amber does not know."""
        rows = self._rows_of(
            "SELECT name FROM source.sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite^_%' ESCAPE '^'"
            " AND sql NOT LIKE 'CREATE VIRTUAL %'"
        )
        return [name for (name,) in rows if not _OF_SEGMENT.fullmatch(name)]

    def _create(self, table: str) -> None:
        """Make a table as the source has it."""
        sql = "SELECT sql FROM source.sqlite_master WHERE type = 'table' AND name = ?"
        if found := self._connection.execute(sql, (table,)).fetchone():
            self._run(found[0])

    def _segments(self) -> dict[int, tuple[int, int]]:
        """Segment → how often what had been written of it was changed."""
        rows = self._rows_of("SELECT id, rewritten, removed FROM source.segments ORDER BY id")
        return {id: (rewritten, removed) for id, rewritten, removed in rows}

    def _settled(self) -> bool:
        return self._segments() == self._copied

    def _exchanged(self) -> object:
        """Another value after anything that changes rejections which are there already."""
        return self._segments(), self._rows_of("SELECT value FROM source.marks WHERE name = 'exchanges'")

    def _left(self) -> int:
        """How many messages of the newest segment are still to be copied."""
        n = max(self._copied, default=None)
        if n is None:
            return 0
        ends = [self._value(f"SELECT ifnull(max(id), 0) FROM {schema}.messages_{n}") for schema in ("source", "main")]
        return int(ends[0] - ends[1])

    def _copy_segments(self) -> Iterator[str]:
        """One round: what is new of each segment, and what changed of it."""
        present = self._segments()
        for id in self._copied.keys() - present.keys():
            self._drop(id)
        for id, changes in present.items():
            try:
                if id not in self._copied:
                    self._begin(id)
                elif changes != self._copied[id]:
                    yield from self._mend_segment(id)
                self._copied[id] = changes
                for table in (f"messages_{id}", f"events_{id}"):
                    yield from self._copy_ahead(table)
            except sqlite.OperationalError:
                if id in self._segments():
                    raise
                self._drop(id)  # retention was faster

    def _begin(self, id: int) -> None:
        for table in _tables(id):
            self._create(table)

    def _drop(self, id: int) -> None:
        self._copied.pop(id, None)
        for table in _tables(id):
            self._run(f"DROP TABLE IF EXISTS main.{table}")

    def _copy_ahead(self, table: str) -> Iterator[str]:
        """All rows behind those copied already, up to what is the last one now."""
        key = _KEYS.get(table, "id")
        newest = f"SELECT {key} FROM {{}}.{table} ORDER BY {_backwards(key)} LIMIT 1"
        end = self._connection.execute(newest.format("source")).fetchone()
        if end is None:
            return
        marks = ", ".join("?" * len(end))
        while True:
            begin = self._connection.execute(newest.format("main")).fetchone()
            if begin is not None and begin >= end:
                return
            behind, values = (f"({key}) > ({marks}) AND", begin) if begin else ("", ())
            rows = self._fitting(table, begin) if table.startswith("messages_") else self._rows
            self._read(
                f"INSERT INTO main.{table} SELECT * FROM source.{table} WHERE {behind} ({key}) <= ({marks})"
                f" ORDER BY {key} LIMIT {rows}",
                (*values, *end),
            )
            yield "copying"
            if begin == self._connection.execute(newest.format("main")).fetchone():
                return  # what was the end is there no more

    def _fitting(self, table: str, begin: tuple[int] | None) -> int:
        """How many of the next messages to copy in one read: payloads may be large."""
        rows = self._rows
        while rows > 1:
            sql = f"SELECT sum(length(payload)) FROM (SELECT payload FROM source.{table} WHERE id > ? LIMIT {rows})"
            size = self._connection.execute(sql, begin or (-1,)).fetchone()[0]
            if size is None or size <= MOST_BYTES:
                break
            rows = max(1, rows // 4)
        return rows

    def _mend_segment(self, id: int) -> Iterator[str]:
        """Make what is copied of a segment what it is now, piece by piece."""
        for table in (f"messages_{id}", f"events_{id}"):
            low = -1
            while (high := self._value(_PIECE.format(table=table, low=low, rows=self._rows))) is not None:
                self._mend(table, f"id > {low} AND id <= {high}")
                low = high
                yield "copying what changed"

    def _mend(self, table: str, where: str = "TRUE") -> None:
        """Exchange the rows copied of a table that the source does not have, or has otherwise now."""
        columns = self._rows_of(f"PRAGMA main.table_info({table})")
        names = [_quoted(column[1]) for column in columns]
        key = [_quoted(column[1]) for column in columns if column[5]] or ["rowid"]
        # A message never changes, and its payload may be large.
        compared = key if table.startswith("messages_") else dict.fromkeys((*key, *names))
        same = " AND ".join(f"s.{name} IS c.{name}" for name in compared)
        there = " AND ".join(f"s.{name} = c.{name}" for name in key)
        self._read(
            f"DELETE FROM main.{table} AS c WHERE {where}"
            f" AND NOT EXISTS (SELECT 1 FROM source.{table} AS s WHERE {same})"
        )
        self._read(
            f"INSERT INTO main.{table} SELECT * FROM source.{table} AS s WHERE {where}"
            f" AND NOT EXISTS (SELECT 1 FROM main.{table} AS c WHERE {there})"
        )

    def _copy_rest(self, tables: list[str], exchanged: object, summed_from: int) -> None:
        """In one read: what is left, and what changed since it was copied. The copy is of this moment."""
        started = time.perf_counter()
        self._run("BEGIN")
        present = self._segments()
        if self._value("PRAGMA source.user_version") != self._version:
            raise StoreBusy(f"{self._store} was brought up to date by another Amber meanwhile: start again")
        for id, changes in present.items():
            if id not in self._copied:
                self._begin(id)
            elif changes != self._copied[id]:
                self._mend(f"messages_{id}")
                self._mend(f"events_{id}")
            for table in (f"messages_{id}", f"events_{id}"):
                self._copy_behind(table)
        for table in tables:
            if table in _NAMES:
                self._copy_behind(table)
                self._mend_where_fewer(table)
            elif table == _REJECTIONS:
                self._copy_behind(table)
                if self._exchanged() != exchanged:
                    self._mend(table)
                self._mend_where_fewer(table)  # those of a segment that was dropped before may have been swept since
            elif table in _ROLLUPS:
                # What has changed since says that it goes as far as its summary went then, or farther.
                self._run(
                    f"INSERT OR REPLACE INTO main.{table} SELECT * FROM source.{table} WHERE position >= ?",
                    (summed_from,),
                )
                self._thin(table)
                self._mend_where_fewer(table)
                if self._value(_SUMMED) < summed_from:  # it was begun anew
                    self._mend(table)
            else:
                name = _quoted(table)  # perhaps another's table
                self._run(f"INSERT INTO main.{name} SELECT * FROM source.{name}")
        self._run("DELETE FROM main.sqlite_sequence")
        self._run("INSERT INTO main.sqlite_sequence SELECT * FROM source.sqlite_sequence")
        self._made_after = self._rows_of(_MADE_AFTER)
        for id in self._copied.keys() - present.keys():
            self._drop(id)
        self._leave_remains(max(present, default=0))
        self._run("COMMIT")
        self.last_read_s = time.perf_counter() - started
        self._see_file()

    def _leave_remains(self, newest: int) -> None:
        """Leave out what is left of segments that are being dropped; the gateway looks into the last but one."""
        left = {name for (name,) in self._rows_of(_MESSAGE_TABLES)}
        wanted = {f"messages_{id}" for (id,) in self._rows_of("SELECT id FROM main.segments")}
        if f"messages_{newest - 1}" in left - wanted:
            self._run(f"DROP TABLE IF EXISTS main.messages_{newest - 1}")
            self._create(f"messages_{newest - 1}")
        if left - wanted:
            self._run(_REMAINS)

    def _copy_behind(self, table: str) -> None:
        last = self._value(f"SELECT ifnull(max(id), -1) FROM main.{table}")
        self._run(f"INSERT INTO main.{table} SELECT * FROM source.{table} WHERE id > ? ORDER BY id", (last,))

    def _thin(self, table: str) -> None:
        """Let go of the roll-ups that were let go of: the oldest."""
        self._run(f"DELETE FROM main.{table} WHERE bucket < (SELECT min(bucket) FROM source.{table})")

    def _mend_where_fewer(self, table: str) -> None:
        """Rows that went away show in the number of those that are left."""
        there, here = (self._value(f"SELECT count(*) FROM {schema}.{table}") for schema in ("source", "main"))
        if there != here:
            self._mend(table)

    def _finish(self) -> Iterator[str]:
        """Make what follows from the rest, and let go of the source."""
        self._run("DETACH source")
        segments = self._rows_of(_COPIED_SEGMENTS)
        for id, indexed_to in segments:
            self._run(_INDEX.format(n=id), (indexed_to,))
            self.messages += self._value(f"SELECT count(*) FROM main.messages_{id}")
            self.events += self._value(f"SELECT count(*) FROM main.events_{id}")
            self.position = self._value(f"SELECT max(id) FROM main.events_{id}") or self.position
            yield "indexing"
        for (sql,) in self._made_after:
            self._run(sql)
        self._run(f"PRAGMA main.application_id={APPLICATION_ID}")
        self._run(f"PRAGMA main.user_version={self._version}")
        yield "finished"

    def _see_file(self) -> None:
        """Raises StoreGone where what was copied is no longer the store."""
        try:
            same = os.path.samestat(self._store.stat(), self._file)
        except FileNotFoundError:
            same = False
        if not same:
            raise StoreGone(f"{self._store} was deleted or replaced while it was copied: start again")

    def _read(self, sql: str, values: tuple[object, ...] = ()) -> None:
        """A read of its own, outside of the last one: the number of rows is fitted to the time that it takes."""
        started = time.perf_counter()
        self._run(sql, values)
        took = time.perf_counter() - started
        if not self._connection.in_transaction:
            self.longest_read_s = max(self.longest_read_s, took)
            self._rows = max(1, min(MOST_ROWS, int(self._rows * min(2.0, max(0.25, READ_S / took)))))

    def _run(self, sql: str, values: tuple[object, ...] = ()) -> None:
        self._connection.execute(sql, values)

    def _rows_of(self, sql: str) -> list[tuple[Any, ...]]:
        rows: list[tuple[Any, ...]] = self._connection.execute(sql).fetchall()
        return rows

    def _value(self, sql: str) -> Any:
        return self._connection.execute(sql).fetchone()[0]


def part_path(target: Path) -> Path:
    return beside(target, ".part")


def beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def store_bytes(store: Path) -> int:
    """How large the copy of a store becomes, about."""
    log = OpenLog(store)
    try:
        (used,) = log.rows(
            "SELECT (page_count - freelist_count) * page_size FROM pragma_page_count(),"
            " pragma_freelist_count(), pragma_page_size()"
        )[0]
    finally:
        log.close()
    return int(used)


def see_room(target: Path, wanted: int = 0) -> None:
    """Raises StoreFull where the copy would leave too little of its disk free."""
    status = os.statvfs(target.parent)
    free = status.f_bavail * status.f_frsize
    if free < wanted + FLOOR_BYTES:
        raise StoreFull(
            f"the disk under {target} has {free >> 20} MB left, and the copy needs {(wanted + FLOOR_BYTES) >> 20} MB: "
            "make room, or name a file on another disk"
        )


@contextlib.contextmanager
def errors_of(store: Path, target: Path) -> Iterator[None]:
    """Raise the errors of SQLite as errors of the store or of the copy: only the copy is written."""
    try:
        yield
    except StoreError:
        raise
    except Exception as error:
        mine = translate(error, target)
        if mine is None:
            raise
        raise (mine if isinstance(mine, (StoreFull, StoreFailing)) else translate(error, store) or mine) from error


def _tables(id: int) -> tuple[str, str, str]:
    return f"messages_{id}", f"events_{id}", f"event_index_{id}"


def _backwards(key: str) -> str:
    return ", ".join(f"{column} DESC" for column in key.split(", "))


def _quoted(name: str) -> str:
    return '"{}"'.format(name.replace('"', '""'))


_OF_SEGMENT = re.compile(r"(messages|events|event_index)_\d+")
_NAMES = "topics", "devices", "words", "sessions"  # rows that stay as they are
_REJECTIONS = "rejections"
_ROLLUPS = "rollup_minutes", "rollup_hours"
_KEYS = dict.fromkeys(_ROLLUPS, "bucket, series_id")

_SUMMED = "SELECT ifnull(min(position), 0) FROM source.cursors WHERE kind = 'summary'"
_PIECE = "SELECT max(id) FROM (SELECT id FROM main.{table} WHERE id > {low} ORDER BY id LIMIT {rows})"
_COPIED_SEGMENTS = "SELECT id, indexed_to FROM main.segments ORDER BY id"
_INDEX = (
    "INSERT INTO main.event_index_{n} SELECT device_id, observed_at, id FROM main.events_{n} WHERE id <= ?"
    " ORDER BY device_id, observed_at, id"
)
_MESSAGE_TABLES = "SELECT name FROM source.sqlite_master WHERE type = 'table' AND name GLOB 'messages_[0-9]*'"
_REMAINS = (
    "DELETE FROM main.rejections WHERE NOT EXISTS (SELECT 1 FROM main.segments AS s WHERE message_id >="
    f" s.first_message_id AND (s.sealed_at IS NULL OR message_id <= s.indexed_to / {EVENTS_PER_MESSAGE}))"
)
_MADE_AFTER = (
    "SELECT sql FROM source.sqlite_master WHERE type IN ('index', 'view', 'trigger') AND sql IS NOT NULL"
    " ORDER BY type = 'trigger', type = 'view'"
)
