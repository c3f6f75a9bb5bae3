"""What stands in files: exports of events, and recordings of messages as `mosquitto_sub` writes them. Never stores."""

from __future__ import annotations

import base64
import binascii
import io
import json
import re
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from itertools import chain, islice
from typing import IO, Any, Literal, Protocol

import msgspec

from gateway.formats.times import instant
from storage.event import Detail, Event, Kind, Location, Message, Properties, Quality, Value
from storage.times import SECOND, iso, micros

FormatName = Literal["auto", "events", "messages", "mosquitto"]

LINE_BYTES = 64 << 20
"""A longer line is no message: it is passed over, not held in memory."""

SAMPLE_LINES = 20
PACKED_CHUNK = 4096
"""Small, since a few bytes may unpack to very many."""

TOPIC_BYTES = 65_535


class Unfit(Exception):
    """A file that is none of those that can be read; the text goes on from its name."""


class Options(msgspec.Struct, frozen=True):
    """How to read a file: `topic` is that of messages that give none, `time_field` the key with their time."""

    format: FormatName = "auto"
    topic: str | None = None
    time_field: str | None = None


class Record(msgspec.Struct, frozen=True):
    """A message with its number in the file; `events` where they were read from it before, None else."""

    number: int
    message: Message
    events: list[Event] | None = None


class Fault(msgspec.Struct, frozen=True):
    """What cannot be read: the number of its line or row, and why."""

    number: int
    reason: str


Found = Iterator[Record | Fault]


def records(raw: IO[bytes], options: Options, *, at_hand: bool) -> Found:
    """What is in a stream, in its order; `at_hand` is whether it can be gone back in and has an end.

    Raises Unfit and OSError.
    """
    packing = packing_of(raw)
    stream = io.BufferedReader(Unpacked(raw, packing), 1 << 20) if packing else raw
    if not packing and beginning(raw).startswith(b"PAR1"):
        if not at_hand:
            raise Unfit("holds Parquet, which is read from its end: give the file")
        return parquet_events(raw)
    lines = numbered_lines(stream)
    sample = list(islice(lines, SAMPLE_LINES if at_hand else 1))
    while True:
        try:
            return read_lines(chain(sample, lines), sample, options)
        except Unfit:  # who writes to standard input may do so slowly: more lines are waited for only in need
            more = [] if len(sample) >= SAMPLE_LINES else list(islice(lines, 1))
            if not more:
                raise
            sample += more


def read_lines(lines: Lines, sample: list[Line], options: Options) -> Found:
    """Raises Unfit where nothing says what the lines are."""
    texts = [text for _, text in sample if text]
    if texts and texts[0].startswith((b"\xff\xfe", b"\xfe\xff")):
        raise Unfit("is UTF-16: write it anew as UTF-8")
    kind = recognized(texts, options)
    if kind == "csv":
        return csv_events(lines)
    if kind == "events":
        return grouped(json_events(lines))
    if kind == "messages":
        return each(lines, lambda text: json_message(text, options))
    if options.topic is not None:
        topic = options.topic
        return each(lines, lambda text: plain_message(topic, text, now()))
    timed = 2 * sum(leading_time(text) is not None for text in texts) > len(texts)
    return each(lines, lambda text: mosquitto_message(text, timed=timed))


def recognized(sample: list[bytes], options: Options) -> str:
    """csv, events, messages or mosquitto. Raises Unfit."""
    asked = options.format
    if sample and asked in ("auto", "events") and sample[0].startswith(b"id,message_id,"):
        return "csv"
    objects = [one for one in map(as_object, sample) if one is not None]
    is_export = any(one.keys() >= EVENT_KEYS for one in objects)
    if asked == "events":
        if sample and not is_export:
            raise Unfit("is no export of events: a CSV begins with the header, JSON lines have all fields")
        return "events"
    if asked != "auto":
        return asked
    if is_export:
        return "events"
    if any("event_id" in one and "reading" in one for one in objects) or any(
        text.startswith(b"event_id,") for text in sample[:1]
    ):
        raise Unfit("is an export of readings, which is for other programs: export events")
    if any("topic" in one for one in objects):
        return "messages"
    if objects and options.topic is None:
        raise Unfit("has JSON without a topic: give --topic")
    if objects and any("payload" in one or "payload_b64" in one for one in objects):
        return "messages"
    if options.topic is not None or not sample or 2 * sum(map(is_spoken, sample)) >= len(sample):
        return "mosquitto"
    raise Unfit(
        "is none that is known: an export of events (a CSV begins with its header), JSON lines of messages, or what "
        "`mosquitto_sub -v` writes; see --format"
    )


