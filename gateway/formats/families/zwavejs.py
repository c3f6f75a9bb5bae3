"""Z-Wave JS UI (zwavejs2mqtt): a value a topic, as `{"time", "value"}`, as a whole value id, or bare.

https://zwave-js.github.io/zwave-js-ui/#/usage/setup and https://zwave-js.github.io/zwave-js-ui/#/guide/mqtt
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from gateway.formats.body import Body, Json
from gateway.formats.draft import Draft
from gateway.formats.families.homeassistant import announced_unit
from gateway.formats.format import Format, Unreadable
from storage.event import Event, Kind, Message

_NAME = "zwavejs"

# Class names of what happens and does not last: central scene, scene activation, entry control.
_EVENT_CLASSES = frozenset({"91", "43", "111", "central_scene", "scene_activation", "entry_control"})
_SETTINGS = frozenset({"112", "configuration"})
# Until version 1.2 a named topic had no level for endpoint 0.
_NAMED_CLASSES = """
alarm_sensor barrier_operator basic battery binary_switch central_scene clock color_switch configuration door_lock
entry_control indicator lock meter meter_pulse multilevel_switch notification protection scene_activation
sensor_alarm sensor_binary sensor_multilevel sound_switch switch_all switch_binary switch_multilevel
switch_toggle_binary thermostat_fan_mode thermostat_fan_state thermostat_mode thermostat_operating_state
thermostat_setback thermostat_setpoint user_code wake_up window_covering
"""
_CLASS_NAMES = frozenset(_NAMED_CLASSES.split())
_NODE_TOPICS = frozenset({"status", "lastActive", "nodeinfo"})
_NODE_STATES = ("ready", "available", "failed", "status", "interviewStage", "firmwareVersion", "lastActive")


class _Place(NamedTuple):
    node: str
    """With its location, where it has one."""
    command_class: str
    name: str
    """Class, endpoint, property and key: a node has many a `currentValue`."""


def read(message: Message, body: Body) -> Sequence[Event] | None:
    """A value of a node, the node's own state, or what the gateway says of itself."""
    levels = [level for level in message.topic.split("/") if level]
    if body.text is None or len(levels) < 2:
        return None
    draft = Draft(_NAME, message, body)
    for marker in ("_CLIENTS", "_EVENTS_", "_EVENTS"):
        if marker in levels[:-2]:
            return _gateway(draft, levels[levels.index(marker) :], body)
    command = levels[-1] == "set"
    if command:
        levels.pop()
    if len(levels) < 2:
        return None
    document = body.document
    if isinstance(document, dict) and isinstance(document.get("commandClass"), int) and "property" in document:
        return _value_id(draft, document, _place(levels), command=command)
    known = levels[0] in _PREFIXES or levels[-2].startswith("nodeID_")
    if known and not command and levels[-1] in _NODE_TOPICS and len(levels) > 2:
        return _node(draft, "/".join(levels[1:-1]), levels[-1], body)
    place = _place(levels)
    if place is None:
        return None
    return _value(draft, place, message, body, command=command)


def _place(levels: list[str]) -> _Place | None:
    """Node and value of a topic behind its prefix, None where it has neither of the two forms."""
    rest = levels[1:]
    for at in range(len(rest) - 2, 0, -1):  # from the end: a location may be a number as well as a node
        if _numbers_class(rest[at], rest[at + 1]) and len(rest) - at in (3, 4):
            return _Place("/".join(rest[:at]), rest[at], ".".join(rest[at:]))
    for at in range(1, len(rest) - 1):
        named = rest[at + 1].startswith("endpoint_") and at + 2 < len(rest)
        if named or (rest[at] in _CLASS_NAMES and levels[0] in _PREFIXES):
            return _Place("/".join(rest[:at]), rest[at], ".".join(rest[at:]))
    return None


def _numbers_class(command_class: str, endpoint: str) -> bool:
    # Command classes begin at 32, endpoints end at 127.
    return (
        command_class.isdecimal()
        and endpoint.isdecimal()
        and len(command_class) <= 3
        and len(endpoint) <= 3
        and int(command_class) >= 32
        and int(endpoint) <= 127
    )


def _value(draft: Draft, place: _Place, message: Message, body: Body, *, command: bool) -> Sequence[Event] | None:
    document, text = body.document, body.text or ""
    unit = announced_unit(body, message.topic)
    if isinstance(document, dict):
        if "value" not in document or not ({"time", "nodeName", "nodeLocation"} & document.keys() or command):
            return None
        _put_value(draft, place.name, document["value"], unit, learned=True)
        stamp = document.get("time")
    elif text[:1] in ("{", "["):
        if body.json_fault:
            raise Unreadable(body.json_fault)
        _put_value(draft, place.name, document, unit, learned=True)
        stamp = None
    else:
        draft.put_scalar(place.name, text, unit, source="learned")
        stamp = None
    kind = "command" if command else _kind(place.command_class, place.name.split(".")[-1])
    return [draft.event(place.node, kind, stamp=stamp)]


