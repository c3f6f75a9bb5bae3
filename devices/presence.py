"""Whether a device is there: one connection after another, with a birth, a farewell, and all that disturbs them."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from itertools import takewhile
from random import Random
from typing import TYPE_CHECKING

from devices.clock import SECOND_US, happens
from devices.connection import Connection, connect
from devices.dialects import Dialect
from devices.errors import ConnectionLost
from devices.faults import connecting
from devices.faults.connecting import Disturbance
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
    """One connection after another, until the outbox is closed.

    Between them are ever longer pauses, but for an absence on purpose: from that the device comes back at its time, or
    when the fleet's time is over or the world stops, to hand over what it still has.
    """
    absences, chance = Absences(device, world), Random(f"{device.seed}/pauses")
    attempts = 0
    async with asyncio.TaskGroup() as beside:
        clashes = beside.create_task(absences.clash(), name=f"{device.name}: clashes")
        while not outbox.closed.is_set():
            await absences.pass_by()
            began_s = _now_s()
            try:
                await be_present(device, dialect, world, speak, absences)
            except ConnectionLost as error:
                if not absences.on_purpose:
                    world.counts.trouble = str(error)
            outbox.restore()
            if absences.on_purpose:
                attempts = 0
                continue
            attempts = 1 if _now_s() - began_s > STEADY_S else attempts + 1
            await happens(outbox.closed, before_s=_now_s() + pause_s(attempts, chance))
        clashes.cancel()


def pause_s(attempts: int, chance: Random) -> float:
    """How long to wait after so many attempts in vain: twice as long each time, with jitter, up to the longest."""
    doublings = min(attempts, 10)  # a broker may be away for thousands of attempts, and 2.0**1024 is an error
    return min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0**doublings) * chance.uniform(0.5, 1)


async def be_present(device: Device, dialect: Dialect, world: World, speak: Speak, absences: Absences) -> None:
    """One connection: birth, what there is to say, farewell. An absence on purpose cuts it short."""
    group = device.group
    will = dialect.will(world.clock.now_us())
    async with connect(world.door, client_id(device), will if group.will else None, group.session) as connection:
        world.counts.connected += 1
        world.reached.set()
        try:
            if group.birth:
                await _announce(dialect.birth(world.clock.now_us()), connection, world)
            interrupted = await _interrupted(speak(connection), absences.begin_s)
            if interrupted and (absence := absences.begin()) is not None and absence.what == "die":
                connection.abort()
                await asyncio.Event().wait()  # the end of the connection interrupts this
            if group.will:
                await _announce(dialect.death(world.clock.now_us()), connection, world)
        finally:
            world.counts.connected -= 1


def client_id(device: Device) -> str:
    """As the broker knows it."""
    return f"amber-device-{device.name}"


async def _interrupted(speaking: Awaitable[None], at_s: float | None) -> bool:
    """Whether the time came before the end."""
    limit = asyncio.timeout_at(at_s)
    try:
        async with limit:
            await speaking
    except TimeoutError:
        if not limit.expired():
            raise
    return limit.expired()


async def _announce(publications: Sequence[Publication], connection: Connection, world: World) -> None:
    """Publish what tells of coming or going, and wait until the broker has it, or at QoS 0 until it is written."""
    for publication in publications:
        refusal = await connection.send(publication, qos=publication.qos)
        if refusal is None:
            world.counts.statuses += 1
        else:
            world.counts.trouble = f"{publication.topic} refused: {refusal}"


class Absences:
    """When a device is away on purpose, in the fleet's time: none begins after that is over, or outlasts it.

    `on_purpose`: the last connection was ended by one of them.
    """

    def __init__(self, device: Device, world: World) -> None:
        self.on_purpose = False
        self._device, self._world = device, world
        duration_s = world.fleet.duration_s
        self._end_us = sys.maxsize if duration_s is None else world.fleet.start_us + int(duration_s * SECOND_US)
        self._coming = self._in_time(connecting.absences(device, world.fleet))
        self._next = next(self._coming, None)
        self._back_us = world.fleet.start_us
        self._other: asyncio.Event | None = None
        """While another client has the device's name: when that is over."""

    @property
    def begin_s(self) -> float | None:
        """When the next one begins, by the loop's clock; but for clashes, which come without a word."""
        return None if self._next is None else self._world.clock.loop_time_s(self._next.at_us)

    def begin(self) -> Disturbance | None:
        """It begins now, whatever the time."""
        begun = self._next
        if begun is not None:
            self.on_purpose = True
            self._back_us = max(self._back_us, begun.back_us)
            self._next = next(self._coming, None)
        return begun

    async def pass_by(self) -> None:
        """Wait until all that have begun are over, or the fleet's time is, or the world stops."""
        stopping, clock = self._world.stopping, self._world.clock
        while not stopping.is_set():
            while self._next is not None and self._next.at_us <= clock.now_us():
                self.begin()
            back_us = min(self._back_us, self._end_us)
            if back_us > clock.now_us():
                await happens(stopping, before_s=clock.loop_time_s(back_us))
            elif self._other is not None:
                await self._other.wait()
            else:
                break
        self.on_purpose = False

    async def clash(self) -> None:
        """All clashes: another client takes the device's name, and with it the connection, and leaves after a while."""
        world = self._world
        for clash in self._in_time(connecting.clashes(self._device, world.fleet)):
            if await happens(world.stopping, before_s=world.clock.loop_time_s(clash.at_us)):
                return
            gone = self._other = asyncio.Event()
            self.on_purpose = True
            try:
                async with connect(world.door, client_id(self._device), None):
                    until_us = min(clash.back_us, self._end_us)
                    await happens(world.stopping, before_s=world.clock.loop_time_s(until_us))
            except ConnectionLost:
                self.on_purpose = False  # the broker is away: the device is not disturbed, or has noticed itself
            finally:
                self._other = None
                gone.set()

    def _in_time(self, planned: Iterator[Disturbance]) -> Iterator[Disturbance]:
        """Those that begin before the fleet's time is over."""
        return takewhile(lambda one: one.at_us < self._end_us, planned)


def _now_s() -> float:
    return asyncio.get_running_loop().time()
