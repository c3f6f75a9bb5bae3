"""zigbee2mqtt: states, availability and commands of Zigbee devices and groups, and what the bridge says of itself.

Topics and payloads: https://www.zigbee2mqtt.io/guide/usage/mqtt_topics_and_messages.html; what a property is measured
in: https://www.zigbee2mqtt.io/guide/usage/exposes.html.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

from gateway.formats.body import Body, Json
from gateway.formats.draft import Draft
from gateway.formats.format import Format, Lesson, Unreadable
from gateway.formats.plain import scalar
from storage.event import Event, Kind, Message, UnitSource

NAME = "zigbee2mqtt"
_BASE = "zigbee2mqtt"
_ORDERS = frozenset({"set", "get"})
_PRESENCE = frozenset({"online", "offline"})


def read(message: Message, body: Body) -> Sequence[Event] | None:
    """An event of the device or group; of the list of devices, one for each."""
    place = _placed(message.topic) or _learned(message.topic, body) or _shown(message.topic, body.document)
    if place is None:
        return None
    if place.levels[0] == "bridge" and len(place.levels) > 1:
        return _of_bridge(message, body, place)
    return _of_device(message, body, place)


def teach(message: Message, body: Body) -> Iterable[Lesson]:
    """What each device is measured in and can be set to; under a renamed base, its topics."""
    place, document = _placed(message.topic), body.document
    if (
        place is None
        or not isinstance(document, list)
        or place.levels not in (("bridge", "devices"), ("bridge", "groups"))
    ):
        return
    yield Lesson(key=place.base, value=True)
    for item in document:
        name = item.get("friendly_name") if isinstance(item, dict) else None
        if not isinstance(item, dict) or not isinstance(name, str) or not name:
            continue
        topic = f"{place.base}/{name}"
        yield Lesson(key=topic, value=_knowledge(place.base, item), topics=(topic,))
        address = item.get("ieee_address")
        if isinstance(address, str):
            yield Lesson(key=f"{place.base} {address}", value=name)
        if place.base.rpartition("/")[2] != _BASE:
            for role in ("availability", "set", "get"):
                yield Lesson(key=f"{topic}/{role}", value={"base": place.base}, topics=(f"{topic}/{role}",))


# ---------------------------------------------------------------- what the topic says


class _Place(NamedTuple):
    base: str
    levels: tuple[str, ...]
    """What is behind the base; never empty."""

    @property
    def bridge(self) -> str:
        return f"{self.base}/bridge"


def _placed(topic: str) -> _Place | None:
    return _remembered(topic) if len(topic) <= _MOST_REMEMBERED_CHARS else _place(topic)


def _place(topic: str) -> _Place | None:
    levels = tuple(topic.split("/"))
    if _BASE in levels[:-1]:
        at = levels.index(_BASE) + 1
    elif "bridge" in levels[1:-1]:
        at = levels.index("bridge", 1)
    else:
        return None
    return _Place("/".join(levels[:at]), levels[at:])


_remembered = lru_cache(maxsize=8_192)(_place)
_MOST_REMEMBERED_CHARS = 512


def _learned(topic: str, body: Body) -> _Place | None:
    known = body.learned.get(NAME, topic)
    base = known.get("base") if isinstance(known, dict) else None
    if not isinstance(base, str) or not topic.startswith(f"{base}/"):
        return None
    return _Place(base, tuple(topic[len(base) + 1 :].split("/")))


def _shown(topic: str, document: Json) -> _Place | None:
    """Below a renamed base: nobody else calls the quality of a link so."""
    base, _, device = topic.rpartition("/")
    if not base or not device or not isinstance(document, dict) or type(document.get(_OF_LINK)) is not int:
        return None
    return _Place(base, (device,))


_OF_LINK = "linkquality"

# ---------------------------------------------------------------- devices and groups


def _of_device(message: Message, body: Body, place: _Place) -> Sequence[Event] | None:
    *before, last = place.levels
    if before and last in _ORDERS:
        return _ordered(message, body, "/".join(before), "")
    if len(before) > 1 and before[-1] in _ORDERS:  # lamp/set/brightness
        return _ordered(message, body, "/".join(before[:-1]), last)
    if before and last == "availability" and body.payload:
        return _available(message, body, "/".join(before), "availability", place.bridge)
    if isinstance(body.document, dict):
        return _state(message, body, place, body.document)
    if body.json_fault:
        raise Unreadable(body.json_fault)
    if body.text is None or isinstance(body.document, list):
        return None
    if not body.text:  # what was retained of a device that was removed
        device = "/".join(before if before and last == "availability" else place.levels)
        return [Draft(NAME, message, body).event(device, "other", via=place.bridge)]
    return _attribute(message, body, place, body.text)


def _ordered(message: Message, body: Body, device: str, attribute: str) -> Sequence[Event] | None:
    draft = Draft(NAME, message, body)
    document = body.document
    if isinstance(document, dict):
        for key, node in document.items():
            name = f"{attribute}.{key}" if attribute else key
            if node != "":  # {"state": ""} asks for the state
                draft.put(name, node)
    elif body.json_fault:
        raise Unreadable(body.json_fault)
    elif body.text is None or isinstance(document, list):
        return None
    elif body.text:
        draft.put_scalar(attribute or "state", body.text)
    return [draft.event(device, "command")]


def _available(message: Message, body: Body, device: str, name: str, via: str | None = None) -> Sequence[Event] | None:
    """`online`, or `{"state": "online"}`."""
    document = body.document
    state = document.get("state") if isinstance(document, dict) else body.text
    if not isinstance(state, str) or state not in _PRESENCE:
        return None
    draft = Draft(NAME, message, body)
    draft.put(name, state)
    return [draft.event(device, "availability", via=via)]


def _attribute(message: Message, body: Body, place: _Place, text: str) -> Sequence[Event] | None:
    """One property on a topic of its own, where `output` is `attribute`."""
    *before, name = place.levels
    if not before or not name:
        return None
    device, value = "/".join(before), scalar(text)
    stamp = _heard(value) if name == "last_seen" else None
    draft = Draft(NAME, message, body)
    profile = _Profile.of(body, place.base, device)
    unit, source = profile.unit(name, value, {})
    draft.put_scalar(name, text, unit, source=source)
    kind = _kind({name: value}, profile)
    return [draft.event(device, kind, stamp=stamp, via=place.bridge)]


def _state(message: Message, body: Body, place: _Place, document: dict[str, Json]) -> Sequence[Event]:
    draft = Draft(NAME, message, body)
    device = "/".join(place.levels)
    profile = _Profile.of(body, place.base, device)
    heard = _heard(document.get("last_seen"))
    stamp = heard if heard is not None and draft.believed(heard) is not None else None
    for key, node in document.items():
        if key == "last_seen" and stamp is not None:
            continue
        if node == "":
            draft.put_missing(key)
        elif type(node) is int or type(node) is float:
            unit, source = profile.unit(key, node, document)
            draft.put_value(key, node, unit, source=source)
        elif key == "update" and isinstance(node, dict):
            _put_update(draft, node)
        else:
            draft.put(key, node)
    for path in profile.nested:
        if path in draft.readings:
            draft.put_value(path, draft.readings[path], profile.units[path], source="learned")
    return [draft.event(device, _kind(document, profile), stamp=stamp, via=place.bridge)]


def _put_update(draft: Draft, node: dict[str, Json]) -> None:
    """How far an update of the firmware is; a version that is not known is -1."""
    for key, inner in node.items():
        if inner == -1 and key in ("installed_version", "latest_version"):
            draft.put_missing(f"update.{key}")
        elif key in _OF_UPDATE and not isinstance(inner, (dict, list)):
            draft.put_value(f"update.{key}", inner, _OF_UPDATE[key], source="format")
        else:
            draft.put(f"update.{key}", inner)


_OF_UPDATE = {"progress": "%", "remaining": "s"}


def _heard(stamp: Json) -> Json:
    """When the device was last heard: ISO 8601, or milliseconds and never seconds."""
    if isinstance(stamp, (int, float)) and not isinstance(stamp, bool) and abs(stamp) < 10**11:
        return None
    return stamp


class _Profile(NamedTuple):
    """What the list of devices says of one: units by property, "" where it has none."""

    units: dict[str, str]
    settable: frozenset[str]
    nested: tuple[str, ...]

    @classmethod
    def of(cls, body: Body, base: str, device: str) -> _Profile:
        known = body.learned.get(NAME, f"{base}/{device}")
        if not isinstance(known, dict) or "units" not in known:
            return _NO_PROFILE
        units, settable = known["units"], known.get("settable")
        named = {key: unit for key, unit in units.items() if isinstance(unit, str)} if isinstance(units, dict) else {}
        listed = settable if isinstance(settable, list) else []
        nested = tuple(path for path, unit in named.items() if unit and "." in path)
        return cls(named, frozenset(name for name in listed if isinstance(name, str)), nested)

    def unit(self, key: str, value: Json, document: dict[str, Json]) -> tuple[str | None, UnitSource]:
        if key in self.units:
            return self.units[key], "learned"
        plain = _plain(key)
        if plain == "voltage":
            return _volts(value, document), "format"
        if plain == "illuminance" and "illuminance_lux" in document:  # until 2.0 the raw value stood beside it
            return None, "format"
        return _DOCUMENTED.get(plain), "format"


_NO_PROFILE = _Profile({}, frozenset(), ())


def _volts(value: Json, document: dict[str, Json]) -> str | None:
    """A battery's voltage is documented in millivolts, all others in volts."""
    if not isinstance(value, (int, float)):
        return None
    if value >= 1_000:
        return "mV"
    return None if "battery" in document else "V"


