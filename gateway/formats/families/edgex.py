"""EdgeX Foundry's events and system events: https://docs.edgexfoundry.org/latest/microservices/core/data/."""

from __future__ import annotations

import base64
import binascii
import io
import math
from collections.abc import Callable, Iterator, Sequence

import cbor2
import msgspec

from gateway.formats.body import Body, Json
from gateway.formats.draft import Draft
from gateway.formats.format import Format, Unreadable
from storage.event import Event, Message

NAME = "edgex"

Object = dict[str, Json]

_MOST_WRAPPED = 4


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
    if _is_system_event(node):
        return [_system_event(Draft(NAME, message, body), node)]
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
        inner = node.get("event", node.get("payload"))
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


def _text(node: Json) -> str:
    return node if isinstance(node, str) else ""


FORMATS: tuple[Format, ...] = (
    Format(
        name=NAME,
        read=read,
        topics=("#/edgex/events/#", "#/edgex/system-events/#"),
        keys=(
            frozenset({"deviceName", "readings"}),
            frozenset({"apiVersion", "event"}),
            frozenset({"apiVersion", "payload"}),
        ),
    ),
)
