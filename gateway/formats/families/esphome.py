"""ESPHome: a component a topic, `livingroom/sensor/temperature/state`, and what a node says of itself.

https://esphome.io/components/mqtt.html
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from gateway.formats.body import Body
from gateway.formats.draft import Draft
from gateway.formats.families.homeassistant import announced_unit
from gateway.formats.format import Format, Unreadable
from storage.event import Event, Kind, Message

_NAME = "esphome"

_SWITCHES = frozenset({"binary_sensor", "switch"})
_NUMBERS = frozenset({"sensor", "number"})
_OBJECTS = frozenset({"light", "event", "update", "date", "time", "datetime"})
_TEXTS = frozenset({"text_sensor", "text", "select", "lock", "button", "alarm_control_panel"})
# Components with several values, each under a level of its own before `state` or `command`.
_COMPOUND = frozenset({"climate", "fan", "cover", "valve", "humidifier", "water_heater"})
_COMPONENTS = _SWITCHES | _NUMBERS | _OBJECTS | _TEXTS | _COMPOUND
_COMPOUND_NUMBERS = frozenset({"position", "tilt", "speed_level", "current_humidity", "target_humidity"})
_BOOLEANS = {"ON": True, "OFF": False, "oscillate_on": True, "oscillate_off": False}

# `[D][sensor:094]: …`, in the colour of its level.
_LOG = re.compile(r"(\x1b\[[0-9;]*m)?\[[A-Z]{1,2}\]\[[^\]\n]{1,80}\]:")


def read(message: Message, body: Body) -> Sequence[Event] | None:
    """The state of a component or a command to it, a line of the log, or a node that presents itself."""
    levels = message.topic.split("/")
    if body.text is None or len(levels) < 2:
        return None
    if levels[0] == _NAME and levels[1] in ("discover", "ping"):
        return _presented(Draft(_NAME, message, body), levels, body)
    if levels[-1] == "debug":
        return _logged(Draft(_NAME, message, body), levels[:-1], body.text)
    at = _component_at(levels)
    if at is None:
        return None
    component, path, command = levels[at], levels[at + 1 : -1], levels[-1] == "command"
    draft = Draft(_NAME, message, body)
    if not _put(draft, component, path, message, body):
        return None
    # The prefix is the node's name, or what the user has set in its place.
    return [draft.event("/".join(levels[:at]), "command" if command else _kind(draft, component, path))]


def _component_at(levels: list[str]) -> int | None:
    if len(levels) < 4 or levels[-1] not in ("state", "command") or levels[-2].isdecimal():  # object ids are words
        return None
    if levels[-3] in _COMPONENTS:
        return len(levels) - 3
    return len(levels) - 4 if len(levels) > 4 and levels[-4] in _COMPOUND else None


def _kind(draft: Draft, component: str, path: list[str]) -> Kind | None:
    if component == "event":
        return "event"
    numeric = component in _NUMBERS or path[-1] in _COMPOUND_NUMBERS or path[-1].endswith("_temperature")
    if not numeric:
        return "state"
    return "measurement" if draft.quality else None  # nan: a sensor that has no value for now


def _put(draft: Draft, component: str, path: list[str], message: Message, body: Body) -> bool:
    """Add the readings; False where no ESPHome component has such a payload."""
    name, text = ".".join(path), body.text or ""
    if component in _OBJECTS:
        return _put_object(draft, name, text, body, commanded=message.topic.endswith("/command"))
    if text[:1] in ("{", "["):
        return False
    if not text:
        draft.put_missing(name)
    elif component in _NUMBERS:
        state_topic = f"{message.topic.removesuffix('/command').removesuffix('/state')}/state"
        draft.put_scalar(name, text, announced_unit(body, state_topic), source="learned")
    elif component in _COMPOUND and path[-1].endswith(("_temperature", "_temperature_low", "_temperature_high")):
        draft.put_scalar(name, text, "Cel", source="format")  # whatever unit the front end shows
    elif component in _COMPOUND and path[-1] in _COMPOUND_NUMBERS:
        draft.put_scalar(name, text)
    elif component in _TEXTS:
        draft.put_value(name, text)
    else:
        draft.put_value(name, _BOOLEANS.get(text, text))
    return True


def _put_object(draft: Draft, name: str, text: str, body: Body, *, commanded: bool) -> bool:
    if isinstance(body.document, dict):
        draft.put(name, body.document)
    elif body.json_fault:
        raise Unreadable(body.json_fault)
    elif text[:1] == "[" or not (text and commanded):  # a state is an object, an order may be `ON` or `INSTALL`
        return False
    else:
        draft.put_value(name, _BOOLEANS.get(text, text))
    return True


def _presented(draft: Draft, levels: list[str], body: Body) -> Sequence[Event] | None:
    if levels[1] == "ping" or len(levels) == 2:  # what is asked of one node, or of all
        return [draft.event(levels[2] if len(levels) == 3 else _NAME, "command", vendor_type=levels[1])]
    if len(levels) != 3:
        return None
    if body.text and not isinstance(body.document, dict):
        raise Unreadable(body.json_fault or "a node presents itself by a JSON object")
    return [draft.event(levels[2], "discovery", vendor_type="discover")]


def _logged(draft: Draft, prefix: list[str], text: str) -> Sequence[Event] | None:
    if not _LOG.match(text):
        return None
    draft.put_value("debug", text)
    return [draft.event("/".join(prefix), "event", vendor_type="debug")]


_ENDS = ("state", "command")

FORMATS: tuple[Format, ...] = (
    Format(
        name=_NAME,
        read=read,
        topics=(
            *(f"#/{component}/+/{end}" for component in sorted(_COMPONENTS) for end in _ENDS),
            *(f"#/{component}/+/+/{end}" for component in sorted(_COMPOUND) for end in _ENDS),
            "esphome/discover/#",
            "esphome/ping/+",
            "+/debug",
        ),
    ),
)
