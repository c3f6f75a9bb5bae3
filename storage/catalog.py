"""The writer's memory of names: topics, devices, words and series by id. Is thrown away when a transaction fails."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from sqlalchemy import insert, select

from storage import own_units, schema
from storage.event import Event

if TYPE_CHECKING:
    from sqlalchemy import Connection, Table

REMEMBERED_SHAPES = 100
"""Of one device: the sets of readings and units that come together."""

REMEMBERED_NAMES = 200_000
"""Names held in memory, of each sort; a store may have more, which are looked up again when they come."""


class Names(dict[str, int]):
    """Ids by name, from one table of the catalog; a name that is not there is entered."""

    def __init__(self, connection: Connection, table: Table) -> None:
        super().__init__()
        self._connection = connection
        self._id, self._name = table.c
        self._table = table

    def __missing__(self, name: str) -> int:
        known: int | None = self._connection.scalar(select(self._id).where(self._name == name))
        if known is None:
            entered = insert(self._table).values({self._name: name}).returning(self._id)
            known = int(self._connection.execute(entered).scalar_one())
        if len(self) >= REMEMBERED_NAMES:
            self.clear()
        self[name] = known
        return known


class Catalog:
    """All names that the writer has met, and the series that each device was seen to have."""

    def __init__(self, connection: Connection) -> None:
        self.topics = Names(connection, schema.topics)
        self.devices = Names(connection, schema.devices)
        self.words = Names(connection, schema.words)
        self._connection = connection
        self._shapes: dict[int, dict[tuple[object, ...], str | None]] = {}

    def forget_series(self) -> None:
        """Look at all series again when they come: another process may have changed them. Names stay what they are."""
        self._shapes.clear()

    def note_series(self, device_id: int, event: Event) -> str | None:
        """Enter the series of an event; cheap when the device has sent the same names and units before.

        Gives the units that are the event's own, as JSON: those that it states otherwise than its series has them.
        """
        units, sources = event.units, event.unit_sources
        shape: tuple[object, ...] = (*event.readings, *units.items()) if units else (*event.readings,)
        if sources:
            shape = (*shape, *sources.items())
        shapes = self._shapes.get(device_id)
        if shapes is None or shape not in shapes:
            return self._enter_shape(device_id, shape, event)
        return shapes[shape]

    def _enter_shape(self, device_id: int, shape: tuple[object, ...], event: Event) -> str | None:
        if len(self._shapes) >= REMEMBERED_NAMES:
            self._shapes.clear()
        shapes = self._shapes.setdefault(device_id, {})
        before = self._series(device_id, event) if event.units else {}
        self._enter_series(device_id, event)
        after = self._series(device_id, event) if before else {}
        if len(shapes) >= REMEMBERED_SHAPES or any(before[reading] != after.get(reading) for reading in before):
            shapes.clear()  # other events of the device may now state what its series does not
        own = shapes[shape] = own_units.stated(units_of(event), after)
        return own

    def _series(self, device_id: int, event: Event) -> dict[str, tuple[str | None, str | None]]:
        """Unit and source of the series of an event that are there."""
        rows = self._connection.exec_driver_sql(
            "SELECT reading, unit, unit_source FROM series"
            " WHERE device_id = ? AND reading IN (SELECT value FROM json_each(?))",
            (device_id, msgspec.json.encode(list(event.units or {})).decode()),
        )
        return {reading: (unit, source) for reading, unit, source in rows}

    def _enter_series(self, device_id: int, event: Event) -> None:
        rows = [(device_id, *series) for series in series_of(event)]
        if rows:
            self._connection.exec_driver_sql(f"{ENTER_SERIES} VALUES (?, ?, ?, ?) {UPDATE_SERIES}", rows)


def units_of(event: Event) -> dict[str, tuple[str, str]]:
    """Unit and source by reading, where there is one."""
    sources = event.unit_sources or {}
    return {reading: (unit, sources.get(reading, "message")) for reading, unit in (event.units or {}).items()}


def series_of(event: Event) -> list[tuple[str, str | None, str | None]]:
    """Each reading of an event with its unit and where that is from."""
    units, sources = event.units or {}, event.unit_sources or {}
    return [
        (reading, units[reading], sources.get(reading, "message")) if reading in units else (reading, None, None)
        for reading in event.readings
    ]


ENTER_SERIES = "INSERT INTO series (device_id, reading, unit, unit_source)"

# What a message states stands against what its format or an earlier message would have it be: else the two would take
# turns. What was said first stands against the same source later: an event that says otherwise keeps that for itself
# (`own_units`). A rule is in force for all messages of its series or for none.
UPDATE_SERIES = (
    "ON CONFLICT (device_id, reading) DO UPDATE SET unit = excluded.unit, unit_source = excluded.unit_source"
    " WHERE excluded.unit IS NOT NULL"
    " AND (series.unit IS NOT excluded.unit OR series.unit_source IS NOT excluded.unit_source)"
    " AND NOT (ifnull(series.unit_source, '') = 'message' AND excluded.unit_source IN ('learned', 'format'))"
    " AND NOT (ifnull(series.unit_source, '') = 'learned' AND excluded.unit_source = 'format')"
    " AND NOT (series.unit_source IS excluded.unit_source AND excluded.unit_source <> 'rule')"
)
