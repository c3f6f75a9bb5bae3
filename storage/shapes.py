"""What a row of the log becomes for those who ask: an event, an event with its message, a line of JSON."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, Generic, TypeVar

import msgspec

from storage import own_units
from storage.conditions import Row, quoted
from storage.event import Message, Properties, StoredEvent
from storage.event_json import lines, marks_json
from storage.names import Names, Units
from storage.snapshot import OpenLog

T = TypeVar("T")


class Shape(msgspec.Struct, Generic[T], frozen=True):
    """The columns to ask for, the id first, and what to make of the rows."""

    columns: str
    build: Callable[[Sequence[Row]], list[T]]


class Shapes:
    """The shapes of one open log, and the names that they share."""

    def __init__(self, log: OpenLog) -> None:
        self._log = log
        self._devices = Names(log, "devices", "device", str)
        self._topics = Names(log, "topics", "topic", str)
        self._words = Names(log, "words", "word", str)
        self._units = Units(log)

    @cached_property
    def events(self) -> Shape[StoredEvent]:
        return Shape(_EVENT, self._events)

    @cached_property
    def messages(self) -> Shape[tuple[StoredEvent, Message]]:
        """Each event with its message whole; events of one message share it."""
        return Shape(_EVENT + _MESSAGE, self._messages)

    @cached_property
    def lines(self) -> Shape[str]:
        """Each event as a line of JSON, straight from the row: events in between would cost half the rate."""
        device_json = Names(self._log, "devices", "device", quoted)
        topic_json = Names(self._log, "topics", "topic", quoted)
        marks, units = Marks(self._words), self._units

        def build(rows: Sequence[Row]) -> list[str]:
            units.refresh()
            return lines(rows, devices=device_json, topics=topic_json, marks=marks, units=units)

        return Shape(_PACKED, build)

    def topic(self, id: int) -> str:
        return self._topics[id]

    def _events(self, rows: Sequence[Row]) -> list[StoredEvent]:
        devices, topics, words, units = self._devices, self._topics, self._words, self._units
        units.refresh()
        events = [
            StoredEvent(
                id,
                message_id,
                devices[device_id],
                words[kind_id],
                observed_at,
                received_at,
                from_device == 1,
                topics[topic_id],
                words[format_id],
                qos,
                retain == 1,
                seq,
                readings,
                NO_UNITS if (known := units[device_id]) is None else known.of(readings)[0],
                detail,
            )
            for (
                id,
                message_id,
                device_id,
                kind_id,
                observed_at,
                received_at,
                from_device,
                topic_id,
                format_id,
                qos,
                retain,
                seq,
                readings,
                detail,
            ) in rows
        ]
        return [_with_own_units(event) if event.detail is not None else event for event in events]

    def _messages(self, rows: Sequence[Row]) -> list[tuple[StoredEvent, Message]]:
        width = len(rows[0]) - 3 if rows else 0
        events = self._events([row[:width] for row in rows])
        pairs: list[tuple[StoredEvent, Message]] = []
        for event, row in zip(events, rows, strict=True):
            if pairs and pairs[-1][0].message_id == event.message_id:
                pairs.append((event, pairs[-1][1]))
            else:
                head = event.qos, event.retain, event.received_at
                pairs.append((event, message(event.topic, (*head, *row[width:]))))
        return pairs


class Marks(dict[int, tuple[str, str, str]]):
    """The ready pieces of a line for each number that stands for kind, format, time source, QoS and retain."""

    def __init__(self, words: Names[str]) -> None:
        super().__init__()
        self._words = words

    def __missing__(self, mark: int) -> tuple[str, str, str]:
        names, flags = divmod(mark, 16)
        kind_id, format_id = divmod(names, 1 << 24)
        kind, format = self._words[kind_id], self._words[format_id]
        pieces = self[mark] = marks_json(kind, format, flags >= 8, flags >> 1 & 3, flags & 1 == 1)
        return pieces


def _with_own_units(event: StoredEvent) -> StoredEvent:
    if event.detail is None or not event.detail.startswith(own_units.MARK):
        return event
    own, detail = own_units.taken(event.detail)
    return msgspec.structs.replace(event, units={**event.units, **own}, detail=detail)


NO_UNITS: dict[str, str] = {}

_EVENT = (
    "e.id, m.id, e.device_id, e.kind_id, e.observed_at, m.received_at, e.from_device, m.topic_id, e.format_id,"
    " m.qos, m.retain, e.seq, e.readings, e.detail"
)
_MESSAGE = ", m.packet_id, m.properties, m.payload"
_PACKED = (
    "e.id, m.id, e.device_id, e.observed_at, m.received_at, m.topic_id,"
    " (((e.kind_id << 24) + e.format_id) << 4) + (e.from_device << 3) + (m.qos << 1) + m.retain, e.seq, e.readings,"
    " e.detail"
)


def message(topic: str, row: Sequence[Any]) -> Message:
    """A message of QoS, retain, time of receipt, packet id, properties and payload as they are stored."""
    qos, retain, received_at, packet_id, properties, payload = row
    known = None if properties is None else msgspec.json.decode(properties, type=Properties)
    return Message(topic, payload, qos, retain == 1, received_at, packet_id, properties=known)
