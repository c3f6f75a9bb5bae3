"""The ways in which devices speak, one file a dialect: pure, from samples to messages. Knows nothing of a network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from devices.dialects import json
from devices.fleet import Device, Fleet
from devices.outgoing import Publication, Sample


class Dialect(Protocol):
    """How one device speaks; made anew for each device, and may remember what it said.

    `identified`: its telemetry bears device, boot and seq, so that a gateway can tell a second copy.
    Times are those of the fleet, in microseconds.
    """

    identified: bool

    def telemetry(self, sample: Sample) -> Sequence[Publication]:
        """The messages that tell of one sample, one at least."""

    def will(self, time_us: int) -> Publication | None:
        """What the broker is to say should the connection that begins now end without a farewell."""

    def birth(self, time_us: int) -> Sequence[Publication]:
        """What the device says first on each connection, after `will` was asked for it."""

    def death(self, time_us: int) -> Sequence[Publication]:
        """Its farewell."""


DIALECTS: Mapping[str, Callable[[Device, Fleet], Dialect]] = {
    "json": json.Json,
}
"""By the name that a fleet's file has for it."""


def speak(device: Device, fleet: Fleet) -> Dialect:
    """The dialect of a device."""
    return DIALECTS[device.group.dialect](device, fleet)
