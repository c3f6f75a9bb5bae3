"""Writes events out of the log into a file, which is whole or not there. Never changes the log."""

from __future__ import annotations

import contextlib
import csv
import fcntl
import io
import os
import time
import zlib
from array import array
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, Protocol, TypeVar

import msgspec

from storage.errors import AmberError
from storage.event import Message, StoredEvent, Value
from storage.event_json import events_json
from storage.filters import Filters
from storage.history import PAGE_EVENTS, Reader
from storage.shapes import Shapes
from storage.snapshot import OpenLog
from storage.times import iso
from storage.walk import Walk

if TYPE_CHECKING:
    import pyarrow as pa

FormatName = Literal["jsonl", "csv", "parquet"]
RowsName = Literal["events", "readings"]
Compression = Literal["", "gz", "zst"]

CHECKPOINT_S = 3.0
CHECKPOINT_BYTES = 256 << 20
"""So much is written at most, before compression, until it is made sure of: what a killed export has to do again."""

PAGE_BYTES = 4 << 20
"""Of payloads in memory at a time."""

GROUP_ROWS = 16_384
GROUP_BYTES = 16 << 20
"""Rows and texts of a row group: what of a Parquet file is in memory at a time."""

PART_ROWS = 32 * GROUP_ROWS
"""Rows of one of the parts that a Parquet file is joined of: nothing can be added to one that is closed."""

T = TypeVar("T")


class ExportError(AmberError):
    """The file cannot be written as was asked."""


class Request(msgspec.Struct, frozen=True):
    """What to write. The filters end at the position that the log had at the start."""

    store: str
    filters: Filters
    format: FormatName = "jsonl"
    rows: RowsName = "events"
    payload: bool = False
    compression: Compression = ""


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


class Page(msgspec.Struct, frozen=True):
    """Events that follow each other, as text or as rows, with the position of the last."""

    position: int
    events: int
    rows: int
    text: str = ""
    table: Sequence[Sequence[Any]] = ()


class Sink(Protocol):
    """Where pages go."""

    @property
    def due(self) -> bool:
        """Whether enough has been written to make sure of it."""

    def write(self, page: Page) -> None: ...

    def settle(self, done: Done) -> None:
        """Bring all that was written to the disk, and note in `done` how much that is."""


def begun(store: Path, request: Request) -> Request:
    """The request with its end: what is committed from now on is left out. Raises StoreError."""
    with Reader(store) as reader:
        position = reader.position()
    filters = msgspec.structs.replace(request.filters, until_position=max(position, request.filters.after))
    return msgspec.structs.replace(request, filters=filters)


def write_stream(store: Path, request: Request, out: IO[bytes], done: Done, tick: Callable[[], None]) -> None:
    """All of it into a stream that cannot be gone back in."""
    sink = ParquetStream(out, request) if request.format == "parquet" else TextSink(out, request)
    for page in pages(store, request, request.filters.after):
        sink.write(page)
        out.flush()
        note(done, page)
        tick()
    sink.settle(done)


def note(done: Done, page: Page) -> None:
    done.position, done.events, done.rows = page.position, done.events + page.events, done.rows + page.rows


