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

    `due_us` is when it is to be told in the time of the fleet; it was measured `held_us` before, if it waited for the
    others of its burst. `observed_at` is what the device's own clock said when it was measured. `faults` names what
    went wrong with it, if anything did.
    """

    boot: str
    seq: int
    due_us: int
    observed_at: int
    readings: Mapping[str, Value]
    faults: tuple[str, ...] = ()
    held_us: int = 0

    @property
    def measured_us(self) -> int:
        """When it was measured, in the time of the fleet."""
        return self.due_us - self.held_us


class Publication(msgspec.Struct, frozen=True, gc=False):
    """What a dialect makes of a sample, or of a device's coming and going: one PUBLISH.

    `qos` is for coming and going; telemetry has that of its group.
    """

    topic: str
    payload: bytes
    retain: bool = False
    content_type: str | None = None
    user: tuple[tuple[str, str], ...] = ()
    qos: int = 1


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