def as_object(text: bytes) -> dict[str, msgspec.Raw] | None:
    try:
        return _decode_object(text)
    except (msgspec.MsgspecError, ValueError):
        return None


_decode_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
EVENT_KEYS = {"id", "message_id", "device", "kind", "observed_at", "readings"}


def is_spoken(text: bytes) -> bool:
    """Whether a line may be a topic and its payload, after a time or without."""
    rest = text if (found := leading_time(text)) is None else found[1]
    topic, space, _ = rest.partition(b" ")
    return bool(space and topic) and not any(mark < 32 or mark in b'+#"{}' for mark in topic) and is_utf8(topic)


# --- lines ---

Line = tuple[int, bytes | None]
"""A line's number, counted from 1, and the line without its end; None is one that is too long."""

Lines = Iterable[Line]


def numbered_lines(stream: IO[bytes]) -> Iterator[Line]:
    number = 0
    while line := stream.readline(LINE_BYTES):
        number += 1
        if len(line) == LINE_BYTES and not line.endswith(b"\n"):
            while (rest := stream.readline(LINE_BYTES)) and not rest.endswith(b"\n"):
                pass
            yield number, None
            continue
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        yield number, line.removesuffix(b"\n")


def each(lines: Lines, read: Callable[[bytes], Message]) -> Found:
    """A record of each line that is not blank, or what is wrong with it."""
    for number, text in lines:
        if text is None:
            yield Fault(number, TOO_LONG)
            continue
        if not text.strip():
            continue
        try:
            yield Record(number, read(text))
        except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError) as fault:
            yield Fault(number, str(fault))


TOO_LONG = f"is longer than {LINE_BYTES >> 20} MB"


def now() -> int:
    return time.time_ns() // 1_000


# --- messages ---


class Mosquitto(msgspec.Struct, frozen=True, rename="kebab"):
    """The properties as `mosquitto_sub -F %j` names them, and as `amber normalize` does."""

    payload_format_indicator: int = 0
    message_expiry_interval: int | None = None
    content_type: str | None = None
    response_topic: str | None = None
    correlation_data: str | None = None
    user_properties: msgspec.Raw = msgspec.Raw(b"{}")


TIMES = ("received_at", "tst", "timestamp", "time", "ts")


def json_message(text: bytes, options: Options) -> Message:
    """Raises ValueError and its like."""
    try:
        line = _decode_object(text if is_utf8(text) else repaired(text))
    except msgspec.ValidationError:  # JSON, but no object
        if options.topic is None:
            raise
        line = {}
    has_payload = "payload" in line or "payload_b64" in line or "topic" in line
    topic = options.topic if "topic" not in line else decoded(line, "topic", str)
    if topic is None:
        raise ValueError("has no topic: give --topic for those")
    return Message(
        checked_topic(topic),
        payload_of(line) if has_payload else text,
        checked_qos(decoded(line, "qos", int) if "qos" in line else 0),
        bool(decoded(line, "retain", bool | int)) if "retain" in line else False,
        received_at(line, options.time_field),
        properties=properties_of(line),
    )


def is_utf8(text: bytes) -> bool:
    try:
        return text.isascii() or text.decode() is not None
    except UnicodeDecodeError:
        return False


def repaired(text: bytes) -> bytes:
    """The line with its payload in base64: `mosquitto_sub -F %j` writes as it is also what is no UTF-8."""
    found = json.loads(text.decode("utf-8", "surrogateescape"))
    payload = found.pop("payload", None) if isinstance(found, dict) else None
    if not isinstance(payload, str):
        raise ValueError("is no UTF-8")  # noqa: TRY004
    content = payload.encode("utf-8", "surrogateescape")
    if found.pop("payloadlen", len(content)) != len(content):
        raise ValueError(CUT)
    return json.dumps({**found, "payload_b64": base64.b64encode(content).decode()}).encode()


CUT = "its payload is not as long as it was (%j and %J cannot carry every payload)"


def decoded(line: Mapping[str, msgspec.Raw], key: str, type: Any) -> Any:  # noqa: A002
    try:
        return msgspec.json.decode(line[key], type=type)
    except msgspec.ValidationError as fault:
        raise ValueError(f"{key}: {fault}") from None


