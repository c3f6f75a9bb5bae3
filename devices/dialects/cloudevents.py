"""CloudEvents 1.0 in structured mode: https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/mqtt-protocol-binding.md.

Its `id` is new for each sample and the same in each copy of it, as section 3.1.1 of the specification asks: boot and
seq make it. There is no presence.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from devices.clock import iso
from devices.dialects import topics
from devices.fleet import Device, Fleet
from devices.outgoing import Publication, Sample

CONTENT_TYPE = "application/cloudevents+json"


class CloudEvents:
    """Telemetry to `cloudevents/<device>`; `source` is the device, `data` holds the readings."""

    identified = True

    def __init__(self, device: Device, fleet: Fleet) -> None:  # noqa: ARG002  all dialects are made alike
        self._device = device
        self._topic = topics.chosen(device, "cloudevents/{device}")

    def telemetry(self, sample: Sample) -> Sequence[Publication]:
        event = {
            "specversion": "1.0",
            "id": f"{sample.boot}/{sample.seq}",
            "source": self._device.name,
            "type": "measurement",
            "time": iso(sample.observed_at),
            "sequence": f"{sample.seq}",  # the extension of that name, with its type
            "sequencetype": "Integer",
            "datacontenttype": "application/json",
            "data": sample.readings,
        }
        return [Publication(self._topic, msgspec.json.encode(event), self._device.group.retain, CONTENT_TYPE)]

    def will(self, time_us: int) -> None:
        pass

    def birth(self, time_us: int) -> Sequence[Publication]:  # noqa: ARG002
        return ()

    def death(self, time_us: int) -> Sequence[Publication]:  # noqa: ARG002
        return ()
