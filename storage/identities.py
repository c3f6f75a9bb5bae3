"""What an event's sender calls it, and what the writer remembers of it. Never decides what becomes of an event."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from storage import segments
from storage.event import EVENTS_PER_MESSAGE, Event
from storage.sequences import MARK, TAIL, Boot, Row, Sequence, Stated, decode_stated, numbered

if TYPE_CHECKING:
    from sqlalchemy import Connection

REMEMBERED_BOOTS = 100_000
"""Starts of devices in memory; a store may have more, which are looked up again when something of them comes."""

REMEMBERED_RANGES = 1_000_000
"""Of all these starts together."""

REMEMBERED_IDS = 100_000
"""Events whose identity no table finds: those with an id of their own, and those that bear no time of their device."""

SCANNED_EVENTS = 1_000_000
"""When a store is opened, about so many events are looked through for them."""

REMEMBERED_MESSAGES = 16
"""With one identity, each with other content."""

Group = tuple[int, str] | tuple[int, str, int, str, str]
"""What the numbers of events are unique in: a start of a device. Or an id that its sender gave to one event: that is
unique among events of a kind and type of a device, heard by one way. Request and answer may share theirs."""

NO_NUMBER = 0
"""Of an event that has an id instead."""


class Identity(NamedTuple):
    """Which event it is."""

    group: Group
    number: int


def identity(device_id: int, kind_id: int, seq: int | None, detail: Stated) -> Identity | None:
    """The identity of an event that is in the log; None where it has none."""
    if detail.boot and seq is not None and seq >= 0:
        return Identity((device_id, detail.boot), seq)
    if detail.source_id:
        words = detail.vendor_type or "", detail.via or ""
        return Identity((device_id, detail.source_id, kind_id, *words), NO_NUMBER)
    return None


def told_identity(event: Event) -> str | None:
    """What an event calls itself, as JSON: by this it is known again when its message is read again."""
    detail = event.detail
    if detail is None:
        return None
    if detail.boot and event.seq is not None and event.seq >= 0:
        return msgspec.json.encode((detail.boot, event.seq)).decode()
    return msgspec.json.encode((detail.source_id,)).decode() if detail.source_id else None


class Sequences(dict[Boot, Sequence]):
    """The numbers seen of each start of a device; those that are not in memory come from the table.

    The table speaks of the log up to a mark. What stands behind that is read when first something is asked.
    """

    def __init__(self, connection: Connection) -> None:
        super().__init__()
        self._connection = connection
        # One row for each of the devices of a large fleet: SQLAlchemy's result would cost ten times the query.
        self._driver: Any = connection.connection.driver_connection
        self._changed: list[Boot] = []
        self._caught_up = False

    def __missing__(self, boot: Boot) -> Sequence:
        row = self._driver.execute(_ROW, boot).fetchone()
        found = self[boot] = Sequence() if row is None else Sequence.of_row(*row)
        return found

    def note(self, boot: Boot, sequence: Sequence) -> None:
        """Have what changed written with the next flush."""
        if not sequence.changed:
            sequence.changed = True
            self._changed.append(boot)

    def catch_up(self) -> None:
        """Take in what the log has behind the mark, unless that has been done."""
        if self._caught_up:
            return
        for boot, number, at in numbered(tail(self._connection)):
            self[boot].take(number, at)
            self.note(boot, self[boot])
        self._caught_up = True

    def flush(self, position: int) -> None:
        """Bring the table up to the end of the log, which is here."""
        self.catch_up()
        self.write(position)
        self._connection.exec_driver_sql(_SET_MARK, (position,))
        if len(self) > REMEMBERED_BOOTS or sum(len(one.starts) for one in self.values()) > REMEMBERED_RANGES:
            self.clear()

    def write(self, position: int) -> None:
        """Put what changed into the table; nothing of it stands beyond the position."""
        rows = [(*boot, *self[boot].row(), position) for boot in self._changed]
        if rows:
            self._connection.exec_driver_sql(_PUT, rows)
        for boot in self._changed:
            self[boot].changed = False
        self._changed.clear()

    def forget(self) -> None:
        """Believe nothing of what is in memory."""
        self.clear()
        self._changed.clear()
        self._caught_up = False


def include(connection: Connection, rows: list[Row]) -> None:
    """Have the table know of events that an exchange has put where it was said that all is known."""
    if not rows:
        return
    sequences = Sequences(connection)
    for boot, number, at in numbered(rows):
        sequences[boot].add(number, at)
        sequences.note(boot, sequences[boot])
    sequences.write(rows[-1][0])


class Recent(dict[int, tuple[int, ...]]):
    """The messages of the latest events that are not found by their time, by a hash of their identity.

    Two identities may share a hash: whoever asks looks into the messages.
    """

    def __init__(self, connection: Connection) -> None:
        super().__init__()
        self._connection = connection
        self._loaded = False

    def note(self, key: int, message_id: int) -> None:
        before = self.get(key, ())
        if message_id not in before:
            self[key] = (*before, message_id)[-REMEMBERED_MESSAGES:]
        if len(self) > REMEMBERED_IDS * 11 // 10:
            for oldest in list(islice(self, len(self) - REMEMBERED_IDS)):
                del self[oldest]

    def load(self) -> None:
        """Read the latest from the end of the log, unless that has been done."""
        if self._loaded:
            return
        rows: list[tuple[int, int]] = []
        scanned = 0
        for segment in reversed(segments.present(self._connection)):
            if scanned >= SCANNED_EVENTS or len(rows) >= REMEMBERED_IDS:
                break
            found = self._connection.exec_driver_sql(_RECENT.format(n=segment.id), (REMEMBERED_IDS - len(rows),))
            rows += _keys(found)
            scanned += segment.events
        for message_id, key in reversed(rows):
            self.note(key, message_id)
        self._loaded = True


def tail(connection: Connection) -> Iterator[Row]:
    """The events with a number behind the mark, in the order of the log."""
    mark = marked(connection)
    for segment in segments.present(connection):
        if segment.sealed_at is None or segment.indexed_to > mark:
            for row in connection.exec_driver_sql(TAIL.format(n=segment.id), {"mark": mark}):
                yield row[0], row[1], row[2], row[3], row[4]


def marked(connection: Connection) -> int:
    """Up to where the table of sequences speaks of the log."""
    mark: int | None = connection.exec_driver_sql(MARK).scalar()
    return mark or 0


def _keys(rows: Iterable[tuple[int, int, int, int | None, str]]) -> Iterator[tuple[int, int]]:
    for id, device_id, kind_id, seq, detail in rows:
        found = identity(device_id, kind_id, seq, decode_stated(detail))
        if found is not None:
            yield id // EVENTS_PER_MESSAGE, hash(found)


_ROW = "SELECT ranges, at, before, restarts FROM sequences WHERE device_id = ? AND boot = ?"
_SET_MARK = (
    "INSERT INTO marks VALUES ('sequences', ?) ON CONFLICT (name) DO UPDATE SET value = max(value, excluded.value)"
)
_PUT = (
    "INSERT INTO sequences VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (device_id, boot) DO UPDATE SET"
    " (ranges, at, before, restarts, position)"
    " = (excluded.ranges, excluded.at, excluded.before, excluded.restarts, max(position, excluded.position))"
)
_RECENT = (
    "SELECT id, device_id, kind_id, seq, detail FROM events_{n} WHERE detail IS NOT NULL AND"
    " (instr(detail, '\"source_id\":') OR (NOT from_device AND seq >= 0 AND instr(detail, '\"boot\":')))"
    " ORDER BY id DESC LIMIT ?"
)
