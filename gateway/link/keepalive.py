"""When to ask whether the broker is still there, and when to give it up. Knows no socket and no clock of its own."""

from __future__ import annotations

import math
from typing import Literal


class KeepAlive:
    """Times are seconds of one monotonic clock. `check` wants to be called every `tick_s`.

    A broker is given up when nothing at all has come for one and a half intervals after it was asked: 2.5 intervals
    after its last word, and a tick. An interval of 0 means never (MQTT 5.0, section 3.1.2.10).
    """

    def __init__(self, interval_s: float, now: float) -> None:
        self.interval_s = interval_s
        self.heard_at = now
        self.said_at = now
        self._asked_at = math.inf

    @property
    def tick_s(self) -> float:
        return self.interval_s / 4

    @property
    def patience_s(self) -> float:
        return 1.5 * self.interval_s

    def check(self, now: float, *, listening: bool) -> Literal["ask", "give up", "wait"]:
        """What to do now. While we do not listen, silence means nothing; but the broker must go on hearing from us."""
        if not listening or self.heard_at > self._asked_at:
            self._asked_at = math.inf
        if now - self._asked_at >= self.patience_s:
            return "give up"
        # Nothing said: the broker would give us up. Nothing heard: it may be gone, whatever we say.
        asked = self._asked_at < math.inf
        quiet_since = min(self.said_at, self.heard_at) if listening and not asked else self.said_at
        if now - quiet_since < 0.75 * self.interval_s:
            return "wait"
        self._asked_at = min(self._asked_at, now)
        return "ask"
