"""Names and units by id, as readers need them. Holds a bounded number, and looks up what it does not hold."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

import msgspec

from storage.conditions import quoted
from storage.errors import StoreDamaged
from storage.snapshot import OpenLog

REMEMBERED_NAMES = 200_000

BLOCK_IDS = 64
"""Names are looked up with their neighbours: 64 cost little more than one, and devices come in crowds."""

UNITS_KEPT_S = 10
"""A unit is hardly ever another than before, but it may be."""

REMEMBERED_MODELS = 10_000

REMEMBERED_SHAPES = 100
"""Of one device: the sets of readings that come together."""

T = TypeVar("T")


class Names(dict[int, T], Generic[T]):
    """What `make` makes of the names in one table of the catalog, by id."""

    def __init__(self, log: OpenLog, table: str, column: str, make: Callable[[str], T]) -> None:
        super().__init__()
        self._log = log
        self._table = table
        self._block = f"SELECT id, {column} FROM {table} WHERE id BETWEEN :first AND :first + {BLOCK_IDS - 1}"
        self._make = make

    def __missing__(self, id: int) -> T:
        if len(self) >= REMEMBERED_NAMES:
            self.clear()
        for found, name in self._log.rows(self._block, {"first": id - id % BLOCK_IDS}):
            self[found] = self._make(name)
        if id not in self:
            raise StoreDamaged(f"{self._log.path} is damaged (no {id} in {self._table}): bring back a backup")
        return self[id]


class Units(dict[int, "DeviceUnits | None"]):
    """The units of each device's readings, None where it has none."""

    def __init__(self, log: OpenLog) -> None:
        super().__init__()
        self._log = log
        self._version, self._series_id = -1, 0
        self._forget_at = 0.0
        self._models: dict[tuple[tuple[str, str], ...], DeviceUnits] = {}

    def __missing__(self, device_id: int) -> DeviceUnits | None:
        if len(self) >= REMEMBERED_NAMES:
            self.clear()
        first = device_id - device_id % BLOCK_IDS
        found: dict[int, dict[str, str]] = {}
        for owner, reading, unit in self._log.rows(_UNITS, {"first": first}):
            found.setdefault(owner, {})[reading] = unit
        for id in range(first, first + BLOCK_IDS):
            self[id] = self._shared(found[id]) if id in found else None
        return self[device_id]

    def _shared(self, units: dict[str, str]) -> DeviceUnits:
        # Ten thousand devices of one model share one object, which stays in the processor's cache: 1 µs an event.
        key = tuple(units.items())
        if key not in self._models:
            if len(self._models) >= REMEMBERED_MODELS:
                self._models.clear()
            self._models[key] = DeviceUnits(units)
        return self._models[key]

    def refresh(self) -> None:
        """Forget what a commit may have changed: the devices with new series at once, the others after a while."""
        if self._version == self._log.version:
            return
        self._version = self._log.version
        if time.monotonic() >= self._forget_at:
            self.clear()
            self._forget_at = time.monotonic() + UNITS_KEPT_S
            self._series_id = self._log.rows("SELECT ifnull(max(id), 0) FROM series")[0][0]
        for series_id, device_id in self._log.rows(_NEW_SERIES, {"seen": self._series_id}):
            self._series_id = series_id
            self.pop(device_id, None)


_UNITS = (
    "SELECT device_id, reading, unit FROM series"
    f" WHERE device_id BETWEEN :first AND :first + {BLOCK_IDS - 1} AND unit IS NOT NULL"
)
_NEW_SERIES = "SELECT id, device_id FROM series WHERE id > :seen ORDER BY id"


class DeviceUnits:
    """The units of the readings that a device has; tells which of them concern an event."""

    def __init__(self, units: Mapping[str, str]) -> None:
        self._units = units
        self._all = units, msgspec.json.encode(units).decode()
        self._marks = [quoted(reading) + ":" for reading in units]
        self._some: dict[tuple[bool, ...], tuple[Mapping[str, str], str]] = {}

    def of(self, readings: str) -> tuple[Mapping[str, str], str]:
        """The units of an event's own readings, as a mapping and as JSON."""
        # In compact JSON of plain values `"name":` is the name and nothing else, unless there are escaped quotes.
        if "\\" in readings or '":"' in readings:  # a text has no unit
            found = msgspec.json.decode(readings)
            return self._of_some([type(found.get(name, "")) is not str for name in self._units])
        for mark in self._marks:
            if mark not in readings:
                return self._of_some([mark in readings for mark in self._marks])
        return self._all

    def _of_some(self, has: list[bool]) -> tuple[Mapping[str, str], str]:
        key = tuple(has)
        if key not in self._some:
            if len(self._some) >= REMEMBERED_SHAPES:
                self._some.clear()
            units = {name: unit for (name, unit), there in zip(self._units.items(), has, strict=True) if there}
            self._some[key] = units, msgspec.json.encode(units).decode()
        return self._some[key]
