"""Faults of connecting: when a device leaves, dies or is impersonated. Follows from the device's seed alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

import msgspec

if TYPE_CHECKING:
    from devices.fleet import Device, Fleet


class Disturbance(msgspec.Struct, frozen=True):
    """Something that happens to the connection of a device at a time of the fleet.

    `leave`: a farewell; `die`: cut off without a word; `clash`: another client takes the device's client id. The device
    stays away for `away_s`, and measures meanwhile.
    """

    at_us: int
    what: Literal["leave", "die", "clash"]
    away_s: float


def disturbances(device: Device, fleet: Fleet) -> Iterator[Disturbance]:  # noqa: ARG001
    """All that happens to a device's connections, in the order of time."""
    return iter(())
