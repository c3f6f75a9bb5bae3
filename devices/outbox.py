"""What one device has measured and the broker has not yet acknowledged: bounded, in memory, oldest kept."""

from __future__ import annotations

import asyncio
from collections import deque

from devices.plan import Event


class Outbox:
    """At most `limit` events, of which at most `window` are on their way at any time."""

    def __init__(self, limit: int, window: int) -> None:
        self.empty = asyncio.Event()
        self.empty.set()
        self.closed = asyncio.Event()
        self._limit = limit
        self._window = window
        self._waiting: deque[Event] = deque()
        self._in_flight: dict[int, Event] = {}
        self._sent_through = -1
        self._changed = asyncio.Event()

    def __len__(self) -> int:
        return len(self._waiting) + len(self._in_flight)

    def put(self, event: Event) -> bool:
        """Whether there was room."""
        if len(self) >= self._limit:
            return False
        self._waiting.append(event)
        self.empty.clear()
        self._changed.set()
        return True

    async def take(self) -> Event | None:
        """Wait for the next event to send, and a place in the window. None: the box is closed."""
        while not self.closed.is_set():
            if self._waiting and len(self._in_flight) < self._window:
                event = self._waiting.popleft()
                self._in_flight[event.seq] = event
                return event
            self._changed.clear()
            await self._changed.wait()
        return None

    def first_time(self, event: Event) -> bool:
        """Whether this event, which is now being sent, was never sent before."""
        first = event.seq > self._sent_through
        self._sent_through = max(event.seq, self._sent_through)
        return first

    def settle(self, event: Event) -> bool:
        """The broker has answered: forget the event. Whether it was still on its way."""
        known = self._in_flight.pop(event.seq, None) is not None
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
