"""What goes wrong with devices on purpose. Says how often and how; each of its files makes one sort of it happen."""

from __future__ import annotations

import msgspec


class Spell(msgspec.Struct, frozen=True, kw_only=True):
    """Something that lasts `for_s` and begins every so often on average, or at set times after the start."""

    every_s: float | None = None
    at_s: tuple[float, ...] = ()
    for_s: float = 0.0


class Faults(msgspec.Struct, frozen=True, kw_only=True):
    """None of them, unless it says otherwise. A share is that of messages, from 0 to 1."""

    # of measuring
    clock_skew_s: float = 0.0
    """How far a device's clock is off at most, either way; each device has its own."""
    clock_drift_ppm: float = 0.0
    """How much faster or slower it runs at most."""
    clock_reset: Spell | None = None
    """It starts again in 1970, and is set right after the spell."""
    stuck: Spell | None = None
    """All readings stay what they were."""
    spike: float = 0.0
    """Share in which one number is far off."""
    missing: float = 0.0
    """Share in which one reading is not there."""
    schema_change: Spell | None = None
    """The readings have other names, as after an update."""
    reboot: Spell | None = None
    """A new boot, which counts from 0; it measures nothing meanwhile."""
    # of sending
    duplicate: float = 0.0
    """Share that is sent again as a new message: the same bytes."""
    conflict: float = 0.0
    """Share that is sent again under the same boot and seq with another reading."""
    out_of_order: float = 0.0
    """Share that comes after some of those that follow it."""
    garbage: float = 0.0
    """Share in place of which bytes come that mean nothing."""
    truncated: float = 0.0
    """Share that breaks off in the middle."""
    oversize: float = 0.0
    """Share that is blown up to more than a gateway reads."""
    # of connecting
    offline: Spell | None = None
    """It leaves and measures on: what it has gathered comes late, in a burst."""
    flapping: Spell | None = None
    """For the spell its connections last for a second or two."""
    death: Spell | None = None
    """Its connection is cut off without a word, and it is away for the spell."""
    clash: Spell | None = None
    """Another client takes its client id."""
