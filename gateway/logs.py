"""How the gateway speaks: a line a record on standard error. Never makes the gateway wait for whoever reads it."""

from __future__ import annotations

import atexit
import logging
import queue
import time
from logging.handlers import QueueHandler, QueueListener

LINES_AHEAD = 1_000
"""Lines that wait when nobody reads; those over it are dropped: a stopped pipe must not stop the gateway."""


def set_up(level: str) -> None:
    """Send the records of `amber` and all beneath it to standard error, in a thread of their own."""
    formatter = logging.Formatter("%(asctime)s.%(msecs)03dZ %(levelname)s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%S")
    formatter.converter = time.gmtime
    stream = logging.StreamHandler()
    stream.setFormatter(formatter)
    lines: queue.Queue[logging.LogRecord] = queue.Queue(LINES_AHEAD)
    listener = QueueListener(lines, stream)
    listener.start()
    atexit.register(_stop, listener, lines)
    logger = logging.getLogger("amber")
    logger.setLevel(level.upper())
    logger.addHandler(Dropping(lines))


class Dropping(QueueHandler):
    """Puts records into a queue, and lets go of those that find it full."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the name is logging's
        """Nothing: the only fault of a bounded queue is to be full."""


def _stop(listener: QueueListener, lines: queue.Queue[logging.LogRecord]) -> None:
    """Write what waits, unless nobody reads."""
    patience = time.monotonic() + 1.0
    while not lines.empty() and time.monotonic() < patience:
        time.sleep(0.01)
    if lines.empty():
        listener.stop()
