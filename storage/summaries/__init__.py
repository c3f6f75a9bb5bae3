"""What is derived from the log and kept in tables of its own: what a summary is, and what it is told of an event."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

import msgspec

from storage import own_units
from storage.event import Quality, Value
from storage.names import BLOCK_IDS, REMEMBERED_NAMES
from storage.snapshot import OpenLog

if TYPE_CHECKING:
    from sqlalchemy import Connection

MINUTE_US = 60_000_000
HOUR_US = 3_600_000_000

FORGOTTEN = "SELECT events, received_to FROM forgotten WHERE device_id = :device_id"
"""How many events of a device retention has taken out, and until when at most they were received and observed."""

NOT_OF_THE_DEVICE = frozenset({"command", "discovery"})
"""Kinds of events whose readings are not how the device is: what it was told to be, and what it might have."""


class Noted(NamedTuple):
    """An event as the summaries see it; `detail` is the JSON as it is stored."""

    id: int
    device_id: int
    kind: str
    kind_id: int
    format_id: int
    observed_at: int
    received_at: int
    readings: Mapping[str, Value]
    detail: str | None


class Said(msgspec.Struct, frozen=True):
    """What the detail of an event says of its readings: the units that are its own, and what is wrong with some."""

    units: Mapping[str, str] = {}
    quality: Mapping[str, Quality] = {}


SAYS_NOTHING = Said()


def said(detail: str | None) -> Said:
    """Raises nothing: what is stored is in order."""
    return SAYS_NOTHING if detail is None else _said(detail)


_said = msgspec.json.Decoder(Said).decode
assert own_units.MARK == '{"units":'  # noqa: S101 - `Said.units` is read from what stands under this name


class Summary(Protocol):
    """Something summed up from all events up to a position.

    Its rows are written in steps of one transaction each. A reader may meet some that go farther than the cursor: rows
    that would count an event twice say up to which position they go.
    """

    name: str
    """Of its cursor."""
    flush_s: float
    """How long what was noted may wait to be written."""

    def note(self, events: Sequence[Noted]) -> None:
        """Take in events, in the order of the log, each once."""

    @property
    def pending(self) -> int:
        """How many rows wait to be written."""

    def write(self, connection: Connection, position: int, rows: int) -> None:
        """Write about so many of the rows that wait, inside the caller's transaction.

        `position` is the last event noted. After a crash a row that was written for this position comes again, and is
        to stay as it is.
        """

    def correct(self, connection: Connection, device_id: int, hours: Sequence[int], position: int) -> None:
        """Make anew what is kept of these hours of a device, from the events up to `position`, as they are now.

        Runs inside the caller's transaction; nothing is pending.
        """


class SeriesIds(dict[int, dict[str, int]]):
    """The ids of each device's series by reading name."""

    def __init__(self, log: OpenLog) -> None:
        super().__init__()
        self._log = log

    def __missing__(self, device_id: int) -> dict[str, int]:
        if len(self) >= REMEMBERED_NAMES:
            self.clear()
        first = device_id - device_id % BLOCK_IDS
        found: dict[int, dict[str, int]] = {id: {} for id in range(first, first + BLOCK_IDS)}
        for owner, reading, id in self._log.rows(_SERIES, {"first": first}):
            found[owner][reading] = id
        for owner, series in found.items():
            self.setdefault(owner, series)
        return self[device_id]

    def of(self, device_id: int, reading: str) -> int:
        """The id of a series that an event in the log has."""
        known = self[device_id].get(reading)
        if known is None:  # newer than what was looked up
            self.pop(device_id)
            known = self[device_id][reading]
        return known


_SERIES = f"SELECT device_id, reading, id FROM series WHERE device_id BETWEEN :first AND :first + {BLOCK_IDS - 1}"