class Unfinished:
    """The files of an export that is not done: FILE.part, FILE.part.json, and the parts of a Parquet file.

    One process at a time has them. Raises ExportError where another does.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.part = file.with_name(f"{file.name}.part")
        self._notes = file.with_name(f"{file.name}.part.json")
        with writing(self.part):
            handle = os.open(self.part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self.out = os.fdopen(handle, "r+b")
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            mine = os.path.samestat(os.fstat(handle), self.part.stat())
        except OSError:
            mine = False
        if not mine:
            self.out.close()
            raise ExportError(f"another export is writing {self.part}: wait for it, or give another name")

    def close(self) -> None:
        with contextlib.suppress(OSError):  # a full disk has been told of by then
            self.out.close()

    def checkpoint(self) -> Checkpoint | None:
        """What an earlier export has left; None where it left nothing that can be gone on with."""
        try:
            return msgspec.json.decode(self._notes.read_bytes(), type=Checkpoint)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.MsgspecError) as error:
            raise ExportError(f"cannot read {self._notes} ({error}): start anew with --overwrite") from error

    def remember(self, checkpoint: Checkpoint) -> None:
        """Put down durably how far it is."""
        new = self._notes.with_name(f"{self._notes.name}.new")
        with writing(self._notes):
            with new.open("wb") as notes:
                notes.write(msgspec.json.encode(checkpoint))
                sync(notes)
            new.replace(self._notes)
            sync_folder(self.file)

    def part_number(self, number: int) -> Path:
        return self.file.with_name(f"{self.part.name}-{number:04}")

    def parts_after(self, number: int) -> list[Path]:
        """The parts behind a number, which no checkpoint names."""
        found = self.file.parent.glob(f"{glob_escaped(self.part.name)}-*")
        return [path for path in found if (end := path.name.rpartition("-")[2]).isdigit() and int(end) > number]

    def clear(self, done: Done | None = None) -> None:
        """Throw away what lies behind `done`; all of it where that is left out."""
        done = done or Done()
        with writing(self.part):
            self.out.truncate(done.bytes)
            self.out.seek(done.bytes)
            for path in self.parts_after(done.parts):
                path.unlink()

    def finish(self, whole: Path) -> None:
        """Give what is `whole` the file's name, and leave nothing beside it."""
        with writing(self.file):
            whole.replace(self.file)
            sync_folder(self.file)
            self.part.unlink(missing_ok=True)
            self._notes.unlink(missing_ok=True)
            for path in self.parts_after(0):
                path.unlink()


def write_file(
    store: Path, unfinished: Unfinished, checkpoint: Checkpoint, tick: Callable[[], None], stop: Callable[[], bool]
) -> bool:
    """All that the checkpoint is short of, and then the file under its name; False where it was stopped before.

    `checkpoint.done` is kept up. Raises ExportError, StoreError; what is written by then can be gone on with.
    """
    request, done = checkpoint.request, checkpoint.done
    unfinished.clear(done)
    unfinished.remember(checkpoint)
    if not done.whole:
        sink = make_sink(unfinished, request, done)
        for page in pages(store, request, max(done.position, request.filters.after)):
            with writing(unfinished.part):
                sink.write(page)
            note(done, page)
            tick()
            if sink.due or stop():
                with writing(unfinished.part):
                    sink.settle(done)
                unfinished.remember(checkpoint)
            if stop():
                return False
        with writing(unfinished.part):
            sink.settle(done)
        done.whole = True
        unfinished.remember(checkpoint)
    whole = unfinished.part
    if request.format == "parquet" and done.parts == 1:
        whole = unfinished.part_number(1)
    elif request.format == "parquet":
        with writing(unfinished.part):
            join(unfinished, request, done)
    done.bytes = whole.stat().st_size
    unfinished.finish(whole)
    return True


def make_sink(unfinished: Unfinished, request: Request, done: Done) -> Sink:
    if request.format == "parquet":
        return ParquetParts(unfinished, request, done.parts)
    return TextSink(unfinished.out, request, at=done.bytes)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raise what the disk says as an ExportError."""
    try:
        yield
    except OSError as error:
        raise ExportError(
            f"cannot write {path}: {error.strerror or error}; what is written stays, and --resume goes on from there"
        ) from error


# --- what is written ---


def pages(store: Path, request: Request, after: int) -> Iterator[Page]:
    """The events behind a position, as they are written."""
    filters = msgspec.structs.replace(request.filters, after=after)
    if (request.format, request.rows, request.payload) == ("jsonl", "events", False):
        with Reader(store) as reader:
            for lines in reader.line_pages(filters):
                yield Page(line_id(lines[-1]), len(lines), len(lines), "\n".join([*lines, ""]))
        return
    shape = SHAPES[request.rows]
    for events, messages in read(store, filters, with_messages=request.payload):
        position, count = events[-1].id, len(events)
        if request.format == "jsonl":
            lines = shape.lines(events, messages, filters.readings)
            yield Page(position, count, len(lines), "\n".join([*lines, ""]) if lines else "")
        else:
            rows = shape.records(events, messages, filters.readings)
            if request.format == "csv":
                yield Page(position, count, len(rows), csv_text(map(shape.as_text, rows)))
            else:
                yield Page(position, count, len(rows), table=rows)


def line_id(line: str) -> int:
    """The id of an event's line, in which it stands first."""
    return int(line[len('{"id":') : line.index(",")])


