"""One device keeps its pace and its bounds, whatever the broker does."""

from __future__ import annotations

import asyncio
from random import Random

import pytest

from devices.address import Address
from devices.clock import SECOND_US, Clock
from devices.connection import Door
from devices.counts import Counts
from devices.device import World, measure
from devices.dialects import speak
from devices.fleet import Fleet, devices, of_models
from devices.outbox import Outbox
from devices.presence import FIRST_PAUSE_S, LONGEST_PAUSE_S, pause_s


def world(rate: float, duration_s: float | None) -> World:
    groups = of_models(("thermometer",), devices=1, rate=rate, qos=1)
    fleet = Fleet(groups=groups, start_us=SECOND_US, duration_s=duration_s, seed="1")
    return World(
        fleet=fleet,
        clock=Clock.starting_now(fleet.start_us),
        door=Door(Address("127.0.0.1", 1), asyncio.Semaphore(1)),
        counts=Counts(devices=1),
        ledger=None,
        stopping=asyncio.Event(),
        reached=asyncio.Event(),
    )


async def measured(here: World, outbox: Outbox) -> None:
    device = next(devices(here.fleet))
    await measure(device, speak(device, here.fleet), outbox, here)


@pytest.mark.parametrize("attempts", [1, 2, 5, 1_024, 1_000_000])
def test_pauses_stay_within_bounds_however_long_the_broker_is_away(attempts: int) -> None:
    assert FIRST_PAUSE_S <= pause_s(attempts, Random(1)) <= LONGEST_PAUSE_S


def test_messages_that_find_no_room_have_failed() -> None:
    """While the broker is away memory is bounded, and what that costs is told."""

    async def claim() -> None:
        outbox = Outbox(limit=5, window=5)
        here = world(rate=500, duration_s=0.04)
        await measured(here, outbox)
        assert len(outbox) == 5
        assert here.counts.failed == 15
        assert here.counts.trouble == "thermo-0001 holds 5 messages already"

    asyncio.run(claim())


def test_events_come_at_their_time_and_not_before() -> None:
    async def claim() -> None:
        outbox, put = Outbox(limit=50, window=50), asyncio.Event()
        outbox.on_ready = put.set
        here = world(rate=100, duration_s=0.2)
        measuring = asyncio.create_task(measured(here, outbox))
        for _ in range(20):
            while (held := outbox.take()) is None:
                await put.wait()
                put.clear()
            assert held.message.observed_at <= here.clock.now_us()
        await measuring
        assert here.clock.now_us() - SECOND_US >= 0.2 * SECOND_US

    asyncio.run(claim())


def test_a_device_that_fell_behind_catches_up() -> None:
    """Its pace is kept against absolute times: a late start makes no event later than its time."""

    async def claim() -> None:
        outbox = Outbox(limit=1_000, window=10)
        late = world(rate=100, duration_s=5)
        late.clock = Clock(SECOND_US, late.clock.loop_start_s - 5)
        async with asyncio.timeout(2):
            await measured(late, outbox)
        assert len(outbox) == 500

    asyncio.run(claim())


def test_a_stop_is_heard_between_two_events() -> None:
    async def claim() -> None:
        outbox = Outbox(limit=10, window=10)
        here = world(rate=0.001, duration_s=None)
        measuring = asyncio.create_task(measured(here, outbox))
        here.stopping.set()
        async with asyncio.timeout(2):
            await measuring
        assert len(outbox) == 0

    asyncio.run(claim())
