"""Shelly BLU: BTHome advertisements that a script on a Shelly has decoded and published.

The script: https://github.com/ALLTERCO/shelly-script-examples (ble-shelly-blu); objects and units: https://bthome.io.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from gateway.formats.body import Body, Json
from gateway.formats.draft import Draft
from gateway.formats.format import Format, Unreadable
from gateway.formats.values import kind_of
from storage.event import Event, Kind, Message

NAME = "shelly_blu"
_KEYS = frozenset({"BTHome_version", "address"})
_OF_THE_FRAME = frozenset({"address", "pid", "BTHome_version", "bthome", "service_data"})
_WRAPPED = frozenset({"addr", "rssi", "service_data"})
_UNITS = {
    "battery": "%",
    "temperature": "C",
    "dew_point": "C",
    "humidity": "%",
    "moisture": "%",
    "pressure": "hPa",
    "illuminance": "lux",
    "mass": "kg",
    "energy": "kWh",
    "power": "W",
    "voltage": "V",
    "current": "A",
    "rotation": "deg",
    "distance_mm": "mm",
    "distance_m": "m",
    "acceleration": "m/s2",
    "rssi": "dBm",
}


_MEASURED = frozenset(_UNITS) - {"rssi"}


def read(message: Message, body: Body) -> Sequence[Event] | None:
    """One event of the device that advertised."""
    document, last = body.document, message.topic.rpartition("/")[2]
    if not isinstance(document, dict):
        if body.json_fault and _ADDRESS.fullmatch(last):
            raise Unreadable(body.json_fault)
        return None
    document = _unwrapped(document)
    if "address" not in document and _ADDRESS.fullmatch(last) and not _MEASURED.isdisjoint(document):
        return [heard(Draft(NAME, message, body), {**document, "address": last})]
    return [heard(Draft(NAME, message, body), document)] if is_heard(document) else None


def _unwrapped(document: dict[str, Json]) -> dict[str, Json]:
    """Another of the examples (universal-blu-to-mqtt) has what was decoded under `service_data`."""
    inner, address = document.get("service_data"), document.get("addr")
    if not isinstance(inner, dict) or not isinstance(address, str):
        return document
    beside = {key: node for key, node in document.items() if key not in ("addr", "service_data") and node != ""}
    return {**beside, **inner, "address": address}


_ADDRESS = re.compile(r"[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}")


def is_heard(document: dict[str, Json]) -> bool:
    """Whether an object is a decoded advertisement."""
    address = document.get("address")
    return _KEYS.issubset(document) and isinstance(address, str) and bool(address.strip())


def heard(draft: Draft, document: dict[str, Json], *, stamp: Json = None, via: str | None = None) -> Event:
    """The event of a decoded advertisement; a value that occurs several times is a list."""
    for key, node in document.items():
        if key in _OF_THE_FRAME:
            continue
        unit = _UNITS.get(key)
        if unit is None or isinstance(node, dict):
            draft.put(key, node)
        elif isinstance(node, list):
            for at, item in enumerate(node[: draft.options.array_items]):
                _put(draft, f"{key}.{at}", item, unit)
        else:
            _put(draft, key, node, unit)
    packet = document.get("pid")
    seq = packet if type(packet) is int else None
    return draft.event(str(document["address"]), _kind(draft, document), stamp=stamp, seq=seq, via=via)


def _put(draft: Draft, name: str, node: Json, unit: str) -> None:
    if isinstance(node, (dict, list)):
        draft.put(name, node)
    else:
        draft.put_value(name, node, unit, source="format")


def _kind(draft: Draft, document: dict[str, Json]) -> Kind:
    """A press of a button (0 is none) is an event; a door or a detector is a state, whatever else it measures."""
    button = document.get("button")
    if button and button != [0]:
        return "event"
    return kind_of(draft.readings) if _STATES.isdisjoint(document) else "state"


_STATES = frozenset({"window", "motion", "door", "opening", "occupancy", "presence", "smoke"})

FORMATS: tuple[Format, ...] = (Format(name=NAME, read=read, topics=("#/shelly-blu/events/+",), keys=(_KEYS, _WRAPPED)),)
