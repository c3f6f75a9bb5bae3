"""The life of one device: it measures at its pace, and publishes whenever there is a connection to publish on."""

from __future__ import annotations

import asyncio
from functools import partial
from random import Random

import msgspec

from devices.clock import SECOND_US, Clock, happens
from devices.connection import WINDOW, Answer, Connection, Door, Will, connect
from devices.counts import Counts
from devices.errors import ConnectionLost
from devices.ledger import Ledger
from devices.outbox import Outbox
from devices.plan import Device, Event, Plan, events, status

GRACE_S = 5.0
"""How long a device waits for acknowledgements after its last event."""

FAREWELL_S = 5.0
"""How long its goodbye may take; it is cut off then, and the broker publishes the will."""

HELD_EVENTS = 1_000
HELD_EVENTS_OF_ALL = 200_000
"""What a device, and all of them together, hold while the broker is away: some 80 MB at most."""

FIRST_PAUSE_S = 0.25
LONGEST_PAUSE_S = 5.0
STEADY_S = 10.0
"""A connection that lasted that long was a good one: the next pause is a short one again."""


class World(msgspec.Struct):
    """What all devices of a simulation share."""

    plan: Plan
    clock: Clock
    door: Door
    counts: Counts
    ledger: Ledger | None
    stopping: asyncio.Event
    reached: asyncio.Event


async def live(device: Device, world: World) -> None:
    """From its first event to its farewell."""
    outbox = Outbox(max(WINDOW, min(HELD_EVENTS, HELD_EVENTS_OF_ALL // world.plan.devices)), WINDOW)
    async with asyncio.TaskGroup() as group:
        presence = group.create_task(stay_present(device, outbox, world), name=f"{device.name}: presence")
        await measure(device, outbox, world)
        if world.reached.is_set() or not world.stopping.is_set():  # who never reached a broker need not wait for it
            await happens(outbox.empty, before_s=_now_s() + GRACE_S)
        world.counts.elapsed_s = _now_s() - world.clock.loop_start_s
        outbox.close()
        await asyncio.wait({presence}, timeout=FAREWELL_S)
        presence.cancel()
    world.counts.failed += len(outbox)


async def measure(device: Device, outbox: Outbox, world: World) -> None:
    """Put every event into the outbox at its time, until the plan ends or the world stops."""
    plan, clock = world.plan, world.clock
    end_us = None if plan.duration_s is None else plan.start_us + int(plan.duration_s * SECOND_US)
    for event in events(device, plan):
        if end_us is not None and event.observed_at >= end_us:
            await happens(world.stopping, before_s=clock.loop_time_s(end_us))
            return
        if await happens(world.stopping, before_s=clock.loop_time_s(event.observed_at)):
            return
        if not outbox.put(event):
            world.counts.failed += 1
            world.counts.trouble = f"{device.name} holds {len(outbox)} events already"


async def stay_present(device: Device, outbox: Outbox, world: World) -> None:
    """One connection after another, with ever longer pauses, until the outbox is closed."""
    chance = Random(f"{device.seed}/pauses")
    attempts = 0
    while not outbox.closed.is_set():
        began_s = _now_s()
        try:
            await be_present(device, outbox, world)
        except ConnectionLost as lost:
            world.counts.trouble = str(lost)
        outbox.restore()
        attempts = 1 if _now_s() - began_s > STEADY_S else attempts + 1
        await happens(outbox.closed, before_s=_now_s() + pause_s(attempts, chance))


def pause_s(attempts: int, chance: Random) -> float:
    """How long to wait after so many attempts in vain: twice as long each time, with jitter, up to the longest."""
    doublings = min(attempts, 10)  # a broker may be away for thousands of attempts, and 2.0**1024 is an error
    return min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0**doublings) * chance.uniform(0.5, 1)


async def be_present(device: Device, outbox: Outbox, world: World) -> None:
    """One connection: online, what the outbox holds, offline."""
    will = Will(device.status_topic, status(device, "offline", world.clock.now_us()))
    async with connect(world.door, f"amber-device-{device.name}", will) as connection:
        world.counts.connected += 1
        world.reached.set()
        try:
            await announce(device, "online", connection, world)
            await hand_over(device, outbox, connection, world)
            await announce(device, "offline", connection, world)
        finally:
            world.counts.connected -= 1


async def announce(device: Device, state: str, connection: Connection, world: World) -> None:
    """Publish the retained status, and wait until the broker has it."""
    payload = status(device, state, world.clock.now_us())
    refusal = await connection.send(device.status_topic, payload, qos=1, retain=True)
    if refusal is None:
        world.counts.statuses += 1
    else:
        world.counts.trouble = f"{device.status_topic} refused: {refusal}"


async def hand_over(device: Device, outbox: Outbox, connection: Connection, world: World) -> None:
    """Send what the outbox holds, several at a time, until it is closed."""
    while (event := await outbox.take()) is not None:
        answer = connection.send(device.telemetry_topic, event.payload, qos=world.plan.qos)
        if world.plan.qos:
            _note_sent(device, event, outbox, world)
        answer.add_done_callback(partial(_note_answer, device, event, outbox, world))


def _note_sent(device: Device, event: Event, outbox: Outbox, world: World) -> None:
    if outbox.first_time(event):
        world.counts.published += 1
    else:
        world.counts.repeated += 1
    if world.ledger is not None:
        world.ledger.record(device, event, "sent")


def _note_answer(device: Device, event: Event, outbox: Outbox, world: World, answer: Answer) -> None:
    if not outbox.settle(event):
        return
    refusal = answer.result()
    if refusal is not None:
        world.counts.failed += 1
        world.counts.trouble = f"{device.telemetry_topic} refused: {refusal}"
    elif world.plan.qos == 0:
        _note_sent(device, event, outbox, world)  # written to the socket, and no more is ever known
    else:
        world.counts.acknowledged += 1
        if world.ledger is not None:
            world.ledger.record(device, event, "acked")


def _now_s() -> float:
    return asyncio.get_running_loop().time()
