"""Plays a range of the log and does as it is told meanwhile: pause, step, seek, speed. Never knows who tells it."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from bisect import bisect_right
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from contextlib import aclosing
from typing import Generic, Protocol, TypeVar

import msgspec

from storage.event import StoredEvent
from storage.filters import Clock
from storage.off_loop import off_loop
from storage.replay.pace import Limit, Pace, Timeline, speed_of

PACED_PAGE_EVENTS = 200
"""A thread that makes so many events out of rows lets the others wait for less than a millisecond."""

PAGE_EVENTS = 2_000

FARTHEST_S = 1e12
FARTHEST_US = 2**62
"""No seek leads farther: SQLite has no room for much later times."""

T = TypeVar("T")


class Manner(msgspec.Struct, frozen=True, kw_only=True):
    """How to play.

    Speed 1 is as fast as it happened by the clock, 10 ten times that, None as fast as possible. Silences in the log
    that are longer than `max_gap_us` are played as if they had been that long. `rate` is the most events a second.
    Whoever plays more than one of the `rounds` begins again at the end; None is without end. Raises ValueError.
    """

    speed: float | None = 1.0
    clock: Clock = "received"
    max_gap_us: int | None = None
    rate: float | None = None
    rounds: int | None = 1
    paused: bool = False

    def __post_init__(self) -> None:
        speed_of(self.speed)
        Limit(self.rate)


class Played(msgspec.Struct):
    """What a replay has given out so far: events, up to which position, how far that is on the clock of the log.

    `round` counts from 1; it is that of the last batch.
    """

    events: int = 0
    position: int = 0
    log_s: float = 0.0
    seconds: float = 0.0
    worst_lateness_s: float = 0.0
    round: int = 1

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

    async def wait(self, seconds: float, bell: asyncio.Event) -> None:
        """About as long as that, which may be infinite, or until the bell is set."""


class Monotonic:
    """The machine's time."""

    def now_s(self) -> float:
        return time.monotonic()

    async def wait(self, seconds: float, bell: asyncio.Event) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None if seconds == math.inf else seconds):
                await bell.wait()


class Source(Protocol[T]):
    """What is played. Used by one thread at a time, and not the one that plays."""

    start: int
    """The position behind which it begins."""

    def pages(self, after: int, page_events: int) -> Iterator[list[T]]:
        """What it has behind a position, in order; the same range however often it is asked."""

    def event_of(self, item: T) -> StoredEvent: ...

    def back_to(self, at: int, position: int) -> tuple[int, int]:
        """The position, up to this one, behind which nothing was received before a time, and that time.

        Or the start, and when that was.
        """

    def on_to(self, at: int, position: int) -> tuple[int, int]:
        """The position, from this one on, behind which the first event received then or later stands, and that time.

        Or the end, and when that was.
        """