def _kind(document: dict[str, Json], profile: _Profile) -> Kind:
    """By what a device is for: a contact that also tells its battery is a state, a thermometer a measurement."""
    stated = False
    action = document.get("action") or document.get("click")  # so it was called until 1.13
    if isinstance(action, str) and action:
        return "event"
    for key, node in document.items():
        if key in _BESIDE:
            continue
        if isinstance(node, (bool, str, dict)):
            stated = stated or node != ""
        elif isinstance(node, (int, float)):
            if (key not in profile.settable) if key in profile.units else (_plain(key) not in _SETTINGS):
                return "measurement"
            stated = True
    if stated:
        return "state"
    return "measurement" if any(type(node) in (int, float) for node in document.values()) else "state"


def _plain(key: str) -> str:
    """A property without its endpoint: power_l1, current_phase_b."""
    return _stripped(key) if len(key) <= _MOST_PROPERTY_CHARS else key


@lru_cache(maxsize=4_096)
def _stripped(key: str) -> str:
    return _ENDPOINT.sub("", key)


_MOST_PROPERTY_CHARS = 64


_ENDPOINT = re.compile(
    r"_(l\d{1,2}|left|right|center|top|bottom|top_left|top_right|bottom_left|bottom_right|phase_[abc])$"
)
_OF_ALL_SORTS = """
linkquality battery voltage battery_low battery_voltage last_seen elapsed update update_available device
device_temperature power_outage_count
"""
_BESIDE = frozenset(_OF_ALL_SORTS.split())
"""What any device may tell besides what it is for."""
_SET_BY_PEOPLE = """
brightness color_temp color_temp_startup position tilt min_brightness max_brightness brightness_move
occupancy_timeout countdown on_time transition color_hs speed fan_speed volume
"""
_SETTINGS = frozenset(_SET_BY_PEOPLE.split())
_DOCUMENTED = {
    name: unit
    for unit, names in {
        "°C": "temperature local_temperature device_temperature cpu_temperature soil_temperature water_temperature "
        "floor_temperature external_temperature remote_temperature local_temperature_calibration "
        "occupied_heating_setpoint current_heating_setpoint occupied_cooling_setpoint unoccupied_heating_setpoint "
        "unoccupied_cooling_setpoint min_temperature max_temperature temperature_calibration eco_temperature "
        "comfort_temperature away_temperature",
        "%": "battery humidity soil_moisture moisture pi_heating_demand position tilt",
        "hPa": "pressure",
        "lx": "illuminance illuminance_lux",
        "W": "power",
        "VA": "power_apparent",
        "A": "current",
        "kWh": "energy consumption produced_energy consumed_energy",
        "Hz": "ac_frequency",
        "ppm": "co2 eco2",
        "ug/m3": "pm1 pm25 pm10",
        "ms": "elapsed",
        "s": "occupancy_timeout",
        "deg": "action_angle",
    }.items()
    for name in names.split()
}
"""The units that properties have in every device's documentation but for the few that expose another."""


