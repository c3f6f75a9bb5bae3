"""Sparkplug B: what edge nodes and their devices publish, in protobuf, and the state of host applications.

https://sparkplug.eclipse.org/specification/version/3.0/documents/sparkplug-specification-3.0.0.pdf
"""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple, Protocol, cast

import msgspec

from gateway.formats import fields
from gateway.formats.body import Body, Json
from gateway.formats.draft import Draft
from gateway.formats.format import Format, Lesson, Unreadable
from gateway.formats.options import Options
from gateway.formats.protobuf import Field, classes, parsed, shortest, text
from storage.event import Event, Kind, Message, Quality, UnitSource, Value

NAME = "sparkplug_b"

NAMESPACE = "spBv1.0"
_KINDS: dict[str, Kind] = {"BIRTH": "birth", "DATA": "measurement", "DEATH": "death", "CMD": "command"}
_NODE_TYPES = frozenset(f"N{kind}" for kind in _KINDS)
_DEVICE_TYPES = frozenset(f"D{kind}" for kind in _KINDS)
_COMPRESSED = "SPBV1.0_COMPRESSED"
_PLACEHOLDER = "alias:"
"""The name of a metric whose birth was missed, before its alias; never that of another metric."""
# Nobody counts births by their parts: of one whose metrics were all acquired at times of their own, one event is made.
_MOST_MOMENTS = 1_000
_MOST_DEVICES = 1_000
"""Behind an edge node, as far as its death is theirs."""


def read(message: Message, body: Body) -> Sequence[Event] | None:
    """An event for each time at which metrics of the message were acquired."""
    station = _station(message.topic)
    if station is None:
        return _host(message, body)
    if message.payload.startswith(b"{"):  # JSON, from a gateway that has decoded it
        return None
    payload = _payload(station, message.payload, body.options)
    if payload is None:
        return None
    draft = Draft(NAME, message, body)
    if station.kind == "death":
        return [_death(draft, station, payload), *_deaths_behind(draft, station, body)]
    births = _births(station, body)
    moments = _moments(payload, births)
    if station.kind == "birth" and len(moments) > _MOST_MOMENTS:
        moments = {(payload.timestamp, False, 0): {births.name(metric): metric for metric in payload.metrics}}
    return list(_events(draft, station, payload, births, moments))


def teach(message: Message, body: Body) -> Iterator[Lesson]:
    """Of a birth: its aliases, types and units, for the data that is to come and for that which came before it.

    And that a device is behind its edge node, whose death will be its own.
    """
    station = _station(message.topic)
    if station is None or station.kind != "birth":
        return
    payload = _payload(station, message.payload, body.options)
    if payload is None:
        return
    told: dict[str, Json] = {"birth": _birth_of_node(station, payload, message, body), **_told(payload.metrics)}
    yield Lesson(key=station.key, value=told, topics=station.taught_topics)
    yield from _devices_behind(station, body)


# Topics


class Station(NamedTuple):
    """Who a topic speaks of."""

    kind: Kind
    before: str
    """The levels before the type, with the slash at the end: namespace and group."""
    node: str
    """`group/edge node`."""
    device: str | None
    edge: str
    certain: bool
    """Whether the topic has the namespace of Sparkplug B."""

    @property
    def name(self) -> str:
        return self.node if self.device is None else f"{self.node}/{self.device}"

    @property
    def node_key(self) -> str:
        return f"{self.before}{self.edge}"

    @property
    def key(self) -> str:
        return self.node_key if self.device is None else f"{self.before}{self.edge}/{self.device}"

    @property
    def devices_key(self) -> str:
        """For the names of the devices behind the node: no topic that somebody publishes to has this."""
        return f"{self.node_key}/#"

    @property
    def taught_topics(self) -> tuple[str, ...]:
        """A node's birth tells of data of its devices as well: they share one space of aliases."""
        devices = [f"{self.before}D{kind}/{self.edge}/{self.device or '+'}" for kind in ("DATA", "CMD")]
        if self.device is not None:
            return tuple(devices)
        return (f"{self.before}NDATA/{self.edge}", f"{self.before}NCMD/{self.edge}", *devices)


