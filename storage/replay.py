"""Plays a stretch of the log again, in its order, at its own pace or another. Never knows who listens."""

from __future__ import annotations

import asyncio
import math
import time
from bisect import bisect_right
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from contextlib import aclosing
from datetime import datetime
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import msgspec

from storage.event import Message, StoredEvent
from storage.filters import Clock, Filters
from storage.history import Reader

CLOCKS_SET_SINCE_US = 978_307_200_000_000
"""2001: a device's clock that nobody has set starts in 1970, in 1980 (GPS) or in 2000."""

CLOCK_STEP_US = 60_000_000
"""When the gateway's own clock goes back by more than this, somebody has set it."""

PACED_PAGE_EVENTS = 200
"""A thread that makes so many events out of rows lets the others wait for less than a millisecond."""

PAGE_EVENTS = 2_000

T = TypeVar("T")


class Played(msgspec.Struct):
    """What a replay has given out so far: events, up to which position, how far that is on the clock of the log."""

    events: int = 0
    position: int = 0
    log_s: float = 0.0
    seconds: float = 0.0
    worst_lateness_s: float = 0.0

    @property
    def events_per_s(self) -> float:
        return self.events / self.seconds if self.seconds else 0.0

    @property
    def speed(self) -> float:
        return self.log_s / self.seconds if self.seconds else 0.0


class Watch(Protocol):
    """Time as a replay knows it."""

    def now_s(self) -> float:
        """Seconds on a clock that nobody sets."""

    async def sleep(self, seconds: float) -> None:
        """Wait about as long as that."""


class Monotonic:
    """The machine's time."""

    def now_s(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def replay(
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
    kept up to date. Raises StoreError.
    """

    def pages(reader: Reader) -> Iterator[list[StoredEvent]]:
        return reader.pages(filters, limit=limit, page_events=page_events(speed))

    pace = Pace(speed, clock, max_gap_us)
    return _replay(path, pages, lambda event: event, pace, played)


def replay_messages(
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

    def pages(reader: Reader) -> Iterator[list[tuple[StoredEvent, Message]]]:
        # However fast it goes: payloads may be large.
        return reader.message_pages(filters, limit=limit, page_events=PACED_PAGE_EVENTS)

    pace = Pace(speed, clock, max_gap_us)
    return _replay(path, pages, lambda pair: pair[0], pace, played)


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


async def _replay(
    path: Path,
    pages: Callable[[Reader], Iterator[list[T]]],
    event_of: Callable[[T], StoredEvent],
    pace: Pace,
    played: Played | None,
) -> AsyncGenerator[list[T], None]:
    with await asyncio.to_thread(Reader, path) as reader:
        async with aclosing(play(pages(reader), event_of, pace, played or Played(), Monotonic())) as batches:
            async for batch in batches:
                yield batch


async def play(
    pages: Iterator[list[T]], event_of: Callable[[T], StoredEvent], pace: Pace, played: Played, watch: Watch
) -> AsyncGenerator[list[T], None]:
    """What the pages hold, in batches: never before it is due, and as soon as it is.

    Due times count from the start, not from one another, so no lateness adds up.
    """
    started_s: float | None = None
    async with aclosing(Ahead(measured(pages, event_of, pace))) as ahead:
        while measured_page := await ahead.next():
            page, log_s = measured_page
            started_s = watch.now_s() if started_s is None else started_s
            due_s = [started_s + seconds / pace.speed for seconds in log_s]
            begin = 0
            while begin < len(page):
                now_s = watch.now_s()
                end = bisect_right(due_s, now_s, begin)
                if end == begin:
                    ahead.begin()
                    await watch.sleep(due_s[begin] - now_s)
                    continue
                if pace.speed < math.inf:
                    played.worst_lateness_s = max(played.worst_lateness_s, now_s - due_s[begin])
                yield page[begin:end]
                played.events += end - begin
                played.position = event_of(page[end - 1]).id
                played.log_s = log_s[end - 1]
                played.seconds = watch.now_s() - started_s
                begin = end


def measured(
    pages: Iterable[list[T]], event_of: Callable[[T], StoredEvent], pace: Pace
) -> Iterator[tuple[list[T], list[float]]]:
    """The pages, each with how far its events are from the first of all, in seconds of the log."""
    return ((page, [pace.log_s(event_of(item)) for item in page]) for page in pages)


class Pace:
    """How fast to play, and how far each event is from the first, told from those before it.

    It follows the highest time so far. What lies before that comes at once: a device that was away brings late what
    it has kept. When the gateway's own clock was set back, the pace goes on from there.
    """

    def __init__(self, speed: float | None, clock: Clock, max_gap_us: int | None = None) -> None:
        self.speed = math.inf if speed is None else speed
        if not self.speed > 0:
            raise ValueError(f"the speed is {speed}: it must be above 0, or None for as fast as possible")
        self._clock = clock
        self._max_gap_us = max_gap_us
        self._highest_us: int | None = None
        self._played_us = 0

    def log_s(self, event: StoredEvent) -> float:
        """Seconds of the log up to this event, with shortened silences; never less than for the event before."""
        at = time_of(event, self._clock)
        highest = at if self._highest_us is None else self._highest_us
        gap = max(at - highest, 0)
        self._played_us += gap if self._max_gap_us is None else min(gap, self._max_gap_us)
        was_set_back = self._clock == "received" and at < highest - CLOCK_STEP_US
        self._highest_us = at if was_set_back else max(at, highest)
        return self._played_us / 1e6


def time_of(event: StoredEvent, clock: Clock) -> int:
    """Microseconds on the clock; where a device's own cannot be right, on the gateway's.

    Nothing is observed after it was received: one device in the year 2100 would hold up all others until then.
    """
    if clock == "observed" and event.observed_at >= CLOCKS_SET_SINCE_US:
        return min(event.observed_at, event.received_at)
    return event.received_at


def page_events(speed: float | None) -> int:
    return PAGE_EVENTS if speed is None else PACED_PAGE_EVENTS


class Ahead(Generic[T]):
    """Pages, each read on another thread: while the one before is played and there is time, else when it is needed.

    Reading and rendering at the same time would only take turns with the interpreter, and lose by it.
    """

    def __init__(self, pages: Iterator[T]) -> None:
        self._pages = pages
        self._loop = asyncio.get_running_loop()
        self._reading: asyncio.Future[T | None] | None = None

    def begin(self) -> asyncio.Future[T | None]:
        """Start to read the next page, unless that has been done."""
        if self._reading is None:
            self._reading = self._loop.run_in_executor(None, next, self._pages, None)
        return self._reading

    async def next(self) -> T | None:
        """The next page; None after the last."""
        reading = self.begin()
        await asyncio.wait([reading])  # `await reading` would, cancelled, forget the thread that still reads
        page = reading.result()
        self._reading = None
        return page

    async def aclose(self) -> None:
        """Wait until nothing is being read; what has been is thrown away."""
        if self._reading is not None:
            await asyncio.wait([self._reading])
            self._reading.exception()


class Stamp(msgspec.Struct, frozen=True):
    """What tells of a line of JSON where it stands in the log."""

    id: int
    received_at: datetime


stamp = msgspec.json.Decoder(Stamp).decode
