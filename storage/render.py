"""What the log holds as text: tables, JSON, JSON lines, CSV. Never decides what is shown, and never writes it."""

from __future__ import annotations

import csv
import io
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Generic, TypeVar

import msgspec

from storage.conditions import quoted
from storage.event import StoredEvent
from storage.event_json import events_json
from storage.gaps import Gaps
from storage.history import Clock, LatestValue, Status, StoredDevice, StoredRejection, StoredSeries
from storage.times import SECOND, iso

if TYPE_CHECKING:
    from rich.table import Table

WIDEST_CELL = 60
"""Longer text is not cut; it only moves the rest of its own line."""

SHOWN_PAYLOAD = 48

T = TypeVar("T")


class View(msgspec.Struct, Generic[T], frozen=True):
    """How one sort of thing looks: as JSON, as a record of plain values, as a row of a table for people."""

    to_json: Callable[[Sequence[T]], list[str]]
    fields: tuple[str, ...]
    record: Callable[[T], Sequence[object]]
    columns: tuple[str, ...]
    cells: Callable[[T], Sequence[str]]


def json_array(pages: Iterable[Sequence[str]]) -> Iterator[str]:
    """One JSON array, an element to a line."""
    before = "[\n"
    for page in pages:
        yield before + ",\n".join(page)
        before = ",\n"
    yield "[]\n" if before == "[\n" else "\n]\n"


def json_lines(pages: Iterable[Sequence[str]]) -> Iterator[str]:
    return ("\n".join([*page, ""]) for page in pages)


def csv_rows(view: View[T], pages: Iterable[Sequence[T]]) -> Iterator[str]:
    """CSV with a header, as RFC 4180 has it but for the line ends."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(view.fields)
    yield text.getvalue()
    for page in pages:
        text.seek(0)
        text.truncate()
        writer.writerows(map(view.record, page))
        yield text.getvalue()


def plain_table(view: View[T], pages: Iterable[Sequence[T]]) -> Iterator[str]:
    """Aligned columns; the widths are those of the first page, and grow where a later one needs more."""
    widths = [len(column) for column in view.columns]
    head: list[Sequence[str]] = [view.columns]
    for page in pages:
        rows = [*head, *map(view.cells, page)]
        widths = [max(width, *(min(len(row[n]), WIDEST_CELL) for row in rows)) for n, width in enumerate(widths)]
        yield "".join(_aligned(row, widths) for row in rows)
        head = []
    if head:
        yield _aligned(view.columns, widths)


def _aligned(row: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() + "\n"


def rich_table(view: View[T], pages: Iterable[Sequence[T]]) -> None:
    """Print a table that fits the terminal."""
    from rich.console import Console

    Console().print(fitted(view, pages))


def fitted(view: View[T], pages: Iterable[Sequence[T]]) -> Table:
    """A table that fits itself to the terminal it is shown on."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in view.columns:
        table.add_column(column, overflow="fold", no_wrap=column == "id" or column.endswith("_at"))
    for page in pages:
        for thing in page:
            table.add_row(*map(Text, view.cells(thing)))
    return table


def events_view(clock: Clock) -> View[StoredEvent]:
    def cells(event: StoredEvent) -> tuple[str, ...]:
        at = event.received_at if clock == "received" else event.observed_at
        return str(event.id), short_time(at), shown(event.device), shown(event.kind), readings_text(event)

    columns = "id", f"{clock}_at", "device", "kind", "readings"
    return View(events_json, EVENT_FIELDS, event_record, columns, cells)


EVENT_FIELDS = (
    "id",
    "message_id",
    "device",
    "kind",
    "observed_at",
    "received_at",
    "time_source",
    "topic",
    "format",
    "qos",
    "retain",
    "seq",
    "readings",
    "units",
    "detail",
)


def event_record(event: StoredEvent) -> Sequence[object]:
    """The values of an event in the order of its fields; readings, units and detail are JSON in one field each."""
    return (
        event.id,
        event.message_id,
        event.device,
        event.kind,
        iso(event.observed_at),
        iso(event.received_at),
        "device" if event.from_device else "gateway",
        event.topic,
        event.format,
        event.qos,
        str(event.retain).lower(),
        event.seq,
        event.readings,
        msgspec.json.encode(event.units).decode(),
        event.detail,
    )


def readings_text(event: StoredEvent) -> str:
    """`temperature=21.5 Cel  humidity=null (missing)`: numbers as they are stored, and what is wrong with one."""
    readings = msgspec.json.decode(event.readings, type=dict[str, msgspec.Raw])
    quality = msgspec.json.decode(event.detail, type=_Quality).quality if event.detail else {}
    return "  ".join(
        shown(" ".join(filter(None, (f"{name}={_value_text(bytes(value))}", event.units.get(name), wrong))))
        for name, value in readings.items()
        for wrong in [f"({quality[name]})" if name in quality else ""]
    )


