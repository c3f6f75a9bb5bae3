"""An event as the Python API gives it. Reads its parts out of what is stored when they are asked for, never before."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Literal

import msgspec

from storage.event import Detail, Quality, StoredEvent, Value
from storage.event_json import events_json

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST, _LAST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
_NO_DETAIL = Detail()

_readings = msgspec.json.Decoder(dict[str, Value]).decode
_detail = msgspec.json.Decoder(Detail).decode


class Event:
    """One fact of the log, with the names that it has in JSON; equal to another where all of it is."""

    __slots__ = ("_decoded", "_stored")

    def __init__(self, stored: StoredEvent) -> None:
        self._stored = stored
        self._decoded: dict[str, Value] | None = None

    @property
    def id(self) -> int:
        """The event's position in the log."""
        return self._stored.id

    @property
    def message_id(self) -> int:
        """The message that it was read from."""
        return self._stored.message_id

    @property
    def device(self) -> str:
        return self._stored.device

    @property
    def kind(self) -> str:
        return self._stored.kind

    @property
    def observed_at(self) -> datetime:
        """The device's own time, or `received_at` where it gave none: `time_source` says which. UTC.

        A device's clock may say anything: what lies beyond the years 1 to 9999 is given as their first or last moment,
        and `observed_us` as it is.
        """
        return moment(self._stored.observed_at)

    @property
    def observed_us(self) -> int:
        """The same as microseconds since 1970, UTC."""
        return self._stored.observed_at

    @property
    def received_at(self) -> datetime:
        """When the gateway received the message. UTC."""
        return moment(self._stored.received_at)

    @property
    def received_us(self) -> int:
        """The same as microseconds since 1970, UTC."""
        return self._stored.received_at

    @property
    def time_source(self) -> Literal["device", "gateway"]:
        """Whose clock gave `observed_at`."""
        return "device" if self._stored.from_device else "gateway"

    @property
    def topic(self) -> str:
        return self._stored.topic

    @property
    def format(self) -> str:
        """The format that read the message."""
        return self._stored.format

    @property
    def qos(self) -> int:
        return self._stored.qos

    @property
    def retain(self) -> bool:
        return self._stored.retain

    @property
    def seq(self) -> int | None:
        """The device's own count, where it has one."""
        return self._stored.seq

    @property
    def readings(self) -> dict[str, Value]:
        """Values by reading name; None where the device named the reading and gave no usable value."""
        if self._decoded is None:
            self._decoded = _readings(self._stored.readings)
        return self._decoded

    @property
    def units(self) -> Mapping[str, str]:
        """UCUM codes by reading name, of those that have a unit."""
        return self._stored.units

    @property
    def quality(self) -> Mapping[str, Quality]:
        """What is wrong with a reading, by its name; of those that are not simply good or missing."""
        return self.detail.quality

    @property
    def detail(self) -> Detail:
        """What only some messages say: `via`, `boot`, `source_id`, `historical`, `location` and others."""
        return _NO_DETAIL if self._stored.detail is None else _detail(self._stored.detail)

    def to_json(self) -> str:
        """The event as one line of JSON, as the commands print it."""
        return events_json([self._stored])[0]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Event) and self._stored == other._stored

    def __hash__(self) -> int:
        return hash(self._stored.id)

    def __repr__(self) -> str:
        at = self.observed_at.isoformat().replace("+00:00", "Z")
        return f"<Event {self.id} {self.device} {self.kind} {at} {self.readings}>"


def moment(at: int) -> datetime:
    """The datetime of microseconds, or the nearest there is."""
    try:
        return _EPOCH + timedelta(microseconds=at)
    except OverflowError:
        return _LAST if at > 0 else _FIRST
