"""Claims about which events a replay of a real store gives out, and how well it keeps the pace."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path

import msgspec
import pytest

from storage.errors import StoreError
from storage.event import Rejection
from storage.filters import Filters
from storage.replay import Played, replay, replay_lines, replay_messages
from storage.store import Store, StoreOptions
from tests.replay.filled import SECOND, T0, entry, fill, position, positions


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "amber.db"


def event_ids(path: Path, filters: Filters, limit: int | None = None) -> list[int]:
    async def run() -> list[int]:
        return [event.id async for batch in replay(path, filters, speed=None, limit=limit) for event in batch]

    return asyncio.run(run())


def line_ids(path: Path, filters: Filters, played: Played | None = None) -> list[int]:
    lines = [line for lines in replay_lines(path, filters, played=played) for line in lines]
    return [msgspec.json.decode(line)["id"] for line in lines]


def test_a_range_comes_whole_and_in_order(path: Path) -> None:
    """More than a page, with messages of no, of one and of several events, and times that go back."""
    entries = [entry(n, events=n % 3, at=T0 - n * 1_000) for n in range(6_000)]
    fill(path, entries)
    every = [position(n + 1, place) for n in range(6_000) for place in range(n % 3)]
    assert event_ids(path, Filters()) == every
    assert event_ids(path, Filters(after=every[9], until_position=every[5_989])) == every[10:5_990]
    assert event_ids(path, Filters(after=every[9]), limit=5) == every[10:15]
    assert line_ids(path, Filters(after=every[9])) == every[10:]


def test_lines_and_events_are_counted_alike(path: Path) -> None:
    fill(path, (entry(n) for n in range(5_001)))
    by_events, by_lines = Played(), Played()

    async def run() -> None:
        async for _ in replay(path, Filters(), speed=None, played=by_events):
            pass

    asyncio.run(run())
    line_ids(path, Filters(), by_lines)
    for played in (by_events, by_lines):
        assert (played.events, played.position) == (5_001, position(5_001))
        assert played.log_s == pytest.approx(5.0)
        assert played.seconds > 0


@pytest.mark.parametrize("ids", [event_ids, line_ids])
def test_replays_of_a_growing_log_leave_nothing_out_and_repeat_nothing(
    path: Path, ids: Callable[[Path, Filters], list[int]]
) -> None:
    """Each goes on where the one before ended; a writer appends all the while."""
    store = Store(path, StoreOptions(segment_events=1_000, free_floor_bytes=0))
    stop = threading.Event()
    written = 0

    def write() -> None:
        nonlocal written
        while not stop.is_set():
            store.append([entry(written + n) for n in range(100)], 1)
            written += 100

    writer = threading.Thread(target=write)
    writer.start()
    try:
        seen: list[int] = []
        rounds = 0
        while len(seen) < 8_000:
            seen += ids(path, Filters(after=seen[-1] if seen else 0))
            rounds += 1
    finally:
        stop.set()
        writer.join()
        store.close()
    assert rounds > 1
    assert seen == positions(len(seen))


def test_a_replay_ends_at_what_was_there_when_it_began(path: Path) -> None:
    fill(path, [entry(n, at=T0 + n * SECOND // 100) for n in range(10)])
    seen: list[int] = []

    async def run() -> None:
        async for batch in replay(path, Filters()):
            if not seen:
                fill(path, [entry(99, at=T0 + SECOND)])
            seen.extend(event.id for event in batch)

    asyncio.run(run())
    assert seen == positions(10)


def test_the_pace_of_a_real_clock_is_kept(path: Path) -> None:
    """A thousand events a second: none early, and nearly all within a bound that a busy machine can keep."""
    fill(path, [entry(n) for n in range(1_500)])
    late: list[float] = []
    played = Played()

    async def run() -> None:
        started_s: float | None = None
        async for batch in replay(path, Filters(), played=played):
            now_s = time.monotonic()
            started_s = now_s if started_s is None else started_s
            late.extend(now_s - started_s - (event.received_at - T0) / SECOND for event in batch)

    asyncio.run(run())
    late.sort()
    # The first event, from which we count, may have been late itself.
    assert late[0] >= -played.worst_lateness_s - 1e-4
    assert late[int(0.99 * len(late))] < 0.1
    assert played.seconds == pytest.approx(1.499, abs=0.1)
    assert played.speed == pytest.approx(1, rel=0.1)


def test_messages_come_as_they_were_received(path: Path) -> None:
    entries = [entry(0, events=2, payload=b"\x00\xff", qos=2, retain=True), entry(1, qos=0)]
    fill(path, [entries[0], (entry(5)[0], Rejection("no format")), entries[1]])

    async def run() -> list[tuple[int, bytes, int, bool]]:
        pairs = [pair async for batch in replay_messages(path, Filters(), speed=None) for pair in batch]
        return [(event.id, message.payload, message.qos, message.retain) for event, message in pairs]

    assert asyncio.run(run()) == [
        (position(1), b"\x00\xff", 2, True),
        (position(1, 1), b"\x00\xff", 2, True),
        (position(3), b"{1}", 0, False),
    ]


def test_one_can_stop_in_the_middle(path: Path) -> None:
    """Nothing is left behind: no thread that reads, no open file that a warning would tell of."""
    fill(path, [entry(n, at=T0 + n * SECOND) for n in range(1_000)])

    async def run() -> int:
        async with aclosing(replay(path, Filters(), speed=20)) as batches:
            async for batch in batches:
                if batch[0].id > position(1):
                    return batch[0].id
        raise AssertionError("it ended")

    assert asyncio.run(run()) == position(2)


def test_a_cancelled_replay_ends_at_once(path: Path) -> None:
    """An hour before the next event is due."""
    fill(path, [entry(0), entry(1, at=T0 + 3_600 * SECOND)])
    seen: list[int] = []

    async def run() -> None:
        first = asyncio.Event()

        async def follow() -> None:
            async for batch in replay(path, Filters()):
                seen.extend(event.id for event in batch)
                first.set()

        following = asyncio.create_task(follow())
        await first.wait()
        following.cancel()
        with pytest.raises(asyncio.CancelledError):
            await following

    asyncio.run(run())
    assert seen == positions(1)


def test_a_store_that_is_not_there_is_named(path: Path) -> None:
    with pytest.raises(StoreError, match=str(path)):
        event_ids(path, Filters())
    with pytest.raises(StoreError, match=str(path)):
        line_ids(path, Filters())
