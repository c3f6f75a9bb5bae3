"""How much memory a process has, over time. Only looks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import linear_regression, median

import msgspec

SETTLED_S = 3.0
"""A process that has just been started is still growing: samples of it say nothing."""

FEWEST_SAMPLES = 9
SLOPE_AFTER_S = 60.0


class Sample(msgspec.Struct, frozen=True):
    """What the process had `at_s` after the start of the run."""

    at_s: float
    mb: float


class Memory(msgspec.Struct, frozen=True):
    """In MB: the peak, the medians of the first and the last third of the time, and how much it grows after the first.

    In less than a minute the slope says nothing, and is None.
    """

    peak: float
    first_third: float
    last_third: float
    slope_per_minute: float | None

    def __str__(self) -> str:
        parts = f"peak {self.peak:.0f} MB, first third {self.first_third:.0f} MB, last third {self.last_third:.0f} MB"
        return (
            parts
            if self.slope_per_minute is None
            else f"{parts}, since the first {self.slope_per_minute:+.2f} MB a minute"
        )


def resident_mb(pid: int) -> float | None:
    """RSS; None where the system does not tell (/proc is Linux's), or the process is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text("ascii", "replace")
    except OSError:
        return None
    _, found, rest = status.partition("VmRSS:")
    return int(rest.split()[0]) * 1_024 / 1e6 if found else None


def memory(samples: Sequence[Sample]) -> Memory | None:
    """None where there are too few samples to say anything."""
    if len(samples) < FEWEST_SAMPLES:
        return None
    third = len(samples) // 3
    mbs = [sample.mb for sample in samples]
    return Memory(max(mbs), median(mbs[:third]), median(mbs[-third:]), _slope_per_minute(samples[third:]))


def _slope_per_minute(samples: Sequence[Sample]) -> float | None:
    """Of the line that fits best. The first third is not among them: a gateway fills its caches then."""
    times_s = [sample.at_s for sample in samples]
    if times_s[-1] - times_s[0] < SLOPE_AFTER_S:
        return None
    return linear_regression(times_s, [sample.mb for sample in samples]).slope * 60
