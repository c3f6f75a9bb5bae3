"""A consumer: reads the log by a name, and goes on where it was confirmed. Never confirms what it was not told to."""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

import msgspec

from storage.cursors import Cursor, CursorError, Cursors, cursors, lock, reader_of
from storage.engine import Lock
from storage.event import EVENTS_PER_MESSAGE, Message, StoredEvent
from storage.filters import Filters
from storage.history import EVERYTHING, Follower
from storage.segment import Segment
from storage.shapes import Shape, Shapes
from storage.snapshot import OpenLog
from storage.times import iso, micros
from storage.walk import Walk

logger = logging.getLogger("amber.consumer")

BATCH_EVENTS = 100
POLL_S = 0.02

GATHER_S = 0.25
"""Where few events match, so long they are gathered while there is more of the log to look through."""

IDLE_CONFIRM_S = 5.0
"""What no event matched is confirmed this often at most: each time is a commit beside the gateway."""

COUNTED_EVENTS = 100_000
"""Counting more one by one takes too long for a glance."""

Start = Literal["beginning", "now"] | int | datetime
"""Where a new consumer begins: with the oldest event, with what comes, after a position, or with a time of receipt."""

T = TypeVar("T")


class Lag(msgspec.Struct, frozen=True):
    """How much of the log lies behind a position: messages, and events where they can be counted quickly."""

    messages: int
    events: int | None


class OtherFilters(CursorError):
    """A consumer of the name asks for something else."""


