"""The log as one read-only connection sees it: its segments and how far it goes. Never knows what is asked for."""

from __future__ import annotations

import contextlib
import os
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from storage.conditions import Row
from storage.engine import SCHEMA_VERSION, open_reader, translated
from storage.errors import StoreError, StoreGone
from storage.event import EVENTS_PER_MESSAGE
from storage.segment import Segment

SCANNED_EVENTS = 32_768
"""Events that one read looks at, at most, where filters let few through: 10 ms."""


class Stretch(msgspec.Struct, frozen=True):
    """Events of one segment, above `low` and up to `high`: either all in its index or all behind it."""

    segment: Segment
    low: int
    high: int
    indexed: bool

    @property
    def events(self) -> int:
        """About how many events there are in it, if it is indexed: as if the segment's were spread evenly."""
        return int(self.events_per_message * (self.high - self.low) / EVENTS_PER_MESSAGE)

    @property
    def events_per_message(self) -> float:
        """Of the indexed messages of the segment. Behind the index there are never many events."""
        segment = self.segment
        places = segment.indexed_to + 1 - segment.first_event_id
        return segment.events * EVENTS_PER_MESSAGE / places if places else 0.0


class OpenLog:
    """The log as one read-only connection sees it: which segments there are, and how far it goes."""

    def __init__(self, path: Path, scanned_events: int = SCANNED_EVENTS) -> None:
        self.path = path
        self.scanned_events = scanned_events
        self.connection = open_reader(path)
        self.segments: list[Segment] = []
        self.position = 0
        self.version = -1
        self._file = path.stat()
        try:
            self._check_schema()
        except BaseException:
            self.connection.close()
            raise

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[None]:
        """One short read: all that is asked within sees the same log."""
        with translated(self.path):
            self.connection.execute("BEGIN")
            try:
                version = self._data_version()
                if version != self.version:
                    self._refresh()
                    self.version = version
                yield
            finally:
                if self.connection.in_transaction:  # some errors end it
                    self.connection.execute("ROLLBACK")

    def rows(self, sql: str, parameters: Mapping[str, object] | None = None) -> list[Row]:
        """All rows of one short question."""
        with translated(self.path):
            rows: list[Row] = self.connection.execute(sql, parameters or {}).fetchall()
            return rows

    def changed(self) -> bool:
        """Whether something was committed since the last snapshot. Raises StoreGone where the file is another."""
        with translated(self.path):
            if self._data_version() != self.version:
                return True
        try:
            same = os.path.samestat(self.path.stat(), self._file)
        except FileNotFoundError:
            same = False
        if not same:
            raise StoreGone(f"{self.path} was deleted or replaced while it was read: start again to read the new one")
        return False

    def stretch(self, low: int, high: int, *, newest_first: bool) -> Stretch | None:
        """The first stretch, in the direction asked for, of the events above `low` and up to `high`."""
        segments = self.segments
        high = min(high, self.position)
        if not segments or low >= high:
            return None
        if newest_first:
            number = bisect_left(segments, high + 1, key=_first_event_id) - 1
        else:
            number = max(0, bisect_right(segments, low + 1, key=_first_event_id) - 1)
        if number < 0:
            return None
        segment = segments[number]
        end = segments[number + 1].first_event_id - 1 if number + 1 < len(segments) else self.position
        low, high = max(low, segment.first_event_id - 1), min(high, end)
        if low >= high:
            return None
        behind = high > segment.indexed_to if newest_first else low >= segment.indexed_to
        if behind:
            return Stretch(segment, max(low, segment.indexed_to), high, indexed=False)
        return Stretch(segment, low, min(high, segment.indexed_to), indexed=True)

    def close(self) -> None:
        self.connection.close()

    def _check_schema(self) -> None:
        with translated(self.path):
            version = self.connection.execute("PRAGMA user_version").fetchone()[0]
        if version == 0:
            raise StoreError(f"{self.path} is empty: the gateway has not stored anything in it yet")
        if version < SCHEMA_VERSION:
            raise StoreError(f"{self.path} was written by an older Amber: `amber run` brings it up to date")

    def _data_version(self) -> int:
        version: int = self.connection.execute("PRAGMA data_version").fetchone()[0]
        return version

    def _refresh(self) -> None:
        rows = self.connection.execute(f"SELECT {_COLUMNS} FROM segments ORDER BY id")
        self.segments = [Segment(*row) for row in rows]
        self.position = 0
        for segment in reversed(self.segments):
            last: int | None = self.connection.execute(f"SELECT max(id) FROM events_{segment.id}").fetchone()[0]
            if last is not None:
                self.position = last
                break


_COLUMNS = ", ".join(Segment.__struct_fields__)


def _first_event_id(segment: Segment) -> int:
    return segment.first_event_id
