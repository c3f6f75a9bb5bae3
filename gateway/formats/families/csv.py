"""CSV with a header, or with a time in each line (RFC 4180); other lists of values stay the text that they are."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from itertools import islice

from gateway.formats import json, times, units
from gateway.formats.body import Body, Json
from gateway.formats.draft import Draft
from gateway.formats.format import Format, Unreadable, named
from gateway.formats.plain import scalar
from gateway.formats.texts import shortened
from storage.event import Event, Message

NAME = "csv"

Row = list[str]

_DELIMITERS = "\t;|,"
_TITLE = re.compile(r"[^\W\d][^\x00-\x1f]{0,63}|_[^\x00-\x1f]{0,63}")
_UNIT = re.compile(r"(.*\S) ?[(\[]([^()\[\]]{1,24})[)\]]")
_DECIMAL = re.compile(r"[+-]?[0-9]+[.,][0-9]+")


def read(message: Message, body: Body) -> Sequence[Event] | None:
    """An event of each row, as JSON with the header's names would give it."""
    text = body.text
    if text is None or not _may_be_rows(text):
        return None
    lines = [line for line in text.splitlines() if line.strip()]
    comments = [line for line in lines if line.startswith("#")]
    if len(lines) > body.options.entries:
        return None
    lines = [line for line in lines if not line.startswith("#")]
    for delimiter in _DELIMITERS:
        if lines and delimiter in lines[0] and (rows := _rows(lines, delimiter)):
            titled = _titled(rows, _rows(comments[-1:], delimiter)) or _untitled(rows, message, body)
            return _events(titled, delimiter, message, body) if titled else None
    return _rows_that_fit(lines, message, body)


def _rows_that_fit(lines: Sequence[str], message: Message, body: Body) -> Sequence[Event] | None:
    """Most rows are as long as the header, some are not: a bad row costs only itself."""
    delimiter = next((delimiter for delimiter in _DELIMITERS if lines and delimiter in lines[0]), None)
    cells = _split(lines, delimiter) if delimiter else []
    fitting = [row for row in cells if len(row) == len(cells[0])]
    if delimiter is None or 2 * len(fitting) <= len(cells) + 1 or not (titled := _titled(fitting, [])):
        return None
    draft = Draft(NAME, message, body)
    for number, row in enumerate(cells, start=1):
        if len(row) != len(cells[0]):
            fault = f"line {number}: not {len(cells[0])} cells: {delimiter.join(row)}"
            draft.put_missing(shortened(fault, min(100, body.options.name_chars - 1)), "bad")
    topic = named(body.place.device, body)
    return [
        *_events(titled, delimiter, message, body),
        draft.event(topic, "other", vendor_type="lines that are no rows"),
    ]


def read_declared(message: Message, body: Body) -> Sequence[Event] | None:
    """As `read`, but what bears the content type of CSV and has no header has numbered columns."""
    text = body.text
    if text is None or not text:
        return None
    events = read(message, body)
    if events is not None:
        return events
    rows = _rows([line for line in text.splitlines() if line.strip() and line[0] != "#"], ",")
    if not rows:
        raise Unreadable("CSV whose rows are not of one length")
    return _events((_numbered(rows[0]), rows), ",", message, body)


FORMATS: tuple[Format, ...] = (
    Format(name=NAME, read=read),
    Format(name=NAME, read=read_declared, content_types=("text/csv",)),
)


def _may_be_rows(text: str) -> bool:
    return ("\n" in text or text[:1].isdigit()) and any(delimiter in text for delimiter in _DELIMITERS)


def _rows(lines: Sequence[str], delimiter: str) -> list[Row]:
    """The cells of all lines, none where they are not of one number, two or more."""
    rows = _split(lines, delimiter)
    return rows if rows and len(rows[0]) > 1 and all(len(row) == len(rows[0]) for row in rows) else []


def _split(lines: Sequence[str], delimiter: str) -> list[Row]:
    try:
        return [[cell.strip() for cell in row] for row in csv.reader(lines, delimiter=delimiter, skipinitialspace=True)]
    except csv.Error:
        return []


def _titled(rows: list[Row], comment: list[Row]) -> tuple[Row, list[Row]] | None:
    """Header and rows: names above values, of which one at least is no word; the header may be a comment."""
    header = [title.lstrip("# ") for title in comment[0]] if comment else []
    if len(header) != len(rows[0]) or not _is_header(header):
        header, rows = rows[0], rows[1:]
    if not _is_header(header) or not any(_tells(cell) for row in islice(rows, 10) for cell in row):
        return None
    return header, rows


def _is_header(titles: Row) -> bool:
    return len(set(titles)) == len(titles) and all(_TITLE.fullmatch(title) for title in titles)


def _tells(cell: str) -> bool:
    return bool(cell) and (not isinstance(scalar(cell), str) or cell[0].isdigit())


def _untitled(rows: list[Row], message: Message, body: Body) -> tuple[Row, list[Row]] | None:
    """Rows that begin with a time."""
    if all(times.believed(row[0], message.received_at, body.options) for row in rows):
        return ["time", *_numbered(rows[0])[1:]], rows
    return None


def _numbered(row: Row) -> Row:
    return [f"col_{number}" for number in range(1, len(row) + 1)]


def _events(table: tuple[Row, list[Row]], delimiter: str, message: Message, body: Body) -> Sequence[Event]:
    header, rows = table
    if len(header) * len(rows) > body.options.entries:
        raise Unreadable(f"more than {body.options.entries} cells (entries)")
    # Where `;` parts the cells, a comma in numbers is why.
    comma = delimiter == ";" and not any("." in cell for row in rows for cell in row if _DECIMAL.fullmatch(cell))
    names = [_unit_of(title) for title in header]
    document: list[Json] = [_row(names, row, comma=comma) for row in rows]
    return json.events(document, message, body, NAME, of_many=True)


def _unit_of(title: str) -> tuple[str, str | None]:
    """`Temperature (°C)` is a name and a unit."""
    found = _UNIT.fullmatch(title)
    return (found[1], found[2]) if found and units.code(found[2]) else (title, None)


def _row(names: Sequence[tuple[str, str | None]], row: Row, *, comma: bool) -> dict[str, Json]:
    node: dict[str, Json] = {}
    for (name, unit), cell in zip(names, row, strict=True):
        value = _cell(cell, comma=comma)
        node[name] = {"value": value, "unit": unit} if unit else value
    return node


def _cell(cell: str, *, comma: bool) -> Json:
    if comma and _DECIMAL.fullmatch(cell):
        cell = cell.replace(",", ".")
    return scalar(cell) if cell else None
