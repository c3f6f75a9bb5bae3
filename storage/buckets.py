"""What the numbers of a series come to in equal steps of time: from the roll-ups, and from the events where they end.

An answer is what reading all the events would give, at one moment of the log. What retention has dropped is lacking:
the minutes go before the hours, and the events before both.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from storage.conditions import Row
from storage.device_events import Wanted, bound, device_events
from storage.errors import AmberError
from storage.rollups import CURSOR, HOURS, MINUTES, Sum, as_number, decode_readings, first_whole_hour, sound
from storage.segment import Segment
from storage.snapshot import OpenLog
from storage.summaries import HOUR_US, MINUTE_US, NOT_OF_THE_DEVICE

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


def first_observed(log: OpenLog, device_id: int, since: int, until: int) -> int | None:
    """When the first event of a device in a range was observed; None where there is none."""
    found: list[int] = []
    with log.snapshot():
        for segment in log.segments:
            values = {
                "device_id": device_id,
                "since": bound(since),
                "last": bound(until - 1),
                "indexed_to": segment.indexed_to,
            }
            found += (at for (at,) in log.rows(_FIRST.format(n=segment.id), values) if at is not None)
    return min(found, default=None)


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

    def add_events(self, events: Iterable[Row], ahead: Mapping[int, int], unit_us: int) -> None:
        """Take in events but those that a row which is `ahead` of the cursor holds already."""
        reading = self._asked.series.reading
        for id, kind, at, readings, detail in events:
            if kind in NOT_OF_THE_DEVICE or id <= ahead.get(at // unit_us, 0):
                continue
            found = decode_readings(readings)
            value = as_number((found if detail is None else sound(found, detail)).get(reading))
            if value is not None:
                self.add(at, Sum(1, value, value, value, at, value))

    def buckets(self) -> list[Bucket]:
        every_us = self._asked.every_us
        return [
            Bucket(number * every_us, sums.count, sums.min, sums.max, sums.sum, sums.last)
            for number, sums in sorted(self._sums.items())
        ]


def _read(log: OpenLog, asked: Asked, *, hold: bool) -> list[Bucket]:
    """The answer: the roll-ups in one read, and the events in the same one or, not to hold the log, in short ones."""
    answer, device_id = Answer(asked), asked.series.device_id
    with contextlib.ExitStack() as held:
        held.enter_context(log.snapshot())
        up_to, segments = log.position, log.segments
        unit_us = MINUTE_US if asked.every_us % HOUR_US else HOUR_US
        ahead: dict[int, int] = {}
        if asked.every_us % MINUTE_US:
            wanted = [Wanted(device_id, asked.since, asked.until, 0, up_to)]
        else:
            hours = _stale_hours(log, asked)
            position = _add_rows(log, asked, answer, ahead, hours)
            wanted = _around(asked, hours, position, up_to)
        if not hold:
            held.close()

        def ask(sql: str, values: Mapping[str, object]) -> list[Row]:
            if hold:
                return log.rows(sql, values)
            with log.snapshot():
                if _state(log.segments, up_to) != _state(segments, up_to):
                    raise Exchanged
                return log.rows(sql, values)

        for part in wanted:
            for segment in segments:
                for page in device_events(ask, segment, part):
                    answer.add_events(page, ahead, unit_us)
    return answer.buckets()


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


def _add_rows(log: OpenLog, asked: Asked, answer: Answer, ahead: dict[int, int], stale: Sequence[int]) -> int:
    """Add the roll-ups but those of stale hours; which of them are ahead of the cursor, and where that stands."""
    table, unit_us = (MINUTES, MINUTE_US) if asked.every_us % HOUR_US else (HOURS, HOUR_US)
    cursor = log.rows("SELECT position FROM cursors WHERE name = :name", {"name": CURSOR})
    position: int = cursor[0][0] if cursor else 0
    values = {
        "series_id": asked.series.id,
        "first": bound(asked.since // unit_us),
        "last": bound((asked.until - 1) // unit_us),
    }
    left_out = set(stale)
    for bucket, goes_to, *sums in log.connection.execute(_ROWS.format(table=table), values):
        at = bucket * unit_us
        if at // HOUR_US not in left_out:
            answer.add(at, Sum(*sums))
            if goes_to > position:
                ahead[bucket] = goes_to
    return position


def _around(asked: Asked, stale: Sequence[int], position: int, up_to: int) -> list[Wanted]:
    """The events to read: those behind the cursor, and all of the stale hours."""
    wanted, since, device_id = [], asked.since, asked.series.device_id
    for first, last in _runs(stale):
        begin, end = max(first * HOUR_US, asked.since), min((last + 1) * HOUR_US, asked.until)
        wanted.append(Wanted(device_id, since, begin, position, up_to))
        wanted.append(Wanted(device_id, begin, end, 0, up_to))
        since = end
    wanted.append(Wanted(device_id, since, asked.until, position, up_to))
    return [part for part in wanted if part.since < part.until]


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
