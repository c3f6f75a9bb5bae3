"""Eclipse Kura's payload in protobuf: https://github.com/eclipse-kura/kura, file kurapayload.proto."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from typing import Protocol, cast

from gateway.formats.body import Body
from gateway.formats.draft import Draft
from gateway.formats.format import Format, Unreadable, named
from gateway.formats.protobuf import Field, classes, parsed, shortest, text
from storage.event import Event, Kind, Message, Value

NAME = "kura_protobuf"

# Names of our own for the fields of the file above.
_WIRE = {
    "Payload": {
        "timestamp": Field(1, "int64"),
        "position": Field(2, "Position"),
        "metrics": Field(5000, "Metric", repeated=True),
        "body": Field(5001, "bytes"),
    },
    "Metric": {
        "name": Field(1, "string"),
        "kind": Field(2, "int32"),
        "double": Field(3, "double"),
        "float": Field(4, "float"),
        "long": Field(5, "int64"),
        "int": Field(6, "int32"),
        "bool": Field(7, "bool"),
        "text": Field(8, "string"),
        "bytes": Field(9, "bytes"),
    },
    "Position": {
        "latitude": Field(1, "double"),
        "longitude": Field(2, "double"),
        "altitude": Field(3, "double"),
        "precision": Field(4, "double"),
        "heading": Field(5, "double"),
        "speed": Field(6, "double"),
        "timestamp": Field(7, "int64"),
        "satellites": Field(8, "int32"),
        "status": Field(9, "int32"),
    },
}
_CLASSES = classes("amber_kura", _WIRE)
# By the number of the type; a metric says which of its fields holds the value.
_FORMS = ("double", "float", "long", "int", "bool", "text", "bytes")
_POSITION_UNITS = {"latitude": "deg", "longitude": "deg", "altitude": "m", "heading": "deg", "speed": "m/s"}
# The tags of the body and of a metric: field numbers 5001 and 5000.
_TAGS = (b"\xca\xb8\x02", b"\xc2\xb8\x02")
# A timestamp and a position with latitude and longitude, where there are no metrics.
_PLACED = re.compile(rb"\x08[\x80-\xff]{5}[\x01-\x7f]\x12[\x12-\x7f]\x09.{8}\x11.{8}", re.DOTALL)


class _Sent(Protocol):
    """What every message of the library can tell."""

    def HasField(self, name: str) -> bool: ...  # noqa: N802  the library's name


class _Metric(_Sent, Protocol):
    name: str | bytes
    kind: int


class _Payload(_Sent, Protocol):
    timestamp: int
    position: _Sent
    metrics: Sequence[_Metric]
    body: bytes


def read(message: Message, body: Body) -> Sequence[Event] | None:
    """One event of the metrics and the position."""
    if not any(tag in message.payload for tag in _TAGS) and not _PLACED.match(message.payload):
        return None
    try:
        payload = cast("_Payload", parsed(_CLASSES["Payload"], message.payload, "Kura"))
    except Unreadable:
        return None
    if not _is_kura(payload):
        return None
    draft = Draft(NAME, message, body)
    for metric in payload.metrics:
        draft.put(text(metric.name), _value(metric))
    if payload.HasField("position"):
        _put_position(draft, payload.position)
    if payload.HasField("body"):
        draft.put("body", base64.b64encode(payload.body).decode())
    device, kind = _client(message.topic, body)
    # A last will was written when the client connected: its time says nothing of the end.
    stamp = payload.timestamp if payload.HasField("timestamp") and not message.topic.endswith("/MQTT/LWT") else None
    return [draft.event(device, kind, stamp=stamp)]


def _is_kura(payload: _Payload) -> bool:
    """Whether any of Kura's own fields is there, and each metric as Kura demands it."""
    described = all(metric.HasField("kind") and metric.name for metric in payload.metrics)
    return described and bool(payload.metrics or payload.HasField("body") or payload.HasField("position"))


def _value(metric: _Metric) -> Value:
    form = _FORMS[metric.kind] if 0 <= metric.kind < len(_FORMS) else ""
    if not form or not metric.HasField(form):
        return None
    value = getattr(metric, form)
    if form == "float":
        return shortest(value)
    if form == "bytes":
        return base64.b64encode(value).decode()
    return text(value) if form == "text" else cast("Value", value)


def _put_position(draft: Draft, position: _Sent) -> None:
    """A fix has a time of its own: it is not that of the metrics."""
    for name in _WIRE["Position"]:
        if position.HasField(name):
            draft.put_value(f"position.{name}", getattr(position, name), _POSITION_UNITS.get(name), source="format")


def _client(topic: str, body: Body) -> tuple[str, Kind | None]:
    """Who publishes on `account/client/application/…`, or on control topics, and what these are for.

    Control topics have a prefix, `$EDC/account/client/MQTT/BIRTH`; requests stand on that of who is to answer.
    """
    levels = topic.split("/")
    control = levels.pop(0) if levels[0].startswith("$") else ""
    device = levels[1] if len(levels) > 2 and levels[1].strip() else named(body.place.device, body)
    if not control or len(levels) < 4:
        return device, None
    if levels[2] == "MQTT":
        return device, _LIFE.get(levels[3])
    return device, "command" if levels[3] in _VERBS else "event" if levels[3] in _ANSWERS else None


_LIFE: dict[str, Kind] = {"BIRTH": "birth", "APPS": "birth", "DC": "death", "LWT": "death", "MISSING": "death"}
_VERBS = frozenset({"GET", "PUT", "POST", "DEL", "EXEC"})
_ANSWERS = frozenset({"REPLY", "NOTIFY"})

FORMATS: tuple[Format, ...] = (
    Format(
        name=NAME,
        read=read,
        # The tags of the timestamp, the position, the body and a metric.
        starts=(b"\x08", b"\x12", *_TAGS),
    ),
)
