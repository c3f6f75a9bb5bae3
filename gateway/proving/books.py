"""The books: temporary tables in which the messages of ledgers and the contents of a store meet, however many they are.

They stand in a file without a name in the system's folder for such, which is gone however the process ends.
"""

from __future__ import annotations

import os
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from functools import lru_cache
from types import TracebackType
from typing import Any, NamedTuple, Self

import msgspec

from devices.clock import microseconds
from devices.errors import DeviceError
from devices.ledger import Record
from storage.errors import AmberError, StoreError

HELD_MESSAGES = 20_000
"""An answer comes soon after its message: held back until so many have followed, most make one row of the table."""

CACHE_KB = 24_000
"""SQLite sorts on the disk what takes more."""

# Without an adapter of their own, each bool and None is searched for one while it is bound, as in storage/engine.py.
sqlite3.register_adapter(bool, int)
sqlite3.register_adapter(type(None), lambda none: none)

EXPECTATIONS = "event", "rejection", "any"


class BooksError(AmberError):
    """A ledger that contradicts itself."""


Name = tuple[str, str, int, int, int]
"""Device, boot, seq, part and copy."""

NOWHERE = (-1, 0, 0)


class Line(msgspec.Struct, gc=False):
    """What some lines of a ledger say of one message. `said` is the first that was `sent`."""

    said: Record | None = None
    sent: int = 0
    first_sent: int | None = None
    acked_at: int | None = None
    receipted_at: int | None = None
    clash: bool = False


class Kept(NamedTuple):
    """A message of the store: on a topic of the ledger (`ours`), received `within` its time, or long after (`late`)."""

    id: int
    digest: int
    rejected: bool
    conflict: bool
    ours: bool
    within: bool
    late: bool


