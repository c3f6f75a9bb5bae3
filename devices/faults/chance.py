"""The chance by which faults strike: drawn from the device's seed and from what is struck, never from one another.

Python's generators would not do for messages: each draw follows from the one before, so that one message less would
change the fate of all that follow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from hashlib import blake2b
from heapq import merge
from random import Random
from struct import Struct
from typing import TYPE_CHECKING

from devices.clock import SECOND_US
from devices.faults import Spell

if TYPE_CHECKING:
    from devices.fleet import Device, Fleet

Throw = Callable[[int, int, int], tuple[int, ...]]
"""Eight numbers below 2**64, always the same for the same three."""

Stretch = tuple[int, int]
"""When a spell begins and ends, in microseconds of the fleet's time; the end is no longer part of it."""

NEVER: Stretch = (1 << 63, 1 << 63)

_NUMBERS = Struct("<8Q").unpack
_NAME = Struct("<3q").pack


def throws(seed: str) -> Throw:
    """The dice of one device for one sort of thing: what they show follows from the thing's name alone."""
    key = blake2b(seed.encode(), digest_size=32).digest()

    def throw(one: int, two: int, three: int) -> tuple[int, ...]:
        return _NUMBERS(blake2b(_NAME(one, two, three), key=key).digest())

    return throw


def limit(share: float) -> int:
    """Such a number is below this in `share` of all cases."""
    return int(share * 2**64)


def spells(spell: Spell | None, fault: str, device: Device, fleet: Fleet) -> Iterator[Stretch]:
    """When it is so with this device: rising, and none overlaps the next."""
    if spell is None:
        return iter(())
    length_us = int(spell.for_s * SECOND_US)
    begins = sorted(fleet.start_us + int(at_s * SECOND_US) for at_s in spell.at_s)
    fixed = ((begin_us, begin_us + length_us) for begin_us in begins)
    if spell.every_s is None:
        return _joined(fixed)
    chance = Random(f"{device.seed}/faults/{fault}")
    return _joined(merge(fixed, _by_chance(chance, spell.every_s * SECOND_US, length_us, fleet.start_us)))


def _by_chance(chance: Random, every_us: float, length_us: int, start_us: int) -> Iterator[Stretch]:
    end_us = start_us
    while True:
        begin_us = end_us + 1 + int(chance.expovariate(1 / every_us))
        end_us = begin_us + length_us
        yield begin_us, end_us


def _joined(stretches: Iterable[Stretch]) -> Iterator[Stretch]:
    """Those that overlap as one."""
    begin_us = end_us = None
    for begin, end in stretches:
        if begin_us is not None and end_us is not None:
            if begin < end_us:
                end_us = max(end_us, end)
                continue
            yield begin_us, end_us
        begin_us, end_us = begin, end
    if begin_us is not None and end_us is not None:
        yield begin_us, end_us


class Course:
    """Spells beside times that only rise. `past` counts those that are over, the last of them at `since_us`."""

    def __init__(self, stretches: Iterator[Stretch]) -> None:
        self.past = self.since_us = 0
        self._stretches = stretches
        self._begin_us, self._end_us = next(stretches, NEVER)

    def at(self, time_us: int) -> Stretch | None:
        """The spell that a time is in."""
        while time_us >= self._end_us:
            self.past, self.since_us = self.past + 1, self._end_us
            self._begin_us, self._end_us = next(self._stretches, NEVER)
        return (self._begin_us, self._end_us) if time_us >= self._begin_us else None
