"""What the gateway counts of itself, and the line that says it. Counts batches, never inspects a message."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

from storage.store import Committed

SHORTEST_S, STEP, STEPS = 1e-5, 1.05, 400
"""Durations are counted in steps of a twentieth: percentiles of an hour without keeping each."""


class Metrics:
    """Counts since the start of the process."""

    def __init__(self) -> None:
        self.messages = 0
        self.events = 0
        self.rejections = 0
        self.duplicates = 0
        self.conflicts = 0
        self.redelivered = 0
        self.own = 0
        self.ignored = 0
        self.read_again = 0
        self.receipts = 0
        self.receipts_refused = 0
        self.receipts_left_out = 0
        self.unacknowledged = 0
        self.commits = 0
        self.commit_seconds = 0.0
        self.commit_steps = [0] * STEPS

    def received(self, messages: int) -> None:
        self.unacknowledged += messages

    def committed(self, committed: Committed) -> None:
        self.messages += committed.messages
        self.events += committed.events
        self.rejections += committed.rejections
        self.duplicates += committed.duplicates
        self.conflicts += committed.conflicts
        self.commits += 1
        self.commit_seconds += committed.seconds
        self.commit_steps[step_of(committed.seconds)] += 1

    def acknowledged(self, messages: int) -> None:
        self.unacknowledged -= messages

    def receipted(self, sent: int, left_out: int, refused_in_all: int) -> None:
        self.receipts += sent
        self.receipts_left_out += left_out
        self.receipts_refused = refused_in_all


class Summary:
    """Says what happened since it last spoke."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._messages, self._commits, self._seconds = 0, 0, 0.0
        self._steps = [0] * STEPS
        self._at = time.monotonic()

    def line(self) -> str:
        """One line for an interval: rates, what was stored in all, and what still waits for its commit."""
        metrics, now = self._metrics, time.monotonic()
        span = max(now - self._at, 1e-9)
        commits = metrics.commits - self._commits
        commit_ms = 1000 * (metrics.commit_seconds - self._seconds) / commits if commits else 0.0
        steps = [count - before for count, before in zip(metrics.commit_steps, self._steps, strict=True)]
        text = (
            f"{(metrics.messages - self._messages) / span:,.0f} messages/s · stored {metrics.messages:,} messages, "
            f"{metrics.events:,} events · rejected {metrics.rejections:,} · "
            f"unacknowledged {metrics.unacknowledged:,} · commit {commit_ms:.1f} ms "
            f"(p99 {1000 * percentile(steps, 0.99):.1f})"
        )
        if metrics.redelivered:
            text += f" · redelivered {metrics.redelivered:,}"
        if metrics.duplicates:
            text += f" · duplicates {metrics.duplicates:,}"
        if metrics.conflicts:
            text += f" · conflicts {metrics.conflicts:,}"
        if metrics.own:
            text += f" · own {metrics.own:,}"
        if metrics.ignored:
            text += f" · ignored {metrics.ignored:,}"
        if metrics.read_again:
            text += f" · read again {metrics.read_again:,}"
        if metrics.receipts:
            text += f" · receipts {metrics.receipts:,}"
        if metrics.receipts_refused:
            text += f" · receipts refused {metrics.receipts_refused:,}"
        if metrics.receipts_left_out:
            text += f" · receipts left out {metrics.receipts_left_out:,}"
        self._messages, self._commits, self._seconds = metrics.messages, metrics.commits, metrics.commit_seconds
        self._steps, self._at = metrics.commit_steps.copy(), now
        return text


def step_of(seconds: float) -> int:
    return min(max(0, math.ceil(math.log(max(seconds, SHORTEST_S) / SHORTEST_S, STEP))), STEPS - 1)


def percentile(steps: Sequence[int], share: float) -> float:
    """Seconds that this share of the durations did not take longer than; 0 where there are none."""
    wanted, seen = share * sum(steps), 0
    for step, count in enumerate(steps):
        seen += count
        if count and seen >= wanted:
            return SHORTEST_S * STEP**step
    return 0.0
