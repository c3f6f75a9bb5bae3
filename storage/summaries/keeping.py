"""The keeper: follows the log and keeps what is summed up from it. Never stands on the way to an acknowledgement.

It runs in a process of its own beside the gateway (`gateway/keeper.py`): what it reckons would else take turns with
the ingest for the interpreter.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from sqlalchemy import Connection

from storage import engine
from storage.errors import StoreFull
from storage.filters import Filters
from storage.snapshot import OpenLog
from storage.summaries import Noted, Summary
from storage.summaries.past import COLUMNS, NotedRows
from storage.walk import Walk

logger = logging.getLogger("amber.keeper")

PAGE_EVENTS = 1_000
POLL_S = 0.1

WRITTEN_ROWS = 2_000
"""Rows in one transaction: some milliseconds for which the gateway waits."""

PENDING_ROWS = 250_000
"""So many rows of one summary wait in memory at most, some 100 MB: twice what a hundred thousand series come to."""

WRITING_SHARE = 5
"""Of the time no more than one part in so many goes into writing a summary, though it waits longer."""

CORRECTED_HOURS = 20
"""Hours of one device in one transaction of corrections, at most."""

CORRECTION_S = 0.05
"""A transaction of corrections that took longer is followed by one of fewer hours."""

CORRECTING_S = 0.5
"""Corrections go on for so long, if there are so many; then so long goes into what is new."""


class Chore(Protocol):
    """Something else to be done to the store now and then."""

    def step(self, connection: Connection, log: OpenLog) -> float:
        """Do a part of it, in transactions of its own, each a short one; for how many seconds to leave it alone now."""


MakeSummary = Callable[[OpenLog], Summary]


class Keeper:
    """Keeps the summaries of a store up to date; one process at a time does. Raises StoreError."""

    def __init__(
        self,
        path: Path,
        summaries: Sequence[MakeSummary],
        chores: Sequence[Chore] = (),
        *,
        free_floor_bytes: int = 0,
    ) -> None:
        self.path = path
        engine.open_reader(path).close()  # no lock beside a store that is not there
        with contextlib.ExitStack() as opened:
            opened.callback(engine.Lock(path, "keeper", ".keeper").release)
            self._connection = engine.open_beside(path)
            opened.callback(self._connection.close)  # after the log: the last that can write tidies up
            self._log = OpenLog(path)
            opened.callback(self._log.close)
            self._kept = [Kept(make(self._log), self._connection, path) for make in summaries]
            self._opened = opened.pop_all()
        self._chores = [(chore, 0.0) for chore in chores]
        self._free_floor_bytes = free_floor_bytes
        self._has_room = True
        self._corrected_hours = CORRECTED_HOURS
        self._correct_at = 0.0
        self._considerate = True
        self._walk: Walk | None = None
        self._noted = NotedRows(self._log)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._opened.close()

    def run(self, stop: threading.Event) -> None:
        """Keep on until `stop` is set; what was noted by then is written."""
        while not stop.is_set():
            if not self.step():
                stop.wait(min([POLL_S, *(at - time.monotonic() for _, at in self._chores)]))
        self.flush()

    def catch_up(self) -> None:
        """Bring everything up to the end of the log as it is now, corrections too; at full speed."""
        self._considerate = False
        while self.step():
            pass
        self.flush()

    def step(self) -> bool:
        """Note a page, write what is due, correct what was exchanged, do a chore; whether there is more to do now.

        Without room on the disk only the chores are done, which may make some.
        """
        if not self._see_room():
            self._do_chores()
            return False
        if self._walk is None:
            self._walk = self._resume()
        behind = self._note()
        for kept in self._kept:
            while kept.due:
                self._pause(kept.write())
        corrects = not behind or time.monotonic() >= self._correct_at
        waits = self._correct() if corrects else self._has_corrections()
        self._do_chores()
        return behind or waits

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
                walk = Walk(self._log, COLUMNS, Filters(after=kept.position, until_position=kept.flushing_to))
                behind = True
                while behind:
                    kept.note(self._noted(walk.step(PAGE_EVENTS)))
                    behind = walk.behind  # it may never be done: the last events may have been exchanged for none
                kept.noted_to = kept.flushing_to
        self.flush()
        return Walk(self._log, COLUMNS, Filters(after=min((kept.noted_to for kept in self._kept), default=0)))

    def _note(self) -> bool:
        walk = self._walk
        assert walk is not None  # noqa: S101 - `step` has made it
        events = self._noted(walk.step(PAGE_EVENTS))
        for kept in self._kept:
            kept.note(events)
            kept.noted_to = max(kept.noted_to, walk.low)
        return walk.behind or self._log.changed()

    def _correct(self) -> bool:
        """Make anew what exchanged events had a part in; whether more is to be done.

        Everything noted is written before: it may be of the old ones.
        """
        started = time.monotonic()
        if self._has_corrections():
            self.flush()
            while self._has_corrections() and time.monotonic() < started + CORRECTING_S:
                self._correct_device()
        ended = time.monotonic()
        self._correct_at = ended + (ended - started)
        return self._has_corrections()

    def _has_corrections(self) -> bool:
        return bool(self._log.rows("SELECT EXISTS (SELECT 1 FROM corrections)")[0][0])

    def _correct_device(self) -> None:
        """Correct some hours of one device."""
        with engine.transaction(self._connection, self.path):
            started = time.monotonic()
            found = self._connection.exec_driver_sql(_WAITING, (self._corrected_hours,))
            waiting = [(device_id, hour) for device_id, hour in found]
            hours = [hour for _, hour in waiting]
            for kept in self._kept:
                kept.summary.correct(self._connection, waiting[0][0], hours, kept.position)
            self._connection.exec_driver_sql("DELETE FROM corrections WHERE device_id = ? AND hour = ?", waiting)
        took_s = time.monotonic() - started
        fewer, more = max(1, len(waiting) // 2), min(self._corrected_hours + 1, CORRECTED_HOURS)
        self._corrected_hours = fewer if took_s > CORRECTION_S else more
        self._pause(took_s)

    def _see_room(self) -> bool:
        """Whether there is room for more on the disk. The gateway stops at more, and tells."""
        try:
            engine.see_room(self.path, self._free_floor_bytes)
        except StoreFull as error:
            if self._has_room:
                logger.warning("%s; nothing is summed up until then", error)
            self._has_room = False
        else:
            self._has_room = True
        return self._has_room

    def _pause(self, took_s: float) -> None:
        """Between two transactions, for as long as the first took: the gateway wants to write as well."""
        if self._considerate:
            time.sleep(took_s)

    def _do_chores(self) -> None:
        for number, (chore, at) in enumerate(self._chores):
            if (started := time.monotonic()) >= at:
                pause = chore.step(self._connection, self._log)
                ended = time.monotonic()
                self._chores[number] = chore, ended + max(pause, ended - started)  # half of the time is for the rest


class Kept:
    """A summary, how far it has been told, and how far what is written of it goes."""

    def __init__(self, summary: Summary, connection: Connection, path: Path) -> None:
        self.summary = summary
        self.noted_to = self.position = 0
        self.flushing_to: int | None = None
        self._connection = connection
        self._path = path
        self._written_at = time.monotonic()
        self._writing_s = 0.0

    @property
    def waits(self) -> bool:
        """Whether something noted is not written yet."""
        return self.noted_to > self.position

    @property
    def due(self) -> bool:
        if not self.waits:
            return False
        waited_s = time.monotonic() - self._written_at
        wanted_s = max(self.summary.flush_s, self._writing_s * (WRITING_SHARE - 1))
        return self.flushing_to is not None or waited_s >= wanted_s or self.summary.pending >= PENDING_ROWS

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
        """Write some of what waits; for how many seconds that held up the gateway."""
        if self.flushing_to is None:
            self._writing_s = 0.0
        with engine.transaction(self._connection, self._path):
            started = time.monotonic()
            self.summary.write(self._connection, self.noted_to, WRITTEN_ROWS)
            done = not self.summary.pending
            self._connection.exec_driver_sql(_MOVE if done else _MOVING, (self.noted_to, _now(), self.summary.name))
        self.position, self.flushing_to = (self.noted_to, None) if done else (self.position, self.noted_to)
        self._written_at = time.monotonic()
        took_s = self._written_at - started
        self._writing_s += took_s
        return took_s


def _now() -> int:
    return time.time_ns() // 1000


_ENTER = (
    "INSERT INTO cursors (name, kind, position, moved_at, created_at) VALUES (?, 'summary', 0, ?, ?)"
    " ON CONFLICT DO NOTHING"
)
_LOOK = "SELECT position, flushing_to FROM cursors WHERE name = ?"
_MOVE = "UPDATE cursors SET position = ?, flushing_to = NULL, moved_at = ? WHERE name = ?"
_MOVING = "UPDATE cursors SET flushing_to = ?, moved_at = ? WHERE name = ?"
_WAITING = (
    "SELECT device_id, hour FROM corrections WHERE device_id = (SELECT min(device_id) FROM corrections)"
    " ORDER BY hour LIMIT ?"
)
