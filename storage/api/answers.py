"""What a log says of its series and devices at once, for Python programs: lists of plain facts, as frames too."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Generic, TypeVar, overload

import msgspec

from storage.api.event import moment
from storage.event import Value
from storage.gaps import Gaps as StoredGaps
from storage.summaries.buckets import Bucket as StoredBucket
from storage.summaries.latest import LatestValue, StoredSeries
from storage.summaries.presence import StoredDevice

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl
    import pyarrow as pa

T = TypeVar("T")


class Latest(msgspec.Struct, frozen=True):
    """The newest value of a series, and the event that it is from.

    `observed_at` is never after `received_at`. `quality` says what is wrong with the value, if anything: bad,
    uncertain, stale, or missing where it is None and nobody called it bad.
    """

    device: str
    reading: str
    value: Value
    unit: str | None
    quality: str | None
    observed_at: datetime
    received_at: datetime
    event_id: int


class Series(msgspec.Struct, frozen=True):
    """A reading of a device, its unit and where that is from, and when its newest value was observed, if any was."""

    device: str
    reading: str
    unit: str | None
    unit_source: str | None
    last_at: datetime | None


class Device(msgspec.Struct, frozen=True):
    """A device with its newest event by position, and the numbers of its events and of its series.

    `online` is None where nothing it sent tells; else it has been so since `online_since`.
    """

    device: str
    online: bool | None
    online_since: datetime | None
    events: int
    readings: int
    format: str
    first_received_at: datetime
    last_position: int
    last_kind: str
    last_observed_at: datetime
    last_received_at: datetime


class Bucket(msgspec.Struct, frozen=True):
    """The numbers of a series observed in one step of time, which begins at `start`; `last` was observed last."""

    start: datetime
    count: int
    min: float
    max: float
    mean: float
    sum: float
    last: float


class Gaps(msgspec.Struct, frozen=True):
    """One start of a device (`boot`): which numbers of events came, from `first` to `last`, and which did not.

    What came before or after cannot be known. `duplicates` came again and are stored once; `conflicts` have the number
    of another event. Where the counter began anew, `restarts` times, the numbers are of what came since. `boot` and the
    numbers are None where events have an id instead.
    """

    device: str
    boot: str | None
    first: int | None
    last: int | None
    events: int
    missing: int
    missing_ranges: list[list[int]]
    duplicates: int
    conflicts: int
    restarts: int
    last_observed_at: datetime | None


class Answers(Sequence[T], Generic[T]):
    """A list of facts of one sort, as a frame too."""

    def __init__(self, facts: Sequence[T], sort: type[T]) -> None:
        self._facts = facts
        self._sort = sort

    def __len__(self) -> int:
        return len(self._facts)

    @overload
    def __getitem__(self, place: int) -> T: ...
    @overload
    def __getitem__(self, place: slice) -> Answers[T]: ...
    def __getitem__(self, place: int | slice) -> T | Answers[T]:
        return Answers(self._facts[place], self._sort) if isinstance(place, slice) else self._facts[place]

    def __repr__(self) -> str:
        return repr(self._facts)

    def to_arrow(self) -> pa.Table:
        """A table of Arrow, a row for each."""
        from storage.api.frames import answers_table

        return answers_table(self._facts, self._sort)

    def to_pandas(self) -> pd.DataFrame:
        """The same table as a DataFrame of pandas. Raises ImportError where that is not installed."""
        from storage.api.frames import to_pandas

        return to_pandas(self.to_arrow())

    def to_polars(self) -> pl.DataFrame:
        """The same table as a DataFrame of Polars. Raises ImportError where that is not installed."""
        from storage.api.frames import to_polars

        return to_polars(self.to_arrow())


def latest_of(stored: LatestValue) -> Latest:
    return Latest(
        stored.device,
        stored.reading,
        msgspec.json.decode(stored.value),
        stored.unit,
        stored.quality,
        moment(stored.at),
        moment(stored.received_at),
        stored.event_id,
    )


def series_of(stored: StoredSeries) -> Series:
    last_at = None if stored.last_at is None else moment(stored.last_at)
    return Series(stored.device, stored.reading, stored.unit, stored.unit_source, last_at)


def device_of(stored: StoredDevice) -> Device:
    return Device(
        stored.device,
        stored.online,
        None if stored.online_since is None else moment(stored.online_since),
        stored.events,
        stored.readings,
        stored.format,
        moment(stored.first_received_at),
        stored.last_position,
        stored.last_kind,
        moment(stored.last_observed_at),
        moment(stored.last_received_at),
    )


def gaps_of(stored: StoredGaps) -> Gaps:
    values = msgspec.structs.asdict(stored)
    at = stored.last_observed_at
    return Gaps(
        **{
            **values,
            "missing_ranges": [[first, last] for first, last in stored.missing_ranges],
            "last_observed_at": None if at is None else moment(at),
        }
    )


def bucket_of(stored: StoredBucket) -> Bucket:
    return Bucket(moment(stored.start), stored.count, stored.min, stored.max, stored.mean, stored.sum, stored.last)
