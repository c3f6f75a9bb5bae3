"""The books: temporary tables in which the messages of ledgers and the contents of a store meet, however many they are.

They stand in a file without a name in the system's folder for such, which is gone however the process ends.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator
from datetime import datetime
from functools import lru_cache
from itertools import islice
from types import TracebackType
from typing import Any, Self

import msgspec

from devices.clock import microseconds
from devices.errors import DeviceError
from devices.ledger import Record
from storage.engine import sqlite
from storage.errors import AmberError, StoreError

LINES_AT_ONCE = 20_000
"""An answer comes soon after its message: most then make one row before they reach the table."""

CACHE_KB = 24_000

EXPECTATIONS = "event", "rejection", "any"


class BooksError(AmberError):
    """A ledger that contradicts itself."""


class Line(msgspec.Struct, gc=False):
    """What some lines of a ledger say of one message."""

    topic: int | None = None
    digest: int | None = None
    qos: int | None = None
    identified: bool | None = None
    expect: int | None = None
    faults: int | None = None
    sent: int = 0
    first_sent: int | None = None
    acked_at: int | None = None
    receipted_at: int | None = None
    clash: bool = False


class Kept(msgspec.Struct, frozen=True, gc=False):
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
        with said():
            # Not SQLite's own nameless file: the wheel's SQLite is built to keep that in memory (TEMP_STORE=3).
            file, path = tempfile.mkstemp(prefix="amber-verify-")
            os.close(file)
            try:
                self.connection: Any = sqlite.connect(path, isolation_level=None)
                for pragma in (
                    f"cache_size=-{CACHE_KB}",
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

    def enter(self, records: Iterable[Record]) -> None:
        """Take in lines of ledgers. Raises DeviceError for a time or a digest that there is not."""
        records = iter(records)
        while page := list(islice(records, LINES_AT_ONCE)):
            lines = self._folded(page)
            rows = ((*key, *msgspec.structs.astuple(line)) for key, line in lines.items())
            with said():
                self.connection.executemany(_ENTER, rows)

    def close_ledgers(self) -> None:
        """All lines are in. Raises BooksError where one message has two contents."""
        with said():
            self.connection.execute("CREATE INDEX by_digest ON messages(digest)")
        for device, boot, seq in self.rows("SELECT device, boot, seq FROM messages WHERE clash LIMIT 1"):
            raise BooksError(
                f"the ledger has two contents for message {seq} of {self.devices.texts[device]}, boot "
                f"{self.boots.texts[boot]}: these are two runs with one seed and start, which need a ledger each"
            )

    def keep(self, kept: Iterable[Kept]) -> None:
        """Take in messages of the store; those that are known already stay as they are."""
        with said():
            self.connection.executemany(
                "INSERT OR IGNORE INTO stored VALUES (?, ?, ?, ?, ?, ?, ?)", map(msgspec.structs.astuple, kept)
            )

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

    def _folded(self, page: list[Record]) -> dict[tuple[int, int, int, int, int], Line]:
        """What the lines say, by the message's name."""
        devices, boots = self.devices, self.boots
        lines: dict[tuple[int, int, int, int, int], Line] = {}
        for record in page:
            key = devices[record.device], boots[record.boot], record.seq, record.part, record.copy
            line = lines.get(key)
            if line is None:
                line = lines[key] = Line()
            try:
                at = micros(record.at)
                if record.state == "sent":
                    self._note_sent(line, record, at)
                elif record.state == "acked":
                    line.acked_at = at if line.acked_at is None else min(line.acked_at, at)
                else:
                    line.receipted_at = at if line.receipted_at is None else min(line.receipted_at, at)
            except ValueError as error:
                text = msgspec.json.encode(record).decode()
                raise DeviceError(f"{text} is not a line of a ledger: {error}") from error
        return lines

    def _note_sent(self, line: Line, record: Record, at: int) -> None:
        digest = number_of(record.digest)
        line.sent += 1
        if line.digest is not None:
            line.clash |= line.digest != digest
            line.first_sent = at if line.first_sent is None else min(line.first_sent, at)
            return
        line.topic, line.digest, line.first_sent = self.topics[record.topic], digest, at
        line.qos, line.identified, line.expect = record.qos, record.identified, EXPECTATIONS.index(record.expect)
        line.faults = self.faults[fault_text(record.faults)]


def number_of(digest: str) -> int:
    """A digest as an integer that SQLite can hold."""
    return int.from_bytes(bytes.fromhex(digest), "big", signed=True)


@lru_cache(maxsize=1024)
def fault_text(faults: tuple[str, ...]) -> str:
    return msgspec.json.encode(sorted(set(faults))).decode()


def micros(at: str) -> int:
    """Microseconds of a time as ledgers have it."""
    return _second(at[:19]) * 1_000_000 + int(at[20:26])


@lru_cache(maxsize=4096)
def _second(text: str) -> int:
    return microseconds(datetime.fromisoformat(text)) // 1_000_000


class said:  # noqa: N801 - it reads as a word of the `with` before it
    """Raises what SQLite has to say of the temporary file as an error of ours."""

    def __enter__(self) -> None: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, sqlite.Error):
            raise StoreError(
                f"no room for the temporary tables ({error}): set TMPDIR to a folder on a larger disk"
            ) from error


_TABLES = """
CREATE TABLE messages (
    device INTEGER, boot INTEGER, seq INTEGER, part INTEGER, copy INTEGER,
    topic INTEGER, digest INTEGER, qos INTEGER, identified INTEGER, expect INTEGER, faults INTEGER,
    sent INTEGER, first_sent INTEGER, acked_at INTEGER, receipted_at INTEGER, clash INTEGER,
    PRIMARY KEY (device, boot, seq, part, copy)
) WITHOUT ROWID;
CREATE TABLE stored (
    id INTEGER PRIMARY KEY, digest INTEGER, rejected INTEGER, conflict INTEGER,
    ours INTEGER, within INTEGER, late INTEGER
);
CREATE TABLE contents (
    digest INTEGER PRIMARY KEY, stored INTEGER, late INTEGER, rejected INTEGER, first_id INTEGER
);
CREATE TABLE broken (digest INTEGER PRIMARY KEY, lost INTEGER, repeated INTEGER);
"""

_EARLIER = "{0} = min(ifnull({0}, excluded.{0}), ifnull(excluded.{0}, {0}))"
_ENTER = f"""
INSERT INTO messages VALUES ({", ".join("?" * 16)}) ON CONFLICT DO UPDATE SET
    {
    ", ".join(
        f"{name} = ifnull({name}, excluded.{name})" for name in ("topic", "qos", "identified", "expect", "faults")
    )
},
    {", ".join(_EARLIER.format(name) for name in ("first_sent", "acked_at", "receipted_at"))},
    sent = sent + excluded.sent,
    clash = clash OR excluded.clash OR ifnull(digest <> excluded.digest, 0),
    digest = ifnull(digest, excluded.digest)
"""
_SUM_UP = """
INSERT INTO contents
SELECT digest, sum(NOT late), sum(late), sum(rejected), min(id) FROM stored GROUP BY digest ORDER BY digest
"""
