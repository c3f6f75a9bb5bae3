"""The life of one device: it measures at its pace, and publishes whenever there is a connection to publish on."""

from __future__ import annotations

import asyncio
from functools import partial

import msgspec

from devices.clock import SECOND_US, Clock, happens
from devices.connection import WINDOW, Answer, Connection, Door
from devices.counts import Counts
from devices.dialects import Dialect, speak
from devices.fleet import Device, Fleet
from devices.ledger import Ledger
from devices.outbox import Outbox
from devices.outgoing import Outgoing
from devices.presence import stay_present
from devices.telemetry import telemetry

GRACE_S = 5.0
"""How long a device waits for acknowledgements after its last message."""

FAREWELL_S = 5.0
"""How long its goodbye may take; it is cut off then, and the broker publishes the will."""

HELD_MESSAGES = 1_000
HELD_MESSAGES_OF_ALL = 200_000
"""What a device, and all of them together, hold while the broker is away: some 80 MB at most."""


class World(msgspec.Struct):
    """What all devices of a simulation share."""

    fleet: Fleet
    clock: Clock
    door: Door
    counts: Counts
    ledger: Ledger | None
    stopping: asyncio.Event
    reached: asyncio.Event


async def live(device: Device, world: World) -> None:
    """From its first message to its farewell."""
    limit = max(WINDOW, min(HELD_MESSAGES, HELD_MESSAGES_OF_ALL // max(1, world.fleet.devices)))
    outbox, dialect = Outbox(limit, WINDOW), speak(device, world.fleet)
    async with asyncio.TaskGroup() as group:
        speaking = partial(hand_over, device, outbox, world)
        presence = group.create_task(
            stay_present(device, dialect, outbox, world, speaking), name=f"{device.name}: presence"
        )
        await measure(device, dialect, outbox, world)
        if world.reached.is_set() or not world.stopping.is_set():  # who never reached a broker need not wait for it
            await happens(outbox.empty, before_s=_now_s() + GRACE_S)
        world.counts.elapsed_s = _now_s() - world.clock.loop_start_s
        outbox.close()
        await asyncio.wait({presence}, timeout=FAREWELL_S)
        presence.cancel()
    world.counts.failed += len(outbox)


async def measure(device: Device, dialect: Dialect, outbox: Outbox, world: World) -> None:
    """Put every message into the outbox at its time, until the fleet's time is over or the world stops."""
    fleet, clock = world.fleet, world.clock
    end_us = None if fleet.duration_s is None else fleet.start_us + int(fleet.duration_s * SECOND_US)
    for message in telemetry(device, fleet, dialect):
        if end_us is not None and message.due_us >= end_us:
            await happens(world.stopping, before_s=clock.loop_time_s(end_us))
            return
        if await happens(world.stopping, before_s=clock.loop_time_s(message.due_us)):
            return
        if not outbox.put(message):
            world.counts.failed += 1
            world.counts.trouble = f"{device.name} holds {len(outbox)} messages already"


async def hand_over(device: Device, outbox: Outbox, world: World, connection: Connection) -> None:
    """Send what the outbox holds, several at a time, until it is closed."""
    qos = device.group.qos
    while (message := await outbox.take()) is not None:
        if qos:
            _note_sent(device, message, outbox, world)
        answer = connection.send(message.publication, qos=qos)
        answer.add_done_callback(partial(_note_answer, device, message, outbox, world))


def _note_sent(device: Device, message: Outgoing, outbox: Outbox, world: World) -> None:
    if outbox.first_time(message):
        world.counts.published += 1
    else:
        world.counts.repeated += 1
    if world.ledger is not None:
        world.ledger.sent(device.name, message, device.group.qos)


def _note_answer(device: Device, message: Outgoing, outbox: Outbox, world: World, answer: Answer) -> None:
    if not outbox.settle(message):
        return
    refusal = answer.result()
    if refusal is not None:
        world.counts.failed += 1
        world.counts.trouble = f"{message.publication.topic} refused: {refusal}"
    elif device.group.qos == 0:
        _note_sent(device, message, outbox, world)  # written to the socket, and no more is ever known
        world.counts.unanswerable += 1
    else:
        world.counts.acknowledged += 1
        if world.ledger is not None:
            world.ledger.answered(device.name, message, "acked")


def _now_s() -> float:
    return asyncio.get_running_loop().time()