def payload_of(line: Mapping[str, msgspec.Raw]) -> bytes:
    """What stands as text, in base64, or else as JSON: of that each byte is kept, since a number says more as text."""
    if "payload_b64" in line:
        try:
            return base64.b64decode(decoded(line, "payload_b64", str), validate=True)
        except binascii.Error as fault:
            raise ValueError(f"payload_b64: {fault}") from None
    raw = bytes(line.get("payload", b'""'))
    size = decoded(line, "payloadlen", int) if "payloadlen" in line else None
    if raw == b"null" and not size:
        return b""
    if not raw.startswith(b'"'):
        return raw
    text: bytes = decoded(line, "payload", str).encode()
    if size is None or size == len(text):
        return text
    if size == len(raw):  # %J, of a payload that is a JSON text itself
        return raw
    raise ValueError(CUT)


def received_at(line: Mapping[str, msgspec.Raw], time_field: str | None) -> int:
    """When a message was recorded, in microseconds; now where it does not say."""
    key = time_field or next((key for key in TIMES if key in line), None)
    if key is None:
        return now()
    if key not in line:
        raise ValueError(f"has no time in {key}")
    stamp = decoded(line, key, str | int | float | None)
    if stamp is None and time_field is None:
        return now()
    found = moment(stamp)
    if found is None or not -(2**63) <= found < 2**63:
        raise ValueError(f"{key}: {str(stamp)[:40]!r} is no time")
    return found


def moment(stamp: object) -> int | None:
    """Microseconds; a text without a zone is the machine's time."""
    if type(stamp) is str:
        stamp = stamp.strip()
        if stamp[-6:-4] in ("Z+", "Z-"):  # mosquitto_sub 2.0 writes 2026-11-22T17:00:12.915212Z+0000
            stamp = f"{stamp[:-6]}{stamp[-5:]}"
        if found := _UNIX.fullmatch(stamp):
            return int(found[1]) * SECOND + int((found[2] or "").ljust(6, "0")[:6])
    if (known := instant(stamp)) is not None:
        return known
    try:
        return micros(datetime.fromisoformat(stamp).astimezone()) if type(stamp) is str else None
    except (ValueError, OverflowError):
        return None


_UNIX = re.compile(r"(\d{9,10})(?:\.(\d{1,9}))?")


def properties_of(line: Mapping[str, msgspec.Raw]) -> Properties | None:
    """Of what `mosquitto_sub` writes, `amber normalize` takes, or an export has."""
    raw = line.get("properties") or line.get("mqtt5")
    if raw is None or raw == b"null":
        return None
    names = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
    if not names.keys().isdisjoint(OURS):
        known = msgspec.json.decode(raw, type=Properties)
    else:
        named = {key.replace("_", "-"): value for key, value in names.items()}
        told = msgspec.json.decode(msgspec.json.encode(named), type=Mosquitto)
        data = told.correlation_data
        known = Properties(
            payload_is_text=told.payload_format_indicator == 1,
            expiry_s=told.message_expiry_interval,
            content_type=told.content_type,
            response_topic=told.response_topic,
            correlation_data=None if data is None else data.encode(),
            user=pairs(told.user_properties),
        )
    return None if known == Properties() else known


OURS = {"payload_is_text", "expiry_s", "user"}


def pairs(raw: msgspec.Raw) -> tuple[tuple[str, str], ...]:
    """Names and values: of an object, which may have a name twice, or of an array of them."""
    found = json.loads(bytes(raw), object_pairs_hook=lambda members: members)
    return msgspec.convert(found, tuple[tuple[str, str], ...])


def mosquitto_message(text: bytes, *, timed: bool) -> Message:
    """`topic payload`, behind a time where all lines have one. Raises ValueError."""
    at = None
    if timed:
        found = leading_time(text)
        if found is None:
            raise ValueError("does not begin with a time as the first lines do (a payload with a line break?)")
        at, text = found
    topic, space, payload = text.partition(b" ")
    if not space:
        raise ValueError("is no topic with a payload behind a space (a payload with a line break?)")
    if payload == b"(null)" and not timed:  # what -v writes for an empty one
        payload = b""
    return plain_message(checked_topic(topic.decode()), payload, now() if at is None else at)


def plain_message(topic: str, payload: bytes, at: int) -> Message:
    return Message(topic, payload, 0, retain=False, received_at=at)


def leading_time(text: bytes) -> tuple[int, bytes] | None:
    """The time that a line begins with, as %U and %I write it, and what is behind it."""
    stamp, space, rest = text.partition(b" ")
    if not space or not 10 <= len(stamp) <= 40 or not _STAMP.match(stamp):
        return None
    at = moment(stamp.decode("ascii", "replace"))
    return None if at is None else (at, rest)


_STAMP = re.compile(rb"\d{10}(\.\d+)?$|\d{4}-\d{2}-\d{2}T\d{2}:\d{2}")


