"""The newest value of each series: kept in a table, read with what has come since. Never looks further back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from storage.clocks import CLOCKS_SET_SINCE_US, believed
from storage.conditions import Row, as_json, devices_picked
from storage.event import Value
from storage.filters import Filters
from storage.snapshot import OpenLog
from storage.summaries import HOUR_US, NOT_OF_THE_DEVICE, Noted, SeriesIds, said
from storage.summaries.past import COLUMNS, EARLIEST, LATEST, NotedRows, Past
from storage.walk import Walk

if TYPE_CHECKING:
    from sqlalchemy import Connection

NAME = "amber.latest"

SERIES_A_READ = 2_000
EVENTS_A_READ = 2_000

Newest = tuple[int, int, int, Mapping[str, Value], str | None]
"""A value as it was noted, by its event: at, event id, received at, the readings, the detail."""


class LatestValue(msgspec.Struct, frozen=True, gc=False):
    """The newest value of a series, as JSON, and the event that it is from.

    `at` is when it was observed, but never after it was received. `quality` says what is wrong with it, if anything:
    bad, uncertain or stale, or missing where it is null and nobody called it bad.
    """

    device: str
    reading: str
    value: str
    unit: str | None
    quality: str | None
    at: int
    received_at: int
    event_id: int


class StoredSeries(msgspec.Struct, frozen=True, gc=False):
    """A reading of a device, its unit and where that is from, and when its newest value was observed.

    `last_at` is None where it has only been told to the device or announced.
    """

    device: str
    reading: str
    unit: str | None
    unit_source: str | None
    last_at: int | None


class NewestValues(dict[tuple[int, str], Newest]):
    """The newest value noted of each reading, by device and name: newest by time, and then by position."""

    def note(self, events: Iterable[Noted]) -> None:
        for id, device_id, kind, _, _, observed_at, received_at, readings, detail in events:
            if kind in NOT_OF_THE_DEVICE:
                continue
            at = believed(observed_at, received_at)
            newest = at, id, received_at, readings, detail
            for reading in readings:
                key = device_id, reading
                known = self.get(key)
                if known is None or at > known[0] or (at == known[0] and id >= known[1]):
                    self[key] = newest


class Latest:
    """Keeps the table `latest`; a Summary."""

    name = NAME
    flush_s = 1.0

    def __init__(self, log: OpenLog) -> None:
        self._waiting = NewestValues()
        self._series = SeriesIds(log)
        self._noted = NotedRows(log)

    def note(self, events: Sequence[Noted]) -> None:
        self._waiting.note(events)

    @property
    def pending(self) -> int:
        return len(self._waiting)

    def write(self, connection: Connection, position: int, rows: int) -> None:  # noqa: ARG002 - rows tell their events
        waiting = self._waiting
        self._put(connection, [waiting.popitem() for _ in range(min(rows, len(waiting)))])

    def correct(self, connection: Connection, device_id: int, hours: Sequence[int], position: int) -> None:  # noqa: ARG002
        """Look at what is kept of the device, and at what the hours have; and further back only for what is lost.

        A value is lost when its event has it no more, or has it at an earlier time; what another event has at that very
        time, before it in the log, does not stand for it. One that retention has dropped stays until a newer one comes.
        """
        past, found, lost = Past(connection, self._noted, device_id), NewestValues(), list[str]()
        kept = list(map(tuple, connection.exec_driver_sql(_KEPT, (device_id,))))
        for event_id in {event_id for _, event_id, _ in kept}:
            event = past.event(event_id)
            found.note([] if event is None else [event])
        for reading, event_id, at in kept:
            value = found.get((device_id, reading))
            if (value is None or value[:2] < (at, event_id)) and not past.dropped(event_id):
                lost.append(reading)
        found.note(past.of_hours(self._telling(connection, device_id, kept, hours)))
        if lost:
            self._search(past, {(device_id, reading) for reading in lost}, found)
            for reading in lost:
                connection.exec_driver_sql(_FORGET, (self._series.of(device_id, reading),))
        self._put(connection, found.items())

    def _telling(
        self, connection: Connection, device_id: int, kept: Sequence[Row], hours: Sequence[int]
    ) -> Sequence[int]:
        """The hours that may have something newer than what is kept; all of them for a series of which nothing is."""
        series = connection.exec_driver_sql("SELECT count(*) FROM series WHERE device_id = ?", (device_id,)).scalar()
        if not kept or series != len(kept):
            return hours
        oldest = min(at for _, _, at in kept)
        return [hour for hour in hours if (hour + 1) * HOUR_US > oldest or hour * HOUR_US < CLOCKS_SET_SINCE_US]

    def _search(self, past: Past, lost: set[tuple[int, str]], found: NewestValues) -> None:
        """Walk back through the device's events until nothing before can be newer than what was found."""

        def reached() -> int:
            return min(found[key][0] if key in found else EARLIEST for key in lost)

        for segment in past.segments:
            found.note(past.behind(segment))
            if segment.received_to is None or (least := reached()) > segment.received_to:
                continue
            for event in past.indexed(segment, CLOCKS_SET_SINCE_US):
                if least > event.observed_at:
                    break
                found.note([event])
                if any((event.device_id, reading) in lost for reading in event.readings):
                    least = reached()
            if least <= segment.received_to:  # clocks that were not set: their events count as of when they came
                found.note(past.indexed(segment, last=CLOCKS_SET_SINCE_US - 1))

    def _put(self, connection: Connection, values: Iterable[tuple[tuple[int, str], Newest]]) -> None:
        of = self._series.of
        rows = sorted(
            (of(device_id, reading), id, at, received_at, *as_kept(reading, readings[reading], detail))
            for (device_id, reading), (at, id, received_at, readings, detail) in values
        )
        if rows:
            connection.exec_driver_sql(_PUT, rows)


