"""One MQTT 5 connection of one device: what any client has to offer, and a block of code that lives as long as it.

Knows no packet and no socket: `connections` holds the clients. Each connection is a new one, and none sends by itself
what the last one left unacknowledged: the outbox does that.
"""

from __future__ import annotations

import asyncio
import ssl
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Literal, cast

import msgspec

from devices.address import Address
from devices.errors import ConnectionLost
from devices.fleet import Session
from devices.outgoing import Publication

KEEPALIVE_S = 20
"""After one and a half times this, the broker publishes the will of a device that is silently gone."""

WINDOW = 10
"""Messages of one device on their way at a time; brokers allow at least that (HiveMQ 10, Mosquitto 20)."""

CONNECT_WITHIN_S = 10.0
"""How long a broker may take from the first packet on the network to its CONNACK."""

SESSION_EXPIRY_S = 3600
"""How long the broker keeps the session of a device that is away."""

LOST = "the connection was lost"
"""All that is known where it just broke off."""

Client = Literal["codec", "aiomqtt"]

CLIENTS: Mapping[str, Client] = {"codec": "codec", "aiomqtt": "aiomqtt"}

Answer = asyncio.Future[str | None]
"""What becomes of one message: None, it is acknowledged (at QoS 0: written); a text, why it is refused."""

Answered = Callable[[str | None], None]
"""Is told the same."""

Receipted = Callable[[bytes, bytes], None]
"""Is told of a receipt: its Correlation Data and its payload."""


class Unfinished(msgspec.Struct):
    """What the client's half of a persistent session knows: packet ids whose handshake is not at its end.

    `left` finds them by what was published; True says that the message is with the broker, and only PUBREL was open.
    """

    last_id: int = 0
    begun: bool = False
    left: dict[Publication, list[tuple[int, bool]]] = {}


class Door(msgspec.Struct, frozen=True):
    """Where devices enter: the broker's address, and how many of them may be on the threshold at a time.

    `sessions` are the persistent ones, by client id.
    """

    address: Address
    threshold: asyncio.Semaphore
    tls: ssl.SSLContext | None = None
    client: Client = "codec"
    sessions: dict[str, Unfinished] = {}


class Connection(ABC):
    """It is open within `connect`. `writable` is False while the broker does not read: QoS 0 knows no other bound."""

    def __init__(self) -> None:
        self.writable = True
        self.on_writable: Callable[[], None] = _nothing
        self.on_end: Callable[[], None] = _nothing
        self.ended: str | None = None

    @abstractmethod
    async def open(self) -> None:
        """Connect, and wait for the broker's yes. Raises ConnectionLost if there is none."""

    @abstractmethod
    async def listen(self, topic: str, receipted: Receipted) -> None:
        """Subscribe to the receipts on a topic, and wait for the broker's yes. Raises ConnectionLost on a no.

        From then on each `publish` with Correlation Data asks for a receipt there.
        """

    @abstractmethod
    def publish(self, publication: Publication, qos: int, answered: Answered, correlation: bytes | None = None) -> None:
        """Take a message; it leaves with the next `flush`. `answered` hears from the broker, if ever it answers."""

    @abstractmethod
    def flush(self) -> None:
        """Hand to the socket what `publish` has taken."""

    @abstractmethod
    async def close(self) -> None:
        """Say goodbye to the broker, which then publishes no will."""

    @abstractmethod
    def abandon(self) -> None:
        """Let go of whatever is left of the connection; does nothing after a close."""

    @abstractmethod
    def cut(self) -> None:
        """End the network connection at once."""

    def send(self, publication: Publication, *, qos: int, correlation: bytes | None = None) -> Answer:
        """Publish one message by itself; what it returns is done when the broker has answered."""
        answer: Answer = asyncio.get_running_loop().create_future()
        self.publish(publication, qos, partial(_settle, answer), correlation)
        self.flush()
        return answer

    def abort(self) -> None:
        """Cut the connection off without a word, as a device that dies: the broker publishes its will."""
        self.cut()
        self.end("the connection was cut off")

    def end(self, reason: str) -> None:
        """Note that it has ended, and tell; the first reason stands."""
        if self.ended is None:
            self.ended = reason
            self.on_end()


@asynccontextmanager
async def connect(
    door: Door, client_id: str, will: Publication | None, session: Session = "clean"
) -> AsyncIterator[Connection]:
    """A connection, for the time of the block. If it ends earlier, the block is interrupted by ConnectionLost."""
    connection = client(door, client_id, will, session)
    try:
        async with door.threshold:
            await connection.open()
        with interrupted_by_the_end(connection):
            yield connection
        await connection.close()
    finally:
        connection.abandon()


def client(door: Door, client_id: str, will: Publication | None, session: Session) -> Connection:
    """A connection not yet opened, by the client that the door is for."""
    kept = door.sessions.setdefault(client_id, Unfinished()) if session == "persistent" else None
    if door.client == "aiomqtt":
        from devices.connections.aiomqtt import AiomqttConnection

        return AiomqttConnection(door, client_id, will)
    from devices.connections.codec import CodecConnection

    return CodecConnection(door, client_id, will, kept)


@contextmanager
def interrupted_by_the_end(connection: Connection) -> Iterator[None]:
    """Cancel what the block waits for when the connection ends, and raise ConnectionLost in its place."""
    # As asyncio.timeout does it: a task of its own for each connection would double what a connection costs in memory.
    task = cast("asyncio.Task[object]", asyncio.current_task())
    before, interrupted = task.cancelling(), False

    def interrupt() -> None:
        nonlocal interrupted
        interrupted = True
        task.cancel()

    if connection.ended is not None:
        raise ConnectionLost(connection.ended)
    connection.on_end = interrupt
    try:
        yield
    except asyncio.CancelledError:
        if interrupted and task.uncancel() <= before:
            raise ConnectionLost(f"{connection.ended}") from None
        raise
    finally:
        connection.on_end = _nothing


def _settle(answer: Answer, refusal: str | None) -> None:
    if not answer.done():
        answer.set_result(refusal)


def _nothing() -> None:
    pass
