"""The corridor: batch → formats → log.append → ack. Nothing is acknowledged on any other way."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

from gateway.formats import IGNORED
from gateway.link import Batch, Connection, Link, Receipt
from gateway.metrics import Metrics
from gateway.receipts import Receipts
from gateway.sinks import REPLAY_MARK
from storage.event import Lessons, Message, Outcome, Rejection
from storage.log import Log, Session
from storage.store import storable_outcome as as_kept

OWN_TOPICS = "amber/"
"""Where the gateway speaks itself: what it hears there is its own voice."""

PACKET_IDS = 65_535
"""More messages than that cannot be unacknowledged at once. The window is no sure bound: Mosquitto 2.0.11 was seen
to have 20 037 on the way where our Receive Maximum allowed 10 000."""


class Formats(Protocol):
    """What reads messages."""

    def read_all(self, messages: Sequence[Message]) -> Sequence[Outcome]:
        """What became of each message, in order; never raises."""

    def read_again(self, message: Message) -> Outcome:
        """What becomes of a message that was read before; it teaches nothing."""

    def take_lessons(self, batch: Sequence[Message]) -> Lessons:
        """What the messages of a batch, as it is kept, taught since the last call."""


async def ingest(
    link: Link,
    formats: Formats,
    log: Log,
    metrics: Metrics,
    read_again: asyncio.Event | None = None,
    *,
    receipts: Receipts | None = None,
) -> None:
    """Keep and acknowledge what the link receives, until cancelled; what has arrived by then is still kept.

    `read_again` is set when a batch taught how to read earlier messages better.

    One batch at a time: while it is committed the link gathers the next. To read that one meanwhile was slower, by a
    tenth to a fifth: both threads need the interpreter's lock, and only what SQLite does goes without.
    """
    corridor = Corridor(formats, log, metrics, read_again or asyncio.Event(), receipts or Receipts())
    keeping: asyncio.Task[None] | None = None
    try:
        while True:
            keeping = asyncio.create_task(corridor.keep(await link.receive()), name="keep a batch")
            await asyncio.shield(keeping)
    except asyncio.CancelledError:
        if keeping is not None:
            await keeping
        while (batch := link.receive_now()) is not None:  # QoS 0 comes only once
            await corridor.keep(batch)


class Corridor:
    """Takes one batch after the other from the link to its acknowledgement; remembers the session it is in."""

    def __init__(
        self, formats: Formats, log: Log, metrics: Metrics, read_again: asyncio.Event, receipts: Receipts
    ) -> None:
        self._formats = formats
        self._receipts = receipts
        self._own_topics = OWN_TOPICS if receipts.prefix.startswith(OWN_TOPICS) else (OWN_TOPICS, receipts.prefix)
        self._read_again = read_again
        self._log = log
        self._metrics = metrics
        self._connection: Connection | None = None
        self._session = Session(0, {})
        self._unsettled: dict[int, int] = {}
        self._expected = 0

    async def keep(self, batch: Batch) -> None:
        """Read, append, acknowledge. Raises StoreError, and then nothing is acknowledged."""
        if batch.connection is not self._connection:
            self._connection = batch.connection
            self._session = await open_session(self._log, batch.connection)
            self._unsettled, self._expected = dict(self._session.unsettled), len(self._session.unsettled)
        self._metrics.received(len(batch.messages))
        messages = self._new(batch.messages)
        outcomes = self._formats.read_all(messages)
        entries = [entry for entry in zip(messages, outcomes, strict=True) if entry[1] is not IGNORED]
        self._metrics.ignored += len(messages) - len(entries)
        kept = messages if len(entries) == len(messages) else [message for message, _ in entries]
        lessons = self._formats.take_lessons(kept)
        rejections = 0
        if entries:
            committed = await self._log.append(entries, self._session.id, lessons)
            self._metrics.committed(committed)
            rejections = committed.rejections
        if lessons.rereads:
            self._read_again.set()
        receipts = self._answers(batch.messages, messages, outcomes, rejections)
        sent = batch.ack(receipts)
        self._metrics.acknowledged(len(batch.messages))
        self._metrics.receipted(sent, len(receipts) - sent, self._receipts.refused)

    def _answers(
        self, received: Sequence[Message], read: Sequence[Message], outcomes: Sequence[Outcome], rejections: int
    ) -> Sequence[Receipt]:
        """The receipts of what is now in the log: of what was `read`, and of what had been there already."""
        asked = self._receipts.asked(received)
        if not asked:
            return ()
        # The log makes a rejection of what no column can hold: then it has more of them than the formats gave.
        given = sum(type(outcome) is Rejection for outcome in outcomes if outcome is not IGNORED)
        became = dict(zip(map(id, read), outcomes if given == rejections else map(as_kept, outcomes), strict=True))

        def outcome_of(message: Message) -> Outcome | None:
            if is_own(message, self._own_topics):
                return None
            outcome = became[id(message)] if id(message) in became else as_kept(self._formats.read_again(message))
            return None if outcome is IGNORED else outcome

        return self._receipts.answers(asked, outcome_of)

    def _new(self, received: Sequence[Message]) -> Sequence[Message]:
        """The messages that belong into the log and are not there."""
        messages = [message for message in received if not is_own(message, self._own_topics)]
        self._metrics.own += len(received) - len(messages)
        if self._expected <= 0:
            return messages
        self._expected -= len(received)
        new = without_redelivered(messages, self._unsettled)
        self._metrics.redelivered += len(messages) - len(new)
        return new


async def open_session(log: Log, connection: Connection) -> Session:
    """The session that a connection continues or begins, in the log."""
    return await log.open_session(
        connection.client_id, connection.broker, resumed=connection.resumed, window_messages=PACKET_IDS
    )


def is_own(message: Message, own_topics: str | tuple[str, ...] = OWN_TOPICS) -> bool:
    """Whether the gateway, or a replay out of a log, published the message itself."""
    if message.topic.startswith(own_topics):
        return True
    properties = message.properties
    if properties is None or not properties.user:
        return False
    return any(name == REPLAY_MARK for name, _ in properties.user)


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
