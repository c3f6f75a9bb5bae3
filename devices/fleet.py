"""What is to be simulated: groups of like devices. All that they say follows from it, and nothing from the world."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import msgspec

from devices.faults import Faults
from devices.models import MODELS, Signal
from devices.pace import Pace

Session = Literal["clean", "persistent"]


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """Devices that differ in nothing but their names and their chance.

    `prefix` begins their names, unless `names` gives them, one for each; `units` are UCUM codes by reading name.
    `topic` is where telemetry goes instead of the dialect's own topic: `{device}` and `{group}` stand for the names.
    With `receipts` each message asks the gateway for its word, and is sent again until that comes.
    """

    name: str
    prefix: str
    signal: Signal
    pace: Pace
    units: Mapping[str, str] = {}
    count: int = 1
    names: tuple[str, ...] = ()
    qos: int = 1
    retain: bool = False
    will: bool = True
    birth: bool = True
    session: Session = "clean"
    dialect: str = "json"
    topic: str | None = None
    receipts: bool = False
    faults: Faults = Faults()


class Fleet(msgspec.Struct, frozen=True, kw_only=True):
    """Without `duration_s` it goes on until it is stopped. With the same seed and start, the same bytes."""

    groups: tuple[Group, ...]
    start_us: int
    seed: str
    duration_s: float | None = None

    @property
    def devices(self) -> int:
        """How many there are in all."""
        return sum(group.count for group in self.groups)


class Device(msgspec.Struct, frozen=True):
    """One simulated device; `seed` is where all its chance comes from."""

    name: str
    group: Group
    seed: str


def any_seed() -> str:
    """For whoever gave none."""
    return f"{secrets.randbits(64)}"


def of_models(models: Sequence[str], *, devices: int, rate: float, qos: int) -> tuple[Group, ...]:
    """So many devices of these models, which take turns, each at `rate` events a second."""
    groups = []
    for place, name in enumerate(models):
        model = MODELS[name]
        count = (devices - place + len(models) - 1) // len(models)
        if count > 0:
            groups.append(
                Group(
                    name=name,
                    prefix=model.prefix,
                    signal=model.signal,
                    units=model.units,
                    pace=Pace(1 / rate),
                    count=count,
                    qos=qos,
                )
            )
    return tuple(groups)


def asking_for_receipts(fleet: Fleet) -> Fleet:
    """The same fleet, all of whose groups ask for receipts."""
    groups = tuple(msgspec.structs.replace(group, receipts=True) for group in fleet.groups)
    return msgspec.structs.replace(fleet, groups=groups)


def devices(fleet: Fleet) -> Iterator[Device]:
    """All devices, the groups taking turns: thermo-0001, meter-0001, thermo-0002, meter-0002."""
    for number in range(max((group.count for group in fleet.groups), default=0)):
        for group in fleet.groups:
            if number < group.count:
                name = name_of(group, number)
                yield Device(name, group, f"{fleet.seed}/{name}")


def name_of(group: Group, number: int) -> str:
    """The name of a group's device, counted from 0."""
    return group.names[number] if group.names else f"{group.prefix}-{number + 1:04d}"


def boot_id(device: Device, fleet: Fleet, restarts: int = 0) -> str:
    """Tells this run of a device from any other; `restarts` counts how often it has been started again within it."""
    # The start is part of it: a second run with the same seed is another boot, unless it repeats the first one exactly.
    run = f"{fleet.seed}/{fleet.start_us}/{device.name}" + (f"/{restarts}" if restarts else "")
    return hashlib.blake2b(run.encode(), digest_size=8).hexdigest()
