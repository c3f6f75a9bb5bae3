"""Events as tables of Arrow, pandas and Polars. Holds no more of them as objects than a page; never asks for any.

A column has one type, a reading need not: its numbers, texts and booleans go into columns of their own. A number is a
double; an integer that no double holds exactly stands among the texts.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from functools import cache
from importlib.util import find_spec
from itertools import chain
from types import NoneType
from typing import TYPE_CHECKING, Literal

import msgspec
import pyarrow as pa
from pyarrow.compute import scatter

from storage.event import Detail, Quality, StoredEvent, Value

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

Sort = Literal["number", "boolean", "text"]

EXACT = 2**53
"""Up to here a double holds every integer."""

TIME = pa.timestamp("us", tz="UTC")
NAME = pa.dictionary(pa.int32(), pa.string())
"""Few texts that stand in many rows."""

VALUE: Mapping[Sort, pa.DataType] = {"number": pa.float64(), "text": pa.string(), "boolean": pa.bool_()}

_readings = msgspec.json.Decoder(list[dict[str, Value]]).decode
_detail = msgspec.json.Decoder(Detail).decode


def wide_table(pages: Iterable[Sequence[StoredEvent]], only: Collection[str] = ()) -> pa.Table:
    """A row for each event, and a column for each reading, or for `only` these.

    Where a reading has values of several sorts, the column of its name has the numbers, or the texts where there are
    no numbers; `name.text` and `name.boolean` have the others. A field's metadata says its unit, where it has one.
    """
    wide = Wide(only)
    for page in pages:
        wide.add(page)
    return wide.table()


def long_table(pages: Iterable[Sequence[StoredEvent]], only: Collection[str] = ()) -> pa.Table:
    """A row for each reading, or for `only` these, its value in the column of its sort."""
    return pa.Table.from_batches([long_batch(page, only) for page in pages], LONG).unify_dictionaries()


def to_pandas(table: pa.Table) -> pd.DataFrame:
    """With the types of pandas that know a missing integer and a missing boolean."""
    check_installed("pandas")
    import pandas as pd

    types = {pa.int64(): pd.Int64Dtype(), pa.bool_(): pd.BooleanDtype()}
    return table.to_pandas(types_mapper=types.get)


def to_polars(table: pa.Table) -> pl.DataFrame:
    check_installed("polars")
    import polars as pl

    frame = pl.from_arrow(table)
    if not isinstance(frame, pl.DataFrame):
        raise TypeError("a table became no DataFrame")
    return frame


def check_installed(package: str) -> None:
    """Raises ImportError with what to do: only Arrow comes with Amber."""
    if find_spec(package) is None:
        raise ImportError(f"{package} is not installed: `pip install {package}`, or take to_arrow()", name=package)


class Wide:
    """A table with a column for each reading, as it grows page by page."""

    def __init__(self, only: Collection[str]) -> None:
        self._only = only
        self._pages: list[tuple[pa.RecordBatch, dict[tuple[str, Sort], pa.Array]]] = []
        self._sorts: dict[str, set[Sort]] = {name: set() for name in only}
        self._units: dict[str, set[str]] = {}

    def add(self, page: Sequence[StoredEvent]) -> None:
        readings = readings_of(page, self._only)
        alike: dict[tuple[str, ...], list[int]] = {}  # few sets of readings are those of many events
        for place, found in enumerate(readings):
            alike.setdefault(tuple(found), []).append(place)
        places: dict[str, list[int]] = {}
        values: dict[str, list[Value]] = {}
        for together, rows in alike.items():
            for name, column in zip(
                together, zip(*[readings[row].values() for row in rows], strict=True), strict=False
            ):
                places.setdefault(name, []).extend(rows)
                values.setdefault(name, []).extend(column)
        columns: dict[tuple[str, Sort], pa.Array] = {}
        for name, of_name in values.items():
            sorted_out = by_sort(of_name)
            self._sorts.setdefault(name, set()).update(sorted_out)
            for sort, of_sort in sorted_out.items():
                filled = pa.array(of_sort, VALUE[sort])
                columns[name, sort] = filled if len(alike) == 1 else spread(filled, places[name], len(page))
        for units in {id(event.units): event.units for event in page}.values():  # most events share one
            for name, unit in units.items():
                self._units.setdefault(name, set()).add(unit)
        self._pages.append((event_batch(page), columns))

    def table(self) -> pa.Table:
        fields = list(EVENT)
        columns = [
            pa.chunked_array([batch.column(n) for batch, _ in self._pages], field.type) for n, field in enumerate(EVENT)
        ]
        taken = set(EVENT.names)
        for name, sorts in self._sorts.items():
            for place, sort in enumerate(sort for sort in VALUE if sort in (sorts or ["number"])):
                column = free_name(name if place == 0 else f"{name}.{sort}", taken)
                fields.append(pa.field(column, VALUE[sort], metadata=self._metadata(name, sort)))
                columns.append(self._column(name, sort))
        return pa.Table.from_arrays(columns, schema=pa.schema(fields)).unify_dictionaries()

    def _column(self, name: str, sort: Sort) -> pa.ChunkedArray:
        parts = [found.get((name, sort)) for _, found in self._pages]
        return pa.chunked_array(
            [
                nothing(batch.num_rows, sort) if part is None else part
                for (batch, _), part in zip(self._pages, parts, strict=True)
            ],
            VALUE[sort],
        )

    def _metadata(self, name: str, sort: Sort) -> dict[str, str] | None:
        units = self._units.get(name, set())
        return {"unit": min(units)} if sort == "number" and len(units) == 1 else None


FIELDS = {
    str: NAME,
    str | None: NAME,
    int: pa.int64(),
    int | None: pa.int64(),
    list[list[int]]: pa.list_(pa.list_(pa.int64())),
    float: pa.float64(),
    bool | None: pa.bool_(),
    datetime: TIME,
    datetime | None: TIME,
}
"""What becomes of the fields of facts; a value is of any sort, and so has a column for each."""


def answers_table(facts: Sequence[object], sort: type) -> pa.Table:
    """A row for each fact, all of one sort."""
    columns: dict[str, pa.Array] = {}
    for field in msgspec.structs.fields(sort):
        values = [getattr(fact, field.name) for fact in facts]
        if field.type == Value:
            columns.update(zip(VALUE, value_columns(values), strict=True))
        else:
            kind = FIELDS[field.type]
            columns[field.name] = names(values) if kind == NAME else pa.array(values, kind)
    return pa.table(columns)


EVENT = pa.schema(
    [
        ("id", pa.int64()),
        ("message_id", pa.int64()),
        ("device", NAME),
        ("kind", NAME),
        ("observed_at", TIME),
        ("received_at", TIME),
        ("time_source", NAME),
        ("topic", NAME),
        ("format", NAME),
        ("qos", pa.int8()),
        ("retain", pa.bool_()),
        ("seq", pa.int64()),
    ]
)


def event_batch(page: Sequence[StoredEvent]) -> pa.RecordBatch:
    """What all events have."""
    columns = [
        pa.array([event.id for event in page], pa.int64()),
        pa.array([event.message_id for event in page], pa.int64()),
        names([event.device for event in page]),
        names([event.kind for event in page]),
        pa.array([event.observed_at for event in page], TIME),
        pa.array([event.received_at for event in page], TIME),
        names(["device" if event.from_device else "gateway" for event in page]),
        names([event.topic for event in page]),
        names([event.format for event in page]),
        pa.array([event.qos for event in page], pa.int8()),
        pa.array([event.retain for event in page], pa.bool_()),
        pa.array([event.seq for event in page], pa.int64()),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=EVENT)


LONG = pa.schema(
    [
        ("event_id", pa.int64()),
        ("device", NAME),
        ("reading", NAME),
        ("observed_at", TIME),
        ("received_at", TIME),
        *VALUE.items(),
        ("unit", NAME),
        ("quality", NAME),
    ]
)


def long_batch(page: Sequence[StoredEvent], only: Collection[str]) -> pa.RecordBatch:
    """The readings of a page."""
    found = readings_of(page, only)
    pairs = [*zip(page, found, strict=True)]
    rows = pa.array([place for place, readings in enumerate(found) for _ in readings], pa.int32())
    columns = [
        pa.array([event.id for event in page], pa.int64()).take(rows),
        names([event.device for event in page]).take(rows),
        names([*chain.from_iterable(found)]),
        pa.array([event.observed_at for event in page], TIME).take(rows),
        pa.array([event.received_at for event in page], TIME).take(rows),
        *value_columns([*chain.from_iterable(map(dict.values, found))]),
        names([event.units.get(name) for event, readings in pairs for name in readings]),
        names([quality for event, readings in pairs for quality in qualities(event, readings)]),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=LONG)


def value_columns(values: Sequence[Value]) -> list[pa.Array]:
    """One for each sort."""
    found = by_sort(values)
    return [pa.array(found[sort], VALUE[sort]) if sort in found else nothing(len(values), sort) for sort in VALUE]


def readings_of(page: Sequence[StoredEvent], only: Collection[str]) -> list[dict[str, Value]]:
    found = _readings(f"[{','.join([event.readings for event in page])}]")
    if not only:
        return found
    return [{name: readings[name] for name in only if name in readings} for readings in found]


def qualities(event: StoredEvent, readings: Collection[str]) -> Sequence[Quality | None]:
    if event.detail is None:
        return [None] * len(readings)
    quality = _detail(event.detail).quality
    return [quality.get(name) for name in readings]


def by_sort(values: Sequence[Value]) -> dict[Sort, Sequence[object]]:
    """The values in lists of one sort, None where a value is of another; no list where none is of a sort."""
    types = set(map(type, values)) - {NoneType}
    inexact = int in types and any(map(is_inexact, values))
    found: dict[Sort, Sequence[object]] = {}
    if types and types <= {int, float} and not inexact:
        found["number"] = values
    elif types & {int, float}:
        found["number"] = [value if type(value) is float else number(value) for value in values]
    if str in types or inexact:
        found["text"] = values if types == {str} else [text(value) for value in values]
    if bool in types:
        found["boolean"] = values if types == {bool} else [value if type(value) is bool else None for value in values]
    return {sort: column for sort, column in found.items() if not inexact or any(one is not None for one in column)}


def is_inexact(value: Value) -> bool:
    return type(value) is int and not -EXACT <= value <= EXACT


def number(value: Value) -> float | None:
    if type(value) is float:
        return value
    return value if type(value) is int and -EXACT <= value <= EXACT else None


def text(value: Value) -> str | None:
    if isinstance(value, str):
        return value
    return str(value) if is_inexact(value) else None


def names(texts: Sequence[str | None]) -> pa.Array:
    """As numbers that stand for them."""
    return pa.array(texts, pa.string()).dictionary_encode()


def spread(values: pa.Array, places: Sequence[int], rows: int) -> pa.Array:
    """A column of so many rows with values in some places."""
    return scatter(values, pa.array(places, pa.int32()), max_index=rows - 1)


@cache
def nothing(rows: int, sort: Sort) -> pa.Array:
    """A column without a value; of a table with many readings most are such, and share it."""
    return pa.nulls(rows, VALUE[sort])


def free_name(name: str, taken: set[str]) -> str:
    """A reading may be called as a field of all events is, or as another's texts are."""
    while name in taken:
        name = f"readings.{name}"
    taken.add(name)
    return name
