"""What the numbers of a series come to in equal steps of time: from the roll-ups, and from the events where they end.

An answer is what reading all the events would give, at one moment of the log. Of events that retention has dropped it
has what the roll-ups still say.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec

from storage.conditions import Row
from storage.errors import AmberError
from storage.segment import Segment
from storage.snapshot import OpenLog
from storage.summaries import HOUR_US, MINUTE_US, NOT_OF_THE_DEVICE
from storage.summaries.device_events import LEAST, Wanted, bound, device_events
from storage.summaries.rollups import (
    AS_THEY_WERE,
    CURSOR,
    HOURS,
    LACKING,
    MINUTES,
    Sum,
    as_number,
    decode_readings,
    first_whole_hour,
    sound,
)

MOST_BUCKETS = 50_000
"""A month of minutes; as many fit the memory of any machine."""

TRIES = 3
"""So often an answer is begun anew when events were exchanged meanwhile; then the log is held as it is."""

FEW_NAMES = 5
"""So few are all named."""

NEAR_NAMES = 2_000
"""So many names are compared with one that is not there."""


class Bucket(msgspec.Struct, frozen=True):
    """The readings observed in one step of time, which begins at `start`; `last` is the one observed last."""

    start: int
    count: int
    min: float
    max: float
    sum: float
    last: float

    @property
    def mean(self) -> float:
        return self.sum / self.count


class Series(msgspec.Struct, frozen=True):
    id: int
    device_id: int
    device: str
    reading: str
    unit: str | None


class NoSuchSeries(AmberError):
    """The device or the reading is not in the store; the text names what is."""


class TooManyBuckets(AmberError):
    """An answer that would be longer than anyone could look at."""


def buckets(log: OpenLog, device: str, reading: str, *, since: int, until: int, every_us: int) -> list[Bucket]:
    """The buckets that have readings, by time; those that `since` and `until` fall into are whole.

    They are aligned to the epoch, UTC. Raises NoSuchSeries and TooManyBuckets.
    """
    if every_us < 1:
        raise ValueError("a step of time must be longer than nothing")
    series = find_series(log, device, reading)
    since -= since % every_us
    asked = Asked(series, since, max(since, until + -until % every_us), every_us)
    for _ in range(TRIES):
        with contextlib.suppress(Exchanged):
            return _read(log, asked, hold=False)
    return _read(log, asked, hold=True)


def find_series(log: OpenLog, device: str, reading: str) -> Series:
    """The series of a reading. Raises NoSuchSeries, which names what is nearest."""
    with log.snapshot():
        found = log.rows("SELECT id FROM devices WHERE device = :device", {"device": device})
        if not found:
            raise NoSuchSeries(
                _not_there(log, "there is no device", device, _DEVICES, {}, remedy="`amber devices` lists them")
            )
        values = {"device_id": found[0][0], "reading": reading}
        rows = log.rows("SELECT id, unit FROM series WHERE device_id = :device_id AND reading = :reading", values)
        if not rows:
            remedy = f"`amber events --device {_shown(device)}` shows what it sends"
            raise NoSuchSeries(
                _not_there(log, f"{_shown(device)} has no reading", reading, _READINGS, values, remedy=remedy)
            )
        return Series(rows[0][0], found[0][0], device, reading, rows[0][1])


def beginning(log: OpenLog, series: Series, since: int, until: int) -> int:
    """When there is something of a device to show: `since`, or later where it has begun only then.

    What retention has dropped counts as well.
    """
    found: list[int] = []
    with log.snapshot():
        values: dict[str, object] = {"device_id": series.device_id}
        received = log.rows("SELECT first_received_at FROM presence WHERE device_id = :device_id", values)
        if received and received[0][0] <= since:
            return since
        found += (at for (at,) in received)
        values |= {"since": bound(since), "last": bound(until - 1)}
        for segment in log.segments:
            found += (
                at
                for (at,) in log.rows(_FIRST.format(n=segment.id), {**values, "indexed_to": segment.indexed_to})
                if at is not None
            )
        if not received:
            kept = {"series_id": series.id, "first": bound(since // MINUTE_US), "last": bound((until - 1) // MINUTE_US)}
            found += (row[0] * MINUTE_US for row in log.rows(_ROWS.format(table=MINUTES), kept)[:1])
    begun = max(since, min(found, default=since))
    return begun if begun < until else since


def as_they_were(log: OpenLog, series: Series, *, since: int, every_us: int) -> int | None:
    """Before when the sums of a range are those from before events were exchanged; None where none of them are.

    Retention had dropped some of the device's events by then, so nobody could read or sum these up anew.
    """
    if every_us % MINUTE_US:
        return None
    with log.snapshot():
        values: dict[str, object] = {"device_id": series.device_id}
        marked = log.rows("SELECT value FROM marks WHERE name = :name", {"name": AS_THEY_WERE.format(series.device_id)})
        hours: list[int] = [hour for (hour,) in marked]
        if log.rows("SELECT 1 FROM corrections WHERE device_id = :device_id LIMIT 1", values):
            hours.append(first_whole_hour(log.rows, series.device_id))
    end = max(hours, default=LEAST) * HOUR_US
    return end if end > since else None


class Asked(msgspec.Struct, frozen=True):
    """A question: buckets of a series, the range being whole buckets."""

    series: Series
    since: int
    until: int
    every_us: int


class Exchanged(Exception):
    """The log is no longer as it was when the answer was begun: events were exchanged, or dropped."""


class Answer:
    """The sums of each bucket so far."""

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self._sums: dict[int, Sum] = {}

    def add(self, at: int, sums: Sum) -> None:
        """Take in readings from within one bucket, of events that stand behind the others or of other times."""
        number = at // self._asked.every_us
        known = self._sums.get(number)
        if known is not None:
            known.merge(sums)
            return
        if len(self._sums) == MOST_BUCKETS:
            raise TooManyBuckets(
                f"that is more than {MOST_BUCKETS:,} steps of time: take longer ones, or a shorter range"
            )
        self._sums[number] = sums

    def buckets(self) -> list[Bucket]:
        every_us = self._asked.every_us
        return [
            Bucket(number * every_us, sums.count, sums.min, sums.max, sums.sum, sums.last)
            for number, sums in sorted(self._sums.items())
        ]


class Doubt:
    """A row that may be of some events only, and the sum of those that are there: the one that has more counts."""

    def __init__(self, goes_to: int, row: Sum) -> None:
        self._goes_to = goes_to
        self._row = row
        self._events: Sum | None = None

    def add(self, id: int, at: int, value: float) -> None:
        if id > self._goes_to:
            self._row.merge(one_reading(at, value))
        if self._events is None:
            self._events = one_reading(at, value)
        else:
            self._events.merge(one_reading(at, value))

    @property
    def sums(self) -> Sum:
        events = self._events
        return self._row if events is None or events.count < self._row.count else events


class Part:
    """A part of the range, and what is known of the roll-ups that its answer is from; None where it is from events.

    Where rows are `lacking`, for they were dropped by their age, or came after others of their time had been dropped,
    the events tell. A row that is there counts only where it is of more events than are left.
    """

    def __init__(self, asked: Asked, since: int, until: int, table: str | None, *, lacking: bool) -> None:
        self.since = since
        self.until = until
        self._asked = asked
        self._table = table
        self._lacking = lacking
        self._unit_us = UNITS_US[table or MINUTES]
        self._ahead: dict[int, int] = {}
        self._doubts: dict[int, Doubt] = {}

    def add_rows(self, log: OpenLog, answer: Answer, stale: Sequence[int], position: int) -> None:
        """Add the roll-ups but those of stale hours, and note which are ahead of their cursor's position."""
        if self._table is None:
            return
        unit_us, left_out = self._unit_us, set(stale)
        values = {
            "series_id": self._asked.series.id,
            "first": bound(self.since // unit_us),
            "last": bound((self.until - 1) // unit_us),
        }
        for bucket, goes_to, *sums in log.connection.execute(_ROWS.format(table=self._table), values):
            at = bucket * unit_us
            if at // HOUR_US in left_out:
                continue
            if self._lacking:
                self._doubts[bucket] = Doubt(max(goes_to, position), Sum(*sums))
                continue
            answer.add(at, Sum(*sums))
            if goes_to > position:
                self._ahead[bucket] = goes_to

    def wanted(self, stale: Sequence[int], position: int, up_to: int) -> list[Wanted]:
        """The events to read: those behind the cursor, and all of the stale hours and of where rows are lacking."""
        wanted, since, device_id = [], self.since, self._asked.series.device_id
        if self._table is None or self._lacking:
            return [Wanted(device_id, since, self.until, 0, up_to)]
        for first, last in _runs(stale):
            begin, end = max(first * HOUR_US, self.since), min((last + 1) * HOUR_US, self.until)
            if begin < end:
                wanted.append(Wanted(device_id, since, begin, position, up_to))
                wanted.append(Wanted(device_id, begin, end, 0, up_to))
                since = end
        wanted.append(Wanted(device_id, since, self.until, position, up_to))
        return [part for part in wanted if part.since < part.until]

    def add_events(self, answer: Answer, events: Iterable[Row]) -> None:
        """Take in events but those that a row which is ahead of the cursor holds already."""
        unit_us, ahead, doubts = self._unit_us, self._ahead, self._doubts
        for id, at, value in _numbers(events, self._asked.series.reading):
            doubt = doubts.get(at // unit_us)
            if doubt is not None:
                doubt.add(id, at, value)
            elif id > ahead.get(at // unit_us, 0):
                answer.add(at, one_reading(at, value))

    def settle(self, answer: Answer) -> None:
        for bucket, doubt in self._doubts.items():
            answer.add(bucket * self._unit_us, doubt.sums)


def one_reading(at: int, value: float) -> Sum:
    return Sum(1, value, value, value, at, value)


def _read(log: OpenLog, asked: Asked, *, hold: bool) -> list[Bucket]:
    """The answer: the roll-ups in one read, and the events in the same one or, not to hold the log, in short ones."""
    answer = Answer(asked)
    with contextlib.ExitStack() as held:
        held.enter_context(log.snapshot())
        up_to, segments = log.position, log.segments
        cursor = log.rows("SELECT position FROM cursors WHERE name = :name", {"name": CURSOR})
        position: int = cursor[0][0] if cursor else 0
        stale, parts = _stale_hours(log, asked), _parts(log, asked)
        for part in parts:
            part.add_rows(log, answer, stale, position)
        if not hold:
            held.close()

        def ask(sql: str, values: Mapping[str, object]) -> list[Row]:
            if hold:
                return log.rows(sql, values)
            with log.snapshot():
                if _state(log.segments, up_to) != _state(segments, up_to):
                    raise Exchanged
                return log.rows(sql, values)

        for part in parts:
            for wanted in part.wanted(stale, position, up_to):
                for segment in segments:
                    for page in device_events(ask, segment, wanted):
                        part.add_events(answer, page)
            part.settle(answer)
    return answer.buckets()


def _parts(log: OpenLog, asked: Asked) -> list[Part]:
    """The range as the roll-ups have it: the coarsest that the steps allow, before them finer ones, then the events."""
    tables = [table for table, unit_us in UNITS_US.items() if asked.every_us % unit_us == 0]
    if not tables:
        return [Part(asked, asked.since, asked.until, None, lacking=False)]
    parts, until = [], asked.until
    for table in tables:
        marked = log.rows("SELECT value FROM marks WHERE name = :name", {"name": LACKING.format(table)})
        since = max(asked.since, marked[0][0] * UNITS_US[table]) if marked else asked.since
        if since < until:
            parts.append(Part(asked, since, until, table, lacking=False))
            until = since
    if asked.since < until:
        parts.append(Part(asked, asked.since, until, tables[0], lacking=True))
    return parts


def _numbers(events: Iterable[Row], reading: str) -> Iterator[tuple[int, int, float]]:
    """Id, time of observation and value of the events that have a number which says how the device is."""
    for id, kind, at, readings, detail in events:
        if kind not in NOT_OF_THE_DEVICE:
            found = decode_readings(readings)
            value = as_number((found if detail is None else sound(found, detail)).get(reading))
            if value is not None:
                yield id, at, value


def _state(segments: Sequence[Segment], up_to: int) -> list[tuple[int, int, int]]:
    """Another one when events that were there up to a position are others now, or are gone."""
    return [(one.id, one.rewritten, one.removed) for one in segments if one.first_event_id <= up_to]


def _stale_hours(log: OpenLog, asked: Asked) -> list[int]:
    """The hours of which the roll-ups are yet to be made anew, for events were exchanged there."""
    kept_from = first_whole_hour(log.rows, asked.series.device_id)
    values = {
        "device_id": asked.series.device_id,
        "first": bound(max(asked.since // HOUR_US, kept_from)),
        "last": bound((asked.until - 1) // HOUR_US),
    }
    return [hour for (hour,) in log.rows(_STALE, values)]


def _runs(numbers: Sequence[int]) -> list[tuple[int, int]]:
    """First and last of those that follow each other without a gap."""
    runs: list[tuple[int, int]] = []
    for number in numbers:
        if runs and runs[-1][1] == number - 1:
            runs[-1] = runs[-1][0], number
        else:
            runs.append((number, number))
    return runs


def _not_there(log: OpenLog, what: str, name: str, near: str, values: Mapping[str, object], *, remedy: str) -> str:
    from difflib import get_close_matches

    names = [row[0] for row in log.rows(near, {**values, "name": name, "limit": NEAR_NAMES})]
    near_names = get_close_matches(name, names, cutoff=0.5) or names[: len(names) if len(names) <= FEW_NAMES else 0]
    hint = f"is it {', '.join(map(_shown, near_names))}? " if near_names else ""
    return f"{what} {_shown(name)!r}: {hint}{remedy}"


def _shown(name: str) -> str:
    from storage.render import shown

    return shown(name)


UNITS_US = {HOURS: HOUR_US, MINUTES: MINUTE_US}
"""How long a bucket of each table is, the longest first."""

_STALE = "SELECT hour FROM corrections WHERE device_id = :device_id AND hour BETWEEN :first AND :last ORDER BY hour"

# From one bucket that is there to the next, whatever lies between: a device's clock may say anything.
_ROWS = (
    "WITH RECURSIVE there(bucket) AS (SELECT min(bucket) FROM {table} WHERE bucket >= :first UNION ALL"
    " SELECT (SELECT min(bucket) FROM {table} AS next WHERE next.bucket > there.bucket) FROM there"
    " WHERE there.bucket < :last)"
    " SELECT r.bucket, position, count, min, max, sum, last_at, last FROM there"
    " CROSS JOIN {table} AS r ON r.bucket = there.bucket AND r.series_id = :series_id WHERE r.bucket <= :last"
)
_FIRST = (
    "SELECT (SELECT observed_at FROM event_index_{n} WHERE device_id = :device_id AND observed_at >= :since"
    " AND observed_at <= :last ORDER BY observed_at LIMIT 1)"
    " UNION ALL SELECT min(observed_at) FROM events_{n} WHERE id > :indexed_to AND device_id = :device_id"
    " AND observed_at BETWEEN :since AND :last"
)
_NEAREST = (
    "ORDER BY instr(lower({name}), lower(:name)) > 0 DESC,"
    " substr({name}, 1, length(:name) / 2) = substr(:name, 1, length(:name) / 2) DESC,"
    " abs(length({name}) - length(:name)), id LIMIT :limit"
)
_DEVICES = f"SELECT device FROM devices {_NEAREST.format(name='device')}"
_READINGS = f"SELECT reading FROM series WHERE device_id = :device_id {_NEAREST.format(name='reading')}"
