"""Blues Notehub: the events that it routes of Notecards.

https://dev.blues.io/api-reference/glossary/#event
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gateway.formats.body import Body, Json
from gateway.formats.draft import Draft, located
from gateway.formats.format import Format
from gateway.formats.nodes import members, number, text
from gateway.formats.values import kind_of
from storage.event import Event, Kind, Location, Message

NAME = "blues_notehub"

Object = dict[str, Json]

_SENSOR_UNITS = {"temperature": "Cel", "humidity": "%", "pressure": "Pa", "voltage": "V"}
_BODY_UNITS: Mapping[str, Mapping[str, str]] = {
    "_air.qo": _SENSOR_UNITS,
    "_temp.qo": _SENSOR_UNITS,
    "_track.qo": {
        "bearing": "deg",
        "distance": "m",
        "seconds": "s",
        "temperature": "Cel",
        "velocity": "m/s",
        "voltage": "V",
    },
}
"""Of the bodies that the Notecard writes by itself: https://dev.blues.io/api-reference/system-notefiles/"""

_KINDS: Mapping[str, Kind] = {
    "_geolocate.qo": "location",
    "_health.qo": "event",
    "_log.qo": "event",
    "_session.qo": "event",
    "_track.qo": "location",
}
_UNITS = {
    "best_lat": "deg",
    "best_lon": "deg",
    "rsrp": "dBm",
    "rsrq": "dB",
    "rssi": "dBm",
    "sinr": "dB",
    "temp": "Cel",
    "tower_lat": "deg",
    "tower_lon": "deg",
    "tri_lat": "deg",
    "tri_lon": "deg",
    "voltage": "V",
    "where_lat": "deg",
    "where_lon": "deg",
}
# What the event tells of itself; `when` and `received` are its time.
_ENVELOPE = frozenset({"event", "device", "file", "body", "when", "received", "req", "session", "product", "app"})


def read(message: Message, body: Body) -> Sequence[Event] | None:
    """One event: the body's readings, with the best place that Notehub knows."""
    document = body.document
    if not isinstance(document, dict) or not _confirmed(document):
        return None
    device = text(document["device"])
    if device is None:
        return None
    file = text(document.get("file"))
    draft = Draft(NAME, message, body)
    content = document.get("body")
    _put_body(draft, content, _BODY_UNITS.get(file or "", {}))
    kind = _KINDS.get(file or "") or kind_of(draft.readings)
    here = located(draft.readings)
    for key, value in document.items():
        if key not in _ENVELOPE:
            _put(draft, key, value, _UNITS.get(key))
    stamps = (document.get("when"), document.get("received"))
    return [
        draft.event(
            device,
            kind,
            stamp=next((stamp for stamp in stamps if draft.believed(stamp) is not None), None),
            vendor_type=file,
            source_id=text(document.get("event")),
            location=here or _best(document),
        )
    ]


def _confirmed(document: Object) -> bool:
    named = (document.get("device"), document.get("product"), document.get("app"))
    starts = ("dev:", "product:", "app:")
    return any(isinstance(name, str) and name.startswith(start) for name, start in zip(named, starts, strict=True))


def _put_body(draft: Draft, content: Json, units: Mapping[str, str]) -> None:
    for key, value in members(content).items():
        _put(draft, key, value, units.get(key))


def _put(draft: Draft, name: str, value: Json, unit: str | None) -> None:
    if isinstance(value, (dict, list)):
        draft.put(name, value)
    else:
        draft.put_value(name, value, unit, source="format")


def _best(document: Object) -> Location | None:
    latitude, longitude = number(document.get("best_lat")), number(document.get("best_lon"))
    if latitude is None or longitude is None or abs(latitude) > 90 or abs(longitude) > 180:
        return None
    return Location(latitude, longitude)


FORMATS: tuple[Format, ...] = (
    Format(
        name=NAME,
        read=read,
        keys=(
            frozenset({"device", "best_id"}),
            frozenset({"device", "product", "file"}),
            frozenset({"device", "product", "body"}),
            frozenset({"device", "app", "file"}),
        ),
    ),
)
