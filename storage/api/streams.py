"""Events that a Python program walks through: those of the log, those to come, those of a replay. Asks only when asked.

Each way through them has a reader of its own, which is closed when the way ends or is left.
"""

from __future__ import annotations

import math
import threading
import time
from bisect import bisect_right
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from contextlib import aclosing, closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from storage.api.event import Event
from storage.errors import StoreError
from storage.event import StoredEvent
from storage.filters import Clock, Filters
from storage.history import PAGE_EVENTS, POLL_S, Reader

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl
    import pyarrow as pa

    from storage.replay.player import Player

FRAME_PAGE_EVENTS = 8_192
"""Of larger pages a table is made quicker, but while one is read the writer cannot checkpoint."""

LONGEST_WAIT_S = 3_600.0
"""A wait that is longer than threads allow is done in parts."""

Shape = Literal["wide", "long"]


class OpenStore:
    """A store's path, and whether the log that a program opened there is still to be read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.closed = threading.Event()
        self._ends: list[Callable[[], object]] = []

    def close(self) -> None:
        self.closed.set()
        for end in tuple(self._ends):
            end()

    @contextmanager
    def stopping(self, player: Player[StoredEvent]) -> Iterator[None]:
        """Have a player of the running event loop stopped when the log is closed, on whatever thread."""
        import asyncio

        loop = asyncio.get_running_loop()

        def stop() -> None:
            with suppress(RuntimeError):  # its loop has ended
                loop.call_soon_threadsafe(player.stop)

        self._ends.append(stop)
        try:
            self.check()  # it may have been closed just now
            yield
        finally:
            self._ends.remove(stop)

    def reader(self) -> Reader:
        """One more, which whoever asks has to close. Raises StoreError."""
        self.check()
        return Reader(self.path)

    def check(self) -> None:
        if self.closed.is_set():
            raise StoreError(f"the log of {self.path} was closed: open it again with open_log")


class Batches:
    """Events in lists, as they are read. `for` reads on this thread, `async for` beside the event loop on another."""

    def __init__(
        self,
        read: Callable[[], Generator[list[StoredEvent], None, None]],
        read_async: Callable[[], AsyncGenerator[list[StoredEvent], None]] | None = None,
    ) -> None:
        self._read = read
        self._read_async = read_async or (lambda: beside_the_loop(read))

    def __iter__(self) -> Generator[list[Event], None, None]:
        with closing(self._read()) as pages:
            for page in pages:
                yield list(map(Event, page))

    async def __aiter__(self) -> AsyncGenerator[list[Event], None]:
        async with aclosing(self._read_async()) as pages:
            async for page in pages:
                yield list(map(Event, page))


class Events:
    """Events one by one, with `for` or `async for`; from the beginning each time."""

    def __init__(self, batches: Batches) -> None:
        self._batches = batches

    def __iter__(self) -> Generator[Event, None, None]:
        with closing(iter(self._batches)) as batches:
            for batch in batches:
                yield from batch

    async def __aiter__(self) -> AsyncGenerator[Event, None]:
        async with aclosing(aiter(self._batches)) as batches:
            async for batch in batches:
                for event in batch:
                    yield event

    def batches(self) -> Batches:
        """The same events in lists: quicker where there are many, and what belongs together comes together."""
        return self._batches


class Query(Events):
    """The events that match, of those that are in the log when they are read; as a frame, too."""

    def __init__(self, store: OpenStore, filters: Filters, *, newest_first: bool, limit: int | None) -> None:
        super().__init__(Batches(self._pages))
        self._store = store
        self._filters = filters
        self._newest_first = newest_first
        self._limit = limit

    def first(self) -> Event | None:
        """The first of them; None where there is none."""
        query = Query(self._store, self._filters, newest_first=self._newest_first, limit=1)
        return next((event for batch in query.batches() for event in batch), None)

    def count(self) -> int:
        """How many there are, without reading what is in them."""
        with self._store.reader() as reader:
            return reader.count(self._filters, limit=self._limit)

    def to_arrow(self, shape: Shape = "wide") -> pa.Table:
        """A table of Arrow: a row for each event and a column for each reading, or "long", a row for each reading."""
        from storage.api.frames import long_table, wide_table

        if shape not in ("wide", "long"):
            raise ValueError(f"shape is {shape!r}: write 'wide' or 'long'")
        with closing(self._pages(FRAME_PAGE_EVENTS)) as pages:
            return (wide_table if shape == "wide" else long_table)(pages, self._filters.readings)

    def to_pandas(self, shape: Shape = "wide") -> pd.DataFrame:
        """The same table as a DataFrame of pandas. Raises ImportError where that is not installed."""
        from storage.api.frames import check_installed, to_pandas

        check_installed("pandas")
        return to_pandas(self.to_arrow(shape))

    def to_polars(self, shape: Shape = "wide") -> pl.DataFrame:
        """The same table as a DataFrame of Polars. Raises ImportError where that is not installed."""
        from storage.api.frames import check_installed, to_polars

        check_installed("polars")
        return to_polars(self.to_arrow(shape))

    def _pages(self, page_events: int = PAGE_EVENTS) -> Generator[list[StoredEvent], None, None]:
        with self._store.reader() as reader:
            for page in reader.pages(
                self._filters, newest_first=self._newest_first, limit=self._limit, page_events=page_events
            ):
                yield page
                self._store.check()


def following(store: OpenStore, filters: Filters) -> Events:
    """The events after `filters.after`, and then those to come; ends when the log is closed."""

    def read() -> Generator[list[StoredEvent], None, None]:
        with store.reader() as reader:
            yield from reader.follow(filters, stop=store.closed)

    async def read_async() -> AsyncGenerator[list[StoredEvent], None]:
        import asyncio

        from storage.off_loop import off_loop

        with await off_loop(store.reader) as reader:
            follower = reader.follower(filters)
            while not store.closed.is_set():
                if page := await off_loop(follower.read):
                    yield page
                elif not follower.behind:
                    await asyncio.sleep(POLL_S)

    return Events(Batches(read, read_async))


def replaying(
    store: OpenStore, filters: Filters, *, speed: float, clock: Clock, max_gap_us: int | None, limit: int | None
) -> Events:
    """The events in the log, each when it is due; ends when the log is closed."""
    paced = None if speed == math.inf else speed

    def read() -> Generator[list[StoredEvent], None, None]:
        from storage.replay.pace import Pace
        from storage.replay.player import measured, page_events

        with store.reader() as reader:
            pages = reader.pages(filters, limit=limit, page_events=page_events(paced))
            timed = measured(pages, lambda event: event, Pace(paced, clock, max_gap_us))
            yield from in_time(timed, speed, store.closed)

    async def read_async() -> AsyncGenerator[list[StoredEvent], None]:
        from storage.replay import events_player
        from storage.replay.player import Manner

        store.check()
        manner = Manner(speed=paced, clock=clock, max_gap_us=max_gap_us)
        async with events_player(store.path, filters, manner, limit=limit) as player:
            with store.stopping(player):
                async with aclosing(player.batches()) as batches:
                    async for batch in batches:
                        yield batch
                        if store.closed.is_set():
                            return

    return Events(Batches(read, read_async))


def in_time(
    pages: Iterator[tuple[list[StoredEvent], list[float]]], speed: float, stop: threading.Event
) -> Generator[list[StoredEvent], None, None]:
    """What is due of pages with the seconds of their events from the first, until `stop` is set.

    As `storage.replay.play` does it without an event loop: in a notebook one runs already, on this very thread.
    """
    started_s: float | None = None
    for page, log_s in pages:
        started_s = time.monotonic() if started_s is None else started_s
        due_s = [started_s + seconds / speed for seconds in log_s]
        begin = 0
        while begin < len(page):
            now_s = time.monotonic()
            end = bisect_right(due_s, now_s, begin)
            if end == begin:
                stop.wait(min(due_s[begin] - now_s, LONGEST_WAIT_S))
            else:
                yield page[begin:end]
                begin = end
            if stop.is_set():
                return


async def beside_the_loop(
    read: Callable[[], Generator[list[StoredEvent], None, None]],
) -> AsyncGenerator[list[StoredEvent], None]:
    """Pages for an event loop, each read on another thread."""
    from storage.off_loop import off_loop

    with closing(read()) as pages:
        while page := await off_loop(lambda: next(pages, None)):
            yield page
