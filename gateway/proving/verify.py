"""Holds what devices sent, and were promised, against what the store holds. Changes neither.

Messages are matched by topic and payload, as they were sent and as they were stored: it is all the same in which
dialect they speak, and whether anyone can read them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import closing
from itertools import chain
from pathlib import Path

from devices import ledger
from gateway.proving import holdings, reckoning
from gateway.proving.books import Books
from gateway.proving.holdings import Span
from gateway.proving.showing import print_verdict
from gateway.proving.verdict import By, Promise, Verdict
from storage.errors import AmberError
from storage.history import Reader
from storage.outcomes import last_message_id
from storage.snapshot import OpenLog

__all__ = ["By", "Promise", "Verdict", "print_verdict", "verify"]

POLL_S = 0.1


def verify(
    ledgers: Sequence[Path], store: Path, *, promise: Promise = "both", by: By = "qos", wait_s: float = 0.0
) -> Verdict:
    """Hold `ledgers` (files, folders, patterns) against `store`, which a gateway may be writing to.

    With `wait_s` it waits so long for what is still missing of the `promise`. Raises DeviceError and AmberError.
    """
    paths = ledger.files(ledgers)
    if absent := next((path for path in paths if not os.path.exists(path)), None):  # noqa: PTH110 - never raises
        raise AmberError(f"there is no file {absent}: name a ledger, or a folder of them")
    with Books() as books, closing(OpenLog(store)) as log, Reader(store) as reader:
        books.enter(chain.from_iterable(map(ledger.pages, paths)))
        books.close_ledgers()
        span = reckoning.span(books)
        reading = Reading(books, log, reader, span, time.monotonic() + wait_s)
        beyond = False
        while True:
            reading.go_on(beyond=beyond)
            whole_since = holdings.whole_since(log)
            tally = reckoning.judge_all(books, whole_since, by)
            missing = tally.missing(promise)
            if not missing or (beyond and not reading.wait()):
                break
            beyond = True
        reading.finish()
        reckoning.count_reordered(books, tally)
        return reckoning.verdict(books, reader, tally, paths=paths, span=span, whole_since=whole_since)


class Reading:
    """Where the reading of a store has come to: what it gives goes into the books."""

    def __init__(self, books: Books, log: OpenLog, reader: Reader, span: Span, patience: float) -> None:
        self._books, self._log, self._reader, self._span = books, log, reader, span
        self._topics = tuple(books.topics.texts)
        self._patience = patience
        self._near = self._beyond = 0

    def go_on(self, *, beyond: bool) -> None:
        """Up to what is stored now; with `beyond`, also what came long after the ledger's time."""
        end = self._end()
        if self._topics:  # no topics would mean all topics
            for page in holdings.on_topics(self._log, self._span, self._topics, self._near, end):
                self._books.keep(page)
            self._near = end
        if self._topics and beyond:
            for page in holdings.afterwards(self._log, self._span, self._topics, self._beyond, end):
                self._books.keep(kept for kept in page if self._books.knows(kept.digest))
            self._beyond = end
        self._books.close_store()

    def wait(self) -> bool:
        """For the store to grow. Whether it did before the time was over."""
        while not self._log.changed():
            left_s = self._patience - time.monotonic()
            if left_s <= 0:
                return False
            time.sleep(min(POLL_S, left_s))
        return time.monotonic() < self._patience

    def finish(self) -> None:
        """Take in the rejections on other topics too."""
        if self._topics:
            for page in holdings.rejected(self._reader, self._span, self._end()):
                self._books.keep(page)

    def _end(self) -> int:
        with self._log.snapshot():
            return last_message_id(self._log)
