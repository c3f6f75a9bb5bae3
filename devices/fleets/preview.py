"""What a fleet would do, in a table and the first words of each group. Publishes nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from devices.dialects import speak
from devices.faults import Faults
from devices.fleet import Device, Fleet, Group, devices
from devices.fleets.words import printable
from devices.outgoing import Outgoing
from devices.telemetry import samples, telemetry

SHOWN_PAYLOAD = 160


class Sight(msgspec.Struct, frozen=True):
    """What is to be seen of a group: its pace while it is awake, and what its first device says first."""

    group: Group
    per_s: float
    first: Outgoing


def preview(fleet: Fleet) -> Iterator[str]:
    """The lines to print."""
    seen = sights(fleet)
    yield from _aligned(_rows(fleet, seen))
    for sight in seen:
        publication = sight.first.publication
        yield ""
        yield f"{printable(sight.group.name)}: {printable(publication.topic)}"
        yield f"  {_payload(publication.payload)}"


def sights(fleet: Fleet) -> list[Sight]:
    """One of each group, in their order."""
    found = devices(fleet)  # the groups take turns, so the first devices are those of each group
    return [_sight(next(found), fleet) for _ in fleet.groups]


def _sight(device: Device, fleet: Fleet) -> Sight:
    group = device.group
    parts = len(speak(device, fleet).telemetry(next(samples(device, fleet))))
    copies = 1 + group.faults.duplicate + group.faults.conflict
    first = next(telemetry(device, fleet, speak(device, fleet)))
    return Sight(group, group.count * group.pace.per_s * parts * copies, first)


def _rows(fleet: Fleet, sights: Sequence[Sight]) -> list[tuple[str, ...]]:
    rows = [("group", "devices", "dialect", "qos", "messages/s", "hours", "faults")]
    for sight in sights:
        group = sight.group
        asked = " +receipts" if group.receipts else ""
        numbers = f"{group.count}", group.dialect, f"{group.qos}{asked}", _rate(sight.per_s)
        rows.append((printable(group.name), *numbers, _hours(group), _faults(group.faults)))
    total = sum(sight.per_s for sight in sights)
    lasts = "until stopped" if fleet.duration_s is None else ""
    return [*rows, ("all", f"{fleet.devices}", "", "", _rate(total), lasts, "")]


def _aligned(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [
            cell.rjust(width) if column in (1, 4) else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()


def _rate(per_s: float) -> str:
    """Three digits that say something: 1,234 or 0.00123."""
    return f"{per_s:,.0f}" if per_s >= 1000 else f"{per_s:.3g}"


def _hours(group: Group) -> str:
    hours = group.pace.hours
    if hours is None:
        return "always"
    spans = ", ".join(f"{_clock(begin)}-{_clock(end)}" for begin, end in hours.spans)
    return spans if hours.zone == "UTC" else f"{spans} {hours.zone}"


def _clock(seconds: int) -> str:
    return f"{seconds // 3600:02d}:{seconds % 3600 // 60:02d}"


def _faults(faults: Faults) -> str:
    usual = Faults()
    found = [name for name in faults.__struct_fields__ if getattr(faults, name) != getattr(usual, name)]
    return ", ".join(found) if len(found) < 5 else f"{', '.join(found[:4])} and {len(found) - 4} more"


def _payload(payload: bytes) -> str:
    """As text where it is text, else what of it can be read."""
    try:
        text = printable(payload.decode())
    except UnicodeDecodeError:
        text = f"{len(payload)} bytes: {''.join(chr(byte) if 32 <= byte < 127 else '·' for byte in payload)}"
    return text if len(text) <= SHOWN_PAYLOAD else f"{text[: SHOWN_PAYLOAD - 1]}…"
