"""Faults of measuring: what a device takes for true is not. Follows from the device's seed alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from random import Random
from typing import TYPE_CHECKING

from msgspec.structs import replace

from devices.clock import SECOND_US
from devices.faults import Faults
from devices.faults.chance import Course, limit, spells, throws
from devices.outgoing import Sample, Value

if TYPE_CHECKING:
    from devices.fleet import Device, Fleet

FARTHEST = 1_000_000
"""A number beyond this is spiked towards zero, so that it stays one which every dialect can tell."""


def misread(samples: Iterator[Sample], device: Device, fleet: Fleet) -> Iterator[Sample]:
    """The samples as the device takes them, with all that goes wrong up to here.

    Each fault is a stage of its own; without any, these are the samples themselves. Chance goes by a sample's number,
    so what loses samples or counts them anew comes last.
    """
    faults = device.group.faults
    if faults.stuck:
        samples = _stuck(samples, Course(spells(faults.stuck, "stuck", device, fleet)))
    if faults.spike:
        samples = _spiked(samples, device, faults.spike)
    if faults.missing:
        samples = _thinned(samples, device, faults.missing)
    if faults.schema_change:
        samples = _renamed(samples, Course(spells(faults.schema_change, "schema_change", device, fleet)))
    if faults.clock_skew_s or faults.clock_drift_ppm:
        samples = _mistimed(samples, device, fleet)
    if faults.clock_reset:
        samples = _since_1970(samples, Course(spells(faults.clock_reset, "clock_reset", device, fleet)))
    if faults.reboot:
        samples = _rebooted(samples, device, fleet, Course(spells(faults.reboot, "reboot", device, fleet)))
    return samples


def _stuck(samples: Iterator[Sample], course: Course) -> Iterator[Sample]:
    """The last readings before a spell, or else the first within it, until it ends."""
    before: Mapping[str, Value] | None = None
    for sample in samples:
        if course.at(sample.measured_us) is None:
            before = sample.readings
            yield sample
        else:
            before = before or sample.readings
            yield replace(sample, readings=before, faults=(*sample.faults, "stuck"))


def _spiked(samples: Iterator[Sample], device: Device, share: float) -> Iterator[Sample]:
    throw, below = throws(f"{device.seed}/faults/spike"), limit(share)
    for sample in samples:
        number = throw(sample.seq, 0, 0)[0]
        if number < below and (readings := _with_a_spike(sample.readings, Random(number))):
            yield replace(sample, readings=readings, faults=(*sample.faults, "spike"))
        else:
            yield sample


def _with_a_spike(readings: Mapping[str, Value], chance: Random) -> Mapping[str, Value] | None:
    """The readings with one number far off; None where there is no number."""
    numbers = [name for name, value in readings.items() if type(value) in (int, float)]
    if not numbers:
        return None
    name, factor = chance.choice(numbers), chance.randint(5, 50)
    value = readings[name]
    if abs(value) > FARTHEST:  # type: ignore[arg-type]  # it is one of the numbers
        return {**readings, name: value // factor}  # type: ignore[operator]
    spike = (abs(value) + 1) * factor  # type: ignore[arg-type]
    return {**readings, name: spike if type(value) is int else round(spike, 6)}


def _thinned(samples: Iterator[Sample], device: Device, share: float) -> Iterator[Sample]:
    throw, below = throws(f"{device.seed}/faults/missing"), limit(share)
    for sample in samples:
        number = throw(sample.seq, 0, 0)[0]
        if number < below and len(sample.readings) > 1:
            gone = Random(number).choice([*sample.readings])
            readings = {name: value for name, value in sample.readings.items() if name != gone}
            yield replace(sample, readings=readings, faults=(*sample.faults, "missing"))
        else:
            yield sample


def _renamed(samples: Iterator[Sample], course: Course) -> Iterator[Sample]:
    for sample in samples:
        if course.at(sample.measured_us) is None:
            yield sample
        else:
            yield replace(
                sample, readings=_of_another_version(sample.readings), faults=(*sample.faults, "schema_change")
            )


def _of_another_version(readings: Mapping[str, Value]) -> Mapping[str, Value]:
    """All names are new, and the first number is a text."""
    number = next((name for name, value in readings.items() if type(value) in (int, float)), None)
    return {f"{name}_v2": str(value) if name == number else value for name, value in readings.items()}


def _mistimed(samples: Iterator[Sample], device: Device, fleet: Fleet) -> Iterator[Sample]:
    """A clock that is off from the start, and runs at a speed of its own."""
    faults = device.group.faults
    skew_us, drift = _skew_us(faults, device), _drift(faults, device)
    named = (*(["clock_skew"] if faults.clock_skew_s else []), *(["clock_drift"] if faults.clock_drift_ppm else []))
    for sample in samples:
        off_us = skew_us + int((sample.measured_us - fleet.start_us) * drift)
        yield replace(sample, observed_at=sample.observed_at + off_us, faults=(*sample.faults, *named))


def _skew_us(faults: Faults, device: Device) -> int:
    chance = Random(f"{device.seed}/faults/clock_skew")
    return int(chance.uniform(-faults.clock_skew_s, faults.clock_skew_s) * SECOND_US)


def _drift(faults: Faults, device: Device) -> float:
    chance = Random(f"{device.seed}/faults/clock_drift")
    return chance.uniform(-faults.clock_drift_ppm, faults.clock_drift_ppm) / 1_000_000


def _since_1970(samples: Iterator[Sample], course: Course) -> Iterator[Sample]:
    for sample in samples:
        spell = course.at(sample.measured_us)
        if spell is None:
            yield sample
        else:
            yield replace(sample, observed_at=sample.measured_us - spell[0], faults=(*sample.faults, "clock_reset"))


def _rebooted(samples: Iterator[Sample], device: Device, fleet: Fleet, course: Course) -> Iterator[Sample]:
    """Nothing within a spell; after it a new boot, whose first sample is named for it.

    A device that is off forgets what it had gathered for the next burst.
    """
    from devices.fleet import boot_id  # which knows of faults itself

    boot, seq, restarts = "", 0, 0
    for sample in samples:
        if course.at(sample.due_us) is not None or sample.measured_us < course.since_us:
            continue
        if not course.past:
            yield sample
            continue
        if course.past != restarts:
            restarts = course.past
            boot, seq = boot_id(device, fleet, restarts), 0
        faults = (*sample.faults, "reboot") if seq == 0 else sample.faults
        yield replace(sample, boot=boot, seq=seq, faults=faults)
        seq += 1
