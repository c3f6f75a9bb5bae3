"""The log for Python programs: what `from storage import open_log` opens. Only reads, but for a consumer's cursor."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self

import msgspec

from storage.api.answers import (
    Answers,
    Bucket,
    Device,
    Gaps,
    Latest,
    Series,
    bucket_of,
    device_of,
    gaps_of,
    latest_of,
    series_of,
)
from storage.api.event import Event
from storage.api.streams import Batches, Events, OpenStore, Query, following, replaying
from storage.api.words import Moment, Names, Span, count, filters_of, limit_of, moment_us, span_us, speed_of, start_of
from storage.engine import store_path
from storage.errors import StoreError
from storage.filters import Clock

if TYPE_CHECKING:
    from storage.api.consumer import Consumer
    from storage.api.player import Player

__all__ = [
    "Answers",
    "Batches",
    "Bucket",
    "Device",
    "Event",
    "Events",
    "Gaps",
    "Latest",
    "Log",
    "Query",
    "Series",
    "open_log",
]


def open_log(store: str | os.PathLike[str]) -> Log:
    """A store open for reading, while its gateway runs or not: a file, or sqlite:///FILE. Raises StoreError."""
    path = store_path(store)
    if not path.exists():
        raise StoreError(f"there is no store at {path}: `amber run` makes one")
    log = Log(OpenStore(path))
    _ = log.position  # whatever is wrong with the file is best said now
    return log


