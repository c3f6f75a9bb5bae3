"""The events of one device, as what is summed up of it is made anew. Runs inside the caller's transaction."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from storage.conditions import as_json
from storage.event import EVENTS_PER_MESSAGE, Value
from storage.names import Names
from storage.segment import Segment
from storage.snapshot import OpenLog
from storage.summaries import HOUR_US, Noted

if TYPE_CHECKING:
    from sqlalchemy import Connection, CursorResult

PAGE_EVENTS = 500

EARLIEST, LATEST = -(2**63), 2**63 - 1
"""A device's clock may say anything that fits a column."""


class Tally(NamedTuple):
    """So many events, the first of them and the last."""

    events: int
    first: int | None
    last: int | None

    def with_(self, other: Tally) -> Tally:
        ids = [id for id in (self.first, self.last, other.first, other.last) if id is not None]
        return Tally(self.events + other.events, min(ids, default=None), max(ids, default=None))


NO_EVENTS = Tally(0, None, None)

Tallies = dict[tuple[Segment, int, int], Tally]
"""What was counted of segments as they were, by device and up to a position: a million events take 0.2 s."""


class NotedRows:
    """Makes of rows what the summaries see."""

    def __init__(self, log: OpenLog) -> None:
        self._words = Names(log, "words", "word", str)

    def __call__(self, rows: Iterable[Sequence[Any]]) -> list[Noted]:
        words = self._words
        return [
            Noted(id, device, words[kind], kind, format, observed, received, decode(readings), detail)
            for id, device, kind, format, observed, received, readings, detail in rows
        ]


class Past:
    """The log as it is now, for one device: its events by the index and behind it."""

    def __init__(self, connection: Connection, noted: NotedRows, device_id: int) -> None:
        self._connection = connection
        self._noted = noted
        self._device_id = device_id
        self._behind: dict[int, list[Noted]] = {}
        columns = ", ".join(Segment.__struct_fields__)
        rows = connection.exec_driver_sql(f"SELECT {columns} FROM segments ORDER BY id DESC")
        self.segments = [Segment(*row) for row in rows]
        """The newest first."""

    def of_hours(self, hours: Sequence[int], kinds: Sequence[str] = ()) -> Iterator[Noted]:
        """What was observed in these hours, the numbers of hours since the epoch; only of these kinds, if any."""
        for segment in self.segments:
            for hour in hours:
                first, last = max(hour * HOUR_US, EARLIEST), min((hour + 1) * HOUR_US - 1, LATEST)
                yield from self.indexed(segment, first, last, kinds)
            for event in self.behind(segment, kinds):
                if event.observed_at // HOUR_US in hours:
                    yield event

    def all(self, kinds: Sequence[str] = ()) -> Iterator[Noted]:
        for segment in self.segments:
            yield from self.behind(segment, kinds)
            yield from self.indexed(segment, kinds=kinds)

    def indexed(
        self, segment: Segment, first: int = EARLIEST, last: int = LATEST, kinds: Sequence[str] = ()
    ) -> Iterator[Noted]:
        """What was observed from `first` to `last`, newest first, as far as the index goes; read as it is asked for."""
        if segment.observed_from is None or segment.observed_to is None:
            return
        if first <= segment.observed_to and last >= segment.observed_from:
            sql = _INDEXED_OF_KINDS if kinds else _INDEXED
            values = (self._device_id, first, last, as_json(kinds)) if kinds else (self._device_id, first, last)
            for rows in self._rows(sql, segment, *values).partitions(PAGE_EVENTS):
                yield from self._noted(rows)

    def behind(self, segment: Segment, kinds: Sequence[str] = ()) -> list[Noted]:
        """What the index does not know yet, in the order of the log."""
        if segment.sealed_at is not None:
            return []
        if segment.id not in self._behind:
            rows = self._rows(_BEHIND, segment, segment.indexed_to, self._device_id)
            self._behind[segment.id] = self._noted(rows)
        return [event for event in self._behind[segment.id] if not kinds or event.kind in kinds]

    def event(self, id: int) -> Noted | None:
        """An event as it is now; None where it is gone, or is another device's."""
        segment = self._segment_of(id)
        found = [] if segment is None else self._noted(self._rows(_EVENT, segment, id, self._device_id))
        return found[0] if found else None

    def dropped(self, event_id: int) -> bool:
        """Whether retention has taken the message of an event out of the log."""
        segment = self._segment_of(event_id)
        return segment is None or self._rows(_MESSAGE, segment, event_id // EVENTS_PER_MESSAGE).first() is None

    def tally(self, up_to: int, known: Tallies) -> Tally:
        """How many events there are up to a position, the first and the last; looks only at segments not `known`."""
        total = NO_EVENTS
        for segment in self.segments:
            ids = [event.id for event in self.behind(segment) if event.id <= up_to]
            if ids:
                total = total.with_(Tally(len(ids), ids[0], ids[-1]))
            key = segment, self._device_id, min(up_to, segment.indexed_to)
            if key not in known:
                known[key] = Tally._make(self._rows(_TALLY, segment, self._device_id, up_to).one())
            total = total.with_(known[key])
        return total

    def _segment_of(self, event_id: int) -> Segment | None:
        """The segment in which an event with this id stands or stood; None where retention has dropped that."""
        return next((one for one in self.segments if one.first_event_id <= event_id), None)

    def _rows(self, sql: str, segment: Segment, *values: object) -> CursorResult[Any]:
        return self._connection.exec_driver_sql(sql.replace("{n}", str(segment.id)), values)


COLUMNS = "e.id, e.device_id, e.kind_id, e.format_id, e.observed_at, m.received_at, e.readings, e.detail"
"""Of an event and its message, for `NotedRows`."""

_SELECT = f"SELECT {COLUMNS} FROM"
_MESSAGES = f"messages_{{n}} AS m ON m.id = e.id / {EVENTS_PER_MESSAGE}"
_FROM_INDEX = (
    f"{_SELECT} event_index_{{n}} AS i CROSS JOIN events_{{n}} AS e ON e.id = i.event_id CROSS JOIN {_MESSAGES}"
    " WHERE i.device_id = ? AND i.observed_at BETWEEN ? AND ?"
)
_NEWEST_FIRST = "ORDER BY i.observed_at DESC, i.event_id DESC"
_INDEXED = f"{_FROM_INDEX} {_NEWEST_FIRST}"
_INDEXED_OF_KINDS = (
    f"{_FROM_INDEX} AND e.kind_id IN (SELECT id FROM words WHERE word IN (SELECT value FROM json_each(?)))"
    f" {_NEWEST_FIRST}"
)
_BEHIND = f"{_SELECT} events_{{n}} AS e CROSS JOIN {_MESSAGES} WHERE e.id > ? AND e.device_id = ? ORDER BY e.id"
_EVENT = f"{_SELECT} events_{{n}} AS e CROSS JOIN {_MESSAGES} WHERE e.id = ? AND e.device_id = ?"
_MESSAGE = "SELECT 1 FROM messages_{n} WHERE id = ?"
_TALLY = "SELECT count(*), min(event_id), max(event_id) FROM event_index_{n} WHERE device_id = ? AND event_id <= ?"

decode = msgspec.json.Decoder(dict[str, Value]).decode
