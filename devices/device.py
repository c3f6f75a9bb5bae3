"""The life of one device: it measures at its pace, and publishes whenever there is a connection to publish on."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine, Sequence
from functools import partial

import msgspec

from devices.agenda import Agenda
from devices.clock import SECOND_US, Clock, happens
from devices.connection import WINDOW, Connection, Door
from devices.counts import Counts
from devices.courier import Courier, Post
from devices.dialects import Dialect, speak
from devices.fleet import Device, Fleet
from devices.ledger import Ledger
from devices.outbox import Held, Outbox
from devices.outbox_file import OutboxFile
from devices.outgoing import Outgoing
from devices.presence import client_id, stay_present
from devices.telemetry import telemetry

GRACE_S = 5.0
"""How long a device waits for acknowledgements after its last message."""

FAREWELL_S = 5.0
"""How long its goodbye may take; it is cut off then, and the broker publishes the will."""

HELD_MESSAGES = 1_000
HELD_MESSAGES_OF_ALL = 200_000
"""What a device, and all of them together, hold in memory while the broker is away: some 80 MB at most."""

RECEIPTS_WINDOW = 100
"""Messages of one device without a receipt at a time: a gateway's commit takes longer than a broker's answer."""

RECEIPTS = "amber/receipts/"
"""Below it each device has a topic of its own, by its client id."""


class World(msgspec.Struct):
    """What all devices of a simulation share."""

    fleet: Fleet
    clock: Clock
    door: Door
    counts: Counts
    ledger: Ledger | None
    stopping: asyncio.Event
    reached: asyncio.Event
    outbox: OutboxFile | None = None
    grace_s: float = GRACE_S
    post: Post = msgspec.field(default_factory=Post)
    agenda: Agenda | None = None


async def live(device: Device, world: World, left: Sequence[Held] = ()) -> None:
    """From its first message to its farewell. `left` is what an earlier run has left in its outbox."""
    outbox, dialect = _outbox(device, world, left), speak(device, world.fleet)
    await _present_during(measure(device, dialect, outbox, world), device, dialect, outbox, world)


async def stand_in(device: Device, dialect: Dialect, world: World, left: Sequence[Held]) -> None:
    """In the place of a device that the fleet has no more: send what it left in its outbox, and nothing else."""
    outbox = _outbox(device, world, left)
    await _present_during(_until_empty(outbox, world), device, dialect, outbox, world)


async def _present_during(
    business: Coroutine[None, None, None], device: Device, dialect: Dialect, outbox: Outbox, world: World
) -> None:
    speaking = partial(hand_over, device, outbox, world)
    async with asyncio.TaskGroup() as group:
        presence = group.create_task(
            stay_present(device, dialect, outbox, world, speaking), name=f"{device.name}: presence"
        )
        await business
        await _finish(outbox, presence, world)


async def measure(device: Device, dialect: Dialect, outbox: Outbox, world: World) -> None:
    """Put every message into the outbox at its time, until the fleet's time is over or the world stops."""
    fleet, clock = world.fleet, world.clock
    end_us = sys.maxsize if (end := _end_us(fleet)) is None else end
    messages = telemetry(device, fleet, dialect)
    message = next(messages, None)

    def due_s() -> float | None:
        """None where nothing comes any more; yet a device is there until the fleet's time is over."""
        if message is not None:
            return clock.loop_time_s(min(message.due_us, end_us))
        return None if end is None else clock.loop_time_s(end)

    def put() -> float | None:
        nonlocal message
        if message is None or message.due_us >= end_us:
            return None
        _put(message, device, outbox, world)
        message = next(messages, None)
        return due_s()

    if world.agenda is None:
        world.agenda = Agenda(world.stopping)
    if (first_s := due_s()) is not None:
        await world.agenda.follow(put, first_s)


def _put(message: Outgoing, device: Device, outbox: Outbox, world: World) -> None:
    if outbox.put(message):
        return
    world.counts.failed += 1
    why = f"{device.name} holds {len(outbox)} messages already"
    if world.outbox is not None and world.outbox.trouble:
        why = world.outbox.trouble
    world.counts.failure = world.counts.trouble = why


async def hand_over(device: Device, outbox: Outbox, world: World, connection: Connection) -> None:
    """Send what the outbox holds, several at a time, until it is closed."""
    courier = Courier(device, outbox, world, connection)
    if device.group.receipts:
        await connection.listen(f"{RECEIPTS}{client_id(device)}", courier.receipted)
        world.post.remind(courier)
    outbox.on_ready = connection.on_writable = partial(world.post.ready, courier)
    world.post.ready(courier)
    try:
        await outbox.closed.wait()
    finally:
        outbox.on_ready = _nothing
        world.post.dismiss(courier)


def _outbox(device: Device, world: World, left: Sequence[Held]) -> Outbox:
    window = RECEIPTS_WINDOW if device.group.receipts else WINDOW
    if world.outbox is None:
        share = min(HELD_MESSAGES, HELD_MESSAGES_OF_ALL // max(1, world.fleet.devices))
        return Outbox(max(window, share), window)
    outbox = Outbox(max(window, world.outbox.share), window, world.outbox.shelf(device))
    for held in left:
        outbox.put_back(held)
    return outbox


async def _finish(outbox: Outbox, presence: asyncio.Task[None], world: World) -> None:
    """Wait a while for the last answers, then say goodbye."""
    if world.reached.is_set() or not world.stopping.is_set():  # who never reached a broker need not wait for it
        await happens(outbox.empty, before_s=_now_s() + world.grace_s)
    world.counts.elapsed_s = _now_s() - world.clock.loop_start_s
    outbox.close()
    await asyncio.wait({presence}, timeout=FAREWELL_S)
    presence.cancel()
    if world.outbox is None:
        world.counts.failed += len(outbox)
    else:
        world.counts.left += len(outbox)


async def _until_empty(outbox: Outbox, world: World) -> None:
    """Or until the fleet's time is over, or the world stops."""
    waits = [asyncio.ensure_future(event.wait()) for event in (outbox.empty, world.stopping)]
    end_us = _end_us(world.fleet)
    timeout_s = None if end_us is None else max(0.0, world.clock.loop_time_s(end_us) - _now_s())
    try:
        await asyncio.wait(waits, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()


def _end_us(fleet: Fleet) -> int | None:
    return None if fleet.duration_s is None else fleet.start_us + int(fleet.duration_s * SECOND_US)


def _nothing() -> None:
    pass


def _now_s() -> float:
    return asyncio.get_running_loop().time()
