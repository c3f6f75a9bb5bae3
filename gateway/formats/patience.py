"""Ends what takes too long over one message, and sets a format aside that does so again and again.

By the interval timer of the process, so in its main thread only; elsewhere nothing is timed.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Sequence
from functools import cache
from types import FrameType

from gateway.formats.body import Body
from gateway.formats.format import Format, Unreadable
from storage.event import Event, Message, Outcome, Rejection

OVERRUNS = 3
"""In a row; then the format is set aside."""

ASIDE_S = 60.0

_TOOK_OVER = "the format took over"


_MAIN_THREAD = threading.main_thread().ident
_setitimer, _ITIMER_REAL = signal.setitimer, signal.ITIMER_REAL


class TooSlow(BaseException):
    """Raised in the middle of a reader. No Exception: a plugin that catches these must end all the same."""


def is_impatient(outcome: Outcome) -> bool:
    """Whether a message was rejected for the time that it took, or its format before: another time it may be read."""
    return isinstance(outcome, Rejection) and outcome.reason.startswith(_TOOK_OVER)


class Patience:
    """Runs readers, each for `message_ms` at most."""

    def __init__(self, message_ms: int) -> None:
        self._seconds = message_ms / 1_000
        self._timing = False
        self._overruns: dict[Format, int] = {}
        self._aside: dict[Format, float] = {}

    def read(self, row: Format, message: Message, body: Body) -> Sequence[Event] | None:
        """What the row's reader gives. Raises Unreadable when it takes too long, or did so before."""
        if self._aside and (until := self._aside.get(row)):
            if time.monotonic() < until:
                raise Unreadable(f"{_TOOK_OVER} {self._seconds:g} s {OVERRUNS} times, and is set aside")
            del self._aside[row]
        if self._timing or threading.get_ident() != _MAIN_THREAD:  # a message within one shares its time
            return row.read(message, body)
        try:
            return self._timed(row, message, body)
        except TooSlow:
            overruns = self._overruns[row] = self._overruns.get(row, 0) + 1
            if overruns >= OVERRUNS:
                self._aside[row] = time.monotonic() + ASIDE_S
                del self._overruns[row]
            raise Unreadable(f"{_TOOK_OVER} {self._seconds:g} s for one message (message_ms)") from None

    def _timed(self, row: Format, message: Message, body: Body) -> Sequence[Event] | None:
        _listen()
        self._timing = True
        try:
            # And again: the first may be lost where nothing can be raised, as in a __del__.
            _setitimer(_ITIMER_REAL, self._seconds, self._seconds)
            try:
                events = row.read(message, body)
            finally:
                _setitimer(_ITIMER_REAL, 0)
        except TooSlow:
            _setitimer(_ITIMER_REAL, 0)  # it may have rung in the line that was to silence it
            raise
        finally:
            self._timing = False
        if self._overruns:
            self._overruns.pop(row, None)
        return events


@cache
def _listen() -> None:
    """Once in the process: asking for the handler anew costs more than all the rest."""
    signal.signal(signal.SIGALRM, _ring)


def _ring(_number: int, _frame: FrameType | None) -> None:
    raise TooSlow
