"""The events of one device in a range of its own time, out of one segment. Never knows what they are wanted for."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from storage.conditions import Ask, Row
from storage.segment import Segment

PAGE_EVENTS = 2_000

LEAST, MOST = -(2**63), 2**63 - 1
"""What a column holds."""


class Wanted(msgspec.Struct, frozen=True):
    """Events of a device that were observed from `since` to before `until`, above `after` and up to `up_to`."""

    device_id: int
    since: int
    until: int
    after: int
    up_to: int


def device_events(ask: Ask, segment: Segment, wanted: Wanted) -> Iterator[list[Row]]:
    """Id, kind, time of observation, readings and detail; each page is one question.

    Of events that were observed at the same time the one with the lower id comes first.
    """
    if wanted.until <= LEAST or wanted.since > MOST:
        return
    values = {
        "device_id": wanted.device_id,
        "since": bound(wanted.since),
        "last": bound(wanted.until - 1),
        "low": wanted.after,
        "high": min(wanted.up_to, segment.indexed_to),
        "limit": PAGE_EVENTS,
    }
    if wanted.after < segment.indexed_to and _overlaps(segment, wanted):
        values |= {"at": values["since"], "id": -1}
        while rows := ask(_INDEXED.format(n=segment.id), values):
            yield rows
            values |= {"at": rows[-1][2], "id": rows[-1][0]}
    # Few events are behind the index, and they are looked at one by one.
    values |= {"low": max(wanted.after, segment.indexed_to), "high": wanted.up_to}
    while values["low"] < values["high"] and (rows := ask(_BEHIND.format(n=segment.id), values)):
        yield rows
        values["low"] = rows[-1][0]


def bound(number: int) -> int:
    """The nearest number that a column can hold."""
    return max(LEAST, min(number, MOST))


def _overlaps(segment: Segment, wanted: Wanted) -> bool:
    if segment.observed_from is None or segment.observed_to is None:
        return False
    return segment.observed_from < wanted.until and segment.observed_to >= wanted.since


_COLUMNS = "SELECT e.id, w.word, e.observed_at, e.readings, e.detail"
_INDEXED = (
    f"{_COLUMNS} FROM event_index_{{n}} AS i CROSS JOIN events_{{n}} AS e ON e.id = i.event_id"
    " CROSS JOIN words AS w ON w.id = e.kind_id"
    " WHERE i.device_id = :device_id AND (i.observed_at, i.event_id) > (:at, :id) AND i.observed_at <= :last"
    " AND i.event_id > :low AND i.event_id <= :high ORDER BY i.observed_at, i.event_id LIMIT :limit"
)
_BEHIND = (
    f"{_COLUMNS} FROM events_{{n}} AS e CROSS JOIN words AS w ON w.id = e.kind_id"
    " WHERE e.id > :low AND e.id <= :high AND e.device_id = :device_id AND e.observed_at BETWEEN :since AND :last"
    " ORDER BY e.id LIMIT :limit"
)
