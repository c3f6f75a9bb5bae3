"""The data on its way from a measurement to the broker. Plain facts, no behaviour. Times are microseconds, UTC."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

Value = bool | int | float | str

Expect = Literal["event", "rejection", "any"]
"""What a gateway is to make of a message: events; a rejection; or either, where the fault leaves that open."""


class Sample(msgspec.Struct, frozen=True, gc=False):
    """What a device measured at one time. `seq` counts from 0 within a boot.

    `due_us` is when that is in the time of the fleet, `observed_at` what the device's own clock says then.
    `faults` names what went wrong with it, if anything did.
    """

    boot: str
    seq: int
    due_us: int
    observed_at: int
    readings: Mapping[str, Value]
    faults: tuple[str, ...] = ()


class Publication(msgspec.Struct, frozen=True, gc=False):
    """What a dialect makes of a sample, or of a device's coming and going: one PUBLISH."""

    topic: str
    payload: bytes
    retain: bool = False
    content_type: str | None = None
    user: tuple[tuple[str, str], ...] = ()


class Outgoing(msgspec.Struct, frozen=True, gc=False):
    """One message of telemetry to be sent, not before `due_us` of the fleet's time.

    `part` counts the messages of one sample, `copy` the messages sent of one part on purpose: together with boot and
    seq they name the message. `identified`: it bears device, boot and seq, so that a second copy can be told as such.
    """

    boot: str
    seq: int
    due_us: int
    observed_at: int
    publication: Publication
    part: int = 0
    copy: int = 0
    identified: bool = False
    expect: Expect = "event"
    faults: tuple[str, ...] = ()

    @property
    def key(self) -> tuple[str, int, int, int]:
        """Its name among all messages of its device."""
        return self.boot, self.seq, self.part, self.copy
