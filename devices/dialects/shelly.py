"""Shelly: notifications of the second generation, and the topics of the first.

Second: https://shelly-api-docs.shelly.cloud/gen2/General/Notifications and the page of each component; what is no
component of the hardware is a virtual one (…/gen2/DynamicComponents/Virtual/), whose ids begin with 200. First:
https://shelly-api-docs.shelly.cloud/gen1/#mqtt, whose messages bear no time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from devices.clock import SECOND_US
from devices.dialects.foretold import first_readings
from devices.fleet import Device, Fleet
from devices.outgoing import Publication, Sample, Value


class Shelly:
    """`NotifyStatus` to `<device>/events/rpc`, in hundredths of a second; `<device>/online`, retained."""

    identified = False

    def __init__(self, device: Device, fleet: Fleet) -> None:
        self._device = device
        self._ids: dict[tuple[str, str], int] = {}
        self._statuses(first_readings(device, fleet))  # so that ids do not depend on what comes first

    def telemetry(self, sample: Sample) -> Sequence[Publication]:
        return [self._notified(sample.observed_at, self._statuses(sample.readings), retain=self._device.group.retain)]

    def will(self, time_us: int) -> Publication:  # noqa: ARG002  it knows no time
        return _online(self._device.name, online=False)

    def birth(self, time_us: int) -> Sequence[Publication]:
        return [_online(self._device.name, online=True), self._notified(time_us, {"mqtt": {"connected": True}})]

    def death(self, time_us: int) -> Sequence[Publication]:  # noqa: ARG002
        return [_online(self._device.name, online=False)]

    def _notified(self, time_us: int, statuses: Mapping[str, object], *, retain: bool = False) -> Publication:
        name = self._device.name
        frame = {
            "src": name,
            "dst": f"{name}/events",
            "method": "NotifyStatus",
            "params": {"ts": time_us * 100 // SECOND_US / 100, **statuses},
        }
        return Publication(f"{name}/events/rpc", msgspec.json.encode(frame), retain)

    def _statuses(self, readings: Mapping[str, Value]) -> dict[str, dict[str, object]]:
        found: dict[str, dict[str, object]] = {}
        for name, value in readings.items():
            place = _placed(_COMPONENTS, name, value, self._device.group.units)
            if place is None:
                found[self._virtual(name, value)] = {"value": value}
                continue
            component, *path = place.path
            status = found.setdefault(component, {"id": 0})
            _put(status, path, value == "open" if name == "state" else _scaled(value, place))
            if component == "temperature:0":
                status["tF"] = round(float(value) * 9 / 5 + 32, 2)
        return found

    def _virtual(self, name: str, value: Value) -> str:
        kind = "boolean" if isinstance(value, bool) else "text" if isinstance(value, str) else "number"
        taken = sum(known == kind for known, _ in self._ids)
        return f"{kind}:{self._ids.setdefault((kind, name), 200 + taken)}"


class Shelly1:
    """`shellies/<device>/…`, a message a reading; `shellies/<device>/online`, retained."""

    identified = False

    def __init__(self, device: Device, fleet: Fleet) -> None:  # noqa: ARG002  all dialects are made alike
        self._device = device
        self._base = f"shellies/{device.name}"

    def telemetry(self, sample: Sample) -> Sequence[Publication]:
        told = [self._told(name, value) for name, value in sample.readings.items()]
        return told or [_online(self._base, online=True)]

    def will(self, time_us: int) -> Publication:  # noqa: ARG002  it knows no time
        return _online(self._base, online=False)

    def birth(self, time_us: int) -> Sequence[Publication]:  # noqa: ARG002
        announced = {"id": self._device.name, "model": "AMBER-1", "mac": "000000000000", "new_fw": False}
        return [_online(self._base, online=True), Publication("shellies/announce", msgspec.json.encode(announced))]

    def death(self, time_us: int) -> Sequence[Publication]:  # noqa: ARG002
        return [_online(self._base, online=False)]

    def _told(self, name: str, value: Value) -> Publication:
        group = self._device.group
        place = _placed(_TOPICS, name, value, group.units)
        place = place or _Place(("sensor", name))
        told = _CONTACT.get(f"{value}", value) if name == "state" else _scaled(value, place)
        text = ("true" if told else "false") if isinstance(told, bool) else f"{told}"
        return Publication(f"{self._base}/{'/'.join(place.path)}", text.encode(), group.retain)


def unsayable1(names: Iterable[str]) -> str | None:
    """A reading is a level of a topic there; two names are orders, and a colon belongs to the second generation."""
    wrong = next(
        (name for name in names if name in ("command", "set") or not name.isprintable() or _BARRED & {*name}), None
    )
    return wrong and f"{wrong!r} cannot be a level of a topic below shellies/"


_BARRED = frozenset("/+#:")
_CONTACT = {"closed": "close"}
"""What the door sensors of the first generation call it."""


class _Place(NamedTuple):
    """Where a Shelly has a quantity, the UCUM code of the unit we count it in, and its own for one of ours."""

    path: tuple[str, ...]
    unit: str = ""
    factor: int = 1


_COMPONENTS = {
    "temperature": _Place(("temperature:0", "tC"), "Cel"),
    "humidity": _Place(("humidity:0", "rh"), "%"),
    "illuminance": _Place(("illuminance:0", "lux"), "lx"),
    "battery": _Place(("devicepower:0", "battery", "percent"), "%"),
    "power": _Place(("switch:0", "apower"), "W"),
    "voltage": _Place(("switch:0", "voltage"), "V"),
    "current": _Place(("switch:0", "current"), "A"),
    "energy": _Place(("switch:0", "aenergy", "total"), "kW.h", 1_000),
    "state": _Place(("input:0", "state")),
}
_TOPICS = {
    "temperature": _Place(("sensor", "temperature"), "Cel"),
    "humidity": _Place(("sensor", "humidity"), "%"),
    "illuminance": _Place(("sensor", "lux"), "lx"),
    "battery": _Place(("sensor", "battery"), "%"),
    "power": _Place(("emeter", "0", "power"), "W"),
    "voltage": _Place(("emeter", "0", "voltage"), "V"),
    "current": _Place(("emeter", "0", "current"), "A"),
    "energy": _Place(("emeter", "0", "total"), "kW.h", 1_000),
    "state": _Place(("sensor", "state")),
}


def _placed(places: Mapping[str, _Place], name: str, value: Value, units: Mapping[str, str]) -> _Place | None:
    """The place of a reading, None where Shelly has none for such a value in such a unit."""
    place = places.get(name)
    if place is None or units.get(name, place.unit) != place.unit:
        return None
    if name == "state":
        return place if value in ("open", "closed") else None
    return None if isinstance(value, (bool, str)) else place


def _scaled(value: Value, place: _Place) -> Value:
    return value if place.factor == 1 else round(float(value) * place.factor, 3)


def _put(status: dict[str, object], path: Sequence[str], value: Value) -> None:
    """Below one key, or two."""
    *before, last = path
    status |= {before[0]: {last: value}} if before else {last: value}


def _online(base: str, *, online: bool) -> Publication:
    return Publication(f"{base}/online", b"true" if online else b"false", retain=True)
