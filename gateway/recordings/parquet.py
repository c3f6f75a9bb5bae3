"""Exported events in Parquet. Reads what `amber export` writes, not any Parquet."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, Any

from gateway.recordings.csv import NAMES, row_line
from gateway.recordings.exports import FAULTS, Exported, exported, grouped
from gateway.recordings.record import Fault, Found, Unfit
from storage.times import iso


def events(raw: IO[bytes], message_bytes: int) -> Found:
    """Raises Unfit where the columns are not those of an export."""
    import pyarrow as pa
    from pyarrow import parquet

    try:
        file = parquet.ParquetFile(raw)
    except pa.ArrowInvalid as fault:
        raise Unfit(f"is broken: {fault}") from None
    names = file.schema_arrow.names
    if missing := [name for name in NAMES if name not in names]:
        hint = ", but readings, which are for other programs" if "event_id" in names else ""
        raise Unfit(f"is Parquet without events of an export{hint}: it has no column {missing[0]}")
    wanted = [name for name in (*NAMES, "payload", "properties") if name in names]
    return grouped(_lines(file, wanted), message_bytes)


def _lines(file: Any, names: list[str]) -> Iterator[Exported | Fault]:
    import pyarrow as pa

    number = 0
    try:
        for batch in file.iter_batches(batch_size=1_000, columns=names):
            columns = []
            for name in names:
                column = batch.column(batch.schema.get_field_index(name))
                if pa.types.is_timestamp(column.type):
                    column = column.cast(pa.timestamp("us", tz=column.type.tz)).view(pa.int64())
                columns.append(column.to_pylist())
            for row in zip(*columns, strict=True):
                number += 1
                try:
                    known = dict(zip(names, row, strict=True))
                    times = {name: iso(known[name]) for name in ("observed_at", "received_at")}
                    yield exported(number, row_line({**known, **times}))
                except FAULTS as fault:
                    yield Fault(number, str(fault))
    except (pa.ArrowInvalid, OSError) as fault:
        raise Unfit(f"is broken behind row {number}: {fault}") from None
