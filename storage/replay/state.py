"""How things stood at a position of the log: the events that hold the newest value of each series. Never writes."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from heapq import heappop, heappush
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self, TypeVar

import msgspec
from msgspec.structs import replace

from storage.clocks import believed
from storage.conditions import Conditions, Row, as_json, marked, quoted
from storage.event import EVENTS_PER_MESSAGE, Message, StoredEvent, Value
from storage.filters import Clock, Filters
from storage.history import Reader
from storage.replay.pace import time_of
from storage.shapes import Shape, Shapes
from storage.snapshot import OpenLog, Stretch
from storage.summaries import NOT_OF_THE_DEVICE, SeriesIds
from storage.walk import LISTED_DEVICES, SPARSE

NAMES_LOOKED_FOR = 40
"""SQLite looks for names of readings; with more of them it is quicker to look at every event."""

CLOCK_STEP_US = 5_000_000
"""The gateway's clock is set back by no more than this: what stands earlier in the log was received no later."""

FETCHED_EVENTS = 2_000
PAGE_EVENTS = 200

T = TypeVar("T")


class State:
    """The events that hold the newest value of each series up to a position, each once, in their order.

    Of the filters those apply that say which events, and none that says when. Newest is by the device's time, which
    counts as never later than the receipt. What a device was told, or might have, is not its state. Raises StoreError.
    """

    def __init__(self, path: Path, filters: Filters, position: int) -> None:
        self._log = OpenLog(path)
        self._shapes = Shapes(self._log)
        try:
            self._ids = Search(self._log, filters, position).run()
        except BaseException:
            self._log.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._log.close()

    def __len__(self) -> int:
        return len(self._ids)

    def events(self) -> Iterator[list[StoredEvent]]:
        return self._pages(self._shapes.events)

    def messages(self) -> Iterator[list[tuple[StoredEvent, Message]]]:
        return self._pages(self._shapes.messages)

    def _pages(self, shape: Shape[T]) -> Iterator[list[T]]:
        begin = 0
        while begin < len(self._ids):
            ids = self._ids[begin : begin + PAGE_EVENTS]
            with self._log.snapshot():
                stretch = self._log.stretch(ids[0] - 1, ids[-1], newest_first=False)
                if stretch is None:
                    return
                ids = ids[: bisect_right(ids, stretch.high)]
                sql = _WHOLE.format(shape.columns, n=stretch.segment.id)
                rows = self._log.rows(sql, {"ids": as_json(ids.tolist())})
                page = shape.build(rows)
            if page:
                yield page
            begin += len(ids) or 1  # what retention has dropped meanwhile is in no stretch


def start_of(path: Path, filters: Filters, clock: Clock) -> Start:
    """Where a replay begins. Where it would play nothing, it is where its times begin, or the end of the log."""
    with Reader(path) as reader:
        first = next(reader.pages(filters, limit=1), None)
        if first is not None:
            return Start(first[0].id - 1, time_of(first[0], clock))
        anything = Filters(since=filters.since, clock=filters.clock, after=filters.after)
        after = next(reader.pages(anything, limit=1), None)
        return Start(reader.position() if after is None else after[0].id - 1, None)


class Start(NamedTuple):
    """The position before the first event, and that event's time, if there is one."""

    position: int
    first_at: int | None


