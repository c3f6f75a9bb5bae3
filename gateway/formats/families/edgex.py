"""EdgeX Foundry's events and system events: https://docs.edgexfoundry.org/latest/microservices/core/data/."""

from __future__ import annotations

import base64
import binascii
import io
import math
import re
from collections.abc import Callable, Iterator, Sequence
from typing import TypeGuard

import cbor2
import msgspec

from gateway.formats.body import Body, Json
from gateway.formats.draft import Draft
from gateway.formats.format import Format, Unreadable
from storage.event import Event, Kind, Message

NAME = "edgex"

Object = dict[str, Json]

_MOST_WRAPPED = 4
_COMMAND = re.compile(r"edgex/command(?:query)?/(request|response)(?:/([^/]+)(?:/(.+))?)?$")


def read(message: Message, body: Body) -> Sequence[Event] | None:
    """An event for each device whose readings the message has."""
    document = body.document if body.document is not None else _from_cbor(body.payload)
    if not isinstance(document, dict):
        if body.json_fault and "/events/" in message.topic:
            raise Unreadable(body.json_fault)
        return None
    node, envelope = _opened(document)
    if _is_event(node):
        return list(_events(Draft(NAME, message, body), node, envelope))
    draft = Draft(NAME, message, body)
    if _is_system_event(node):
        return [_system_event(draft, node)]
    if _is_metric(node):
        return [_metric(draft, node)]
    if (several := _events_in(node)) is not None:
        draft.count(len(several))
        return [event for inner in several for event in _events(draft, inner, envelope)]
    if (address := _COMMAND.search(message.topic)) and "apiVersion" in map(_uncapitalized, document):
        return [_command(draft, document, address)]
    return None


# Envelopes: an event stands alone, in a request to add it, or in that in a message of the bus.


def _from_cbor(payload: bytes) -> Json:
    """A map in CBOR, as the bus has it where it is configured so."""
    if not payload or payload[0] >> 5 != 5:
        return None
    source = io.BytesIO(payload)
    try:
        document = cbor2.load(source)
        # By way of JSON: what that cannot say is not of EdgeX.
        return _decode(msgspec.json.encode(document)) if source.tell() == len(payload) else None
    except (cbor2.CBORDecodeError, msgspec.MsgspecError, ArithmeticError, ValueError, TypeError, RecursionError):
        return None


def _decode(text: bytes | str) -> Json:
    node: Json = msgspec.json.decode(text)
    return node


def _opened(document: Object) -> tuple[Object, str | None]:
    """What is inside, and the id by which the bus knows the message."""
    correlation = document.get("correlationID", document.get("correlationId"))
    node = document
    for _ in range(_MOST_WRAPPED):
        inner = node.get("event", node.get("payload", node.get("Payload")))
        if isinstance(inner, str):
            inner = _unpacked(inner)
        if not isinstance(inner, dict) or "apiVersion" not in node:
            break
        node = inner
    return node, correlation if isinstance(correlation, str) else None


def _unpacked(packed: str) -> Json:
    """Until version 4 the payload of a message of the bus is in Base64."""
    try:
        return _decode(base64.b64decode(packed, validate=True))
    except (binascii.Error, msgspec.MsgspecError, ValueError, RecursionError):
        return None


def _is_event(node: Object) -> bool:
    readings = node.get("readings")
    return (
        isinstance(node.get("deviceName"), str)
        and isinstance(readings, list)
        and all(isinstance(reading, dict) and isinstance(reading.get("resourceName"), str) for reading in readings)
    )


def _is_system_event(node: Object) -> bool:
    return all(isinstance(node.get(key), str) for key in ("type", "action", "source")) and "details" in node


# Events


def _events(draft: Draft, node: Object, envelope: str | None) -> Iterator[Event]:
    by_device: dict[str, list[Object]] = {}
    readings = node["readings"]
    for reading in readings if isinstance(readings, list) else ():
        if isinstance(reading, dict):
            by_device.setdefault(_text(reading.get("deviceName")) or _text(node["deviceName"]), []).append(reading)
    source_id = _text(node.get("id")) or envelope
    for device, found in by_device.items() or ((_text(node["deviceName"]), []),):
        for reading in found:
            _put_reading(draft, reading)
        stamp = node.get("origin") or next((reading.get("origin") for reading in found), None)
        yield draft.event(device, stamp=stamp, source_id=source_id, vendor_type=_text(node.get("sourceName")))


def _put_reading(draft: Draft, reading: Object) -> None:
    name, kind = _text(reading.get("resourceName")), _text(reading.get("valueType"))
    if isinstance(binary := reading.get("binaryValue"), str):
        draft.put(name, binary)
    elif (whole := reading.get("objectValue")) is not None:
        draft.put(name, whole)
    elif reading.get("isNull") is True:
        draft.put_missing(name)
    else:
        _put_typed(draft, name, kind, reading.get("value"))
    if units := _text(reading.get("units")):
        draft.put_units({name: units})


