"""Plays a stretch of the log again, in its order, at its own pace or another. Never knows who listens."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Generic, Self, TypeVar

import msgspec
from msgspec.structs import replace

from storage.event import Message, StoredEvent
from storage.filters import Clock, Filters
from storage.history import Reader
from storage.off_loop import off_loop
from storage.replay.pace import Pace, time_of
from storage.replay.player import PACED_PAGE_EVENTS, Manner, Played, Player, measured, page_events
from storage.snapshot import OpenLog
from storage.walk import Walk

__all__ = ["Manner", "Pace", "Played", "Player", "measured", "page_events", "time_of"]

T = TypeVar("T")


async def replay(
    path: Path,
    filters: Filters,
    *,
    speed: float | None = 1.0,
    clock: Clock = "received",
    max_gap_us: int | None = None,
    limit: int | None = None,
    played: Played | None = None,
) -> AsyncGenerator[list[StoredEvent], None]:
    """The events in the log now, by their position, in batches: what is due, or a whole page when all of it is.

    Speed 1 is as fast as it happened by the clock, 10 ten times that, None as fast as possible. Silences in the log
    that are longer than `max_gap_us` are played as if they had been that long. `limit` counts events. `played` is
    kept up to date. Raises StoreError. `Player` does the same, and what it is told meanwhile.
    """
    manner = Manner(speed=speed, clock=clock, max_gap_us=max_gap_us)
    async with (
        events_player(path, filters, manner, limit=limit, played=played) as player,
        aclosing(player.batches()) as batches,
    ):
        async for batch in batches:
            yield batch


async def replay_messages(
    path: Path,
    filters: Filters,
    *,
    speed: float | None = 1.0,
    clock: Clock = "received",
    max_gap_us: int | None = None,
    limit: int | None = None,
    played: Played | None = None,
) -> AsyncGenerator[list[tuple[StoredEvent, Message]], None]:
    """The same with the messages as they were received. A message with several events comes with each of them."""
    manner = Manner(speed=speed, clock=clock, max_gap_us=max_gap_us)
    async with (
        messages_player(path, filters, manner, limit=limit, played=played) as player,
        aclosing(player.batches()) as batches,
    ):
        async for batch in batches:
            yield batch


def replay_lines(
    path: Path, filters: Filters, *, limit: int | None = None, played: Played | None = None
) -> Iterator[list[str]]:
    """The same as lines of JSON, as fast as possible and without an event loop."""
    played = played or Played()
    started_s = time.monotonic()
    first: Stamp | None = None
    with Reader(path) as reader:
        for lines in reader.line_pages(filters, limit=limit):
            yield lines
            first, last = first or stamp(lines[0]), stamp(lines[-1])
            played.events += len(lines)
            played.position = last.id
            played.log_s = (last.received_at - first.received_at).total_seconds()
            played.seconds = time.monotonic() - started_s


@asynccontextmanager
async def events_player(
    path: Path, filters: Filters, manner: Manner, *, limit: int | None = None, played: Played | None = None
) -> AsyncIterator[Player[StoredEvent]]:
    """A player of the events in the log now, for the time of the block. Raises StoreError."""

    def pages(reader: Reader, filters: Filters, limit: int | None, page_events: int) -> Iterator[list[StoredEvent]]:
        return reader.pages(filters, limit=limit, page_events=page_events)

    with await off_loop(StoredRange, path, filters, limit, pages, lambda event: event) as source:
        yield Player(source, manner, played)


@asynccontextmanager
async def messages_player(
    path: Path, filters: Filters, manner: Manner, *, limit: int | None = None, played: Played | None = None
) -> AsyncIterator[Player[tuple[StoredEvent, Message]]]:
    """The same for the messages as they were received."""

    def pages(
        reader: Reader, filters: Filters, limit: int | None, page_events: int
    ) -> Iterator[list[tuple[StoredEvent, Message]]]:
        # However fast it goes: payloads may be large.
        return reader.message_pages(filters, limit=limit, page_events=min(page_events, PACED_PAGE_EVENTS))

    with await off_loop(StoredRange, path, filters, limit, pages, lambda pair: pair[0]) as source:
        yield Player(source, manner, played)


Pages = Callable[[Reader, Filters, int | None, int], Iterator[list[T]]]


class StoredRange(Generic[T]):
    """What the filters admit of the log as it is now; `limit` counts events from the first."""

    def __init__(
        self,
        path: Path,
        filters: Filters,
        limit: int | None,
        pages: Pages[T],
        event_of: Callable[[T], StoredEvent],
    ) -> None:
        self.event_of = event_of
        self.start = filters.after
        self._reader = Reader(path)
        try:
            self._log = OpenLog(path)
            last = self._reader.position()
        except BaseException:
            self._reader.close()
            raise
        end = last if filters.until_position is None else min(last, filters.until_position)
        self._filters = replace(filters, until_position=end)
        self._limit = limit
        self._pages = pages

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._reader.close()
        self._log.close()

    def pages(self, after: int, page_events: int) -> Iterator[list[T]]:
        if after <= self.start:
            return self._pages(self._reader, self._filters, self._limit, page_events)
        return self._pages(self._reader, replace(self._limited(), after=after), None, page_events)

    def back_to(self, at: int, position: int) -> tuple[int, int]:
        if (found := self._first(until=at, until_position=position, newest_first=True)) is not None:
            return found[0], at
        first = self._first()
        return self.start, at if first is None else max(at, first[1])

    def on_to(self, at: int, position: int) -> tuple[int, int]:
        end = self._limited().until_position or 0
        if (found := self._first(since=at, after=position, until_position=end)) is not None:
            return found[0] - 1, at
        last = self._first(until_position=end, newest_first=True)
        return end, at if last is None else min(at, last[1])

    def _first(self, *, newest_first: bool = False, **bounds: int) -> tuple[int, int] | None:
        """The first event received within these bounds, in the range or between its parts: where, and when."""
        filters = replace(self._filters, **{"clock": "received", "since": None, "until": None, **bounds})
        rows = walk(self._log, "e.id, m.received_at", filters, 1, newest_first=newest_first)
        return next(((id, at) for id, at in rows), None)

    def _limited(self) -> Filters:
        """The filters with the position in which the limit ends them."""
        if self._limit is not None:
            last = end_of(self._log, self._filters, self._limit)
            self._filters, self._limit = replace(self._filters, until_position=last), None
        return self._filters


def end_of(log: OpenLog, filters: Filters, limit: int) -> int:
    """The position of the last of so many events."""
    last = deque(walk(log, "e.id", filters, limit), maxlen=1)
    return last[0][0] if last else filters.after


def walk(
    log: OpenLog, columns: str, filters: Filters, limit: int, *, newest_first: bool = False
) -> Iterator[tuple[int, ...]]:
    """These columns of so many events in the log now."""
    walk = Walk(log, columns, filters, newest_first=newest_first)
    walk.end_here()
    while limit and not walk.done:
        rows = walk.step(min(limit, 10_000))
        limit -= len(rows)
        yield from rows


def moved(event: StoredEvent, by_us: int) -> StoredEvent:
    """The event with later times, as if it had happened now."""
    return replace(event, observed_at=event.observed_at + by_us, received_at=event.received_at + by_us)


class Stamp(msgspec.Struct, frozen=True):
    """What tells of a line of JSON where it stands in the log."""

    id: int
    received_at: datetime


stamp = msgspec.json.Decoder(Stamp).decode
