"""Rejections with the messages they are about. Never judges them again."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator

import msgspec

from storage.conditions import Conditions, as_json
from storage.filters import Filters
from storage.snapshot import OpenLog

REJECTIONS_A_READ = 200
"""Few: their payloads may be as large as a message can be."""


class StoredRejection(msgspec.Struct, frozen=True):
    """A message that no format could read, and why."""

    id: int
    message_id: int
    reason: str
    format: str
    topic: str
    received_at: int
    qos: int
    retain: bool
    payload: bytes


def rejections(
    log: OpenLog, filters: Filters, *, newest_first: bool = False, limit: int | None = None
) -> Iterator[StoredRejection]:
    """Those in the store now, by id; of the filters, topics and times of receipt count, and positions are theirs."""
    conditions = Conditions(log.rows, message_filters(filters))
    with log.snapshot():
        last = log.rows("SELECT ifnull(max(id), 0) FROM rejections")[0][0]
    low = filters.after
    high = last if filters.until_position is None else min(last, filters.until_position)
    left = limit
    while low < high and left != 0:
        with log.snapshot():
            conditions.refresh()
            page = _page(log, low, high, "DESC" if newest_first else "ASC")
            found = _with_messages(log, page, conditions)
        if not page:
            return
        if newest_first:
            high = page[-1][0] - 1
        else:
            low = page[-1][0]
        found = found[:left]
        left = None if left is None else left - len(found)
        yield from found


def message_filters(filters: Filters) -> Filters:
    """The filters as far as they speak of messages."""
    return Filters(topics=filters.topics, since=filters.since, until=filters.until)


_Page = list[tuple[int, int, str, str]]


def _page(log: OpenLog, low: int, high: int, order: str) -> _Page:
    return log.rows(
        "SELECT id, message_id, reason, format FROM rejections WHERE id > :low AND id <= :high"
        f" ORDER BY id {order} LIMIT {REJECTIONS_A_READ}",
        {"low": low, "high": high},
    )


def _with_messages(log: OpenLog, page: _Page, conditions: Conditions) -> list[StoredRejection]:
    firsts = [segment.first_message_id for segment in log.segments]
    wanted: dict[int, list[int]] = {}
    for _, message_id, _, _ in page:
        wanted.setdefault(bisect_right(firsts, message_id) - 1, []).append(message_id)
    messages = {}
    for number, ids in wanted.items():
        if number >= 0:  # else its segment was dropped
            sql = _MESSAGES.format(n=log.segments[number].id, clauses=conditions.clauses)
            for id, *rest in log.rows(sql, {**conditions.values, "ids": as_json(ids)}):
                messages[id] = rest
    return [
        StoredRejection(id, message_id, reason, format, topic, received_at, qos, retain == 1, payload)
        for id, message_id, reason, format in page
        if message_id in messages
        for topic, received_at, qos, retain, payload in [messages[message_id]]
    ]


_MESSAGES = (
    "SELECT m.id, t.topic, m.received_at, m.qos, m.retain, m.payload"
    " FROM messages_{n} AS m JOIN topics AS t ON t.id = m.topic_id"
    " WHERE m.id IN (SELECT value FROM json_each(:ids)){clauses}"
)
