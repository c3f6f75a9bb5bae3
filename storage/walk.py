"""Walks the log segment by segment, in short reads by key. Never knows what becomes of the rows."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Sequence

import msgspec

from storage.conditions import Ask, Conditions, Row, as_json
from storage.event import EVENTS_PER_MESSAGE
from storage.filters import Filters
from storage.snapshot import OpenLog, Stretch

SPARSE = 10
"""Fetching an event by its id costs ten times what passing over it costs."""

MANY_EVENTS = 2
"""Where messages have as many on average, events are counted before they are scanned, which costs a fifth more."""

LISTED_DEVICES = 1_000
"""So many are looked up in the index whatever their share of all devices is."""

FETCH_COST = 128
"""So many events can be scanned in the time that fetching one by its id may take from a cold disk."""


class Walk:
    """One way through the events above `low` and up to `high`; each step is one short read and narrows the two."""

    def __init__(self, log: OpenLog, columns: str, filters: Filters, *, newest_first: bool = False) -> None:
        self.low, self.high = filters.after, filters.until_position
        self._log = log
        self._columns = columns
        self._filters = filters
        self._conditions = Conditions(log.rows, filters)
        self._newest_first = newest_first
        self._order = "DESC" if newest_first else "ASC"
        self._version = -1
        self._plan: Plan | None = None

    @property
    def done(self) -> bool:
        return self.high is not None and self.low >= self.high

    @property
    def behind(self) -> bool:
        """Whether the last look at the log showed more than has been read."""
        return not self.done and self.low < self._log.position

    def end_here(self) -> None:
        """Leave out what is committed from now on."""
        with self._log.snapshot():
            self.high = self._log.position if self.high is None else min(self.high, self._log.position)

    def step(self, limit: int) -> list[Row]:
        """The next rows, at most `limit`; none where a part of the log has none, or where the log ends for now."""
        with self._log.snapshot():
            if self._version != self._log.version:
                self._conditions.refresh()
                self._version = self._log.version
            high = self._log.position if self.high is None else min(self.high, self._log.position)
            stretch = self._log.stretch(self.low, high, newest_first=self._newest_first)
            if stretch is None:
                self.low = max(self.low, high)
                return []
            if self._conditions.impossible or outside(stretch, self._filters):
                self._narrow(stretch.low, stretch.high)
                return []
            plan = self._plan_for(stretch)
            return self._scan(stretch, limit) if plan is None else self._fetch(stretch, plan, limit)

    def _plan_for(self, stretch: Stretch) -> Plan | None:
        """Where the devices' events stand, if asking the index is the shorter way through the stretch."""
        if not stretch.indexed or self._conditions.devices is None:
            return None
        if self._plan is None or not self._plan.covers(stretch, newest_first=self._newest_first):
            self._plan = make_plan(self._log.rows, stretch, self._conditions)
        return None if self._plan.ids is None else self._plan

    def _scan(self, stretch: Stretch, limit: int) -> list[Row]:
        low, high = stretch.low, stretch.high
        if self._conditions.clauses:  # else the limit ends the read soon enough
            low, high = self._scanned(stretch, max(self._log.scanned_events, limit))
        rows = self._select(stretch, "e.id > :low AND e.id <= :high", limit, {"low": low, "high": high})
        self._narrow(low, high, rows[limit - 1 :])
        return rows

    def _scanned(self, stretch: Stretch, count: int) -> tuple[int, int]:
        """The part of a stretch that has about so many events."""
        if stretch.events_per_message < MANY_EVENTS:
            width = count * EVENTS_PER_MESSAGE
            if self._newest_first:
                return max(stretch.low, stretch.high - width), stretch.high
            return stretch.low, min(stretch.high, stretch.low + width)
        sql = f"SELECT id FROM events_{stretch.segment.id} WHERE id > :low AND id <= :high"
        values = {"low": stretch.low, "high": stretch.high, "before": count - 1}
        end = self._log.rows(f"{sql} ORDER BY id {self._order} LIMIT 1 OFFSET :before", values)
        if not end:
            return stretch.low, stretch.high
        return (end[0][0] - 1, stretch.high) if self._newest_first else (stretch.low, end[0][0])

    def _fetch(self, stretch: Stretch, plan: Plan, limit: int) -> list[Row]:
        low, high, ids = max(stretch.low, plan.low), min(stretch.high, plan.high), plan.ids or array("q")
        first, end = bisect_right(ids, low), bisect_right(ids, high)
        count = max(limit, self._log.scanned_events // FETCH_COST)  # other conditions may turn most of them away
        if end - first > count and self._newest_first:
            first = end - count
            low = ids[first] - 1
        elif end - first > count:
            end = first + count
            high = ids[end - 1]
        wanted = as_json(ids[first:end].tolist())
        rows = self._select(stretch, "e.id IN (SELECT value FROM json_each(:ids))", limit, {"ids": wanted})
        self._narrow(low, high, rows[limit - 1 :])
        return rows

    def _select(self, stretch: Stretch, where: str, limit: int, values: dict[str, object]) -> list[Row]:
        n = stretch.segment.id
        # CROSS JOIN: SQLite keeps the order of the tables, and so the order of the ids comes for nothing.
        sql = (
            f"SELECT {self._columns} FROM events_{n} AS e"
            f" CROSS JOIN messages_{n} AS m ON m.id = e.id / {EVENTS_PER_MESSAGE}"
            f" WHERE {where}{self._conditions.clauses} ORDER BY e.id {self._order} LIMIT :limit"
        )
        return self._log.rows(sql, {**self._conditions.values, **values, "limit": limit})

    def _narrow(self, low: int, high: int, last: Sequence[Row] = ()) -> None:
        """What lies above `low` and up to `high` has been read; or only to the `last` row, where a limit ended it."""
        if self._newest_first:
            self.high = last[0][0] - 1 if last else low
        else:
            self.low = last[0][0] if last else high


class Plan(msgspec.Struct, frozen=True):
    """The events of some devices in a stretch, above `low` and up to `high`; `ids` is None where they are many.

    It holds for as long as nobody has exchanged events of the segment.
    """

    low: int
    high: int
    rewritten: int
    ids: array[int] | None

    def covers(self, stretch: Stretch, *, newest_first: bool) -> bool:
        """Whether the next event of the stretch is within."""
        if stretch.segment.rewritten != self.rewritten:
            return False
        return self.low < stretch.high <= self.high if newest_first else self.low <= stretch.low < self.high


def make_plan(ask: Ask, stretch: Stretch, conditions: Conditions) -> Plan:
    """Ask the index of a segment, unless so many events are the devices' that passing over the others is quicker."""
    plan = Plan(stretch.low, stretch.high, stretch.segment.rewritten, None)
    devices, filters = conditions.devices, conditions.filters
    if devices is None or len(devices.ids) > max(LISTED_DEVICES, devices.of // SPARSE):
        return plan
    index = (
        f"FROM event_index_{stretch.segment.id} WHERE device_id IN (SELECT value FROM json_each(:device_ids))"
        " AND event_id > :low AND event_id <= :high"
    )
    if filters.clock == "observed":
        index += "" if filters.since is None else " AND observed_at >= :since"
        index += "" if filters.until is None else " AND observed_at < :until"
    many = stretch.events // SPARSE + 1
    values = {
        "device_ids": as_json(devices.ids),
        "low": stretch.low,
        "high": stretch.high,
        "since": filters.since,
        "until": filters.until,
        "many": many,
    }
    if ask(f"SELECT count(*) FROM (SELECT 1 {index} LIMIT :many)", values)[0][0] >= many:
        return plan
    ids = sorted(id for (id,) in ask(f"SELECT event_id {index}", values))
    return msgspec.structs.replace(plan, ids=array("q", ids))


def outside(stretch: Stretch, filters: Filters) -> bool:
    """Whether the segment's bounds say that no event of the stretch is in the range of time."""
    if not stretch.indexed:
        return False
    segment = stretch.segment
    if filters.clock == "received":
        first, last = segment.received_from, segment.received_to
    else:
        first, last = segment.observed_from, segment.observed_to
    if first is None or last is None:
        return False
    too_early = filters.since is not None and last < filters.since
    return too_early or (filters.until is not None and first >= filters.until)
