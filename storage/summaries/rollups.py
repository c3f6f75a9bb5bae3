"""Sums up the numbers of each series by minute and by hour. Never decides how long they are kept.

Left out are texts, what its sender calls bad, what has another unit than its series, what is not how a device is, and
numbers so large that their sum would be none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING

import msgspec

from storage.conditions import Ask, Row
from storage.event import Value
from storage.snapshot import OpenLog
from storage.summaries import FORGOTTEN, HOUR_US, MINUTE_US, NOT_OF_THE_DEVICE, Noted, SeriesIds, said
from storage.summaries.device_events import LEAST, Wanted, device_events

if TYPE_CHECKING:
    from sqlalchemy import Connection

CURSOR = "amber.rollups"

LARGEST = 1e288
"""As many of these as an id can count have a sum that is still a number."""

HOUR_MINUTES = 60

RollupRow = tuple[int, int, int, int, float, float, float, int, float]
"""As the tables have them."""


class Sum(msgspec.Struct, gc=False):
    """What some readings come to; `last` is the one that was observed last, at `last_at`."""

    count: int
    min: float
    max: float
    sum: float
    last_at: int
    last: float

    def merge(self, other: Sum) -> None:
        """Add readings of events that stand behind these in the log, or were observed at other times."""
        self.count += other.count
        self.min = min(self.min, other.min)
        self.max = max(self.max, other.max)
        self.sum += other.sum
        if other.last_at >= self.last_at:
            self.last_at, self.last = other.last_at, other.last


class Rollups:
    """The summary that charts are drawn from."""

    name = CURSOR
    flush_s = 10.0

    def __init__(self, log: OpenLog) -> None:
        self._series = SeriesIds(log)
        self._sums = Sums(self._series)
        self._taking: tuple[tuple[str, Iterator[RollupRow]], ...] | None = None

    def note(self, events: Sequence[Noted]) -> None:
        self._sums.note(events)

    @property
    def pending(self) -> int:
        return self._sums.rows

    def write(self, connection: Connection, position: int, rows: int) -> None:
        if self._taking is None:
            self._taking = self._sums.taking(position)
        for table, taking in self._taking:
            taken = list(islice(taking, rows))
            merge_rows(connection, table, taken)
            rows -= len(taken)
        if not self.pending:
            self._sums, self._taking = Sums(self._series), None

    def correct(self, connection: Connection, device_id: int, hours: Sequence[int], position: int) -> None:
        """What retention may have dropped events of is left as it is: it would lose their part."""
        from storage import segments

        present = segments.present(connection)

        def ask(sql: str, values: Mapping[str, object]) -> list[Row]:
            return [tuple(row) for row in connection.exec_driver_sql(sql, dict(values))]

        kept_from = first_whole_hour(ask, device_id)
        if kept_from > LEAST:
            raise_mark(connection, AS_THEY_WERE.format(device_id), kept_from)
        for hour in hours:
            if hour < kept_from:
                continue
            sums = Sums(self._series)
            wanted = Wanted(device_id, hour * HOUR_US, (hour + 1) * HOUR_US, 0, position)
            for segment in present:
                for page in device_events(ask, segment, wanted):
                    sums.note([_noted(device_id, row) for row in page])
            minutes = range(hour * HOUR_MINUTES, (hour + 1) * HOUR_MINUTES)
            connection.exec_driver_sql(_DELETE.format(table=MINUTES), [(minute, device_id) for minute in minutes])
            connection.exec_driver_sql(_DELETE.format(table=HOURS), (hour, device_id))
            for table, taking in sums.taking(position):
                merge_rows(connection, table, list(taking))


class Sums:
    """The sums of what was noted, by minute, and by hour once the minutes are taken."""

    def __init__(self, series: SeriesIds) -> None:
        self.rows = 0
        self._series = series
        # By minute, device and reading: ids of series are looked up when there is less to look up.
        self._minutes: dict[int, dict[int, dict[str, Sum]]] = {}
        self._hours: dict[int, dict[int, Sum]] = {}

    def note(self, events: Sequence[Noted]) -> None:
        """`Sum.merge` of each reading, written out: a call for each would double the time."""
        minutes, new = self._minutes, 0
        for _, device_id, kind, _, _, at, _, readings, detail in events:
            if kind in NOT_OF_THE_DEVICE:
                continue
            if detail is not None:
                readings = sound(readings, detail)  # noqa: PLW2901 - what is left of them
            devices = minutes.get(at // MINUTE_US)
            if devices is None:
                devices = minutes[at // MINUTE_US] = {}
            sums = devices.get(device_id)
            if sums is None:
                sums = devices[device_id] = {}
            for reading, value in readings.items():
                if type(value) is not float or not -LARGEST <= value <= LARGEST:
                    value = as_number(value)  # noqa: PLW2901 - the same, as a number
                    if value is None:
                        continue
                known = sums.get(reading)
                if known is None:
                    sums[reading] = Sum(1, value, value, value, at, value)
                    new += 1
                    continue
                known.count += 1
                known.sum += value
                if value < known.min:
                    known.min = value
                elif value > known.max:
                    known.max = value
                if at >= known.last_at:
                    known.last_at, known.last = at, value
        self.rows += new

    def taking(self, position: int) -> tuple[tuple[str, Iterator[RollupRow]], ...]:
        """What takes the rows out of here, each table's in the order of its key; the minutes are to be taken first."""
        return (MINUTES, self._take_minutes(position)), (HOURS, self._take_hours(position))

    def _take_minutes(self, position: int) -> Iterator[RollupRow]:
        for minute in sorted(self._minutes):
            devices = self._minutes.pop(minute)
            totals = self._hours.setdefault(minute // HOUR_MINUTES, {})
            # Devices and their series are numbered as they come: this is nearly the order of the series.
            for device_id in sorted(devices):
                for reading, known in devices.pop(device_id).items():
                    series_id = self._series.of(device_id, reading)
                    row = _row(minute, series_id, position, known)
                    total = totals.get(series_id)
                    if total is None:
                        totals[series_id] = known
                    else:
                        total.merge(known)
                        self.rows -= 1
                    yield row

    def _take_hours(self, position: int) -> Iterator[RollupRow]:
        for hour in sorted(self._hours):
            totals = self._hours.pop(hour)
            for series_id in sorted(totals):
                self.rows -= 1
                yield _row(hour, series_id, position, totals[series_id])


def first_whole_hour(ask: Ask, device_id: int) -> int:
    """The first hour of which retention has dropped nothing of a device: what it observed it had observed before."""
    forgotten = ask(FORGOTTEN, {"device_id": device_id})
    return forgotten[0][1] // HOUR_US + 1 if forgotten else LEAST


def sound(readings: Mapping[str, Value], detail: str) -> Mapping[str, Value]:
    """The readings that are in the unit of their series, and that nothing bad is said of."""
    told = said(detail)
    if not told.units and not told.quality:
        return readings
    return {
        reading: value
        for reading, value in readings.items()
        if reading not in told.units and told.quality.get(reading) != "bad"
    }


def as_number(value: Value) -> float | None:
    """A reading as a number that can be summed up; true is 1."""
    if value is None or isinstance(value, str):
        return None
    return float(value) if -LARGEST <= value <= LARGEST else None


def merge_rows(connection: Connection, table: str, rows: Sequence[RollupRow]) -> None:
    """Add what newer events come to; a row that goes as far already stays as it is."""
    if rows:
        connection.exec_driver_sql(_MERGE.format(table=table), list(rows))


def raise_mark(connection: Connection, name: str, value: int) -> None:
    connection.exec_driver_sql(_MARK, (name, value))


def _row(bucket: int, series_id: int, position: int, known: Sum) -> RollupRow:
    sums = known.count, known.min, known.max, known.sum, known.last_at, known.last
    return bucket, series_id, position, *sums


def _noted(device_id: int, row: Row) -> Noted:
    id, kind, observed_at, readings, detail = row
    return Noted(id, device_id, kind, 0, 0, observed_at, 0, decode_readings(readings), detail)


MINUTES, HOURS = "rollup_minutes", "rollup_hours"

LACKING = "lacking.{}"
"""The mark of a table before which bucket rows may have been dropped by their age."""

AS_THEY_WERE = "as_they_were.{}"
"""The mark of a device before which hour sums are from before its events were exchanged: not all of these were left."""

_MARK = "INSERT INTO marks VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = max(value, excluded.value)"

_MERGE = (
    "INSERT INTO {table} AS old (bucket, series_id, position, count, min, max, sum, last_at, last)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (bucket, series_id) DO UPDATE SET position = excluded.position,"
    " count = old.count + excluded.count, min = min(old.min, excluded.min), max = max(old.max, excluded.max),"
    " sum = old.sum + excluded.sum, last_at = max(old.last_at, excluded.last_at),"
    " last = iif(excluded.last_at >= old.last_at, excluded.last, old.last) WHERE excluded.position > old.position"
)
_DELETE = "DELETE FROM {table} WHERE bucket = ? AND series_id IN (SELECT id FROM series WHERE device_id = ?)"

decode_readings = msgspec.json.Decoder(dict[str, Value]).decode
