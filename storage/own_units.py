"""The units that an event states against those of its series: they stand first in its detail, under `units`."""

from __future__ import annotations

import msgspec

MARK = '{"units":'
"""How the detail of such an event begins; no other does."""


def put(detail: str | None, own: str) -> str:
    """A detail, as JSON, with the units of its event in it, as JSON."""
    return f"{MARK}{own}}}" if detail is None else f"{MARK}{own},{detail[1:]}"


def taken(detail: str) -> tuple[dict[str, str], str | None]:
    """The units out of a detail that begins with the mark, and what is left of it."""
    members = msgspec.json.decode(detail, type=dict[str, msgspec.Raw])
    own = msgspec.json.decode(members.pop("units"), type=dict[str, str])
    return own, msgspec.json.encode(members).decode() if members else None


def stated(units: dict[str, tuple[str, str]], series: dict[str, tuple[str | None, str | None]]) -> str | None:
    """What an event has to say for itself, as JSON: its units that differ from what as good a source gave its series.

    Both are unit and source by reading name. A better source has changed the series, a worse one stands back.
    """
    own = {
        reading: unit
        for reading, (unit, source) in units.items()
        if reading in series and series[reading][0] not in (None, unit) and series[reading][1] == source != "rule"
    }
    return msgspec.json.encode(own).decode() if own else None