def _value_id(draft: Draft, document: dict[str, Json], place: _Place | None, *, command: bool) -> Sequence[Event]:
    """The value id says all of itself; only the node's name may be missing from it."""
    command_class = str(document["commandClass"])
    parts = [command_class, document.get("endpoint") or 0, document.get("propertyName") or document.get("property")]
    key = document.get("propertyKeyName")
    key = document.get("propertyKey") if key is None else key
    name = ".".join(
        str(part) for part in (*parts, *(() if key is None else (key,))) if not isinstance(part, (dict, list))
    )
    unit = document.get("unit")
    _put_value(draft, name, document.get("value"), unit if isinstance(unit, str) else None, learned=False)
    kind = "command" if command else _kind(command_class, str(parts[2]))
    return [draft.event(_node_of(document, place), kind, stamp=document.get("lastUpdate"))]


def _node_of(document: dict[str, Json], place: _Place | None) -> str:
    if place is not None:
        return place.node
    name, location = document.get("nodeName"), document.get("nodeLocation")
    if isinstance(name, str) and name:
        return f"{location}/{name}" if isinstance(location, str) and location else name
    return f"nodeID_{document.get('nodeId')}"


def _put_value(draft: Draft, name: str, value: Json, unit: str | None, *, learned: bool) -> None:
    if isinstance(value, (dict, list)):
        draft.put(name, value)
    else:
        draft.put_value(name, value, unit, source="learned" if learned else "message")


def _kind(command_class: str, property_: str) -> Kind | None:
    if command_class in _EVENT_CLASSES:
        return "event"
    return "state" if property_.startswith("target") or command_class in _SETTINGS else None


def _node(draft: Draft, node: str, topic: str, body: Body) -> Sequence[Event] | None:
    document, text = body.document, body.text or ""
    stamp = None
    if topic == "nodeinfo":
        if not isinstance(document, dict):
            raise Unreadable(body.json_fault or "nodeinfo is no JSON object")
        for key in _NODE_STATES:
            if key in document:
                draft.put(key, document[key])
        return [draft.event(node, "discovery", vendor_type=topic)]
    if isinstance(document, dict):
        stamp = document.get("time")
        if "status" in document:  # the word for it, beside whether the node can be reached
            draft.put("value", document.get("value"))
        draft.put(topic, document.get("status", document.get("value")))
    else:
        draft.put_scalar(topic, text)
    return [draft.event(node, "availability" if topic == "status" else "state", stamp=stamp, vendor_type=topic)]


def _gateway(draft: Draft, levels: list[str], body: Body) -> Sequence[Event] | None:
    """`_CLIENTS/name/…` or `_EVENTS_/name/emitter/event`."""
    client, rest, document = levels[1], levels[2:], body.document
    if not client.startswith("ZWAVE_GATEWAY"):
        return None
    if body.json_fault:
        raise Unreadable(body.json_fault)
    if levels[0] != "_CLIENTS":
        data = document.get("data") if isinstance(document, dict) else None
        draft.put(".".join(rest), data)
        return [draft.event(client, "event", vendor_type=rest[-1])]
    if rest[0] in ("status", "version") and isinstance(document, dict):
        draft.put(rest[0], document.get("value"))
        kind: Kind = "availability" if rest[0] == "status" else "state"
        return [draft.event(client, kind, stamp=document.get("time"), vendor_type=rest[0])]
    if rest[-1] == "set":
        if rest[0] == "broadcast" and isinstance(document, dict) and "value" in document:
            draft.put(".".join(rest[:-1]), document["value"])
        else:
            _put_whole(draft, ".".join(rest[:-1]), body)
        return [draft.event(client, "command", vendor_type=rest[0])]
    if rest[0] == "api" and isinstance(
        document, dict
    ):  # its answer may be the whole network: that stays in the message
        for key in ("success", "message"):
            if key in document:
                draft.put(f"{'.'.join(rest)}.{key}", document[key])
        return [draft.event(client, "event", vendor_type="api")]
    _put_whole(draft, ".".join(rest), body)
    return [draft.event(client, "availability" if rest == ["status"] else "other", vendor_type=rest[0])]


def _put_whole(draft: Draft, name: str, body: Body) -> None:
    if body.document is None:
        draft.put_scalar(name, body.text or "")
    else:
        draft.put(name, body.document)


_PREFIXES = frozenset({"zwave", "zwavejs", "zwavejs2mqtt", "zwave-js-ui", "zwavejs-ui", "zwave2mqtt", "zwave-js"})

FORMATS: tuple[Format, ...] = (
    Format(
        name=_NAME,
        read=read,
        keys=(frozenset({"commandClass", "commandClassName", "endpoint", "property"}),),
        topics=(
            *(f"{prefix}/#" for prefix in sorted(_PREFIXES)),
            *(f"#/endpoint_{at}/{end}" for at in range(3) for end in ("+", "+/+", "+/set", "+/+/set")),
            *(f"#/+/nodeID_*/{end}" for end in ("+/+/+", "+/+/+/+", "+/+/+/set", *sorted(_NODE_TOPICS))),
            *(f"#/_CLIENTS/+/{end}" for end in ("status", "version", "api/+", "api/+/set", "broadcast/#")),
            "#/_CLIENTS/+/multicast/#",
            "#/_EVENTS_/+/+/+",
        ),
    ),
)
