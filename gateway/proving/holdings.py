"""What a store holds of the time of a ledger, read in short pages beside a running gateway. Never writes to it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import msgspec

from devices.ledger import fingerprint
from gateway.proving.books import Kept, number_of
from storage.conditions import Conditions
from storage.event import EVENTS_PER_MESSAGE
from storage.filters import Filters
from storage.history import Reader
from storage.outcomes import StoredOutcome, segment_after
from storage.segment import Segment
from storage.snapshot import OpenLog

MARGIN_US = 60_000_000
"""Clocks of devices and gateway may differ by so much. A copy that comes later still can make up for a lost one, but is
no repeat: the next run may well say the same."""

AFTERWARDS_US = 1_000_000
"""How long after the last line of a ledger something may come that a kill has kept out of it."""


PAGE_MESSAGES = 8_000
PAGE_BYTES = 16 << 20
"""One read looks at so much at most."""


class Span(msgspec.Struct, frozen=True):
    """The time of a ledger: from the first message sent to the last line."""

    first: int
    last: int

    def kept(self, id: int, received_at: int, content: bytes, *, rejected: bool, conflict: bool, ours: bool) -> Kept:
        """A message of the store as the books have it."""
        within = self.first <= received_at <= self.last + AFTERWARDS_US
        late = received_at >= self.last + MARGIN_US
        return Kept(id, number_of(content), rejected, conflict, ours, within, late)


def on_topics(log: OpenLog, span: Span, topics: tuple[str, ...], after: int, up_to: int) -> Iterator[list[Kept]]:
    """The messages on these topics in the ledger's time and around it."""
    filters = Filters(topics=topics, since=span.first - MARGIN_US, until=span.last + MARGIN_US)
    return _messages(log, span, filters, after, up_to)


def afterwards(log: OpenLog, span: Span, topics: tuple[str, ...], after: int, up_to: int) -> Iterator[list[Kept]]:
    """The messages on these topics that came later than that."""
    return _messages(log, span, Filters(topics=topics, since=span.last + MARGIN_US), after, up_to)


def rejected(reader: Reader, span: Span, up_to: int) -> Iterator[list[Kept]]:
    """The rejections in the ledger's time, on any topic."""
    filters = Filters(since=span.first, until=span.last + AFTERWARDS_US)
    for page in reader.outcomes(filters, up_to_message=up_to, rejected_only=True):
        yield [_rejected(outcome, span) for outcome in page]


def whole_since(log: OpenLog) -> int | None:
    """The time from which on retention has dropped nothing; None where it never has."""
    with log.snapshot():
        segments = log.segments
        for number in range(len(segments) - 1, -1, -1):
            if segments[number].removed:
                return _after_last_gap(log, segments, number)
        if segments and segments[0].first_message_id > 1:
            return _first_received(log, segments)
    return None


def _messages(log: OpenLog, span: Span, filters: Filters, after: int, up_to: int) -> Iterator[list[Kept]]:
    """Without their events, and with one payload in memory at a time: half the time that outcomes take."""
    conditions, heads = Conditions(log.rows, filters), Heads(log)
    while after < up_to:
        with log.snapshot():
            conditions.refresh()
            segment, high = segment_after(log, after, up_to)
            if segment is None or conditions.impossible:
                return
            low = max(after, segment.first_message_id - 1)
            values = {**conditions.values, "low": low, "high": min(high, low + PAGE_MESSAGES)}
            found = log.connection.execute(_MESSAGES.format(n=segment.id, clauses=conditions.of_messages), values)
            page, last = _page(found, span, heads, _marks(log, segment.id, values))
            after = last or min(high, low + PAGE_MESSAGES)
        if page:
            yield page


def _page(
    found: Iterable[tuple[int, int, int, bytes]], span: Span, heads: Heads, marks: tuple[set[int], set[int]]
) -> tuple[list[Kept], int]:
    """What was found, and 0; or as much as one read may take, and up to which message that goes."""
    rejections, conflicts = marks
    page: list[Kept] = []
    size = 0
    for id, topic_id, received_at, payload in found:
        content = fingerprint(heads[topic_id], payload)
        page.append(span.kept(id, received_at, content, rejected=id in rejections, conflict=id in conflicts, ours=True))
        size += len(payload)
        if size > PAGE_BYTES:
            return page, id
    return page, 0


def _marks(log: OpenLog, segment: int, values: Mapping[str, object]) -> tuple[set[int], set[int]]:
    """Which messages are rejections, and which are conflicts."""
    rejections, conflicts = log.rows(_REJECTED, values), log.rows(_CONFLICTS.format(n=segment), values)
    return {id for (id,) in rejections}, {id for (id,) in conflicts}


class Heads(dict[int, bytes]):
    """What a digest takes in of a topic, by its id."""

    def __init__(self, log: OpenLog) -> None:
        super().__init__()
        self._log = log

    def __missing__(self, id: int) -> bytes:
        topic: str = self._log.rows("SELECT topic FROM topics WHERE id = :id", {"id": id})[0][0]
        head = self[id] = b"%b\0" % topic.encode()
        return head


def _rejected(outcome: StoredOutcome, span: Span) -> Kept:
    message = outcome.message
    content = fingerprint(b"%b\0" % message.topic.encode(), message.payload)
    return span.kept(outcome.message_id, message.received_at, content, rejected=True, conflict=False, ours=False)


def _after_last_gap(log: OpenLog, segments: list[Segment], number: int) -> int | None:
    """Retention has taken messages out of this segment singly, and out of none after it."""
    segment = segments[number]
    after = log.rows(f"SELECT max(id) FROM messages_{segment.id}")[0][0]
    if number + 1 < len(segments) and after != segments[number + 1].first_message_id - 1:
        return _first_received(log, segments[number + 1 :])
    rows = log.rows(
        f"SELECT received_at FROM messages_{segment.id} AS m WHERE id > :first AND NOT EXISTS"
        f" (SELECT 1 FROM messages_{segment.id} AS before WHERE before.id = m.id - 1) ORDER BY id DESC LIMIT 1",
        {"first": segment.first_message_id},
    )
    return rows[0][0] if rows else _first_received(log, segments[number:])


def _first_received(log: OpenLog, segments: list[Segment]) -> int | None:
    for segment in segments:
        rows = log.rows(f"SELECT received_at FROM messages_{segment.id} ORDER BY id LIMIT 1")
        if rows:
            return int(rows[0][0])
    return None


# The log has marked an event as another payload under a known identity.
_CONFLICTS = f"""
SELECT id / {EVENTS_PER_MESSAGE} FROM events_{{n}}
WHERE id >= (:low + 1) * {EVENTS_PER_MESSAGE} AND id < (:high + 1) * {EVENTS_PER_MESSAGE}
    AND instr(detail, '"conflict"') AND json_extract(detail, '$.conflict')
"""
_REJECTED = "SELECT message_id FROM rejections WHERE message_id > :low AND message_id <= :high"
_MESSAGES = (
    "SELECT m.id, m.topic_id, m.received_at, m.payload FROM messages_{n} AS m"
    " WHERE m.id > :low AND m.id <= :high{clauses} ORDER BY m.id"
)
