"""The one thread that writes. Takes jobs in order, waits out what passes, and never says done before the COMMIT."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import TypeVar

from storage import engine
from storage.errors import StoreBusy, StoreDamaged, StoreError, StoreFull
from storage.event import Entry, Lessons
from storage.lessons import storable_lessons
from storage.store import NOTHING_LEARNED, Committed, Store, StoreOptions, storable

logger = logging.getLogger("amber.store")

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.05, 2.0

T = TypeVar("T")
Job = Callable[[Store], T]


class Writer:
    """Runs each job with the open store, one after the other, on a thread of its own.

    What passes (a full disk, a lock, a failing or vanished file) is waited out; `trouble` says for what. What does not
    pass is the job's exception.
    """

    def __init__(self, path: Path, options: StoreOptions) -> None:
        self.path = path
        self.trouble: StoreError | None = None
        self._options = options
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._lock = engine.Lock(path)
        try:
            self._store = Store(path, options)
        except BaseException:
            self._lock.undo()
            raise
        self._thread = threading.Thread(target=self._work, name="amber-writer", daemon=True)
        self._thread.start()

    def submit(self, job: Job[T]) -> Future[T]:
        """Queue a job; its answer or its exception arrives in the future."""
        future: Future[T] = Future()

        def run() -> None:
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(self._persist(job))
                except BaseException as error:  # noqa: BLE001 - it is the answer, and rises where it is awaited
                    future.set_exception(error)

        self._jobs.put(run)
        return future

    def append(
        self, entries: Sequence[Entry], session_id: int, lessons: Lessons = NOTHING_LEARNED
    ) -> Future[Committed]:
        """Queue an append. It is done when it is committed, however long the disk makes it wait."""
        return self.submit(_Append(entries, session_id, lessons))

    def stop_waiting(self) -> None:
        """Let the jobs that wait for something to pass fail, now and from now on."""
        self._stopping.set()

    def stop(self) -> None:
        """Finish the jobs that can be finished now, close the store, let the lock go."""
        self.stop_waiting()
        self._jobs.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (run := self._jobs.get()) is not None:
            run()
        self._store.close()
        self._lock.release()

    def _persist(self, job: Job[T]) -> T:
        pause, reopen = FIRST_PAUSE_S, False
        while True:
            try:
                if reopen:
                    self._reopen()
                    reopen = False
                answer = job(self._store)
            except StoreDamaged:
                raise
            except StoreError as error:
                reopen = reopen or not isinstance(error, (StoreFull, StoreBusy))
                self._note(error)
                if self._stopping.wait(pause):
                    raise
                pause = min(2 * pause, LONGEST_PAUSE_S)
            else:
                self._note(None)
                return answer

    def _reopen(self) -> None:
        """Start over from what the disk says, whatever we believed to have written."""
        self._store.abandon()
        self._store = Store(self.path, self._options)
        self._store.rewrite_wal()

    def _note(self, trouble: StoreError | None) -> None:
        if str(trouble) != str(self.trouble):
            if trouble:
                logger.error("%s; nothing is acknowledged until then", trouble)
            else:
                logger.warning("the store is well again, storing goes on")
        self.trouble = trouble


class _Append:
    """One append over all its attempts: it knows which of them the disk may have kept."""

    def __init__(self, entries: Sequence[Entry], session_id: int, lessons: Lessons) -> None:
        self._entries = entries
        self._session_id = session_id
        self._lessons = lessons
        self._unsure: tuple[object, int | None] | None = None
        self._before = 0

    def __call__(self, store: Store) -> Committed:
        # After an error from the disk a COMMIT may have happened all the same. Only we write messages, so the ids tell;
        # without messages they do not, but what was learned may be learned twice, and a copy counted twice.
        if self._unsure == (store.file, store.message_id):
            return Committed(store.message_id - self._before, 0, 0, store.event_id, 0.0)
        self._unsure, self._before = None, store.message_id
        try:
            return self._append(store)
        except StoreError:
            if store.intended not in (None, self._before):
                self._unsure = store.file, store.intended
            raise

    def _append(self, store: Store) -> Committed:
        try:
            return store.append(self._entries, self._session_id, self._lessons)
        except (OverflowError, UnicodeError, TypeError, ValueError):
            self._entries = [storable(entry) for entry in self._entries]
            self._lessons = storable_lessons(self._lessons)
            return store.append(self._entries, self._session_id, self._lessons)
