"""Fleets that misbehave, and what they would say: what the tests of faults share."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from itertools import islice
from math import sqrt
from typing import Any

from msgspec.structs import replace

from devices.clock import SECOND_US
from devices.dialects import speak
from devices.faults import Faults, Spell
from devices.faults.measuring import misread
from devices.fleet import Device, Fleet, Group, devices
from devices.models import MODELS
from devices.outgoing import Outgoing, Sample
from devices.pace import Pace
from devices.telemetry import samples, telemetry

START_US = 1_795_338_000 * SECOND_US  # 2026-11-22T09:00:00Z

EVERY = Faults(
    clock_skew_s=30.0,
    clock_drift_ppm=100.0,
    clock_reset=Spell(every_s=60.0, for_s=10.0),
    stuck=Spell(every_s=60.0, for_s=10.0),
    spike=0.1,
    missing=0.1,
    schema_change=Spell(every_s=60.0, for_s=20.0),
    reboot=Spell(every_s=60.0, for_s=5.0),
    duplicate=0.1,
    conflict=0.1,
    out_of_order=0.1,
    garbage=0.1,
    truncated=0.1,
    oversize=0.01,
)
"""All faults but those of connecting."""


NONE = Faults()


def fleet_of(
    faults: Faults = NONE,
    *,
    model: str = "thermometer",
    every_s: float = 1.0,
    seed: str = "7",
    duration_s: float | None = None,
    **group: Any,  # its fields
) -> Fleet:
    """One device of one group, which measures once a second."""
    signal, units = MODELS[model].signal, MODELS[model].units
    one = Group(name="faulty", prefix="faulty", signal=signal, units=units, pace=Pace(every_s), faults=faults)
    return Fleet(groups=(replace(one, **group),), start_us=START_US, seed=seed, duration_s=duration_s)


def only(fault: str, how: Any) -> Faults:
    """One fault alone, by the name of its field."""
    return Faults(**{fault: how})


def one_of(fleet: Fleet) -> Device:
    return next(devices(fleet))


def sent(fleet: Fleet, number: int) -> list[Outgoing]:
    """The first messages of its first device."""
    device = one_of(fleet)
    return list(islice(telemetry(device, fleet, speak(device, fleet)), number))


def taken(fleet: Fleet, number: int) -> list[Sample]:
    """What its first device takes for true."""
    device = one_of(fleet)
    return list(islice(misread(samples(device, fleet), device, fleet), number))


def true(fleet: Fleet, number: int) -> dict[int, Sample]:
    """What it would measure if nothing went wrong, by the time."""
    return {sample.due_us: sample for sample in islice(samples(one_of(fleet), fleet), number)}


def digest(dialect: str) -> str:
    """Of all that a device with every fault says."""
    told = hashlib.blake2b(digest_size=8)
    for message in sent(fleet_of(replace(EVERY, oversize=0.001), dialect=dialect), 150):
        told.update(repr(message).encode())
    return told.hexdigest()


def struck(found: Iterable[Sample | Outgoing], fault: str) -> list[int]:
    """When a fault struck."""
    return [one.due_us for one in found if fault in one.faults]


def is_share(number: int, of: int, share: float) -> bool:
    """Whether so many are that share, give or take five standard deviations: for a fixed seed it is always the same."""
    return abs(number - of * share) <= 5 * sqrt(of * share * (1 - share))
