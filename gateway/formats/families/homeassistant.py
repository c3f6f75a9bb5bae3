"""Home Assistant's MQTT discovery: the entities that devices announce, and the topics that they announced them for.

https://www.home-assistant.io/integrations/mqtt/#mqtt-discovery
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import msgspec

from gateway.formats import fields, json, units
from gateway.formats.body import Body, Json
from gateway.formats.draft import Draft
from gateway.formats.format import Format, Lesson, Unreadable
from gateway.formats.topics import COMMAND_WORDS
from storage.event import Detail, Event, Kind, Message, UnitSource, Value

_NAME = "homeassistant"

Object = Mapping[str, Json]

_OWN_STATES = """
alarm_control_panel binary_sensor button cover date datetime fan humidifier lawn_mower light lock notify scene select
siren switch text time update vacuum valve
"""
_OTHERS = "camera climate device device_automation device_tracker event image number sensor tag water_heater"
_STATES = frozenset(_OWN_STATES.split())
_COMPONENTS = _STATES.union(_OTHERS.split())
_EVENTS = frozenset({"event", "device_automation", "tag"})
_SWITCHES = frozenset({"binary_sensor", "switch", "light", "fan", "siren", "humidifier"})
_TEXTS = frozenset({"text", "select", "date", "datetime", "time", "tag", "device_automation", "lock", "device_tracker"})
_TEXT_CLASSES = frozenset({"timestamp", "date", "enum"})

_MOST_ON_ONE_TOPIC = 256
"""Configurations; a topic of more is no device's own."""


def read(message: Message, body: Body) -> Sequence[Event] | None:
    """A configuration, or a message on a topic that one has announced, or that stands beside them."""
    levels = message.topic.split("/")
    if levels[-1] == "config" and (origin := _origin(levels)):
        return _configuration(message, body, origin)
    if body.text is None or (body.document is None and body.json_fault):
        return None
    known = body.learned.get(_NAME, message.topic)
    fact = known if isinstance(known, dict) else {}
    if not fact and (levels[0] != _NAME or len(levels) < 2):
        return None
    if message.topic == "homeassistant/status":
        return _availability(message, body, _Place(_NAME, "status"), {})
    place = _place(levels, body)
    entries = list(_entries(fact))
    if not entries and "availability" in fact:
        return _availability(message, body, place, fact)
    if not entries and (len(levels) < 4 or levels[1] not in _COMPONENTS):
        return None
    kind = _kind(entries, body, levels)
    if body.document is not None:
        return _objects(message, body, place, entries, kind)
    return [_scalar(message, body, place, entries, kind)]


def announced_unit(body: Body, topic: str) -> str | None:
    """The unit of the value that a topic was announced for, as the announcement spells it."""
    fact = body.learned.get(_NAME, topic)
    for entry in _entries(fact) if isinstance(fact, dict) else ():
        if entry.get("role") == "state" and entry.get("path") in (None, "value") and (unit := _word(entry, "unit")):
            return unit
    return None


def teach(message: Message, body: Body) -> Iterator[Lesson]:
    """Of each topic in a configuration: what was announced there, by configuration; the topics of each, to forget."""
    levels = message.topic.split("/")
    origin = _origin(levels) if levels[-1] == "config" else None
    if origin is None:
        return
    key, announced = message.topic, _Announced()
    if isinstance(body.document, dict):
        announced.take(body.document, origin)
    before = body.learned.get(_NAME, key)
    was = before.get("topics") if isinstance(before, dict) else None
    now = list(dict.fromkeys([*announced.entries, *announced.availability]))
    gone = set(map(str, was)).difference(now) if isinstance(was, list) else ()
    yield from _forgotten(body, key, sorted(gone))
    # One tuple for all of them, so that they are read again in one go.
    new = tuple(topic for topic in now if body.learned.get(_NAME, topic) is None)
    old = tuple(topic for topic in now if body.learned.get(_NAME, topic) is not None)
    for topic in now:
        first = body.learned.get(_NAME, topic) is None
        fact = announced.merged(topic, key, body.learned.get(_NAME, topic))
        if fact is not None:
            yield Lesson(key=topic, value=fact, topics=new if first else ())
    yield Lesson(key=key, value={"topics": [*now]} if now else None, topics=old)


class _Place(NamedTuple):
    device: str
    name: str


