"""Eclipse Ditto's protocol (https://eclipse.dev/ditto/protocol-specification.html)."""

from __future__ import annotations

import re
from collections.abc import Sequence

from gateway.formats import values
from gateway.formats.body import Body, Json
from gateway.formats.draft import Draft
from gateway.formats.format import Format, Unreadable
from storage.event import Event, Kind, Message

NAME = "ditto_protocol"

_TOPIC = re.compile(
    r"([^/]*)/([^/]+)/(things|policies|connections)(?:/(twin|live))?"
    r"/(commands|events|messages|errors|acks|announcements|search|streaming)(/.*)?",
    re.DOTALL,
)
# What names the thing or tells of its rights, and is no value of it.
_IDENTITY = frozenset(
    {"thingId", "policyId", "_policy", "_policyId", "_copyPolicyFrom", "_namespace", "__schemaVersion"}
)
_ABOUT = frozenset({"_context", "_modified", "_revision", "_created"})
_KINDS: dict[str, Kind] = {"commands": "command", "search": "other", "streaming": "other"}


def read(message: Message, body: Body) -> Sequence[Event] | None:
    """One event of what the message says of one thing."""
    document = body.document
    if not isinstance(document, dict):
        if body.json_fault and message.properties and _is_named(message.properties.content_type):
            raise Unreadable(body.json_fault)
        return None
    if "thingId" in document and ("features" in document or "_context" in document):
        return _thing_alone(Draft(NAME, message, body), document)
    topic = document.get("topic")
    address = _TOPIC.fullmatch(topic) if isinstance(topic, str) and len(topic) <= 1_024 else None
    path = document.get("path", "/")
    if address is None or not isinstance(path, str):
        return None
    return [_event(Draft(NAME, message, body), document, address, path)]


FORMATS: tuple[Format, ...] = (
    Format(
        name=NAME,
        read=read,
        content_types=("application/vnd.eclipse.ditto+json",),
        keys=(frozenset({"topic", "path"}), frozenset({"thingId", "features"}), frozenset({"thingId", "_context"})),
    ),
)


def _is_named(content_type: str | None) -> bool:
    return content_type is not None and "ditto" in content_type


def _event(draft: Draft, document: dict[str, Json], address: re.Match[str], path: str) -> Event:
    namespace, name, _, _, criterion, action = address.groups()
    value = document.get("value")
    status = document.get("status")
    if "status" in document and type(status) is int:
        draft.put("status", status)
    if criterion in ("messages", "errors", "acks", "announcements", "search", "streaming"):
        _put_payload(draft, "value" if criterion != "messages" else (action or "/value")[1:], document, value)
    else:
        _put_part(draft, path, value, given="value" in document, deleted=action in ("/deleted", "/delete"))
        if isinstance(extra := document.get("extra"), dict):
            _put_part(draft, "/", extra, given=True, deleted=False)
    if where := values.position(draft.readings):
        draft.put_units(dict.fromkeys(where, "deg"))
    seq = document.get("revision")
    return draft.event(
        _thing(namespace, name, value),
        _kind(criterion, path, answered=status is not None),
        stamp=document.get("timestamp"),
        seq=seq if type(seq) is int else None,
        vendor_type=address.string[address.start(3) :],
    )


def _thing_alone(draft: Draft, document: dict[str, Json]) -> Sequence[Event] | None:
    """A thing without the protocol around it, as normalized messages have it; the `_context` says it once more."""
    thing, features = document["thingId"], document.get("features", {})
    if not isinstance(thing, str) or ":" not in thing or not isinstance(features, dict):
        return None
    for key, node in document.items():
        if key not in _IDENTITY and key not in _ABOUT:
            draft.put(key, node)
    if where := values.position(draft.readings):
        draft.put_units(dict.fromkeys(where, "deg"))
    context = document.get("_context")
    topic = context.get("topic") if isinstance(context, dict) else None
    seq = document.get("_revision")
    return [
        draft.event(
            thing,
            "event" if isinstance(topic, str) else "state",
            stamp=document.get("_modified"),
            seq=seq if type(seq) is int else None,
            vendor_type=topic.partition("/")[2].partition("/")[2] if isinstance(topic, str) else None,
        )
    ]


def _thing(namespace: str, name: str, value: Json) -> str:
    thing = value.get("thingId") if isinstance(value, dict) else None
    if name == "_" and isinstance(thing, str) and thing.strip():
        return thing
    return f"{namespace}:{name}" if namespace not in ("", "_") else name


def _kind(criterion: str, path: str, *, answered: bool) -> Kind:
    """A command that has a status is the answer to it; what stands in a thing's inbox is for it to do."""
    if answered:
        return "event"
    if criterion == "messages":
        return "command" if "/inbox/" in path else "event"
    return _KINDS.get(criterion, "event")


def _put_payload(draft: Draft, name: str, document: dict[str, Json], value: Json) -> None:
    if isinstance(value, dict):
        for key, node in value.items():
            draft.put(key, node)
    elif "value" in document:
        draft.put(name or "value", value)


def _put_part(draft: Draft, path: str, value: Json, *, given: bool, deleted: bool) -> None:
    """Put in the part of the thing at a JSON pointer, under one name whichever part was sent."""
    name = ".".join(level.replace("~1", "/").replace("~0", "~") for level in path.split("/") if level)
    if not name and isinstance(value, dict):
        for key, node in value.items():
            if key not in _IDENTITY:
                draft.put(key, node)
    elif given and name not in _IDENTITY:
        draft.put(name or "value", value)
    elif deleted and name:
        draft.put_missing(name)