class _Quality(msgspec.Struct, frozen=True):
    """The part of a detail that the table of events shows."""

    quality: dict[str, str] = {}


def _value_text(value: bytes) -> str:
    return msgspec.json.decode(value, type=str) if value.startswith(b'"') else value.decode()


def rejections_view() -> View[StoredRejection]:
    fields = "id", "message_id", "reason", "format", "topic", "received_at", "qos", "retain", "payload", "payload_b64"
    columns = "message_id", "received_at", "topic", "format", "reason", "payload"
    return View(_rejections_json, fields, _rejection_record, columns, _rejection_cells)


def _rejections_json(rejections: Sequence[StoredRejection]) -> list[str]:
    return [
        _object_json(
            id=rejection.id,
            message_id=rejection.message_id,
            reason=rejection.reason,
            format=rejection.format,
            topic=rejection.topic,
            received_at=iso(rejection.received_at),
            qos=rejection.qos,
            retain=rejection.retain,
            **_payload(rejection.payload),
        )
        for rejection in rejections
    ]


def _payload(payload: bytes) -> dict[str, str]:
    """As text where it is text, else in base64 under a name that says so."""
    try:
        return {"payload": payload.decode()}
    except UnicodeDecodeError:
        return {"payload_b64": b64encode(payload).decode()}


def _rejection_record(rejection: StoredRejection) -> Sequence[object]:
    payload = _payload(rejection.payload)
    return (
        rejection.id,
        rejection.message_id,
        rejection.reason,
        rejection.format,
        rejection.topic,
        iso(rejection.received_at),
        rejection.qos,
        str(rejection.retain).lower(),
        payload.get("payload", ""),
        payload.get("payload_b64", ""),
    )


def _rejection_cells(rejection: StoredRejection) -> Sequence[str]:
    texts = rejection.topic, rejection.format, rejection.reason, payload_text(rejection.payload)
    return str(rejection.message_id), short_time(rejection.received_at), *map(shown, texts)


def payload_text(payload: bytes) -> str:
    """The beginning of a payload: as text, or in hexadecimal where it is none."""
    try:
        text = payload.decode()
    except UnicodeDecodeError:
        text = f"0x{payload[: SHOWN_PAYLOAD // 2].hex()}{'…' if len(payload) > SHOWN_PAYLOAD // 2 else ''}"
    return text if len(text) <= SHOWN_PAYLOAD + 3 else f"{text[:SHOWN_PAYLOAD]}…"


def devices_view() -> View[StoredDevice]:
    columns = "device", "online", "since", "last_received_at", "last_kind", "format", "events", "readings"
    return View(_devices_json, DEVICE_FIELDS, _device_record, columns, _device_cells)


DEVICE_FIELDS = (
    "device",
    "last_position",
    "last_kind",
    "last_observed_at",
    "last_received_at",
    "online",
    "online_since",
    "events",
    "readings",
    "format",
    "first_received_at",
)


def _devices_json(devices: Sequence[StoredDevice]) -> list[str]:
    return [
        _object_json(**{**dict(zip(DEVICE_FIELDS, _device_record(device), strict=True)), "online": device.online})
        for device in devices
    ]


def _device_record(device: StoredDevice) -> Sequence[object]:
    return (
        device.device,
        device.last_position,
        device.last_kind,
        iso(device.last_observed_at),
        iso(device.last_received_at),
        None if device.online is None else str(device.online).lower(),
        None if device.online_since is None else iso(device.online_since),
        device.events,
        device.readings,
        device.format,
        iso(device.first_received_at),
    )


def _device_cells(device: StoredDevice) -> Sequence[str]:
    return (
        shown(device.device),
        "-" if device.online is None else "yes" if device.online else "no",
        "-" if device.online_since is None else short_time(device.online_since),
        short_time(device.last_received_at),
        shown(device.last_kind),
        shown(device.format),
        str(device.events),
        str(device.readings),
    )


def latest_view(now: int) -> View[LatestValue]:
    """The newest values, and how old they are at a time."""
    fields = "device", "reading", "value", "unit", "quality", "observed_at", "received_at", "event_id"
    columns = "device", "reading", "value", "unit", "age", "observed_at"

    def cells(latest: LatestValue) -> Sequence[str]:
        value = msgspec.json.decode(latest.value, type=str) if latest.value.startswith('"') else latest.value
        value = value if latest.quality is None else f"{value} ({latest.quality})"
        texts = latest.device, latest.reading, value, latest.unit or ""
        return *map(shown, texts), age(now - latest.at), short_time(latest.at)

    return View(_latest_json, fields, _latest_record, columns, cells)


