"""What the formats may believe, and what they may spend on one message."""

from __future__ import annotations

from datetime import tzinfo

import msgspec


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds and beliefs; a message over a bound is rejected with the bound's name, and kept whole."""

    earliest: int = 946_684_800_000_000
    """The first device time believed, 2000-01-01: a clock that counts from boot says 1970."""
    ahead_us: int = 86_400_000_000
    """How far ahead of the arrival a device's clock is still believed: one day."""
    zone: tzinfo | None = None
    """The zone of local times that name none; without it they are not believed."""
    payload_bytes: int = 1_048_576
    """The longest payload any format reads."""
    depth: int = 32
    """How deep objects and arrays may be nested."""
    entries: int = 10_000
    """How many keys and array elements one message may hold."""
    readings: int = 10_000
    """How many readings the events of one message may have."""
    unpacked_bytes: int = 4_194_304
    """How many bytes a compressed payload may unpack to."""
    message_ms: int = 1_000
    """How long one message may take; common JSON is not timed."""
    facts: int = 100_000
    """How many facts are remembered from earlier messages: births, descriptions, device lists."""
    fact_bytes: int = 67_108_864
    """How much they may hold in all, as JSON; in memory it is about ten times that."""
    array_items: int = 64
    """Arrays of plain values up to this length become a reading per element, longer ones one text."""
    text_chars: int = 65_536
    """The longest text of one reading."""
    name_chars: int = 512
    """The longest name of a device or a reading."""

    def __post_init__(self) -> None:
        for name in _BOUNDS:
            if getattr(self, name) < 2:
                raise ValueError(f"{name} is {getattr(self, name)}: give 2 or more")


_BOUNDS = (
    "payload_bytes",
    "depth",
    "entries",
    "readings",
    "unpacked_bytes",
    "message_ms",
    "facts",
    "fact_bytes",
    "array_items",
    "text_chars",
    "name_chars",
)