@lru_cache(maxsize=8_192)
def _station(topic: str) -> Station | None:
    levels = topic.split("/")
    of_device = len(levels) > 3 and levels[-3] in _DEVICE_TYPES
    at = len(levels) - (3 if of_device else 2)
    if at < 1 or not (of_device or levels[at] in _NODE_TYPES):
        return None
    group, edge = levels[at - 1], levels[at + 1]
    return Station(
        _KINDS[levels[at][1:]],
        "".join(f"{level}/" for level in levels[:at]),
        f"{group}/{edge}",
        levels[-1] if of_device else None,
        edge,
        certain=at >= 2 and levels[at - 2] == NAMESPACE,
    )


# Wire: names of our own for the fields of the specification, section 6.4.1.

_FORMS = {"int": "uint32", "long": "uint64", "float": "float", "double": "double", "boolean": "bool", "text": "string"}


def _forms(first: int, *more: str) -> dict[str, Field]:
    """The forms that a value may have, numbered from the first."""
    forms = _FORMS | {word.lower(): word for word in more}
    return {form: Field(first + at, kind, choice=True) for at, (form, kind) in enumerate(forms.items())}


_WIRE = {
    "Payload": {
        "timestamp": Field(1, "uint64"),
        "metrics": Field(2, "Metric", repeated=True),
        "seq": Field(3, "uint64"),
        "uuid": Field(4, "string"),
        "body": Field(5, "bytes"),
    },
    "Metric": {
        "name": Field(1, "string"),
        "alias": Field(2, "uint64"),
        "timestamp": Field(3, "uint64"),
        "datatype": Field(4, "uint32"),
        "is_historical": Field(5, "bool"),
        "is_null": Field(7, "bool"),
        "properties": Field(9, "Properties"),
        **_forms(10, "bytes", "DataSet", "Template"),
    },
    "Properties": {"keys": Field(1, "string", repeated=True), "values": Field(2, "Property", repeated=True)},
    "Property": {"type": Field(1, "uint32"), "is_null": Field(2, "bool"), **_forms(3)},
    "DataSet": {
        "columns": Field(2, "string", repeated=True),
        "types": Field(3, "uint32", repeated=True),
        "rows": Field(4, "Row", repeated=True),
    },
    "Row": {"cells": Field(1, "Cell", repeated=True)},
    "Cell": _forms(1),
    "Template": {
        "metrics": Field(2, "Metric", repeated=True),
        "parameters": Field(3, "Parameter", repeated=True),
        "is_definition": Field(5, "bool"),
    },
    "Parameter": {"name": Field(1, "string"), "datatype": Field(2, "uint32"), **_forms(3)},
}
_CLASSES = classes("amber_sparkplug_b", _WIRE)


class _Sent(Protocol):
    """What every message of the library can tell."""

    def HasField(self, name: str) -> bool: ...  # noqa: N802  the library's name

    def WhichOneof(self, name: str) -> str | None: ...  # noqa: N802  the library's name


class _Properties(Protocol):
    keys: Sequence[str | bytes]
    values: Sequence[_Sent]


class _Row(Protocol):
    cells: Sequence[_Sent]


class _DataSet(Protocol):
    columns: Sequence[str | bytes]
    types: Sequence[int]
    rows: Sequence[_Row]


class _Typed(_Sent, Protocol):
    name: str | bytes
    datatype: int


class _Metric(_Typed, Protocol):
    alias: int
    timestamp: int
    is_historical: bool
    is_null: bool
    properties: _Properties
    dataset: _DataSet
    template: _Template


class _Template(Protocol):
    metrics: Sequence[_Metric]
    parameters: Sequence[_Typed]
    is_definition: bool


class _Payload(_Sent, Protocol):
    timestamp: int
    metrics: Sequence[_Metric]
    seq: int
    uuid: str | bytes
    body: bytes


