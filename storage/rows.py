"""Inserts many rows with few statements. Never looks into them."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from sqlalchemy import insert
from sqlalchemy.dialects.sqlite import dialect

if TYPE_CHECKING:
    from sqlalchemy import Connection, Table

ROWS_PER_STATEMENT = (2048, 256, 32, 4, 1)
"""Many rows to a statement: SQLite then works through them in one step, outside the interpreter's lock."""


def insert_rows(connection: Connection, table: Table, values: list[object], omit: tuple[str, ...] = ()) -> None:
    """Insert rows given as one flat list of their values, many rows to a statement."""
    width = len(table.c) - len(omit)
    start, end = 0, len(values)
    for rows in ROWS_PER_STATEMENT:
        step = rows * width
        while end - start >= step:
            connection.exec_driver_sql(_insert_sql(table, rows, omit), tuple(values[start : start + step]))
            start += step


@lru_cache(maxsize=64)
def _insert_sql(table: Table, rows: int, omit: tuple[str, ...]) -> str:
    names = [column.name for column in table.c if column.name not in omit]
    head, _, row = str(insert(table).compile(dialect=dialect(), column_keys=names)).partition(" VALUES ")
    return f"{head} VALUES {', '.join([row] * rows)}"
