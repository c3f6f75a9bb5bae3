"""OPC UA PubSub in JSON, and the samples of OPC Publisher.

https://reference.opcfoundation.org/Core/Part14/v105/docs/7.2.5, https://github.com/Azure/Industrial-IoT
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from gateway.formats.body import Body, Json
from gateway.formats.draft import Draft
from gateway.formats.format import Format, Lesson, Unreadable, named
from storage.event import Event, Kind, Message, Quality

NAME = "opcua_pubsub_json"

CONTENT_TYPES = ("application/x-network-message-json-v1", "application/x-monitored-item-json-v1")
_DATA = frozenset({"ua-data", "ua-keyframe", "ua-deltaframe", "ua-event", "ua-condition", "ua-keepalive"})
_EVENTS = frozenset({"ua-event", "ua-condition"})
_KINDS: dict[str, Kind] = {
    "ua-metadata": "discovery",
    "ua-application": "discovery",
    "ua-endpoints": "discovery",
    "ua-connection": "discovery",
    "ua-action-metadata": "discovery",
    "ua-status": "availability",
    "ua-action-request": "command",
    "ua-action-response": "event",
}
_HEADER = frozenset({"MessageId", "MessageType", "PublisherId", "Timestamp", "DataSetWriterId", "DataSetWriterName"})
_ENVELOPE = frozenset({"body", "enqueuedTime", "properties", "systemProperties"})
_STAMPS = ("SourceTimestamp", "ServerTimestamp")
_PICOSECONDS = ("SourcePicoseconds", "SourcePicoSeconds", "ServerPicoseconds", "ServerPicoSeconds")
_DATA_VALUE = frozenset({"Value", "UaType", "Dimensions", "Status", "StatusCode", *_STAMPS, *_PICOSECONDS})
_NODE = re.compile(r"(?:.*[;#])?[sgb]=(.+)", re.DOTALL)
_INT64 = (8, 9, "Int64", "UInt64")
_REALS = (10, 11, "Float", "Double")

Object = dict[str, Json]


def read(message: Message, body: Body) -> Sequence[Event] | None:
    """An event for each time at which fields of a data set had their values, or of each monitored item."""
    document = _opened(body.document)
    items = document if isinstance(document, list) else [document]
    objects = [item for item in items if isinstance(item, dict)]
    if not objects or len(objects) < len(items) or not all(map(_is_ours, objects)):
        if body.json_fault and message.properties and message.properties.content_type in CONTENT_TYPES:
            raise Unreadable(body.json_fault)
        return None
    draft = Draft(NAME, message, body)
    return [event for item in objects for event in _any(draft, body, item)]


def teach(message: Message, body: Body) -> Iterator[Lesson]:
    """Of metadata: the types and units of a data set's fields."""
    document = _opened(body.document)
    for item in document if isinstance(document, list) else [document]:
        if (
            isinstance(item, dict)
            and item.get("MessageType") == "ua-metadata"
            and isinstance(item.get("MetaData"), dict)
        ):
            topic = message.topic
            again = (topic.replace("/metadata/", "/data/"), topic.replace("/metadata/", "/data/").rpartition("/")[0])
            topics = again if "/metadata/" in topic else ()
            yield Lesson(key=_writer(item, item), value=_described(item["MetaData"]), topics=topics)


def _opened(document: Json) -> Json:
    """What Azure IoT Hub passes on stands in an envelope of its own."""
    enveloped = isinstance(document, dict) and "body" in document and document.keys() <= _ENVELOPE
    return document["body"] if enveloped and isinstance(document, dict) else document


def _is_ours(item: Object) -> bool:
    return _is_network_message(item) or _is_data_set(item) or _is_sample(item)


def _is_network_message(item: Object) -> bool:
    kind = item.get("MessageType")
    messages = item.get("Messages")
    if isinstance(messages, (list, dict)):
        return kind == "ua-data" and all(isinstance(inner, dict) for inner in _listed(messages))
    return isinstance(kind, str) and kind in _KINDS and ("MessageId" in item or "PublisherId" in item)


def _is_data_set(item: Object) -> bool:
    written = "DataSetWriterId" in item or "DataSetWriterName" in item
    return written and (isinstance(item.get("Payload"), dict) or item.get("MessageType") == "ua-keepalive")


def _is_sample(item: Object) -> bool:
    """A monitored item, in the mode that came before PubSub."""
    return bool(_server(item)) and isinstance(item.get("NodeId"), str) and "Value" in item


def _server(item: Object) -> str:
    return _text(item.get("ApplicationUri")).strip() or _text(item.get("EndpointUrl")).strip()


def _listed(messages: Json) -> list[Json]:
    return messages if isinstance(messages, list) else [messages]


def _any(draft: Draft, body: Body, item: Object) -> Iterator[Event]:
    if "Messages" in item:
        for inner in _listed(item["Messages"]):
            if isinstance(inner, dict):
                yield from _data_set(draft, body, inner, item)
    elif _is_sample(item):
        yield _sample(draft, item)
    elif str(item.get("MessageType", "ua-data")) in _DATA:
        yield from _data_set(draft, body, item, item)
    else:
        yield _description(draft, body, item)


