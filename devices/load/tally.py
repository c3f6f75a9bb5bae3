"""What a load came to so far: counts, and durations since each message was due."""

from __future__ import annotations

import msgspec

from devices.load.histogram import Histogram

LAST_S = 0.25
"""How long the last message may take to come, and the broker to say goodbye, without counting as too slow."""


class Stage(msgspec.Struct):
    """How far messages came: how many, how long each took to there, and when the first and the last were there."""

    durations: Histogram = msgspec.field(default_factory=Histogram)
    first_us: int = 0
    last_us: int = 0

    def note(self, now_us: int, durations_us: list[int]) -> None:
        if durations_us:
            self.first_us = self.first_us or now_us
            self.last_us = now_us
            self.durations.note(durations_us)

    @property
    def count(self) -> int:
        return self.durations.count

    def rate(self, span_s: float) -> float:
        """A second, over the time of the load, or over as long as they took to come where that is plainly longer."""
        return self.count / max(span_s, (self.last_us - self.first_us) / 1e6 - LAST_S, 1e-6)


class Tally(msgspec.Struct):
    """All connections together. `span_s` is how long messages were sent for, `processor_s` what this process used.

    `taken_s` is when the broker had read all, goodbyes included; `untaken` counts the connections of which it had not.
    `unsent`: due, and never sent, for there was no room; `unanswered`: acknowledgements that never came, as a
    connection broke or the time was over; `unreceipted` likewise.
    """

    sent: Stage = msgspec.field(default_factory=Stage)
    acknowledged: Stage = msgspec.field(default_factory=Stage)
    receipted: Stage = msgspec.field(default_factory=Stage)
    connected: int = 0
    reconnects: int = 0
    refused: int = 0
    rejected: int = 0
    unsent: int = 0
    unanswered: int = 0
    unreceipted: int = 0
    span_s: float = 0.0
    taken_s: float = 0.0
    untaken: int = 0
    processor_s: float = 0.0
    trouble: str = ""
    rejection: str = ""
