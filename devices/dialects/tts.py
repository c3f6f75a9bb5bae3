"""The Things Stack v3: uplinks of a LoRaWAN device as its application server publishes them.

https://www.thethingsindustries.com/docs/integrations/data-formats/: the network, not the device, keeps the time, and
knows nothing of whether a device is there.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from random import Random

import msgspec

from devices.clock import iso
from devices.fleet import Device, Fleet
from devices.outgoing import Publication, Sample


class Tts:
    """Uplinks to `v3/<group>@amber/devices/<device>/up`; seq is the frame counter, a boot the session it counts in."""

    identified = True

    def __init__(self, device: Device, fleet: Fleet) -> None:  # noqa: ARG002  all dialects are made alike
        self._device = device
        application = device.group.name
        self._topic = f"v3/{application}@amber/devices/{device.name}/up"
        eui = hashlib.blake2b(device.name.encode(), digest_size=8).hexdigest().upper()
        self._ids = {
            "device_id": device.name,
            "application_ids": {"application_id": application},
            "dev_eui": eui,
            "dev_addr": f"26{eui[:6]}",
        }

    def telemetry(self, sample: Sample) -> Sequence[Publication]:
        chance = Random(f"{self._device.seed}/radio/{sample.boot}/{sample.seq}")
        received_at = iso(sample.observed_at)
        heard = {
            "gateway_ids": {"gateway_id": "amber-gateway"},
            "rssi": chance.randint(-118, -60),
            "snr": round(chance.uniform(-10, 10), 1),
        }
        uplink = {
            "session_key_id": _session_key_id(sample.boot),
            "f_port": 1,
            "f_cnt": sample.seq,
            "decoded_payload": sample.readings,
            "rx_metadata": [heard],
            "settings": {
                "data_rate": {"lora": {"bandwidth": 125_000, "spreading_factor": 7}},
                "frequency": "868100000",
            },
            "received_at": received_at,
        }
        payload = {"end_device_ids": self._ids, "received_at": received_at, "uplink_message": uplink}
        return [Publication(self._topic, msgspec.json.encode(payload), self._device.group.retain)]

    def will(self, time_us: int) -> None:
        pass

    def birth(self, time_us: int) -> Sequence[Publication]:  # noqa: ARG002
        return ()

    def death(self, time_us: int) -> Sequence[Publication]:  # noqa: ARG002
        return ()


def _session_key_id(boot: str) -> str:
    return base64.b64encode(hashlib.blake2b(boot.encode(), digest_size=16).digest()).decode()
