"""Makes protobuf classes from tables of fields, as formats' documentation prints them; there are no generated files.

https://protobuf.dev/reference/protobuf/proto2-spec/
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from typing import NamedTuple

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError, Message

from gateway.formats.format import Unreadable

_Described = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    "double": _Described.TYPE_DOUBLE,
    "float": _Described.TYPE_FLOAT,
    "int64": _Described.TYPE_INT64,
    "uint64": _Described.TYPE_UINT64,
    "int32": _Described.TYPE_INT32,
    "uint32": _Described.TYPE_UINT32,
    "bool": _Described.TYPE_BOOL,
    "string": _Described.TYPE_STRING,
    "bytes": _Described.TYPE_BYTES,
}
_FLOAT = struct.Struct("<f")


class Field(NamedTuple):
    """One field: `type` is a scalar, or the name of another message of the same table."""

    number: int
    type: str
    repeated: bool = False
    choice: bool = False
    """Whether it is one of the forms of the message's `value`, of which there is one at a time."""


Table = Mapping[str, Mapping[str, Field]]
"""The fields of each message, by name."""


def classes(package: str, table: Table) -> dict[str, type[Message]]:
    """The class of each message. Fields keep whether they were sent: 0 is not the same as nothing."""
    file = descriptor_pb2.FileDescriptorProto(name=f"{package}.proto", package=package, syntax="proto2")
    for name, fields in table.items():
        file.message_type.add(name=name)
        for field_name, field in fields.items():
            _describe(file.message_type[-1], package, field_name, field)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.{name}")) for name in table}


def parsed(kind: type[Message], payload: bytes, called: str) -> Message:
    """The payload as a message; Unreadable where it is none. `called` is what a person calls it."""
    try:
        return kind.FromString(payload)
    except (DecodeError, RecursionError):
        raise Unreadable(f"not a protobuf message of {called}: cut short or of another format") from None


def text(value: str | bytes) -> str:
    """A string field: one that is not UTF-8 comes out of the library as bytes."""
    return value if isinstance(value, str) else value.decode("utf-8", "replace")


def shortest(value: float) -> float:
    """A 32-bit float as the shortest decimal that stands for it: 12.3, not 12.300000190734863."""
    for digits in range(6, 9):
        near = float(f"{value:.{digits}g}")
        try:
            if _FLOAT.unpack(_FLOAT.pack(near))[0] == value:
                return near
        except OverflowError:
            return value
    return float(f"{value:.9g}") if math.isfinite(value) else value


def _describe(message: descriptor_pb2.DescriptorProto, package: str, name: str, field: Field) -> None:
    described = message.field.add(name=name, number=field.number)
    described.label = _Described.LABEL_REPEATED if field.repeated else _Described.LABEL_OPTIONAL
    if field.type in _SCALARS:
        described.type = _SCALARS[field.type]
    else:
        described.type = _Described.TYPE_MESSAGE
        described.type_name = f".{package}.{field.type}"
    if field.choice:
        if not message.oneof_decl:
            message.oneof_decl.add(name="value")
        described.oneof_index = 0
