"""Shelly, first generation: `shellies/<device>/…`, a topic for each value, and objects for the whole device.

Topics, payloads and units: https://shelly-api-docs.shelly.cloud/gen1/.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

from gateway.formats.body import Body, Json
from gateway.formats.draft import Draft
from gateway.formats.format import Format, Lesson, Unreadable
from gateway.formats.plain import scalar
from storage.event import Event, Kind, Message, Value

NAME = "shelly_gen1"
SECOND_GENERATION = "shelly_gen2"
_ROOT = "shellies"

_WORDS = """
adc announce charger color command dimmer emeter emeter_n ext_humidities ext_humidity ext_sensors ext_switch
ext_temperature ext_temperature_f ext_temperatures info input input_event light loaderror longpush meter online overload
overpower overpower_value overtemperature power_factor relay roller sensor settings status temperature temperature_f
temperature_status thermostat thermostats valve voltage white
"""
_COMPONENTS = frozenset(_WORDS.split())
"""The levels that end the device's own name, which may have several."""
_ORDERS = frozenset({"command", "set"})


def read(message: Message, body: Body) -> Sequence[Event] | None:
    """One event of one device."""
    place = _placed(message.topic)
    if place is None or body.learned.get(SECOND_GENERATION, message.topic) is not None:
        return None
    document, levels = body.document, place.levels
    if not _ORDERS.isdisjoint(levels):
        return _ordered(message, body, place)
    if isinstance(document, dict):
        if levels[0] == "announce":
            return _announced(message, body, place, document)
        return [_told(message, body, place, document)]
    if body.json_fault:
        raise Unreadable(body.json_fault)
    if levels[0] in _OBJECTS or not body.text:
        return None
    return [_said(message, body, place, body.text)]


def teach(message: Message, body: Body) -> Iterable[Lesson]:
    """Whether a thermometer counts in °C or in °F, which only `info` and `status` say."""
    place, document = _placed(message.topic), body.document
    if place is None or place.levels[0] not in ("info", "status") or not isinstance(document, dict):
        return
    inner = document.get("tmp")
    unit = inner.get("units") if isinstance(inner, dict) else None
    if isinstance(unit, str) and unit in _SCALES and body.learned.get(NAME, place.base) != unit:
        yield Lesson(key=place.base, value=unit, topics=(f"{place.base}/sensor/temperature",))


_OBJECTS = frozenset({"announce", "info", "status", "settings", "input_event"})
_SCALES = frozenset({"C", "F"})


# ---------------------------------------------------------------- what the topic says


class _Place(NamedTuple):
    base: str
    """The topic up to the device."""
    device: str
    levels: tuple[str, ...]
    """What is behind the device; never empty."""


def _placed(topic: str) -> _Place | None:
    return _remembered(topic) if len(topic) <= _MOST_REMEMBERED_CHARS else _place(topic)


def _place(topic: str) -> _Place | None:
    levels = tuple(topic.split("/"))
    if _ROOT not in levels[:-1]:
        return None
    root = levels.index(_ROOT) + 1
    rest = levels[root:]
    if rest in (("announce",), ("command",)):  # of all devices
        return _Place(_ROOT, _ROOT, rest)
    at = next((at for at, level in enumerate(rest) if at and level in _COMPONENTS), None)
    if at is None or (rest[at] == "status" and len(rest) > at + 1) or ":" in rest[-1]:  # the second generation's
        return None
    return _Place("/".join(levels[: root + at]), "/".join(rest[:at]), rest[at:])


_remembered = lru_cache(maxsize=8_192)(_place)
_MOST_REMEMBERED_CHARS = 512


# ---------------------------------------------------------------- one value


def _said(message: Message, body: Body, place: _Place, text: str) -> Event:
    levels = place.levels
    name, value = ".".join(levels), scalar(text)
    draft = Draft(NAME, message, body)
    if _is_sentinel(levels, value):
        draft.put_missing(name, "bad")
    elif levels == ("sensor", "gas"):  # none, mild, heavy
        draft.put(name, text)
    elif levels == ("sensor", "temperature"):
        unit = body.learned.get(NAME, place.base)
        draft.put_scalar(name, text, unit if isinstance(unit, str) else None, source="learned")
    else:
        draft.put_scalar(name, text, _unit(levels), source="format")
    return draft.event(place.device, "state" if levels == ("sensor", "gas") else _kind(levels, value))


def _unit(levels: tuple[str, ...]) -> str | None:
    component, last = levels[0], levels[-1]
    if component.startswith("emeter"):
        return _EMETER.get(last)
    if last.isdecimal():
        return _UNITS.get(component)
    return _UNITS.get(last)


def _kind(levels: tuple[str, ...], value: Value) -> Kind:
    if levels[0] == "online":
        return "availability"
    if not _FLAGS.isdisjoint(levels) or isinstance(value, (bool, str)):
        return "state"
    return "measurement"


