"""Whether events can be stored: one integer of 2⁶³ or one lone surrogate would fail the whole batch they are in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

import msgspec

from storage.event import Event, Kind

_KINDS = frozenset(get_args(Kind))
_VALUES = frozenset({bool, int, float, str, type(None)})
_encode = msgspec.json.Encoder().encode


def unfit(events: Sequence[Event]) -> str | None:
    """What is wrong with the first event that cannot be stored, None where all can."""
    for event in events:
        if not event.device:
            return "an event without a device"
        if event.kind not in _KINDS:
            return f"an event of kind {event.kind}"
        if not -(2**63) <= event.observed_at < 2**63:
            return f"a time of {event.observed_at}"
        if event.seq is not None and not 0 <= event.seq < 2**63:
            return f"a sequence number of {event.seq}"
        if not _VALUES.issuperset(map(type, event.readings.values())):
            return "a reading that is neither number nor text nor boolean"
    try:
        encoded = _encode(events)
    except UnicodeEncodeError:
        return "text with a lone surrogate"
    return "text with a NUL" if b"\\u0000" in encoded and any(map(_holds_nul, events)) else None


def _holds_nul(event: Event) -> bool:
    units = event.units or {}
    words = (event.device, *event.readings, *event.readings.values(), *units, *units.values())
    return any(isinstance(word, str) and "\0" in word for word in words)
