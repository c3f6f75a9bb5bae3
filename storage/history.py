"""What people ask of the log: pages of events, rejections, devices, and the log as it grows. Never writes."""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Generic, Self, TypeVar

from storage.event import Fact, Message, PendingReread, StoredEvent
from storage.filters import Clock, Filters
from storage.gaps import Gaps, gaps
from storage.outcomes import Choice, StoredOutcome, outcomes
from storage.overview import Status, status
from storage.rejections import StoredRejection, rejections
from storage.shapes import Shape, Shapes
from storage.snapshot import SCANNED_EVENTS, OpenLog
from storage.summaries.buckets import Bucket, buckets
from storage.summaries.latest import LatestValue, StoredSeries, latest, series
from storage.summaries.presence import StoredDevice, devices
from storage.walk import Walk

__all__ = [
    "Clock",
    "Filters",
    "Follower",
    "LatestValue",
    "Reader",
    "Status",
    "StoredDevice",
    "StoredOutcome",
    "StoredRejection",
    "StoredSeries",
]

PAGE_EVENTS = 2_000
POLL_S = 0.02

EVERYTHING = Filters()

ONLY_IDS: Shape[object] = Shape("e.id", list)
COUNTED_EVENTS = 32_768

T = TypeVar("T")


class Reader:
    """A store open for reading, used by one thread at a time; its iterators may be interleaved. Raises StoreError.

    Each page is one short read, of `scanned_events` at most where few match: a read that stays open would hold up the
    writer's checkpoints.
    """

    def __init__(self, path: Path, *, scanned_events: int = SCANNED_EVENTS) -> None:
        self.path = path
        self._log = OpenLog(path, scanned_events)
        self._shapes = Shapes(self._log)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._log.close()

    def position(self) -> int:
        """The id of the last event in the log, 0 before the first."""
        with self._log.snapshot():
            return self._log.position

    def pages(
        self,
        filters: Filters = EVERYTHING,
        *,
        newest_first: bool = False,
        limit: int | None = None,
        page_events: int = PAGE_EVENTS,
    ) -> Iterator[list[StoredEvent]]:
        """The events in the log now, by their position, in pages of at most `page_events`; `limit` counts events."""
        return self._pages(
            self._shapes.events, filters, newest_first=newest_first, limit=limit, page_events=page_events
        )

    def line_pages(
        self,
        filters: Filters = EVERYTHING,
        *,
        newest_first: bool = False,
        limit: int | None = None,
        page_events: int = PAGE_EVENTS,
    ) -> Iterator[list[str]]:
        """The same as lines of JSON without line ends: much quicker than making them of events."""
        return self._pages(self._shapes.lines, filters, newest_first=newest_first, limit=limit, page_events=page_events)

    def message_pages(
        self,
        filters: Filters = EVERYTHING,
        *,
        newest_first: bool = False,
        limit: int | None = None,
        page_events: int = PAGE_EVENTS,
    ) -> Iterator[list[tuple[StoredEvent, Message]]]:
        """The same with the messages as they were received. A message with several events comes with each of them."""
        return self._pages(
            self._shapes.messages, filters, newest_first=newest_first, limit=limit, page_events=page_events
        )

    def count(self, filters: Filters = EVERYTHING, *, limit: int | None = None) -> int:
        """How many events are in the log now, `limit` at most. Only their ids are read."""
        ids = self._pages(ONLY_IDS, filters, newest_first=False, limit=limit, page_events=COUNTED_EVENTS)
        return sum(map(len, ids))

    def follow(
        self,
        filters: Filters = EVERYTHING,
        *,
        page_events: int = PAGE_EVENTS,
        poll_s: float = POLL_S,
        stop: threading.Event | None = None,
    ) -> Iterator[list[StoredEvent]]:
        """The events after `filters.after`, and then those to come, within `poll_s` of their commit.

        Ends at `filters.until_position`, or when `stop` is set. Raises StoreGone when the file is replaced.
        """
        return self.follower(filters).pages(page_events=page_events, poll_s=poll_s, stop=stop)

    def follow_async(
        self, filters: Filters = EVERYTHING, *, page_events: int = PAGE_EVENTS, poll_s: float = POLL_S
    ) -> AsyncGenerator[list[StoredEvent], None]:
        """`follow` for an event loop; it reads on another thread."""
        return self.follower(filters).pages_async(page_events=page_events, poll_s=poll_s)

    def follower(self, filters: Filters = EVERYTHING, *, last: int | None = None) -> Follower[StoredEvent]:
        return Follower(self._log, self._shapes.events, filters, last)

    def line_follower(self, filters: Filters = EVERYTHING, *, last: int | None = None) -> Follower[str]:
        return Follower(self._log, self._shapes.lines, filters, last)

    def message_follower(
        self, filters: Filters = EVERYTHING, *, last: int | None = None
    ) -> Follower[tuple[StoredEvent, Message]]:
        return Follower(self._log, self._shapes.messages, filters, last)

    def rejections(
        self, filters: Filters = EVERYTHING, *, newest_first: bool = False, limit: int | None = None
    ) -> Iterator[StoredRejection]:
        """Messages that no format could read, by their rejection's id, of which `after` and `until_position` speak.

        Of the filters topics and times of receipt apply; a rejection has no device, kind or reading.
        """
        return rejections(self._log, filters, newest_first=newest_first, limit=limit)

    def message(self, id: int) -> StoredOutcome | None:
        """A message with what became of it; None where it is not there, or no more."""
        return next((one for page in self.outcomes(after_message=id - 1, up_to_message=id) for one in page), None)

    def outcomes(
        self,
        filters: Filters = EVERYTHING,
        *,
        after_message: int = 0,
        up_to_message: int | None = None,
        formats: Sequence[str] = (),
        rejected_only: bool = False,
        limit: int | None = None,
    ) -> Iterator[list[StoredOutcome]]:
        """Messages with all that became of them, in their order, in pages that are bounded in bytes too.

        Of the filters, topics and times of receipt apply to the message; devices, kinds, readings and times of
        observation to its events, of which one must match; positions do not apply. `formats` are those that read a
        message, or recognized it and failed.
        """
        choice = Choice(filters, after_message, up_to_message, tuple(formats), rejected_only=rejected_only, limit=limit)
        return outcomes(self._log, self._shapes, choice)

    def to_reread(self, pending: PendingReread) -> Iterator[list[StoredOutcome]]:
        """The messages that a reread means, in their order, each once."""
        reread, up_to = pending.reread, pending.up_to_message_id
        filters, recent = Filters(topics=reread.topics), max(up_to - reread.recent_messages, 0)
        yield from self.outcomes(filters, up_to_message=recent, formats=(reread.format,), rejected_only=True)
        yield from self.outcomes(filters, after_message=recent, up_to_message=up_to)

    def facts(self) -> list[Fact]:
        """What messages have taught the formats so far, in the order in which it was learned."""
        with self._log.snapshot():
            rows = self._log.rows("SELECT format, key, value FROM facts ORDER BY id")
        return [Fact(format, key, value) for format, key, value in rows]

    def buckets(self, device: str, reading: str, *, since: int, until: int, every_us: int) -> list[Bucket]:
        """What the numbers of a series come to in steps of its own time, aligned to the epoch, UTC.

        The steps that `since` and `until` fall into are whole; those without a number are left out. Raises
        NoSuchSeries, and TooManyBuckets beyond 50 000.
        """
        return buckets(self._log, device, reading, since=since, until=until, every_us=every_us)

    def latest(self, filters: Filters = EVERYTHING) -> Iterator[LatestValue]:
        """The newest value of each series, by device and reading. Raises ValueError.

        Of the filters devices, readings and times apply; those are of the value, and by the device's clock never after
        it was received.
        """
        return latest(self._log, filters)

    def series(self, filters: Filters = EVERYTHING) -> Iterator[StoredSeries]:
        """Every series, by device and reading. Of the filters devices and readings apply. Raises ValueError."""
        return series(self._log, filters)

    def devices(self, filters: Filters = EVERYTHING) -> Iterator[StoredDevice]:
        """The devices that have events, by name. Of the filters only those for devices apply. Raises ValueError."""
        return devices(self._log, filters)

    def gaps(self, filters: Filters = EVERYTHING) -> Iterator[Gaps]:
        """The starts of devices that number their events, by device and time, with what is missing of each.

        Of the filters devices and `since` apply; that means the time of a start's last event.
        """
        return gaps(self._log, filters)

    def status(self) -> Status:
        """How much there is, from when to when, and the files' sizes; counts nothing row by row."""
        return status(self._log)

    def _pages(
        self, shape: Shape[T], filters: Filters, *, newest_first: bool, limit: int | None, page_events: int
    ) -> Iterator[list[T]]:
        walk = Walk(self._log, shape.columns, filters, newest_first=newest_first)
        walk.end_here()
        while not walk.done and limit != 0:
            rows = walk.step(page_events if limit is None else min(page_events, limit))
            if rows:
                limit = None if limit is None else limit - len(rows)
                yield shape.build(rows)


