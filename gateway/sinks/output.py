"""Writes events as lines of JSON to a file descriptor. Never says that they are there before they are."""

from __future__ import annotations

import os
import stat

from gateway.deliver import Batch


class Output:
    """A descriptor to which batches are written whole; what is a file is synced before its events are confirmed."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._is_file = stat.S_ISREG(os.fstat(descriptor).st_mode)
        self._unsynced = False

    def take(self, batch: Batch) -> None:
        left = memoryview(batch.body)
        while left:
            left = left[os.write(self._descriptor, left) :]
        self._unsynced = self._is_file

    def settle(self) -> None:
        if self._unsynced:
            os.fsync(self._descriptor)
            self._unsynced = False

    def close(self) -> None:
        """Nothing: the descriptor is another's."""
