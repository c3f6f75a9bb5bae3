"""What an export is asked for, and how far it is. Never writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import msgspec

from storage.errors import AmberError
from storage.filters import Filters
from storage.history import Reader

FormatName = Literal["jsonl", "csv", "parquet"]
RowsName = Literal["events", "readings"]
Compression = Literal["", "gz", "zst"]


class ExportError(AmberError):
    """The file cannot be written as was asked."""


class Request(msgspec.Struct, frozen=True):
    """What to write. The filters end at the position that the log had at the start; `limit` counts events."""

    store: str
    filters: Filters
    format: FormatName = "jsonl"
    rows: RowsName = "events"
    payload: bool = False
    compression: Compression = ""
    limit: int | None = None


class Done(msgspec.Struct):
    """How far an export is: everything up to `position` is written, as so many events, rows, bytes and parts."""

    position: int = 0
    events: int = 0
    rows: int = 0
    bytes: int = 0
    parts: int = 0
    whole: bool = False


class Checkpoint(msgspec.Struct, frozen=True):
    """What stands beside an unfinished file: what was asked for, in the user's words and in ours, and how far it is."""

    asked: dict[str, Any]
    request: Request
    done: Done


def begun(store: Path, request: Request) -> Request:
    """The request with its end: what is committed from now on is left out. Raises StoreError."""
    with Reader(store) as reader:
        position = reader.position()
    filters = msgspec.structs.replace(request.filters, until_position=max(position, request.filters.after))
    return msgspec.structs.replace(request, filters=filters)
