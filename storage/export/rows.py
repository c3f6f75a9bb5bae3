"""What a row of an export is, for each event or for each reading, and how it is written. Never reads the log."""

from __future__ import annotations

import csv
import io
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from storage.event import Message, StoredEvent, Value
from storage.event_json import events_json
from storage.export.request import RowsName
from storage.times import iso

Column = tuple[str, str]
"""A name, and a type, by a word that `parquet.schema` explains."""


class EventRows:
    """A row for each event, with the fields of `amber events`."""

    columns: tuple[Column, ...] = (
        ("id", "int"),
        ("message_id", "int"),
        ("device", "name"),
        ("kind", "name"),
        ("observed_at", "time"),
        ("received_at", "time"),
        ("time_source", "name"),
        ("topic", "name"),
        ("format", "name"),
        ("qos", "small"),
        ("retain", "bool"),
        ("seq", "int"),
        ("readings", "text"),
        ("units", "name"),
        ("detail", "text"),
    )
    with_payload: tuple[Column, ...] = (*columns, ("payload", "bytes"), ("properties", "text"))

    def header(self, *, payload: bool) -> list[str]:
        return [name for name, _ in self.columns] + ["payload", "payload_b64", "properties"] * payload

    def lines(
        self, events: Sequence[StoredEvent], messages: Sequence[Message] | None, _: Sequence[str] = ()
    ) -> list[str]:
        lines = events_json(events)
        if messages is None:
            return lines
        return [f"{line[:-1]},{message_json(message)[1:]}" for line, message in zip(lines, messages, strict=True)]

    def records(
        self, events: Sequence[StoredEvent], messages: Sequence[Message] | None, _: Sequence[str] = ()
    ) -> list[tuple[object, ...]]:
        units = UnitsJson()
        rows = [
            (
                e.id,
                e.message_id,
                e.device,
                e.kind,
                e.observed_at,
                e.received_at,
                "device" if e.from_device else "gateway",
                e.topic,
                e.format,
                e.qos,
                e.retain,
                e.seq,
                e.readings,
                units.of(e.units),
                e.detail,
            )
            for e in events
        ]
        if messages is None:
            return list(rows)
        return [(*row, message.payload, properties_json(message)) for row, message in zip(rows, messages, strict=True)]

    def as_text(self, row: Sequence[Any]) -> Sequence[object]:
        """A row as CSV has it, as `amber events` prints it."""
        text = [*row[:4], iso(row[4]), iso(row[5]), *row[6:10], "true" if row[10] else "false", *row[11:15]]
        if len(row) == 15:
            return text
        payload = payload_fields(row[15])
        return [*text, payload.get("payload"), payload.get("payload_b64"), row[16]]


class ReadingRows:
    """A row for each reading. A number is a float; an integer that no float can hold stands as text."""

    columns: tuple[Column, ...] = (
        ("event_id", "int"),
        ("device", "name"),
        ("reading", "name"),
        ("observed_at", "time"),
        ("received_at", "time"),
        ("number", "float"),
        ("text", "text"),
        ("boolean", "bool"),
        ("unit", "name"),
        ("quality", "name"),
    )
    with_payload = columns

    def header(self, **_: bool) -> list[str]:
        return [name for name, _ in self.columns]

    def lines(self, events: Sequence[StoredEvent], _: object, wanted: Sequence[str]) -> list[str]:
        names = self.header()
        encode = msgspec.json.Encoder().encode
        return [
            encode(dict(zip(names, (*row[:3], iso(row[3]), iso(row[4]), *row[5:]), strict=True))).decode()
            for row in self.records(events, None, wanted)
        ]

    def records(self, events: Sequence[StoredEvent], _: object, wanted: Sequence[str]) -> list[tuple[Any, ...]]:
        rows: list[tuple[Any, ...]] = []
        for event in events:
            quality = {} if event.detail is None else decode_quality(event.detail).quality
            for name, value in decode_readings(event.readings).items():
                if wanted and name not in wanted:
                    continue
                head = event.id, event.device, name, event.observed_at, event.received_at
                rows.append((*head, *split(value), event.units.get(name), quality.get(name)))
        return rows

    def as_text(self, row: Sequence[Any]) -> Sequence[object]:
        boolean = None if row[7] is None else "true" if row[7] else "false"
        return [*row[:3], iso(row[3]), iso(row[4]), *row[5:7], boolean, *row[8:]]


SHAPES: Mapping[RowsName, EventRows | ReadingRows] = {"events": EventRows(), "readings": ReadingRows()}


class Quality(msgspec.Struct, frozen=True):
    """The part of a detail that speaks of single readings."""

    quality: dict[str, str] = {}


decode_readings = msgspec.json.Decoder(dict[str, Value]).decode
decode_quality = msgspec.json.Decoder(Quality).decode


def split(value: Value) -> tuple[float | None, str | None, bool | None]:
    """A value as number, text and boolean, of which one is it."""
    if isinstance(value, bool):
        return None, None, value
    if isinstance(value, str):
        return None, value, None
    if isinstance(value, int):
        try:
            return float(value), None, None
        except OverflowError:
            return None, str(value), None
    return value, None, None


class UnitsJson(dict[int, tuple[object, str]]):
    """The JSON of units; events of one device share theirs, which is held here so that its place is not taken."""

    def of(self, units: Mapping[str, str]) -> str:
        known = self.get(id(units))
        if known is None:
            known = self[id(units)] = units, msgspec.json.encode(units).decode()
        return known[1]


def message_json(message: Message) -> str:
    """What an event's line has of its message: the payload, as text or in base64, and the properties."""
    properties = None if message.properties is None else msgspec.to_builtins(message.properties)
    return msgspec.json.encode({**payload_fields(message.payload), "properties": properties}).decode()


def properties_json(message: Message) -> str | None:
    return None if message.properties is None else msgspec.json.encode(message.properties).decode()


def payload_fields(payload: bytes) -> dict[str, str]:
    """As text where it is text, else in base64 under a name that says so."""
    try:
        return {"payload": payload.decode()}
    except UnicodeDecodeError:
        return {"payload_b64": b64encode(payload).decode()}


def csv_text(rows: Iterable[Sequence[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
