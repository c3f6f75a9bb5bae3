"""The ways in which devices speak, one file a dialect: pure, from samples to messages. Knows nothing of a network."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from devices.dialects import (
    cbor,
    cloudevents,
    homie,
    influx,
    json,
    senml,
    shelly,
    sparkplug,
    tasmota,
    topics,
    tts,
    zigbee2mqtt,
)
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
    "cbor": cbor.Cbor,
    "cloudevents": cloudevents.CloudEvents,
    "senml": senml.Senml,
    "senml-cbor": senml.SenmlCbor,
    "influx": influx.Influx,
    "sparkplug": sparkplug.Sparkplug,
    "sparkplug-device": sparkplug.SparkplugDevice,
    "homie": homie.Homie,
    "tasmota": tasmota.Tasmota,
    "zigbee2mqtt": zigbee2mqtt.Zigbee2mqtt,
    "shelly": shelly.Shelly,
    "shelly1": shelly.Shelly1,
    "tts": tts.Tts,
}
"""By the name that a fleet's file has for it."""

FREE_TOPICS = frozenset({"json", "cbor", "cloudevents", "senml", "senml-cbor", "influx"})
"""The dialects that leave the topic of the telemetry to the user."""

MOST_NAME_CHARS = 200
"""Of a reading: with what a dialect puts before it, a gateway still takes it for a name."""

_UNSAYABLE: Mapping[str, Callable[[Iterable[str]], str | None]] = {
    "senml": senml.unsayable,
    "senml-cbor": senml.unsayable,
    "influx": influx.unsayable,
    "sparkplug": sparkplug.unsayable,
    "sparkplug-device": sparkplug.unsayable,
    "homie": homie.unsayable,
    "zigbee2mqtt": zigbee2mqtt.unsayable,
    "shelly1": shelly.unsayable1,
}


def speak(device: Device, fleet: Fleet) -> Dialect:
    """The dialect of a device."""
    return DIALECTS[device.group.dialect](device, fleet)


def check(dialect: str, readings: Iterable[str], topic: str | None = None) -> str | None:
    """Why readings of these names cannot be told in a dialect, or not to this topic, in words; None where they can."""
    names = list(readings)
    if dialect not in DIALECTS:
        return f"{dialect!r} is no dialect: there are {', '.join(DIALECTS)}"
    if topic is not None and dialect not in FREE_TOPICS:
        return f"{dialect} has topics of its own: only {', '.join(sorted(FREE_TOPICS))} take another"
    if topic is not None and (fault := topics.fault(topic)):
        return fault
    if any(not name or "\0" in name for name in names):
        return "the name of a reading cannot be empty or hold a NUL"
    if long := next((name for name in names if len(name) > MOST_NAME_CHARS), None):
        return f"a reading's name has at most {MOST_NAME_CHARS} characters, and {long[:20]!r}… has {len(long)}"
    unsayable = _UNSAYABLE.get(dialect)
    return unsayable(names) if unsayable else None