def _is_sentinel(levels: tuple[str, ...], value: Value) -> bool:
    """A sensor that is missing or failed says 999, an uncalibrated one -1."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    quantity = levels[-2] if levels[-1].isdecimal() and len(levels) > 1 else levels[-1]
    return (quantity in _NOTHING_AT_999 and abs(value) == 999) or (quantity in _NOTHING_AT_MINUS_1 and value == -1)


_NOTHING_AT_999 = frozenset({"temperature", "humidity", "ext_temperature", "ext_temperature_f", "ext_humidity"})
_NOTHING_AT_MINUS_1 = frozenset({"battery", "lux", "tilt", "vibration", "pos"})
_FLAGS = frozenset(
    {
        "ext_switch", "flood", "input", "loaderror", "longpush", "motion", "overload", "overpower", "overtemperature",
        "smoke", "vibration",
    }
)  # fmt: skip
_UNITS = {
    "power": "W",
    "overpower_value": "W",
    "energy": "W.min",
    "voltage": "V",
    "adc": "V",
    "temperature": "C",
    "temperature_f": "F",
    "ext_temperature": "C",
    "ext_temperature_f": "F",
    "humidity": "%",
    "ext_humidity": "%",
    "battery": "%",
    "pos": "%",
    "lux": "lux",
    "illuminance": "lux",
    "tilt": "deg",
    "concentration": "ppm",
}
_EMETER = {
    "power": "W",
    "voltage": "V",
    "current": "A",
    "energy": "W.min",
    "returned_energy": "W.min",
    "total": "Wh",
    "total_returned": "Wh",
}
"""Meters with clamps count in W·h; relays, and `energy`, in W·min."""


# ---------------------------------------------------------------- objects


def _announced(message: Message, body: Body, place: _Place, document: dict[str, Json]) -> Sequence[Event] | None:
    name = document.get("id")
    if not isinstance(name, str) or not name.strip():
        return None
    draft = Draft(NAME, message, body)
    for key, node in document.items():
        if key != "id":
            draft.put(key, node)
    return [draft.event(place.device if place.device.endswith(name) else name, "discovery")]


def _ordered(message: Message, body: Body, place: _Place) -> Sequence[Event] | None:
    draft = Draft(NAME, message, body)
    name = ".".join(level for level in place.levels if level not in _ORDERS) or "command"
    if isinstance(body.document, dict):
        for key, node in body.document.items():
            draft.put(f"{name}.{key}", node)
    elif body.json_fault:
        raise Unreadable(body.json_fault)
    elif body.text is None or isinstance(body.document, list):
        return None
    elif body.text:
        draft.put_scalar(name, body.text)
    return [draft.event(place.device, "command")]


def _told(message: Message, body: Body, place: _Place, document: dict[str, Json]) -> Event:
    draft = Draft(NAME, message, body)
    levels = place.levels[:-1] if place.levels[-1] == "status" else place.levels
    path = "" if levels in ((), ("info",), ("settings",)) else ".".join(levels)
    _put(draft, path, document, _Spot(path.partition(".")[0], path.partition(".")[0], "C"))
    kind: Kind = "measurement" if levels and levels[0].startswith("ext_") else "state"
    if levels and levels[0] == "input_event":
        kind = "event"
    return draft.event(place.device, kind, stamp=document.get("unixtime") if levels == ("info",) else None)


class _Spot(NamedTuple):
    """Where in an object a value stands: below which key of the whole, in which object, in which scale."""

    top: str
    parent: str
    scale: str


_MOST_LEVELS = 8


def _put(draft: Draft, path: str, node: dict[str, Json], spot: _Spot) -> None:
    invalid = node.get("is_valid") is False
    for key, inner in node.items():
        name = f"{path}.{key}" if path else key
        if isinstance(inner, dict) and name.count(".") < _MOST_LEVELS:
            scale = inner.get("units")
            _put(draft, name, inner, _Spot(spot.top or key, key, scale if isinstance(scale, str) else "C"))
        elif isinstance(inner, list) and len(inner) <= draft.options.array_items:
            _put_items(draft, name, inner, _Spot(spot.top or key, key, "C"))
        elif isinstance(inner, (dict, list)):
            draft.put(name, inner)
        elif key == "units" or inner == "":
            if inner == "":
                draft.put_missing(name)
        elif invalid and key != "is_valid":
            draft.put_missing(name, "bad")
        else:
            draft.put_value(name, inner, _inner_unit(spot, key, inner), source="format")


def _put_items(draft: Draft, name: str, items: list[Json], spot: _Spot) -> None:
    for at, item in enumerate(items):
        if isinstance(item, dict) and name.count(".") < _MOST_LEVELS:
            _put(draft, f"{name}.{at}", item, spot)
        elif spot.parent == "counters" and not isinstance(item, (dict, list)):
            draft.put_value(f"{name}.{at}", item, "W.min", source="format")
        else:
            draft.put(f"{name}.{at}", item)


def _inner_unit(spot: _Spot, key: str, value: Json) -> str | None:
    if isinstance(value, (bool, str)) or value is None:
        return None
    if key in ("total", "total_returned"):
        return {"emeters": "Wh", "meters": "W.min"}.get(spot.top)
    if key == "value":
        return spot.scale if spot.parent in ("tmp", "target_t") else _OF_VALUE.get(spot.parent)
    if spot.parent == "bat" and key == "voltage":
        return "V"
    return _INNER.get(key)


_OF_VALUE = {"bat": "%", "hum": "%", "lux": "lux"}
_INNER = {
    "power": "W",
    "total_power": "W",
    "voltage": "V",
    "current": "A",
    "temperature": "C",
    "tC": "C",
    "tF": "F",
    "hum": "%",
    "bat": "%",
    "lux": "lux",
    "rssi": "dBm",
    "uptime": "s",
    "ram_total": "B",
    "ram_free": "B",
    "fs_size": "B",
    "fs_free": "B",
    "brightness": "%",
    "gain": "%",
    "current_pos": "%",
    "pos": "%",
    "timer_duration": "s",
    "timer_remaining": "s",
    "tilt": "deg",
}

FORMATS: tuple[Format, ...] = (Format(name=NAME, read=read, topics=(f"#/{_ROOT}/#",), teach=teach),)
