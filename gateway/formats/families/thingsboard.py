"""ThingsBoard's device and gateway topics (https://thingsboard.io/docs/reference/mqtt-api/)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from gateway.formats import values
from gateway.formats.body import Body, Json
from gateway.formats.draft import Draft
from gateway.formats.format import Format, Unreadable
from storage.event import Event, Kind, Message

NAME = "thingsboard"

Object = dict[str, Json]

# The short topics; the letter behind says in which encoding: `v2/t/j`.
_SHORT = {"t": "telemetry", "a": "attributes", "r": "rpc"}
_SHORTER = {"req": "request", "res": "response"}
# Whoever knows it owns the device: it is in the message that is kept, and in no reading.
_CLAIM_KEY = "secretKey"


def read(message: Message, body: Body) -> Sequence[Event] | None:
    """Telemetry and attributes of a device, or of the devices behind a gateway; requests, answers and claims."""
    levels = message.topic.split("/")
    at = next((at for at, level in enumerate(levels) if level in ("v1", "v2")), len(levels) - 1)
    own = "/".join(level for level in levels[:at] if level) or "me"
    rest = levels[at + 1 :]
    if levels[at] == "v2":
        task, way = _SHORT.get(rest[0], ""), _SHORTER.get(rest[1], "") if len(rest) > 1 else ""
    elif rest[:2] == ["devices", "me"]:
        task, way = (rest[2] if len(rest) > 2 else ""), (rest[3] if len(rest) > 3 else "")
    else:
        return _read_gateway(message, body, "/".join(rest[1:3]))
    return _read_device(message, body, own, f"{task}/{way}" if way else task)


FORMATS: tuple[Format, ...] = (
    Format(
        name=NAME,
        read=read,
        topics=(
            "#/v1/devices/me/#",
            "#/v1/gateway/+",
            "#/v1/gateway/attributes/+",
            "#/v2/t",
            "#/v2/t/j",
            "#/v2/a",
            "#/v2/a/j",
            "v2/a/req/+",
            "v2/a/res/+",
            "v2/r/req/+",
            "v2/r/res/+",
        ),
    ),
)


def _read_device(message: Message, body: Body, device: str, task: str) -> Sequence[Event] | None:
    node = _node(body, scalar=task == "rpc/response")
    draft = Draft(NAME, message, body)
    if node is None:
        return None
    if task == "telemetry":
        return list(_telemetry(draft, device, node))
    if isinstance(node, dict) and task in _DEVICE_KINDS:
        _put_all(draft, {key: inner for key, inner in node.items() if key != _CLAIM_KEY})
        return [draft.event(device, _DEVICE_KINDS[task], vendor_type=task)]
    if task == "rpc/response":
        draft.put("response", node)
        return [draft.event(device, "event", vendor_type=task)]
    return None


_DEVICE_KINDS: dict[str, Kind] = {
    "attributes": "state",
    "attributes/request": "command",
    "attributes/response": "state",
    "rpc/request": "command",
    "rpc/response": "event",
    "claim": "event",
}


def _read_gateway(message: Message, body: Body, task: str) -> Sequence[Event] | None:
    node = _node(body, scalar=False)
    reader = _GATEWAY.get(task)
    if reader is None or not isinstance(node, dict):
        return None
    return reader(Draft(NAME, message, body), task, node)


def _node(body: Body, *, scalar: bool) -> Json:
    if body.document is not None:
        return body.document
    if body.json_fault:
        raise Unreadable(body.json_fault)
    return body.text if scalar and body.text else None


def _telemetry(draft: Draft, device: str, node: Json) -> Iterator[Event]:
    """Values, or values with their time, or an array of either."""
    elements = node if isinstance(node, list) else [node]
    draft.count(len(elements))
    for element in elements:
        if not isinstance(element, dict):
            raise Unreadable("telemetry is an object, or an array of objects")
        inner = element.get("values")
        if isinstance(inner, dict) and "ts" in element:
            _put_all(draft, inner)
            yield draft.event(device, stamp=element["ts"], vendor_type="telemetry")
        else:
            _put_all(draft, element)
            yield draft.event(device, vendor_type="telemetry")


def _telemetry_of_all(draft: Draft, _: str, node: Object) -> Sequence[Event] | None:
    if not all(isinstance(inner, (dict, list)) for inner in node.values()):
        return None
    return [event for device, inner in node.items() for event in _telemetry(draft, device, inner)] or None


def _attributes_of_all(draft: Draft, task: str, node: Object) -> Sequence[Event] | None:
    device, data = node.get("device"), node.get("data")
    if isinstance(device, str) and isinstance(data, dict):  # the server tells of a changed shared attribute
        _put_all(draft, data)
        return [draft.event(device, "command", vendor_type=task)]
    return _each(draft, task, node, "state")


def _claims(draft: Draft, task: str, node: Object) -> Sequence[Event] | None:
    return _each(draft, task, node, "event")


def _each(draft: Draft, task: str, node: Object, kind: Kind) -> Sequence[Event] | None:
    events = []
    for device, inner in node.items():
        if not isinstance(inner, dict):
            return None
        _put_all(draft, {key: value for key, value in inner.items() if kind == "state" or key != _CLAIM_KEY})
        events.append(draft.event(device, kind, vendor_type=task))
    return events or None


def _presence(draft: Draft, task: str, node: Object) -> Sequence[Event] | None:
    draft.put("connected", task == "connect")
    return _of_device(draft, task, node, "availability")


def _question(draft: Draft, task: str, node: Object) -> Sequence[Event] | None:
    return _of_device(draft, task, node, "command")


def _answer(draft: Draft, task: str, node: Object) -> Sequence[Event] | None:
    if isinstance(inner := node.get("values"), dict):
        node = {"device": node.get("device"), **inner}
    return _of_device(draft, task, {key: value for key, value in node.items() if key != "id"}, "state")


def _call(draft: Draft, task: str, node: Object) -> Sequence[Event] | None:
    """A call has its number inside of `data`, the answer to it beside."""
    data = node.get("data")
    if isinstance(data, dict) and "method" in data and "id" not in node:
        return _of_device(draft, task, {"device": node.get("device"), **data}, "command")
    return _of_device(draft, task, node, "event")


def _of_device(draft: Draft, task: str, node: Object, kind: Kind) -> Sequence[Event] | None:
    device = node.get("device")
    if not isinstance(device, str):
        return None
    _put_all(draft, {key: inner for key, inner in node.items() if key != "device"})
    return [draft.event(device, kind, vendor_type=task)]


_GATEWAY: dict[str, Callable[[Draft, str, Object], Sequence[Event] | None]] = {
    "telemetry": _telemetry_of_all,
    "attributes": _attributes_of_all,
    "attributes/request": _question,
    "attributes/response": _answer,
    "connect": _presence,
    "disconnect": _presence,
    "rpc": _call,
    "claim": _claims,
}


def _put_all(draft: Draft, node: Object) -> None:
    for key, inner in node.items():
        draft.put(key, inner)
    if where := values.position(draft.readings):
        draft.put_units(dict.fromkeys(where, "deg"))
