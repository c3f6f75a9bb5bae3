"""Tasmota: sensors, state and last will as the firmware publishes them, https://tasmota.github.io/docs/MQTT/.

Times are as the command `Time 2` sets them (https://tasmota.github.io/docs/Commands/#management): `Time` is local and
without its zone, `Epoch` beside it is UTC. Both are in whole seconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec

from devices.clock import SECOND_US, iso
from devices.faults.rebooting import Boots
from devices.fleet import Device, Fleet
from devices.outgoing import Publication, Sample, Value


class Tasmota:
    """`tele/<device>/SENSOR`, and on each connection `tele/<device>/LWT` and `tele/<device>/STATE`."""

    identified = False

    def __init__(self, device: Device, fleet: Fleet) -> None:
        self._device = device
        self._boots = Boots(device, fleet)
        self._since_us = fleet.start_us
        self._connections = 0

    def telemetry(self, sample: Sample) -> Sequence[Publication]:
        document = {**_stamp(sample.observed_at), **_sensors(sample.readings, self._device.group.units)}
        return [self._told("SENSOR", document, retain=self._device.group.retain)]

    def will(self, time_us: int) -> Publication:  # noqa: ARG002  it knows no time
        return self._presence("Offline")

    def birth(self, time_us: int) -> Sequence[Publication]:
        since_us = self._boots.since_us(time_us)
        self._connections = 1 if since_us != self._since_us else self._connections + 1
        self._since_us = since_us
        uptime_s = max(0, time_us - since_us) // SECOND_US
        state = {
            **_stamp(time_us),
            "Uptime": _days(uptime_s),
            "UptimeSec": uptime_s,
            "Heap": 25,
            "SleepMode": "Dynamic",
            "Sleep": 50,
            "LoadAvg": 19,
            "MqttCount": self._connections,
            "Wifi": {"AP": 1, "SSId": "amber", "Channel": 6, "RSSI": 78, "Signal": -61, "LinkCount": 1},
        }
        return [self._presence("Online"), self._told("STATE", state)]

    def death(self, time_us: int) -> Sequence[Publication]:  # noqa: ARG002
        return [self._presence("Offline")]

    def _presence(self, word: str) -> Publication:
        return Publication(f"tele/{self._device.name}/LWT", word.encode(), retain=True)

    def _told(self, what: str, document: Mapping[str, object], *, retain: bool = False) -> Publication:
        return Publication(f"tele/{self._device.name}/{what}", msgspec.json.encode(document), retain)


class _Place(NamedTuple):
    """Where Tasmota has a quantity, and in which unit it counts it."""

    sensor: str
    key: str
    unit: str


_PLACES = {
    "temperature": _Place("AM2301", "Temperature", "Cel"),
    "humidity": _Place("AM2301", "Humidity", "%"),
    "pressure": _Place("BMP280", "Pressure", "hPa"),
    "illuminance": _Place("BH1750", "Illuminance", "lx"),
    "co2": _Place("MHZ19B", "CarbonDioxide", "[ppm]"),
    "power": _Place("ENERGY", "Power", "W"),
    "energy": _Place("ENERGY", "Total", "kW.h"),
    "voltage": _Place("ENERGY", "Voltage", "V"),
    "current": _Place("ENERGY", "Current", "A"),
}
_SCRIPT = "Script"
"""Where all else stands: a sensor that a script of the user's adds."""
_CONTACT = {"open": "ON", "closed": "OFF"}


def _sensors(readings: Mapping[str, Value], units: Mapping[str, str]) -> dict[str, object]:
    found: dict[str, object] = {}
    sensors: dict[str, dict[str, Value]] = {}
    stated: dict[str, str] = {}
    for name, value in readings.items():
        place = _PLACES.get(name)
        if name == "state" and value in _CONTACT:
            found["Switch1"] = _CONTACT[str(value)]
        elif place is None or isinstance(value, (bool, str)) or units.get(name, place.unit) != place.unit:
            sensors.setdefault(_SCRIPT, {})[name] = value
        else:
            sensors.setdefault(place.sensor, {})[place.key] = value
            stated |= _STATED.get(name, {})
    return {**found, **sensors, **stated}


_STATED = {"pressure": {"PressureUnit": "hPa"}, "temperature": {"TempUnit": "C"}}


def _stamp(time_us: int) -> dict[str, object]:
    return {"Time": iso(time_us)[:19], "Epoch": time_us // SECOND_US}


def _days(seconds: int) -> str:
    """3T04:05:06: days, then the time of day."""
    days, rest = divmod(seconds, 86_400)
    return f"{days}T{rest // 3_600:02}:{rest // 60 % 60:02}:{rest % 60:02}"
