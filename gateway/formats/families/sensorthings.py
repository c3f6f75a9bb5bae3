"""OGC SensorThings (https://docs.ogc.org/is/18-088/18-088.html), and FROST's expanded entities over MQTT."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from gateway.formats import units, values
from gateway.formats.body import Body, Json
from gateway.formats.draft import Draft
from gateway.formats.format import Format, Lesson, Unreadable
from storage.event import Event, Kind, Message, UnitSource

NAME = "sensorthings"

Object = dict[str, Json]

_ENTITIES = (
    "Things|Locations|HistoricalLocations|Datastreams|MultiDatastreams|Sensors|ObservedProperties|Observations"
    "|FeaturesOfInterest"
)
_TOPIC = re.compile(
    rf"(?:.*/)?(?:{_ENTITIES}|Datastream|MultiDatastream|Thing)(?:\([^/?]*\)?)?(?:/.*|\?.*)?", re.DOTALL
)
_STREAM = re.compile(r"(?:(.*)/)?((?:Multi)?Datastreams\([^()/?]{1,100}\)?)(?:[/?].*)?", re.DOTALL)
_COLLECTION = re.compile(
    r"(?:(.*)/)?((?:Multi)?Datastreams|Things(?:\([^()/?]*\)/Datastreams)?)(?:\([^()/?]*\))?(?:\?.*)?", re.DOTALL
)
_STREAMS = ("Datastreams", "MultiDatastreams")
_OF_OBSERVATION = ("phenomenonTime", "resultTime", "validTime")
_LINKED = frozenset({"Datastream", "MultiDatastream", "FeatureOfInterest", "Thing", "Sensor", "ObservedProperty"})


class _Stream(NamedTuple):
    """What is known of the series that an observation belongs to."""

    device: str
    reading: str = "result"
    unit: str | None = None
    source: UnitSource = "message"


def read(message: Message, body: Body) -> Sequence[Event] | None:
    """Each observation is an event at the time of its phenomenon, whatever wraps it; other entities are discoveries."""
    document = body.document
    in_topic = _TOPIC.fullmatch(message.topic) is not None
    if document is None:
        if in_topic and body.json_fault:
            raise Unreadable(body.json_fault)
        return None
    draft = Draft(NAME, message, body)
    stream = _stream_of_topic(message.topic, body)
    nodes = _elements(document)
    if not nodes or not all(in_topic or _is_marked(node) for node in nodes):
        return None
    draft.count(len(nodes))
    return [event for node in nodes for event in _entity(draft, node, stream)] or None


def teach(message: Message, body: Body) -> Iterator[Lesson]:
    """The unit of a datastream, for its observations."""
    found = _COLLECTION.fullmatch(message.topic)
    if found is None:
        return
    base = f"{found[1]}/" if found[1] else ""
    for node in _elements(body.document):
        streams = [node] if found[2].endswith("Datastreams") else _objects(node.get("Datastreams"))
        for stream in streams:
            unit, name = _unit(stream), _id(stream)
            if unit and name:
                topic = f"{base}Datastreams({name})/Observations"
                if not any(sign in topic for sign in "+#"):
                    yield Lesson(key=f"{base}Datastreams({name})", value=unit, topics=(topic,))


FORMATS: tuple[Format, ...] = (
    Format(
        name=NAME,
        read=read,
        topics=("#/v1.0/#", "#/v1.1/#", "#/v2.0/#", "#/Observations"),
        keys=(
            frozenset({"@iot.id"}),
            frozenset({"@iot.selfLink"}),
            frozenset({"result", "phenomenonTime"}),
            frozenset({"components", "dataArray"}),
        ),
        teach=teach,
    ),
)


def _elements(document: Json) -> list[Object]:
    """The entities: one, an array, or the collection that a server answers with."""
    if isinstance(document, dict) and isinstance(document.get("value"), list) and "result" not in document:
        document = document["value"]
    return [document] if isinstance(document, dict) else _objects(document)


def _objects(node: Json) -> list[Object]:
    return [item for item in node if isinstance(item, dict)] if isinstance(node, list) else []


def _is_marked(node: Object) -> bool:
    return (
        "@iot.id" in node
        or "@iot.selfLink" in node
        or ("result" in node and "phenomenonTime" in node)
        or "dataArray" in node
    )


def _entity(draft: Draft, node: Object, stream: _Stream) -> Iterator[Event]:
    if "result" in node:
        yield _observation(draft, node, _stream_of(node, stream))
    elif isinstance(node.get("dataArray"), list):
        yield from _data_array(draft, node, _stream_of(node, stream))
    elif any(key in node for key in (*_STREAMS, "Locations")):
        yield from _thing(draft, node)
    elif "Observations" in node or "unitOfMeasurement" in node or "observationType" in node:
        yield from _datastream(draft, node, _name(node.get("Thing")) or _name_of_stream(node))
    else:
        yield from _described(draft, node)


def _observation(draft: Draft, node: Object, stream: _Stream) -> Event:
    result = node["result"]
    if isinstance(result, (dict, list)):
        draft.put(stream.reading, result)
    else:
        draft.put_value(stream.reading, result, stream.unit, source=stream.source)
    for key, inner in node.items():
        if key == "result" or key in _OF_OBSERVATION or key in _LINKED or "@iot." in key or key in ("id", "@id"):
            continue
        draft.put(key, inner)
    stamp = _instant(draft, node)
    return draft.event(stream.device, "measurement", stamp=stamp, source_id=_source_id(node, stream))


def _instant(draft: Draft, node: Object) -> Json:
    """When the phenomenon was; of an interval the end, when its result was complete. The interval is a reading."""
    phenomenon = node.get("phenomenonTime")
    if isinstance(phenomenon, str) and "/" in phenomenon:
        draft.put("phenomenonTime", phenomenon)
        phenomenon = phenomenon.partition("/")[2]
    return phenomenon if draft.believed(phenomenon) is not None else node.get("resultTime")


def _source_id(node: Object, stream: _Stream) -> str | None:
    name = _id(node)
    return f"{stream.device}/Observations({name})" if name else None


def _data_array(draft: Draft, node: Object, stream: _Stream) -> Iterator[Event]:
    components, rows = node.get("components"), node["dataArray"]
    if not isinstance(components, list) or not isinstance(rows, list) or "result" not in components:
        raise Unreadable("a dataArray without components that name the result")
    names = [str(name) for name in components]
    draft.count(len(rows))
    for row in rows:
        if not isinstance(row, list) or len(row) != len(names):
            raise Unreadable(f"a row of the dataArray has not the {len(names)} components")
        yield _observation(draft, dict(zip(names, row, strict=True)), stream)


def _thing(draft: Draft, node: Object) -> Iterator[Event]:
    device = _name(node) or f"Things({_id(node) or ''})"
    streams = [stream for key in _STREAMS for stream in _objects(node.get(key))]
    draft.count(len(streams))
    observed = [stream for stream in streams if _objects(stream.get("Observations"))]
    for stream in observed:
        yield from _datastream(draft, stream, device)
    places = [_point(location.get("location")) for location in _objects(node.get("Locations"))]
    if place := next((place for place in places if place), None):
        _put_words(draft, node, "")
        _put_point(draft, place)
        yield draft.event(device, "location")
    if not observed and not place:
        _put_words(draft, node, "")
        for stream in streams:
            _put_words(draft, stream, f"{_name_of_stream(stream)}.")
        yield draft.event(device, "discovery")


def _datastream(draft: Draft, node: Object, device: str) -> Iterator[Event]:
    stream = _Stream(device, _name_of_stream(node), _unit(node))
    observations = _objects(node.get("Observations"))
    draft.count(len(observations))
    for observation in observations:
        if "result" in observation:
            yield _observation(draft, observation, stream)
    if not observations:
        _put_words(draft, node, "")
        yield draft.event(device, "discovery")


def _described(draft: Draft, node: Object) -> Iterator[Event]:
    """A Location, a Thing, a Sensor and so on: what it is, and where."""
    place = _point(node.get("location")) or _point(node.get("feature"))
    kind: Kind = "discovery"
    if place:
        _put_point(draft, place)
        kind = "location"
    _put_words(draft, node, "")
    things = _objects(node.get("Things")) or _objects([node.get("Thing")])
    device = next((name for name in map(_name, things) if name), None) or _name(node) or _id(node)
    if device and draft.readings:
        yield draft.event(device, kind, stamp=node.get("time"))


def _put_words(draft: Draft, node: Object, before: str) -> None:
    for key, inner in node.items():
        if key == "properties" and isinstance(inner, dict):
            draft.put(f"{before}{key}", inner)
        elif key == "unitOfMeasurement" and isinstance(inner, dict):
            draft.put(f"{before}{key}", inner.get("symbol"))
        elif "@iot." not in key and key not in ("id", "@id") and not isinstance(inner, (dict, list)):
            draft.put(f"{before}{key}", inner)


def _point(node: Json) -> list[float] | None:
    """Longitude, latitude and perhaps altitude of a GeoJSON point, bare or as the geometry of a feature."""
    if isinstance(node, dict) and isinstance(node.get("geometry"), dict):
        node = node["geometry"]
    if not isinstance(node, dict) or node.get("type") != "Point":
        return None
    coordinates = node.get("coordinates")
    numbers = [item for item in coordinates if type(item) in (int, float)] if isinstance(coordinates, list) else []
    return numbers[:3] if len(numbers) >= 2 else None  # type: ignore[return-value]


def _put_point(draft: Draft, place: Iterable[float]) -> None:
    for name, value in zip(("longitude", "latitude", "altitude"), place, strict=False):
        draft.put(name, value)
    draft.put_units(dict.fromkeys(values.position(draft.readings) or (), "deg") | {"altitude": "m"})


def _stream_of_topic(topic: str, body: Body) -> _Stream:
    found = _STREAM.fullmatch(topic)
    if found is None:
        return _Stream("Observations")
    base = f"{found[1]}/" if found[1] else ""
    unit = body.learned.get(NAME, base + found[2])
    return _Stream(found[2], unit=unit if isinstance(unit, str) else None, source="learned")


def _stream_of(node: Object, stream: _Stream) -> _Stream:
    """The datastream that an observation brings with it: expanded, or by its id."""
    for key in ("Datastream", "MultiDatastream"):
        own = node.get(key)
        if isinstance(own, dict):
            known = _name(own) or "unitOfMeasurement" in own
            device = _name(own.get("Thing")) or (f"{key}s({_id(own)})" if _id(own) else _name(own)) or stream.device
            return _Stream(device, _name_of_stream(own) if known else "result", _unit(own))
    return stream


def _name_of_stream(node: Object) -> str:
    description = node.get("description")
    described = description if isinstance(description, str) and len(description) <= 100 else None
    return _name(node) or described or (f"Datastreams({_id(node)})" if _id(node) else "result")


def _name(node: Json) -> str | None:
    name = node.get("name") if isinstance(node, dict) else None
    return name.strip() or None if isinstance(name, str) else None


def _id(node: Object) -> str | None:
    name = node.get("@iot.id", node.get("id", node.get("@id")))
    return str(name)[:100] if type(name) is int or (isinstance(name, str) and name) else None


def _unit(node: Object) -> str | None:
    """The unit of a datastream: by its UCUM definition, else by symbol or name."""
    unit = node.get("unitOfMeasurement")
    if not isinstance(unit, dict):
        return None
    definition, symbol, name = (unit.get(key) for key in ("definition", "symbol", "name"))
    if isinstance(definition, str) and definition.startswith("ucum:") and units.code(definition[5:]):
        return definition[5:]
    words = (symbol, name, name.lower() if isinstance(name, str) else None)
    return next((word for word in words if isinstance(word, str) and units.code(word)), None)
