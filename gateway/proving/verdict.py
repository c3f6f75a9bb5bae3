"""What `amber verify` has found, as plain data. Judges nothing but whether the promise holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

Promise = Literal["puback", "receipt", "both"]
"""Whose word counts: the broker's PUBACK (at QoS 1 and 2), the gateway's receipt, or either."""

By = Literal["qos", "device", "fault", "none"]

SAMPLES = 10
"""So many of each sort of fault are named."""


class Row(msgspec.Struct):
    """Counts of messages of one sort. `of` names the sort.

    `publications`: how often the `sent` messages were sent in all. `duplicates`: of the sent, those that only repeat,
    on purpose, an identified message with the same content. `stored`: how many with these contents the store holds.
    `lost`: promised in either way, and not there; also counted apart by whose word was broken. `gone`: promised, not
    there, and sent before the time from which on the store is whole: retention may have dropped them. `absent`: never
    promised, and not there. `again`: stored beyond one of each message, as they may be that bear no identity and were
    sent more than once. `repeated`: stored more often than allowed. `misread`: should have been rejected, and was read.

    Of all messages together: stored = sent - duplicates - lost - gone - absent + again + repeated. A single row may
    hold less or more, where it shares a content with others.
    """

    of: str
    sent: int = 0
    publications: int = 0
    duplicates: int = 0
    acknowledged: int = 0
    receipted: int = 0
    stored: int = 0
    lost: int = 0
    lost_by_puback: int = 0
    lost_by_receipt: int = 0
    gone: int = 0
    absent: int = 0
    again: int = 0
    repeated: int = 0
    reordered: int = 0
    rejected_expected: int = 0
    rejected_unexpected: int = 0
    misread: int = 0

    def add(self, other: Row) -> None:
        for name in COUNTS:
            setattr(self, name, getattr(self, name) + getattr(other, name))


COUNTS = Row.__struct_fields__[1:]


class Named(msgspec.Struct, frozen=True):
    """A message of the ledger that something is wrong with, `count` times.

    `alike`: so many messages of the ledger have the same content, of which this may be any.
    """

    device: str
    boot: str
    seq: int
    part: int
    copy: int
    topic: str
    qos: int
    sent_at: str
    acked_at: str | None
    receipted_at: str | None
    count: int
    alike: int


class Refused(msgspec.Struct, frozen=True):
    """A message in the store that became a rejection against all expectation, or was read against it (no reason)."""

    message_id: int
    topic: str
    received_at: str
    reason: str | None
    in_ledger: bool


class Moment(msgspec.Struct, frozen=True):
    """A step of time: how many messages were first sent in it, and how many of these were lost or stored repeatedly."""

    at: str
    sent: int
    lost: int
    repeated: int


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """Ledgers held against a store. Times are ISO 8601, UTC.

    `unrecorded`: messages in the store, on topics of the ledger and within its time, that it does not know: births on a
    topic of telemetry, or sent as a kill came. `unknown_rejections`: rejections within its time that it does not know,
    on any topic. `unsent`: messages that the ledger has an answer for, and does not say what they were. `whole_since`:
    the store has all that was received from then on; null where retention has dropped nothing. `conflicts`: messages
    sent with another payload under a known identity; `conflicts_marked`: stored messages with an event that is marked.
    """

    ledgers: tuple[str, ...]
    store: str
    by: By
    first_sent_at: str | None
    last_at: str | None
    whole_since: str | None
    totals: Row
    rows: tuple[Row, ...]
    unrecorded: int
    unknown_rejections: int
    unsent: int
    conflicts: int
    conflicts_marked: int
    lost: tuple[Named, ...]
    repeated: tuple[Named, ...]
    refused: tuple[Refused, ...]
    misread: tuple[Refused, ...]
    step_s: int
    timeline: tuple[Moment, ...]

    def lost_by(self, promise: Promise) -> int:
        """How many messages were lost whose keeping was promised in this way."""
        totals = self.totals
        return {"puback": totals.lost_by_puback, "receipt": totals.lost_by_receipt, "both": totals.lost}[promise]

    def broken(self, promise: Promise = "both") -> Sequence[str]:
        """What broke the promise, in words; nothing where it holds."""
        refused = self.totals.rejected_unexpected + self.unknown_rejections
        counts = {
            "lost": self.lost_by(promise),
            "repeated": self.totals.repeated,
            "rejected unexpectedly": refused,
            "read that should have been rejected": self.totals.misread,
        }
        return [f"{count:,} {what}" for what, count in counts.items() if count]

    def holds(self, promise: Promise = "both") -> bool:
        return not self.broken(promise)