class Consumer:
    """Reads events by a durable cursor, each at least once; for one thread at a time. Raises StoreError.

    What was read counts as done when it is confirmed. A consumer that ends before that, however it ends, begins with it
    again. `filters` and `start` are for a new one. The filters are remembered with the name: given again they must be
    the same, unless `change_filters` says that they shall be others from now on. Positions that none of its events has
    are confirmed by the way, so that they do not hold up retention.

        with Consumer(path, "billing") as consumer:
            for batch in consumer:
                handle(batch)
                consumer.confirm()
    """

    def __init__(
        self,
        path: Path,
        name: str,
        filters: Filters | None = None,
        *,
        start: Start = "beginning",
        change_filters: bool = False,
        batch_events: int = BATCH_EVENTS,
    ) -> None:
        self.path = path
        self.name = name
        self.batch_events = batch_events
        self.missed_messages = 0
        """Messages at most that retention dropped before they were read."""
        wanted = None if filters is None and not change_filters else settled(filters or EVERYTHING)
        with contextlib.ExitStack() as opened:
            held = lock(path, name)
            opened.callback(held.release)
            self._log = OpenLog(path)
            opened.callback(self._log.close)
            self._cursors = opened.enter_context(Cursors(path))
            try:
                cursor, self.is_new = self._enter(wanted, start, change_filters=change_filters)
            except (CursorError, ValueError):
                if self._cursors.get(name) is None:
                    held.remove_file()
                raise
            self._opened = opened.pop_all()
        self.filters = remembered(cursor)
        self._position = self._read_to = cursor.position
        self._last_given = 0
        self._missed_to = 0
        self._shapes = Shapes(self._log)
        self._shape: object = None
        self._follower: Follower[Any] | None = None
        self._stopped = False
        self._idle_since = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the name. What is not confirmed comes again."""
        self._opened.close()

    @property
    def position(self) -> int:
        """Everything up to here is confirmed."""
        return self._position

    @property
    def read_to(self) -> int:
        """Everything up to here has been read, or does not match."""
        return self._read_to

    def __iter__(self) -> Iterator[list[StoredEvent]]:
        """Batches of events, as they come; ends after `stop`. Confirming is up to you."""
        while batch := self.read(self.batch_events, wait_s=None):
            yield batch

    async def __aiter__(self) -> AsyncIterator[list[StoredEvent]]:
        while batch := await self.read_async(self.batch_events, wait_s=None):
            yield batch

    def read(
        self, max_events: int = BATCH_EVENTS, *, wait_s: float | None = 0.0, linger_s: float = 0.0
    ) -> list[StoredEvent]:
        """The next events, history first and then those to come; none where none came within `wait_s`, or after `stop`.

        With `wait_s` None it waits until some come. Once there are some it waits `linger_s` for more.
        """
        return self._read(self._shapes.events, max_events, wait_s, linger_s)

    def read_messages(
        self, max_events: int = BATCH_EVENTS, *, wait_s: float | None = 0.0, linger_s: float = 0.0
    ) -> list[tuple[StoredEvent, Message]]:
        """The same with the messages as they were received. A message with several events comes with each of them."""
        return self._read(self._shapes.messages, max_events, wait_s, linger_s)

    def read_lines(
        self, max_events: int = BATCH_EVENTS, *, wait_s: float | None = 0.0, linger_s: float = 0.0
    ) -> list[str]:
        """The same as lines of JSON without line ends: much quicker than making them of events."""
        return self._read(self._shapes.lines, max_events, wait_s, linger_s)

    async def read_async(self, max_events: int = BATCH_EVENTS, *, wait_s: float | None = 0.0) -> list[StoredEvent]:
        """`read` for an event loop; it reads on another thread."""
        import asyncio

        from storage.off_loop import off_loop

        patience = time.monotonic() + (math.inf if wait_s is None else wait_s)
        while not (found := await off_loop(self.read, max_events)):
            if self._stopped or time.monotonic() >= patience:
                break
            await asyncio.sleep(POLL_S)
        return found

    def confirm(self, position: int | None = None) -> None:
        """Everything read so far is done, or everything up to a position; durable when it returns.

        Raises CursorError where the cursor was moved or removed by another, ValueError for a position not read yet.
        """
        if position is None or self._last_given <= position <= self._read_to:
            position = self._read_to
        if not self._position <= position <= self._read_to:
            raise ValueError(
                f"{position} cannot be confirmed: read is what lies from {self._position} to {self._read_to}"
            )
        if position > self._position:
            self._cursors.move(self.name, position, expected=self._position)
            self._position = position
        self._idle_since = time.monotonic()

    async def confirm_async(self, position: int | None = None) -> None:
        """`confirm` for an event loop."""
        from storage.off_loop import off_loop

        await off_loop(self.confirm, position)

    def rewind(self) -> None:
        """Read again what was read and is not confirmed."""
        self._follower, self._read_to, self._last_given = None, self._position, 0

    def stop(self) -> None:
        """Let whoever reads, or waits, find nothing more; from any thread, or out of a signal handler."""
        self._stopped = True

    def lag(self) -> Lag:
        """How much of the log, whatever the filters, is not confirmed."""
        return lag(self._log, self._position)

    def end(self) -> int:
        """The position at which the log ends now."""
        with self._log.snapshot():
            return self._log.position

    def _enter(self, wanted: Filters | None, start: Start, *, change_filters: bool) -> tuple[Cursor, bool]:
        """The cursor of the name, and whether it was made now."""
        cursor = self._cursors.get(self.name)
        if cursor is None:
            position = place(self._log, start)
            return self._cursors.create(self.name, "consumer", position, encoded(wanted or EVERYTHING)), True
        if cursor.kind != "consumer":
            raise CursorError(f"{self.name} is the cursor of a {cursor.kind}: take another name")
        if wanted is not None and wanted != remembered(cursor):
            if change_filters:
                self._cursors.ask_for(self.name, encoded(wanted))
                return msgspec.structs.replace(cursor, filters=encoded(wanted)), False
            if wanted != EVERYTHING:
                raise OtherFilters(
                    f"consumer {self.name} asks for {described(remembered(cursor))}, not for {described(wanted)}: leave"
                    " the filters out or take another name"
                )
        return cursor, False

    def _read(self, shape: Shape[T], max_events: int, wait_s: float | None, linger_s: float) -> list[T]:
        follower = self._follow(shape)
        found: list[T] = []
        since, patience_s = time.monotonic(), math.inf if wait_s is None else wait_s
        while not self._stopped:
            before = follower.position
            page = follower.read(max_events - len(found))
            self._note_missing(before)
            if page and not found:
                since, patience_s = time.monotonic(), linger_s
            found += page
            self._read_to = follower.position
            if len(found) >= max_events:
                break
            if not found and self._last_given <= self._position:
                self._confirm_idle()
            left_s = patience_s - (time.monotonic() - since)
            if follower.behind:
                if found and left_s < -GATHER_S:
                    break
            elif left_s <= 0:
                break
            else:
                time.sleep(min(POLL_S, left_s))
        if found:
            self._last_given = _id(found[-1])
        return found

    def _follow(self, shape: Shape[T]) -> Follower[T]:
        """The way on from what has been read, whatever it was read as."""
        if self._follower is None or self._shape is not shape:
            filters = msgspec.structs.replace(self.filters, after=self._read_to)
            self._shape, self._follower = shape, Follower(self._log, shape, filters, None)
        return self._follower

    def _confirm_idle(self) -> None:
        """Confirm what none of the consumer's events has, now and then."""
        if self._read_to > self._position and time.monotonic() - self._idle_since >= IDLE_CONFIRM_S:
            self.confirm()

    def _note_missing(self, position: int) -> None:
        """Tell what is no more in the log of what came after a position."""
        oldest = self._log.segments[0].first_message_id if self._log.segments else 1
        missing = oldest - 1 - max(position // EVENTS_PER_MESSAGE, self._missed_to)
        if missing > 0:
            self._missed_to = oldest - 1
            self.missed_messages += missing
            logger.warning(
                "consumer %s goes on with the oldest there is: retention has dropped %d message%s that came before",
                self.name,
                missing,
                "s" * (missing != 1),
            )


def place(log: OpenLog, start: Start) -> int:
    """The position after which a start is. Raises ValueError for a time to come, CursorError for such a position."""
    with log.snapshot():
        oldest = log.segments[0].first_message_id if log.segments else 1
        first = oldest * EVENTS_PER_MESSAGE - 1 if oldest > 1 else 0
        last = max(log.position, first)
    if start == "beginning":
        return first
    if start == "now":
        return last
    if isinstance(start, datetime):
        return before_time(log, micros(start.astimezone(UTC)))
    if not 0 <= start <= last:
        raise CursorError(f"there is no position {start}: the log ends at {last}")
    return start


def before_time(log: OpenLog, at: int) -> int:
    """The position after which the first event comes that was received at a time or later."""
    if at > time.time_ns() // 1000:
        raise ValueError(f"{iso(at)} is yet to come: write now to begin with what comes")
    walk = Walk(log, "e.id", Filters(since=at))
    walk.end_here()
    while not walk.done:
        for row in walk.step(1):
            first: int = row[0]
            return first - 1
    return walk.low


def lag(log: OpenLog, position: int) -> Lag:
    """How much of the log lies behind a position. Ids of messages are dense, and segments know how much they hold."""
    messages = 0
    events: int | None = 0
    with log.snapshot():
        if not log.segments:
            return Lag(0, 0)
        ends = [segment.first_event_id - 1 for segment in log.segments[1:]] + [log.position]
        for segment, end in zip(log.segments, ends, strict=True):
            if end <= position:
                continue
            first = max(position // EVENTS_PER_MESSAGE + 1, segment.first_message_id)
            messages += max(end // EVENTS_PER_MESSAGE - first + 1 - segment.removed, 0)
            whole = position < segment.first_event_id
            more = _counted(log, segment, segment.indexed_to if whole else position)
            events = None if events is None or more is None else events + more + (segment.events if whole else 0)
    return Lag(messages, events)


def _counted(log: OpenLog, segment: Segment, position: int) -> int | None:
    """How many events of a segment come after a position; None where that is too many to count."""
    sql = f"SELECT count(*) FROM (SELECT 1 FROM events_{segment.id} WHERE id > :position LIMIT :limit)"
    found: int = log.rows(sql, {"position": position, "limit": COUNTED_EVENTS + 1})[0][0]
    return None if found > COUNTED_EVENTS else found


class Known(msgspec.Struct, frozen=True):
    """A cursor of the store, how far it is behind, and which process reads by it now."""

    cursor: Cursor
    lag: Lag
    reader: str | None


def known(path: Path) -> list[Known]:
    """All cursors of a store, Amber's own last."""
    log = OpenLog(path)
    try:
        own_last = sorted(cursors(log), key=lambda cursor: (cursor.kind == "summary", cursor.name))
        return [Known(cursor, lag(log, cursor.position), reader_of(path, cursor.name)) for cursor in own_last]
    finally:
        log.close()


def reset(path: Path, name: str, start: Start) -> tuple[Cursor, int]:
    """Set a cursor that nobody reads by to another place; the cursor as it was, and where it is now."""
    with _at_rest(path, name) as (opened, cursor, _):
        log = OpenLog(path)
        try:
            position = place(log, start)
        finally:
            log.close()
        opened.move(name, position, expected=cursor.position)
        return cursor, position


def remove(path: Path, name: str) -> Cursor:
    """Forget a cursor that nobody reads by; what it was."""
    with _at_rest(path, name) as (opened, cursor, held):
        opened.remove(name)
        held.remove_file()
        return cursor


@contextlib.contextmanager
def _at_rest(path: Path, name: str) -> Iterator[tuple[Cursors, Cursor, Lock]]:
    """A cursor by which nobody else can read meanwhile, and the lock that sees to it."""
    with Cursors(path) as opened:
        cursor = opened.get(name)
        if cursor is None:
            raise CursorError(f"there is no consumer {name!r}: `amber consumers` shows those that there are")
        held = lock(path, name)
        try:
            yield opened, cursor, held
        finally:
            held.release()


def settled(filters: Filters) -> Filters:
    """Filters such that those are equal that ask for the same. Raises ValueError for positions."""
    if filters.after or filters.until_position is not None:
        raise ValueError("a consumer has its own position: give where it begins as its start")
    return msgspec.structs.replace(
        filters,
        **{name: tuple(sorted(set(getattr(filters, name)))) for name in ("devices", "topics", "kinds", "readings")},
        clock="received" if filters.since is None and filters.until is None else filters.clock,
    )


def encoded(filters: Filters) -> str | None:
    """What is asked for as JSON; None is everything."""
    asked = asked_for(filters)
    return msgspec.json.encode(asked).decode() if asked else None


def asked_for(filters: Filters) -> dict[str, Any]:
    """The filters that are set, by name."""
    given, unset = msgspec.to_builtins(filters), msgspec.to_builtins(EVERYTHING)
    return {name: value for name, value in given.items() if value != unset[name]}


def remembered(cursor: Cursor) -> Filters:
    """The filters of a cursor."""
    if cursor.filters is None:
        return EVERYTHING
    try:
        return msgspec.json.decode(cursor.filters, type=Filters)
    except msgspec.DecodeError as error:
        raise CursorError(f"what cursor {cursor.name} asks for cannot be read ({error}): remove it") from error


def described(filters: Filters) -> str:
    """Filters on one line for people: `devices thermo-1, thermo-2; kinds state`."""

    def text(name: str, value: Any) -> str:
        if isinstance(value, tuple):
            return f"{name} {', '.join(value)}"
        if name in ("since", "until"):
            return f"{name} {iso(value)}"
        return f"{'up to' if name == 'until_position' else name} {value}"

    return "; ".join(text(name, value) for name, value in asked_for(filters).items()) or "all events"


def _id(item: object) -> int:
    """The position of an event in whatever shape it came."""
    if isinstance(item, StoredEvent):
        return item.id
    return item[0].id if isinstance(item, tuple) else _line_id(item).id  # type: ignore[arg-type]


class _Line(msgspec.Struct, frozen=True):
    """What tells of a line of JSON where it stands."""

    id: int


_line_id = msgspec.json.Decoder(_Line).decode
