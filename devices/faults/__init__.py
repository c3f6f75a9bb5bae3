"""What goes wrong with devices on purpose. Says how often and how; each of its files makes one sort of it happen.

All of it follows from a device's seed and the fleet's time, each fault by a chance of its own: one more fault changes
nothing in what the others do.
"""

from __future__ import annotations

import msgspec

MOST_SKEW_S = 1e9
"""Thirty years: a clock that is further off would leave the years that can be told."""

SHARES = ("spike", "missing", "duplicate", "conflict", "out_of_order", "garbage", "truncated", "oversize")
"""The faults that are a share of the messages."""


class Spell(msgspec.Struct, frozen=True, kw_only=True):
    """Something that lasts `for_s` and comes again and again by chance, or at set times after the start, or both.

    `every_s` is how long it stays away on average, from the end of one to the beginning of the next (exponentially
    distributed, another time for each device). Spells at set times come to all devices of a group at once; those that
    overlap are one. Raises ValueError for what makes no sense.
    """

    every_s: float | None = None
    at_s: tuple[float, ...] = ()
    for_s: float = 0.0

    def __post_init__(self) -> None:
        if self.every_s is not None and not 0.001 <= self.every_s < 1e9:
            raise ValueError(f"a spell comes every {self.every_s:g} s: give a millisecond or more")
        if not 0 <= self.for_s < 1e9:
            raise ValueError(f"a spell lasts {self.for_s:g} s: give 0 or more")
        if not all(0 <= at_s < 1e9 for at_s in self.at_s):
            raise ValueError("a spell begins 0 s after the start or later")


class Faults(msgspec.Struct, frozen=True, kw_only=True):
    """None of them, unless it says otherwise. A share is that of messages, from 0 to 1.

    What goes wrong with a message stands in its `faults`, under the names of these fields (without `_s` and `_ppm`).
    Raises ValueError for what makes no sense.
    """

    # of measuring
    clock_skew_s: float = 0.0
    """How far a device's clock is off at most, either way; each device has its own."""
    clock_drift_ppm: float = 0.0
    """How much faster or slower it runs at most: 100 are 8.6 seconds a day. Each device has its own."""
    clock_reset: Spell | None = None
    """It starts again in 1970, and is set right after the spell."""
    stuck: Spell | None = None
    """All readings stay what they were at its beginning."""
    spike: float = 0.0
    """Share in which one number is far off, by five to fifty times its size."""
    missing: float = 0.0
    """Share in which one reading of several is not there."""
    schema_change: Spell | None = None
    """The readings have other names (`temperature_v2`), and the first number is a text, as after an update."""
    reboot: Spell | None = None
    """Its connection is cut off without a word, and it measures nothing; then comes a new boot, which counts from 0."""
    # of sending
    duplicate: float = 0.0
    """Share that is sent again as a new message: the same bytes, at once or after up to three others."""
    conflict: float = 0.0
    """Share that is sent again under the same boot and seq with another reading, in dialects that bear an identity."""
    out_of_order: float = 0.0
    """Share that is held back for one to three of those that follow it."""
    garbage: float = 0.0
    """Share in place of which bytes come that mean nothing."""
    truncated: float = 0.0
    """Share that breaks off in the middle."""
    oversize: float = 0.0
    """Share that is blown up to more than a gateway reads: over 1 MiB."""
    # of connecting
    offline: Spell | None = None
    """It leaves with a farewell and measures on: what it has gathered comes late, in a burst."""
    flapping: Spell | None = None
    """For the spell its connections are cut off after a second or two."""
    death: Spell | None = None
    """Its connection is cut off without a word, and it is away for the spell; it measures on."""
    clash: Spell | None = None
    """Another client takes its client id, and leaves after the spell."""

    def __post_init__(self) -> None:
        for name in SHARES:
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name):g}: a share is from 0 to 1")
        if not 0 <= self.clock_skew_s <= MOST_SKEW_S:
            raise ValueError(f"clock_skew_s is {self.clock_skew_s:g}: give 0 to {MOST_SKEW_S:.0f}")
        if not 0 <= self.clock_drift_ppm < 1_000_000:
            raise ValueError(f"clock_drift_ppm is {self.clock_drift_ppm:g}: give 0 or more, below a million")
