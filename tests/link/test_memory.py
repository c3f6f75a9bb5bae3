"""The link in memory keeps the same promises as the fast link, so that what is tested with it holds with the other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol

import pytest
from mqtt5 import ConnAckPacket, PubAckPacket, PublishPacket, PubRecPacket, QoS

from gateway.link import Link
from gateway.link.codec import CodecLink
from gateway.link.errors import LinkError
from gateway.link.memory import MemoryLink
from storage.event import Message
from tests.link.fakes import FakeBroker, Peer, messages_from, options


class Broker(Protocol):
    """What the tests below ask of a broker, real or not."""

    async def connect(self, *, resumed: bool = False) -> None: ...
    async def feed(self, *messages: Message) -> None: ...
    async def disconnect(self) -> None: ...
    async def acked(self, count: int) -> Sequence[int]: ...


class MemoryBroker:
    def __init__(self, link: MemoryLink) -> None:
        self._link = link

    async def connect(self, *, resumed: bool = False) -> None:
        self._link.connect(resumed=resumed)

    async def feed(self, *messages: Message) -> None:
        self._link.feed(*messages)

    async def disconnect(self) -> None:
        self._link.disconnect()

    async def acked(self, count: int) -> Sequence[int]:
        assert len(self._link.acked) == count
        return [message.packet_id for message in self._link.acked]


class WireBroker:
    """The fake broker's script, played call by call."""

    def __init__(self) -> None:
        self._peers: asyncio.Queue[Peer] = asyncio.Queue()
        self._acked: list[int] = []

    async def __call__(self, peer: Peer, _: int) -> None:
        self._peers.put_nowait(peer)
        await asyncio.Event().wait()

    async def connect(self, *, resumed: bool = False) -> None:
        self._peer = await self._peers.get()
        await self._peer.accept(ConnAckPacket(session_present=resumed))

    async def feed(self, *messages: Message) -> None:
        packets = [
            PublishPacket(one.topic, one.payload, qos=QoS(one.qos), packet_id=one.packet_id or None) for one in messages
        ]
        await self._peer.send(*packets)

    async def disconnect(self) -> None:
        self._peer.close()

    async def acked(self, count: int) -> Sequence[int]:
        while len(self._acked) < count:
            packet = await self._peer.read()
            assert isinstance(packet, PubAckPacket | PubRecPacket)
            self._acked.append(packet.packet_id)
        return self._acked


@asynccontextmanager
async def in_memory() -> AsyncIterator[tuple[Link, Broker]]:
    async with MemoryLink() as link:
        yield link, MemoryBroker(link)


@asynccontextmanager
async def on_a_wire() -> AsyncIterator[tuple[Link, Broker]]:
    broker = WireBroker()
    async with FakeBroker(broker) as fake, CodecLink(options(fake.url, close_timeout_s=0.1)) as link:
        yield link, broker


Opened = Callable[[], AbstractAsyncContextManager[tuple[Link, Broker]]]
either = pytest.mark.parametrize("opened", [in_memory, on_a_wire])


def message(packet_id: int, qos: int = 1) -> Message:
    return Message("a/b", b"1", qos, retain=False, received_at=0, packet_id=packet_id)


@either
async def test_each_connection_is_announced_by_an_empty_batch(opened: Opened) -> None:
    async with opened() as (link, broker):
        await broker.connect()
        first = await link.receive()
        await broker.disconnect()
        await broker.connect(resumed=True)
        second = await link.receive()
    assert [list(first.messages), list(second.messages)] == [[], []]
    assert (first.connection.number, first.connection.resumed) == (1, False)
    assert (second.connection.number, second.connection.resumed) == (2, True)


@either
async def test_what_arrives_together_is_acknowledged_together_and_in_order(opened: Opened) -> None:
    """QoS 0 has nothing to acknowledge, and twice is once."""
    async with opened() as (link, broker):
        await broker.connect()
        await broker.feed(message(7), message(0, 0), message(3, 2))
        await link.receive()
        batch = await link.receive()
        assert [one.packet_id for one in batch.messages] == [7, 0, 3]
        batch.ack()
        batch.ack()
        assert await broker.acked(2) == [7, 3]


@either
async def test_a_batch_of_an_ended_connection_acknowledges_nothing(opened: Opened) -> None:
    """But what had arrived is handed out, before the next connection."""
    async with opened() as (link, broker):
        await broker.connect()
        await link.receive()
        await broker.feed(message(1))
        (await link.receive()).ack()
        assert await broker.acked(1) == [1]
        await broker.feed(message(2), message(3))
        await broker.disconnect()
        old = await link.receive()
        assert (old.connection.number, [one.packet_id for one in old.messages]) == (1, [2, 3])
        await broker.connect()
        new = await link.receive()
        assert new.connection.number == 2
        old.ack()
        await broker.feed(message(2))
        (again,) = await messages_from(link, 1, ack=True)
        assert again.packet_id == 2
        assert await broker.acked(2) == [1, 2]


@either
async def test_nobody_waits_on_a_closed_link(opened: Opened) -> None:
    async with opened() as (link, broker):
        await broker.connect()
        await link.receive()
        waiting = asyncio.create_task(link.receive())
        await asyncio.sleep(0)
    with pytest.raises(LinkError, match="closed"):
        await waiting
    with pytest.raises(LinkError, match="closed"):
        await link.receive()


async def test_what_is_fed_waits_until_it_is_received() -> None:
    """All of one connection together, as on a socket."""
    async with MemoryLink() as link:
        with pytest.raises(LinkError, match="connect"):
            link.feed(message(1))
        announced = link.connect(resumed=True)
        assert link.state.connected
        link.feed(message(1))
        link.feed(message(2), message(3))
        assert (await link.receive()).connection is announced
        assert [one.packet_id for one in (await link.receive()).messages] == [1, 2, 3]