def _latest_json(values: Sequence[LatestValue]) -> list[str]:
    """Neighbours share their device: one in its JSON serves them all."""
    device, device_json, found = "", '""', list[str]()
    for one in values:
        if one.device != device:
            device, device_json = one.device, quoted(one.device)
        unit = "null" if one.unit is None else quoted(one.unit)
        quality = "null" if one.quality is None else quoted(one.quality)
        found.append(
            f'{{"device":{device_json},"reading":{quoted(one.reading)},"value":{one.value},"unit":{unit},'
            f'"quality":{quality},"observed_at":"{iso(one.at)}","received_at":"{iso(one.received_at)}",'
            f'"event_id":{one.event_id}}}'
        )
    return found


def _latest_record(latest: LatestValue) -> Sequence[object]:
    value = "" if latest.value == "null" else _value_text(latest.value.encode())
    times = iso(latest.at), iso(latest.received_at)
    return latest.device, latest.reading, value, latest.unit, latest.quality, *times, latest.event_id


def series_view() -> View[StoredSeries]:
    fields = "device", "reading", "unit", "unit_source", "last_observed_at"
    return View(_series_json, fields, _series_record, fields, _series_cells)


def _series_json(series: Sequence[StoredSeries]) -> list[str]:
    fields = series_view().fields
    return [_object_json(**dict(zip(fields, _series_record(one), strict=True))) for one in series]


def _series_cells(one: StoredSeries) -> Sequence[str]:
    texts = one.device, one.reading, one.unit or "-", one.unit_source or "-"
    return *map(shown, texts), "-" if one.last_at is None else short_time(one.last_at)


def _series_record(one: StoredSeries) -> Sequence[str | None]:
    return one.device, one.reading, one.unit, one.unit_source, None if one.last_at is None else iso(one.last_at)


def age(us: int) -> str:
    """How long ago, in the unit that leaves a small number: `12 s`, `3 min`, `5 h`, `2 d`."""
    seconds = max(us, 0) // SECOND
    for unit, length, next_one in (("s", 1, 60), ("min", 60, 3_600), ("h", 3_600, 172_800)):
        if seconds < next_one:
            return f"{seconds // length} {unit}"
    return f"{seconds // 86_400} d"


SHOWN_RANGES = 5


def gaps_view() -> View[Gaps]:
    fields = tuple(field for field in Gaps.__struct_fields__ if field != "missing_ranges")
    columns = "device", "boot", "first", "last", "events", "missing", "duplicates", "conflicts", "which"
    return View(_gaps_json, (*fields, "missing_ranges"), _gaps_record, columns, _gaps_cells)


def _gaps_json(found: Sequence[Gaps]) -> list[str]:
    return [_object_json(**{**msgspec.structs.asdict(one), "last_observed_at": _iso_or_none(one)}) for one in found]


def _gaps_record(one: Gaps) -> Sequence[object]:
    values = {**msgspec.structs.asdict(one), "last_observed_at": _iso_or_none(one)}
    ranges = values.pop("missing_ranges")
    return *values.values(), msgspec.json.encode(ranges).decode()


def _gaps_cells(one: Gaps) -> Sequence[str]:
    ranges = [f"{first}" if first == last else f"{first}-{last}" for first, last in one.missing_ranges[:SHOWN_RANGES]]
    more = len(one.missing_ranges) - SHOWN_RANGES
    numbers = (one.first, one.last, one.events, one.missing, one.duplicates, one.conflicts)
    return (
        shown(one.device),
        "-" if one.boot is None else shown(one.boot),
        *("-" if number is None else str(number) for number in numbers),
        ", ".join([*ranges, *([f"and {more:,} more"] if more > 0 else [])]),
    )


def _iso_or_none(one: Gaps) -> str | None:
    return None if one.last_observed_at is None else iso(one.last_observed_at)


def status_view() -> View[tuple[str, object]]:
    """A line for each item of a status."""
    return View(
        to_json=lambda items: [_object_json(**dict(items))],
        fields=("item", "value"),
        record=lambda item: item,
        columns=("item", "value"),
        cells=lambda item: (item[0].replace("_", " "), shown(str("-" if item[1] is None else item[1]))),
    )


def status_items(status: Status) -> list[tuple[str, object]]:
    """The items of a status by name, times as text."""
    return [
        (name, iso(value) if name.endswith("_at") and isinstance(value, int) else value)
        for name, value in msgspec.structs.asdict(status).items()
    ]


def short_time(at: int) -> str:
    """To the millisecond, for tables."""
    return f"{iso(at)[:-4]}Z"


def shown(text: str) -> str:
    """Text that cannot steer a terminal: who may publish names devices and topics as he likes."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _object_json(**values: object) -> str:
    return msgspec.json.encode(values).decode()
