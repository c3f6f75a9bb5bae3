"""Frigate, a video recorder that detects objects: https://docs.frigate.video/integrations/mqtt/."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.formats.body import Body, Json
from gateway.formats.draft import Draft
from gateway.formats.format import Format, Unreadable
from gateway.formats.plain import NOTHING, scalar
from storage.event import Event, Kind, Message

NAME = "frigate"

_PREFIX = "frigate"
_REPORTS = frozenset({"events", "reviews", "tracked_object_update", "triggers"})
_CHANGES = frozenset({"events", "reviews"})
# Frigate obeys what is published here; so it does on every topic that ends in `set`.
_ORDERS = frozenset({"restart", "onConnect", "ptz", "suspend"})
# Whether it is on; `motion` tells whether anything moves.
_MOTION_DETECTION = ["motion", "state"]
_IMAGES = {b"\xff\xd8\xff": "image/jpeg", b"\x89PNG": "image/png", b"RIFF": "image/webp"}
_UNITS = {"inference_speed": "ms", "uptime": "s", "suspended": "s", "dBFS": "dB"}
_STORAGE_UNITS = dict.fromkeys(("total", "used", "free"), "MB")


def read(message: Message, body: Body) -> Sequence[Event] | None:
    """One event: of a report, it belongs to the camera that saw something, and has the time of the frame."""
    prefix, path = _split(message.topic)
    document = body.document
    if path[-1] in _REPORTS and len(path) == 1:
        return _report(message, body, prefix, path[0])
    if prefix is None:
        return None
    if path == ["stats"] and isinstance(document, dict):
        return [_stats(message, body, prefix, document)]
    if body.json_fault:
        raise Unreadable(body.json_fault)
    return _value(message, body, prefix, path)


def _split(topic: str) -> tuple[str | None, list[str]]:
    """What stands up to the prefix, None under another one, and the levels behind it."""
    levels = topic.split("/")
    if _PREFIX in levels[:-1]:
        at = levels.index(_PREFIX) + 1
        return "/".join(levels[:at]), levels[at:]
    return None, levels[-1:]


def _report(message: Message, body: Body, prefix: str | None, name: str) -> list[Event] | None:
    document = body.document
    if document is None and body.json_fault:
        raise Unreadable(body.json_fault)
    if not isinstance(document, dict):
        return None
    if name not in _CHANGES:
        return _update(message, body, prefix, name, document)
    after = document.get("after")
    if not isinstance(after, dict) or not _camera(after):
        return None
    return [_change(message, body, name, after, document.get("type"))]


def _change(message: Message, body: Body, name: str, after: dict[str, Json], kind: Json) -> Event:
    """What has become of an object or a review; what it was before has been told before."""
    draft = Draft(NAME, message, body)
    draft.put("type", kind)
    for key, node in after.items():
        _put(draft, key, node)
    # A review has only the times of its start and end: the change itself came later.
    return draft.event(_camera(after), "event", stamp=after.get("frame_time"), vendor_type=name)


def _put(draft: Draft, key: str, node: Json) -> None:
    # A label and how sure Frigate is of it.
    if key == "camera":
        return
    if key == "sub_label" and isinstance(node, list) and len(node) == 2 and isinstance(node[0], str):
        draft.put("sub_label", node[0])
        draft.put("sub_label_score", node[1])
    else:
        draft.put(key, node)


def _update(
    message: Message, body: Body, prefix: str | None, name: str, document: dict[str, Json]
) -> list[Event] | None:
    """What was recognized on an object, or a trigger; a description does not name its camera."""
    device = _camera(document) or prefix
    if device is None or "type" not in document or not ("id" in document or "event_id" in document):
        return None
    draft = Draft(NAME, message, body)
    for key, node in document.items():
        _put(draft, key, node)
    return [draft.event(device, "event", stamp=document.get("timestamp"), vendor_type=name)]


def _camera(node: dict[str, Json]) -> str:
    camera = node.get("camera")
    return camera if isinstance(camera, str) and camera.strip() else ""


def _stats(message: Message, body: Body, prefix: str, document: dict[str, Json]) -> Event:
    draft = Draft(NAME, message, body)
    for key, node in document.items():
        draft.put(key, node)
    draft.put_known_units(_unit_of)
    service = document.get("service")
    if not isinstance(service, dict):
        return draft.event(prefix, "measurement")
    storage = service.get("storage")
    for place, sizes in storage.items() if isinstance(storage, dict) else ():
        for name, unit in _STORAGE_UNITS.items():
            if isinstance(sizes, dict) and name in sizes:
                draft.put_value(f"service.storage.{place}.{name}", _number(sizes[name]), unit, source="format")
    return draft.event(prefix, "measurement", stamp=service.get("last_updated"))


def _unit_of(name: str) -> str | None:
    return _UNITS.get(name.rpartition(".")[2])


def _number(node: Json) -> float | None:
    return node if isinstance(node, (int, float)) and type(node) is not bool else None


def _value(message: Message, body: Body, prefix: str, path: list[str]) -> list[Event] | None:
    """What a topic below the prefix says of the prefix itself, or of a camera or zone."""
    order = path[-1] == "set" or path[-1] in _ORDERS
    if path[-1] == "set":
        path = path[:-1]
    if not path:
        return None
    own = len(path) == 1 or path[0] in ("profile", "notifications")
    device, names = (prefix, path) if own else (path[0], path[1:])
    if len(names) > 1 and names[-1] == "state" and names != _MOTION_DETECTION:
        names = names[:-1]  # of what `set` changes
    name, via = ".".join(names), None if own else prefix
    if not device.strip() or not name:
        return None
    draft = Draft(NAME, message, body)
    if body.text is None:
        image = _IMAGES.get(body.payload[:3]) or _IMAGES.get(body.payload[:4])
        # A picture is no reading; the message keeps it.
        return [draft.event(device, "other", via=via, vendor_type=image)] if image else None
    _put_payload(draft, name, body)
    draft.put_known_units(_unit_of)
    return [draft.event(device, "command" if order else _kind(path), via=via)]


def _put_payload(draft: Draft, name: str, body: Body) -> None:
    if body.document is not None:
        draft.put(name, body.document)
    elif body.text:
        word = body.text.lower() in NOTHING and name != "profile"  # the name of a class, or of no activity
        draft.put(name, body.text if word else scalar(body.text))


def _kind(path: list[str]) -> Kind | None:
    if path == ["available"] or (len(path) == 3 and path[1] == "status"):
        return "availability"
    return "state" if path[-1] in ("state", "suspended") else None


FORMATS: tuple[Format, ...] = (
    Format(
        name=NAME,
        read=read,
        topics=("frigate/#", "+/frigate/#", "#/tracked_object_update"),
        keys=(frozenset({"type", "before", "after"}),),
    ),
)