def as_kept(reading: str, value: Value, detail: str | None) -> tuple[str, str | None, str | None]:
    """The value as JSON, the unit where it is not that of its series, and what is wrong with it."""
    missing = "missing" if value is None else None
    if detail is None:
        return encode(value).decode(), None, missing
    says = said(detail)
    return encode(value).decode(), says.units.get(reading), says.quality.get(reading, missing)


def latest(log: OpenLog, filters: Filters) -> Iterator[LatestValue]:
    """The newest value of every series, by device and reading; times are those of the value, on either clock."""
    since = EARLIEST if filters.since is None else filters.since
    until = LATEST + 1 if filters.until is None else filters.until
    place = 0 if filters.clock == "observed" else 2
    for (device, reading, unit, _), kept, newer in _series(log, filters):
        if newer is not None and (kept is None or newer[:2] >= (kept[0], kept[1])):
            at, event_id, received_at, readings, detail = newer
            value, own, quality = as_kept(reading, readings[reading], detail)
        elif kept is not None:
            at, event_id, received_at, value, own, quality = kept
        else:
            continue
        if since <= (at if place == 0 else received_at) < until:
            stands = None if value.startswith('"') else unit  # a text has no unit
            yield LatestValue(device, reading, value, own or stands, quality, at, received_at, event_id)


def series(log: OpenLog, filters: Filters) -> Iterator[StoredSeries]:
    """Every series, by device and reading."""
    for (device, reading, unit, source), kept, newer in _series(log, filters):
        times = [*(kept or ())[:1], *(newer or ())[:1]]
        yield StoredSeries(device, reading, unit, source, max(times, default=None))


def _series(log: OpenLog, filters: Filters) -> Iterator[tuple[Row, Row | None, Newest | None]]:
    """Each series, what is kept of it, and what has come since."""
    see_answerable(filters)
    recent = _recent(log, filters)
    picked = devices_picked(log.rows, filters.devices)
    sql, values = _SERIES, dict[str, object]()
    if filters.readings:
        sql += " AND s.reading IN (SELECT value FROM json_each(:readings))"
        values["readings"] = as_json(filters.readings)
    if picked is not None:
        with log.snapshot():
            picked.refresh()
        sql += " AND substr(:devices, d.id, 1) = x'01'"
        values["devices"] = picked.bytes
    of_device = f"{sql} AND d.id = :device_id AND s.reading > :reading ORDER BY s.reading LIMIT :limit"
    comparison, values["device"] = ">=", ""
    values["limit"] = SERIES_A_READ
    while True:
        behind = f"{sql} AND d.device {comparison} :device ORDER BY d.device, s.reading LIMIT :limit"
        with log.snapshot():
            rows = log.rows(of_device, values) if comparison == ">" else []
            if len(rows) < SERIES_A_READ:
                rows += log.rows(behind, values)
        for device_id, *names in rows:
            named, kept = tuple(names[:4]), None if names[4] is None else tuple(names[4:])
            yield named, kept, recent.get((device_id, named[1])) if recent else None
        if not rows:
            return
        comparison, (values["device_id"], values["device"], values["reading"], *_) = ">", rows[-1]


def _recent(log: OpenLog, filters: Filters) -> NewestValues:
    """What has come since the table was written: no more than a second's worth where a gateway is running."""
    found, noted = NewestValues(), NotedRows(log)
    with log.snapshot():
        kept = log.rows("SELECT position FROM cursors WHERE name = :name", {"name": NAME})
    since = kept[0][0] if kept else 0
    narrowed = Filters(devices=filters.devices, readings=filters.readings, after=since)
    walk = Walk(log, COLUMNS, narrowed)
    walk.end_here()
    while not walk.done:
        found.note(noted(walk.step(EVENTS_A_READ)))
    return found


def see_answerable(filters: Filters) -> None:
    """Raises ValueError for what the latest values cannot be chosen by."""
    if filters.topics or filters.kinds or filters.after or filters.until_position is not None:
        raise ValueError("what is newest is kept by device and reading: it cannot be chosen by topic, kind or position")


encode = msgspec.json.Encoder().encode

_KEPT = (
    "SELECT s.reading, l.event_id, l.at FROM series AS s CROSS JOIN latest AS l ON l.series_id = s.id"
    " WHERE s.device_id = ?"
)
_FORGET = "DELETE FROM latest WHERE series_id = ?"
_PUT = (
    "INSERT INTO latest (series_id, event_id, at, received_at, value, unit, quality) VALUES (?, ?, ?, ?, ?, ?, ?)"
    " ON CONFLICT (series_id) DO UPDATE SET event_id = excluded.event_id, at = excluded.at,"
    " received_at = excluded.received_at, value = excluded.value, unit = excluded.unit, quality = excluded.quality"
    " WHERE (excluded.at, excluded.event_id) >= (latest.at, latest.event_id)"
)
_SERIES = (
    "SELECT d.id, d.device, s.reading, s.unit, s.unit_source, l.at, l.event_id, l.received_at, l.value, l.unit,"
    " l.quality FROM devices AS d CROSS JOIN series AS s ON s.device_id = d.id LEFT JOIN latest AS l"
    " ON l.series_id = s.id WHERE true"
)
