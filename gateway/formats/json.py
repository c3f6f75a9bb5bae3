"""Any JSON object or array: flat, nested or a batch; it reads what the more knowing formats leave."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from gateway.formats import fields, identity, units
from gateway.formats.body import Body, Document, Json
from gateway.formats.draft import located
from gateway.formats.format import Format, Unreadable, named
from gateway.formats.identity import NOBODY, Identity
from gateway.formats.tree import Parts, Tree, parts_of
from gateway.formats.values import NO_NUMBER, NO_VALUE, kind_of, position
from storage.event import Detail, Event, Message, Quality, Value

NAME = "json"

Object = dict[str, Json]

_BATCHES = fields.BATCHES | fields.DEVICES | {"features"}


def read(message: Message, body: Body) -> Sequence[Event] | None:
    """One event of an object, one of each element of a batch."""
    document: Document = body.document
    if document is None and body.json_fault:
        document = _lines(body)
        if not document:
            raise Unreadable(body.json_fault)
    return None if document is None else events(document, message, body)


FORMAT = Format(name=NAME, read=read)


def events(
    document: dict[str, Json] | list[Json], message: Message, body: Body, name: str = NAME, *, of_many: bool = False
) -> Sequence[Event]:
    """The events of an object or an array, which may have come out of another encoding.

    `of_many` tells that an array of one element is a batch as well.
    """
    reading = _Reading(message, body, name)
    if isinstance(document, dict):
        return list(reading.object_or_batch(document))
    if elements := _objects(document):
        return [reading.event(element, of_many=of_many or len(elements) > 1) for element in elements]
    return [reading.array(document)]


class _Tree(Tree):
    """A tree without types of its own: `""` is no text, and an object of nothing but a value is that value."""

    def _fill(self, name: str, value: Value) -> None:
        if type(value) is not str or value not in NO_VALUE:
            super()._fill(name, value)
            return
        super()._fill(name, None)
        if value in NO_NUMBER:
            self.quality[name] = "bad"

    def _put_object(self, name: str, node: Object, depth: int) -> None:
        if len(node) == 1 and not name.rpartition(".")[2].isdecimal() and (parts := parts_of(node)).value:
            self.put(name, node[parts.value], depth + 1)
        elif point := _point(node):
            for key, degrees in zip(("longitude", "latitude", "altitude"), point, strict=False):
                self.put(f"{name}.{key}", degrees, depth + 1)
        else:
            super()._put_object(name, node, depth)

    def _put_array(self, name: str, items: list[Json], depth: int) -> None:
        named = _self_named(items)
        if not named:
            super()._put_array(name, items, depth)
        for item, parts in named:
            self.put_measured(f"{name}.{item[parts.name]}", item, parts)


class _Reading:
    """One message being read: its events share a topic, a time of arrival and one set of bounds."""

    def __init__(self, message: Message, body: Body, name: str) -> None:
        self.message = message
        self.body = body
        self.tree = _Tree(body.options)
        self.name = name

    def object_or_batch(self, node: Object) -> Iterator[Event]:
        """An object with one array of stamped or named objects is a batch; the rest of it belongs to all of them."""
        arrays = {key: _objects(inner) for key, inner in node.items() if fields.squeezed(key) in _BATCHES}
        batches = [(key, elements) for key, elements in arrays.items() if elements]
        if len(batches) != 1:
            yield self.event(node)
            return
        ((key, elements),) = batches
        self.tree.count(len(elements))  # before a look into each of them
        rest = {name: inner for name, inner in node.items() if name != key}
        names = [element[parts.name] for element in elements if (parts := parts_of(element)).names_itself]
        if len(set(map(str, names))) == len(elements):
            yield self.event(rest, elements)
        elif self._is_batch(key, elements, all_named=len(names) == len(elements)):
            yield from self._batch(rest, elements)
        else:
            yield self.event(node)

    def event(
        self, node: Object, beside: Sequence[Object] = (), shared: Identity = NOBODY, *, of_many: bool = False
    ) -> Event:
        """One object, with the measurements beside it that name themselves, or with what its batch says of it."""
        tree = self.tree
        tree.start()
        inner = _unwrapped(node)
        own = identity.take(inner, self.message.received_at, self.body.options)
        device = own.device or shared.device or (identity.take_source(inner, self.body.options) if of_many else None)
        in_topic = self._put(inner, own.device)
        for element in beside:
            self._put_named(element, parts_of(element))
        tree.put_units(own.units or shared.units)
        if where := position(tree.readings):
            tree.put_units(dict.fromkeys(where, "deg"))
        observed_at = shared.observed_at if own.observed_at is None else own.observed_at
        return Event(
            device or named(in_topic, self.body),
            self.body.place.kind or kind_of(tree.readings),
            self.name,
            self.message.received_at if observed_at is None else observed_at,
            tree.readings,
            observed_at is not None,
            shared.seq if own.seq is None and shared.boot else own.seq,
            tree.units or None,
            detailed(tree.readings, tree.quality, own.boot or shared.boot),
        )

    def array(self, items: list[Json]) -> Event:
        """An array of plain values, named by the topic."""
        place = self.body.place
        self.tree.put(place.scalar_name, items)
        readings = self.tree.readings
        device = named(place.scalar_device, self.body)
        detail = detailed(readings, self.tree.quality)
        return Event(
            device, place.kind or kind_of(readings), self.name, self.message.received_at, readings, detail=detail
        )

    def _batch(self, rest: Object, elements: Sequence[Object]) -> Iterator[Event]:
        own = self.event(rest)
        if own.readings:
            yield own
        shared = identity.take(_unwrapped(rest), self.message.received_at, self.body.options)
        for element in elements:
            yield self.event(element, shared=shared, of_many=True)

    def _is_batch(self, key: str, elements: Sequence[Object], *, all_named: bool) -> bool:
        of_devices = all(fields.roles(element).device for element in elements)
        if fields.squeezed(key) in fields.DEVICES:
            return of_devices
        return all_named or key == "features" or all(self._stamped(element) for element in elements)

    def _put(self, inner: Object, device: str | None) -> str | None:
        """Fill the tree; gives the device of the topic, which depends on who names the reading."""
        place = self.body.place
        parts = parts_of(inner)
        if parts.names_itself:
            self._put_named(inner, parts)
        elif parts.is_lone_value:
            name = "value" if place.scalar_name == device else place.scalar_name
            self.tree.put_measured(name, inner, parts)
            return place.scalar_device
        else:
            units = _units_beside(inner)
            for key, node in inner.items():
                self.tree.put(key, node)
            self.tree.put_units(units)
        return place.device

    def _put_named(self, node: Object, parts: Parts) -> None:
        self.tree.put_measured(str(node[parts.name]), node, parts)

    def _stamped(self, node: Object) -> bool:
        return identity.stamped(node, self.message.received_at, self.body.options)


def detailed(readings: dict[str, Value], quality: dict[str, Quality], boot: str | None = None) -> Detail | None:
    """The detail of an event, as far as generic JSON has any."""
    location = located(readings)
    return Detail(boot=boot, quality=quality, location=location) if boot or quality or location else None


def _objects(node: Json) -> list[Object]:
    """The elements of an array of objects, nothing of anything else."""
    if not isinstance(node, list):
        return []
    objects = [element for element in node if isinstance(element, dict)]
    return objects if len(objects) == len(node) else []


def _self_named(items: list[Json]) -> list[tuple[Object, Parts]]:
    """An array's measurements with their parts, where all of them name themselves, each otherwise."""
    found = [(item, parts) for item in _objects(items) if (parts := parts_of(item)).names_itself]
    names = {str(item[parts.name]) for item, parts in found}
    return found if len(names) == len(items) else []


