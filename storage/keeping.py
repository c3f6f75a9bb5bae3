"""The keeper: follows the log and keeps what is summed up from it. Never stands on the way to an acknowledgement.

It runs in a process of its own beside the gateway (`gateway/keeper.py`): what it reckons would else take turns with
the ingest for the interpreter.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import msgspec
from sqlalchemy import Connection

from storage import engine
from storage.conditions import Row
from storage.event import Value
from storage.filters import Filters
from storage.names import Names
from storage.snapshot import OpenLog
from storage.summaries import Noted, Summary
from storage.walk import Walk

logger = logging.getLogger("amber.keeper")

PAGE_EVENTS = 1_000
POLL_S = 0.1

WRITTEN_ROWS = 2_000
"""Rows in one transaction: some milliseconds for which the gateway waits."""

PENDING_ROWS = 100_000
"""So many rows wait in memory at most: some 50 MB."""

CORRECTED_HOURS = 20
"""Hours of one device in one transaction of corrections."""


class Chore(Protocol):
    """Something else to be done to the store now and then."""

    def step(self, connection: Connection, log: OpenLog) -> float:
        """Do a part of it, in transactions of its own, each a short one; for how many seconds to leave it alone now."""


MakeSummary = Callable[[OpenLog], Summary]


class Keeper:
    """Keeps the summaries of a store up to date; one process at a time does. Raises StoreError."""

    def __init__(self, path: Path, summaries: Sequence[MakeSummary], chores: Sequence[Chore] = ()) -> None:
        self.path = path
        engine.open_reader(path).close()  # no lock beside a store that is not there
        self._lock = engine.Lock(path, "keeper", ".keeper")
        try:
            self._connection = engine.open_beside(path)
            self._log = OpenLog(path)
        except BaseException:
            self._lock.release()
            raise
        self._kept = [Kept(make(self._log), self._connection, path) for make in summaries]
        self._chores = [(chore, 0.0) for chore in chores]
        self._considerate = True
        self._walk: Walk | None = None
        self._words = Names(self._log, "words", "word", str)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._connection.close()
        self._log.close()
        self._lock.release()

    def run(self, stop: threading.Event) -> None:
        """Keep on until `stop` is set; what was noted by then is written."""
        while not stop.is_set():
            if not self.step():
                stop.wait(POLL_S)
        self.flush()

    def catch_up(self) -> None:
        """Bring everything up to the end of the log as it is now, corrections too; at full speed."""
        self._considerate = False
        while self.step():
            pass
        self.flush()

    def step(self) -> bool:
        """Note a page, write what is due, correct what was exchanged, do a chore; whether there is more to do now."""
        if self._walk is None:
            self._walk = self._resume()
        behind = self._note()
        for kept in self._kept:
            while kept.due:
                self._pause(kept.write())
        corrected = self._correct()
        self._do_chores()
        return behind or corrected

    def flush(self) -> None:
        """Write all that waits."""
        for kept in self._kept:
            while kept.waits:
                self._pause(kept.write())

    def _resume(self) -> Walk:
        """Finish what a crash has left half written, and begin where the hindmost summary stands."""
        for kept in self._kept:
            kept.look()
            if kept.flushing_to is not None:
                walk = Walk(self._log, _COLUMNS, Filters(after=kept.position, until_position=kept.flushing_to))
                kept.note(self._noted(walk.step(PAGE_EVENTS)))
                while walk.behind:  # it may never be done: the last events may have been exchanged for none
                    kept.note(self._noted(walk.step(PAGE_EVENTS)))
                kept.noted_to = kept.flushing_to
                while kept.waits:
                    self._pause(kept.write())
        return Walk(self._log, _COLUMNS, Filters(after=min((kept.noted_to for kept in self._kept), default=0)))

    def _note(self) -> bool:
        walk = self._walk
        assert walk is not None  # noqa: S101 - `step` has made it
        events = self._noted(walk.step(PAGE_EVENTS))
        for kept in self._kept:
            kept.note(events)
            kept.noted_to = max(kept.noted_to, walk.low)
        return walk.behind or self._log.changed()

    def _noted(self, rows: Sequence[Row]) -> list[Noted]:
        words = self._words
        return [
            Noted(id, device, words[kind], kind, format, observed, received, _decode(readings), detail)
            for id, device, kind, format, observed, received, readings, detail in rows
        ]

    def _correct(self) -> bool:
        """Make anew what exchanged events of one device had a part in; whether there were any.

        Everything noted is written before: it may be of the old ones.
        """
        if not self._log.rows("SELECT EXISTS (SELECT 1 FROM corrections)")[0][0]:
            return False
        self.flush()
        started = time.monotonic()
        with engine.transaction(self._connection, self.path):
            waiting = [(device_id, hour) for device_id, hour in self._connection.exec_driver_sql(_WAITING)]
            hours = [hour for _, hour in waiting]
            for kept in self._kept:
                kept.summary.correct(self._connection, waiting[0][0], hours, kept.position)
            self._connection.exec_driver_sql("DELETE FROM corrections WHERE device_id = ? AND hour = ?", waiting)
        self._pause(time.monotonic() - started)
        return True

    def _pause(self, took_s: float) -> None:
        """Between two transactions, for as long as the first took: the gateway wants to write as well."""
        if self._considerate:
            time.sleep(took_s)

    def _do_chores(self) -> None:
        for number, (chore, at) in enumerate(self._chores):
            if time.monotonic() >= at:
                pause = chore.step(self._connection, self._log)
                self._chores[number] = chore, time.monotonic() + pause


class Kept:
    """A summary, how far it has been told, and how far what is written of it goes."""

    def __init__(self, summary: Summary, connection: Connection, path: Path) -> None:
        self.summary = summary
        self.noted_to = self.position = 0
        self.flushing_to: int | None = None
        self._connection = connection
        self._path = path
        self._written_at = time.monotonic()

    @property
    def waits(self) -> bool:
        """Whether something noted is not written yet."""
        return self.noted_to > self.position

    @property
    def due(self) -> bool:
        if not self.waits:
            return False
        waited_s = time.monotonic() - self._written_at
        return self.flushing_to is not None or waited_s >= self.summary.flush_s or self.summary.pending >= PENDING_ROWS

    def look(self) -> None:
        """Take from the store how far it goes."""
        with engine.transaction(self._connection, self._path):
            self._connection.exec_driver_sql(_ENTER, (self.summary.name, now := _now(), now))
            row = self._connection.exec_driver_sql(_LOOK, (self.summary.name,)).one()
        self.position, self.flushing_to = row
        self.noted_to = self.position

    def note(self, events: Sequence[Noted]) -> None:
        """Tell it of the events that it does not know yet."""
        if events and events[0].id <= self.noted_to:
            events = [event for event in events if event.id > self.noted_to]
        self.summary.note(events)

    def write(self) -> float:
        """Write some of what waits; how many seconds that took."""
        started = time.monotonic()
        with engine.transaction(self._connection, self._path):
            self.summary.write(self._connection, self.noted_to, WRITTEN_ROWS)
            done = not self.summary.pending
            self._connection.exec_driver_sql(_MOVE if done else _MOVING, (self.noted_to, _now(), self.summary.name))
        self.position, self.flushing_to = (self.noted_to, None) if done else (self.position, self.noted_to)
        self._written_at = time.monotonic()
        return self._written_at - started


def _now() -> int:
    return time.time_ns() // 1000


_COLUMNS = "e.id, e.device_id, e.kind_id, e.format_id, e.observed_at, m.received_at, e.readings, e.detail"
_ENTER = (
    "INSERT INTO cursors (name, kind, position, moved_at, created_at) VALUES (?, 'summary', 0, ?, ?)"
    " ON CONFLICT DO NOTHING"
)
_LOOK = "SELECT position, flushing_to FROM cursors WHERE name = ?"
_MOVE = "UPDATE cursors SET position = ?, flushing_to = NULL, moved_at = ? WHERE name = ?"
_MOVING = "UPDATE cursors SET flushing_to = ?, moved_at = ? WHERE name = ?"
_WAITING = (
    "SELECT device_id, hour FROM corrections WHERE device_id = (SELECT min(device_id) FROM corrections)"
    f" ORDER BY hour LIMIT {CORRECTED_HOURS}"
)

_decode = msgspec.json.Decoder(dict[str, Value]).decode
