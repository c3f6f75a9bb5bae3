"""Chooses the format of each message, and lets no format stop the process."""

from __future__ import annotations

from asyncio import CancelledError
from collections.abc import Iterable, Iterator, Sequence

from gateway.formats import json, plain, texts
from gateway.formats.body import Body
from gateway.formats.fitness import unfit
from gateway.formats.format import Format, Unreadable
from gateway.formats.options import Options
from gateway.formats.quick import Quick
from gateway.formats.routes import Route, Routes
from storage.event import Message, Outcome, Properties, Rejection

SPECIFIC: tuple[Format, ...] = ()
"""The formats that know their payloads: each says where it may apply, and its reader confirms it."""
GENERIC: tuple[Format, ...] = (json.FORMAT, plain.FORMAT)
"""What is left goes to them: any JSON, then any text."""


class Formats:
    """Reads messages into events; remembers topics and shapes, within bounds, and no message."""

    def __init__(self, options: Options | None = None, specific: Sequence[Format] = SPECIFIC) -> None:
        self._options = options or Options()
        self._by_property = tuple(row for row in specific if row.content_types or row.user_properties)
        self._by_start = tuple(row for row in specific if row.starts)
        self._starts = tuple(start for row in self._by_start for start in row.starts)
        self._by_keys = tuple(row for row in specific if row.keys)
        self._unsigned = tuple(row for row in specific if not row.signed)
        self._routes = Routes(specific, self._options)
        named = [keys for row in self._by_keys for keys in row.keys]
        self._quick = Quick(self._options, self._routes, self._named_by, named)

    def read(self, message: Message) -> Outcome:
        """The events of one message, or why there are none; never raises for what a message holds."""
        return self._quick.read(message) or self.read_in_full(message)

    def read_all(self, messages: Iterable[Message]) -> list[Outcome]:
        """The outcomes of many messages, in their order."""
        quick, in_full = self._quick.read, self.read_in_full
        return [quick(message) or in_full(message) for message in messages]

    def read_in_full(self, message: Message) -> Outcome:
        """What `read` gives, without its short cut for common JSON."""
        size, most = len(message.payload), self._options.payload_bytes
        if size > most:
            return Rejection(f"a payload of {size} bytes, over the limit of {most} (payload_bytes)")
        route = self._routes[message.topic]
        body = Body(message.payload, self._options, route.place)
        tried: list[Format] = []
        for row in self._candidates(message, body, route):
            if row not in tried:
                tried.append(row)
                outcome = _guarded(row, message, body)
                if outcome is not None:
                    return outcome
        return Rejection(f"no format fits: {body.text_fault or 'it is neither JSON nor text'}")

    def _candidates(self, message: Message, body: Body, route: Route) -> Iterator[Format]:
        """The rows to try, those first whose sign says most: properties, topic, content."""
        if message.properties is not None:
            yield from self._named_by(message.properties)
        yield from route.rows
        if body.payload.startswith(self._starts):
            yield from (row for row in self._by_start if body.payload.startswith(row.starts))
        if self._by_keys and (keys := _top_keys(body)):
            yield from (row for row in self._by_keys if any(named <= keys for named in row.keys))
        if self._unsigned and body.document is None:
            yield from self._unsigned
        yield from GENERIC

    def _named_by(self, properties: Properties) -> list[Format]:
        """The rows that a message's MQTT 5 properties call for."""
        if not self._by_property or not (properties.content_type or properties.user):
            return []
        content_type = (properties.content_type or "").partition(";")[0].strip().lower()
        user = {name for name, _ in properties.user}
        return [
            row
            for row in self._by_property
            if content_type in row.content_types or not user.isdisjoint(row.user_properties)
        ]


def _guarded(row: Format, message: Message, body: Body) -> Outcome | None:
    """What one format makes of one message; whatever it raises costs this message a rejection, and nothing else."""
    try:
        events = row.read(message, body)
        if events is None or row in GENERIC:  # whose tests hold that what they give can be stored
            return events
        fault = unfit(events)
        return Rejection(f"the format gave what cannot be stored: {fault}", row.name) if fault else events
    except Unreadable as why:
        return Rejection(texts.shortened(str(why)), row.name)
    except (KeyboardInterrupt, SystemExit, CancelledError, GeneratorExit):
        raise
    except BaseException as fault:  # noqa: BLE001  a panic in a Rust extension is no Exception
        return Rejection(f"the format failed on this message: {_described(fault)}", row.name)


def _described(fault: BaseException) -> str:
    # Not str(fault): that may be the failing library's code again.
    text = next((arg for arg in fault.args if type(arg) is str), "without a word")
    return texts.shortened(f"{type(fault).__name__}: {text}")


def _top_keys(body: Body) -> frozenset[str]:
    """The keys of an object, or of the first object of an array."""
    document = body.document
    first = document[0] if isinstance(document, list) and document else document
    return frozenset(first) if isinstance(first, dict) else frozenset()