class Log:
    """The events of a store. Any number of threads may use it at once; what it gives is for one thread each."""

    def __init__(self, store: OpenStore) -> None:
        self._store = store

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End what follows or replays the log on any thread; whoever still reads from it gets a StoreError."""
        self._store.close()

    @property
    def position(self) -> int:
        """The id of the last event in the log now, 0 before the first."""
        with self._store.reader() as reader:
            return reader.position()

    def payload(self, message_id: int) -> bytes | None:
        """What a message carried, as it was received; None where it is not there, or no more."""
        with self._store.reader() as reader:
            found = reader.message(message_id)
        return None if found is None else found.message.payload

    def events(
        self,
        *,
        device: Names | None = None,
        topic: Names | None = None,
        kind: Names | None = None,
        reading: Names | None = None,
        since: Moment | None = None,
        until: Moment | None = None,
        clock: Clock = "received",
        after: int = 0,
        newest_first: bool = False,
        limit: int | None = None,
    ) -> Query:
        """The events in the log that match, in its order, the oldest first; `limit` counts from there.

        In `device`, `*` and `?` stand for any characters; `topic` takes MQTT topic filters. Of several names one must
        match. `since` is included, `until` is not; both mean the time of receipt, or with `clock="observed"` the
        device's. `after` is a position: only events with a higher id.
        """
        filters = filters_of(
            device=device, topic=topic, kind=kind, reading=reading, since=since, until=until, clock=clock, after=after
        )
        return Query(self._store, filters, newest_first=newest_first, limit=limit_of(limit))

    def follow(
        self,
        *,
        device: Names | None = None,
        topic: Names | None = None,
        kind: Names | None = None,
        reading: Names | None = None,
        since: Moment | None = None,
        clock: Clock = "received",
        after: int | None = None,
        last: int = 0,
    ) -> Events:
        """The events that come from now on, within 0.1 s of their commit, without end, a gap or a repeat.

        Before them come those after the position `after`, those `since` a time, or the `last` that match.
        """
        if last and after is not None:
            raise ValueError("give last or after, not both: each says where to begin")
        filters = filters_of(
            device=device, topic=topic, kind=kind, reading=reading, since=since, clock=clock, after=after or 0
        )
        last = count(last, "last", least=0)
        if last or (after is None and since is None):
            with self._store.reader() as reader:
                position = reader.follower(filters, last=last).position
            filters = msgspec.structs.replace(filters, after=position)
        return following(self._store, filters)

    def replay(
        self,
        *,
        device: Names | None = None,
        topic: Names | None = None,
        kind: Names | None = None,
        reading: Names | None = None,
        since: Moment | None = None,
        until: Moment | None = None,
        clock: Clock = "received",
        after: int = 0,
        limit: int | None = None,
        speed: float | Literal["max"] = 1,
        max_gap: Span | None = None,
    ) -> Events:
        """The events in the log that match, in its order, each when it is due.

        Speed 1 is as fast as they came, 10 ten times that, "max" as fast as possible; `clock` is whose time the pace
        goes by, too. Longer silences than `max_gap` are played as if they had been that long.
        """
        filters = filters_of(
            device=device, topic=topic, kind=kind, reading=reading, since=since, until=until, clock=clock, after=after
        )
        return replaying(
            self._store,
            filters,
            speed=speed_of(speed),
            clock=clock,
            max_gap_us=None if max_gap is None else span_us(max_gap, "max_gap"),
            limit=limit_of(limit),
        )

    @asynccontextmanager
    async def player(
        self,
        *,
        device: Names | None = None,
        topic: Names | None = None,
        kind: Names | None = None,
        reading: Names | None = None,
        since: Moment | None = None,
        until: Moment | None = None,
        clock: Clock = "received",
        after: int = 0,
        limit: int | None = None,
        speed: float | Literal["max"] = 1,
        max_gap: Span | None = None,
        rate: float | None = None,
        rounds: int | None = 1,
        paused: bool = False,
    ) -> AsyncGenerator[Player, None]:
        """A replay for the time of an `async with`, which can be paused, stepped, sought in and set to another speed.

        It gives at most `rate` events a second, and begins again at the end for as many `rounds` as are given, or for
        ever with None.
        """
        from storage.api.player import Player
        from storage.replay import events_player
        from storage.replay.player import Manner

        self._store.check()
        filters = filters_of(
            device=device, topic=topic, kind=kind, reading=reading, since=since, until=until, clock=clock, after=after
        )
        manner = Manner(
            speed=None if speed == "max" else speed_of(speed),
            clock=clock,
            max_gap_us=None if max_gap is None else span_us(max_gap, "max_gap"),
            rate=rate,
            rounds=None if rounds is None else count(rounds, "rounds", least=1),
            paused=paused,
        )
        async with events_player(self._store.path, filters, manner, limit=limit_of(limit)) as playing:
            with self._store.stopping(playing):
                yield Player(playing)

    def latest(
        self,
        *,
        device: Names | None = None,
        reading: Names | None = None,
        since: Moment | None = None,
        until: Moment | None = None,
        clock: Clock = "received",
    ) -> Answers[Latest]:
        """The newest value of each series, by device and reading; of those whose newest is of the time asked for."""
        filters = filters_of(device=device, reading=reading, since=since, until=until, clock=clock)

        with self._store.reader() as reader:
            return Answers(list(map(latest_of, reader.latest(filters))), Latest)

    def series(self, *, device: Names | None = None, reading: Names | None = None) -> Answers[Series]:
        """Every reading of every device, by device and reading."""
        filters = filters_of(device=device, reading=reading)
        with self._store.reader() as reader:
            return Answers(list(map(series_of, reader.series(filters))), Series)

    def devices(self, *, device: Names | None = None) -> Answers[Device]:
        """Every device that has events, by name, with what is known of it."""
        filters = filters_of(device=device)
        with self._store.reader() as reader:
            return Answers(list(map(device_of, reader.devices(filters))), Device)

    def gaps(self, *, device: Names | None = None, since: Moment | None = None, whole: bool = False) -> Answers[Gaps]:
        """The starts of devices of which events are missing, came again or contradict each other; `whole` ones too.

        With `since` those of which something was observed since then. By device, the earlier start first.
        """
        filters = filters_of(device=device, since=since, clock="observed")
        with self._store.reader() as reader:
            found = [gaps_of(one) for one in reader.gaps(filters) if whole or not one.is_whole]
        return Answers(found, Gaps)

    def buckets(
        self, device: str, reading: str, *, since: Moment, until: Moment | None = None, every: Span
    ) -> Answers[Bucket]:
        """What the numbers of one series come to in equal steps of its own time; steps without a number are left out.

        The steps are aligned to the epoch, UTC, and whole at both ends of the range; `until` is now where it is not
        given. Quick over any span where `every` is a multiple of a minute. Raises AmberError for a series that is not
        there, and for more than 50 000 steps.
        """
        begin, end = moment_us(since, "since"), moment_us("now" if until is None else until, "until")
        if begin is None or end is None or begin >= end:
            raise ValueError("until must be later than since")
        every_us = span_us(every, "every")
        with self._store.reader() as reader:
            found = reader.buckets(device, reading, since=begin, until=end, every_us=every_us)
        return Answers(list(map(bucket_of, found)), Bucket)

    def consumer(
        self,
        name: str,
        *,
        device: Names | None = None,
        topic: Names | None = None,
        kind: Names | None = None,
        reading: Names | None = None,
        start: Moment | Literal["beginning", "now"] = "beginning",
        batch_events: int = 100,
    ) -> Consumer:
        """Events by a durable cursor: whoever opens it again by its name goes on behind what was confirmed.

        `start` is where a new one begins: with the oldest event, with what comes, behind a position, or at a time. What
        it asks for is remembered with its name; given again it must be the same. One at a time reads by a name.
        """
        from storage.api.consumer import Consumer

        self._store.check()
        asked = filters_of(device=device, topic=topic, kind=kind, reading=reading)
        filters = None if asked == filters_of() else asked
        return Consumer(self._store.path, name, filters, start_of(start), batch_events=batch_events)
