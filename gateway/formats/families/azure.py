"""Azure IoT Hub: messages, device twins and direct methods (https://learn.microsoft.com/azure/iot/iot-mqtt-connect-to-iot-hub).

Components and acknowledgements of properties as IoT Plug and Play has them
(https://learn.microsoft.com/azure/iot/concepts-convention).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import unquote

from gateway.formats import json, plain, values
from gateway.formats.body import Body, Json
from gateway.formats.draft import Draft
from gateway.formats.format import Format, Unreadable
from gateway.formats.topics import Place
from storage.event import Event, Kind, Message

NAME = "azure_iot"

Object = dict[str, Json]

_HUB = "$iothub"
_DEEPEST = 16
_CREATED = ("$.ctime", "iothub-creation-time-utc")


def read(message: Message, body: Body) -> Sequence[Event] | None:
    """A device's messages in either direction, or its twin and methods, whose topics do not name the device."""
    levels = message.topic.split("/")
    if _HUB in levels:
        at = levels.index(_HUB)
        return _read_hub(message, body, levels[at - 1] if at else "iothub", levels[at + 1 :])
    at = next(at for at in range(len(levels) - 2, 0, -1) if levels[at] == "messages")
    module = levels[at - 1] if levels[at - 2] == "modules" else None
    device = levels[at - 3] if module else levels[at - 1]
    if not device:
        return None
    return _read_message(message, body, _Sender(device, module, levels[at + 1] == "devicebound", levels[at + 2 :]))


FORMATS: tuple[Format, ...] = (
    Format(
        name=NAME,
        read=read,
        topics=(
            "#/$iothub/twin/#",
            "#/$iothub/methods/#",
            "#/devices/+/messages/events/#",
            "#/devices/+/modules/+/messages/events/#",
            "#/devices/+/messages/devicebound/#",
            "#/devices/+/modules/+/messages/devicebound/#",
        ),
    ),
)


class _Sender(NamedTuple):
    device: str
    module: str | None
    to_device: bool
    rest: list[str]
    """The levels that hold the properties of the message."""

    @property
    def properties(self) -> dict[str, str]:
        """The last level, which is like the query of a URL; values may hold slashes that were not encoded."""
        pairs = (pair.partition("=") for pair in "/".join(self.rest).lstrip("?").split("&"))
        return {unquote(name): unquote(value) for name, _, value in pairs if name}


def _read_message(message: Message, body: Body, sender: _Sender) -> Sequence[Event] | None:
    """The payload is the user's own: generic JSON or a value, but the topic says whose it is."""
    # A name out of the topic would hold the properties, and be another for each message.
    place = Place(sender.device, sender.device, "value", "", None)
    own = Body(body.payload, body.options, place)
    events = json.read(message, own) or (plain.read(message, own) if own.text else None)
    if events is None:
        return None
    properties = sender.properties
    return [_own(message, body, event, sender, properties) for event in events]


def _own(message: Message, body: Body, event: Event, sender: _Sender, properties: dict[str, str]) -> Event:
    draft = Draft(NAME, message, body)
    component = properties.get("$.sub")
    before = f"{component}." if component else ""
    units = event.units or {}
    quality = event.detail.quality if event.detail else {}
    for name, value in event.readings.items():
        draft.put_value(f"{before}{name}", value, units.get(name), quality=quality.get(name))
    for name, text in properties.items():
        if not name.startswith("$."):
            draft.put(f"properties.{name}", text)
    told = event.device != sender.device
    kind: Kind = "command" if sender.to_device else event.kind
    created = next((properties[name] for name in _CREATED if name in properties), None)
    return draft.event(
        event.device if told else sender.device,
        kind,
        stamp=event.observed_at if event.from_device else created,
        seq=event.seq,
        via=sender.device if told else None,
        vendor_type="devicebound" if sender.to_device else sender.module and f"module {sender.module}",
        source_id=properties.get("$.mid"),
    )


def _read_hub(message: Message, body: Body, device: str, rest: list[str]) -> Sequence[Event] | None:
    if body.document is None and body.json_fault:
        raise Unreadable(body.json_fault)
    draft = Draft(NAME, message, body)
    node: Json = body.document if body.document is not None else body.text or None
    match rest:
        case ["twin", "PATCH", "properties", "reported", *_]:
            return _twin(draft, device, {"reported": node}, "twin/PATCH/reported")
        case ["twin", "PATCH", "properties", "desired", *_]:
            return _twin(draft, device, {"desired": node}, "twin/PATCH/desired")
        case ["twin", "GET", *_]:
            return [draft.event(device, "command", vendor_type="twin/GET")]
        case ["twin", "res", status, *_]:
            if status == "200" and isinstance(node, dict) and ("reported" in node or "desired" in node):
                return _twin(draft, device, node, "twin/res")
            return [_answer(draft, device, status, node, "twin/res")]
        case ["methods", "res", status, *_]:
            return [_answer(draft, device, status, node, "methods/res")]
        case ["methods", "POST", method, *_]:
            if isinstance(node, str):
                draft.put_scalar(method, node)
            else:
                draft.put(method, node)
            return [draft.event(device, "command", vendor_type=f"methods/POST/{method}")]
    return None


def _twin(draft: Draft, device: str, twin: Object, vendor_type: str) -> Sequence[Event] | None:
    events = []
    for section in ("reported", "desired"):
        node = twin.get(section)
        if isinstance(node, dict):
            desired = section == "desired"
            _put_properties(draft, "desired." if desired else "", node)
            version = node.get("$version")
            kind: Kind = "command" if desired else "state"
            seq = version if type(version) is int else None
            events.append(draft.event(device, kind, seq=seq, vendor_type=vendor_type))
    return events or None


def _put_properties(draft: Draft, before: str, node: Object, depth: int = 0) -> None:
    """Properties by dotted path: without the mark of a component, and without the acknowledgement around a value."""
    for key, inner in node.items():
        if key == "__t" or key.startswith("$"):
            continue
        value = inner["value"] if isinstance(inner, dict) and "value" in inner and "ac" in inner else inner
        if isinstance(value, dict) and depth < _DEEPEST:
            _put_properties(draft, f"{before}{key}.", value, depth + 1)
        else:
            draft.put(f"{before}{key}", value)
    if not depth and (where := values.position(draft.readings)):
        draft.put_units(dict.fromkeys(where, "deg"))


def _answer(draft: Draft, device: str, status: str, node: Json, vendor_type: str) -> Event:
    if status.isdecimal() and len(status) <= 5:
        draft.put("status", int(status))
    if isinstance(node, dict):
        for key, inner in node.items():
            draft.put(key, inner)
    elif isinstance(node, str):
        draft.put_scalar("response", node)
    elif node is not None:
        draft.put("response", node)
    return draft.event(device, "event", vendor_type=vendor_type)
