"""AWS IoT device shadows (https://docs.aws.amazon.com/iot/latest/developerguide/device-shadow-mqtt.html)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from gateway.formats import values
from gateway.formats.body import Body, Json
from gateway.formats.draft import Draft
from gateway.formats.format import Format, Unreadable
from storage.event import Event, Kind, Message

NAME = "aws_iot_shadow"

_ACTIONS = frozenset({"update", "get", "delete"})
_OUTCOMES = frozenset({"", "accepted", "rejected", "delta", "documents"})


class _Topic(NamedTuple):
    thing: str
    shadow: str
    """The name of a named shadow, "" for the classic one."""
    action: str
    outcome: str
    """"" for a request."""


def read(message: Message, body: Body) -> Sequence[Event] | None:
    """What is reported is a state, what is desired and the delta are commands; metadata only mirror them."""
    topic = _parted(message.topic.split("/"))
    if topic is None:
        return None
    draft = Draft(NAME, message, body)
    document = body.document
    if isinstance(document, dict):
        return _read(draft, topic, _opened(document))
    if body.payload.strip() == b"" and not topic.outcome:
        return [draft.event(topic.thing, "command", vendor_type=topic.action)]
    if body.json_fault:
        raise Unreadable(body.json_fault)
    return None


FORMATS: tuple[Format, ...] = (Format(name=NAME, read=read, topics=("#/things/+/shadow/#",)),)


def _parted(levels: list[str]) -> _Topic | None:
    at = next((at for at in range(2, len(levels)) if levels[at] == "shadow" and levels[at - 2] == "things"), 0)
    rest = levels[at + 1 :]
    shadow = ""
    if len(rest) > 2 and rest[0] == "name":
        shadow, rest = rest[1], rest[2:]
    if not at or not 1 <= len(rest) <= 2 or rest[0] not in _ACTIONS:
        return None
    outcome = rest[1] if len(rest) == 2 else ""
    return _Topic(levels[at - 1], shadow, rest[0], outcome) if outcome in _OUTCOMES else None


def _opened(document: dict[str, Json]) -> dict[str, Json]:
    """What AWS's MQTT test client shows stands in an envelope of its own, which bridges pass on."""
    inner = document.get("payload")
    return inner if isinstance(inner, dict) and "state" not in document else document


def _read(draft: Draft, topic: _Topic, document: dict[str, Json]) -> Sequence[Event] | None:
    stamp = document.get("timestamp")
    if topic.outcome == "rejected":
        for key in ("code", "message"):
            if key in document:
                draft.put(key, document[key])
        return [draft.event(topic.thing, "event", stamp=stamp, vendor_type=_type_of(topic))]
    shadow = document
    if topic.outcome == "documents":  # `previous` was published before
        current = document.get("current")
        shadow = current if isinstance(current, dict) else {}
    state = shadow.get("state")
    sections: list[tuple[str, Json]] = []
    if topic.outcome == "delta":
        sections = [("desired", state)]
    elif isinstance(state, dict):
        sections = [(name, state.get(name)) for name in ("reported", "desired")]
    # In a request it is the version that the sender expects to change, not that of the document.
    seq = shadow.get("version") if topic.outcome else None
    return _events(draft, topic, sections, stamp, seq if type(seq) is int else None)


def _events(
    draft: Draft, topic: _Topic, sections: list[tuple[str, Json]], stamp: Json, seq: int | None
) -> Sequence[Event]:
    events = []
    for section, node in sections:
        if isinstance(node, dict):
            _put(draft, section, topic.shadow, node)
            kind: Kind = "state" if section == "reported" else "command"
            events.append(draft.event(topic.thing, kind, stamp=stamp, seq=seq, vendor_type=_type_of(topic)))
    kind = "event" if topic.outcome else "command"
    return events or [draft.event(topic.thing, kind, stamp=stamp, seq=seq, vendor_type=_type_of(topic))]


def _put(draft: Draft, section: str, shadow: str, node: dict[str, Json]) -> None:
    """Named shadows of one thing hold the same names; what is desired is no value of what is reported."""
    before = ("desired." if section == "desired" else "") + (f"{shadow}." if shadow else "")
    for key, inner in node.items():
        draft.put(f"{before}{key}", inner)
    if where := values.position(draft.readings):
        draft.put_units(dict.fromkeys(where, "deg"))


def _type_of(topic: _Topic) -> str:
    return f"{topic.action}/{topic.outcome}" if topic.outcome else topic.action