def _payload(station: Station, payload: bytes, options: Options) -> _Payload | None:
    """The payload, unpacked where it is compressed; None where this is another's topic that looks alike."""
    try:
        outer = cast("_Payload", parsed(_CLASSES["Payload"], payload, "Sparkplug B"))
    except Unreadable:
        if not station.certain:
            return None
        raise
    if payload and not outer.metrics and not any(map(outer.HasField, ("timestamp", "seq", "uuid", "body"))):
        if station.certain:
            raise Unreadable("not a payload of Sparkplug B: none of its fields is there")
        return None
    inner = _unpacked(outer, options) if outer.uuid == _COMPRESSED else outer
    if len(inner.metrics) > options.entries:
        raise Unreadable(f"more than {options.entries} metrics (entries)")
    return inner


def _unpacked(outer: _Payload, options: Options) -> _Payload:
    algorithm = next((cast("str", _plain(metric)) for metric in outer.metrics if metric.name == "algorithm"), "DEFLATE")
    if algorithm not in ("DEFLATE", "GZIP"):
        raise Unreadable(f"compressed by {algorithm}, which is neither DEFLATE nor GZIP")
    inner = cast("_Payload", parsed(_CLASSES["Payload"], _inflated(outer.body, options.unpacked_bytes), "Sparkplug B"))
    if inner.uuid == _COMPRESSED:
        raise Unreadable("compressed more than once")
    for name in ("timestamp", "seq"):
        if outer.HasField(name) and not inner.HasField(name):
            setattr(inner, name, getattr(outer, name))
    return inner


def _inflated(packed: bytes, most: int) -> bytes:
    for window in (47, -15):  # zlib or gzip by their headers, then bare DEFLATE
        unpacker = zlib.decompressobj(window)
        try:
            unpacked = unpacker.decompress(packed, most + 1)
        except zlib.error:
            continue
        if len(unpacked) > most:
            raise Unreadable(f"unpacks to more than {most} bytes (unpacked_bytes)")
        if unpacker.eof:
            return unpacked
    raise Unreadable("the compressed body is broken or cut short")


# Births


class Births(NamedTuple):
    """What births told of the metrics of one message: its device's own birth first, then its edge node's."""

    station: Station
    told: tuple[Mapping[str, Mapping[str, Json]], ...]

    def name(self, metric: _Metric) -> str:
        """The metric's name; a placeholder where it has an alias only, and no birth has told it."""
        if metric.name:
            return text(metric.name)
        if not metric.HasField("alias"):
            raise Unreadable("a metric with neither name nor alias")
        alias = str(metric.alias)
        for birth in self.told:
            if name := birth["aliases"].get(alias):
                return cast("str", name)
        return f"{_PLACEHOLDER}{alias}"

    def datatype(self, name: str, metric: _Typed) -> int | None:
        """The metric's type; data may leave it to the birth."""
        if metric.datatype:
            return metric.datatype
        for birth in self.told:
            if known := birth["types"].get(name):
                return cast("int", known)
        return None

    def unit(self, name: str) -> str | None:
        for birth in self.told:
            if unit := birth["units"].get(name):
                return cast("str", unit)
        return None


def _births(station: Station, body: Body) -> Births:
    if station.kind == "birth":
        return Births(station, ())
    node = body.learned.get(NAME, station.node_key)
    own = None if station.device is None else body.learned.get(NAME, station.key)
    # The birth of an edge node ends what its devices' births said, until they are born again.
    if isinstance(own, dict) and isinstance(node, dict) and own["birth"] != node["birth"]:
        own = None
    return Births(station, cast("tuple[Mapping[str, Mapping[str, Json]], ...]", tuple(filter(None, (own, node)))))


def _birth_of_node(station: Station, payload: _Payload, message: Message, body: Body) -> Json:
    """Which birth of the edge node this is, or belongs to."""
    if station.device is None:
        return f"{payload.timestamp or message.received_at}/{_bd_seq(payload)}"
    node = body.learned.get(NAME, station.node_key)
    return node["birth"] if isinstance(node, dict) else None


