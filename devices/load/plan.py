"""What is to be sent, and when each message is due: reckoned from the start, so that no lateness adds up."""

from __future__ import annotations

import math

import msgspec

SECOND_US = 1_000_000


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """A load: message 0, 1, 2 … at `rate` a second, dealt out to the connections in turn.

    Without a rate each message is due when there is room for it; without a duration it goes on until it is stopped.
    """

    rate: float | None
    connections: int
    duration_s: float | None
    qos: int
    size: int
    receipts: bool
    devices: int
    topic: str
    seed: int

    @property
    def planned(self) -> int | None:
        """How many messages in all; None if nothing tells."""
        if self.rate is None or self.duration_s is None:
            return None
        return max(1, round(self.rate * self.duration_s))

    def due_in_all(self, at_us: int) -> int:
        """How many messages are due so long after the start, at a rate."""
        due = math.floor(at_us * (self.rate or 0.0) / SECOND_US) + 1
        return due if self.planned is None else min(due, self.planned)

    def due_of(self, connection: int, due_in_all: int) -> int:
        """How many of so many messages are a connection's own."""
        return max(0, -((connection - due_in_all) // self.connections))

    def due_us(self, connection: int, first: int, count: int) -> list[int]:
        """When these messages of a connection are due, in microseconds after the start, at a rate."""
        apart_us = SECOND_US / (self.rate or 1.0)
        numbers = range(connection + first * self.connections, 1 << 62, self.connections)
        return [int(number * apart_us) for number in numbers[:count]]

    def devices_of(self, connection: int) -> list[str]:
        """The devices for which a connection speaks."""
        width = max(4, len(str(self.devices)))
        return [f"load-{number + 1:0{width}}" for number in range(connection, self.devices, self.connections)]
