"""A broker that does what a test tells it to, packet by packet: for what no real one can be brought to do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import mqtt5
from mqtt5 import ConnAckPacket, ConnectPacket, Packet

Kind = TypeVar("Kind", bound=Packet)


class Peer:
    """One connection, from the broker's side."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        self._reader = reader
        self._rest = b""

    async def expect(self, kind: type[Kind]) -> Kind:
        """The next packet, which must be of this kind."""
        while True:
            try:
                packet, size = mqtt5.read(memoryview(self._rest))
            except IndexError:
                more = await self._reader.read(1 << 16)
                assert more, f"the connection ended, and {kind.__name__} had not come"
                self._rest += more
            else:
                self._rest = self._rest[size:]
                assert isinstance(packet, kind), f"{packet} is no {kind.__name__}"
                return packet

    def say(self, *packets: Packet) -> None:
        self.writer.write(b"".join(packet.write() for packet in packets))

    async def welcome(self, connack: ConnAckPacket | None = None) -> ConnectPacket:
        connect = await self.expect(ConnectPacket)
        self.say(connack or ConnAckPacket())
        return connect

    async def silence(self) -> None:
        """Until the connection ends; nothing comes before."""
        assert await self._reader.read() == b""


@asynccontextmanager
async def scripted(*parts: Callable[[Peer], Awaitable[None]]) -> AsyncIterator[int]:
    """The port of a broker that plays one part for each connection; at the end all parts must have been played well."""
    played: list[asyncio.Task[None]] = []
    waiting = list(parts)

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def part() -> None:
            try:
                await waiting.pop(0)(Peer(reader, writer))
            finally:
                writer.close()

        played.append(asyncio.create_task(part()))

    server = await asyncio.start_server(play, "127.0.0.1")
    try:
        yield server.sockets[0].getsockname()[1]
        async with asyncio.timeout(10):
            await asyncio.gather(*played)
    finally:
        server.close()
        for task in played:
            task.cancel()
    assert not waiting, "not all parts were played"