class _Origin(NamedTuple):
    """What the topic of a configuration says."""

    component: str
    device: str
    """The node, or without one the object."""
    label: str


def _origin(levels: list[str]) -> _Origin | None:
    if len(levels) >= 5 and levels[-4] in _COMPONENTS:
        return _Origin(levels[-4], levels[-3], levels[-2])
    if len(levels) >= 4 and levels[-3] in _COMPONENTS:
        return _Origin(levels[-3], levels[-2], levels[-2])
    return None


def _configuration(message: Message, body: Body, origin: _Origin) -> Sequence[Event] | None:
    document, own = body.document, message.topic.startswith("homeassistant/")
    draft = Draft(_NAME, message, body)
    if body.text == "" and (own or body.learned.get(_NAME, message.topic) is not None):  # the entity is gone
        return [draft.event(origin.device, "discovery", vendor_type=origin.component)]
    if own and body.json_fault:
        raise Unreadable(body.json_fault)
    if not isinstance(document, dict):
        if own and body.text is not None:
            raise Unreadable("a configuration is a JSON object, and this is none")
        return None
    config = _expanded(document)
    if not _configures(config):
        return None
    device, via = _device(config)
    return [draft.event(device or origin.device, "discovery", via=via or None, vendor_type=origin.component)]


def _configures(config: Object) -> bool:
    return any(
        key in config for key in ("~", "topic", "components", "device", "unique_id", "migrate_discovery")
    ) or any(key.endswith("_topic") for key in config)


# Abbreviated keys are made of abbreviated words: bri_stat_t is brightness_state_topic.
_WORDS = {
    "act": "action",
    "attr": "attributes",
    "atype": "automation_type",
    "avail": "available",
    "avty": "availability",
    "bat": "battery",
    "bri": "brightness",
    "chrg": "charging",
    "cla": "class",
    "cln": "cleaning",
    "clr": "color",
    "clrm": "color_mode",
    "cmd": "command",
    "cmps": "components",
    "cns": "connections",
    "curr": "current",
    "dev": "device",
    "dir": "direction",
    "discvry": "discovery",
    "dock": "docked",
    "err": "error",
    "fanspd": "fan_speed",
    "fx": "effect",
    "hi": "high",
    "hum": "target_humidity",
    "ids": "identifiers",
    "img": "image",
    "lev": "level",
    "lo": "low",
    "lrst": "last_reset",
    "meas": "measurement",
    "migr": "migrate",
    "obj": "object",
    "osc": "oscillation",
    "p": "platform",
    "pct": "percentage",
    "pl": "payload",
    "pos": "position",
    "pr": "preset",
    "spd": "speed",
    "stat": "state",
    "stype": "subtype",
    "t": "topic",
    "temp": "temperature",
    "tpl": "template",
    "uniq": "unique",
    "val": "value",
    "ver": "version",
    "whit": "white",
}
_WHOLE = {
    "curr_hum_t": "current_humidity_topic",
    "curr_hum_tpl": "current_humidity_template",
    "l_ver_t": "latest_version_topic",
    "l_ver_tpl": "latest_version_template",
}


def _expanded(document: Object) -> dict[str, Json]:
    """The keys in full, and the base topic in the place of `~`."""
    config = {_long(key): inner for key, inner in document.items()}
    base = config.get("~")
    if isinstance(base, str):
        for key, inner in config.items():
            if isinstance(inner, str) and (key == "topic" or key.endswith("_topic")):
                config[key] = _based(inner, base)
    return config


def _based_on(config: Object, node: Json) -> dict[str, Json]:
    """A part of a configuration, which has the base topic of the whole, unless it has its own."""
    if not isinstance(node, dict):
        return {}
    return _expanded({"~": config["~"], **node} if "~" in config else node)


def _long(key: str) -> str:
    return _full(key) if len(key) <= 64 else key


@lru_cache(maxsize=4_096)
def _full(key: str) -> str:
    return _WHOLE.get(key) or "_".join(_WORDS.get(word, word) for word in key.split("_"))


def _based(topic: str, base: str) -> str:
    if topic.startswith("~"):
        return base + topic[1:]
    return topic[:-1] + base if topic.endswith("~") else topic


def _device(config: Object) -> tuple[str, str]:
    """A device's identity and the one it is reached through, "" where there is none."""
    described = config.get("device")
    if not isinstance(described, dict):
        return "", ""
    device = _expanded(described)
    identity = _first(device.get("identifiers")) or _connection(device.get("connections")) or _word(device, "name")
    return identity, _word(device, "via_device")


