"""Reads the events of an export page by page, as rows or as text. Never knows where they go."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from storage.event import Message, StoredEvent
from storage.export.request import Done, Request
from storage.export.rows import SHAPES, csv_text
from storage.filters import Filters
from storage.history import PAGE_EVENTS
from storage.shapes import Shape, Shapes
from storage.snapshot import OpenLog
from storage.walk import Walk

PAGE_BYTES = 4 << 20
"""Of payloads in memory at a time."""

CACHE_KB = 2_000
"""What is read once from one end to the other needs no more of it."""

T = TypeVar("T")


class Page(msgspec.Struct, frozen=True):
    """Events that follow each other, as text or as rows, with the position of the last."""

    position: int
    events: int
    rows: int
    text: str = ""
    table: Sequence[Sequence[Any]] = ()


def pages(store: Path, request: Request, done: Done) -> Iterator[Page]:
    """The events that are not done yet, as they are written."""
    limit = sys.maxsize if request.limit is None else request.limit - done.events
    filters = msgspec.structs.replace(request.filters, after=max(done.position, request.filters.after))
    log = OpenLog(store)
    try:
        log.rows(f"PRAGMA cache_size=-{CACHE_KB}")
        if (request.format, request.rows, request.payload) == ("jsonl", "events", False):
            for lines in walked(log, Shapes(log).lines, filters, limit):
                yield Page(line_id(lines[-1]), len(lines), len(lines), "\n".join([*lines, ""]))
            return
        for events, messages in read(log, filters, limit, with_messages=request.payload):
            yield page(request, events, messages)
    finally:
        log.close()


def page(request: Request, events: list[StoredEvent], messages: list[Message] | None) -> Page:
    """Events that follow each other, as they are written."""
    shape, wanted = SHAPES[request.rows], request.filters.readings
    position, count = events[-1].id, len(events)
    if request.format == "jsonl":
        lines = shape.lines(events, messages, wanted)
        return Page(position, count, len(lines), "\n".join([*lines, ""]) if lines else "")
    rows = shape.records(events, messages, wanted)
    if request.format == "csv":
        return Page(position, count, len(rows), csv_text(map(shape.as_text, rows)))
    return Page(position, count, len(rows), table=rows)


def line_id(line: str) -> int:
    """The id of an event's line, in which it stands first."""
    return int(line[len('{"id":') : line.index(",")])


Read = tuple[list[StoredEvent], list[Message] | None]


def read(log: OpenLog, filters: Filters, limit: int, *, with_messages: bool) -> Iterator[Read]:
    """Pages of events, with their messages where they are wanted."""
    if with_messages:
        yield from read_messages(log, filters, limit)
    else:
        for events in walked(log, Shapes(log).events, filters, limit):
            yield events, None


def walked(log: OpenLog, shape: Shape[T], filters: Filters, limit: int) -> Iterator[list[T]]:
    """Pages of a shape, none of them empty."""
    walk = Walk(log, shape.columns, filters)
    while not walk.done and limit > 0:
        if rows := walk.step(min(limit, PAGE_EVENTS)):
            limit -= len(rows)
            yield shape.build(rows)


def read_messages(log: OpenLog, filters: Filters, limit: int) -> Iterator[Read]:
    """Pages that are bounded in bytes too: a first walk asks how large the payloads are, a second fetches them."""
    shape = Shapes(log).messages
    sizes, walk = Walk(log, "e.id, length(m.payload)", filters), Walk(log, shape.columns, filters)
    while not sizes.done and limit > 0:
        for count, last in bounded(sizes.step(min(limit, PAGE_EVENTS))):
            while walk.low < last and limit > 0:
                if pairs := shape.build(walk.step(min(limit, count))):
                    limit -= len(pairs)
                    yield [event for event, _ in pairs], [message for _, message in pairs]


def bounded(sizes: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Of ids with their bytes: how many make a page, and the last of them."""
    count = size = 0
    for number, (id, payload_bytes) in enumerate(sizes, 1):
        count, size = count + 1, size + payload_bytes
        if size >= PAGE_BYTES or number == len(sizes):
            yield count, id
            count = size = 0