def _devices_behind(station: Station, body: Body) -> Iterator[Lesson]:
    """Those born since the birth of the node. Births alone tell: of messages read again they are what is looked at."""
    if station.device is None:
        yield Lesson(key=station.devices_key, value=None)
        return
    known = body.learned.get(NAME, station.devices_key)
    devices = known if isinstance(known, list) else []
    if station.device not in devices and len(devices) < _MOST_DEVICES:
        yield Lesson(key=station.devices_key, value=[*devices, station.device])


def _told(metrics: Iterable[_Metric]) -> dict[str, Json]:
    aliases: dict[str, Json] = {}
    types: dict[str, Json] = {}
    units: dict[str, Json] = {}
    for name, metric in _all("", metrics):
        if metric.HasField("alias"):
            aliases[str(metric.alias)] = name
        if metric.datatype:
            types[name] = metric.datatype
        if metric.HasField("properties") and (unit := _unit(metric.properties)):
            units[name] = unit
    return {"aliases": aliases, "types": types, "units": units}


def _all(path: str, metrics: Iterable[_Metric]) -> Iterator[tuple[str, _Metric]]:
    """Metrics with the members of templates, by full name; protobuf bounds how deep."""
    for metric in metrics:
        if not metric.name:
            continue
        name = f"{path}{text(metric.name)}"
        yield name, metric
        if metric.HasField("template") and not metric.template.is_definition:
            yield from _all(f"{name}/", metric.template.metrics)


# Events

Moment = tuple[int, bool, int]
"""When, whether out of a buffer, and the how manieth value that a metric had then."""
Moments = dict[Moment, dict[str, _Metric]]


def _moments(payload: _Payload, births: Births) -> Moments:
    moments: Moments = {}
    again: dict[tuple[Moment, str], int] = {}
    sent = payload.timestamp
    for metric in payload.metrics:
        name = births.name(metric)
        moment = (metric.timestamp or sent, metric.is_historical, 0)
        metrics = moments.setdefault(moment, {})
        if name in metrics:
            times = again[moment, name] = again.get((moment, name), 0) + 1
            metrics = moments.setdefault((*moment[:2], times), {})
        metrics[name] = metric
    return moments or {(sent, False, 0): {}}


def _events(draft: Draft, station: Station, payload: _Payload, births: Births, moments: Moments) -> Iterator[Event]:
    seq = payload.seq if payload.HasField("seq") else None
    device, via = station.name, None if station.device is None else station.node
    for (stamp, historical, _), metrics in moments.items():
        for name, metric in metrics.items():
            _put_metric(draft, name, metric, births)
        unknown = any(_is_unknown(name, metric) for name, metric in metrics.items())
        yield draft.event(
            device,
            station.kind,
            stamp=stamp,
            seq=seq,
            via=via,
            historical=historical,
            provisional=unknown,
        )


def _is_unknown(name: str, metric: _Metric) -> bool:
    return not metric.name and name.startswith(_PLACEHOLDER)


def _death(draft: Draft, station: Station, payload: _Payload) -> Event:
    """A node's death is its last will, written when it connected: its time says nothing of the death."""
    for metric in payload.metrics:
        if metric.name and not metric.is_null:
            draft.put_value(text(metric.name), _typed(metric.datatype, metric))
    if station.device is None:
        return draft.event(station.node, "death")
    seq = payload.seq if payload.HasField("seq") else None
    return draft.event(station.name, "death", stamp=payload.timestamp, seq=seq, via=station.node)


def _deaths_behind(draft: Draft, station: Station, body: Body) -> Iterator[Event]:
    """With an edge node its devices are gone, and nobody says so of each."""
    devices = None if station.device is not None else body.learned.get(NAME, station.devices_key)
    for device in devices if isinstance(devices, list) else ():
        yield draft.event(f"{station.node}/{device}", "death", via=station.node)


