"""Faults of connecting: when a device leaves, dies, reboots, is impersonated. Follows from the device's seed alone."""

from __future__ import annotations

from collections.abc import Iterator
from heapq import merge
from random import Random
from typing import TYPE_CHECKING, Literal

import msgspec
from msgspec.structs import replace

from devices.clock import SECOND_US
from devices.faults import Spell
from devices.faults.chance import Course, spells
from devices.outgoing import Sample

if TYPE_CHECKING:
    from devices.fleet import Device, Fleet

FLAPPING_S = (1.0, 2.0)
"""How long a connection lasts while it is flapping: at least, at most."""

What = Literal["leave", "die", "clash"]


class Disturbance(msgspec.Struct, frozen=True):
    """Something that happens to the connection of a device at a time of the fleet.

    `leave`: a farewell; `die`: cut off without a word; `clash`: another client takes the device's client id. The device
    stays away for `away_s`, and measures meanwhile, unless it is off for a reboot.
    """

    at_us: int
    what: What
    away_s: float

    @property
    def back_us(self) -> int:
        """When the device comes back."""
        return self.at_us + int(self.away_s * SECOND_US)


def disturbances(device: Device, fleet: Fleet) -> Iterator[Disturbance]:
    """All that happens to a device's connections, in the order of time. One may begin before another is over."""
    return merge(absences(device, fleet), clashes(device, fleet), key=_begin)


def absences(device: Device, fleet: Fleet) -> Iterator[Disturbance]:
    """All but the clashes: it leaves, or is cut off."""
    faults = device.group.faults
    return merge(
        _spells(faults.offline, "offline", "leave", device, fleet),
        _spells(faults.death, "death", "die", device, fleet),
        _flapping(faults.flapping, device, fleet),
        _spells(faults.reboot, "reboot", "die", device, fleet),
        key=_begin,
    )


def clashes(device: Device, fleet: Fleet) -> Iterator[Disturbance]:
    """The clashes alone. They are played beside the others: who sought them among all would seek for ever."""
    return _spells(device.group.faults.clash, "clash", "clash", device, fleet)


def _begin(disturbance: Disturbance) -> int:
    return disturbance.at_us


def marked(samples: Iterator[Sample], device: Device, fleet: Fleet) -> Iterator[Sample]:
    """The samples, each named for the spells in which it is due: it comes late, or over a bad connection."""
    for fault in ("offline", "flapping", "death", "clash"):
        if (spell := getattr(device.group.faults, fault)) is not None:
            samples = _marked(samples, fault, Course(spells(spell, fault, device, fleet)))
    return samples


def _marked(samples: Iterator[Sample], fault: str, course: Course) -> Iterator[Sample]:
    for sample in samples:
        within = course.at(sample.due_us) is not None
        yield replace(sample, faults=(*sample.faults, fault)) if within else sample


def _spells(spell: Spell | None, fault: str, what: What, device: Device, fleet: Fleet) -> Iterator[Disturbance]:
    for begin_us, end_us in spells(spell, fault, device, fleet):
        yield Disturbance(begin_us, what, (end_us - begin_us) / SECOND_US)


def _flapping(spell: Spell | None, device: Device, fleet: Fleet) -> Iterator[Disturbance]:
    """A connection is cut off at the beginning, and after a second or two the next one, until the end."""
    chance = Random(f"{device.seed}/faults/flapping/lengths")
    for begin_us, end_us in spells(spell, "flapping", device, fleet):
        at_us = begin_us
        while at_us <= end_us:
            yield Disturbance(at_us, "die", 0.0)
            at_us += int(chance.uniform(*FLAPPING_S) * SECOND_US)
