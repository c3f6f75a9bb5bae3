"""A broker that does what a test says, packet by packet, for what a real one will not do."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Self

import mqtt5
from mqtt5 import ConnAckPacket, ConnectPacket, DisconnectPacket, SubAckPacket, SubAckReasonCode, SubscribePacket

from gateway.link import Link
from gateway.link.options import LinkOptions
from gateway.link.subscriptions import Subscription
from storage.event import Message


async def until(condition: Callable[[], object]) -> None:
    """Wait for something that nobody announces."""
    while not condition():
        await asyncio.sleep(0.005)


def options(url: str, *filters: str, **changes: Any) -> LinkOptions:
    """Options that try again quickly."""
    given: dict[str, Any] = {
        "broker_url": url,
        "client_id": "amber-test",
        "subscriptions": tuple(Subscription(pattern) for pattern in filters or ("#",)),
        "first_backoff_s": 0.01,
        "max_backoff_s": 0.05,
    }
    return LinkOptions(**(given | changes))


async def messages_from(link: Link, count: int, *, ack: bool = False) -> list[Message]:
    """The next so many messages, in however many batches; more is a failure."""
    found: list[Message] = []
    while len(found) < count:
        batch = await link.receive()
        found += batch.messages
        if ack:
            batch.ack()
    assert len(found) == count
    return found


class Peer:
    """The fake broker's side of one connection. `heard` is every byte that came."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.heard = b""
        self._reader = reader
        self._writer = writer
        self._read_to = 0

    async def read(self) -> mqtt5.Packet:
        """The next packet. Raises EOFError at the end."""
        while True:
            try:
                packet, size = mqtt5.read(memoryview(self.heard)[self._read_to :])
            except IndexError:
                chunk = await self._reader.read(65_536)
                if not chunk:
                    raise EOFError from None
                self.heard += chunk
            else:
                self._read_to += size
                return packet

    async def read_all(self) -> bytes:
        """All that still comes, to DISCONNECT or the end of the connection."""
        start = self._read_to
        try:
            while not isinstance(await self.read(), DisconnectPacket):
                pass
        except EOFError:
            pass
        return self.heard[start:]

    async def send(self, *packets: mqtt5.Packet | bytes) -> None:
        self._writer.write(b"".join(one if isinstance(one, bytes) else one.write() for one in packets))
        await self._writer.drain()

    async def accept(self, connack: ConnAckPacket | None = None) -> ConnectPacket:
        """Answer CONNECT, and grant one subscription."""
        connect = await self.read()
        assert isinstance(connect, ConnectPacket)
        await self.send(connack or ConnAckPacket())
        await self.grant()
        return connect

    async def grant(self, code: SubAckReasonCode = SubAckReasonCode.GRANTED_QOS_EXACTLY_ONCE) -> SubscribePacket:
        """Answer the next SUBSCRIBE."""
        subscribe = await self.read()
        assert isinstance(subscribe, SubscribePacket)
        await self.send(SubAckPacket(subscribe.packet_id, [code]))
        return subscribe

    def close(self) -> None:
        self._writer.close()

    def reset(self) -> None:
        self._writer.transport.abort()


class FakeBroker:
    """Plays `script` on each connection that comes, with its number from 1, and closes it at the script's end.

    What goes wrong in a script is raised at the end of the `async with`.
    """

    def __init__(self, script: Callable[[Peer, int], Awaitable[None]]) -> None:
        self.connections = 0
        self._script = script
        self._faults: list[Exception] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.url = f"mqtt://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        if self._faults and error is None:
            raise self._faults[0]

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._tasks.add(asyncio.create_task(self._play(Peer(reader, writer), self.connections)))

    async def _play(self, peer: Peer, number: int) -> None:
        try:
            await self._script(peer, number)
        except (EOFError, ConnectionError):
            pass  # the link has gone, as links do
        except Exception as fault:  # noqa: BLE001 (an edge of a task)
            self._faults.append(fault)
        finally:
            peer.close()
