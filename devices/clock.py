"""Time as the devices see it: microseconds since the epoch, UTC, in step with the event loop, from any start.

With the same start, two runs see the same times, whenever they take place.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache

import msgspec

SECOND_US = 1_000_000
DAY_US = 86_400 * SECOND_US

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Clock(msgspec.Struct, frozen=True):
    """The simulated time, bound to the loop's own clock (seconds, monotonic)."""

    start_us: int
    loop_start_s: float

    @classmethod
    def starting_now(cls, start_us: int) -> Clock:
        return cls(start_us, asyncio.get_running_loop().time())

    def now_us(self) -> int:
        return self.start_us + int((asyncio.get_running_loop().time() - self.loop_start_s) * SECOND_US)

    def loop_time_s(self, time_us: int) -> float:
        """When the loop's clock will show `time_us`."""
        return self.loop_start_s + (time_us - self.start_us) / SECOND_US


def ticks(start_us: int, rate: float, phase: float) -> Iterator[int]:
    """For ever: the times of `rate` events a second, `phase` (0 to 1) of an interval after the start.

    Each is reckoned from the start, not from the one before, so that no error adds up.
    """
    interval_us = SECOND_US / rate
    first_us = start_us + int(phase * interval_us)
    return (first_us + int(n * interval_us) for n in itertools.count())


def iso(time_us: int) -> str:
    """2026-11-22T09:00:00.123456Z."""
    second, part = divmod(time_us, SECOND_US)
    return f"{_iso_second(second)}.{part:06}Z"


@lru_cache(4)
def _iso_second(second: int) -> str:
    """Times that are told one after the other mostly differ in their last digits."""
    return (_EPOCH + timedelta(seconds=second)).isoformat().removesuffix("+00:00")


def microseconds(moment: datetime) -> int:
    """The reverse; a time without an offset is taken as UTC."""
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment - _EPOCH) // timedelta(microseconds=1)


def wall_us() -> int:
    """What the machine's clock says."""
    return time.time_ns() // 1_000


async def happens(event: asyncio.Event, *, before_s: float) -> bool:
    """Wait for `event` until the loop's clock says `before_s`, no longer; whether it came."""
    if before_s <= asyncio.get_running_loop().time():
        await asyncio.sleep(0)  # someone who is late must still let the others run
        return event.is_set()
    try:
        async with asyncio.timeout_at(before_s):
            return await event.wait()
    except TimeoutError:
        return False
