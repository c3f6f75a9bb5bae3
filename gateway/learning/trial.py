"""Tries a learned fleet without a network: how alike what it says is to what it was learned from."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from statistics import fmean

import msgspec

from devices.fleet import Fleet, devices
from devices.fleets import load
from devices.outgoing import Sample
from devices.telemetry import samples
from gateway.learning import Learned
from gateway.learning.grouping import POOLED, LearnedGroup
from gateway.learning.likeness import distance
from gateway.learning.signals import Series, rate_of
from storage.event import Value

MOST_SAMPLES = 20_000
"""Of one group, in all."""


class Likeness(msgspec.Struct, frozen=True):
    """How alike a group is to its devices, from 0 to 1: in pace, and in values by reading."""

    group: str
    dialect: str
    devices: int
    every_s: float
    pace: float
    readings: dict[str, float]

    @property
    def values(self) -> float:
        """The mean of the readings."""
        return sum(self.readings.values()) / len(self.readings)

    @property
    def all(self) -> float:
        """Pace and values together."""
        return self.pace * self.values


def try_out(learned: Learned) -> list[Likeness]:
    """One of each group, in their order."""
    with tempfile.TemporaryDirectory(prefix="amber-learn-") as folder:
        path = Path(folder) / "fleet.toml"
        path.write_text(learned.text, "utf-8")
        fleet = load(path, start_us=0)
    return [_likeness(one, fleet) for one in learned.groups]


def of_all(tried: Sequence[Likeness]) -> float:
    """Of the whole fleet, each device counting once."""
    return sum(one.all * one.devices for one in tried) / sum(one.devices for one in tried)


def _likeness(one: LearnedGroup, fleet: Fleet) -> Likeness:
    members = one.members[:POOLED]
    wanted = max(2, min(sum(len(member.times) for member in members), MOST_SAMPLES) // len(members))
    like = set(one.names[:POOLED])
    said = [
        list(islice(samples(device, fleet), wanted))
        for device in devices(fleet)
        if device.group.name == one.name and device.name in like
    ]
    generated = list(_values(said))
    readings = {
        name: 1
        - _apart(
            name,
            [member.values[name] for member in members if name in member.values],
            [values[name] for values in generated if name in values],
            one,
        )
        for name in one.first.values
    }
    return Likeness(one.name, one.dialect, len(one.members), one.every_s, _same_pace(one, said), readings)


def _values(said: Sequence[Sequence[Sample]]) -> Iterator[dict[str, list[tuple[int, Value]]]]:
    """Of each device its values with their times, by reading."""
    for messages in said:
        values: dict[str, list[tuple[int, Value]]] = {}
        for sample in messages:
            for name, value in sample.readings.items():
                values.setdefault(name, []).append((sample.observed_at, value))
        yield values


def _apart(name: str, recorded: Sequence[Series], generated: Sequence[Series], one: LearnedGroup) -> float:
    """How far what is said of a reading is from what was recorded, over all devices: of a counter, its pace."""
    if one.signals.get(name, {}).get("kind") == "counter":
        slow, fast = sorted(
            fmean(map(rate_of, of_devices)) if of_devices else 0.0 for of_devices in (recorded, generated)
        )
        return 1 - slow / fast if fast else 0.0
    mine, yours = ([value for series in each for _, value in series] for each in (recorded, generated))
    return distance(mine, yours)


def _same_pace(one: LearnedGroup, said: Sequence[Sequence[Sample]]) -> float:
    """The share that the slower of the two paces is of the faster, by the median device."""
    mine = sorted(_pace([sample.due_us for sample in messages]) for messages in said)
    yours = sorted(_pace(member.times) for member in one.members[:POOLED])
    slow, fast = sorted((mine[len(mine) // 2], yours[len(yours) // 2]))
    return slow / fast if fast else 1.0


def _pace(times: Sequence[int]) -> float:
    span = times[-1] - times[0]
    return (len(times) - 1) / span if span else 0.0