# Data sets


class Field(NamedTuple):
    """A field of a data set as far as it says anything; the rest is in the message's header, or was told before."""

    value: Json
    quality: Quality | None
    stamp: Json


def _data_set(draft: Draft, body: Body, item: Object, network: Object) -> Iterator[Event]:
    sort = str(item.get("MessageType", "ua-data"))
    payload = item.get("Payload")
    fields = payload if isinstance(payload, dict) else {}
    learned = body.learned.get(NAME, _writer(item, network))
    told = learned if isinstance(learned, dict) else {}
    quality = _quality(item.get("Status"))
    stamp = item.get("Timestamp", network.get("Timestamp"))
    device = _publisher(item, network) or named(body.place.device, body)
    seq = item.get("SequenceNumber")
    number = seq if type(seq) is int else None
    if sort in _EVENTS:
        for name, node in fields.items():
            _put(draft, name, _unwrapped(node), told, quality)
        stamp = stamp if stamp is not None else _plain(fields.get("Time"))
        yield draft.event(device, "event", stamp=stamp, seq=number, vendor_type=sort)
        return
    for moment, group in _by_time(fields, stamp).items():
        for name, field in group:
            _put(draft, name, field.value, told, field.quality or quality)
        kind: Kind | None = "other" if sort == "ua-keepalive" else "measurement"
        yield draft.event(device, kind, stamp=moment, seq=number, vendor_type=sort)


def _by_time(fields: Object, stamp: Json) -> dict[str | int | float | None, list[tuple[str, Field]]]:
    sent = stamp if isinstance(stamp, (str, int, float)) else None
    moments: dict[str | int | float | None, list[tuple[str, Field]]] = {}
    for name, node in fields.items():
        field = _field(node)
        moment = field.stamp if isinstance(field.stamp, str) else sent
        moments.setdefault(moment, []).append((name, field))
    return moments or {sent: []}


def _field(node: Json) -> Field:
    """A bare value, a variant with its type, or a value with its status and times."""
    if not isinstance(node, dict) or not node or not node.keys() <= _DATA_VALUE:
        return Field(_unwrapped(node), None, None)
    stamp = next((node[key] for key in _STAMPS if node.get(key)), None)
    typed: Json = {"UaType": node["UaType"], "Value": node.get("Value")} if "UaType" in node else node.get("Value")
    return Field(_unwrapped(typed), _quality(node.get("Status", node.get("StatusCode"))), stamp)


def _put(draft: Draft, name: str, value: Json, told: Object, quality: Quality | None) -> None:
    """What has a bad status has no value that may be used."""
    types, units = told.get("types"), told.get("units")
    if isinstance(types, dict) and name in types:
        value = _of_type(types[name], value)
    if quality == "bad":
        draft.put_missing(name, "bad")
        return
    draft.put(name, value)
    if isinstance(units, dict) and isinstance(unit := units.get(name), str) and not isinstance(value, (dict, list)):
        draft.put_value(name, value, unit, source="learned")
    if quality is not None:
        draft.quality[name] = quality


def _sample(draft: Draft, item: Object) -> Event:
    value = _notified(item["Value"])
    extension = item.get("ExtensionFields")
    publisher = extension.get("PublisherId") if isinstance(extension, dict) else None
    seq = item.get("SequenceNumber")
    kind: Kind | None = None
    stamp = item.get("Timestamp")
    if isinstance(value, dict) and not value.keys() <= _DATA_VALUE:
        kind, stamp = "event", _plain(value.get("Time")) or stamp
        for name, node in value.items():
            _put(draft, name, _unwrapped(node), {}, None)
    else:
        field = _field(value)
        quality = field.quality or _quality(item.get("Status", item.get("StatusCode")))
        _put(draft, _node_name(item), field.value, {}, quality)
        kind, stamp = "measurement", field.stamp or stamp
    number = seq if type(seq) is int else None
    return draft.event(_server(item), kind, stamp=stamp, seq=number, via=_text(publisher) or None)


def _notified(value: Json) -> Json:
    """An event's fields, which the reversible encoding has as the body of a structure."""
    inner = _unwrapped(value)
    wrapped = isinstance(value, dict) and "Body" in value and isinstance(inner, dict)
    return inner if wrapped else value


def _node_name(item: Object) -> str:
    """The display name, else what identifies the node within its namespace."""
    node = _text(item["NodeId"])
    found = _NODE.fullmatch(node)
    return _text(item.get("DisplayName")) or (found[1] if found else node)


