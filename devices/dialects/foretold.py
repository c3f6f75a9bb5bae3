"""What a device is going to measure: for the dialects that must announce it before there is a sample."""

from __future__ import annotations

from random import Random

from devices.fleet import Device, Fleet
from devices.models import Readings
from devices.pace import measured


def first_readings(device: Device, fleet: Fleet) -> Readings:
    """Those of the first sample, if nothing goes wrong with it; they follow from the fleet alone."""
    group = device.group
    first = next(measured(group.pace, fleet.start_us, device.seed))
    return next(iter(group.signal(Random(device.seed), iter((first,)))), {})