def _bd_seq(payload: _Payload) -> str | None:
    """The number that a node's birth and its death share."""
    return next((str(_plain(metric)) for metric in payload.metrics if metric.name == "bdSeq"), None)


def _host(message: Message, body: Body) -> Sequence[Event] | None:
    """The state of a host application; until version 2.2 a word on `STATE/host`."""
    *before, word, host = message.topic.split("/")
    if word != "STATE" or not host or not message.payload:
        return None
    document, draft = body.document, Draft(NAME, message, body)
    if isinstance(document, dict) and isinstance(document.get("online"), bool) and "timestamp" in document:
        for name, node in document.items():
            draft.put(name, node)
        # It is that of the connect: for a host that has gone the time of its coming.
        return [draft.event(host, "availability", stamp=document["timestamp"] if document["online"] else None)]
    if body.text in ("ONLINE", "OFFLINE"):
        draft.put("online", body.text == "ONLINE")
        return [draft.event(host, "availability")]
    if before[-1:] == [NAMESPACE]:
        raise Unreadable(f"not the state of a host: {body.json_fault or 'neither online and timestamp nor ONLINE'}")
    return None


# Values


def _put_metric(draft: Draft, name: str, metric: _Metric, births: Births, depth: int = 1) -> None:
    unit = births.unit(name)
    quality: Quality | None = "uncertain" if _is_unknown(name, metric) else None
    source: UnitSource = "learned"
    if metric.HasField("properties"):
        quality = _quality(metric.properties) or quality
        if own := _unit(metric.properties):
            unit, source = own, "message"
    datatype = births.datatype(name, metric)
    form = None if metric.is_null else metric.WhichOneof("value")
    if form == "template":
        _put_template(draft, name, metric.template, births, depth)
        return
    if form == "dataset":
        _put_rows(draft, name, metric.dataset)
    elif form == "bytes":
        _put_bytes(draft, name, datatype, cast("bytes", getattr(metric, form)))
    else:
        value = None if form is None else _meant(datatype, form, getattr(metric, form))
        if datatype is None and type(value) is int and value >= (2**31 if form == "int" else 2**63):
            quality = quality or "uncertain"  # until its birth says whether it is below zero
        draft.put_value(name, value, unit, source=source, quality=quality)
        return
    if quality is not None:
        draft.put_value(name, None, quality=quality)


def _put_template(draft: Draft, name: str, template: _Template, births: Births, depth: int) -> None:
    if depth >= draft.options.depth:
        raise Unreadable(f"nested deeper than {draft.options.depth} levels (depth)")
    if template.is_definition:  # a type, whose values are defaults
        return
    for parameter in template.parameters:
        draft.put(f"{name}/{text(parameter.name)}", _typed(parameter.datatype, parameter))
    for member in template.metrics:
        _put_metric(draft, f"{name}/{births.name(member)}", member, births, depth + 1)


def _put_rows(draft: Draft, name: str, data: _DataSet) -> None:
    columns = [text(column) for column in data.columns]
    types = [*data.types, *[0] * len(columns)]
    rows: list[Json] = [
        {column: _typed(kind, cell) for column, kind, cell in zip(columns, types, row.cells, strict=False)}
        for row in data.rows
    ]
    if max(len(rows), len(columns)) > draft.options.array_items:
        _put_text(draft, name, msgspec.json.encode(rows).decode())
    else:
        draft.put(name, rows)


def _put_bytes(draft: Draft, name: str, datatype: int | None, packed: bytes) -> None:
    unpack = _ARRAYS.get(datatype or 0)
    if unpack is None:
        _put_text(draft, name, base64.b64encode(packed).decode())
        return
    try:
        draft.put(name, unpack(packed))
    except struct.error:
        draft.put_missing(name, "bad")


def _put_text(draft: Draft, name: str, long: str) -> None:
    """A file of a megabyte must not cost the birth it is in: the message keeps it, the reading has no value."""
    if len(long) > draft.options.text_chars:
        draft.put_missing(name, "uncertain")
    else:
        draft.put(name, long)


