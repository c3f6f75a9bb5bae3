"""Flattens nested JSON to readings by dotted path, within the bounds of one message."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import msgspec

from gateway.formats import fields, texts, units
from gateway.formats.body import Json
from gateway.formats.format import Unreadable
from gateway.formats.options import Options
from gateway.formats.values import usable
from storage.event import Quality, UnitSource, Value


class Tree:
    """Readings and units of one event; `entries` goes on counting over the events of one message."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.entries = 0
        self.filled = 0
        self.start()

    def start(self) -> None:
        """Begin the next event of the same message."""
        self.readings: dict[str, Value] = {}
        self.units: dict[str, str] = {}
        self.unit_sources: dict[str, UnitSource] = {}
        self.quality: dict[str, Quality] = {}
        self.count()

    def count(self, entries: int = 1) -> None:
        """Spend entries; Unreadable when there are no more."""
        self.entries += entries
        if self.entries > self.options.entries:
            raise Unreadable(f"more than {self.options.entries} keys and elements (entries)")

    def put(self, name: str, node: Json, depth: int = 2) -> None:
        """Add what stands at `name`; of two nodes with one name the later stays."""
        self.count()
        if len(name) > self.options.name_chars:
            raise Unreadable(
                f"a name of {len(name)} characters, over the limit of {self.options.name_chars} (name_chars)"
            )
        if not isinstance(node, (dict, list)):
            self._fill(texts.storable(name), node)
            return
        if depth > self.options.depth:
            raise Unreadable(f"nested deeper than {self.options.depth} levels (depth)")
        if isinstance(node, dict):
            self._put_object(name, node, depth)
        else:
            self._put_array(name, node, depth)

    def put_value(
        self,
        name: str,
        value: Value,
        unit: str | None = None,
        *,
        source: UnitSource = "message",
        quality: Quality | None = None,
    ) -> None:
        """Add one reading with its unit, in any spelling the table has, and what is wrong with it."""
        self.put(name, value)
        name = texts.storable(name)
        if unit and (code := units.code(unit)):
            self.units[name] = code
            if source != "message":
                self.unit_sources[name] = source
        if quality is not None:
            self.quality[name] = quality

    def put_missing(self, name: str, quality: Quality | None = None, unit: str | None = None) -> None:
        """Add a reading that has no usable value: there was none, or a `bad` one."""
        self.put_value(name, None, unit, quality=quality)

    def put_measured(self, name: str, node: dict[str, Json], parts: Parts) -> None:
        """Add the value of a measurement, and its unit."""
        self.put(name, node[parts.value])
        self.put_units({name: node[parts.unit]} if parts.unit else {})

    def put_units(self, named: Mapping[str, Json]) -> None:
        """Give units to readings that are there; a unit that is not in the table is left out."""
        for key, unit in named.items():
            self.count()
            name = texts.storable(key)
            if name in self.readings and isinstance(unit, str) and (code := units.code(unit)):
                self.units[name] = code

    def put_known_units(self, unit_of: Callable[[str], str | None]) -> None:
        """Give the numbers that are there, and the missing ones, the units that the format's documentation fixes."""
        for name, value in self.readings.items():
            if type(value) is str or type(value) is bool:
                continue
            if (unit := unit_of(name)) and (code := units.code(unit)):
                self.units[name] = code
                self.unit_sources[name] = "format"

    def _fill(self, name: str, value: Value) -> None:
        self.filled += 1
        if self.filled > self.options.readings:
            raise Unreadable(f"more than {self.options.readings} readings (readings)")
        kept = self.readings[name] = usable(value, self.options)
        if kept is None and value is not None:  # NaN, or what no double holds
            self.quality[name] = "bad"

    def _put_object(self, name: str, node: dict[str, Json], depth: int) -> None:
        parts = parts_of(node)
        if parts.value and (parts.unit or parts.described):
            self.put_measured(name, node, parts)
            node = {key: node[key] for key in (parts.name, *parts.others) if key}
        for key, inner in node.items():
            self.put(f"{name}.{key}", inner, depth + 1)

    def _put_array(self, name: str, items: list[Json], depth: int) -> None:
        if len(items) > self.options.array_items and not any(isinstance(item, (dict, list)) for item in items):
            self._put_series(name, items)
            return
        for at, item in enumerate(items):
            self.put(f"{name}.{at}", item, depth + 1)

    def _put_series(self, name: str, items: list[Json]) -> None:
        # A waveform of 5 000 elements is one thing, not 5 000 series.
        values = [usable(item, self.options) for item in items if not isinstance(item, (dict, list))]
        self.put(name, msgspec.json.encode(values).decode())


class Parts(NamedTuple):
    """The keys of an object, seen as a measurement such as `{"name": "t1", "value": 21.5, "unit": "°C"}`."""

    value: str
    """The key of a value that is neither object nor array, "" where there is none."""
    unit: str
    name: str
    described: bool
    others: tuple[str, ...]

    @property
    def names_itself(self) -> bool:
        return bool(self.value and self.name and not self.others)

    @property
    def is_lone_value(self) -> bool:
        return bool(self.value and not self.name and not self.others)


def parts_of(node: dict[str, Json]) -> Parts:
    value = unit = name = ""
    described = False
    others: list[str] = []
    for key, inner in node.items():
        short = fields.squeezed(key)
        if short in fields.VALUE and not value and not isinstance(inner, (dict, list)):
            value = key
        elif short in fields.UNIT and not unit and isinstance(inner, str):
            unit = key
        elif short in fields.NAME and not name and isinstance(inner, str) and inner:
            name = key
        elif short in fields.DESCRIPTION:
            described = True
        else:
            others.append(key)
    if name and not value and "v" in others and not isinstance(node["v"], (dict, list)):  # alone it may be volts
        value = "v"
        others.remove("v")
    return Parts(value, unit, name, described, tuple(others))