class Search:
    """Goes back through the log until each series has its newest value.

    It costs memory for each series, and none for each event.
    """

    def __init__(self, log: OpenLog, filters: Filters, position: int) -> None:
        self._log = log
        self._position = position
        self._readings = frozenset(filters.readings)
        untimed = replace(filters, since=None, until=None, after=0, until_position=None)
        self._conditions = Conditions(log.rows, untimed)
        self._series = SeriesIds(log)
        self._unsettled: list[tuple[int, int, int, str]] = []
        self._missing: Counter[str] = Counter()
        self._missing_of = array("q")
        self._open: dict[int, None] = {}
        self._at, self._found = array("q"), array("q")

    def run(self) -> array[int]:
        """The ids of the events."""
        with self._log.snapshot():
            self._begin()
        while self._open and self._position > 0:
            with self._log.snapshot():
                stretch = self._log.stretch(0, self._position, newest_first=True)
                if stretch is None:
                    break
                ids = self._ids_of_few(stretch)
                if ids is None:
                    self._scan(stretch)
                    continue
            self._fetch(stretch, ids)
        return array("q", sorted({id for id in self._found if id}))

    def _begin(self) -> None:
        """What there is to be found."""
        self._conditions.refresh()
        if self._conditions.impossible:
            return
        where = "WHERE true"
        if self._readings:
            where += " AND reading IN (SELECT value FROM json_each(:readings))"
        if self._conditions.devices is not None:
            where += " AND substr(:devices, device_id, 1) = x'01'"
        values = self._conditions.values
        ask = self._log.rows
        series = ask("SELECT ifnull(max(id), 0), ifnull(max(device_id), 0) FROM series")[0]
        self._at = array("q", [-(2**63)]) * (series[0] + 1)
        self._found = array("q", [0]) * (series[0] + 1)
        self._missing_of = array("q", [0]) * (series[1] + 1)
        for device_id, count in ask(f"SELECT device_id, count(*) FROM series {where} GROUP BY device_id", values):
            self._missing_of[device_id] = count
            self._open[device_id] = None
        for reading, count in ask(f"SELECT reading, count(*) FROM series {where} GROUP BY reading", values):
            self._missing[reading] = count
        told = as_json(sorted(NOT_OF_THE_DEVICE))
        ids = ask("SELECT id FROM words WHERE word IN (SELECT value FROM json_each(:told))", {"told": told})
        self._kinds = f" AND e.kind_id NOT IN ({', '.join(str(id) for (id,) in ids)})"

    def _scan(self, stretch: Stretch) -> None:
        """Look at the end of a stretch."""
        events = self._log.scanned_events / max(stretch.events_per_message, 1)
        low = max(stretch.low, stretch.high - int(events * EVENTS_PER_MESSAGE))
        rows = self._select(stretch, "e.id > :low AND e.id <= :high", {"low": low, "high": stretch.high})
        self._note(stretch, rows, low)

    def _ids_of_few(self, stretch: Stretch) -> array[int] | None:
        """Where the events of the devices stand that are still open, if the index tells it more quickly than a scan."""
        if not stretch.indexed or len(self._open) > LISTED_DEVICES:
            return None
        index = (
            f"SELECT event_id FROM event_index_{stretch.segment.id}"
            " WHERE device_id IN (SELECT value FROM json_each(:open)) AND event_id > :low AND event_id <= :high"
            " LIMIT :few"
        )
        few = stretch.events // SPARSE + 1
        values = {"open": as_json(list(self._open)), "low": stretch.low, "high": stretch.high, "few": few}
        ids = self._log.rows(index, values)
        return None if len(ids) >= few else array("q", sorted(id for (id,) in ids))

    def _fetch(self, stretch: Stretch, ids: array[int]) -> None:
        """Look at events of a stretch, the newest first."""
        while ids and self._open:
            part, ids = ids[-FETCHED_EVENTS:], ids[:-FETCHED_EVENTS]
            with self._log.snapshot():
                values = {"ids": as_json(part.tolist())}
                rows = self._select(stretch, "e.id IN (SELECT value FROM json_each(:ids))", values)
                self._note(stretch, rows, part[0] - 1)
        self._position = stretch.low

    def _select(self, stretch: Stretch, where: str, values: Mapping[str, object]) -> list[Row]:
        names = {}
        if len(self._missing) <= NAMES_LOOKED_FOR:
            names = {f"name_{n}": f"{quoted(name)}:" for n, name in enumerate(self._missing)}
        looked_for = " OR ".join(f"instr(e.readings, :{key})" for key in names) or "true"
        n = stretch.segment.id
        sql = (
            "SELECT e.id, e.device_id, e.observed_at, m.received_at, e.readings"
            f" FROM events_{n} AS e CROSS JOIN messages_{n} AS m ON m.id = e.id / {EVENTS_PER_MESSAGE}"
            f" WHERE {where} AND substr(:open, e.device_id, 1) = x'01' AND ({looked_for}){self._kinds}"
            f"{self._conditions.clauses} ORDER BY e.id DESC"
        )
        return self._log.rows(sql, {**self._conditions.values, **names, **values, "open": marked(list(self._open))})

    def _note(self, stretch: Stretch, rows: Sequence[Row], low: int) -> None:
        """Take from the rows what is newer than what was found, and settle what nothing before `low` can be."""
        for id, device_id, observed_at, received_at, readings in rows:
            at = believed(observed_at, received_at)
            for name in decode(readings):
                if self._readings and name not in self._readings:
                    continue
                series_id = self._series.of(device_id, name)
                if series_id < len(self._found) and (at, id) > (self._at[series_id], self._found[series_id]):
                    self._at[series_id], self._found[series_id] = at, id
                    heappush(self._unsettled, (-at, series_id, device_id, name))
        first = f"SELECT received_at FROM messages_{stretch.segment.id} WHERE id >= :first ORDER BY id LIMIT 1"
        floor = self._log.rows(first, {"first": (low + 1) // EVENTS_PER_MESSAGE})
        while self._unsettled and floor and -self._unsettled[0][0] >= floor[0][0] + CLOCK_STEP_US:
            self._settle(*heappop(self._unsettled))
        self._position = low

    def _settle(self, negative_at: int, series_id: int, device_id: int, name: str) -> None:
        if self._at[series_id] != -negative_at:
            return  # a newer one was found since
        self._at[series_id] = 2**63 - 1
        self._missing[name] -= 1
        if not self._missing[name]:
            del self._missing[name]
        self._missing_of[device_id] -= 1
        if not self._missing_of[device_id]:
            del self._open[device_id]


_WHOLE = (
    "SELECT {} FROM events_{n} AS e"
    f" CROSS JOIN messages_{{n}} AS m ON m.id = e.id / {EVENTS_PER_MESSAGE}"
    " WHERE e.id IN (SELECT value FROM json_each(:ids)) ORDER BY e.id"
)

decode = msgspec.json.Decoder(dict[str, Value]).decode
