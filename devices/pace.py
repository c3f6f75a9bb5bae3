"""When a device measures. Follows from its pace and its chance alone, never from a clock."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import msgspec

from devices.clock import SECOND_US, ticks


class Pace(msgspec.Struct, frozen=True):
    """Every so many seconds, give or take `jitter`: a share of that time, below 1."""

    every_s: float
    jitter: float = 0.0


def times(pace: Pace, start_us: int, seed: str) -> Iterator[int]:
    """For ever: the times of a device (microseconds since the epoch), rising, the first within an interval."""
    phase = Random(f"{seed}/phase").random()  # else all devices would fire together
    regular = ticks(start_us, 1 / pace.every_s, phase)
    if not pace.jitter:
        return regular
    chance = Random(f"{seed}/jitter")
    span = pace.jitter * pace.every_s * SECOND_US
    return (time + int(chance.uniform(0, span)) for time in regular)