# ---------------------------------------------------------------- the bridge


def _of_bridge(message: Message, body: Body, place: _Place) -> Sequence[Event] | None:
    word, document = place.levels[1], body.document
    if word == "request" or (word == "config" and len(place.levels) > 2):
        return _requested(message, body, place)
    if word == "state" and len(place.levels) == 2:
        return _available(message, body, place.bridge, "state")
    if body.json_fault and _is_known(body, place):
        raise Unreadable(body.json_fault)
    if isinstance(document, list):
        return _listed(message, body, place, document)
    if isinstance(document, dict) and (_is_known(body, place) or _fits(word, document)):
        return [_told(message, body, place, document)]
    return None


def _is_known(body: Body, place: _Place) -> bool:
    return place.base.rpartition("/")[2] == _BASE or body.learned.get(NAME, place.base) is True


_SHAPES = {
    "info": frozenset({"version", "coordinator"}),
    "logging": frozenset({"level", "message"}),
    "event": frozenset({"type", "data"}),
    "health": frozenset({"response_time", "process"}),
    "response": frozenset({"data", "status"}),
}


def _fits(word: str, document: dict[str, Json]) -> bool:
    shape = _SHAPES.get(word)
    return shape is not None and shape.issubset(document)


def _requested(message: Message, body: Body, place: _Place) -> Sequence[Event] | None:
    if not _is_known(body, place) or body.text is None:
        return None
    draft = Draft(NAME, message, body)
    draft.put("request", "/".join(place.levels[2:]))
    if isinstance(body.document, dict):
        for key, node in body.document.items():
            draft.put(key, node)
    elif body.text and not isinstance(body.document, list):
        draft.put_scalar("value", body.text)
    return [draft.event(place.bridge, "command")]