class Follower(Generic[T]):
    """One way through history and then along with the log as it grows: nothing is left out and nothing comes twice.

    With `last` it begins with so many of the events that are there.
    """

    def __init__(self, log: OpenLog, shape: Shape[T], filters: Filters, last: int | None) -> None:
        self._log = log
        self._shape = shape
        self._walk = Walk(log, shape.columns, filters)
        if last is not None:
            self._walk.low = before_last(log, filters, last)

    @property
    def position(self) -> int:
        """Everything up to here has been given out, or does not match."""
        return self._walk.low

    def pages(
        self, *, page_events: int = PAGE_EVENTS, poll_s: float = POLL_S, stop: threading.Event | None = None
    ) -> Iterator[list[T]]:
        stop = stop or threading.Event()
        while not self._walk.done and not stop.is_set():
            if page := self.read(page_events):
                yield page
            elif not self.behind:
                stop.wait(poll_s)

    async def pages_async(
        self, *, page_events: int = PAGE_EVENTS, poll_s: float = POLL_S
    ) -> AsyncGenerator[list[T], None]:
        import asyncio  # 50 ms that a short command need not spend

        from storage.off_loop import off_loop

        while not self._walk.done:
            if page := await off_loop(self.read, page_events):
                yield page
            elif not self.behind:
                await asyncio.sleep(poll_s)

    def read(self, page_events: int = PAGE_EVENTS) -> list[T]:
        """The next page. None of a part of the log may match, so go on while `behind`, whatever comes."""
        return self._shape.build(self._walk.step(page_events))

    @property
    def behind(self) -> bool:
        """Whether there is more to read now. Raises StoreGone when the file is no longer the one that was opened."""
        return self._walk.behind or self._log.changed()


def before_last(log: OpenLog, filters: Filters, count: int) -> int:
    """The position after which the last `count` events come that match."""
    walk = Walk(log, "e.id", filters, newest_first=True)
    walk.end_here()
    position = max(filters.after, walk.high or 0)
    while count and not walk.done:
        for (id,) in walk.step(count):
            position, count = id - 1, count - 1
    return position if count == 0 else filters.after
