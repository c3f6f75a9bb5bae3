"""What the gateway counts of itself, and the line that says it. Counts batches, never inspects a message."""

from __future__ import annotations

import time

from storage.store import Committed


class Metrics:
    """Counts since the start of the process."""

    def __init__(self) -> None:
        self.messages = 0
        self.events = 0
        self.rejections = 0
        self.redelivered = 0
        self.own = 0
        self.ignored = 0
        self.read_again = 0
        self.unacknowledged = 0
        self.commits = 0
        self.commit_seconds = 0.0

    def received(self, messages: int) -> None:
        self.unacknowledged += messages

    def committed(self, committed: Committed) -> None:
        self.messages += committed.messages
        self.events += committed.events
        self.rejections += committed.rejections
        self.commits += 1
        self.commit_seconds += committed.seconds

    def acknowledged(self, messages: int) -> None:
        self.unacknowledged -= messages


class Summary:
    """Says what happened since it last spoke."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._messages, self._events, self._commits, self._seconds = 0, 0, 0, 0.0
        self._at = time.monotonic()

    def line(self) -> str:
        """One line for an interval: rates, what was stored in all, and what still waits for its commit."""
        metrics, now = self._metrics, time.monotonic()
        span = max(now - self._at, 1e-9)
        commits = metrics.commits - self._commits
        pause_ms = 1000 * (metrics.commit_seconds - self._seconds) / commits if commits else 0.0
        text = (
            f"{(metrics.messages - self._messages) / span:,.0f} messages/s · stored {metrics.messages:,} messages, "
            f"{metrics.events:,} events · rejected {metrics.rejections:,} · "
            f"unacknowledged {metrics.unacknowledged:,} · commit {pause_ms:.1f} ms"
        )
        if metrics.redelivered:
            text += f" · redelivered {metrics.redelivered:,}"
        if metrics.own:
            text += f" · own {metrics.own:,}"
        if metrics.ignored:
            text += f" · ignored {metrics.ignored:,}"
        if metrics.read_again:
            text += f" · read again {metrics.read_again:,}"
        self._messages, self._events, self._commits = metrics.messages, metrics.events, metrics.commits
        self._seconds, self._at = metrics.commit_seconds, now
        return text
