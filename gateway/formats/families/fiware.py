"""FIWARE IoT agents, for Ultralight 2.0 and JSON (https://fiware-iotagent-ul.readthedocs.io, https://fiware-iotagent-json.readthedocs.io)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import msgspec

from gateway.formats import texts, values
from gateway.formats.body import Body, Json
from gateway.formats.draft import Draft
from gateway.formats.format import Format, Unreadable
from storage.event import Event, Kind, Message

UL, JSON = "fiware_ul", "fiware_json"

Object = dict[str, Json]

_TASKS = frozenset({"attrs", "cmd", "cmdexe", "configuration"})
_COMMANDS: dict[str, Kind] = {"cmd": "command", "cmdexe": "event", "configuration": "command"}
_NUMERIC = re.compile(r"\s*-?[0-9]+(\.[0-9]+)?\s*%?")
_TIMES = ("TimeInstant", "timestamp")
_PAIRS = re.compile(r"(?:[0-9]{4}[^|#]*\|)?[\w.:-]+\|[^|#]+(?:[|#][\w.:-]+\|[^|#]+)*")
_decode = msgspec.json.Decoder().decode


class _Topic(NamedTuple):
    protocol: str
    """`ul` or `json`; "" where the topic begins with the API key."""
    device: str
    task: str
    name: str
    """The attribute of a single measure; `commands` or `values` of a configuration."""


def read_ul(message: Message, body: Body) -> Sequence[Event] | None:
    """Groups of `name|value`, each an event; or the plain value that the topic names."""
    topic = _parted(message.topic)
    text = body.text
    if topic is None or topic.protocol == "json" or not text:
        return None
    if topic.task == "attrs" and topic.name:
        if body.document is not None and not topic.protocol:
            return None
        return [_single(Draft(UL, message, body), topic, _cast(text))]
    if body.document is not None or ("|" not in text and "@" not in text):
        if topic.protocol and body.document is None:
            raise Unreadable("neither name|value nor device@command|value")
        return None
    if not topic.protocol and message.topic[:1] != "/" and not _is_surely_ul(topic, text):
        return None
    draft = Draft(UL, message, body)
    if topic.task == "attrs":
        return [_group(draft, topic, group.removeprefix("|")) for group in text.split("#")]
    if topic.task == "configuration" and topic.name == "commands":
        return [_request(draft, topic, text.split("|"))]
    return [_command(draft, topic, text)]


def _is_surely_ul(topic: _Topic, text: str) -> bool:
    """What to believe on a topic that others may have as well: pairs, or a command that names the topic's device."""
    if topic.task == "attrs":
        return _PAIRS.fullmatch(text) is not None
    return text.startswith(f"{topic.device}@")


def read_json(message: Message, body: Body) -> Sequence[Event] | None:
    """One event of an object, of each object of an array, or of the value that the topic names."""
    topic = _parted(message.topic)
    if topic is None or topic.protocol == "ul":
        return None
    draft = Draft(JSON, message, body)
    document = body.document
    if topic.task == "attrs" and topic.name:
        return list(_attribute(draft, topic, body))
    if isinstance(document, dict):
        return None if _is_ngsi(document) else [_object(draft, topic, document)]
    if isinstance(document, list) and document and all(isinstance(node, dict) for node in document):
        nodes = [node for node in document if isinstance(node, dict)]
        draft.count(len(nodes))
        return None if all(map(_is_ngsi, nodes)) else [_object(draft, topic, node) for node in nodes]
    if topic.protocol and body.payload:
        raise Unreadable(body.json_fault or "neither a JSON object nor an array of objects")
    return None


def _filters(protocol: str) -> tuple[str, ...]:
    with_protocol = tuple(f"#/{protocol}/+/+/{end}" for end in ("attrs", "attrs/+", "cmd", "cmdexe", "configuration/+"))
    if protocol == "ul":  # its text says enough, wherever it stands
        with_protocol += ("#/+/+/attrs", "#/+/+/cmd", "#/+/+/cmdexe")
    # What agents publish, and what old devices do, begins with the API key.
    return (*with_protocol, "/+/+/attrs", "/+/+/attrs/+", "/+/+/cmd", "/+/+/cmdexe", "/+/+/configuration/+")


FORMATS: tuple[Format, ...] = (
    Format(name=UL, read=read_ul, topics=_filters("ul")),
    Format(name=JSON, read=read_json, topics=_filters("json")),
)


def _parted(topic: str) -> _Topic | None:
    levels = topic.split("/")
    at = next((at for at in range(len(levels) - 1, 0, -1) if levels[at] in _TASKS and at >= len(levels) - 2), 0)
    if at < 2 or not levels[at - 1]:
        return None
    protocol = levels[at - 3] if at >= 3 and levels[at - 3] in ("ul", "json") else ""
    return _Topic(protocol, levels[at - 1], levels[at], levels[at + 1] if at + 1 < len(levels) else "")