def checked_topic(topic: str) -> str:
    if not topic or "+" in topic or "#" in topic or "\0" in topic or len(topic.encode()) > TOPIC_BYTES:
        raise ValueError(f"{topic[:40]!r} is no topic")
    return topic


def checked_qos(qos: int) -> int:
    if not 0 <= qos <= 2:
        raise ValueError(f"{qos} is no QoS")
    return qos


# --- exported events ---


class EventLine(msgspec.Struct, frozen=True, omit_defaults=True):
    """An event as an export has it."""

    id: int
    message_id: int
    device: str
    kind: Kind
    observed_at: str
    received_at: str
    time_source: Literal["device", "gateway"]
    topic: str
    format: str
    qos: int
    retain: bool
    seq: int | None
    readings: dict[str, Value]
    units: dict[str, str]
    via: str | None = None
    vendor_type: str | None = None
    boot: str | None = None
    source_id: str | None = None
    historical: bool = False
    provisional: bool = False
    quality: dict[str, Quality] = {}
    location: Location | None = None
    payload: str | None = None
    payload_b64: str | None = None
    properties: Properties | None = None


class Exported(msgspec.Struct, frozen=True):
    """An event with its number in the file, its message as far as the file has it, and the line of JSON that it is."""

    number: int
    message_id: int
    event: Event
    message: Message
    whole: bool
    line: bytes


_decode_event = msgspec.json.Decoder(EventLine).decode
_encode = msgspec.json.Encoder().encode


def json_events(lines: Lines) -> Iterator[Exported | Fault]:
    for number, text in lines:
        if text is None:
            yield Fault(number, TOO_LONG)
        elif text.strip():
            try:
                yield exported(number, _decode_event(text), text)
            except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError) as fault:
                yield Fault(number, str(fault))


def exported(number: int, line: EventLine, text: bytes | None = None) -> Exported:
    """Raises ValueError."""
    detail = Detail(
        via=line.via,
        vendor_type=line.vendor_type,
        boot=line.boot,
        source_id=line.source_id,
        historical=line.historical,
        provisional=line.provisional,
        quality=line.quality,
        location=line.location,
    )
    event = Event(
        line.device,
        line.kind,
        line.format,
        parsed(line.observed_at),
        line.readings,
        line.time_source == "device",
        line.seq,
        line.units or None,
        None if detail == NO_DETAIL else detail,
    )
    whole, payload = True, b""
    if line.payload_b64 is not None:
        payload = base64.b64decode(line.payload_b64, validate=True)
    elif line.payload is not None:
        payload = line.payload.encode()
    else:
        whole = False
    if not line.topic or len(line.topic.encode()) > TOPIC_BYTES:
        raise ValueError(f"{line.topic[:40]!r} is no topic")
    at = parsed(line.received_at)
    if not -(2**63) <= at < 2**63:
        raise ValueError(f"received_at: {line.received_at} is no time that can be stored")
    message = Message(line.topic, payload, checked_qos(line.qos), line.retain, at, properties=line.properties)
    if whole:
        return Exported(number, line.message_id, event, message, whole, b"")
    return Exported(number, line.message_id, event, message, whole, _encode(line) if text is None else text)


NO_DETAIL = Detail()


def grouped(found: Iterable[Exported | Fault]) -> Found:
    """The events of one message, which stand together, as one record; its number is that of the last."""
    together: list[Exported] = []
    for one in found:
        if isinstance(one, Fault):
            yield one
            continue
        if together and not same_message(together[-1], one):
            yield one_record(together)
            together = []
        # Of a payload that comes with each of a message's events, one is kept.
        together.append(one if not together else msgspec.structs.replace(one, message=together[0].message))
    if together:
        yield one_record(together)


def same_message(one: Exported, other: Exported) -> bool:
    return one.message_id == other.message_id and one.message == other.message


def one_record(together: list[Exported]) -> Record:
    first, last = together[0], together[-1]
    message = first.message
    if not first.whole:
        message = msgspec.structs.replace(message, payload=b"\n".join(one.line for one in together))
    return Record(last.number, message, [one.event for one in together])


class Seconds(dict[str, int]):
    """Seconds since the epoch by text: neighbouring events share it."""

    def __missing__(self, text: str) -> int:
        if len(self) >= 10_000:
            self.clear()
        found = _ISO.fullmatch(text)
        if found is None:
            raise ValueError(f"{text[:40]!r} is no time as exports have it")
        cycles, year = divmod(int(found[1]) - 1, 400)  # the calendar repeats itself, and datetime ends in 9999
        within = datetime.fromisoformat(f"{year + 1:04}{found[2]}+00:00")
        seconds = self[text] = micros(within) // SECOND + cycles * 146_097 * 86_400
        return seconds


