"""The corridor: batch → formats → log.append → ack. Nothing is acknowledged on any other way."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

from gateway.link import Batch, Connection, Link
from gateway.metrics import Metrics
from storage.errors import StoreError
from storage.event import Entry, Message, Outcome
from storage.log import Log, Session

OWN_TOPICS = "amber/"
"""Where the gateway speaks itself: what it hears there is its own voice."""

REPLAY_MARK = "amber-replay"
"""The user property on what `amber replay` publishes: it stands in a log already."""

PACKET_IDS = 65_535
"""More messages than that cannot be unacknowledged at once. The window is no sure bound: Mosquitto 2.0.11 was seen
to have 20 037 on the way where our Receive Maximum allowed 10 000."""

BATCHES_AHEAD = 2
"""One batch in its commit and one read and waiting; the link gathers the next meanwhile."""


class Formats(Protocol):
    """What reads messages."""

    def read_all(self, messages: Sequence[Message]) -> Sequence[Outcome]:
        """What became of each message, in order; never raises."""


async def ingest(link: Link, formats: Formats, log: Log, metrics: Metrics) -> None:
    """Keep and acknowledge what the link receives, until cancelled; what has arrived by then is still kept."""
    ahead = asyncio.Semaphore(BATCHES_AHEAD)
    connection: Connection | None = None
    session = Session(0, {})
    unsettled: dict[int, int] = {}
    expected = 0
    failed = False

    async def take(batch: Batch) -> None:
        nonlocal connection, session, unsettled, expected
        if batch.connection is not connection:
            connection = batch.connection
            session = await open_session(log, connection)
            unsettled, expected = dict(session.unsettled), len(session.unsettled)
        metrics.received(len(batch.messages))
        messages: Sequence[Message] = [message for message in batch.messages if not is_own(message)]
        metrics.own += len(batch.messages) - len(messages)
        if expected > 0:
            expected -= len(batch.messages)
            new = without_redelivered(messages, unsettled)
            metrics.redelivered += len(messages) - len(new)
            messages = new
        entries = list(zip(messages, formats.read_all(messages), strict=True))
        keeping.create_task(keep(batch, entries, session), name="keep a batch")

    async def keep(batch: Batch, entries: Sequence[Entry], session: Session) -> None:
        nonlocal failed
        if entries:
            try:
                metrics.committed(await log.append(entries, session.id))
            except StoreError:
                failed = True
                raise
        batch.ack()
        metrics.acknowledged(len(batch.messages))
        ahead.release()

    async with asyncio.TaskGroup() as keeping:
        try:
            while True:
                await ahead.acquire()
                await take(await link.receive())
        except asyncio.CancelledError:
            # QoS 0 comes only once. The group then waits for the batches that are being kept.
            while not failed and (batch := link.receive_now()) is not None:
                await take(batch)


async def open_session(log: Log, connection: Connection) -> Session:
    """The session that a connection continues or begins, in the log."""
    return await log.open_session(
        connection.client_id, connection.broker, resumed=connection.resumed, window_messages=PACKET_IDS
    )


def is_own(message: Message) -> bool:
    """Whether the gateway, or a replay out of a log, published the message itself."""
    if message.topic.startswith(OWN_TOPICS):
        return True
    properties = message.properties
    return properties is not None and any(name == REPLAY_MARK for name, _ in properties.user)


def without_redelivered(messages: Sequence[Message], unsettled: dict[int, int]) -> list[Message]:
    """The messages less those that the log has and whose acknowledgement the broker had not seen.

    They come first after a reconnect. DUP alone proves nothing, nor does a packet id, which the broker gives out again;
    in a continuing session both do, with the same content as when the id was last committed. Each id counts once:
    `unsettled` shrinks.
    """
    new = []
    for message in messages:
        if message.packet_id:
            committed = unsettled.pop(message.packet_id, None)
            if message.dup and committed == hash((message.topic, message.payload)):
                continue
        new.append(message)
    return new
