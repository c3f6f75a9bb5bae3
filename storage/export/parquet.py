"""Writes pages as Parquet: in parts, joined at the end, since nothing can be added to one that is closed."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING, Any

from storage.export.arrow import make_table, schema
from storage.export.durable import sync
from storage.export.pages import Page
from storage.export.request import Done, Request
from storage.export.unfinished import Unfinished

if TYPE_CHECKING:
    import pyarrow as pa

GROUP_ROWS = 16_384
GROUP_BYTES = 8 << 20
"""Rows and bytes of a row group: what of a Parquet file is in memory at a time."""

PART_ROWS = 32 * GROUP_ROWS
"""Rows of a part."""


class ParquetParts:
    """Rows into one Parquet file after the other, each closed before it counts."""

    def __init__(self, unfinished: Unfinished, request: Request, parts: int) -> None:
        self._unfinished = unfinished
        self._schema = schema(request)
        self._parts = parts
        self._out: IO[bytes] | None = None
        self._groups: Groups | None = None

    @property
    def due(self) -> bool:
        return self._groups is not None and self._groups.rows >= PART_ROWS

    def write(self, page: Page) -> None:
        if self._groups is None:
            self._out = self._unfinished.part_number(self._parts + 1).open("wb")
            self._groups = Groups(self._out, self._schema)
        self._groups.write(page)

    def settle(self, done: Done) -> None:
        if self._groups is None or self._out is None:
            return
        self._groups.close()
        sync(self._out)
        self._out.close()
        self._groups = self._out = None
        self._parts += 1
        done.parts = self._parts


def join(unfinished: Unfinished, request: Request, done: Done) -> None:
    """One Parquet file of the parts, a row group at a time."""
    import pyarrow as pa
    from pyarrow import parquet

    unfinished.out.truncate(0)
    unfinished.out.seek(0)
    writer = parquet_writer(unfinished.out, schema(request))
    for number in range(1, done.parts + 1):
        with parquet.ParquetFile(unfinished.part_number(number), pre_buffer=False) as part:
            for group in range(part.num_row_groups):
                writer.write_table(part.read_row_group(group, use_threads=False))
                pa.default_memory_pool().release_unused()
    writer.close()
    sync(unfinished.out)


class ParquetStream:
    """A Parquet file into a stream."""

    due = False

    def __init__(self, out: IO[bytes], request: Request) -> None:
        self._groups = Groups(Forward(out), schema(request))

    def write(self, page: Page) -> None:
        self._groups.write(page)

    def settle(self, _: Done) -> None:
        self._groups.close()


class Forward:
    """A stream that knows how far it is, as Parquet's footer has to, and is not closed by who writes to it."""

    closed = False

    def __init__(self, out: IO[bytes]) -> None:
        self._out = out
        self._at = 0

    def write(self, data: Any) -> int:
        self._out.write(data)
        self._at += len(data)
        return len(data)

    def tell(self) -> int:
        return self._at

    def flush(self) -> None:
        self._out.flush()

    def close(self) -> None:
        self._out.flush()


class Groups:
    """Gathers rows into row groups."""

    def __init__(self, where: Any, schema: pa.Schema) -> None:
        self.rows = 0
        self._schema = schema
        self._writer = parquet_writer(where, schema)
        self._waiting: list[pa.Table] = []
        self._waiting_rows = self._waiting_bytes = 0

    def write(self, page: Page) -> None:
        if not page.rows:
            return
        table = make_table(page.table, self._schema)  # at once: as rows of Python it is five times as large
        self._waiting.append(table)
        self.rows += page.rows
        self._waiting_rows += page.rows
        self._waiting_bytes += table.nbytes
        if self._waiting_rows >= GROUP_ROWS or self._waiting_bytes >= GROUP_BYTES:
            self._flush()

    def close(self) -> None:
        if self._waiting:
            self._flush()
        self._writer.close()

    def _flush(self) -> None:
        import pyarrow as pa

        group = pa.concat_tables(self._waiting).unify_dictionaries()
        self._waiting.clear()
        self._writer.write_table(group, row_group_size=self._waiting_rows)
        pa.default_memory_pool().release_unused()
        self._waiting_rows = self._waiting_bytes = 0


def parquet_writer(where: Any, schema: pa.Schema) -> Any:
    import pyarrow as pa
    from pyarrow import parquet

    pa.set_memory_pool(pa.system_memory_pool())  # its own keeps 40 MB that it once had
    names = [field.name for field in schema if pa.types.is_dictionary(field.type)]
    # The footer, with the least and the greatest of each column of each group, is in memory up to the end.
    told = [*names, *(field.name for field in schema if pa.types.is_timestamp(field.type)), "id", "event_id"]
    return parquet.ParquetWriter(where, schema, compression="zstd", use_dictionary=names, write_statistics=told)
