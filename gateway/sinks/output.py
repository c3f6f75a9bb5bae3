"""Writes events as lines of JSON to a file descriptor. Never says that they are there before they are."""

from __future__ import annotations

from gateway.deliver import Batch
from gateway.streams import ends_within_a_line, sync, write


class Output:
    """A descriptor to which batches are written whole; what is a file is synced before its events are confirmed."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._unsynced = False
        self._within_a_line = ends_within_a_line(descriptor)

    def take(self, batch: Batch) -> None:
        body = batch.body
        if self._within_a_line:  # the line comes again, and has to be one of its own
            self._within_a_line, body = False, b"\n" + body
        left = memoryview(body)
        self._unsynced = True
        while left:
            left = left[write(self._descriptor, left) :]

    def settle(self) -> None:
        if self._unsynced:
            sync(self._descriptor)
            self._unsynced = False

    def close(self) -> None:
        """Nothing: the descriptor is another's."""
