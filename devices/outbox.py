"""What one device has measured and the broker has not yet acknowledged: bounded, in memory, oldest kept."""

from __future__ import annotations

import asyncio
from collections import deque

from devices.outgoing import Outgoing


class Outbox:
    """At most `limit` messages, of which at most `window` are on their way at any time."""

    def __init__(self, limit: int, window: int) -> None:
        self.empty = asyncio.Event()
        self.empty.set()
        self.closed = asyncio.Event()
        self._limit = limit
        self._window = window
        self._waiting: deque[Outgoing] = deque()
        self._in_flight: dict[tuple[str, int, int, int], Outgoing] = {}
        self._sent: set[tuple[str, int, int, int]] = set()
        self._changed = asyncio.Event()

    def __len__(self) -> int:
        return len(self._waiting) + len(self._in_flight)

    def put(self, message: Outgoing) -> bool:
        """Whether there was room."""
        if len(self) >= self._limit:
            return False
        self._waiting.append(message)
        self.empty.clear()
        self._changed.set()
        return True

    async def take(self) -> Outgoing | None:
        """Wait for the next message to send, and a place in the window. None: the box is closed."""
        while not self.closed.is_set():
            if self._waiting and len(self._in_flight) < self._window:
                message = self._waiting.popleft()
                self._in_flight[message.key] = message
                return message
            self._changed.clear()
            await self._changed.wait()
        return None

    def first_time(self, message: Outgoing) -> bool:
        """Whether this message, which is now being sent, was never sent before."""
        first = message.key not in self._sent
        self._sent.add(message.key)
        return first

    def settle(self, message: Outgoing) -> bool:
        """The broker has answered: forget the message. Whether it was still on its way."""
        known = self._in_flight.pop(message.key, None) is not None
        if known:
            self._sent.discard(message.key)
        self._changed.set()
        if not len(self):
            self.empty.set()
        return known

    def restore(self) -> None:
        """The connection has ended: what was on its way is first in line again, in its order."""
        self._waiting.extendleft(reversed(self._in_flight.values()))
        self._in_flight.clear()

    def close(self) -> None:
        """Nothing more leaves it."""
        self.closed.set()
        self._changed.set()
