"""zigbee2mqtt: a Zigbee device as its bridge tells of it, and whether the bridge finds it there.

https://www.zigbee2mqtt.io/guide/usage/mqtt_topics_and_messages.html, with `availability` on and `last_seen` set to
`ISO_8601` (https://www.zigbee2mqtt.io/guide/configuration/mqtt.html), which has milliseconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from random import Random

import msgspec

from devices.clock import iso
from devices.fleet import Device, Fleet
from devices.outgoing import Publication, Sample, Value


class Zigbee2mqtt:
    """`zigbee2mqtt/<device>` and, retained, `zigbee2mqtt/<device>/availability`."""

    identified = False

    def __init__(self, device: Device, fleet: Fleet) -> None:  # noqa: ARG002  all dialects are made alike
        self._device = device
        self._topic = f"zigbee2mqtt/{device.name}"

    def telemetry(self, sample: Sample) -> Sequence[Publication]:
        chance = Random(f"{self._device.seed}/radio/{sample.boot}/{sample.seq}")
        document = {
            **_exposed(sample.readings),
            "last_seen": f"{iso(sample.observed_at)[:23]}Z",
            "linkquality": chance.randint(60, 200),
        }
        return [Publication(self._topic, msgspec.json.encode(document), self._device.group.retain)]

    def will(self, time_us: int) -> Publication:  # noqa: ARG002  it knows no time
        return self._presence("offline")

    def birth(self, time_us: int) -> Sequence[Publication]:  # noqa: ARG002
        return [self._presence("online")]

    def death(self, time_us: int) -> Sequence[Publication]:  # noqa: ARG002
        return [self._presence("offline")]

    def _presence(self, state: str) -> Publication:
        return Publication(f"{self._topic}/availability", msgspec.json.encode({"state": state}), retain=True)


def unsayable(names: Iterable[str]) -> str | None:
    """What the bridge itself says in each message, and the contact that `state` becomes."""
    known = list(names)
    wrong = next((name for name in known if name in ("last_seen", "linkquality")), None)
    if wrong:
        return f"zigbee2mqtt says {wrong!r} itself"
    return (
        "in zigbee2mqtt a state is told as 'contact', and both are there" if {"state", "contact"} <= {*known} else None
    )


def _exposed(readings: Mapping[str, Value]) -> dict[str, Value]:
    """A door is a contact, which is made when it is closed."""
    return {
        ("contact" if _is_door(name, value) else name): value == "closed" if _is_door(name, value) else value
        for name, value in readings.items()
    }


def _is_door(name: str, value: Value) -> bool:
    return name == "state" and value in ("open", "closed")
