"""When each event of a replay is due, told from the log and from what was asked for. Never waits."""

from __future__ import annotations

import math

import msgspec

from storage.clocks import believed
from storage.event import StoredEvent
from storage.filters import Clock

CLOCK_STEP_US = 60_000_000
"""When the gateway's own clock goes back by more than this, somebody has set it."""

CATCH_UP_S = 0.01
"""A timer that comes late by no more than this costs nothing of a rate."""


class Pace:
    """How fast to play, and how far each event is from the first, told from those before it.

    It follows the highest time so far. What lies before that comes at once: a device that was away brings late what
    it has kept. When the gateway's own clock was set back, the pace goes on from there. `begin_s` is where it takes
    up the count, and `highest_us` the time from which the first gap counts, where that is not the first event's.
    """

    def __init__(
        self,
        speed: float | None,
        clock: Clock,
        max_gap_us: int | None = None,
        *,
        begin_s: float = 0.0,
        highest_us: int | None = None,
    ) -> None:
        self.speed = speed_of(speed)
        self._clock = clock
        self._max_gap_us = max_gap_us
        self._highest_us = highest_us
        self._played_us = round(begin_s * 1e6)

    def log_s(self, event: StoredEvent) -> float:
        """Seconds of the log up to this event, with shortened silences; never less than for the event before."""
        at = time_of(event, self._clock)
        highest = at if self._highest_us is None else self._highest_us
        gap = max(at - highest, 0)
        self._played_us += gap if self._max_gap_us is None else min(gap, self._max_gap_us)
        was_set_back = self._clock == "received" and at < highest - CLOCK_STEP_US
        self._highest_us = at if was_set_back else max(at, highest)
        return self._played_us / 1e6


def speed_of(speed: float | None) -> float:
    """The speed as a number. Raises ValueError for one that leads nowhere."""
    if speed is None:
        return math.inf
    if not speed > 0:
        raise ValueError(f"the speed is {speed}: it must be above 0, or None for as fast as possible")
    return speed


def time_of(event: StoredEvent, clock: Clock) -> int:
    """Microseconds on the clock; where a device's own cannot be right, on the gateway's."""
    return believed(event.observed_at, event.received_at) if clock == "observed" else event.received_at


class Timeline(msgspec.Struct, frozen=True):
    """Since when the playing goes on from where in the log, and how fast: speed 0 is a pause, infinity all it can."""

    since_s: float
    log_s: float
    speed: float

    def log_s_at(self, now_s: float) -> float:
        """How far it is; at infinite speed nobody can tell from the time."""
        return self.log_s if self.speed == math.inf else self.log_s + (now_s - self.since_s) * self.speed

    def due_s(self, log_s: float) -> float:
        """When it is there."""
        # Counted from the start, not from the event before: so no lateness adds up.
        return self.since_s + (log_s - self.log_s) / self.speed if self.speed else math.inf


class Limit:
    """At most so many events a second, one by one: what was missed in a silence is not made up for."""

    def __init__(self, per_s: float | None) -> None:
        if per_s is not None and not 0 < per_s < math.inf:
            raise ValueError(f"the rate is {per_s}: it must be above 0, or None for no limit")
        self._per_s = per_s
        self.free_s = -math.inf
        """When the next may come."""

    def room(self, now_s: float, due_s: float) -> int | None:
        """How many may come now, the first of which was due then; None is any number."""
        if self._per_s is None:
            return None
        late_s = now_s - max(self.free_s, due_s)
        return 0 if late_s < 0 else 1 + int(min(late_s, CATCH_UP_S) * self._per_s)

    def take(self, now_s: float, due_s: float, count: int) -> None:
        if self._per_s is not None:
            self.free_s = max(self.free_s, due_s, now_s - CATCH_UP_S) + count / self._per_s