def _negative(bits: int) -> tuple[tuple[int, int], ...]:
    """From where to where a field holds a number below zero: in as many bits as the type has, or extended to more."""
    return tuple((2**width - 2 ** (bits - 1), 2**width) for width in (bits, 32, 64) if width >= bits)


_NEGATIVE = {datatype: _negative(bits) for datatype, bits in ((1, 8), (2, 16), (3, 32), (4, 64))}
_BOOLEAN = 11


def _typed(datatype: int | None, holder: _Sent) -> Value:
    """The value as what its type says it is; the form it was sent in says less."""
    form = holder.WhichOneof("value")
    return None if form is None else _meant(datatype, form, getattr(holder, form))


def _meant(datatype: int | None, form: str, value: Value | bytes) -> Value:
    if form == "float":
        return shortest(cast("float", value))
    if type(value) is int:
        for least, end in _NEGATIVE.get(datatype or 0, ()):
            if least <= value < end:
                return value - end
        return value != 0 if datatype == _BOOLEAN else value
    return text(value) if isinstance(value, bytes) else value


def _plain(holder: _Sent) -> Value:
    return _typed(None, holder)


def _numbers(code: str, size: int) -> Callable[[bytes], list[Json]]:
    return lambda packed: list(struct.unpack(f"<{len(packed) // size}{code}", packed))


def _floats(packed: bytes) -> list[Json]:
    return [shortest(number) for number in struct.unpack(f"<{len(packed) // 4}f", packed)]


def _booleans(packed: bytes) -> list[Json]:
    """How many there are, in four bytes, then their bits, the highest of a byte first."""
    (count,) = struct.unpack_from("<I", packed)
    if count > 8 * (len(packed) - 4):
        raise struct.error("fewer bits than booleans")
    return [bool(packed[4 + at // 8] & 0x80 >> at % 8) for at in range(count)]


def _strings(packed: bytes) -> list[Json]:
    """Texts that end in a zero byte each."""
    return [part.decode("utf-8", "replace") for part in packed.removesuffix(b"\0").split(b"\0")] if packed else []


_ARRAYS: dict[int, Callable[[bytes], list[Json]]] = {
    **{22 + at: _numbers(code, 1 << at % 4) for at, code in enumerate("bhiqBHIQ")},
    30: _floats,
    31: _numbers("d", 8),
    32: _booleans,
    33: _strings,
    34: _numbers("q", 8),
}

# Properties: `engUnit` is Ignition's word, the others are seen as well.
_UNIT_WORDS = "engunit engunits engineeringunit engineeringunits unit units uom unitofmeasure eu"
_UNIT_KEYS = frozenset(_UNIT_WORDS.split())
_STALE = 500


def _unit(properties: _Properties) -> str | None:
    for key, value in zip(properties.keys, properties.values, strict=False):
        if fields.squeezed(text(key)) in _UNIT_KEYS and isinstance(unit := _plain(value), str) and unit.strip():
            return unit.strip()
    return None


def _quality(properties: _Properties) -> Quality | None:
    """0 is bad, 192 good, 500 stale; between them stand the codes of OPC: 64 to 127 is uncertain."""
    for key, value in zip(properties.keys, properties.values, strict=False):
        code = _plain(value) if fields.squeezed(text(key)) == "quality" else None
        if type(code) is int:
            if code == _STALE:
                return "stale"
            return "bad" if code < 64 else "uncertain" if not 192 <= code < 256 else None
    return None


FORMATS: tuple[Format, ...] = (
    Format(
        name=NAME,
        read=read,
        teach=teach,
        topics=(
            *(f"#/{kind}/+" for kind in sorted(_NODE_TYPES)),
            *(f"#/{kind}/+/+" for kind in sorted(_DEVICE_TYPES)),
            f"#/{NAMESPACE}/STATE/+",
            "STATE/+",
        ),
    ),
)
