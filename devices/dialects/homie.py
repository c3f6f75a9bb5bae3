"""Homie 4.0: a device that describes itself in retained topics, and has one for each property.

https://homieiot.github.io/specification/spec-core-v4_0_0/: attributes are in the sections on devices, nodes and
properties, payloads in that on datatypes. No message bears a time.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from devices.dialects.foretold import first_readings
from devices.fleet import Device, Fleet
from devices.outgoing import Publication, Sample, Value


class Homie:
    """`homie/<device>/sensors/<property>`, a message a property; on each connection the description, then `ready`.

    What turns out to be of another datatype than described is described anew before it is told.
    """

    identified = False

    def __init__(self, device: Device, fleet: Fleet) -> None:
        self._device = device
        self._base = f"homie/{device.name}"
        self._datatypes = {name: _datatype(value) for name, value in first_readings(device, fleet).items()}

    def telemetry(self, sample: Sample) -> Sequence[Publication]:
        return list(self._told(sample)) or [self._state("ready")]

    def will(self, time_us: int) -> Publication:  # noqa: ARG002  it knows no time
        return self._state("lost")

    def birth(self, time_us: int) -> Sequence[Publication]:  # noqa: ARG002
        return [
            self._state("init"),
            self._attribute("$homie", "4.0.0"),
            self._attribute("$name", self._device.name),
            self._attribute("$extensions", ""),
            self._attribute("$nodes", "sensors"),
            self._attribute("sensors/$name", "Sensors"),
            self._attribute("sensors/$type", self._device.group.name),
            self._attribute("sensors/$properties", ",".join(map(_id, self._datatypes))),
            *(attribute for name in self._datatypes for attribute in self._described(name)),
            self._state("ready"),
        ]

    def death(self, time_us: int) -> Sequence[Publication]:  # noqa: ARG002
        return [self._state("disconnected")]

    def _told(self, sample: Sample) -> Iterator[Publication]:
        for name, value in sample.readings.items():
            datatype = _datatype(value)
            if not _takes(self._datatypes.get(name), datatype):
                self._datatypes[name] = datatype
                yield from self._described(name)
            yield self._attribute(f"sensors/{_id(name)}", _text(value))

    def _described(self, name: str) -> Iterator[Publication]:
        path, unit = f"sensors/{_id(name)}", self._device.group.units.get(name)
        yield self._attribute(f"{path}/$name", name)
        yield self._attribute(f"{path}/$datatype", self._datatypes[name])
        if unit:
            yield self._attribute(f"{path}/$unit", _UNITS.get(unit, unit))

    def _state(self, state: str) -> Publication:
        return self._attribute("$state", state)

    def _attribute(self, path: str, text: str) -> Publication:
        return Publication(f"{self._base}/{path}", text.encode(), retain=True)


def unsayable(names: Iterable[str]) -> str | None:
    """Ids are of lower-case letters, digits and hyphens (section "Topic IDs"); `_`, `.` and spaces become hyphens."""
    by_id: dict[str, str] = {}
    for name in names:
        if not _ID.fullmatch(_id(name)):
            return f"an id in Homie is of letters a to z, digits and hyphens, and {name!r} cannot be one"
        if (other := by_id.setdefault(_id(name), name)) != name:
            return f"{other!r} and {name!r} have one id in Homie, {_id(name)!r}"
    return None


_ID = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
_HYPHENS = str.maketrans("_. ", "---")


def _id(name: str) -> str:
    return name.lower().translate(_HYPHENS)


def _datatype(value: Value) -> str:
    if isinstance(value, bool):
        return "boolean"
    return "integer" if isinstance(value, int) else "float" if isinstance(value, float) else "string"


def _takes(described: str | None, datatype: str) -> bool:
    return described == datatype or (described == "float" and datatype == "integer")


def _text(value: Value) -> str:
    return ("true" if value else "false") if isinstance(value, bool) else str(value)


_UNITS = {"Cel": "°C", "[degF]": "°F", "deg": "°", "1": "#", "[psi]": "psi"}
"""The units that the convention recommends, by their UCUM codes; others are UCUM codes."""