class Names(dict[str, int]):
    """Texts as numbers, and back by their place."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def __missing__(self, text: str) -> int:
        self.texts.append(text)
        number = self[text] = len(self.texts) - 1
        return number


class Books:
    """Open until the block ends."""

    def __init__(self) -> None:
        self.devices, self.boots, self.topics, self.faults = Names(), Names(), Names(), Names()
        self._young: dict[Name, Line] = {}
        self._old: dict[Name, Line] = {}
        self._last: dict[tuple[int, int], tuple[int, int, int]] = {}
        self._in_order = True
        with said():
            # Python's own SQLite, not the one that is wheeled in for the store: that is built to sort, and to keep
            # files without a name, in memory (TEMP_STORE=3), which here has no end.
            file, path = tempfile.mkstemp(prefix="amber-verify-", dir=os.environ.get("TMPDIR") or None)
            os.close(file)
            try:
                self.connection = sqlite3.connect(path, isolation_level=None)
                for pragma in (
                    f"cache_size=-{CACHE_KB}",
                    "temp_store=FILE",
                    "locking_mode=EXCLUSIVE",
                    "journal_mode=OFF",
                    "synchronous=OFF",
                ):
                    self.connection.execute(f"PRAGMA {pragma}")
                self.connection.executescript(_TABLES)
            finally:
                os.unlink(path)  # noqa: PTH108 - it is a name, and we have the file
            self.connection.execute("BEGIN")  # never committed: it need not outlive us

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.connection.close()

    def enter(self, pages: Iterable[Sequence[Record]]) -> None:
        """Take in lines of ledgers. Raises DeviceError for a time or a digest that there is not."""
        for page in pages:
            self._note(page)
            if len(self._young) > HELD_MESSAGES:
                self._write()

    def close_ledgers(self) -> None:
        """All lines are in. Raises BooksError where one message has two contents."""
        self._write()
        self._write()
        with said():
            for statement in (*([] if self._in_order else _MERGE), _INDEX):
                self.connection.execute(statement)
        for device, boot, seq in self.rows("SELECT device, boot, seq FROM messages WHERE clash LIMIT 1"):
            raise BooksError(
                f"the ledger has two contents for message {seq} of {self.devices.texts[device]}, boot "
                f"{self.boots.texts[boot]}: these are two runs with one seed and start, which need a ledger each"
            )

    def keep(self, kept: Iterable[Kept]) -> None:
        """Take in messages of the store; those that are known already stay as they are."""
        with said():
            self.connection.executemany("INSERT OR IGNORE INTO stored VALUES (?, ?, ?, ?, ?, ?, ?)", kept)

    def knows(self, digest: int) -> bool:
        return bool(self.rows("SELECT 1 FROM messages WHERE digest = ? LIMIT 1", digest))

    def close_store(self) -> None:
        """Sum up what was kept so far, by content."""
        with said():
            self.connection.execute("DELETE FROM contents")
            self.connection.execute(_SUM_UP)

    def rows(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        return list(self.each(sql, *values))

    def each(self, sql: str, *values: object) -> Iterator[tuple[Any, ...]]:
        with said():
            yield from self.connection.execute(sql, values)

    def run(self, sql: str, *values: object) -> None:
        with said():
            self.connection.execute(sql, values)

    def _note(self, page: Sequence[Record]) -> None:
        """Add what the lines say to what is held of their messages."""
        young, old = self._young, self._old
        for record in page:
            name = record.device, record.boot, record.seq, record.part, record.copy
            line = young.get(name) or old.get(name)
            if line is None:
                line = young[name] = Line()
            at, state = record.at, record.state
            try:
                time = SECONDS[at[:19]] + int(at[20:26])
            except ValueError as error:
                raise _no_line(record, error) from error
            if state == "sent":
                line.sent += 1
                line.first_sent = time if line.first_sent is None else min(line.first_sent, time)
                if line.said is None:
                    line.said = record
                else:
                    line.clash |= line.said.digest != record.digest
            elif state == "acked":
                line.acked_at = time if line.acked_at is None else min(line.acked_at, time)
            else:
                line.receipted_at = time if line.receipted_at is None else min(line.receipted_at, time)

    def _write(self) -> None:
        """What has been held for long enough goes to the table."""
        rows = [self._row(name, line) for name, line in self._old.items()]
        self._old, self._young = self._young, {}
        with said():
            self.connection.executemany(_ENTER, rows)

    def _row(self, of: Name, line: Line) -> tuple[int | None, ...]:
        device, boot, seq, part, copy = of
        name = *self._placed(self.devices[device], self.boots[boot], (seq, part, copy)), seq, part, copy
        times = line.sent, line.first_sent, line.acked_at, line.receipted_at, line.clash
        said = line.said
        if said is None:
            return *name, None, None, None, None, None, None, *times
        try:
            digest = number_of(bytes.fromhex(said.digest))
        except ValueError as error:
            raise _no_line(said, error) from error
        traits = said.qos, said.identified, EXPECTATIONS.index(said.expect), self.faults[fault_text(said.faults)]
        return *name, self.topics[said.topic], digest, *traits, *times

    def _placed(self, device: int, boot: int, place: tuple[int, int, int]) -> tuple[int, int]:
        """Sees whether a message has a row already: it has none where it comes after all of its device that have."""
        source = device, boot
        if place > self._last.get(source, NOWHERE):
            self._last[source] = place
        else:
            self._in_order = False
        return source


def number_of(fingerprint: bytes) -> int:
    """A digest as an integer that SQLite can hold."""
    return int.from_bytes(fingerprint, "big", signed=True)


@lru_cache(maxsize=1024)
def fault_text(faults: tuple[str, ...]) -> str:
    return msgspec.json.encode(sorted(set(faults))).decode()


class Seconds(dict[str, int]):
    """Microseconds of the times that ledgers have, cut off after the second. Remembers some of them."""

    def __missing__(self, text: str) -> int:
        if len(self) > REMEMBERED_SECONDS:
            self.clear()
        time = self[text] = microseconds(datetime.fromisoformat(text))
        return time


REMEMBERED_SECONDS = 4096
SECONDS = Seconds()


def _no_line(record: Record, error: ValueError) -> DeviceError:
    return DeviceError(f"{msgspec.json.encode(record).decode()} is not a line of a ledger: {error}")


class said:  # noqa: N801 - it reads as a word of the `with` before it
    """Raises what SQLite has to say of the temporary file as an error of ours."""

    def __enter__(self) -> None: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, sqlite3.Error):
            raise StoreError(
                f"no room for the temporary tables ({error}): set TMPDIR to a folder on a larger disk"
            ) from error
        if isinstance(error, OSError):
            raise StoreError(
                f"cannot make temporary tables ({error.strerror}): set TMPDIR to a folder that may be written to"
            ) from error


_TABLES = """
CREATE TABLE messages (
    device INTEGER, boot INTEGER, seq INTEGER, part INTEGER, copy INTEGER,
    topic INTEGER, digest INTEGER, qos INTEGER, identified INTEGER, expect INTEGER, faults INTEGER,
    sent INTEGER, first_sent INTEGER, acked_at INTEGER, receipted_at INTEGER, clash INTEGER
);
CREATE TABLE stored (
    id INTEGER PRIMARY KEY, digest INTEGER, rejected INTEGER, conflict INTEGER,
    ours INTEGER, within INTEGER, late INTEGER
);
CREATE TABLE contents (
    digest INTEGER PRIMARY KEY, stored INTEGER, late INTEGER, rejected INTEGER, first_id INTEGER, unrecorded INTEGER,
    unknown INTEGER
);
CREATE TABLE broken (digest INTEGER PRIMARY KEY, lost INTEGER, repeated INTEGER);
"""

_ENTER = f"INSERT INTO messages VALUES ({', '.join('?' * 16)})"

# Only where a message may have several rows: mostly the lines come in an order that rules it out.
_MERGE = (
    "CREATE INDEX by_name ON messages(device, boot, seq, part, copy)",
    """
    CREATE TABLE merged AS
    SELECT device, boot, seq, part, copy, max(topic), max(digest), max(qos), max(identified), max(expect), max(faults),
        sum(sent), min(first_sent), min(acked_at), min(receipted_at),
        max(clash) OR ifnull(min(digest) <> max(digest), 0)
    FROM messages INDEXED BY by_name GROUP BY device, boot, seq, part, copy HAVING count(*) > 1
    """,
    """
    DELETE FROM messages WHERE rowid IN (
        SELECT m.rowid FROM merged AS one CROSS JOIN messages AS m INDEXED BY by_name
        USING (device, boot, seq, part, copy)
    )
    """,
    "INSERT INTO messages SELECT * FROM merged",
    "DROP TABLE merged",
    "DROP INDEX by_name",
)
_INDEX = """
CREATE INDEX by_digest
ON messages(digest, device, qos, faults, identified, expect, sent, first_sent, acked_at, receipted_at)
"""
"""All that a judgement needs, in the order of the contents."""
_SUM_UP = """
INSERT INTO contents
SELECT digest, sum(NOT late), sum(late), sum(rejected), min(id), sum(ours AND within AND NOT rejected),
    sum(rejected AND within)
FROM stored GROUP BY digest
"""