def _told(message: Message, body: Body, place: _Place, document: dict[str, Json]) -> Event:
    word = place.levels[1]
    draft = Draft(NAME, message, body)
    if word == "event":
        return _happened(draft, place, document)
    left_out = _LEFT_OUT.get(word, frozenset())
    for key, node in document.items():
        if key not in left_out:
            _put_told(draft, key, node)
    if word == "health":
        stamp = document.get("response_time")
        for name in draft.readings:
            unit = _HEALTH.get(name.rpartition(".")[2])
            if unit:
                draft.put_value(name, draft.readings[name], unit, source="format")
        return draft.event(place.bridge, "measurement", stamp=stamp)
    if word == "response":
        return draft.event(place.bridge, "event", vendor_type="/".join(place.levels[1:]))
    return draft.event(place.bridge, _KINDS.get(word, "state"))


_KINDS: dict[str, Kind] = {"logging": "event", "log": "event", "definitions": "discovery"}
_LEFT_OUT = {
    "info": frozenset({"config", "config_schema"}),  # of a hundred kilobytes
    "definitions": frozenset({"clusters", "custom_clusters", "actions"}),
    "health": frozenset({"response_time"}),
}
_LONG = 1_000
"""What is longer is a map of the network."""
_HEALTH = {"memory_percent": "%", "uptime_sec": "s"}


def _put_told(draft: Draft, key: str, node: Json) -> None:
    if key == "data" and isinstance(node, dict):
        for inner, value in node.items():
            if inner != "value" or not (isinstance(value, (dict, list)) or len(str(value)) > _LONG):
                draft.put(f"data.{inner}", value)
    else:
        draft.put(key, node)