def _first(node: Json) -> str:
    item = node[0] if isinstance(node, list) and node else node
    return str(item) if isinstance(item, (str, int)) and type(item) is not bool else ""


def _connection(node: Json) -> str:
    pair = node[0] if isinstance(node, list) and node else None
    return _first(pair[1:]) if isinstance(pair, list) else ""


def _word(node: Object, key: str) -> str:
    word = node.get(key)
    return word if isinstance(word, str) else ""


class _Announced:
    """The topics of one configuration, and what is to be found on each."""

    def __init__(self) -> None:
        self.entries: dict[str, list[Json]] = {}
        self.availability: dict[str, str] = {}

    def take(self, document: Object, origin: _Origin) -> None:
        """All the entities of a configuration: of a device's, each one has what stands beside them all."""
        config = _expanded(document)
        components = config.get("components")
        if not isinstance(components, dict):
            self._entity(config, origin.component, origin.label)
            return
        shared = {key: inner for key, inner in config.items() if key != "components"}
        for label, described in components.items():
            own = _based_on(shared, described)
            if own.keys() - {"platform", "~"}:  # a platform alone takes the component away
                self._entity({**shared, **own}, _word(own, "platform"), label)

    def merged(self, topic: str, key: str, before: Json) -> Json:
        """What a topic is known for, with this configuration's part; None where there is no more room."""
        fact: dict[str, Json] = dict(before) if isinstance(before, dict) else {}
        if topic in self.entries:
            by = fact.get("by")
            by = dict(by) if isinstance(by, dict) else {}
            by[key] = self.entries[topic]
            if len(by) > _MOST_ON_ONE_TOPIC:
                return None
            fact["by"] = by
        if topic in self.availability:
            device = self.availability[topic]
            # Whose it is, unless it is a bridge's, which many devices name.
            fact["availability"] = device if fact.get("availability", device) == device else ""
        return fact

    def _entity(self, config: Object, component: str, label: str) -> None:
        device, via = _device(config)
        described = config.get("device")
        owner = _word(described, "name") if isinstance(described, dict) else ""
        shared: dict[str, Json] = {"component": component}
        if device:
            name = _word(config, "object_id") or label
            shared |= {"device": device, "label": _without(_without(name, device), owner), "via": via}
        for topic, role in _roles(config, component):
            if role["role"] == "availability":
                self.availability[topic] = device
            elif role["role"] != "":
                entry: dict[str, Json] = {
                    key: word for key, word in {**shared, **role}.items() if word not in ("", None)
                }
                self.entries.setdefault(topic, []).append(entry)


def _without(name: str, owner: str) -> str:
    """`kitchen_temperature` of `Kitchen` is the temperature."""
    begin = owner.lower().replace(" ", "_")
    rest = name[len(begin) + 1 :] if begin and name.lower().startswith(begin) else ""
    return rest if rest and name[len(begin)] in "_-" else name


def _roles(config: Object, component: str) -> Iterator[tuple[str, dict[str, Json]]]:
    """The topics of one entity, each with what it is for."""
    for key, topic in config.items():
        stem = "topic" if key == "topic" else key[:-6] if key.endswith("_topic") else ""
        if stem and isinstance(topic, str) and topic and not {"+", "#"} & set(topic):
            yield topic, _role(config, component, stem)
    several = config.get("availability")
    for one in several if isinstance(several, list) else (several,):
        topic = _based_on(config, one).get("topic")
        if isinstance(topic, str) and topic and not {"+", "#"} & set(topic):
            yield topic, {"role": "availability"}


def _role(config: Object, component: str, stem: str) -> dict[str, Json]:
    if stem in ("image", "url") or (stem == "topic" and component in ("camera", "image")):
        return {"role": ""}  # a picture, or where one is
    if stem == "availability":
        return {"role": stem}
    if stem.endswith("command") or stem.startswith("set_"):
        name = stem.removesuffix("command").removesuffix("_").removeprefix("set_")
        return {"role": "command", "name": name, **({} if name else _switched(config, component, "payload"))}
    if stem == "json_attributes":
        return {"role": "attributes"}
    name = "" if stem in ("state", "topic") else stem.removesuffix("_state").removesuffix("_status")
    role: dict[str, Json] = {"role": "state", "name": name, **_found_by(_template(config, stem, name))}
    if not name:
        role |= {"unit": _word(config, "unit_of_measurement"), **_switched(config, component, "state")}
        if _word(config, "device_class") in _TEXT_CLASSES:
            role["text"] = True
    elif "temperature" in name:
        role["unit"] = _word(config, "temperature_unit")
    return role


