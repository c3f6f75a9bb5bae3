"""Where the log flows on to: each sink hands events to others, and never stands on the way to an acknowledgement."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from storage.errors import AmberError
from storage.event import Message, StoredEvent

REPLAY_MARK = "amber-replay"
"""The user property on all that a replay publishes, by which a gateway knows what stands in a log already.

Its value is the position of the event for which the message was published.
"""

STATE_MARK = "amber-replay-state"
"""The user property on what stands before the start of a replay: how things were then."""


class SinkError(AmberError):
    """A sink cannot take what it was given; the text says up to which position it has, and what to do."""


class Sink(Protocol):
    """Takes events in the order of the log."""

    confirmed: int
    """The position up to which the other side has everything that it was sent; 0 where it has nothing yet."""

    async def send(self, batch: Sequence[tuple[StoredEvent, Message]]) -> None:
        """Send events, each with its message. Returns when there is room for more, which may be before it is done."""

    async def settle(self) -> None:
        """Wait until everything that was sent is confirmed."""
