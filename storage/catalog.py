"""The writer's memory of names: topics, devices, words and series by id. Is thrown away when a transaction fails."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import insert, select

from storage import schema
from storage.event import Event

if TYPE_CHECKING:
    from sqlalchemy import Connection, Table

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
        self._shapes: set[tuple[object, ...]] = set()

    def forget_series(self) -> None:
        """Look at all series again when they come: another process may have changed them. Names stay what they are."""
        self._shapes.clear()

    def note_series(self, device_id: int, event: Event) -> None:
        """Enter the series of an event; cheap when the device has sent the same names and units before."""
        units, sources = event.units, event.unit_sources
        shape = (device_id, *event.readings, *units.items()) if units else (device_id, *event.readings)
        if sources:
            shape = (*shape, *sources.items())
        if shape not in self._shapes:
            self._enter_series(device_id, event)
            if len(self._shapes) >= REMEMBERED_NAMES:
                self._shapes.clear()
            self._shapes.add(shape)

    def _enter_series(self, device_id: int, event: Event) -> None:
        rows = [(device_id, *series) for series in series_of(event)]
        if rows:
            self._connection.exec_driver_sql(f"{ENTER_SERIES} VALUES (?, ?, ?, ?) {UPDATE_SERIES}", rows)


def series_of(event: Event) -> list[tuple[str, str | None, str | None]]:
    """Each reading of an event with its unit and where that is from."""
    units, sources = event.units or {}, event.unit_sources or {}
    return [
        (reading, units[reading], sources.get(reading, "message")) if reading in units else (reading, None, None)
        for reading in event.readings
    ]


ENTER_SERIES = "INSERT INTO series (device_id, reading, unit, unit_source)"

# What a message states stands against what its format or an earlier message would have it be: else the two would take
# turns. A rule is in force for all messages of its series or for none.
UPDATE_SERIES = (
    "ON CONFLICT (device_id, reading) DO UPDATE SET unit = excluded.unit, unit_source = excluded.unit_source"
    " WHERE excluded.unit IS NOT NULL"
    " AND (series.unit IS NOT excluded.unit OR series.unit_source IS NOT excluded.unit_source)"
    " AND NOT (ifnull(series.unit_source, '') = 'message' AND excluded.unit_source IN ('learned', 'format'))"
    " AND NOT (ifnull(series.unit_source, '') = 'learned' AND excluded.unit_source = 'format')"
)