_ISO = re.compile(r"(\d{4}|[+-]\d{5,9})(-\d\d-\d\dT\d\d:\d\d:\d\d)")
_seconds = Seconds()


def parsed(text: str) -> int:
    """Microseconds of a time as exports have it, of any year. Raises ValueError."""
    if text[-8:-7] != "." or text[-1:] != "Z" or not text[-7:-1].isdecimal():
        raise ValueError(f"{text[:40]!r} is no time as exports have it")
    return _seconds[text[:-8]] * SECOND + int(text[-7:-1])


# --- CSV ---


def csv_events(lines: Lines) -> Found:
    """Raises Unfit where the header is not that of an export."""
    rows = csv_rows(lines)
    head = next(rows)
    names = [] if isinstance(head, Fault) else head[1]
    if missing := [name for name in CSV_NAMES if name not in names]:
        raise Unfit(f"is no export of events: its header has no {missing[0]}")
    return grouped(csv_lines(rows, names))


CSV_NAMES = (*(name for name in EventLine.__struct_fields__[:14]), "detail")


def csv_lines(rows: Iterator[tuple[int, list[str]] | Fault], names: list[str]) -> Iterator[Exported | Fault]:
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
        except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError) as fault:
            yield Fault(number, str(fault))


def row_line(row: dict[str, Any]) -> EventLine:
    """An event of the columns of a table. Raises ValueError."""
    line = {name: row[name] for name in CSV_NAMES[:-1]}
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


# --- Parquet ---


def parquet_events(raw: IO[bytes]) -> Found:
    """Raises Unfit where the columns are not those of an export."""
    import pyarrow as pa
    from pyarrow import parquet

    try:
        file = parquet.ParquetFile(raw)
    except pa.ArrowInvalid as fault:
        raise Unfit(f"is broken: {fault}") from None
    names = file.schema_arrow.names
    if missing := [name for name in CSV_NAMES if name not in names]:
        hint = ", but readings, which are for other programs" if "event_id" in names else ""
        raise Unfit(f"is Parquet without events of an export{hint}: it has no column {missing[0]}")
    return grouped(parquet_lines(file, [name for name in (*CSV_NAMES, "payload", "properties") if name in names]))


def parquet_lines(file: Any, names: list[str]) -> Iterator[Exported | Fault]:
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
                except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError, TypeError) as fault:
                    yield Fault(number, str(fault))
    except (pa.ArrowInvalid, OSError) as fault:
        raise Unfit(f"is broken behind row {number}: {fault}") from None


# --- what is compressed ---


def beginning(raw: IO[bytes]) -> bytes:
    """The first bytes, which are still to be read."""
    peek = getattr(raw, "peek", None)
    return b"" if peek is None else bytes(peek(4)[:4])


def packing_of(raw: IO[bytes]) -> str | None:
    first = beginning(raw)
    if first.startswith(b"\x1f\x8b"):
        return "gzip"
    return "zstd" if first.startswith(b"\x28\xb5\x2f\xfd") else None


class Unpacker(Protocol):
    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, /) -> bytes: ...


class Unpacked(io.RawIOBase):
    """What a gzip or Zstandard stream of any number of members holds. Raises Unfit where it is broken."""

    def __init__(self, raw: IO[bytes], packing: str) -> None:
        self._raw = raw
        self._packing = packing
        self._member: Unpacker | None = None
        self._packed = self._waiting = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._waiting:
            self._packed = self._packed or self._raw.read(PACKED_CHUNK)
            if not self._packed:
                if self._member is not None:
                    raise Unfit(f"is broken: it ends within {self._packing}")
                return 0
            self._waiting = self._unpack(self._packed)
        size = min(len(buffer), len(self._waiting))
        buffer[:size], self._waiting = self._waiting[:size], self._waiting[size:]
        return size

    def _unpack(self, packed: bytes) -> bytes:
        if self._member is None:
            self._member = make_unpacker(self._packing)
        try:
            found = self._member.decompress(packed)
        except Exception as fault:
            if isinstance(fault, zlib.error) or type(fault).__name__ == "ZstdError":
                raise Unfit(f"is broken: {fault}") from None
            raise
        self._packed = b""
        if self._member.eof:
            self._packed = self._member.unused_data
            self._member = None
        return found


def make_unpacker(packing: str) -> Unpacker:
    if packing == "gzip":
        return zlib.decompressobj(16 + zlib.MAX_WBITS)
    import zstandard

    return zstandard.ZstdDecompressor().decompressobj()
