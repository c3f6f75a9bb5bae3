"""Sparkplug B 3.0, in protobuf: a device is an edge node with metrics of its own, or with its sensors behind it.

https://sparkplug.eclipse.org/specification/version/3.0/documents/sparkplug-specification-3.0.0.pdf: messages in
chapter 4, the session in 5, the payload and its types in 6.4.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from devices.dialects.foretold import first_readings
from devices.fleet import Device, Fleet
from devices.outgoing import Publication, Sample, Value

if TYPE_CHECKING:
    from google.protobuf.message import Message

REBIRTH = "Node Control/Rebirth"


class Sparkplug:
    """`spBv1.0/<group>/NBIRTH/<device>` on each connection, then NDATA; NDEATH as will and farewell.

    The number of the birth, bdSeq, is one more on each connection, and its will and its death have it too (5.6). The
    data are numbered from the birth on, up to 255 and then from 0 (6.4.5); by the sample, so that what waited for a
    connection keeps its number. Metrics have an alias after their birth; what was not born goes by name and type.
    """

    identified = False
    _births = 1
    """How many messages a birth is made of."""

    def __init__(self, device: Device, fleet: Fleet) -> None:
        self._device = device
        self._connections = 0
        first = first_readings(device, fleet)
        self._types = {name: _type_of(value) for name, value in first.items()}
        self._aliases = {name: alias for alias, name in enumerate(first, start=1)}
        self._latest: dict[str, tuple[Value, int]] = {}
        self._seq = self._births - 1

    def telemetry(self, sample: Sample) -> Sequence[Publication]:
        stamp = sample.observed_at // 1_000
        self._seq = (sample.seq + self._births) % 256
        payload = _payload(timestamp=stamp, seq=self._seq)
        for name, value in sample.readings.items():
            self._put(payload, name, value, stamp)
            self._latest[name] = value, stamp
        return [self._data(payload)]

    def will(self, time_us: int) -> Publication:  # noqa: ARG002  it is written long before
        self._connections += 1
        return self._death()

    def birth(self, time_us: int) -> Sequence[Publication]:
        payload = self._node_born(time_us // 1_000)
        self._bear(payload, time_us // 1_000)
        return [self._said("NBIRTH", payload)]

    def death(self, time_us: int) -> Sequence[Publication]:  # noqa: ARG002
        return [self._death()]

    def _data(self, payload: Message) -> Publication:
        return self._said("NDATA", payload)

    def _death(self) -> Publication:
        """Only the number of the birth, and no seq (4.2.1.4)."""
        payload = _payload()
        self._number(payload)
        return self._said("NDEATH", payload)

    def _node_born(self, stamp: int) -> Any:
        payload = _payload(timestamp=stamp, seq=0)
        self._number(payload).timestamp = stamp
        _fill(payload.metrics.add(name=REBIRTH, timestamp=stamp), _BOOLEAN, value=False, datatype=True)
        return payload

    def _number(self, payload: Any) -> Any:
        metric = payload.metrics.add(name="bdSeq")
        _fill(metric, _INT64, (self._connections - 1) % 256, datatype=True)
        return metric

    def _bear(self, payload: Any, now: int) -> None:
        """Name, alias, type and unit of each metric, with its latest value where there is one."""
        for name, alias in self._aliases.items():
            value, stamp = self._latest.get(name, (None, now))
            metric = payload.metrics.add(name=name, alias=alias, timestamp=stamp)
            if value is None or _fitting(self._types[name], value) != self._types[name]:
                metric.datatype, metric.is_null = self._types[name].code, True
            else:
                _fill(metric, self._types[name], value, datatype=True)
            if unit := self._device.group.units.get(name):
                metric.properties.keys.append("engUnit")
                metric.properties.values.add(type=_STRING.code, string_value=unit)

    def _put(self, payload: Any, name: str, value: Value, stamp: int) -> None:
        born = self._types.get(name)
        kind = _fitting(born, value)
        if kind == born:
            _fill(payload.metrics.add(alias=self._aliases[name], timestamp=stamp), kind, value)
        else:
            _fill(payload.metrics.add(name=name, timestamp=stamp), kind, value, datatype=True)

    def _said(self, what: str, payload: Message, behind: str = "") -> Publication:
        topic = f"spBv1.0/{self._device.group.name}/{what}/{self._device.name}{behind}"
        # All goes at QoS 0 but the node's death, which is its will (chapter 4); a group may have its data at another.
        return Publication(topic, payload.SerializeToString(deterministic=True), qos=1 if what == "NDEATH" else 0)


class SparkplugDevice(Sparkplug):
    """NBIRTH, then `spBv1.0/<group>/DBIRTH/<device>/sensors` and DDATA; DDEATH and NDEATH as farewell.

    As will there is the NDEATH alone: it tells of all that is behind the node (4.2.1.4).
    """

    _births = 2

    def birth(self, time_us: int) -> Sequence[Publication]:
        stamp = time_us // 1_000
        payload = _payload(timestamp=stamp, seq=1)
        self._bear(payload, stamp)
        return [self._said("NBIRTH", self._node_born(stamp)), self._said("DBIRTH", payload, _SENSORS)]

    def death(self, time_us: int) -> Sequence[Publication]:
        payload = _payload(timestamp=time_us // 1_000, seq=(self._seq + 1) % 256)
        return [self._said("DDEATH", payload, _SENSORS), *super().death(time_us)]

    def _data(self, payload: Message) -> Publication:
        return self._said("DDATA", payload, _SENSORS)


_SENSORS = "/sensors"


def unsayable(names: Iterable[str]) -> str | None:
    """The names that every birth of an edge node has."""
    wrong = next((name for name in names if name in ("bdSeq", REBIRTH)), None)
    return wrong and f"every Sparkplug node has a metric {wrong!r} already"


class _Type(NamedTuple):
    """The code of a datatype, and the field that holds its values (6.4.16)."""

    code: int
    field: str


_INT64, _UINT64 = _Type(4, "long_value"), _Type(8, "long_value")
_DOUBLE, _BOOLEAN, _STRING = _Type(10, "double_value"), _Type(11, "boolean_value"), _Type(12, "string_value")


def _type_of(value: Value) -> _Type:
    if isinstance(value, bool):
        return _BOOLEAN
    if isinstance(value, str):
        return _STRING
    if isinstance(value, int) and -(2**63) <= value < 2**64:
        return _INT64 if value < 2**63 else _UINT64
    return _DOUBLE


def _fitting(born: _Type | None, value: Value) -> _Type:
    """The type of a value: that of its birth wherever it can hold it."""
    kind = _type_of(value)
    exact = kind == _INT64 and -(2**53) <= int(value) <= 2**53
    return _DOUBLE if born == _DOUBLE and exact else kind


def _fill(metric: Any, kind: _Type, /, value: Value, *, datatype: bool = False) -> None:
    if datatype:
        metric.datatype = kind.code
    if kind in (_INT64, _UINT64):
        value = int(value) % 2**64  # two's complement: the field is unsigned
    setattr(metric, kind.field, float(value) if kind == _DOUBLE else value)


# The schema of section 6.4.1, as far as it is spoken here: of each field number, type, and whether there may be many.

_SCHEMA: Mapping[str, Mapping[str, tuple[int, str, bool]]] = {
    "Payload": {
        "timestamp": (1, "UINT64", False),
        "metrics": (2, "Metric", True),
        "seq": (3, "UINT64", False),
    },
    "Metric": {
        "name": (1, "STRING", False),
        "alias": (2, "UINT64", False),
        "timestamp": (3, "UINT64", False),
        "datatype": (4, "UINT32", False),
        "is_null": (7, "BOOL", False),
        "properties": (9, "PropertySet", False),
        "long_value": (11, "UINT64", False),
        "double_value": (13, "DOUBLE", False),
        "boolean_value": (14, "BOOL", False),
        "string_value": (15, "STRING", False),
    },
    "PropertySet": {"keys": (1, "STRING", True), "values": (2, "PropertyValue", True)},
    "PropertyValue": {"type": (1, "UINT32", False), "string_value": (8, "STRING", False)},
}
_PACKAGE = "amber_devices_sparkplug"


def _payload(**fields: int) -> Any:
    return _payload_class()(**fields)


@cache
def _payload_class() -> type[Message]:
    """Made when first needed: the library takes longer to load than all of the other dialects."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    described = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name=f"{_PACKAGE}.proto", package=_PACKAGE, syntax="proto2")
    for message, fields in _SCHEMA.items():
        kind = file.message_type.add(name=message)
        for name, (number, scalar, many) in fields.items():
            label = described.LABEL_REPEATED if many else described.LABEL_OPTIONAL
            field = kind.field.add(name=name, number=number, label=label)
            if scalar in _SCHEMA:
                field.type, field.type_name = described.TYPE_MESSAGE, f".{_PACKAGE}.{scalar}"
            else:
                field.type = described.Type.Value(f"TYPE_{scalar}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.Payload"))
