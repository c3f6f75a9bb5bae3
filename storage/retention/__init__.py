"""Retention: what of the log is to go, by age, by rule and by size. Never drops what a cursor has yet to read.

A pass over the store is a generator of short pieces of work: `Retention` does one of them at a step of the keeper's,
`prune` does all. Whole segments go where all that is in them may go; the rest goes message by message.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from storage import engine
from storage.conditions import as_json
from storage.event import EVENTS_PER_MESSAGE
from storage.retention.ages import FOREVER, Ages, RetentionOptions
from storage.retention.forgetting import (
    EVERYTHING,
    Counts,
    Holder,
    counted,
    drop_segment,
    free_to,
    holders,
    orphans,
    remove_messages,
    sweep_rejections,
    sweep_table,
    thin_rollups,
)
from storage.segment import Segment
from storage.snapshot import OpenLog
from storage.times import iso

if TYPE_CHECKING:
    from sqlalchemy import Connection

logger = logging.getLogger("amber.retention")

LOOK_S = 60.0
"""From the end of one pass to the next."""

PAUSE_SHARE = 2.0
"""A pause is so many times as long as the work before it: what was written is yet to reach the disk."""

SHORTEST_PAUSE_S = 0.002

SCANNED_MESSAGES = 4_000
"""Messages that one read looks at."""

REMOVED_ROWS = 200
"""Messages and events in one transaction, about: some milliseconds for which the gateway waits."""

MERGED_SHARE = 2 / 3
"""SQLite joins a page with its neighbours when so much of it is empty."""

TOLD_AGAIN_S = 86_400.0
"""A consumer that holds what is due is named once in so long."""


def now() -> int:
    """Microseconds since the epoch."""
    return time.time_ns() // 1000


Now = Callable[[], int]


class Report(msgspec.Struct):
    """What a pass has taken out, or would; what it would have but for cursors, by their names."""

    dropped: Counts = msgspec.field(default_factory=Counts)
    removed: Counts = msgspec.field(default_factory=Counts)
    held: dict[tuple[str, ...], Counts] = msgspec.field(default_factory=dict)
    minutes: int = 0
    hours: int = 0
    freed_bytes: int = 0
    """By whole segments; about, where nothing was changed."""
    too_large_by: int = 0
    """So many bytes above `max_bytes`, with nothing left that may go."""


class Retention:
    """A chore of the keeper: sees to it, a little at a time, that nothing stays longer than it may."""

    def __init__(self, options: RetentionOptions, now: Now = now) -> None:
        self._options = options
        self._now = now
        self._memory = Memory()
        self._work: Iterator[None] | None = None
        self._told: dict[str, float] = {}

    def step(self, connection: Connection, log: OpenLog) -> float:
        """Do a piece of a pass; for how many seconds to leave it alone now."""
        started = time.monotonic()
        if self._work is None:
            self._work = self._pass(connection, log)
        try:
            next(self._work)
        except StopIteration:
            self._work = None
            return LOOK_S
        except BaseException:
            self._work = None
            raise
        return pause_after(started)

    def _pass(self, connection: Connection, log: OpenLog) -> Iterator[None]:
        work = Pass(self._options, log, connection, self._memory, self._now())
        yield from work.run()
        report = work.report
        if report.removed.messages:
            logger.info("removed %s messages singly, with %s events", *told(report.removed))
        if report.minutes or report.hours:
            logger.info("removed %s roll-ups of minutes and %s of hours", f"{report.minutes:,}", f"{report.hours:,}")
        self._tell_held(work)
        if report.too_large_by:
            self._tell(
                "",
                f"the store takes {report.too_large_by >> 20:,} MB more than it may, and nothing more of it may go: "
                "set retention.max_size higher, or segments.events lower",
            )

    def _tell_held(self, work: Pass) -> None:
        by_name = {holder.name: holder for holder in work.holders if holder.kind != "summary"}
        for names, counts in work.report.held.items():
            for name in names:
                if counts.segments and (holder := by_name.get(name)):
                    self._tell(
                        name,
                        f"{holder.kind} {name} stands at {holder.position}, about {work.behind(holder):,} messages "
                        f"behind, and holds {counts.segments:,} segments that are due ({counts.events:,} events): let "
                        "it go on, remove it, or set retention.past_consumers = true",
                    )

    def _tell(self, about: str, text: str) -> None:
        now = time.monotonic()
        if now - self._told.get(about, -TOLD_AGAIN_S) >= TOLD_AGAIN_S:
            self._told[about] = now
            logger.warning("%s", text)


def prune(path: Path, options: RetentionOptions, *, dry_run: bool = False, now: Now = now) -> Report:
    """Do a whole pass now, beside a running gateway or without one, or tell what it would do. Raises StoreError."""
    with contextlib.ExitStack() as opened:
        connection = None if dry_run else opened.enter_context(engine.open_beside(path))
        log = OpenLog(path)
        opened.callback(log.close)  # before the connection: the last that can write tidies the write-ahead log away
        work = Pass(options, log, connection, Memory(), now(), tells_held=True)
        started = time.monotonic()
        for _ in work.run():
            if connection is not None:
                time.sleep(pause_after(started))
                started = time.monotonic()
        return work.report


def pause_after(started: float) -> float:
    """For how many seconds to leave the store alone after work that began then."""
    return max((time.monotonic() - started) * PAUSE_SHARE, SHORTEST_PAUSE_S)


class Kept(msgspec.Struct):
    """The first message of a segment that is to stay, until `until`; none, where the segment may go."""

    rewritten: int
    message_id: int
    until: int


class Swept(msgspec.Struct):
    """Messages up to here that were older than `age` are gone, if they could."""

    rewritten: int
    age: int
    message_id: int


class Memory:
    """What a pass knows from those before it, so that it need not scan a segment again for nothing."""

    def __init__(self) -> None:
        self.kept: dict[int, Kept] = {}
        self.swept: dict[int, Swept] = {}
        self.swept_open: dict[tuple[int, int], int] = {}

    def forget_but(self, segments: set[int]) -> None:
        self.kept = {id: kept for id, kept in self.kept.items() if id in segments}
        self.swept = {id: swept for id, swept in self.swept.items() if id in segments}
        self.swept_open = {key: to for key, to in self.swept_open.items() if key[0] in segments}


class Pass:
    """One way over the store; without a connection it only counts. With `tells_held` it counts what is held, too."""

    def __init__(
        self,
        options: RetentionOptions,
        log: OpenLog,
        connection: Connection | None,
        memory: Memory,
        now: int,
        *,
        tells_held: bool = False,
    ) -> None:
        self.report = Report()
        self.holders: list[Holder] = []
        self._options = options
        self._log = log
        self._connection = connection
        self._memory = memory
        self._tells_held = tells_held
        self._ages = Ages(log, options)
        self._now = now
        self._segments: list[Segment] = []
        self._messages: dict[int, int] = {}
        self._gone: set[int] = set()
        self._held: set[int] = set()
        self._bytes_per_row = 0.0
        self._density: dict[int, float] = {}
        self._removed_rows: dict[int, int] = {}
        self._wal_bytes = 0
        self._last_message_id = 0

    def run(self) -> Iterator[None]:
        """The pieces of work, each short; pause after each for as long as it has taken."""
        yield from self._sweep()
        self._look()
        yield
        for segment in [segment for segment in self._segments if segment.sealed_at is not None]:
            yield from self._by_age(segment)
        yield from self._by_size()
        yield from self._in_open_segment()
        self.report.minutes = yield from self._thin("rollup_minutes", self._options.minutes_age_us, 60_000_000)
        self.report.hours = yield from self._thin("rollup_hours", self._options.hours_age_us, 3_600_000_000)

    def behind(self, holder: Holder) -> int:
        """About how many messages a cursor has yet to read."""
        return max(0, self._last_message_id - max(holder.free_to, self._segments[0].first_message_id - 1))

    def _look(self) -> None:
        log = self._log
        with log.snapshot():
            self._segments = list(log.segments)
            self.holders = holders(log.rows, past_consumers=self._options.past_consumers)
            firsts = [segment.first_message_id for segment in self._segments]
            last = log.rows(f"SELECT max(id) FROM messages_{self._segments[-1].id}")[0][0] or firsts[-1] - 1
        self._last_message_id = last
        for segment, end in zip(self._segments, [*firsts[1:], last + 1], strict=True):
            self._messages[segment.id] = end - segment.first_message_id - segment.removed
        rows = sum(self._messages[segment.id] + segment.events for segment in self._segments)
        self._bytes_per_row = self._used_bytes() / max(rows, 1)
        self._wal_bytes = _size(Path(f"{self._log.path}-wal"))  # as yet: our own work makes it longer
        self._memory.forget_but({segment.id for segment in self._segments})

    def _by_age(self, segment: Segment) -> Iterator[None]:
        """Drop a sealed segment, or take out of it what is due, when all of it is older than an age."""
        span = self._span(segment)
        if span is None:
            return
        last, received_to = span
        due = [age for age in self._ages.finite if received_to + age < self._now]
        if not due:
            return
        if (yield from self._all_due(segment, last, received_to)):
            yield from self._drop(segment, last, received_to)
        else:
            yield from self._take_out(segment, last, due[-1])

    def _span(self, segment: Segment) -> tuple[int, int] | None:
        """The last message that a sealed segment has, and when the newest was received; None where it is gone."""
        with self._log.snapshot():
            if not self._is_there(segment):
                return None
            rows = self._log.rows(f"SELECT id, received_at FROM messages_{segment.id} ORDER BY id DESC LIMIT 1")
        if not rows:
            return segment.first_message_id - 1, segment.received_to or 0
        last, received_at = rows[0]
        # The bounds speak of events; what became none stands behind the last of them, too.
        return last, received_at if segment.received_to is None else max(received_at, segment.received_to)

    def _all_due(self, segment: Segment, last: int, received_to: int) -> Generator[None, None, bool]:
        """Whether all messages of a segment may go. Looks for the first that may not where it was the last time."""
        if received_to + self._ages.longest < self._now:
            return True
        known = self._memory.kept.get(segment.id)
        if known is None or known.rewritten != segment.rewritten:
            known = Kept(segment.rewritten, segment.first_message_id, -1)
        low = known.message_id - 1
        while known.until < self._now and low < last:
            rows = self._read(segment, low, last)
            yield
            if not rows:
                break
            for message_id, topic_id, received_at, kinds in rows:
                until = received_at + self._ages.of(topic_id, kinds)
                if until >= self._now:
                    known = Kept(segment.rewritten, message_id, until)
                    break
            low = rows[-1][0]
        if known.until < self._now:
            known = Kept(segment.rewritten, last + 1, -1)
        self._memory.kept[segment.id] = known
        return known.until < self._now

    def _drop(self, segment: Segment, last: int, received_to: int) -> Generator[None, None, bool]:
        """Drop a segment whole; whether it went."""
        if last > free_to(self.holders):
            if segment.id not in self._held:
                self._held.add(segment.id)
                self._note_held(last, counted(segment, self._messages[segment.id], received_to))
            return False
        if self._connection is None:
            counts: Counts | None = counted(segment, self._messages[segment.id], received_to)
            self.report.freed_bytes += int(self._bytes_per_row * (self._messages[segment.id] + segment.events))
        else:
            counts = drop_segment(
                self._connection, self._log.path, segment.id, received_to, past_consumers=self._options.past_consumers
            )
        yield
        if counts is None:
            return False
        self._gone.add(segment.id)
        self.report.dropped.add(counts)
        if self._connection is not None:
            logger.info(
                "dropped segment %d: %s messages, %s events, received from %s to %s",
                segment.id,
                *told(counts),
                iso(counts.received_from or received_to),
                iso(received_to),
            )
            yield from self._sweep()
        return True

    def _take_out(self, segment: Segment, last: int, age: int) -> Iterator[None]:
        """Take out of a sealed segment what may be no older than `age`, unless that has been done.

        What may be older is left to later: it may go with the segment, which is less work.
        """
        swept = self._memory.swept.get(segment.id)
        if swept is None or (swept.rewritten, swept.age) != (segment.rewritten, age):
            swept = self._memory.swept[segment.id] = Swept(segment.rewritten, age, segment.first_message_id - 1)
        free = free_to(self.holders)
        while swept.message_id < min(last, free):
            rows = self._read(segment, swept.message_id, min(last, free))
            yield
            yield from self._remove(segment, self._due(rows, age))
            swept.message_id = rows[-1][0] if rows else min(last, free)
        if self._tells_held:
            yield from self._count_held(segment, max(segment.first_message_id - 1, free), last, age)

    def _in_open_segment(self) -> Iterator[None]:
        """Take out what is due of the segment that is being written, as it becomes due: it may stay open for months."""
        segment = self._segments[-1]
        end = self._last_message_id - 1  # the last tells the next one's id
        free = min(end, free_to(self.holders))
        # What any age makes due stands before where the shortest ends. Those that follow find what that left earlier.
        for age in self._ages.finite if self._connection else self._ages.finite[:1]:
            key = segment.id, age
            low, all_older = self._memory.swept_open.get(key, segment.first_message_id - 1), True
            while all_older and low < free:
                rows = self._read(segment, low, free)
                yield
                older = next((n for n, row in enumerate(rows) if row[2] + age >= self._now), len(rows))
                yield from self._remove(segment, self._due(rows[:older]))
                all_older = older == len(rows) > 0
                low = self._memory.swept_open[key] = rows[older - 1][0] if older else low
        if self._tells_held and self._ages.finite:
            yield from self._count_held(segment, max(segment.first_message_id - 1, free), end)

    def _by_size(self) -> Iterator[None]:
        """Drop the oldest segments until the store is as small as it is to be."""
        most = self._options.max_bytes
        if most is None:
            return
        for segment in [*self._segments]:
            too_large_by = self._used_bytes() + self._wal_bytes - most
            if too_large_by <= 0:
                return
            if segment.id in self._gone:
                continue
            span = self._span(segment)
            if segment.sealed_at is None:
                self.report.too_large_by = too_large_by
            elif span is not None and not (yield from self._drop(segment, *span)):
                return

    def _sweep(self) -> Iterator[None]:
        """Clear away what is left of dropped segments, of a run that was killed too."""
        if self._connection is None:
            return
        path = self._log.path
        with self._log.snapshot():
            tables = orphans(self._log.rows)
        for table in tables:
            while table.startswith("messages_") and sweep_rejections(self._connection, path, table):
                yield
            yield
            self.report.freed_bytes += sweep_table(self._connection, path, table)
            yield

    def _remove(self, segment: Segment, due: dict[int, int]) -> Iterator[None]:
        """Take messages out of a segment, some hundreds at a time."""
        ids = list(due)
        width = max(1, int(REMOVED_ROWS / (1 + self._events_per_message(segment)))) if ids else 1
        for first in range(0, len(ids), width):
            part = {id: due[id] for id in ids[first : first + width]}
            if self._connection is None:
                counts = self._count(segment, part)
                before = self._removed_rows.get(segment.id, 0)
                self._removed_rows[segment.id] = before + counts.messages + counts.events
            else:
                counts = remove_messages(
                    self._connection, self._log.path, segment.id, part, past_consumers=self._options.past_consumers
                )
            self.report.removed.add(counts)
            yield

    def _events_per_message(self, segment: Segment) -> float:
        """On average, as the segment was at the beginning of this pass."""
        if segment.id not in self._density:
            behind = 0
            if segment.sealed_at is None:
                sql = f"SELECT count(*) FROM events_{segment.id} WHERE id > :indexed_to"
                behind = self._log.rows(sql, {"indexed_to": segment.indexed_to})[0][0]
            self._density[segment.id] = (segment.events + behind) / max(self._messages[segment.id], 1)
        return self._density[segment.id]

    def _count_held(self, segment: Segment, low: int, last: int, longest: int = FOREVER) -> Iterator[None]:
        while low < last and (rows := self._read(segment, low, last)):
            yield
            due = self._due(rows, longest)
            if due:
                self._note_held(min(due), self._count(segment, due))
            low = rows[-1][0]

    def _note_held(self, message_id: int, counts: Counts) -> None:
        names = tuple(holder.name for holder in self.holders if holder.free_to < message_id)
        self.report.held.setdefault(names, Counts()).add(counts)

    def _read(self, segment: Segment, low: int, high: int) -> list[tuple[int, int, int, str | None]]:
        """Messages above `low` and up to `high`: id, topic, time of receipt, kinds; none where the segment is gone."""
        kinds = _KINDS.format(n=segment.id) if self._ages.by_kind else "NULL"
        with self._log.snapshot():
            if not self._is_there(segment):
                return []
            return self._log.rows(
                f"SELECT m.id, m.topic_id, m.received_at, {kinds} FROM messages_{segment.id} AS m"
                f" WHERE m.id > :low AND m.id <= :high ORDER BY m.id LIMIT {SCANNED_MESSAGES}",
                {"low": low, "high": min(high, EVERYTHING - 1)},
            )

    def _due(self, rows: list[tuple[int, int, int, str | None]], longest: int = FOREVER) -> dict[int, int]:
        """When those messages were received that may go, by id; only those that may be no older than `longest`."""
        found = {}
        for id, topic_id, received_at, kinds in rows:
            age = self._ages.of(topic_id, kinds)
            if age <= longest and received_at + age < self._now:
                found[id] = received_at
        return found

    def _count(self, segment: Segment, received_at: dict[int, int]) -> Counts:
        """What would go with these messages."""
        values = {"ids": as_json(list(received_at)), "per": EVENTS_PER_MESSAGE}
        with self._log.snapshot():
            if not self._is_there(segment):
                return Counts()
            events, rejections = self._log.rows(_COUNTED.format(n=segment.id), values)[0]
        times = received_at.values()
        return Counts(0, len(received_at), events, rejections, min(times), max(times))

    def _thin(self, table: str, age: int | None, width_us: int) -> Generator[None, None, int]:
        """Delete the buckets that are older; how many rows."""
        if age is None:
            return 0
        before = max(self._now - age, -FOREVER) // width_us
        rows: int = 0
        if self._connection is None:
            rows = self._log.rows(f"SELECT count(*) FROM {table} WHERE bucket < :before", {"before": before})[0][0]
        else:
            exists = f"SELECT EXISTS (SELECT 1 FROM {table} WHERE bucket < :before)"
            while self._log.rows(exists, {"before": before})[0][0]:
                rows += thin_rollups(self._connection, self._log.path, table, before)
                yield
        return rows

    def _about_freed_singly(self) -> int:
        """What messages taken out singly would free: a page is free when hardly anything is left of it."""
        rows = {segment.id: self._messages[segment.id] + segment.events for segment in self._segments}
        freed = (count for id, count in self._removed_rows.items() if count >= rows[id] * MERGED_SHARE)
        return int(self._bytes_per_row * sum(freed))

    def _is_there(self, segment: Segment) -> bool:
        """Whether a segment is in the snapshot: another process may drop some too."""
        return any(present.id == segment.id for present in self._log.segments)

    def _used_bytes(self) -> int:
        """What the store's pages take that are in use; where nothing is changed, without what would be gone."""
        with self._log.snapshot():
            pages = self._log.rows("PRAGMA page_count")[0][0] - self._log.rows("PRAGMA freelist_count")[0][0]
        used: int = pages * engine.PAGE_BYTES
        if self._connection is None:
            used -= self.report.freed_bytes + self._about_freed_singly()
        return used


def told(counts: Counts) -> tuple[str, str]:
    """Messages and events, for a line of the log."""
    return f"{counts.messages:,}", f"{counts.events:,}"


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0


_KINDS = (
    "(SELECT group_concat(DISTINCT e.kind_id) FROM events_{n} AS e"
    f" WHERE e.id BETWEEN m.id * {EVENTS_PER_MESSAGE} AND m.id * {EVENTS_PER_MESSAGE} + {EVENTS_PER_MESSAGE - 1})"
)
_COUNTED = (
    "SELECT (SELECT count(*) FROM json_each(:ids) AS wanted CROSS JOIN events_{n} AS e"
    " ON e.id BETWEEN wanted.value * :per AND wanted.value * :per + :per - 1),"
    " (SELECT count(*) FROM rejections WHERE message_id IN (SELECT value FROM json_each(:ids)))"
)
