"""Exchanges outcomes in a store that a gateway may be writing. Never adds a message, and never holds the file for long.

New outcomes are gathered in memory, in tables of this connection's own, and exchanged a segment or less at a time, each
time in one transaction. A run that is killed leaves exchanged what it has exchanged, and nothing else behind.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, islice
from pathlib import Path
from types import TracebackType
from typing import Self

from storage import engine, lessons, segments
from storage.event import Fact, Lessons, Outcome, Rejection
from storage.lessons import storable_lessons
from storage.replacing import Replaced, Stage, total
from storage.store import StoreOptions, storable_outcome

EXCHANGED_EVENTS = 50_000
"""Events in one transaction: the gateway waits for it, and shows nothing of that in less than two seconds."""

STAGED_MESSAGES = 500


class Rewriter:
    """A store open for exchanging outcomes; one at a time has it. Raises StoreError."""

    def __init__(self, path: Path, options: StoreOptions | None = None) -> None:
        self.path = path
        self.replaced = Replaced()
        self._options = options or StoreOptions()
        self._segment: int | None = None
        self._last_message_id = 0
        self._events = 0
        engine.open_reader(path).close()  # it must be there
        self._lock = engine.Lock(path, "`amber reprocess`", ".reprocess")
        try:
            self._open()
        except BaseException:
            self._lock.release()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Let go; what is staged is not exchanged by that."""
        self._connection.close()
        self._lock.release()

    def stage(self, outcomes: Sequence[tuple[int, Outcome]]) -> None:
        """Add new outcomes, by message id, best in the order of the messages; exchanges when enough are gathered."""
        with engine.translated(self.path):
            firsts = {segment.first_message_id: segment.id for segment in segments.present(self._connection)}

        def segment_of(message_id: int) -> int | None:
            return next((id for first, id in reversed(firsts.items()) if first <= message_id), None)

        for segment, part in groupby(dict(outcomes).items(), lambda outcome: segment_of(outcome[0])):
            while chunk := list(islice(part, STAGED_MESSAGES)):
                if segment is not None:  # else retention has dropped it
                    self._put(segment, [(message_id, storable_outcome(outcome)) for message_id, outcome in chunk])

    def exchange(self) -> Replaced:
        """Put what is staged in place; what that has changed."""
        if self._segment is None:
            return Replaced()
        engine.see_room(self.path, self._options.free_floor_bytes)
        replaced = Replaced()
        with self._snapshot():
            before = segments.find(self._connection, self._segment)
            if before is not None:
                self._stage.narrow(before)
            empty = self._stage.empty
        if not empty:
            with engine.transaction(self._connection, self.path):
                segment = segments.find(self._connection, self._segment)
                if segment is not None:
                    replaced = self._stage.exchange(segment)
        self._clear()
        self.replaced = total((self.replaced, replaced))
        return replaced

    def learn(self, facts: Iterable[Fact]) -> int:
        """Enter facts under keys that have none yet; how many. A gateway knows of them after its next start."""
        with engine.transaction(self._connection, self.path):
            known = {(fact.format, fact.key) for fact in lessons.known_facts(self._connection)}
            new = [fact for fact in facts if fact.value is not None and (fact.format, fact.key) not in known]
            lessons.learn_facts(self._connection, storable_lessons(Lessons(tuple(new))).facts)
        return len(new)

    @contextlib.contextmanager
    def _snapshot(self) -> Iterator[None]:
        """The log as it is now, also where retention drops a segment meanwhile."""
        with engine.translated(self.path):
            self._connection.exec_driver_sql("BEGIN")
            try:
                yield
            finally:
                self._connection.commit()

    def _open(self) -> None:
        self._connection = engine.open_writer(self.path)
        try:
            with engine.translated(self.path):
                engine.see_version(self.path, self._connection.exec_driver_sql("PRAGMA user_version").scalar_one())
                self._connection.exec_driver_sql(f"PRAGMA busy_timeout={engine.PATIENCE_MS}")
                self._stage = Stage(self._connection)
        except BaseException:
            self._connection.close()
            raise

    def _put(self, segment: int, outcomes: Sequence[tuple[int, Outcome]]) -> None:
        ids = [message_id for message_id, _ in outcomes]
        if self._segment not in (None, segment) or min(ids) <= self._last_message_id:
            self.exchange()
        with engine.translated(self.path):
            self._stage.put(outcomes)
        self._segment, self._last_message_id = segment, max(ids)
        self._events += sum(1 if isinstance(outcome, Rejection) else len(outcome) for _, outcome in outcomes)
        if self._events >= EXCHANGED_EVENTS:
            self.exchange()

    def _clear(self) -> None:
        with engine.translated(self.path):
            self._stage.clear()
        self._segment, self._last_message_id, self._events = None, 0, 0