def _description(draft: Draft, body: Body, item: Object) -> Event:
    """Of metadata the names of the fields: the rest is learned, and in the message."""
    sort = str(item["MessageType"])
    metadata = item.get("MetaData")
    if sort == "ua-metadata" and isinstance(metadata, dict):
        draft.put("DataSetWriterName", item.get("DataSetWriterName", metadata.get("Name")))
        draft.put("Fields", [name for name, _ in _fields(metadata)])
    else:
        for name, node in item.items():
            if name not in _HEADER:
                draft.put(name, _unwrapped(node))
    device = _publisher(item, item) or named(body.place.device, body)
    return draft.event(device, _KINDS[sort], stamp=item.get("Timestamp"), vendor_type=sort)


def _publisher(*headers: Object) -> str:
    for key in ("PublisherId", "WriterGroupName", "DataSetWriterGroup", "DataSetWriterName"):
        for header in headers:
            if word := _text(header.get(key)):
                return word
    return ""


def _writer(item: Object, network: Object) -> str:
    """By what the data of a data set is known: its writer, among those of the publisher."""
    return f"{_publisher(item, network)}/{_text(item.get('DataSetWriterId', item.get('DataSetWriterName')))}"


# Metadata


def _described(metadata: Json) -> Json:
    types: Object = {}
    units: Object = {}
    for name, field in _fields(metadata):
        if field.get("BuiltInType") in _INT64:
            types[name] = field["BuiltInType"]
        if unit := _engineering_unit(field.get("Properties")):
            units[name] = unit
    return {"types": types, "units": units}


def _fields(metadata: Json) -> Iterator[tuple[str, Object]]:
    fields = metadata.get("Fields") if isinstance(metadata, dict) else None
    for field in fields if isinstance(fields, list) else ():
        if isinstance(field, dict) and (name := _text(field.get("Name"))):
            yield name, field


def _engineering_unit(properties: Json) -> str | None:
    """The display name of the property `EngineeringUnits` (Part 8, section 5.6.3)."""
    for pair in properties if isinstance(properties, list) else ():
        if not isinstance(pair, dict):
            continue
        key = pair.get("Key")
        if (key.get("Name") if isinstance(key, dict) else str(key).rpartition(":")[2]) == "EngineeringUnits":
            information = _unwrapped(pair.get("Value"))
            name = _unwrapped(information.get("DisplayName")) if isinstance(information, dict) else None
            return name if isinstance(name, str) else None
    return None


# Values (Part 6, section 5.4)


def _unwrapped(node: Json, depth: int = 0) -> Json:
    """The value alone: without its type, the locale of a text, or the encoding of a structure."""
    if not isinstance(node, dict) or depth > 8:
        return node
    keys = node.keys()
    if keys in ({"Type", "Body"}, {"Type", "Body", "Dimensions"}):
        return _of_type(node["Type"], _unwrapped(node["Body"], depth + 1))
    if "UaType" in keys and keys <= {"UaType", "Value", "Dimensions"}:
        return _of_type(node["UaType"], _unwrapped(node.get("Value"), depth + 1))
    if "Body" in keys and keys <= {"TypeId", "Encoding", "Body"}:
        return _unwrapped(node["Body"], depth + 1)
    if "Text" in keys and keys <= {"Text", "Locale"}:
        return node["Text"]
    return node


def _of_type(kind: Json, value: Json) -> Json:
    """Integers of 64 bits are texts in JSON, and so are NaN and Infinity."""
    if not isinstance(value, str):
        return value
    if kind in _INT64 and len(value) <= 20 and value.removeprefix("-").isdecimal():
        return int(value)
    return None if kind in _REALS and value in ("NaN", "Infinity", "-Infinity") else value


def _plain(node: Json) -> Json:
    value = _unwrapped(node)
    return None if isinstance(value, (dict, list)) else value


def _quality(status: Json) -> Quality | None:
    """The severity is in the two highest bits of a status code, and in the beginning of its name."""
    if isinstance(status, dict):
        status = status.get("Code", status.get("Symbol"))
    if type(status) is int:
        severity = status >> 30 & 3
        return None if severity == 0 else "uncertain" if severity == 1 else "bad"
    if isinstance(status, str):
        return "bad" if status.startswith("Bad") else "uncertain" if status.startswith("Uncertain") else None
    return None


def _text(node: Json) -> str:
    """A name, or a number that is one."""
    return node if isinstance(node, str) else str(node) if type(node) is int and abs(node) < 2**64 else ""


FORMATS: tuple[Format, ...] = (
    Format(
        name=NAME,
        read=read,
        teach=teach,
        content_types=CONTENT_TYPES,
        keys=(
            frozenset({"MessageId", "MessageType"}),
            frozenset({"MessageType", "Messages"}),
            frozenset({"MessageType", "PublisherId"}),
            frozenset({"DataSetWriterId", "Payload"}),
            frozenset({"DataSetWriterName", "Payload"}),
            frozenset({"DataSetWriterId", "MessageType"}),
            frozenset({"NodeId", "EndpointUrl", "Value"}),
            frozenset({"NodeId", "ApplicationUri", "Value"}),
            frozenset({"body", "properties"}),
        ),
    ),
)
