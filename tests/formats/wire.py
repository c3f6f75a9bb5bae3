"""Writes protobuf by hand, field by field: what the formats read must not come from their own tables."""

from __future__ import annotations

import struct

Value = int | float | str | bytes


class Single(float):
    """A float of 32 bits; any other has 64."""


def message(*parts: tuple[int, Value]) -> bytes:
    """Field numbers and values, in their order."""
    return b"".join(_part(number, value) for number, value in parts)


def _part(number: int, value: Value) -> bytes:
    match value:
        case Single():
            return _varint(number << 3 | 5) + struct.pack("<f", value)
        case float():
            return _varint(number << 3 | 1) + struct.pack("<d", value)
        case int():
            return _varint(number << 3) + _varint(value)
    written = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(written)) + written


def _varint(number: int) -> bytes:
    number &= 2**64 - 1
    written = bytearray()
    while number > 0x7F:
        written.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*written, number])
