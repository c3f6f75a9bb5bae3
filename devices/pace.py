"""When a device measures. Follows from its pace and its chance alone, never from a clock."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from itertools import groupby, repeat
from operator import sub
from random import Random
from zoneinfo import ZoneInfo

import msgspec

from devices.clock import SECOND_US, microseconds, ticks

DAY_S = 86_400


class Hours(msgspec.Struct, frozen=True):
    """The hours of each day in which a device is awake: from and to, in seconds after midnight of the zone.

    One that ends before it begins goes on past midnight; they may overlap.
    """

    spans: tuple[tuple[int, int], ...]
    zone: str = "UTC"

    @property
    def shortest_s(self) -> int:
        return min(_length_s(span) for span in self.spans)


class Bursts(msgspec.Struct, frozen=True):
    """Every so many seconds `count` samples come at once in place of one, each with the time of its measurement."""

    every_s: float
    count: int


class Pace(msgspec.Struct, frozen=True):
    """Every so many seconds, give or take `jitter`: a share of that time, below 1.

    With hours none of them may be shorter than the time from one to the next, or a device may never meet them.
    """

    every_s: float
    jitter: float = 0.0
    hours: Hours | None = None
    bursts: Bursts | None = None

    @property
    def per_s(self) -> float:
        """Samples a second while a device is awake."""
        bursts = self.bursts
        return 1 / self.every_s + ((bursts.count - 1) / max(bursts.every_s, self.every_s) if bursts else 0.0)


def times(pace: Pace, start_us: int, seed: str) -> Iterator[int]:
    """For ever: the times of a device in microseconds since the epoch, the first within an interval.

    None is before another; those of a burst are the same.
    """
    phase = Random(f"{seed}/phase").random()  # else all devices would fire together
    if pace.hours:
        regular = _awake(pace, pace.hours, start_us, phase, seed)
    else:
        regular = _late(ticks(start_us, 1 / pace.every_s, phase), pace, seed)
    return _in_bursts(regular, pace.bursts, pace.every_s, start_us) if pace.bursts else regular


def measured(pace: Pace, start_us: int, seed: str) -> Iterator[int]:
    """When that is measured which is due at `times`: at the same time, but for bursts."""
    due = times(pace, start_us, seed)
    return map(sub, due, held(pace, start_us, seed)) if pace.bursts else due


def held(pace: Pace, start_us: int, seed: str) -> Iterator[int]:
    """How long before it is due at `times` each is measured.

    Those of a burst are spread evenly over the interval before it; none is before the one that went before them, and
    none was measured asleep.
    """
    return _gathered(times(pace, start_us, seed), pace, start_us) if pace.bursts else repeat(0)


def openings(hours: Hours, start_us: int) -> Iterator[tuple[int, int]]:
    """From and to in microseconds since the epoch, rising; what is open at the start begins with it."""
    zone = ZoneInfo(hours.zone)
    day = datetime.fromtimestamp(start_us // SECOND_US, UTC).astimezone(zone).date() - timedelta(days=1)
    open_until = start_us
    while day < date.max - timedelta(days=2):
        for span in sorted(hours.spans):
            begin_us, end_us = (_moment_us(day, seconds, zone) for seconds in (span[0], span[0] + _length_s(span)))
            if end_us > open_until and begin_us < end_us:
                yield max(begin_us, open_until), end_us
                open_until = end_us
        day += timedelta(days=1)


def _late(regular: Iterator[int], pace: Pace, seed: str) -> Iterator[int]:
    """Each late by a part of the jitter."""
    if not pace.jitter:
        return regular
    chance = Random(f"{seed}/jitter")
    span = pace.jitter * pace.every_s * SECOND_US
    return (time + int(chance.uniform(0, span)) for time in regular)


def _awake(pace: Pace, hours: Hours, start_us: int, phase: float, seed: str) -> Iterator[int]:
    """The times within the hours; a night costs nothing, however many there would be in it."""
    interval_us = pace.every_s * SECOND_US
    first_us = start_us + int(phase * interval_us)
    chance, span = Random(f"{seed}/jitter"), pace.jitter * interval_us
    for begin_us, end_us in openings(hours, start_us):
        n = max(0, math.ceil((begin_us - first_us) / interval_us))
        while (time := first_us + int(n * interval_us) + int(chance.uniform(0, span))) < end_us:
            yield max(time, begin_us)
            n += 1


def _in_bursts(regular: Iterator[int], bursts: Bursts, every_s: float, start_us: int) -> Iterator[int]:
    number = -1
    for time in regular:
        before, number = number, int((time - start_us) / (bursts.every_s * SECOND_US))
        yield time
        if number != before or bursts.every_s <= every_s:
            for _ in range(bursts.count - 1):
                yield time


def _gathered(due: Iterator[int], pace: Pace, start_us: int) -> Iterator[int]:
    interval_us, before_us = int(pace.every_s * SECOND_US), start_us
    awake = openings(pace.hours, start_us) if pace.hours else iter(())
    begin_us, end_us = next(awake, (start_us, sys.maxsize))
    for time, burst in groupby(due):
        while time >= end_us:
            begin_us, end_us = next(awake, (time, sys.maxsize))
        count = sum(1 for _ in burst)
        span_us = min(interval_us, time - before_us, time - begin_us)
        yield from (span_us * left // count for left in reversed(range(count)))
        before_us = time


def _moment_us(day: date, seconds: int, zone: ZoneInfo) -> int:
    """What the zone's clocks show so long after midnight, as they count hours: not so long after it in summer time."""
    moment = datetime(day.year, day.month, day.day, tzinfo=zone) + timedelta(seconds=seconds)
    return microseconds(moment)


def _length_s(span: tuple[int, int]) -> int:
    return (span[1] - span[0] - 1) % DAY_S + 1  # 0 to 24 is a day
