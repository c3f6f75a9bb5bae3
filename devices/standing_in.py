"""Who sends what a device has left in the outbox when the fleet has that device no more. Says nothing of its own."""

from __future__ import annotations

from collections.abc import Sequence

from devices.dialects import Dialect
from devices.fleet import Device, Group
from devices.models import MODELS
from devices.outbox_file import Left
from devices.outgoing import Publication, Sample
from devices.pace import Pace


class Silent:
    """A dialect without words: what is in the outbox has been said already."""

    identified = False

    def telemetry(self, sample: Sample) -> Sequence[Publication]:  # noqa: ARG002
        return ()

    def will(self, time_us: int) -> Publication | None:  # noqa: ARG002
        return None

    def birth(self, time_us: int) -> Sequence[Publication]:  # noqa: ARG002
        return ()

    def death(self, time_us: int) -> Sequence[Publication]:  # noqa: ARG002
        return ()


def in_place_of(left: Left) -> tuple[Device, Dialect]:
    """A device of that name, which has no presence and measures nothing."""
    group = Group(
        name="outbox",
        prefix="outbox",
        signal=next(iter(MODELS.values())).signal,
        pace=Pace(1.0),
        qos=left.qos,
        receipts=left.receipts,
        will=False,
        birth=False,
    )
    return Device(left.device, group, f"outbox/{left.device}"), Silent()
