"""Exported events in CSV. Reads what `amber export` writes, not any CSV."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from gateway.recordings.exports import FAULTS, EventLine, Exported, exported, grouped
from gateway.recordings.lines import LINE_BYTES, TOO_LONG, Lines
from gateway.recordings.record import Fault, Found, Unfit

NAMES = (
    *("id", "message_id", "device", "kind", "observed_at", "received_at", "time_source", "topic", "format", "qos"),
    *("retain", "seq", "readings", "units", "detail"),
)


def events(lines: Lines, message_bytes: int) -> Found:
    """Raises Unfit where the header is not that of an export."""
    rows = csv_rows(lines)
    head = next(rows)
    names = [] if isinstance(head, Fault) else head[1]
    if missing := [name for name in NAMES if name not in names]:
        raise Unfit(f"is no export of events: its header has no {missing[0]}")
    return grouped(_lines(rows, names), message_bytes)


def _lines(rows: Iterator[tuple[int, list[str]] | Fault], names: list[str]) -> Iterator[Exported | Fault]:
    for row in rows:
        if isinstance(row, Fault):
            yield row
            continue
        number, fields = row
        if len(fields) != len(names):
            yield Fault(number, f"has {len(fields)} fields, and the header {len(names)}")
            continue
        try:
            yield exported(number, row_line(dict(zip(names, fields, strict=True))))
        except FAULTS as fault:
            yield Fault(number, str(fault))


def row_line(row: dict[str, Any]) -> EventLine:
    """An event of the columns of a table. Raises ValueError."""
    line = {name: row[name] for name in NAMES[:-1]}
    line |= {name: int(row[name]) for name in ("id", "message_id", "qos")}
    line["retain"] = row["retain"] in (True, "true")
    line["seq"] = None if row["seq"] in ("", None) else int(row["seq"])
    line |= {name: _decode_any(row[name]) for name in ("readings", "units")}
    line.update(_decode_any(row["detail"] or "{}"))
    if isinstance(payload := row.get("payload"), bytes):
        line["payload_b64"] = base64.b64encode(payload).decode()
    else:
        line["payload"], line["payload_b64"] = payload, row.get("payload_b64") or None
    line["properties"] = _decode_any(row.get("properties") or "null")
    return msgspec.convert(line, EventLine)


_decode_any: Callable[[str], Any] = msgspec.json.Decoder(Any).decode


def csv_rows(lines: Lines) -> Iterator[tuple[int, list[str]] | Fault]:
    """Rows with the number of their last line. Python's own reader ends a row at a carriage return, also in a name."""
    waiting, end = b"", b"\n"
    crlf: bool | None = None
    number = 0
    for number, text in lines:
        if text is None or len(waiting) > LINE_BYTES:
            yield Fault(number, TOO_LONG)
            waiting = b""
            continue
        if crlf is None:
            crlf = text.endswith(b"\r")
        waiting = waiting + end + text if waiting else text
        if waiting.count(b'"') % 2 == 0:
            row, waiting = waiting, b""
            row = row.removesuffix(b"\r") if crlf else row
            if row:
                try:
                    yield number, [csv_field(field) for field in _FIELD.findall(row.decode())]
                except UnicodeDecodeError as fault:
                    yield Fault(number, str(fault))
    if waiting:
        yield Fault(number, "ends within quotes")


_FIELD = re.compile(r'(?:^|,)("(?:[^"]|"")*"|[^,]*)', re.DOTALL)


def csv_field(text: str) -> str:
    return text[1:-1].replace('""', '"') if text.startswith('"') else text
