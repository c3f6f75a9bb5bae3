"""NGSI-v2 (https://fiware-orion.readthedocs.io) and NGSI-LD (ETSI GS CIM 009): entities and notifications of them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TypeGuard

from gateway.formats import units, values
from gateway.formats.body import Body, Json
from gateway.formats.draft import Draft
from gateway.formats.format import Format
from storage.event import Event, Location, Message, Value

V2, LD = "ngsi_v2", "ngsi_ld"

Object = dict[str, Json]

# UN/CEFACT Recommendation 20, annex III: https://unece.org/trade/documents/2021/06/uncefact-rec20-0
_COMMON_CODES = """
CEL Cel FAH [degF] KEL K P1 % C62 1 DD deg C81 rad
MMT mm CMT cm MTR m KMT km KTM km 4H um C45 nm INH [in_i] FOT [ft_i] SMI [mi_i]
MTS m/s KMH km/h HM [mi_i]/h KNT [kn_i] MSK m/s2 H67 mm/h
MTK m2 MTQ m3 LTR L MLT mL GLL [gal_us] MQH m3/h L2 L/min E32 L/h
SEC s C26 ms B98 us C47 ns MIN min HUR h DAY d
MGM mg GRM g KGM kg TNE t LBR [lb_av] ONZ [oz_av]
PAL Pa A97 hPa KPA kPa MPA MPa MBR mbar BAR bar PS [psi] HN mm[Hg] F79 [in_i'Hg]
VLT V 2Z mV KVT kV AMP A 4K mA B84 uA OHM Ohm B49 kOhm B75 MOhm AMH A.h E09 mA.h
WTT W KWT kW MAW MW A90 GW C31 mW D46 V.A KVA kV.A WHR W.h KWH kW.h MWH MW.h JOU J KJO kJ 3B MJ
HTZ Hz KHZ kHz MHZ MHz A86 GHz RPM /min 2N dB DBM dBm D33 T C29 mT
LUX lx LUM lm CDL cd D54 W/m2 GQ ug/m3 GP mg/m3 59 [ppm] 61 [ppb] Q30 [pH]
G42 uS/cm H61 mS/cm D10 S/m NEW N NU N.m
A99 bit AD By 2P kBy 4L MBy E34 GBy C36 kbit/s E20 Mbit/s
"""
_FIELDS = _COMMON_CODES.split()
_CODES = dict(zip(_FIELDS[::2], _FIELDS[1::2], strict=True))

# What stands in the place of `value`, by the type of an attribute.
_HOLDERS = {
    "Property": "value",
    "GeoProperty": "value",
    "Relationship": "object",
    "LanguageProperty": "languageMap",
    "VocabProperty": "vocab",
    "VocabularyProperty": "vocab",
    "JsonProperty": "json",
    "ListProperty": "valueList",
    "ListRelationship": "objectList",
}
_VALUES = tuple(dict.fromkeys(_HOLDERS.values()))
_NULL = "urn:ngsi-ld:null"
# Attributes that tell when the entity was as it is: of the IoT agents, and of the Smart Data Models.
_TIMES = ("TimeInstant", "dateObserved", "observedAt", "dateObservedTo", "dateIssued")
_UNITS = frozenset({"unitCode", "unit", "units", "unitOfMeasurement"})
_NOT_ATTRIBUTES = frozenset({"id", "type", "@context", "@id", "@type", "scope"})
# What the Smart Data Models have in many a type: https://smartdatamodels.org
_OF_MODELS = frozenset(
    {"dateObserved", "dateIssued", "dateCreated", "dateModified", "dataProvider", "areaServed", "seeAlso"}
)
_OF_OTHERS = frozenset({"time", "timestamp", "ts", "seq", "values", "unit", "units", "readings"})
_TYPE = re.compile(r"(?:[A-Z][a-z0-9]+)+(?:[A-Z]+)?")
_REFERENCE = re.compile(r"ref[A-Z]\w*")


def read_v2(message: Message, body: Body) -> Sequence[Event] | None:
    return _read(V2, message, body)


def read_ld(message: Message, body: Body) -> Sequence[Event] | None:
    return _read(LD, message, body)


def _filters() -> tuple[frozenset[str], ...]:
    return (
        frozenset({"subscriptionId", "data"}),
        frozenset({"id", "type"}),
        frozenset({"entities", "actionType"}),
        frozenset({"metadata", "body"}),
    )


FORMATS: tuple[Format, ...] = (
    Format(name=V2, read=read_v2, keys=_filters()),
    Format(name=LD, read=read_ld, content_types=("application/ld+json",), keys=_filters()),
)


def _read(name: str, message: Message, body: Body) -> Sequence[Event] | None:
    """One event of each entity and each time its attributes were observed at."""
    entities, notified = _entities(body.document)
    if not entities or not all(_is_entity(entity, notified=notified) for entity in entities):
        return None
    if name != (LD if any(map(_is_linked, entities)) else V2):
        return None
    draft = Draft(name, message, body)
    draft.count(len(entities))
    return [event for entity in entities for event in _events(draft, entity)]


def _entities(document: Json) -> tuple[list[Object], bool]:
    """The entities of a payload, and whether an envelope says that they are."""
    if isinstance(document, dict):
        if isinstance(inner := document.get("body"), dict) and "metadata" in document:  # NGSI-LD over MQTT
            document = inner
        if isinstance(document.get("data"), list) and "subscriptionId" in document:
            return _objects(document["data"]), True
        if isinstance(document.get("entities"), list) and "actionType" in document:
            return _objects(document["entities"]), True
        return [document], False
    return _objects(document), False


def _objects(node: Json) -> list[Object]:
    """The elements of an array of objects, nothing of anything else."""
    objects = [item for item in node if isinstance(item, dict)] if isinstance(node, list) else []
    return objects if isinstance(node, list) and len(objects) == len(node) else []


def _is_entity(entity: Object, *, notified: bool) -> bool:
    """Plain JSON may have an id and a type: an attribute, a context, a URN or a data model makes an entity."""
    name = entity.get("id")
    if not isinstance(name, str) or not name.strip():
        return False
    if notified:
        return True
    if not isinstance(entity.get("type"), (str, list)):
        return False
    marked = name.startswith("urn:ngsi-ld:") or "@context" in entity
    return marked or any(map(_is_attribute, entity.values())) or _is_of_model(entity, name)


def _is_of_model(entity: Object, name: str) -> bool:
    """Whether an entity without metadata (`keyValues`) is told by its type and by what data models have."""
    sort = entity["type"]
    if not isinstance(sort, str) or not _TYPE.fullmatch(sort) or not _OF_OTHERS.isdisjoint(entity):
        return False
    place = entity.get("location")
    placed = isinstance(place, dict) and "coordinates" in place
    modelled = placed or not _OF_MODELS.isdisjoint(entity) or any(map(_REFERENCE.fullmatch, entity))
    return modelled or ("value" not in entity and sort.lower() in name.lower())


def _is_attribute(node: Json) -> bool:
    return isinstance(node, dict) and isinstance(node.get("type"), str) and any(key in node for key in _VALUES)


def _is_linked(entity: Object) -> bool:
    """Whether the entity is NGSI-LD: metadata and types of one's own are NGSI-v2."""
    if "@context" in entity:
        return True
    attributes = [node for node in entity.values() if isinstance(node, dict) and any(key in node for key in _VALUES)]
    if any("metadata" in node for node in attributes):
        return False
    typed = [node["type"] for node in attributes if isinstance(node.get("type"), str)]
    if typed:
        return any(word in _HOLDERS for word in typed)
    return str(entity.get("id")).startswith("urn:ngsi-ld:")


def _events(draft: Draft, entity: Object) -> Iterator[Event]:
    own = _time_of_entity(draft, entity)
    by_time: dict[int, list[tuple[str, Json]]] = {}
    timeless: list[tuple[str, Json]] = []
    for name, node in entity.items():
        if name in _NOT_ATTRIBUTES or name == own[0]:
            continue
        given = _time_of_attribute(node)
        stamp = None if given is None else draft.believed(given)
        if stamp is None or (own[1] is not None and stamp == own[1]):
            timeless.append((name, node))
        else:
            by_time.setdefault(stamp, []).append((name, node))
    if own[1] is None and by_time:  # what bears no time was true when the rest was observed
        by_time[next(iter(by_time))].extend(timeless)
    elif timeless or not by_time:
        yield _event(draft, entity, timeless, own[1])
    for stamp, attributes in by_time.items():
        yield _event(draft, entity, attributes, stamp)


def _time_of_entity(draft: Draft, entity: Object) -> tuple[str, int | None]:
    for name in _TIMES:
        if name in entity:
            stamp = draft.believed(_end(_content(entity[name])))
            if stamp is not None:
                return name, stamp
    return "", None


def _time_of_attribute(node: Json) -> Json:
    if not isinstance(node, dict):
        return None
    stamp = node.get("observedAt")
    metadata = node.get("metadata")
    if stamp is None and isinstance(metadata, dict):
        stamp = metadata.get("TimeInstant", metadata.get("observedAt"))
    return None if stamp is None else _end(_content(stamp))


def _end(stamp: Json) -> Json:
    """Of an interval the end, when the observation was complete."""
    return stamp.rpartition("/")[2] if isinstance(stamp, str) else stamp


def _event(draft: Draft, entity: Object, attributes: list[tuple[str, Json]], stamp: int | None) -> Event:
    places = [place for name, node in attributes if (place := _put(draft, name, node)) is not None]
    types = [type(value) for value in draft.readings.values()]
    kind = values.kind_of_types(types)
    for name, _ in places:
        draft.put_units({f"{name}.latitude": "deg", f"{name}.longitude": "deg", f"{name}.altitude": "m"})
    of_places = sum(2 if place.altitude_m is None else 3 for _, place in places)
    if places and types.count(int) + types.count(float) == of_places:
        kind = "location"
    sort = entity.get("type")
    if sort == "Alert":
        kind = "event"
    return draft.event(
        str(entity["id"]),
        kind,
        stamp=stamp,
        via=_device_of(entity),
        vendor_type=sort if isinstance(sort, str) else None,
        location=places[0][1] if places else None,
        placed=False,
    )


def _device_of(entity: Object) -> str | None:
    """The device that observed: an entity of its own, to which this one has a relationship."""
    device = _content(entity.get("refDevice"))
    return device if isinstance(device, str) else None


def _put(draft: Draft, name: str, node: Json) -> tuple[str, Location] | None:
    """Add an attribute; gives the name of a position, and where that is."""
    content = _content(node)
    if not isinstance(content, (dict, list)) and not (isinstance(node, dict) and node.get("type") == "geo:point"):
        draft.put_value(name, None if content == _NULL else content, _unit(node))
        return None
    if (place := _place(content)) is not None:
        draft.put(f"{name}.longitude", place.longitude)
        draft.put(f"{name}.latitude", place.latitude)
        if place.altitude_m is not None:
            draft.put(f"{name}.altitude", place.altitude_m)
        return name, place
    if isinstance(content, dict) and isinstance(content.get("coordinates"), list):
        draft.put(f"{name}.type", content.get("type"))  # a shape, which is no value
    elif isinstance(content, list) and content and all(map(_is_attribute, content)):  # one for each datasetId
        for at, item in enumerate(content):
            draft.put_value(f"{name}.{at}", _plain(_content(item)), _unit(item))
    else:
        draft.put(name, content)
    return None


def _plain(content: Json) -> Value:
    return None if isinstance(content, (dict, list)) or content == _NULL else content


def _content(node: Json) -> Json:
    """The value of an attribute in any of the representations; a typed literal is what it holds."""
    if isinstance(node, dict):
        sort = node.get("type")
        holder = _HOLDERS.get(sort, "value") if isinstance(sort, str) else "value"
        if holder in node:
            node = node[holder]
        elif other := next((key for key in _VALUES if key in node), None):
            node = node[other]
        if isinstance(node, dict) and "@value" in node:
            return node["@value"]
    return node


def _place(content: Json) -> Location | None:
    """A GeoJSON point, longitude first; or NGSI-v2's `geo:point`, which is a text and the other way round."""
    if isinstance(content, dict) and content.get("type") == "Point":
        coordinates = content.get("coordinates")
        numbers = [float(item) for item in coordinates if _is_number(item)] if isinstance(coordinates, list) else []
        return _on_globe(numbers[1], numbers[0], *numbers[2:]) if 2 <= len(numbers) <= 3 else None
    if isinstance(content, str) and len(content) <= 80:
        try:
            latitude, longitude = (float(part) for part in content.split(","))
        except ValueError:
            return None
        return _on_globe(latitude, longitude)
    return None


def _on_globe(latitude: float, longitude: float, altitude: float | None = None) -> Location | None:
    on_it = -90 <= latitude <= 90 and -180 <= longitude <= 180
    return Location(latitude, longitude, altitude) if on_it else None


def _is_number(value: Json) -> TypeGuard[float]:
    return type(value) is float or (type(value) is int and abs(value) < 10**9)


def _unit(node: Json) -> str | None:
    if not isinstance(node, dict):
        return None
    for holder in (node, node.get("metadata")):
        if isinstance(holder, dict) and not _UNITS.isdisjoint(holder):
            for key in _UNITS & holder.keys():
                unit = _content(holder[key])
                if isinstance(unit, str) and (code := _CODES.get(unit) or units.code(unit)):
                    return code
    return None
