"""What a store holds of the time of a ledger, read in short pages beside a running gateway. Never writes to it."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from devices.ledger import digest
from gateway.proving.books import Kept, number_of
from storage.event import StoredEvent
from storage.filters import Filters
from storage.history import Reader
from storage.outcomes import StoredOutcome
from storage.segment import Segment
from storage.snapshot import OpenLog

MARGIN_US = 60_000_000
"""Clocks of devices and gateway may differ by so much. A copy that comes later still can make up for a lost one, but is
no repeat: the next run may well say the same."""

AFTERWARDS_US = 1_000_000
"""How long after the last line of a ledger something may come that a kill has kept out of it."""


class Span(msgspec.Struct, frozen=True):
    """The time of a ledger: from the first message sent to the last line."""

    first: int
    last: int

    def kept(self, outcome: StoredOutcome, *, ours: bool) -> Kept:
        """A message of the store as the books have it."""
        message = outcome.message
        return Kept(
            outcome.message_id,
            number_of(digest(message.topic, message.payload)),
            outcome.rejection is not None,
            any(map(is_conflict, outcome.events)),
            ours=ours,
            within=self.first <= message.received_at <= self.last + AFTERWARDS_US,
            late=message.received_at >= self.last + MARGIN_US,
        )


def on_topics(reader: Reader, span: Span, topics: tuple[str, ...], after: int, up_to: int) -> Iterator[list[Kept]]:
    """The messages on these topics in the ledger's time and around it."""
    filters = Filters(topics=topics, since=span.first - MARGIN_US, until=span.last + MARGIN_US)
    for page in reader.outcomes(filters, after_message=after, up_to_message=up_to):
        yield [span.kept(outcome, ours=True) for outcome in page]


def afterwards(reader: Reader, span: Span, topics: tuple[str, ...], after: int, up_to: int) -> Iterator[list[Kept]]:
    """The messages on these topics that came later than that."""
    filters = Filters(topics=topics, since=span.last + MARGIN_US)
    for page in reader.outcomes(filters, after_message=after, up_to_message=up_to):
        yield [span.kept(outcome, ours=True) for outcome in page]


def rejected(reader: Reader, span: Span, up_to: int) -> Iterator[list[Kept]]:
    """The rejections in the ledger's time, on any topic."""
    filters = Filters(since=span.first, until=span.last + AFTERWARDS_US)
    for page in reader.outcomes(filters, up_to_message=up_to, rejected_only=True):
        yield [span.kept(outcome, ours=False) for outcome in page]


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


def is_conflict(event: StoredEvent) -> bool:
    """Whether the log has marked an event as another payload under a known identity."""
    if event.detail is None or '"conflict"' not in event.detail:
        return False
    return bool(msgspec.json.decode(event.detail).get("conflict"))


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