def _template(config: Object, stem: str, name: str) -> str:
    keys = (f"{name}_value_template", f"{name}_state_template", f"{name}_template", f"{stem}_template")
    if not name:
        keys = ("value_template", "state_value_template", "state_template", "")
    return next((text for key in keys if (text := _word(config, key))), "")


def _switched(config: Object, component: str, said: str) -> dict[str, Json]:
    """The words for on and off, of a state or of an order, where they are not the usual ones."""
    if component not in _SWITCHES:
        return {}
    on, off = (config.get(f"{said}_{word}", config.get(f"payload_{word}")) for word in ("on", "off"))
    return {key: str(word) for key, word in (("on", on), ("off", off)) if isinstance(word, (str, int, float))}


# `{{ value_json.a['b'] | round(1) }}`: a path, and filters that leave the value and its unit what they are.
_TEMPLATE = re.compile(
    r"""\{\{-?\s*(value_json|value)((?:\.\w+|\[\s*(?:'[^']*'|"[^"]*"|\d+)\s*\])*)\s*"""
    r"""((?:\|\s*\w+\s*(?:\([^(){}|]*\)\s*)?)*)-?\}\}"""
)
_STEP = re.compile(r"""\.(\w+)|\[\s*(?:'([^']*)'|"([^"]*)"|(\d+))\s*\]""")
_FILTER = re.compile(r"\|\s*(\w+)")
_HARMLESS = frozenset({"default", "float", "int", "is_defined", "round", "string"})


def _found_by(template: str) -> dict[str, Json]:
    """The path that a template names; templates are programs, and none is ever run."""
    if not template:
        return {}
    found = _TEMPLATE.fullmatch(template.strip()) if len(template) <= 400 else None
    if found is None or not _HARMLESS.issuperset(_FILTER.findall(found[3])):
        return {"opaque": True}
    path = ".".join("".join(step) for step in _STEP.findall(found[2]))
    if (found[1] == "value") != (not path):
        return {"opaque": True}
    return {"path": path} if path else {}


def _forgotten(body: Body, key: str, topics: Sequence[str]) -> Iterator[Lesson]:
    for topic in topics:
        fact = body.learned.get(_NAME, topic)
        by = fact.get("by") if isinstance(fact, dict) else None
        if isinstance(fact, dict) and isinstance(by, dict) and key in by:
            rest = {other: entries for other, entries in by.items() if other != key}
            left = {**fact, "by": rest} if rest else {name: inner for name, inner in fact.items() if name != "by"}
            yield Lesson(key=topic, value=left or None)


def _entries(fact: Object) -> Iterator[dict[str, Json]]:
    by = fact.get("by")
    for entries in by.values() if isinstance(by, dict) else ():
        for entry in entries if isinstance(entries, list) else ():
            if isinstance(entry, dict):
                yield entry


_PRESENCE = frozenset({"availability", "available", "avty", "lwt"})
_STATE_WORDS = frozenset({"", "data", "result", "sensor", "stat", "state", "status", "val", "value"})


def _place(levels: list[str], body: Body) -> _Place:
    """Device and reading of a topic; under the prefix of discovery the levels have their meaning."""
    if levels[0] != _NAME or len(levels) < 4 or levels[1] not in _COMPONENTS:
        name = body.place.scalar_name
        name = "state" if name.lower() in _STATE_WORDS else name
        return _Place(body.place.scalar_device or body.place.device or _NAME, name)
    path = levels[3:]
    if path[-1].lower() in _STATE_WORDS or path[-1].lower() in COMMAND_WORDS:
        path.pop()
    return _Place(levels[2], ".".join(path) or "state")


def _kind(entries: Sequence[Object], body: Body, levels: list[str]) -> Kind | None:
    roles = {entry.get("role") for entry in entries}
    if roles == {"command"} or (not entries and body.place.kind == "command"):
        return "command"
    if not entries and levels[-1].lower() in _PRESENCE:
        return "availability"
    components = {_word(entry, "component") for entry in entries} or {levels[1]}
    if components <= _EVENTS:
        return "event"
    return "state" if components <= _STATES else None


