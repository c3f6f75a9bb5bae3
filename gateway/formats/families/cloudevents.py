"""CloudEvents over MQTT, structured, batched and binary.

https://github.com/cloudevents/spec/blob/main/cloudevents/bindings/mqtt-protocol-binding.md
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from gateway.formats import texts
from gateway.formats.body import Body, Json
from gateway.formats.draft import Draft
from gateway.formats.format import Format, Unreadable
from storage.event import Detail, Event, Message, Properties

NAME = "cloudevents"

_EVENT = "application/cloudevents+json"
_BATCH = "application/cloudevents-batch+json"
_REQUIRED = ("id", "source", "type", "specversion")
_VERSIONS = ("0.2", "0.3", "1.")
# The binding leaves names as they are; HTTP and Kafka have prefixes, which bridges carry along.
_PREFIXES = ("", "ce_", "ce-")
_GENERIC = frozenset({"json", "plain"})
# They know how data is written, not who wrote it: that is for the envelope to say.
_ENCODINGS = frozenset({"xml", "csv", "cbor", "msgpack", "binary_hex"})

Attributes = Mapping[str, Json]


def read(message: Message, body: Body) -> Sequence[Event] | None:
    """The event, those of the batch, or the one that the MQTT 5 properties describe."""
    promised = _promised(message.properties)
    if not promised and (attributes := _from_properties(message.properties)):
        return list(_binary(message, body, attributes))
    document = body.document
    if document is None:
        if promised:
            raise Unreadable(body.json_fault or "a CloudEvent is said to be here, and this is not JSON")
        return None
    items = document if isinstance(document, list) else [document]
    events = [item for item in items if isinstance(item, dict) and _is_event(item)]
    if len(events) < len(items) or not (items or promised):
        if promised:
            raise Unreadable(f"a CloudEvent has {', '.join(_REQUIRED)}, and one here has not")
        return None
    draft = Draft(NAME, message, body)
    return [event for item in events for event in _structured(draft, body, item)]


def _promised(properties: Properties | None) -> bool:
    """Whether the content type says that the payload is CloudEvents."""
    content_type = properties.content_type if properties else None
    return (content_type or "").partition(";")[0].strip().lower() in (_EVENT, _BATCH)


def _is_event(attributes: Attributes) -> bool:
    if not all(isinstance(word := attributes.get(name), str) and word.strip() for name in _REQUIRED):
        return False
    return str(attributes["specversion"]).startswith(_VERSIONS)


def _from_properties(properties: Properties | None) -> Attributes | None:
    user = dict(properties.user) if properties else {}
    for prefix in _PREFIXES:
        if f"{prefix}specversion" in user:
            attributes = {name.removeprefix(prefix): value for name, value in user.items() if name.startswith(prefix)}
            return attributes if _is_event(attributes) else None
    return None


# Data


def _structured(draft: Draft, body: Body, event: dict[str, Json]) -> Iterator[Event]:
    """Data in JSON stands in it as it is, other text as a string, and bytes in Base64."""
    packed = event.get("data_base64")
    data = event.get("data")
    if event.get("datacontentencoding") == "base64" and isinstance(data, str):  # until version 0.3
        packed = data
    if isinstance(packed, str):
        unpacked = _unpacked(packed)
        inner = None if unpacked is None else _inside(draft, body, unpacked, event)
        yield from inner or [_event(draft, event, {"data": packed})]
        return
    if isinstance(data, (dict, list)) and data:
        inner = _inside(draft, body, _encoded(data), event)
    elif isinstance(data, str) and not _is_json(event.get("datacontenttype")):
        inner = _inside(draft, body, data.encode("utf-8", "surrogatepass"), event)
    else:
        inner = None
    if inner:
        yield from inner
    elif isinstance(data, dict):
        yield _event(draft, event, data)
    else:
        yield _event(draft, event, {"data": data} if "data" in event else {})


def _binary(message: Message, body: Body, event: Attributes) -> Iterator[Event]:
    """All of the payload is data."""
    draft = Draft(NAME, message, body)
    if message.payload and (inner := _inside(draft, body, message.payload, event)):
        yield from inner
        return
    if isinstance(body.document, dict):
        yield _event(draft, event, body.document)
    elif not message.payload:
        yield _event(draft, event, {})
    elif body.document is not None:
        yield _event(draft, event, {"data": body.document})
    elif body.json_fault:
        raise Unreadable(body.json_fault)
    else:
        yield _event(draft, event, {"data": _told(body)})


def _encoded(data: Json) -> bytes:
    try:
        return msgspec.json.encode(data)
    except (UnicodeEncodeError, OverflowError, msgspec.MsgspecError):  # lone surrogates, integers of many digits
        return json.dumps(data).encode()


def _told(body: Body) -> Json:
    """A scalar of JSON, a text, or bytes in Base64."""
    if body.text is None:
        return base64.b64encode(body.payload).decode()
    try:
        scalar: Json = msgspec.json.decode(body.text)
    except msgspec.MsgspecError:
        return body.text
    return scalar


def _unpacked(packed: str) -> bytes | None:
    try:
        return base64.b64decode(packed, validate=True)
    except (binascii.Error, ValueError):
        return None


def _is_json(content_type: Json) -> bool:
    if not isinstance(content_type, str):
        return True
    kind = content_type.partition(";")[0].strip().lower()
    return kind.endswith(("/json", "+json"))


# Events


def _inside(draft: Draft, body: Body, data: bytes, event: Attributes) -> list[Event] | None:
    """The events of data that is of a format of its own, with what the envelope says; None of any other data."""
    try:
        inner = body.read_inner(data)
    except Unreadable:
        if _is_json(event.get("datacontenttype")) and data[:1] in b"{[":
            raise
        return None
    if not inner or any(found.format in _GENERIC for found in inner):
        return None
    if len(_source(event)) > draft.options.name_chars:
        raise Unreadable(f"its source is longer than {draft.options.name_chars} characters (name_chars)")
    observed_at = draft.believed(event.get("time"))
    return [_wrapped(found, event, observed_at) for found in inner]


def _wrapped(inner: Event, event: Attributes, observed_at: int | None) -> Event:
    """What the inside says itself goes before what its envelope says."""
    detail = inner.detail or Detail()
    detail = msgspec.structs.replace(
        detail,
        via=detail.via or texts.shortened(str(event["source"])),
        vendor_type=detail.vendor_type or texts.shortened(str(event["type"])),
        source_id=texts.shortened(str(event["id"])),
    )
    inner = msgspec.structs.replace(inner, detail=detail)
    if inner.format in _ENCODINGS:
        inner = msgspec.structs.replace(inner, device=_source(event), detail=msgspec.structs.replace(detail, via=None))
    if inner.from_device or observed_at is None:
        return inner
    return msgspec.structs.replace(inner, observed_at=observed_at, from_device=True)


def _source(event: Attributes) -> str:
    return texts.storable(str(event["source"]).strip())


def _event(draft: Draft, event: Attributes, data: Mapping[str, Json]) -> Event:
    for name, node in data.items():
        draft.put(name, node)
    if (subject := event.get("subject")) and isinstance(subject, str):
        draft.put("subject", subject)
    return draft.event(
        _source(event),
        "event",
        stamp=event.get("time"),
        seq=_seq(event),
        vendor_type=str(event["type"]),
        source_id=str(event["id"]),
    )


def _seq(event: Attributes) -> int | None:
    """The extension `sequence`: a text, of an integer if `sequencetype` says so."""
    sequence = event.get("sequence")
    if isinstance(sequence, str) and event.get("sequencetype") == "Integer" and sequence.isdecimal():
        return int(sequence) if len(sequence) < 20 else None
    return sequence if type(sequence) is int else None


FORMATS: tuple[Format, ...] = (
    Format(
        name=NAME,
        read=read,
        content_types=(_EVENT, _BATCH),
        user_properties=tuple(f"{prefix}specversion" for prefix in _PREFIXES),
        keys=(frozenset(_REQUIRED),),
    ),
)
