"""Any JSON object or array: flat, nested or a batch; it reads what the more knowing formats leave."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from gateway.formats import fields, identity
from gateway.formats.body import Body, Json
from gateway.formats.draft import located
from gateway.formats.format import Format, Unreadable, named
from gateway.formats.identity import NOBODY, Identity
from gateway.formats.tree import Parts, Tree, parts_of
from gateway.formats.values import kind_of, position
from storage.event import Detail, Event, Message, Quality, Value

NAME = "json"

Object = dict[str, Json]


def read(message: Message, body: Body) -> Sequence[Event] | None:
    """One event of an object, one of each element of a batch."""
    document = body.document
    if document is None:
        if body.json_fault:
            raise Unreadable(body.json_fault)
        return None
    reading = _Reading(message, body)
    if isinstance(document, dict):
        return list(reading.object_or_batch(document))
    if elements := _objects(document):
        return [reading.event(element) for element in elements]
    return [reading.array(document)]


FORMAT = Format(name=NAME, read=read)


class _Reading:
    """One message being read: its events share a topic, a time of arrival and one set of bounds."""

    def __init__(self, message: Message, body: Body) -> None:
        self.message = message
        self.body = body
        self.tree = Tree(body.options)

    def object_or_batch(self, node: Object) -> Iterator[Event]:
        """An object with one array of stamped or named objects is a batch; the rest of it belongs to all of them."""
        arrays = {key: _objects(inner) for key, inner in node.items() if fields.squeezed(key) in fields.BATCHES}
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
        elif len(names) == len(elements) or all(self._stamped(element) for element in elements):
            yield from self._batch(rest, elements)
        else:
            yield self.event(node)

    def event(self, node: Object, beside: Sequence[Object] = (), shared: Identity = NOBODY) -> Event:
        """One object, with the measurements beside it that name themselves, or with what its batch says of it."""
        tree = self.tree
        tree.start()
        inner = _unwrapped(node)
        own = identity.take(inner, self.message.received_at, self.body.options)
        in_topic = self._put(inner, own.device)
        for element in beside:
            self._put_named(element, parts_of(element))
        tree.put_units(own.units or shared.units)
        if where := position(tree.readings):
            tree.put_units(dict.fromkeys(where, "deg"))
        observed_at = shared.observed_at if own.observed_at is None else own.observed_at
        return Event(
            own.device or shared.device or named(in_topic, self.body),
            self.body.place.kind or kind_of(tree.readings),
            NAME,
            self.message.received_at if observed_at is None else observed_at,
            tree.readings,
            observed_at is not None,
            own.seq,
            tree.units or None,
            detailed(tree.readings, tree.quality),
        )

    def array(self, items: list[Json]) -> Event:
        """An array of plain values, named by the topic."""
        place = self.body.place
        self.tree.put(place.scalar_name, items)
        readings = self.tree.readings
        device = named(place.scalar_device, self.body)
        detail = detailed(readings, self.tree.quality)
        return Event(device, place.kind or kind_of(readings), NAME, self.message.received_at, readings, detail=detail)

    def _batch(self, rest: Object, elements: Sequence[Object]) -> Iterator[Event]:
        own = self.event(rest)
        if own.readings:
            yield own
        shared = identity.take(_unwrapped(rest), self.message.received_at, self.body.options)
        for element in elements:
            yield self.event(element, shared=shared)

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
            for key, node in inner.items():
                self.tree.put(key, node)
        return place.device

    def _put_named(self, node: Object, parts: Parts) -> None:
        self.tree.put_measured(str(node[parts.name]), node, parts)

    def _stamped(self, node: Object) -> bool:
        return identity.stamped(node, self.message.received_at, self.body.options)


def detailed(readings: dict[str, Value], quality: dict[str, Quality]) -> Detail | None:
    """The detail of an event, as far as generic JSON has any."""
    location = located(readings)
    return Detail(quality=quality, location=location) if quality or location else None


def _objects(node: Json) -> list[Object]:
    """The elements of an array of objects, nothing of anything else."""
    if not isinstance(node, list):
        return []
    objects = [element for element in node if isinstance(element, dict)]
    return objects if len(objects) == len(node) else []


def _unwrapped(node: Object) -> Object:
    """A copy with the keys of wrappers beside the others; a key that is there already keeps the wrapper's name."""
    wrappers = {
        key: inner for key, inner in node.items() if isinstance(inner, dict) and fields.squeezed(key) in fields.WRAPPERS
    }
    flat = {key: inner for key, inner in node.items() if key not in wrappers}
    for wrapper, items in wrappers.items():
        for key, inner in items.items():
            flat[f"{wrapper}.{key}" if key in flat else key] = inner
    return flat
