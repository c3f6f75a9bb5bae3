"""Events as Amber writes them, a JSON object on each line: what `amber import` keeps of an export without messages.

Only by the MQTT 5 content type. What has been read once is not read anew: an event keeps the format that it had.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Literal

import msgspec

from gateway.formats import texts, values
from gateway.formats.body import Body
from gateway.formats.format import Format, Unreadable
from gateway.formats.options import Options
from storage.event import Detail, Event, Kind, Location, Message, Quality, Value

NAME = "amber"
CONTENT_TYPE = "application/vnd.amber.event+json"


class EventLine(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """An event as an export has it, but for what its message says."""

    device: str
    kind: Kind
    observed_at: str
    time_source: Literal["device", "gateway"]
    format: str
    seq: int | None = None
    readings: dict[str, Value]
    units: dict[str, str] = {}
    via: str | None = None
    vendor_type: str | None = None
    boot: str | None = None
    source_id: str | None = None
    historical: bool = False
    provisional: bool = False
    quality: dict[str, Quality] = {}
    location: Location | None = None
    conflict: bool = False


_decode = msgspec.json.Decoder(EventLine).decode
_FAULTS = (msgspec.MsgspecError, ValueError, OverflowError, RecursionError)


def read(message: Message, body: Body) -> Sequence[Event] | None:
    """The events of the lines, all or none."""
    lines = [line for line in message.payload.split(b"\n") if line.strip()]
    if not lines:
        raise Unreadable("no event is in it")
    filled = 0
    events = []
    for number, text in enumerate(lines, 1):
        try:
            line = _decode(text)
            event = event_of(line)
        except _FAULTS as fault:
            raise Unreadable(f"line {number} is no event of an export: {texts.shortened(str(fault))}") from None
        filled += len(event.readings)
        if filled > body.options.readings:
            raise Unreadable(f"more than {body.options.readings} readings (readings)")
        check(event, body.options)
        events.append(received(event, message.received_at, body.options))
    return events


def event_of(line: EventLine) -> Event:
    """The event that a line tells of. Raises ValueError for a time that is none."""
    detail = Detail(
        via=line.via,
        vendor_type=line.vendor_type,
        boot=line.boot,
        source_id=line.source_id,
        historical=line.historical,
        provisional=line.provisional,
        quality=line.quality,
        location=line.location,
        conflict=line.conflict,
    )
    return Event(
        line.device,
        line.kind,
        line.format,
        microseconds(line.observed_at),
        line.readings,
        line.time_source == "device",
        line.seq,
        {name: unit for name, unit in line.units.items() if name in line.readings} or None,
        None if detail == _NO_DETAIL else detail,
    )


_NO_DETAIL = Detail()


def check(event: Event, options: Options) -> None:
    """Raises Unreadable for what is over a bound: it is refused, since a shortened event would be another."""
    names = [event.device, event.format, *event.readings, *(event.units or {}).values()]
    if (detail := event.detail) is not None:
        names += detail.quality
        names += [word for word in (detail.via, detail.vendor_type, detail.boot, detail.source_id) if word is not None]
    longest = max(map(len, names))
    if longest > options.name_chars:
        raise Unreadable(f"a name of {longest} characters, over the limit of {options.name_chars} (name_chars)")
    if not event.device or not event.format:
        raise Unreadable("an event without a device or a format")
    if any("\0" in name for name in names):
        raise Unreadable("a name with a NUL")
    for name, value in event.readings.items():
        if values.usable(value, options) != value:
            raise Unreadable(f"a value that no reading can have: {texts.shortened(name, 40)}")


def received(event: Event, at: int, options: Options) -> Event:
    """The event at the time of its message where no device gave one. Raises Unreadable where no device can have."""
    if not event.from_device:
        return event if event.observed_at == at else msgspec.structs.replace(event, observed_at=at)
    if event.observed_at < options.earliest:
        raise Unreadable(f"a time before {options.earliest // _SECOND} s since 1970 is not believed (earliest)")
    if event.observed_at > at + options.ahead_us:
        raise Unreadable(f"a time of over {options.ahead_us // _SECOND} s after its message is not believed (ahead_s)")
    return event


# Times

_SECOND = 1_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Seconds(dict[str, int]):
    """Seconds since the epoch by text: neighbouring events share it."""

    MOST = 10_000

    def __missing__(self, text: str) -> int:
        if len(self) >= self.MOST:
            self.clear()
        found = _ISO.fullmatch(text)
        if found is None:
            raise ValueError(f"{text[:40]!r} is no time as exports have it")
        cycles, year = divmod(int(found[1]) - 1, 400)  # the calendar repeats itself, and datetime ends in 9999
        within = datetime.fromisoformat(f"{year + 1:04}{found[2]}+00:00")
        seconds = self[text] = (within - _EPOCH) // timedelta(seconds=1) + cycles * 146_097 * 86_400
        return seconds


_ISO = re.compile(r"(\d{4}|[+-]\d{5,9})(-\d\d-\d\dT\d\d:\d\d:\d\d)", re.ASCII)
_seconds = Seconds()


def microseconds(text: str) -> int:
    """Of a time as exports have it, of any year. Raises ValueError."""
    fraction = text[-7:-1]
    if text[-8:-7] != "." or text[-1:] != "Z" or not (fraction.isascii() and fraction.isdecimal()):
        raise ValueError(f"{text[:40]!r} is no time as exports have it")
    return _seconds[text[:-8]] * _SECOND + int(fraction)


FORMATS: tuple[Format, ...] = (Format(name=NAME, read=read, content_types=(CONTENT_TYPE,), read_before=True),)
