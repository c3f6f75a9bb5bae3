"""The link: the connection to the broker, seen from inside as batches that can be acknowledged.

Nothing here knows of formats or storage, and no acknowledgement leaves before someone calls `Batch.ack`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from storage.event import Message


class Connection(msgspec.Struct, frozen=True):
    """One connection to a broker, from its CONNACK to its end.

    `resumed` is CONNACK's session present: only then do packet ids mean what they meant before.
    `window_messages` is the number of unacknowledged messages that the broker may have on the way.
    """

    number: int
    broker: str
    client_id: str
    resumed: bool
    window_messages: int


class Receipt(msgspec.Struct, frozen=True, gc=False):
    """The gateway's word to a device that its message is stored, as MQTT 5 answers a request: one PUBLISH at QoS 0."""

    topic: str
    correlation_data: bytes | None = None
    payload: bytes = b""


class Batch(Protocol):
    """The messages that arrived together on one connection, and the one way to acknowledge and receipt them.

    The first batch of each connection is empty: it announces the connection.
    """

    connection: Connection
    messages: Sequence[Message]

    def ack(self, receipts: Sequence[Receipt] = ()) -> int:
        """Acknowledge all of them, in order, then send the receipts, in one write.

        How many receipts left: fewer where the broker does not read, and none of all this if the connection has ended.
        """


class Link(Protocol):
    """Where batches come from."""

    async def receive(self) -> Batch:
        """Wait for the next batch: all that has arrived since the last call, connection by connection."""

    def receive_now(self) -> Batch | None:
        """The next batch, if one has arrived already."""