def _cast(text: str) -> Json:
    """A value as the agent casts it: JSON where it is JSON, the text where it is not."""
    try:
        return _decode(text)  # type: ignore[no-any-return]
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return text


def _group(draft: Draft, topic: _Topic, group: str) -> Event:
    fields = group.split("|")
    if "@" in fields[0]:
        return _command(draft, topic, group)
    stamp = fields.pop(0) if len(fields) % 2 else None
    if not fields or not all(fields):
        raise Unreadable(f"not name|value|…: {texts.shortened(group, 60)}")
    draft.count(len(fields))
    for name, value in zip(fields[::2], fields[1::2], strict=True):
        if name == "TimeInstant":
            stamp = value
        else:
            draft.put(name, _cast(value))
    return _measured(draft, topic, stamp)


def _command(draft: Draft, topic: _Topic, text: str) -> Event:
    """`device@command|value`, or with parameters `device@command|name=value|…`; a transformed command has no device."""
    head, *fields = text.split("|")
    _, marked, name = head.rpartition("@") if "@" not in head else head.partition("@")
    if not name or not (marked or fields):
        raise Unreadable(f"not device@command|value: {texts.shortened(text, 60)}")
    draft.count(len(fields))
    stamp = None
    for field in fields:
        parameter, given, value = field.partition("=")
        if topic.task == "cmdexe" or not given:
            draft.put(name, _cast(field))
        elif parameter == "dt" and topic.task == "configuration":
            stamp = value
        else:
            draft.put(parameter if topic.task == "configuration" else f"{name}.{parameter}", _cast(value))
    kind = _COMMANDS.get(topic.task, "event")
    return draft.event(topic.device, kind, stamp=stamp, vendor_type=_type_of(topic))


def _request(draft: Draft, topic: _Topic, fields: list[str]) -> Event:
    draft.put("type", fields[0])
    draft.put("fields", list(fields[1:]))
    return draft.event(topic.device, "command", vendor_type=_type_of(topic))


def _attribute(draft: Draft, topic: _Topic, body: Body) -> Iterator[Event]:
    document = body.document
    if document is None:
        text = body.text
        # The agent keeps what is not JSON as the hexadecimal digits of its bytes; a text is more use as a text.
        yield _single(draft, topic, body.payload.hex() if text is None else _cast(text))
    elif isinstance(document, list) and document and all(_is_sample(node) for node in document):
        draft.count(len(document))
        for node in document:
            if isinstance(node, dict):
                draft.put(topic.name, node["value"])
                yield _measured(draft, topic, _time_of(draft, node))
    else:
        yield _single(draft, topic, document)


def _is_sample(node: Json) -> bool:
    return isinstance(node, dict) and "value" in node


def _single(draft: Draft, topic: _Topic, value: Json) -> Event:
    if isinstance(value, dict) and "value" in value and (stamp := _time_of(draft, value)) is not None:
        draft.put(topic.name, value["value"])
        return _measured(draft, topic, stamp)
    draft.put(topic.name, value)
    return _measured(draft, topic, None)


def _object(draft: Draft, topic: _Topic, node: Object) -> Event:
    if topic.task == "attrs":
        stamp = _time_of(draft, node)
        for key, inner in node.items():
            if stamp is None or inner is not stamp or key not in _TIMES:
                draft.put(key, inner)
        return _measured(draft, topic, stamp)
    stamp = node.get("dt") if topic.task == "configuration" else None
    for key, inner in node.items():
        if stamp is None or key != "dt":
            draft.put(key, inner)
    return draft.event(topic.device, _COMMANDS[topic.task], stamp=stamp, vendor_type=_type_of(topic))


def _time_of(draft: Draft, node: Object) -> Json:
    return next((node[key] for key in _TIMES if key in node and draft.believed(node[key]) is not None), None)


def _measured(draft: Draft, topic: _Topic, stamp: Json) -> Event:
    """Attributes are measures: a device that quotes its numbers measures all the same."""
    if where := values.position(draft.readings):
        draft.put_units(dict.fromkeys(where, "deg"))
    if isinstance(stamp, str) and draft.believed(stamp) is None:
        draft.put("TimeInstant", stamp)
    kind = values.kind_of(draft.readings)
    if kind == "state" and any(type(v) is str and _NUMERIC.fullmatch(v) for v in draft.readings.values()):
        kind = "measurement"
    return draft.event(topic.device, kind, stamp=stamp, vendor_type=_type_of(topic))


def _type_of(topic: _Topic) -> str:
    return f"configuration/{topic.name}" if topic.task == "configuration" else topic.task


def _is_ngsi(node: Object) -> bool:
    """Whether the device sends entities, which the agent takes where it is told so."""
    if isinstance(node.get("id"), str) and isinstance(node.get("type"), str):
        return any(isinstance(inner, dict) and "type" in inner for inner in node.values())
    return isinstance(node.get("entities"), list) and "actionType" in node