def _point(node: Object) -> list[Json]:
    """The numbers of a GeoJSON point (RFC 7946): longitude first."""
    if node.get("type") != "Point" or len(node) != 2:
        return []
    degrees = node.get("coordinates")
    if not isinstance(degrees, list) or not 2 <= len(degrees) <= 3:
        return []
    return degrees if all(type(number) in (int, float) for number in degrees) else []


def _units_beside(node: Object) -> dict[str, Json]:
    """Take out a `temperature_unit` beside a `temperature`, or a lone `unit` beside a lone number."""
    found: dict[str, Json] = {}
    for key in [key for key, inner in node.items() if isinstance(inner, str) and fields.tells_unit(key)]:
        unit = node[key]
        name = _measured(node, key)
        if name is not None and isinstance(unit, str) and units.code(unit):
            found[name] = unit
            del node[key]
    return found


def _measured(node: Object, key: str) -> str | None:
    """Whose unit stands under a key."""
    short = fields.squeezed(key)
    if short in fields.UNIT:
        names = [name for name, value in node.items() if type(value) in (int, float)]
        return names[0] if len(names) == 1 else None
    bases = {short.removesuffix(ending).rstrip(".") for ending in fields.UNIT_ENDINGS if short.endswith(ending)}
    return next((name for name in node if fields.squeezed(name) in bases), None)


def _lines(body: Body) -> list[Json]:
    """The objects of a text that has one on each line, nothing of any other."""
    text = body.text or ""
    if text.count("\n") > body.options.entries:
        return []
    lines = [line for line in text.splitlines() if line.strip()]
    if not all(line.lstrip().startswith("{") and line.rstrip().endswith("}") for line in lines):
        return []
    try:
        return [msgspec.json.decode(line) for line in lines]
    except (msgspec.MsgspecError, RecursionError):
        return []


def _unwrapped(node: Object) -> Object:
    """A copy with the keys of wrappers beside the others; a key that is there already keeps the wrapper's name."""
    feature = node.get("type") == "Feature"
    wrappers = {
        key: inner
        for key, inner in node.items()
        if isinstance(inner, dict) and (fields.squeezed(key) in fields.WRAPPERS or (feature and key == "properties"))
    }
    flat = {key: inner for key, inner in node.items() if key not in wrappers}
    for wrapper, items in wrappers.items():
        for key, inner in items.items():
            flat[f"{wrapper}.{key}" if key in flat else key] = inner
    return flat
