"""What the gateway's formats and the devices' dialects have to do with each other. Never looks at the store."""

from __future__ import annotations

from functools import cache

from devices.dialects import DIALECTS, check
from devices.fleet import Device, Fleet, Group
from devices.models import Readings
from devices.outgoing import Sample
from devices.pace import Pace
from gateway.formats import Formats
from gateway.learning.observing import TELEMETRY
from storage.event import Message, Rejection, Value

SPOKEN = {
    "json": "json",
    "senml_json": "senml",
    "senml_cbor": "senml-cbor",
    "sparkplug_b": "sparkplug",
    "tasmota": "tasmota",
    "zigbee2mqtt": "zigbee2mqtt",
    "homie4": "homie",
    "shelly_gen1": "shelly1",
    "shelly_gen2": "shelly",
    "tts_v3": "tts",
    "influx_lp": "influx",
    "cbor": "cbor",
    "cloudevents": "cloudevents",
}
"""The dialect in which devices speak what a format reads."""

_VOCABULARY = (
    *("temperature", "humidity", "pressure", "illuminance", "battery", "power", "energy", "voltage", "current"),
    *("frequency", "state", "contact", "occupancy", "co2", "latitude", "longitude", "speed"),
)
"""What dialects are likely to have words of their own for."""

Measured = bool | int | float | str

_DAY_US = 86_400_000_000
_TYPICAL: dict[str, Measured] = {"float": 21.5, "int": 21, "bool": True, "str": "on"}


@cache
def measured_as(dialect: str, reading: str, kind: str, group: str = "") -> str | None:
    """What a device of a dialect, in a group of that name, has to measure for the gateway to find `reading`.

    None where the device says it by itself, as it does its signal strength, or cannot say it.
    """
    value = _TYPICAL[kind]
    if _read(dialect, "x", 1.5, group).get(reading) is not None:
        return None
    for name in dict.fromkeys((reading, reading.rpartition(".")[2], *_VOCABULARY)):
        if name and check(dialect, [name]) is None and _same(_read(dialect, name, value, group).get(reading), value):
            return name
    return None


@cache
def _read(dialect: str, name: str, value: Measured, named: str) -> dict[str, Value]:
    """What the gateway finds where a device of a dialect measures this."""
    readings: Readings = {name: value}
    sample = Sample("1", 0, _DAY_US * 20_000, _DAY_US * 20_000, readings)
    group = Group(
        name=named or "probe", prefix="probe", signal=lambda _, times: (readings for _ in times), pace=Pace(1)
    )
    fleet = Fleet(groups=(group,), start_us=sample.due_us, seed="1")
    speaker = DIALECTS[dialect](Device("probe-0001", group, "1"), fleet)
    speaker.will(fleet.start_us)
    formats = Formats()
    found: dict[str, Value] = {}
    for publication in (*speaker.birth(fleet.start_us), *speaker.telemetry(sample)):
        outcome = formats.read(Message(publication.topic, publication.payload, 0, publication.retain, fleet.start_us))
        if not isinstance(outcome, Rejection):
            for event in outcome:
                if event.kind in TELEMETRY:
                    found |= event.readings
    return found


def _same(one: Value, other: Value) -> bool:
    return one == other and (type(one) is bool) == (type(other) is bool)
