"""Makes JSON of what CBOR and MessagePack decode to: names and bytes become text."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime
from decimal import Decimal
from fractions import Fraction

import cbor2
import msgspec

from gateway.formats.body import Json
from gateway.formats.format import Unreadable
from gateway.formats.options import Options
from gateway.formats.values import fits_double

_PLAIN = (str, int, float)  # and bool, which is an int


class Natives:
    """Converts one document; shared and cyclic references cost entries and depth as if they were written out."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._entries = 0

    def document(self, node: dict[object, object] | list[object]) -> dict[str, Json] | list[Json]:
        """The JSON of a whole message."""
        found = self.json(node)
        return found if isinstance(found, (dict, list)) else []

    def json(self, node: object, depth: int = 1) -> Json:
        """The JSON of a node; what has none becomes text."""
        self._entries += 1
        if self._entries > self._options.entries:
            raise Unreadable(f"more than {self._options.entries} keys and elements (entries)")
        if node is None or isinstance(node, _PLAIN):
            return node
        if depth > self._options.depth:
            raise Unreadable(f"nested deeper than {self._options.depth} levels (depth)")
        if isinstance(node, dict):
            return {_name(key): self.json(inner, depth + 1) for key, inner in node.items()}
        if isinstance(node, (list, tuple, set, frozenset)):
            return self._array(node, depth)
        if isinstance(node, cbor2.CBORTag):
            return self.json(node.value, depth + 1)
        return _scalar(node)

    def _array(self, items: Iterable[object], depth: int) -> list[Json]:
        return [self.json(item, depth + 1) for item in items]


def _name(key: object) -> str:
    if isinstance(key, str):
        return key
    if isinstance(key, bool) or key is None:
        return {True: "true", False: "false", None: "null"}[key]
    if isinstance(key, int) and not fits_double(key):
        raise Unreadable("a key that is a number no one can write")
    if isinstance(key, (int, float, bytes, date)):
        return str(_scalar(key))
    raise Unreadable(f"a key of type {type(key).__name__}: names are texts and numbers")


def _scalar(node: object) -> Json:
    if isinstance(node, (bool, int, float)) or node is None:
        return node
    if isinstance(node, (bytes, bytearray)):
        return _text(bytes(node))
    if isinstance(node, msgspec.msgpack.Ext):
        return bytes(node.data).hex()
    if isinstance(node, datetime):
        return (node if node.tzinfo else node.replace(tzinfo=UTC)).isoformat()
    if isinstance(node, date):
        return node.isoformat()
    if isinstance(node, (Decimal, Fraction)):
        return _number(node)
    if isinstance(node, cbor2.CBORSimpleValue):
        return node.value
    return None if node is cbor2.undefined else str(node)


def _text(node: bytes) -> str:
    """The text that bytes hold, for C programs send it so; else their hexadecimal digits."""
    try:
        text = node.decode()
    except UnicodeDecodeError:
        return node.hex()
    return text if text.isprintable() and text else node.hex()


def _number(node: Decimal | Fraction) -> float:
    try:
        return float(node)
    except OverflowError:
        return float("inf")
