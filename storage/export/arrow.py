"""Makes Arrow tables of plain rows. Never by Arrow's own `array`.

That would import pandas, where it is installed, which takes more memory than all the rest.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from storage.export.request import Request
from storage.export.rows import SHAPES

if TYPE_CHECKING:
    import pyarrow as pa


def schema(request: Request) -> pa.Schema:
    import pyarrow as pa

    types = {
        "int": pa.int64(),
        "small": pa.int8(),
        "time": pa.timestamp("us", tz="UTC"),
        "name": pa.dictionary(pa.int32(), pa.string()),
        "text": pa.string(),
        "bool": pa.bool_(),
        "float": pa.float64(),
        "bytes": pa.binary(),
    }
    columns = SHAPES[request.rows].with_payload if request.payload else SHAPES[request.rows].columns
    return pa.schema([(name, types[kind]) for name, kind in columns])


def make_table(rows: Sequence[Sequence[Any]], schema: pa.Schema) -> pa.Table:
    import pyarrow as pa

    columns = zip(*rows, strict=True)
    arrays = [make_array(values, field.type) for values, field in zip(columns, schema, strict=True)]
    return pa.Table.from_arrays(arrays, schema=schema)


def make_array(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """An Arrow array of plain values or None."""
    import pyarrow as pa

    count = len(values)
    valid = None if None not in values else bits(value is not None for value in values)
    if pa.types.is_dictionary(kind):
        names = [name for name in dict.fromkeys(values) if name is not None]
        places = {name: place for place, name in enumerate(names)}
        indices = array("i", [places.get(value, 0) for value in values])
        return pa.DictionaryArray.from_arrays(
            pa.Array.from_buffers(pa.int32(), count, [valid, pa.py_buffer(indices)]),
            make_array(names, pa.string()),
        )
    if pa.types.is_boolean(kind):
        return pa.Array.from_buffers(kind, count, [valid, bits(map(bool, values))])
    if pa.types.is_string(kind) or pa.types.is_binary(kind):
        texts = [(value or "").encode() for value in values] if pa.types.is_string(kind) else values
        ends = array("i", accumulate(map(len, texts), initial=0))
        return pa.Array.from_buffers(kind, count, [valid, pa.py_buffer(ends), pa.py_buffer(b"".join(texts))])
    code = "d" if pa.types.is_floating(kind) else "b" if kind.bit_width == 8 else "q"
    numbers = array(code, values if valid is None else [value or 0 for value in values])
    return pa.Array.from_buffers(kind, count, [valid, pa.py_buffer(numbers)])


def bits(flags: Iterable[bool]) -> pa.Buffer:
    """A bit for each flag, the first the lowest."""
    import pyarrow as pa

    text = "".join("1" if flag else "0" for flag in flags)
    return pa.py_buffer(int(text[::-1] or "0", 2).to_bytes((len(text) + 7) // 8, "little"))