Read = tuple[list[StoredEvent], list[Message] | None]


def read(store: Path, filters: Filters, *, with_messages: bool) -> Iterator[Read]:
    """Pages of events, with their messages where they are wanted."""
    if not with_messages:
        with Reader(store) as reader:
            for events in reader.pages(filters):
                yield events, None
        return
    log = OpenLog(store)
    try:
        yield from read_messages(log, filters)
    finally:
        log.close()


def read_messages(log: OpenLog, filters: Filters) -> Iterator[Read]:
    """Pages that are bounded in bytes too: a first walk asks how large the payloads are, a second fetches them."""
    shape = Shapes(log).messages
    sizes, walk = Walk(log, "e.id, length(m.payload)", filters), Walk(log, shape.columns, filters)
    while not sizes.done:
        for count, last in bounded(sizes.step(PAGE_EVENTS)):
            while walk.low < last:
                if pairs := shape.build(walk.step(count)):
                    yield [event for event, _ in pairs], [message for _, message in pairs]


def bounded(sizes: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Of ids with their bytes: how many make a page, and the last of them."""
    count = size = 0
    for number, (id, payload_bytes) in enumerate(sizes, 1):
        count, size = count + 1, size + payload_bytes
        if size >= PAGE_BYTES or number == len(sizes):
            yield count, id
            count = size = 0


Column = tuple[str, str]
"""A name, and a type, by a word that `schema` explains."""


class EventRows:
    """A row for each event, with the fields of `amber events`."""

    columns: tuple[Column, ...] = (
        ("id", "int"),
        ("message_id", "int"),
        ("device", "name"),
        ("kind", "name"),
        ("observed_at", "time"),
        ("received_at", "time"),
        ("time_source", "name"),
        ("topic", "name"),
        ("format", "name"),
        ("qos", "small"),
        ("retain", "bool"),
        ("seq", "int"),
        ("readings", "text"),
        ("units", "name"),
        ("detail", "text"),
    )
    with_payload: tuple[Column, ...] = (*columns, ("payload", "bytes"), ("properties", "text"))

    def header(self, *, payload: bool) -> list[str]:
        return [name for name, _ in self.columns] + ["payload", "payload_b64", "properties"] * payload

    def lines(
        self, events: Sequence[StoredEvent], messages: Sequence[Message] | None, _: Sequence[str] = ()
    ) -> list[str]:
        lines = events_json(events)
        if messages is None:
            return lines
        return [f"{line[:-1]},{message_json(message)[1:]}" for line, message in zip(lines, messages, strict=True)]

    def records(
        self, events: Sequence[StoredEvent], messages: Sequence[Message] | None, _: Sequence[str] = ()
    ) -> list[tuple[object, ...]]:
        units = UnitsJson()
        rows = [
            (
                e.id,
                e.message_id,
                e.device,
                e.kind,
                e.observed_at,
                e.received_at,
                "device" if e.from_device else "gateway",
                e.topic,
                e.format,
                e.qos,
                e.retain,
                e.seq,
                e.readings,
                units.of(e.units),
                e.detail,
            )
            for e in events
        ]
        if messages is None:
            return list(rows)
        return [(*row, message.payload, properties_json(message)) for row, message in zip(rows, messages, strict=True)]

    def as_text(self, row: Sequence[Any]) -> Sequence[object]:
        """A row as CSV has it, as `amber events` prints it."""
        text = [*row[:4], iso(row[4]), iso(row[5]), *row[6:10], "true" if row[10] else "false", *row[11:15]]
        if len(row) == 15:
            return text
        payload = payload_fields(row[15])
        return [*text, payload.get("payload"), payload.get("payload_b64"), row[16]]


class ReadingRows:
    """A row for each reading. A number is a float; an integer that no float can hold stands as text."""

    columns: tuple[Column, ...] = (
        ("event_id", "int"),
        ("device", "name"),
        ("reading", "name"),
        ("observed_at", "time"),
        ("received_at", "time"),
        ("number", "float"),
        ("text", "text"),
        ("boolean", "bool"),
        ("unit", "name"),
        ("quality", "name"),
    )
    with_payload = columns

    def header(self, **_: bool) -> list[str]:
        return [name for name, _ in self.columns]

    def lines(self, events: Sequence[StoredEvent], _: object, wanted: Sequence[str]) -> list[str]:
        names = self.header()
        encode = msgspec.json.Encoder().encode
        return [
            encode(dict(zip(names, (*row[:3], iso(row[3]), iso(row[4]), *row[5:]), strict=True))).decode()
            for row in self.records(events, None, wanted)
        ]

    def records(self, events: Sequence[StoredEvent], _: object, wanted: Sequence[str]) -> list[tuple[Any, ...]]:
        rows: list[tuple[Any, ...]] = []
        for event in events:
            quality = {} if event.detail is None else decode_quality(event.detail).quality
            for name, value in decode_readings(event.readings).items():
                if wanted and name not in wanted:
                    continue
                head = event.id, event.device, name, event.observed_at, event.received_at
                rows.append((*head, *split(value), event.units.get(name), quality.get(name)))
        return rows

    def as_text(self, row: Sequence[Any]) -> Sequence[object]:
        boolean = None if row[7] is None else "true" if row[7] else "false"
        return [*row[:3], iso(row[3]), iso(row[4]), *row[5:7], boolean, *row[8:]]


SHAPES: Mapping[RowsName, EventRows | ReadingRows] = {"events": EventRows(), "readings": ReadingRows()}


class Quality(msgspec.Struct, frozen=True):
    """The part of a detail that speaks of single readings."""

    quality: dict[str, str] = {}


decode_readings = msgspec.json.Decoder(dict[str, Value]).decode
decode_quality = msgspec.json.Decoder(Quality).decode


def split(value: Value) -> tuple[float | None, str | None, bool | None]:
    """A value as number, text and boolean, of which one is it."""
    if isinstance(value, bool):
        return None, None, value
    if isinstance(value, str):
        return None, value, None
    if isinstance(value, int):
        try:
            return float(value), None, None
        except OverflowError:
            return None, str(value), None
    return value, None, None


class UnitsJson(dict[int, tuple[object, str]]):
    """The JSON of units; events of one device share theirs, which is held here so that its place is not taken."""

    def of(self, units: Mapping[str, str]) -> str:
        known = self.get(id(units))
        if known is None:
            known = self[id(units)] = units, msgspec.json.encode(units).decode()
        return known[1]


def message_json(message: Message) -> str:
    """What an event's line has of its message: the payload, as text or in base64, and the properties."""
    properties = None if message.properties is None else msgspec.to_builtins(message.properties)
    return msgspec.json.encode({**payload_fields(message.payload), "properties": properties}).decode()


def properties_json(message: Message) -> str | None:
    return None if message.properties is None else msgspec.json.encode(message.properties).decode()


def payload_fields(payload: bytes) -> dict[str, str]:
    """As text where it is text, else in base64 under a name that says so."""
    try:
        return {"payload": payload.decode()}
    except UnicodeDecodeError:
        return {"payload_b64": b64encode(payload).decode()}


# --- text ---


def csv_text(rows: Iterable[Sequence[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


class TextSink:
    """JSON lines or CSV. What is compressed is so in pieces, each closed when it is made sure of: they add up."""

    def __init__(self, out: IO[bytes], request: Request, *, at: int | None = None) -> None:
        """`at` is where in a file it begins, None in a stream."""
        self._out = out
        self._durable = at is not None
        self._compression = request.compression
        self._press: Press | None = None
        self._header = ""
        if request.format == "csv" and not at:
            self._header = csv_text([SHAPES[request.rows].header(payload=request.payload)])
        self._waiting = 0
        self._due_at = time.monotonic() + CHECKPOINT_S

    @property
    def due(self) -> bool:
        return self._waiting >= CHECKPOINT_BYTES or time.monotonic() >= self._due_at

    def write(self, page: Page) -> None:
        self._put(f"{self._header}{page.text}".encode())
        self._header = ""

    def settle(self, done: Done) -> None:
        if self._header:
            self._put(self._header.encode())
            self._header = ""
        if self._press is not None:
            self._out.write(self._press.flush())
            self._press = None
        self._out.flush()
        if self._durable:
            sync(self._out)
            done.bytes = self._out.tell()
        self._waiting, self._due_at = 0, time.monotonic() + CHECKPOINT_S

    def _put(self, data: bytes) -> None:
        self._waiting += len(data)
        if self._compression:
            if self._press is None:
                self._press = make_press(self._compression)
            data = self._press.compress(data)
        self._out.write(data)


class Press(Protocol):
    """A compressor of one piece."""

    def compress(self, data: bytes, /) -> bytes: ...

    def flush(self) -> bytes: ...


def make_press(compression: Compression) -> Press:
    if compression == "gz":
        return zlib.compressobj(6, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    import zstandard

    return zstandard.ZstdCompressor(level=3).compressobj()


# --- Parquet ---


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
    """An Arrow array of plain values or None.

    Arrow's own `array` would import pandas, where that is installed, which takes more memory than all the rest.
    """
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


class Groups:
    """Gathers rows into row groups."""

    def __init__(self, where: Any, schema: pa.Schema) -> None:
        import pyarrow as pa

        self.rows = 0
        self._schema = schema
        self._writer = parquet_writer(where, schema)
        self._waiting: list[Sequence[Any]] = []
        self._bytes = 0
        self._wide = [n for n, field in enumerate(schema) if pa.types.is_string(field.type) or field.type == "binary"]

    def write(self, page: Page) -> None:
        self._waiting += page.table
        self.rows += page.rows
        self._bytes += sum(len(row[n] or "") for n in self._wide for row in page.table)
        if len(self._waiting) >= GROUP_ROWS or self._bytes >= GROUP_BYTES:
            self._flush()

    def close(self) -> None:
        if self._waiting:
            self._flush()
        self._writer.close()

    def _flush(self) -> None:
        self._writer.write_table(make_table(self._waiting, self._schema), row_group_size=len(self._waiting))
        self._waiting.clear()
        self._bytes = 0


def parquet_writer(where: Any, schema: pa.Schema) -> Any:
    import pyarrow as pa
    from pyarrow import parquet

    pa.set_memory_pool(pa.system_memory_pool())  # its own keeps 40 MB that it once had
    names = [field.name for field in schema if pa.types.is_dictionary(field.type)]
    return parquet.ParquetWriter(where, schema, compression="zstd", use_dictionary=names)


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
    from pyarrow import parquet

    unfinished.out.truncate(0)
    unfinished.out.seek(0)
    writer = parquet_writer(unfinished.out, schema(request))
    for number in range(1, done.parts + 1):
        with parquet.ParquetFile(unfinished.part_number(number)) as part:
            for group in range(part.num_row_groups):
                writer.write_table(part.read_row_group(group, use_threads=False))
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


def sync(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())


def sync_folder(file: Path) -> None:
    folder = os.open(file.parent, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def glob_escaped(name: str) -> str:
    return "".join(f"[{character}]" if character in "*?[" else character for character in name)
