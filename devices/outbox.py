"""What a device has measured and is not yet settled: bounded, oldest kept, in memory or on a shelf that outlives us."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Protocol

from devices.outgoing import Outgoing

Key = tuple[str, int, int, int]


class Held:
    """One message, and how far it has come. `row` is its place on the shelf, if it has one."""

    __slots__ = ("acked", "key", "message", "remind_at_s", "reminders", "row", "sent", "settled")

    def __init__(self, message: Outgoing, row: int = 0) -> None:
        self.message = message
        self.key = message.key
        self.row = row
        self.sent = self.acked = self.settled = False
        self.remind_at_s: float | None = None
        self.reminders = 0


class Shelf(Protocol):
    """Where the messages of one device outlive the process."""

    def keep(self, held: Held, kept: Callable[[Held], None]) -> bool:
        """Whether there is room; `kept` hears when it is safe there."""

    def drop(self, held: Held) -> None:
        """It need not be kept any longer."""


class Outbox:
    """At most `limit` messages, of which at most `window` are on their way at any time.

    With a shelf none is taken before it is safe there. `on_ready` is called when there may be something to take.
    """

    def __init__(self, limit: int, window: int, shelf: Shelf | None = None) -> None:
        self.empty = asyncio.Event()
        self.empty.set()
        self.closed = asyncio.Event()
        self.on_ready: Callable[[], None] = _nothing
        self._limit = limit
        self._window = window
        self._shelf = shelf
        self._held: dict[Key, Held] = {}
        self._waiting: deque[Held] = deque()
        self._in_flight: dict[Key, Held] = {}

    def __len__(self) -> int:
        return len(self._held)

    def put(self, message: Outgoing) -> bool:
        """Whether there was room."""
        held = Held(message)
        key = held.key
        if key in self._held:  # an earlier run with the same seed and start has left it here
            return True
        if len(self._held) >= self._limit:
            return False
        if self._shelf is None:
            self._held[key] = held
            self._admit(held)
        elif self._shelf.keep(held, self._admit):
            self._held[key] = held
        else:
            return False
        self.empty.clear()
        return True

    def put_back(self, held: Held) -> None:
        """What an earlier run has left on the shelf: it is first in line."""
        self._held[held.key] = held
        self.empty.clear()
        self._admit(held)

    def take(self) -> Held | None:
        """The next message to send, if there is one, and a place in the window."""
        if self.closed.is_set():
            return None
        while self._waiting and len(self._in_flight) < self._window:
            held = self._waiting.popleft()
            if not held.settled:
                self._in_flight[held.key] = held
                return held
        return None

    def find(self, key: Key) -> Held | None:
        """A message that is not settled."""
        return self._held.get(key)

    def settle(self, held: Held) -> bool:
        """Forget the message, wherever it is. False: it was settled before."""
        if held.settled:
            return False
        held.settled = True
        self._held.pop(held.key, None)
        self._in_flight.pop(held.key, None)
        if self._shelf is not None:
            self._shelf.drop(held)
        if not self._held:
            self.empty.set()
        return True

    def overdue(self, now_s: float) -> bool:
        """Put back in line what should have got its receipt by now; whether there was any."""
        late = [held for held in self._in_flight.values() if held.remind_at_s is not None and held.remind_at_s <= now_s]
        for held in late:
            held.remind_at_s = None
            del self._in_flight[held.key]
            self._waiting.append(held)
        return bool(late)

    def restore(self) -> None:
        """The connection has ended: what was on its way is first in line again, in its order."""
        for held in self._in_flight.values():
            held.remind_at_s = None
        self._waiting.extendleft(reversed(self._in_flight.values()))
        self._in_flight.clear()

    def close(self) -> None:
        """Nothing more leaves it."""
        self.closed.set()

    def _admit(self, held: Held) -> None:
        self._waiting.append(held)
        self.on_ready()


def _nothing() -> None:
    pass
