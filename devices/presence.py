"""Whether a device is there: one connection after another, with a birth, a farewell, and all that disturbs them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from random import Random
from typing import TYPE_CHECKING

from devices.clock import happens
from devices.connection import Connection, connect
from devices.dialects import Dialect
from devices.errors import ConnectionLost
from devices.fleet import Device
from devices.outbox import Outbox
from devices.outgoing import Publication

if TYPE_CHECKING:
    from devices.device import World

FIRST_PAUSE_S = 0.25
LONGEST_PAUSE_S = 5.0
STEADY_S = 10.0
"""A connection that lasted that long was a good one: the next pause is a short one again."""

Speak = Callable[[Connection], Awaitable[None]]
"""What is done with a connection, until there is nothing more to say."""


async def stay_present(device: Device, dialect: Dialect, outbox: Outbox, world: World, speak: Speak) -> None:
    """One connection after another, with ever longer pauses, until the outbox is closed."""
    chance = Random(f"{device.seed}/pauses")
    attempts = 0
    while not outbox.closed.is_set():
        began_s = _now_s()
        try:
            await be_present(device, dialect, world, speak)
        except ConnectionLost as error:
            world.counts.trouble = str(error)
        outbox.restore()
        attempts = 1 if _now_s() - began_s > STEADY_S else attempts + 1
        await happens(outbox.closed, before_s=_now_s() + pause_s(attempts, chance))


def pause_s(attempts: int, chance: Random) -> float:
    """How long to wait after so many attempts in vain: twice as long each time, with jitter, up to the longest."""
    doublings = min(attempts, 10)  # a broker may be away for thousands of attempts, and 2.0**1024 is an error
    return min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0**doublings) * chance.uniform(0.5, 1)


async def be_present(device: Device, dialect: Dialect, world: World, speak: Speak) -> None:
    """One connection: birth, what there is to say, farewell."""
    group = device.group
    will = dialect.will(world.clock.now_us())
    async with connect(world.door, f"amber-device-{device.name}", will if group.will else None) as connection:
        world.counts.connected += 1
        world.reached.set()
        try:
            if group.birth:
                await _announce(dialect.birth(world.clock.now_us()), connection, world)
            await speak(connection)
            if group.will:
                await _announce(dialect.death(world.clock.now_us()), connection, world)
        finally:
            world.counts.connected -= 1


async def _announce(publications: Sequence[Publication], connection: Connection, world: World) -> None:
    """Publish what tells of coming or going, and wait until the broker has it."""
    for publication in publications:
        refusal = await connection.send(publication, qos=1)
        if refusal is None:
            world.counts.statuses += 1
        else:
            world.counts.trouble = f"{publication.topic} refused: {refusal}"


def _now_s() -> float:
    return asyncio.get_running_loop().time()
