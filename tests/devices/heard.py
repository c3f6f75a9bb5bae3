"""What a gateway is to find in the telemetry of each dialect: written down by hand, not taken from the dialects."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from devices.fleet import Device
from devices.outgoing import Sample, Value

Readings = Mapping[str, Value]


def heard(dialect: str, sample: Sample, units: Mapping[str, str]) -> dict[str, Value]:
    """The readings of a sample as a gateway names them, over all the messages that tell of it."""
    return _MAPPINGS[dialect](sample.readings, units)


def misheard(dialect: str, sample: Sample, units: Mapping[str, str], found: Mapping[str, Value | None]) -> list[str]:
    """What is wrong with the readings that a gateway found: missing, of another value, or said by nobody."""
    expected = heard(dialect, sample, units)
    wrong = [
        f"{name}: {value!r}, not {found.get(name)!r}"
        for name, value in expected.items()
        if not _alike(value, found.get(name))
    ]
    return wrong + [f"{name} was not said" for name in found if name not in expected and not added(dialect, name)]


def _alike(one: Value, other: Value | None) -> bool:
    """To Python, True is 1."""
    return one == other and (type(one) is bool) == (type(other) is bool)


def heard_at(dialect: str, sample: Sample) -> int | None:
    """The time that the device states, as exactly as the dialect can; None where it states none."""
    precision_us = _PRECISION_US.get(dialect, 1)
    return sample.observed_at // precision_us * precision_us if precision_us else None


def heard_device(device: Device) -> str:
    """What a gateway calls a device."""
    return _NAMES.get(device.group.dialect, "{device}").format(group=device.group.name, device=device.name)


def added(dialect: str, name: str) -> bool:
    """Whether a reading is of the dialect's own making: the radio, another scale, the counting of connections."""
    return name.startswith(_ADDED.get(dialect, ("\0",)))


TELLS_PRESENCE = {
    # online, offline by a farewell, offline by the will: the reading, or the kind of the event
    "json": ("online", "offline", "offline"),
    "cbor": ("online", "offline", "offline"),
    "senml": (True, False, False),
    "senml-cbor": (True, False, False),
    "sparkplug": ("birth", "death", "death"),
    "sparkplug-device": ("birth", "death", "death"),  # by the will of its node
    "homie": ("ready", "disconnected", "lost"),
    "tasmota": ("Online", "Offline", "Offline"),
    "zigbee2mqtt": ("online", "offline", "offline"),
    "shelly": (True, False, False),
    "shelly1": (True, False, False),
}
"""Of the dialects that tell whether a device is there."""

_NAMES = {"sparkplug": "{group}/{device}", "sparkplug-device": "{group}/{device}/sensors"}
_PRECISION_US = {
    "sparkplug": 1_000,
    "sparkplug-device": 1_000,
    "tasmota": 1_000_000,
    "zigbee2mqtt": 1_000,
    "shelly": 10_000,
    "homie": 0,
    "shelly1": 0,
}
_ADDED = {
    "shelly": ("temperature:0.tF",),
    "zigbee2mqtt": ("linkquality",),
    "tts": ("rx_metadata.0.", "settings.", "f_port", "dev_eui"),
}


def _as_it_is(readings: Readings, units: Mapping[str, str]) -> dict[str, Value]:  # noqa: ARG001
    return dict(readings)


def _senml(readings: Readings, units: Mapping[str, str]) -> dict[str, Value]:  # noqa: ARG001
    return {{"latitude": "lat", "longitude": "lon"}.get(name, name): value for name, value in readings.items()}


def _influx(readings: Readings, units: Mapping[str, str]) -> dict[str, Value]:  # noqa: ARG001
    """The group is called like the dialect in the tests."""
    return {f"influx.{name}": value for name, value in readings.items()}


def _homie(readings: Readings, units: Mapping[str, str]) -> dict[str, Value]:  # noqa: ARG001
    return {f"sensors.{name.replace('_', '-')}": value for name, value in readings.items()}


def _zigbee2mqtt(readings: Readings, units: Mapping[str, str]) -> dict[str, Value]:  # noqa: ARG001
    return {
        "contact" if name == "state" else name: value == "closed" if name == "state" else value
        for name, value in readings.items()
    }


_IN_TASMOTA = {
    ("temperature", "Cel"): "AM2301.Temperature",
    ("humidity", "%"): "AM2301.Humidity",
    ("pressure", "hPa"): "BMP280.Pressure",
    ("power", "W"): "ENERGY.Power",
    ("energy", "kW.h"): "ENERGY.Total",
    ("voltage", "V"): "ENERGY.Voltage",
}


def _tasmota(readings: Readings, units: Mapping[str, str]) -> dict[str, Value]:
    found: dict[str, Value] = {}
    for name, value in readings.items():
        if name == "state":
            found["Switch1"] = "ON" if value == "open" else "OFF"
        else:
            found[_IN_TASMOTA.get((name, units.get(name, "")), f"Script.{name}")] = value
    return found


_IN_SHELLY = {
    ("temperature", "Cel"): "temperature:0.tC",
    ("humidity", "%"): "humidity:0.rh",
    ("power", "W"): "switch:0.apower",
    ("energy", "kW.h"): "switch:0.aenergy.total",
    ("voltage", "V"): "switch:0.voltage",
}
_IN_SHELLY1 = {
    ("temperature", "Cel"): "sensor.temperature",
    ("humidity", "%"): "sensor.humidity",
    ("power", "W"): "emeter.0.power",
    ("energy", "kW.h"): "emeter.0.total",
    ("voltage", "V"): "emeter.0.voltage",
}


def _shelly(readings: Readings, units: Mapping[str, str]) -> dict[str, Value]:
    found: dict[str, Value] = {}
    ids = {"boolean": 200, "text": 200, "number": 200}
    for name, value in readings.items():
        place = _IN_SHELLY.get((name, units.get(name, "")))
        if name == "state":
            found["input:0.state"] = value == "open"
        elif place:
            found[place] = round(float(value) * 1_000, 3) if name == "energy" else value
        else:
            kind = "boolean" if isinstance(value, bool) else "text" if isinstance(value, str) else "number"
            found[f"{kind}:{ids[kind]}.value"] = value
            ids[kind] += 1
    return found


def _shelly1(readings: Readings, units: Mapping[str, str]) -> dict[str, Value]:
    found: dict[str, Value] = {}
    for name, value in readings.items():
        place = _IN_SHELLY1.get((name, units.get(name, "")), f"sensor.{name}")
        if place == "emeter.0.total":
            found[place] = round(float(value) * 1_000, 3)
        else:
            found[place] = "close" if value == "closed" else value
    return found


_MAPPINGS: Mapping[str, Callable[[Readings, Mapping[str, str]], dict[str, Value]]] = {
    "json": _as_it_is,
    "cbor": _as_it_is,
    "cloudevents": _as_it_is,
    "senml": _senml,
    "senml-cbor": _senml,
    "influx": _influx,
    "sparkplug": _as_it_is,
    "sparkplug-device": _as_it_is,
    "homie": _homie,
    "tasmota": _tasmota,
    "zigbee2mqtt": _zigbee2mqtt,
    "shelly": _shelly,
    "shelly1": _shelly1,
    "tts": _as_it_is,
}
