"""Claims about a replay that is told meanwhile to pause, to step, to seek, to go faster, to begin again."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import aclosing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.event import StoredEvent
from storage.filters import Filters
from storage.history import Reader
from storage.replay import Manner, Player, StoredRange, events_player, messages_player
from tests.replay.filled import SECOND, T0, Events, FakeWatch, entry, event, fill, position

MINUTE = [event(1 + n, T0 + n * SECOND) for n in range(60)]
"""An event each second."""

Order = Callable[[Player[StoredEvent]], None]


def seconds(speed: float | None = 1.0, **manner: object) -> tuple[Player[StoredEvent], FakeWatch]:
    watch = FakeWatch()
    made = Manner(speed=speed, **manner)  # type: ignore[arg-type]
    return Player(Events(MINUTE), made, watch=watch), watch


async def play(
    player: Player[StoredEvent], watch: FakeWatch, orders: dict[int, Order] | None = None, most: int = 1_000
) -> list[tuple[float, int]]:
    """When each event came; the orders are given right after the events of these numbers."""
    began = watch.now_s()
    came: list[tuple[float, int]] = []
    async with aclosing(player.batches()) as batches:
        async for batch in batches:
            for one in batch:
                came.append((round(watch.now_s() - began, 3), one.id))
                if order := (orders or {}).pop(len(came), None):
                    order(player)
            if len(came) >= most:
                break
    return came


def about(one: tuple[float, int]) -> tuple[float, int]:
    return round(one[0], 1), one[1]


async def until_waiting(watch: FakeWatch) -> None:
    """Until it has done what it was told, and waits for the next word."""
    await asyncio.sleep(0)
    while not watch.rests:
        await asyncio.sleep(0)


async def test_another_speed_counts_from_where_it_is_told() -> None:
    player, watch = seconds()

    def faster(player: Player[StoredEvent]) -> None:
        player.speed = 10

    came = await play(player, watch, {11: faster})
    assert came[10] == (10.0, 11)
    assert about(came[-1]) == (14.9, 60)
    assert player.played.worst_lateness_s < 0.01


async def test_a_pause_holds_the_log_where_it_is() -> None:
    """As long as it lasts: nothing is due then, and nothing is late afterwards."""
    player, watch = seconds()

    async def hold() -> None:
        await until_waiting(watch)
        watch.at_s += 3_600
        assert player.received_at() == pytest.approx(T0 + 4 * SECOND, abs=1_000)
        player.resume()

    holding = asyncio.create_task(hold())
    came = await play(player, watch, {5: Player.pause})
    await holding
    assert [id for _, id in came] == list(range(1, 61))
    assert came[5][0] == pytest.approx(3_605.0, abs=0.01)
    assert came[-1][0] == pytest.approx(3_659.0, abs=0.01)
    assert player.played.worst_lateness_s < 0.01


async def test_while_it_is_paused_events_come_one_by_one_as_they_are_asked_for() -> None:
    player, watch = seconds(paused=True)
    seen: list[int] = []

    async def listen() -> None:
        async with aclosing(player.batches()) as batches:
            async for batch in batches:
                seen.extend(one.id for one in batch)

    listening = asyncio.create_task(listen())
    await until_waiting(watch)
    assert seen == []
    player.step()
    await until_waiting(watch)
    assert seen == [1]
    player.step(3)
    await until_waiting(watch)
    assert seen == [1, 2, 3, 4]
    assert player.received_at() == T0 + 3 * SECOND
    player.stop()
    await listening
    assert (seen, player.stopped, player.played.events) == ([1, 2, 3, 4], True, 4)


async def test_a_step_means_nothing_while_it_plays() -> None:
    player, watch = seconds()
    came = await play(player, watch, {3: Player.step})
    assert [time for time, _ in came] == pytest.approx([float(n) for n in range(60)], abs=0.01)


async def test_steps_that_were_not_made_are_forgotten_when_it_goes_on() -> None:
    """Else the next pause would not be one."""
    player, watch = seconds(paused=True)

    def go_on(player: Player[StoredEvent]) -> None:
        player.step(10)
        player.resume()

    player.step()
    playing = asyncio.create_task(play(player, watch, {1: go_on, 3: Player.pause}))
    await until_waiting(watch)
    assert player.played.events == 3
    player.stop()
    await playing


async def test_it_goes_back_and_on_by_time_of_the_log() -> None:
    player, watch = seconds()
    came = await play(player, watch, {21: lambda p: p.seek(-10), 32: lambda p: p.seek(20)}, most=40)
    ids = [id for _, id in came]
    assert ids[:21] == list(range(1, 22))
    # The 21st stands at 20 s: ten seconds back is the 11th, which is due at once.
    assert ids[21:32] == list(range(11, 22))
    assert came[21][0] == pytest.approx(20.0, abs=0.01)
    assert ids[32:] == list(range(41, 49))
    assert [time for time, _ in came] == sorted(time for time, _ in came)
    assert player.played.worst_lateness_s < 0.01


async def test_nobody_gets_out_of_the_range() -> None:
    """Back beyond its beginning is the beginning, on beyond its end is the end."""
    player, watch = seconds()
    came = await play(player, watch, {5: lambda p: p.seek(-3_600), 10: lambda p: p.seek(3_600)})
    assert [id for _, id in came] == [1, 2, 3, 4, 5, 1, 2, 3, 4, 5]


async def test_a_seek_within_a_silence_shortens_or_prolongs_it() -> None:
    events = [event(1, T0), event(2, T0 + 100 * SECOND)]
    for sought, due in ((30, 70.0), (-30, 100.0)):
        watch = FakeWatch()
        player = Player(Events(events), Manner(), watch=watch)
        came = await play(player, watch, {1: lambda p, by=sought: p.seek(by)})  # type: ignore[misc]
        assert about(came[-1]) == (due, 2)


async def test_it_begins_again_as_often_as_it_is_told() -> None:
    player, watch = seconds(rounds=3)
    came = await play(player, watch)
    assert [id for _, id in came] == [*range(1, 61)] * 3
    assert about(came[60]) == (59.0, 1)
    assert about(came[-1]) == (177.0, 60)
    assert player.played.round == 3


async def test_without_end_means_until_it_is_told_to_stop() -> None:
    player, watch = seconds(None, rounds=None)
    came = await play(player, watch, {1_000: Player.stop}, most=10_000)
    assert 1_000 <= len(came) < 1_100
    assert player.stopped


async def test_a_round_that_is_broken_off_is_the_last() -> None:
    player, watch = seconds(None, rounds=None, paused=True)
    playing = asyncio.create_task(play(player, watch))
    await until_waiting(watch)
    player.stop()
    assert await playing == []
    assert (player.played.events, player.played.round) == (0, 1)
    player, _ = seconds(None, rounds=None)
    async for _ in player.batches():
        player.stop()
    assert player.played.round == 1


async def test_a_range_with_nothing_in_it_does_not_go_round_for_ever() -> None:
    for paused in (False, True):
        player: Player[StoredEvent] = Player(Events([]), Manner(rounds=None, paused=paused), watch=FakeWatch())
        assert [batch async for batch in player.batches()] == []


async def test_whoever_is_paused_at_the_end_may_still_go_back() -> None:
    player, watch = seconds(None)
    seen: list[int] = []

    async def listen() -> None:
        async with aclosing(player.batches()) as batches:
            async for batch in batches:
                seen.extend(one.id for one in batch)
                if len(seen) == 60:
                    player.pause()

    listening = asyncio.create_task(listen())
    await until_waiting(watch)
    player.seek(-10)
    await until_waiting(watch)
    player.step()
    await until_waiting(watch)
    assert seen[60:] == [50]
    player.resume()
    await listening
    assert seen[60:] == list(range(50, 61))


@given(
    orders=st.lists(st.tuples(st.integers(1, 90), st.sampled_from(["seek", "speed", "pause", "back"])), max_size=8),
    page_events=st.integers(1, 30),
)
def test_whatever_it_is_told_events_come_in_order_and_never_too_early(
    orders: Sequence[tuple[int, str]], page_events: int
) -> None:
    """Between two seeks nothing is left out, and nothing comes faster than the speed lets it."""

    async def run() -> None:
        watch = FakeWatch()
        player = Player(Events(MINUTE, page_events), Manner(), watch=watch)
        jumps = [0]
        count = 0

        async def carry_on() -> None:
            while True:
                if player.paused:
                    watch.at_s += 5
                    player.resume()
                await asyncio.sleep(0)

        def tell(what: str) -> None:
            match what:
                case "seek" | "back":
                    player.seek(7.5 if what == "seek" else -7.5)
                    jumps.append(count)
                case "speed":
                    player.speed = 2.0
                case "pause":
                    player.pause()

        left = dict(orders)
        carrying = asyncio.create_task(carry_on())
        came: list[tuple[float, int]] = []
        async with aclosing(player.batches()) as batches:
            async for batch in batches:
                for one in batch:
                    came.append((watch.now_s(), one.id))
                    count += 1
                    if what := left.pop(count, None):
                        tell(what)
        carrying.cancel()
        jumps.append(count)
        for begin, end in itertools.pairwise(jumps):
            part = came[begin:end]
            assert [id for _, id in part] == list(range(part[0][1], part[0][1] + len(part))) if part else True
        for (before_s, _), (after_s, _) in itertools.pairwise(came):
            assert after_s >= before_s
        for begin, end in itertools.pairwise(jumps):
            part = came[begin:end]
            for (before_s, _), (after_s, _) in itertools.pairwise(part):
                assert after_s - before_s >= 0.5 - 1e-6

    asyncio.run(run())


# --- out of a store ---


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "amber.db"


async def test_a_range_does_not_grow_while_it_goes_round(path: Path) -> None:
    fill(path, [entry(n) for n in range(5)])
    seen: list[int] = []
    async with events_player(path, Filters(), Manner(speed=None, rounds=3)) as player:
        async for batch in player.batches():
            seen.extend(one.id for one in batch)
            fill(path, [entry(99)])
    assert seen == [position(n) for n in range(1, 6)] * 3


async def test_a_limited_range_stays_limited_wherever_one_seeks(path: Path) -> None:
    """Back and back again: the seventh is still the last."""
    fill(path, [entry(n, at=T0 + n * SECOND, topic=f"t/{n % 2}") for n in range(40)])
    seen: list[int] = []
    orders = {4: -3.0, 7: -6.0}
    async with events_player(path, Filters(topics=("t/1",)), Manner(speed=1_000.0), limit=7) as player:
        async for batch in player.batches():
            for one in batch:
                seen.append(one.id // 10_000)
                if sought := orders.pop(len(seen), None):
                    player.seek(sought)
                    break
    assert seen[:4] == [2, 4, 6, 8]
    assert seen[-1] == 14
    assert set(seen) <= {2, 4, 6, 8, 10, 12, 14}


def pages(reader: Reader, filters: Filters, limit: int | None, page_events: int) -> Iterator[list[StoredEvent]]:
    return reader.pages(filters, limit=limit, page_events=page_events)


@pytest.mark.parametrize(("far", "last"), [(1e300, position(3)), (float("inf"), position(3)), (-1e300, None)])
async def test_no_seek_is_too_far(path: Path, far: float, last: int | None) -> None:
    fill(path, (entry(n) for n in range(3)))
    async with events_player(path, Filters(), Manner(speed=None, paused=True)) as player:
        player.seek(far)
        player.seek(far)
        player.resume()
        came = [event.id async for batch in player.batches() for event in batch]
    assert came == ([] if last else [position(n) for n in (1, 2, 3)])


def test_places_are_found_by_time_within_the_range(path: Path) -> None:
    """What lies out of it is its beginning, or its end, and the time of that."""
    fill(path, [entry(n, at=T0 + n * SECOND) for n in range(40)])
    with StoredRange(path, Filters(after=position(5)), 30, pages, lambda event: event) as source:
        half = T0 + SECOND // 2
        assert source.back_to(half + 20 * SECOND, position(30)) == (position(21), half + 20 * SECOND)
        assert source.on_to(half + 20 * SECOND, position(10)) == (position(22) - 1, half + 20 * SECOND)
        assert source.back_to(T0, position(30)) == (position(5), T0 + 5 * SECOND)
        assert source.on_to(T0 + 38 * SECOND, position(30)) == (position(35), T0 + 34 * SECOND)


async def test_ten_times_too_far_is_no_farther_than_once() -> None:
    player, watch = seconds(paused=True)
    seen: list[int] = []

    async def listen() -> None:
        async with aclosing(player.batches()) as batches:
            async for batch in batches:
                seen.extend(one.id for one in batch)

    listening = asyncio.create_task(listen())
    await until_waiting(watch)
    for sought in (*[-100] * 10, 7.5, *[100] * 10, -3.5):
        player.seek(sought)
        await until_waiting(watch)
    player.resume()
    await listening
    assert seen == [57, 58, 59, 60]


async def test_messages_are_steered_alike(path: Path) -> None:
    fill(path, [entry(n, at=T0 + n * SECOND, events=2) for n in range(4)])
    seen: list[bytes] = []
    async with messages_player(path, Filters(), Manner(speed=None, rounds=2)) as player:
        async for batch in player.batches():
            seen.extend(message.payload for _, message in batch)
    assert seen == [b"{%d}" % n for n in range(4) for _ in range(2)] * 2