def _owner(entries: Sequence[Object]) -> tuple[str, str]:
    """The device of a topic and its bridge, "" where the announcements name several, or none."""
    owners = {(_word(entry, "device"), _word(entry, "via")) for entry in entries}
    return owners.pop() if len(owners) == 1 else ("", "")


def _label(entry: Object, place: _Place) -> str:
    name = _word(entry, "name")
    label = _word(entry, "label")
    return ".".join(filter(None, (label, name))) or place.name


def _availability(message: Message, body: Body, place: _Place, fact: Object) -> Sequence[Event]:
    device = _word(fact, "availability") or place.device
    if body.document is not None:
        return _objects(message, body, _Place(device, place.name), (), "availability")
    draft = Draft(_NAME, message, body)
    draft.put_value("availability" if place.name == "state" else place.name, body.text or None)
    return [draft.event(device, "availability")]


def _scalar(message: Message, body: Body, place: _Place, entries: Sequence[Object], kind: Kind | None) -> Event:
    draft, text = Draft(_NAME, message, body), body.text or ""
    bare = [entry for entry in entries if "path" not in entry]
    entry = next((entry for entry in bare if "unit" in entry), (*bare, {})[0])
    device, via = _owner(entries)
    name, component = _label(entry, place), _word(entry, "component")
    value = _meant(entry, text)
    if value is not text or component in _TEXTS or "text" in entry:
        draft.put_value(name, value if text else None)
    else:
        draft.put_scalar(name, text, None if "opaque" in entry else _word(entry, "unit"), source="learned")
    return draft.event(device or place.device, kind, via=via or None)


def _meant(entry: Object, value: Value) -> Value:
    """Whether a switch is on, in the words that it was announced with."""
    if type(value) is not str or _word(entry, "component") not in _SWITCHES or "name" in entry or "opaque" in entry:
        return value
    if value == (_word(entry, "on") or "ON"):
        return True
    return False if value == (_word(entry, "off") or "OFF") else value


def _objects(
    message: Message, body: Body, place: _Place, entries: Sequence[Object], kind: Kind | None
) -> Sequence[Event]:
    """JSON is read as any is; discovery says whose it is, what its values mean, and their units."""
    device, via = _owner(entries)
    events = []
    for event in json.read(message, body) or ():
        readings, codes, sources = dict(event.readings), dict(event.units or {}), dict(event.unit_sources or {})
        for entry in entries:
            _describe(entry, readings, codes, sources)
        in_topic = event.device == body.place.device
        detail = event.detail
        if via:
            detail = msgspec.structs.replace(detail or Detail(), via=via)
        events.append(
            msgspec.structs.replace(
                event,
                device=device or (place.device if in_topic else event.device),
                kind=kind or event.kind,
                format=_NAME,
                readings=readings,
                units=codes or None,
                unit_sources=sources or None,
                detail=detail,
            )
        )
    return events


def _describe(entry: Object, readings: dict[str, Value], codes: dict[str, str], sources: dict[str, UnitSource]) -> None:
    name = _found(_word(entry, "path"), readings)
    if name is None:
        return
    readings[name] = _meant(entry, readings[name])
    code = units.code(_word(entry, "unit"))
    if code and name not in codes:
        codes[name] = code
        sources[name] = "learned"


def _found(path: str, readings: Mapping[str, Value]) -> str | None:
    """The reading at a path, by the name that it has where wrappers and `value` are left out of it."""
    if not path or path in readings:
        return path or None
    steps = path.split(".")
    while len(steps) > 1 and fields.squeezed(steps[0]) in fields.WRAPPERS:
        del steps[0]
    if len(steps) > 1 and fields.squeezed(steps[-1]) in fields.VALUE:
        steps.pop()
    name = ".".join(steps)
    if name in readings:
        return name
    lone = len(readings) == 1 and fields.squeezed(path) in fields.VALUE
    return next(iter(readings)) if lone else None


FORMATS: tuple[Format, ...] = (
    Format(
        name=_NAME,
        read=read,
        teach=teach,
        learned_topics=True,
        topics=(
            "homeassistant/#",
            "#/+/+/config",  # of any prefix; the component is looked for in the reader
        ),
    ),
)