def _happened(draft: Draft, place: _Place, document: dict[str, Json]) -> Event:
    """What happened to a device, which is the one meant."""
    data, kind = document.get("data"), document.get("type")
    data = data if isinstance(data, dict) else {}
    draft.put("type", kind)
    for key, node in data.items():
        if key == "definition" and isinstance(node, dict):
            _put_definition(draft, node)
        elif key != "friendly_name":
            draft.put(key, node)
    device = data.get("friendly_name") or data.get("ieee_address")
    if isinstance(device, str):
        return draft.event(device, "event", via=place.bridge, vendor_type=kind if isinstance(kind, str) else None)
    return draft.event(place.bridge, "event", vendor_type=kind if isinstance(kind, str) else None)


def _put_definition(draft: Draft, node: dict[str, Json]) -> None:
    for key, inner in node.items():
        if not isinstance(inner, (dict, list)):
            draft.put(f"definition.{key}", inner)


def _listed(message: Message, body: Body, place: _Place, items: list[Json]) -> Sequence[Event] | None:
    """Lists of devices, groups and extensions: how many, and an event for each that has a name."""
    word = place.levels[1]
    shape = _LISTS.get(word)
    if shape is None or not all(isinstance(item, dict) and shape.issubset(item) for item in items):
        return None
    if not items and not _is_known(body, place):
        return None
    draft = Draft(NAME, message, body)
    draft.put(word, len(items))
    events = [draft.event(place.bridge, "discovery")]
    for item in items:
        name = item.get("friendly_name") if isinstance(item, dict) else None
        if isinstance(item, dict) and isinstance(name, str) and name.strip():
            events.append(_described(draft, place, name, item))
    return events


_LISTS = {
    "devices": frozenset({"friendly_name", "ieee_address"}),
    "groups": frozenset({"friendly_name", "members"}),
    "extensions": frozenset({"name", "code"}),
    "converters": frozenset({"name", "code"}),
}


def _described(draft: Draft, place: _Place, name: str, item: dict[str, Json]) -> Event:
    for key, node in item.items():
        if key == "definition" and isinstance(node, dict):
            _put_definition(draft, node)
        elif key == "members" or (not isinstance(node, (dict, list)) and key != "friendly_name"):
            draft.put(key, node)
    return draft.event(name, "discovery", via=place.bridge)


# ---------------------------------------------------------------- what the list of devices teaches


def _knowledge(base: str, item: dict[str, Json]) -> Json:
    definition = item.get("definition")
    exposes = definition.get("exposes") if isinstance(definition, dict) else None
    units: dict[str, Json] = {}
    settable: list[Json] = []
    for path, feature in _features(exposes, "", 0):
        if feature.get("type") == "numeric":
            unit, access = feature.get("unit"), feature.get("access")
            units[path] = unit if isinstance(unit, str) else ""
            if isinstance(access, int) and access & _SET:
                settable.append(path)
    return {"base": base, "units": units, "settable": settable} if units else {"base": base}


_SET = 0b010
_MOST_FEATURES_DEEP = 6


def _features(exposes: Json, path: str, depth: int) -> Iterator[tuple[str, dict[str, Json]]]:
    """The properties, by path; those of a light or a switch stand beside the others, those of a composite below it."""
    if not isinstance(exposes, list) or depth > _MOST_FEATURES_DEEP:
        return
    for feature in exposes:
        if not isinstance(feature, dict):
            continue
        name = feature.get("property")
        inner = f"{path}{name}" if isinstance(name, str) else ""
        if "features" in feature:
            yield from _features(feature["features"], f"{inner}." if inner else path, depth + 1)
        elif inner:
            yield inner, feature


_TOPICS = (
    f"#/{_BASE}/#",
    *(f"#/bridge/{word}" for word in ("state", "info", "devices", "groups", "logging", "event", "health")),
    "#/bridge/request/#",
    "#/bridge/response/#",
)

FORMATS: tuple[Format, ...] = (
    Format(name=NAME, read=read, topics=_TOPICS, keys=(frozenset({_OF_LINK}),), teach=teach, learned_topics=True),
)
