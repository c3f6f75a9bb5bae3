"""The writer's memory of names: topics, devices, words and series by id. Is thrown away when a transaction fails."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import insert, select, update

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

    def note_series(self, device_id: int, event: Event) -> None:
        """Enter the series of an event; cheap when the device has sent the same names and units before."""
        units = event.units
        shape = (device_id, *event.readings, *units.items()) if units else (device_id, *event.readings)
        if shape not in self._shapes:
            self._enter_series(device_id, event)
            if len(self._shapes) >= REMEMBERED_NAMES:
                self._shapes.clear()
            self._shapes.add(shape)

    def _enter_series(self, device_id: int, event: Event) -> None:
        series, units = schema.series, event.units or {}
        mine = series.c.device_id == device_id
        rows = self._connection.execute(select(series.c.reading, series.c.unit).where(mine))
        known: dict[str, str | None] = {row.reading: row.unit for row in rows}
        new = [
            {"device_id": device_id, "reading": reading, "unit": units.get(reading)}
            for reading in event.readings
            if reading not in known
        ]
        if new:
            self._connection.execute(insert(series), new)
        for reading, unit in units.items():
            if reading in known and known[reading] != unit:
                self._connection.execute(update(series).where(mine, series.c.reading == reading).values(unit=unit))
