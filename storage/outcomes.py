"""Messages with what became of them, in short reads. Never reads a message again itself."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator

import msgspec

from storage.conditions import Conditions, Row, as_json
from storage.event import EVENTS_PER_MESSAGE, Message, Rejection, StoredEvent
from storage.filters import Filters
from storage.segment import Segment
from storage.shapes import Shapes, message
from storage.snapshot import OpenLog

PAGE_MESSAGES = 500
PAGE_BYTES = 4 << 20

EVENT_BYTES = 500
"""About what an event takes in memory, to count it among the bytes of a page."""


class StoredOutcome(msgspec.Struct, frozen=True):
    """A message with what became of it: events, or a rejection, or neither where it says nothing."""

    message_id: int
    message: Message
    events: list[StoredEvent]
    rejection: Rejection | None


class Choice(msgspec.Struct, frozen=True):
    """Which messages: above `after` and up to `up_to`, matched by the filters; `limit` counts them."""

    filters: Filters
    after: int
    up_to: int | None
    formats: tuple[str, ...]
    rejected_only: bool
    limit: int | None


def outcomes(log: OpenLog, shapes: Shapes, choice: Choice) -> Iterator[list[StoredOutcome]]:
    """The chosen messages that are in the log now, in pages."""
    conditions, low, left = Conditions(log.rows, choice.filters), choice.after, choice.limit
    with log.snapshot():
        last = last_message_id(log)
    end = last if choice.up_to is None else min(last, choice.up_to)
    while low < end and left != 0:
        with log.snapshot():
            conditions.refresh()
            segment, high = segment_after(log, low, end)
            if segment is None or conditions.impossible:
                return
            low = max(low, segment.first_message_id - 1)
            ids, low = _next_ids(log, conditions, choice, segment, low=low, high=high, left=left)
            page = _with_outcomes(log, shapes, segment, ids)
        if page:
            left = None if left is None else left - len(page)
            yield page


def last_message_id(log: OpenLog) -> int:
    """The id of the last message in the log, 0 before the first."""
    if not log.segments:
        return 0
    newest = log.segments[-1]
    found: int | None = log.rows(f"SELECT max(id) FROM messages_{newest.id}")[0][0]
    return newest.first_message_id - 1 if found is None else found


def segment_after(log: OpenLog, low: int, end: int) -> tuple[Segment | None, int]:
    """The segment of the first message above `low` that is still there, and its last message up to `end`."""
    segments = log.segments
    number = max(0, bisect_right(segments, low + 1, key=lambda segment: segment.first_message_id) - 1)
    if not segments or segments[number].first_message_id > end:
        return None, end
    after = segments[number + 1 : number + 2]
    return segments[number], min([end, *(segment.first_message_id - 1 for segment in after)])


def _next_ids(
    log: OpenLog, conditions: Conditions, choice: Choice, segment: Segment, *, low: int, high: int, left: int | None
) -> tuple[list[int], int]:
    """The next ids of a page above `low` and up to `high`, and up to where that has looked."""
    values = {**conditions.values, "formats": as_json(choice.formats), "low": low, "scanned": log.scanned_events}
    limit = PAGE_MESSAGES if left is None else min(left, PAGE_MESSAGES)
    if choice.rejected_only:
        # Rejections are looked at, not messages: they may be few and far between.
        last = log.rows(_LAST_REJECTION, {**values, "high": high})
        high = last[0][0] if last else high
        sql = _rejected_sql(conditions, choice)
    else:
        high = min(high, low + log.scanned_events)
        sql = _messages_sql(conditions, choice)
    found = log.rows(sql.format(n=segment.id), {**values, "high": high, "limit": limit})
    ids = bounded(found)
    return ids, ids[-1] if len(ids) < len(found) or len(ids) == limit else high


def bounded(found: list[Row]) -> list[int]:
    """The ids of the first messages that fit a page, one at least; with each come its bytes and its events."""
    ids: list[int] = []
    size = 0
    for id, payload_bytes, events in found:
        size += payload_bytes + EVENT_BYTES * events
        if ids and size > PAGE_BYTES:
            break
        ids.append(id)
    return ids


def _rejected_sql(conditions: Conditions, choice: Choice) -> str:
    wanted = f"r.format IN {_FORMATS}" if choice.formats else "1"
    none = " AND 0" if conditions.of_events else ""  # a rejection has no event that could match
    return (
        "SELECT m.id, length(m.payload), 0 FROM rejections AS r CROSS JOIN messages_{n} AS m ON m.id = r.message_id"
        f" WHERE r.message_id > :low AND r.message_id <= :high AND {wanted}{conditions.of_messages}{none}"
        " ORDER BY r.message_id LIMIT :limit"
    )


def _messages_sql(conditions: Conditions, choice: Choice) -> str:
    clauses = conditions.of_messages
    if conditions.of_events or choice.formats:
        events, rejected = conditions.of_events, ""
        if choice.formats:
            events += f" AND e.format_id IN (SELECT id FROM words WHERE word IN {_FORMATS})"
        if not conditions.of_events:
            rejected = (
                f" OR EXISTS (SELECT 1 FROM rejections AS r WHERE r.message_id = m.id AND r.format IN {_FORMATS})"
            )
        clauses += f" AND (EXISTS (SELECT 1 FROM {_ITS_EVENTS}{events}){rejected})"
    return (
        f"SELECT m.id, length(m.payload), (SELECT count(*) FROM {_ITS_EVENTS}) FROM messages_{{n}} AS m"
        f" WHERE m.id > :low AND m.id <= :high{clauses} ORDER BY m.id LIMIT :limit"
    )


def _with_outcomes(log: OpenLog, shapes: Shapes, segment: Segment, ids: list[int]) -> list[StoredOutcome]:
    if not ids:
        return []
    values = {"ids": as_json(ids)}
    events: dict[int, list[StoredEvent]] = {}
    rows = log.rows(_EVENTS.format(n=segment.id, columns=shapes.events.columns), values)
    for event in shapes.events.build(rows):
        events.setdefault(event.message_id, []).append(event)
    rejections = {
        id: Rejection(reason, format) for id, reason, format in log.rows(_REJECTIONS.format(n=segment.id), values)
    }
    return [
        StoredOutcome(id, message(shapes.topic(topic_id), rest), events.get(id, []), rejections.get(id))
        for id, topic_id, *rest in log.rows(_MESSAGES.format(n=segment.id), values)
    ]


_FORMATS = "(SELECT value FROM json_each(:formats))"
_LAST_REJECTION = (
    "SELECT message_id FROM rejections WHERE message_id > :low AND message_id <= :high"
    " ORDER BY message_id LIMIT 1 OFFSET :scanned - 1"
)
_RANGE = f"BETWEEN {{id}} * {EVENTS_PER_MESSAGE} AND {{id}} * {EVENTS_PER_MESSAGE} + {EVENTS_PER_MESSAGE - 1}"
_ITS_EVENTS = f"events_{{n}} AS e WHERE e.id {_RANGE.format(id='m.id')}"
_MESSAGES = (
    "SELECT m.id, m.topic_id, m.qos, m.retain, m.received_at, m.packet_id, m.properties, m.payload"
    " FROM json_each(:ids) AS wanted CROSS JOIN messages_{n} AS m ON m.id = wanted.value"
)
_EVENTS = (
    "SELECT {columns} FROM json_each(:ids) AS wanted"
    f" CROSS JOIN events_{{n}} AS e ON e.id {_RANGE.format(id='wanted.value')}"
    " CROSS JOIN messages_{n} AS m ON m.id = wanted.value"
)
_REJECTIONS = (
    "SELECT r.message_id, r.reason, r.format"
    " FROM json_each(:ids) AS wanted CROSS JOIN rejections AS r ON r.message_id = wanted.value"
)
