"""What the broker has not acknowledged is kept, in order and within bounds."""

from __future__ import annotations

import asyncio

import pytest

from devices.outbox import Outbox
from devices.outgoing import Outgoing, Publication

MESSAGES = [Outgoing("5f3a", seq, seq, seq, Publication("t", b"")) for seq in range(10)]


def filled(limit: int = 10, window: int = 10) -> Outbox:
    outbox = Outbox(limit, window)
    for message in MESSAGES:
        outbox.put(message)
    return outbox


async def taken(outbox: Outbox, number: int) -> list[int]:
    return [message.seq for _ in range(number) if (message := await outbox.take())]


def test_a_full_outbox_keeps_the_oldest_and_refuses_the_new() -> None:
    outbox = filled(limit=4)
    assert len(outbox) == 4
    assert not outbox.put(MESSAGES[9])
    assert asyncio.run(taken(outbox, 4)) == [0, 1, 2, 3]


def test_what_is_on_its_way_still_counts() -> None:
    outbox = filled(limit=10)
    asyncio.run(taken(outbox, 5))
    assert not outbox.put(MESSAGES[9])


def test_after_a_lost_connection_the_unacknowledged_come_first_again() -> None:
    outbox = filled()
    asyncio.run(taken(outbox, 4))
    outbox.settle(MESSAGES[1])
    outbox.restore()
    assert asyncio.run(taken(outbox, 9)) == [0, 2, 3, 4, 5, 6, 7, 8, 9]


def test_a_message_is_sent_for_the_first_time_only_once() -> None:
    outbox = filled()
    assert [outbox.first_time(MESSAGES[n]) for n in (0, 1, 0, 1, 2)] == [True, True, False, False, True]


def test_an_answer_after_the_connection_was_lost_changes_nothing() -> None:
    outbox = filled()
    asyncio.run(taken(outbox, 1))
    outbox.restore()
    assert not outbox.settle(MESSAGES[0])
    assert len(outbox) == 10


def test_no_more_than_the_window_is_on_its_way() -> None:
    async def claim() -> None:
        outbox = filled(window=3)
        await taken(outbox, 3)
        fourth = asyncio.create_task(outbox.take())
        assert not await settled(fourth)
        outbox.settle(MESSAGES[0])
        assert await settled(fourth)
        assert fourth.result() == MESSAGES[3]

    async def settled(task: asyncio.Task[Outgoing | None]) -> bool:
        for _ in range(5):
            await asyncio.sleep(0)
        return task.done()

    asyncio.run(claim())


def test_who_waits_at_an_outbox_hears_that_it_closes() -> None:
    async def claim() -> None:
        outbox = Outbox(10, 10)
        waiting = asyncio.create_task(outbox.take())
        await asyncio.sleep(0)
        outbox.close()
        assert await waiting is None

    asyncio.run(claim())


@pytest.mark.parametrize("number", [1, 10])
def test_an_outbox_is_empty_when_all_is_answered(number: int) -> None:
    outbox = Outbox(10, 10)
    assert outbox.empty.is_set()
    for message in MESSAGES[:number]:
        outbox.put(message)
    asyncio.run(taken(outbox, number))
    assert not outbox.empty.is_set()
    for message in MESSAGES[:number]:
        outbox.settle(message)
    assert outbox.empty.is_set()
