"""A connection that breaks is told once, and leaves nothing behind."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from devices.address import Address
from devices.broker import Mosquitto
from devices.connection import Door, connect
from devices.errors import ConnectionLost
from devices.outgoing import Publication

WILL = Publication("devices/test/status", b"{}", retain=True)


def door(port: int) -> Door:
    return Door(Address("127.0.0.1", port), asyncio.Semaphore(1))


def test_a_message_sent_while_the_connection_breaks_disturbs_nobody(broker: Mosquitto) -> None:
    """By itself aiomqtt registers the closed socket for writing, or another connection's that had taken its number."""
    complaints: list[dict[str, Any]] = []

    async def claim() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
        async with connect(door(broker.port), "test", WILL) as connection:
            broker.kill()
            await asyncio.sleep(0)  # in the step that follows, the loop reads the end right after what we do
            connection.send(Publication("devices/test/telemetry", b""), qos=1)
            await asyncio.Event().wait()

    with pytest.raises(ConnectionLost, match=r"^the connection was lost$"):
        asyncio.run(claim())
    assert not complaints


def test_a_refusal_is_the_answer_and_not_an_error(broker: Mosquitto) -> None:
    """Mosquitto lets nobody write below $SYS."""

    async def claim(qos: int) -> str | None:
        async with connect(door(broker.port), "test", WILL) as connection:
            assert await connection.send(Publication("devices/test/telemetry", b""), qos=qos) is None
            return await connection.send(Publication("$SYS/test", b""), qos=qos)

    assert [asyncio.run(claim(qos)) for qos in (1, 2)] == ["Not authorized"] * 2


def test_a_connect_without_an_answer_leaves_no_socket_behind() -> None:
    """A broker that was asleep would else find many of them, and take each for the device."""

    async def claim() -> None:
        came, went = asyncio.Event(), asyncio.Event()

        async def never_answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readexactly(1)
            came.set()
            await reader.read()  # until the end
            writer.close()
            went.set()

        server = await asyncio.start_server(never_answers, "127.0.0.1")
        connecting = asyncio.create_task(enter(door(server.sockets[0].getsockname()[1])))
        await came.wait()
        connecting.cancel()
        async with asyncio.timeout(5):
            await went.wait()
        server.close()
        await asyncio.wait({connecting})

    async def enter(where: Door) -> None:
        async with connect(where, "test", WILL):
            pytest.fail("nobody answered")

    asyncio.run(claim())
