"""XML of any vocabulary, without entities of its own: https://www.w3.org/TR/xml/."""

from __future__ import annotations

import re
from collections.abc import Sequence
from xml.parsers import expat

from gateway.formats import fields, json
from gateway.formats.body import Body, Json
from gateway.formats.format import Format, Unreadable
from gateway.formats.options import Options
from gateway.formats.plain import scalar
from storage.event import Event, Message

NAME = "xml"

Object = dict[str, Json]

_BOM = b"\xef\xbb\xbf"
_SPACE = b" \t\r\n\v\f\0"
_STARTS = (b"<", _BOM + b"<", b" ", b"\t", b"\r", b"\n")
_ELEMENT = re.compile(rb"<(?:\?xml\b|!DOCTYPE\b|!--|([A-Za-z_:][^\s/><]*))")
_NAMING = frozenset({"name", "id"})


def read(message: Message, body: Body) -> Sequence[Event] | None:
    """What JSON of the same tree gives; elements that repeat and bear names are devices of their own."""
    payload = body.payload.strip(_SPACE).removeprefix(_BOM)
    opening = _ELEMENT.match(payload)
    if opening is None:
        return None
    try:
        root, name = _Document(body.options).parsed(payload)
    except expat.ExpatError as fault:
        if opening[1] is None or b"</" in payload or b"/>" in payload:
            raise Unreadable(f"not well-formed XML: {fault}") from None
        return None  # `<unknown>` is text
    return json.events(_with_devices(root) if isinstance(root, dict) else {name: root}, message, body, NAME)


class _Document:
    """One parse, within the bounds; what has a text and attributes is an object with a `value`."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._entries = 0
        self._open: list[tuple[str, Object, list[str]]] = [("", {}, [])]

    def parsed(self, payload: bytes) -> tuple[Json, str]:
        """The root's content and name; ExpatError where the text is not well-formed."""
        parser = expat.ParserCreate()
        parser.buffer_text = True
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._text
        parser.EntityDeclHandler = _refuse
        try:
            parser.Parse(payload, True)  # noqa: FBT003  positional in C
        except (ValueError, LookupError) as fault:  # an encoding that nobody knows
            raise Unreadable(f"XML in an encoding that cannot be read: {fault}") from None
        ((name, root),) = self._open[0][1].items()
        return root, name

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        self._entries += 1 + len(attributes)
        if self._entries > self._options.entries:
            raise Unreadable(f"more than {self._options.entries} elements and attributes (entries)")
        if len(self._open) > self._options.depth:
            raise Unreadable(f"nested deeper than {self._options.depth} levels (depth)")
        node = {_local(key): _value(text) for key, text in attributes.items() if not key.startswith("xmlns")}
        self._open.append((_local(tag), node, []))

    def _text(self, text: str) -> None:
        self._open[-1][2].append(text)

    def _end(self, _: str) -> None:
        tag, node, texts = self._open.pop()
        text = "".join(texts).strip()
        if node and text:
            node.setdefault("value", _value(text))
        _add(self._open[-1][1], tag, node or _value(text))


def _refuse(name: str, *_: object) -> None:
    raise Unreadable(f"XML that declares an entity, {name[:50]}: these can be bombs, and none is needed")


def _local(name: str) -> str:
    return name.rpartition(":")[2] or name


def _value(text: str) -> Json:
    text = text.strip()
    return scalar(text) if text else None


def _add(parent: Object, tag: str, node: Json) -> None:
    """A second element of one name makes a list of them."""
    if tag not in parent:
        parent[tag] = node
        return
    before = parent[tag]
    if isinstance(before, list):
        before.append(node)
    else:
        parent[tag] = [before, node]


def _with_devices(root: Object) -> Object:
    """The root with its name as its device, or with its named elements as a list of devices."""
    for holder in (root, *(inner for inner in root.values() if isinstance(inner, dict) and len(root) == 1)):
        for tag, items in holder.items():
            elements = [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []
            named = [_as_device(element) for element in elements]
            if isinstance(items, list) and len(elements) == len(items) and all("device" in item for item in named):
                devices: list[Json] = [*named]
                return {key: inner for key, inner in holder.items() if key != tag} | {"devices": devices}
    return _as_device(root)


def _as_device(node: Object) -> Object:
    """With the name as the device, and with parts that were only repeated, not the same twice, in one."""
    merged = {key: _merged(inner) for key, inner in node.items()}
    naming = [key for key in merged if fields.squeezed(key) in _NAMING and isinstance(merged[key], (str, int))]
    if fields.roles(merged).device[:1] not in ((), ("id",)) or not naming or "device" in merged or len(merged) < 2:
        return merged
    merged["device"] = str(merged.pop(naming[0]))
    return merged


def _merged(node: Json) -> Json:
    """`<Variable temperature="20"/><Variable power="12"/>` is one variable with two attributes."""
    if not isinstance(node, list):
        return node
    whole: Object = {}
    for item in node:
        if not isinstance(item, dict) or not whole.keys().isdisjoint(item):
            return node
        whole |= item
    return whole


FORMATS: tuple[Format, ...] = (
    Format(name=NAME, read=read, starts=_STARTS, content_types=("application/xml", "text/xml")),
)