class Player(Generic[T]):
    """A range that is being played.

    Iterate over `batches` once. All else is for the thread of the same event loop, and takes effect at once.
    """

    def __init__(
        self, source: Source[T], manner: Manner, played: Played | None = None, watch: Watch | None = None
    ) -> None:
        self.played = played or Played()
        self._source = source
        self._manner = manner
        self._watch = watch or Monotonic()
        self._speed = speed_of(manner.speed)
        self._paused = manner.paused
        self._stopped = False
        self._steps = 0
        self._sought_us = 0
        self._limit = Limit(manner.rate)
        self._bell = asyncio.Event()
        self._line: Timeline | None = None
        self._started_s = 0.0
        self._place = source.start
        self._next_log_s = math.inf
        self._received: tuple[int, float] | None = None  # a time of the log, and how far that is on its clock

    # --- what it is told ---

    def pause(self) -> None:
        """Stand still, until `resume`."""
        self._paused = True
        self._change()

    def resume(self) -> None:
        self._paused, self._steps = False, 0
        self._change()

    def step(self, events: int = 1) -> None:
        """Give out so many events, whenever they are due; only while it is paused."""
        if self._paused:
            self._steps += events
            self._bell.set()

    def seek(self, seconds: float) -> None:
        """Go on as many seconds of the log later, by the gateway's clock, or earlier; never out of the range."""
        us = round(min(max(seconds, -FARTHEST_S), FARTHEST_S) * 1e6) + self._sought_us
        self._sought_us = min(max(us, -FARTHEST_US), FARTHEST_US)
        self._bell.set()

    def stop(self) -> None:
        """Give out nothing more."""
        self._stopped = True
        self._bell.set()

    @property
    def speed(self) -> float | None:
        return None if self._speed == math.inf else self._speed

    @speed.setter
    def speed(self, speed: float | None) -> None:
        self._speed = speed_of(speed)
        self._change()

    @property
    def paused(self) -> bool:
        return self._paused

    @property
    def stopped(self) -> bool:
        return self._stopped

    def received_at(self) -> int | None:
        """The time of the log that is being played, by the gateway's clock: microseconds. None before the first."""
        if self._received is None:
            return None
        at, log_s = self._received
        return at + round((self._log_s_at(self._watch.now_s()) - log_s) * 1e6)

    # --- what it gives ---

    async def batches(self) -> AsyncGenerator[list[T], None]:
        """What is due, or a whole page when all of it is: never before it is due, and as soon as it is."""
        manner, played = self._manner, self.played
        way = Way(self._source.start)
        while not self._stopped:
            pace = Pace(self.speed, manner.clock, manner.max_gap_us, begin_s=way.begin_s, highest_us=way.highest_us)
            pages = self._source.pages(way.after, self._page_events())
            any_page = False
            async with aclosing(Ahead(measured(pages, self._source.event_of, pace))) as ahead:
                while not self._interrupted and (measured_page := await ahead.next()):
                    any_page = True
                    async with aclosing(self._in_time(*measured_page, ahead)) as batches:
                        async for batch in batches:
                            yield batch
            while (any_page or way.sought) and self._paused and not self._steps and not self._interrupted:
                await self._rest(math.inf)  # at the end one may still go back
            if self.stopped:
                return
            if self._sought_us:
                way = await self._seek()
            elif played.round == manner.rounds or not (any_page or way.sought):
                return  # an empty range would go round for ever
            else:
                played.round += 1
                way = Way(self._source.start, begin_s=played.log_s)

    async def _in_time(
        self, page: list[T], log_s: list[float], ahead: Ahead[tuple[list[T], list[float]]]
    ) -> AsyncGenerator[list[T], None]:
        """The page, until something else is wanted."""
        played, limit = self.played, self._limit
        if self._line is None:
            self._started_s = self._watch.now_s()
            self._line = Timeline(self._started_s, log_s[0], 0.0 if self._paused else self._speed)
        line: Timeline | None = None
        due_s: list[float] = []
        begin = 0
        while begin < len(page) and not self._interrupted:
            self._next_log_s = log_s[begin]
            if self._received is None:
                self._received = self._source.event_of(page[0]).received_at, log_s[0]
            if line is not self._line:
                line = self._line
                due_s = [line.due_s(seconds) for seconds in log_s]
            now_s = self._watch.now_s()
            stepping = self._paused and self._steps > 0
            if stepping:
                self._steps -= 1
                self._line = Timeline(now_s, log_s[begin], 0.0)
                end = begin + 1
            else:
                room = limit.room(now_s, due_s[begin])
                end = bisect_right(due_s, now_s, begin, None if room is None else min(begin + room, len(page)))
            if end == begin:
                ahead.begin()
                await self._rest(max(due_s[begin], limit.free_s) - now_s)
                continue
            if line.speed < math.inf and not stepping:
                late_s = now_s - max(due_s[begin], limit.free_s)
                played.worst_lateness_s = max(played.worst_lateness_s, late_s)
            limit.take(now_s, min(due_s[begin], now_s), end - begin)
            yield page[begin:end]
            last = self._source.event_of(page[end - 1])
            self._place, self._received = last.id, (last.received_at, log_s[end - 1])
            played.events += end - begin
            played.position = last.id
            played.log_s = log_s[end - 1]
            played.seconds = self._watch.now_s() - self._started_s
            begin = end
        self._next_log_s = self.played.log_s  # when the next one is nobody knows yet: until then the clock stands

    async def _seek(self) -> Way:
        """Where to go on. The clock of the log stays where it is, and from there on means another place."""
        at, log_s = (self.received_at() or 0) + self._sought_us, self._log_s_at(self._watch.now_s())
        find = self._source.back_to if self._sought_us < 0 else self._source.on_to
        self._sought_us = 0
        self._place, at = await off_loop(find, at, self._place)
        self._received = at, log_s
        # How the device's clocks stand there nobody knows yet.
        highest_us = at if self._manner.clock == "received" and self._place > self._source.start else None
        return Way(self._place, begin_s=log_s, highest_us=highest_us, sought=True)

    async def _rest(self, seconds: float) -> None:
        await self._watch.wait(seconds, self._bell)
        self._bell.clear()

    def _log_s_at(self, now_s: float) -> float:
        """Between the last event and the next, however late that is."""
        if self._line is None:
            return self.played.log_s
        return max(min(self._line.log_s_at(now_s), self._next_log_s), self.played.log_s)

    def _change(self) -> None:
        """Go on from here in another manner."""
        if self._line is not None:
            now_s = self._watch.now_s()
            self._line = Timeline(now_s, self._log_s_at(now_s), 0.0 if self._paused else self._speed)
        self._bell.set()

    @property
    def _interrupted(self) -> bool:
        return self._stopped or self._sought_us != 0

    def _page_events(self) -> int:
        return PACED_PAGE_EVENTS if self._manner.rate or self._paused else page_events(self.speed)


class Way(msgspec.Struct, frozen=True):
    """Behind which position to play from, and how far that is on the clock of the log."""

    after: int
    begin_s: float = 0.0
    highest_us: int | None = None
    sought: bool = False


Measured = tuple[list[T], list[float]]


def measured(pages: Iterable[list[T]], event_of: Callable[[T], StoredEvent], pace: Pace) -> Iterator[Measured[T]]:
    """The pages, each with how far its events are from the first of all, in seconds of the log."""
    return ((page, [pace.log_s(event_of(item)) for item in page]) for page in pages)


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
