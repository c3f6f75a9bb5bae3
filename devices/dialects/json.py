"""Amber's own JSON: device, boot, seq, time, readings and units; its presence in a retained status."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from devices.clock import iso
from devices.dialects import topics
from devices.faults.rebooting import Boots
from devices.fleet import Device, Fleet
from devices.outgoing import Publication, Sample


class Json:
    """Telemetry to `devices/<device>/telemetry`, "online" and "offline" to `devices/<device>/status`."""

    identified = True

    def __init__(self, device: Device, fleet: Fleet) -> None:
        self._device = device
        self._boots = Boots(device, fleet)
        self._topic = topics.chosen(device, "devices/{device}/telemetry")

    def telemetry(self, sample: Sample) -> Sequence[Publication]:
        payload = {
            "device": self._device.name,
            "boot": sample.boot,
            "seq": sample.seq,
            "time": iso(sample.observed_at),
            "readings": sample.readings,
            "units": self._device.group.units,
        }
        return [Publication(self._topic, self._encoded(payload), self._device.group.retain, self._content_type)]

    def will(self, time_us: int) -> Publication:
        return self._status("offline", time_us)

    def birth(self, time_us: int) -> Sequence[Publication]:
        return [self._status("online", time_us)]

    def death(self, time_us: int) -> Sequence[Publication]:
        return [self._status("offline", time_us)]

    def _status(self, state: str, time_us: int) -> Publication:
        payload = {
            "device": self._device.name,
            "boot": self._boots.id_at(time_us),
            "time": iso(time_us),
            "state": state,
        }
        topic = f"devices/{self._device.name}/status"
        return Publication(topic, self._encoded(payload), retain=True, content_type=self._content_type)

    _content_type: str | None = None

    def _encoded(self, payload: object) -> bytes:
        return msgspec.json.encode(payload)
