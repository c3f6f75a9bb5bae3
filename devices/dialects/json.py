"""Amber's own JSON: device, boot, seq, time, readings and units; its presence in a retained status."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from devices.clock import iso
from devices.fleet import Device, Fleet, boot_id
from devices.outgoing import Publication, Sample


class Json:
    """Telemetry to `devices/<device>/telemetry`, "online" and "offline" to `devices/<device>/status`."""

    identified = True

    def __init__(self, device: Device, fleet: Fleet) -> None:
        self._device = device
        self._boot = boot_id(device, fleet)
        topic = device.group.topic or "devices/{device}/telemetry"
        self._topic = topic.replace("{device}", device.name).replace("{group}", device.group.name)

    def telemetry(self, sample: Sample) -> Sequence[Publication]:
        payload = {
            "device": self._device.name,
            "boot": sample.boot,
            "seq": sample.seq,
            "time": iso(sample.observed_at),
            "readings": sample.readings,
            "units": self._device.group.units,
        }
        return [Publication(self._topic, msgspec.json.encode(payload), self._device.group.retain)]

    def will(self, time_us: int) -> Publication:
        return self._status("offline", time_us)

    def birth(self, time_us: int) -> Sequence[Publication]:
        return [self._status("online", time_us)]

    def death(self, time_us: int) -> Sequence[Publication]:
        return [self._status("offline", time_us)]

    def _status(self, state: str, time_us: int) -> Publication:
        payload = {"device": self._device.name, "boot": self._boot, "time": iso(time_us), "state": state}
        return Publication(f"devices/{self._device.name}/status", msgspec.json.encode(payload), retain=True)
