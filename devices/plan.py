"""What is to be simulated, and so every byte of telemetry: all here follows from the plan, nothing from the world."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator
from random import Random

import msgspec

from devices.clock import iso, ticks
from devices.models import MODELS, Model


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """`rate` is events a second per device; without `duration_s` it goes on until it is stopped; no seed: any seed."""

    devices: int
    rate: float
    qos: int
    models: tuple[str, ...]
    start_us: int
    duration_s: float | None = None
    seed: int | None = None


class Device(msgspec.Struct, frozen=True):
    """One simulated device. `boot` tells this run of it from any other, `seed` is where all its chance comes from."""

    name: str
    boot: str
    model: Model
    seed: str

    @property
    def telemetry_topic(self) -> str:
        return f"devices/{self.name}/telemetry"

    @property
    def status_topic(self) -> str:
        return f"devices/{self.name}/status"


class Event(msgspec.Struct, frozen=True, gc=False):
    """One telemetry message to be sent; `seq` counts from 0 within a boot."""

    seq: int
    observed_at: int
    payload: bytes


def fleet(plan: Plan) -> list[Device]:
    """The plan's devices, its models taking turns: thermo-0001, meter-0001, thermo-0002, meter-0002."""
    seed = secrets.randbits(64) if plan.seed is None else plan.seed
    return [_device(f"{seed}", plan, n) for n in range(plan.devices)]


def events(device: Device, plan: Plan) -> Iterator[Event]:
    """All that the device will measure, one after another, without end."""
    phase = Random(f"{device.seed}/phase").random()  # else all devices would fire together
    times = ticks(plan.start_us, plan.rate, phase)
    readings = device.model.signal(Random(device.seed), ticks(plan.start_us, plan.rate, phase))
    for seq, (time, values) in enumerate(zip(times, readings, strict=False)):
        payload = {
            "device": device.name,
            "boot": device.boot,
            "seq": seq,
            "time": iso(time),
            "readings": values,
            "units": device.model.units,
        }
        yield Event(seq, time, msgspec.json.encode(payload))


def status(device: Device, state: str, time_us: int) -> bytes:
    """The payload that says whether the device is there: `state` is "online" or "offline"."""
    return msgspec.json.encode({"device": device.name, "boot": device.boot, "time": iso(time_us), "state": state})


def _device(seed: str, plan: Plan, n: int) -> Device:
    model = MODELS[plan.models[n % len(plan.models)]]
    name = f"{model.prefix}-{n // len(plan.models) + 1:04d}"
    # The start is part of it: a second run with the same seed is another boot, unless it repeats the first one exactly.
    boot = hashlib.blake2b(f"{seed}/{plan.start_us}/{name}".encode(), digest_size=8).hexdigest()
    return Device(name, boot, model, f"{seed}/{name}")
