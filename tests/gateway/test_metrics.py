"""Claims about what the gateway counts of itself."""

from __future__ import annotations

from random import Random

import pytest

from gateway.metrics import STEP, STEPS, Metrics, Summary, percentile, step_of
from storage.store import Committed


def committed(seconds: float) -> Committed:
    return Committed(messages=1, events=1, rejections=0, position=1, seconds=seconds)


def test_a_percentile_is_right_within_a_step() -> None:
    random = Random(1)
    durations = sorted(random.lognormvariate(-6, 1) for _ in range(10_000))
    steps = [0] * STEPS
    for seconds in durations:
        steps[step_of(seconds)] += 1
    for share in (0.5, 0.9, 0.99, 1.0):
        exact = durations[int(share * len(durations)) - 1]
        assert exact <= percentile(steps, share) * 1.0001 <= exact * STEP * 1.001


def test_no_commits_have_no_percentile_and_endless_ones_the_longest() -> None:
    steps = [0] * STEPS
    assert percentile(steps, 0.99) == 0.0
    steps[step_of(1e12)] += 1
    assert percentile(steps, 0.99) == pytest.approx(1e-5 * STEP ** (STEPS - 1))
    assert step_of(0.0) == 0


def test_a_line_speaks_of_its_own_interval() -> None:
    metrics = Metrics()
    summary = Summary(metrics)
    for _ in range(100):
        metrics.committed(committed(0.5))
    assert "commit 500.0 ms (p99 5" in summary.line()
    for _ in range(100):
        metrics.committed(committed(0.001))
    assert "commit 1.0 ms (p99 1.0)" in summary.line()
    assert "stored 200 messages" in summary.line()
    assert "commit 0.0 ms (p99 0.0)" in summary.line()


def test_copies_and_conflicts_are_told_where_there_are_any() -> None:
    metrics = Metrics()
    summary = Summary(metrics)
    metrics.committed(committed(0.001))
    assert "duplicates" not in summary.line()
    for _ in range(2):
        metrics.committed(Committed(0, 0, 0, 1, 0.001, duplicates=6, conflicts=1))
    assert " · duplicates 12 · conflicts 2" in summary.line()