def _put_typed(draft: Draft, name: str, kind: str, value: Json) -> None:
    """Values are texts, and their type stands beside them."""
    read_as = _TYPES.get(kind)
    if read_as is None or not isinstance(value, str):
        draft.put(name, value)
    elif not value.strip():
        draft.put_missing(name)
    else:
        try:
            draft.put(name, read_as(value))
        except ValueError:
            draft.put_missing(name, "bad")


def _boolean(text: str) -> bool:
    flag = {"true": True, "false": False}.get(text.strip().lower())
    if flag is None:
        raise ValueError(text)
    return flag


def _integer(text: str) -> int:
    if len(text) > 64:
        raise ValueError("too long for a number")
    return int(text)


def _float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return number


def _several(text: str) -> Json:
    """`[1, 2, 3]`, in one text."""
    try:
        items: list[Json] = msgspec.json.decode(text, type=list)
    except (msgspec.MsgspecError, RecursionError):
        raise ValueError(text) from None
    return items


_INTEGERS = [f"{sign}{bits}" for sign in ("Int", "Uint") for bits in (8, 16, 32, 64)]
_SCALARS: dict[str, Callable[[str], Json]] = {
    "Bool": _boolean,
    **dict.fromkeys(_INTEGERS, _integer),
    "Float32": _float,
    "Float64": _float,
}
_TYPES = _SCALARS | {f"{kind}Array": _several for kind in (*_SCALARS, "String")}


def _system_event(draft: Draft, node: Object) -> Event:
    """Devices, profiles and services that were added, changed or deleted, and devices that were found."""
    details, kind, action = node["details"], _text(node["type"]), _text(node["action"])
    for key in ("type", "action", "source", "owner", "details"):
        if key in node:
            draft.put(key, node[key])
    named = details.get("name", details.get("deviceName")) if isinstance(details, dict) else None
    device = _text(named) or _text(node.get("owner")) or _text(node["source"])
    return draft.event(
        device,
        "discovery" if kind in ("device", "deviceprofile", "deviceservice", "provisionwatcher") else "event",
        stamp=node.get("timestamp"),
        via=_text(node.get("owner")) or None,
        vendor_type=f"{kind}/{action}",
    )


# Metrics of the services, and commands by way of messages


def _is_metric(node: Object) -> bool:
    fields = node.get("fields")
    return (
        isinstance(node.get("name"), str)
        and "timestamp" in node
        and "apiVersion" in node
        and isinstance(fields, list)
        and all(isinstance(field, dict) and isinstance(field.get("name"), str) for field in fields)
    )


def _metric(draft: Draft, node: Object) -> Event:
    """What a service counts of itself; its tags say which service."""
    name, fields, tags = _text(node["name"]), node["fields"], node.get("tags")
    for field in fields if isinstance(fields, list) else ():
        if isinstance(field, dict):
            draft.put(f"{name}.{field['name']}", field.get("value"))
    told = {str(tag.get("name")): tag.get("value") for tag in tags if isinstance(tag, dict)} if _is_list(tags) else {}
    for key, value in told.items():
        if key != "service":
            draft.put(f"tags.{key}", value)
    return draft.event(_text(told.get("service")) or name, "measurement", stamp=node["timestamp"], vendor_type=name)


def _is_list(node: Json) -> TypeGuard[list[Json]]:
    return isinstance(node, list)


def _events_in(node: Object) -> list[Object] | None:
    """The events that an answer holds several of."""
    events = node.get("events")
    objects = [event for event in events if isinstance(event, dict) and _is_event(event)] if _is_list(events) else []
    return objects if objects and len(objects) == len(node["events"]) else None  # type: ignore[arg-type]


def _command(draft: Draft, document: Object, address: re.Match[str]) -> Event:
    """A request to a device, or the answer to one that has no event in it."""
    parts = {_uncapitalized(key): node for key, node in document.items()}
    asked = address[1] == "request"
    if "errorCode" in parts:
        draft.put("errorCode", parts["errorCode"])
    if isinstance(query := parts.get("queryParams"), dict):
        draft.put("queryParams", query)
    payload = parts.get("payload")
    for key, node in payload.items() if isinstance(payload, dict) else ():
        if key not in ("apiVersion", "requestId"):
            draft.put(key, node)
    source_id = _text(parts.get("requestId", parts.get("requestID"))) or None
    kind: Kind = "command" if asked else "event"
    received = _COMMAND.search(_text(parts.get("receivedTopic"))) or address
    device = received[2] or address[2] or "edgex"
    return draft.event(device, kind, source_id=source_id, vendor_type=received[3])


def _uncapitalized(key: str) -> str:
    """Keys of the envelope begin with a small letter or a great one, by version."""
    return key[:1].lower() + key[1:]


def _text(node: Json) -> str:
    return node if isinstance(node, str) else ""


FORMATS: tuple[Format, ...] = (
    Format(
        name=NAME,
        read=read,
        topics=("#/edgex/events/#", "#/edgex/system-events/#", "#/edgex/command/#", "#/edgex/commandquery/#"),
        keys=(
            frozenset({"deviceName", "readings"}),
            frozenset({"apiVersion", "event"}),
            frozenset({"apiVersion", "payload"}),
            frozenset({"apiVersion", "events"}),
            frozenset({"apiVersion", "name", "fields"}),
        ),
    ),
)
