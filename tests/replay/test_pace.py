"""Claims about when events are due, held against a watch that nobody has to wait for."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from contextlib import aclosing
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.event import StoredEvent
from storage.filters import Clock
from storage.replay import Manner, Pace, Played, Player, time_of
from storage.replay.pace import CATCH_UP_S
from tests.replay.filled import SECOND, T0, Events, FakeWatch, event

HOUR = 3_600 * SECOND

Given = list[tuple[float, list[StoredEvent]]]


def give_out(
    events: Sequence[StoredEvent],
    speed: float | None,
    watch: FakeWatch,
    *,
    page_events: int = 7,
    played: Played | None = None,
    busy_s: float = 0.0,
    rate: float | None = None,
) -> Given:
    """Play the events; each batch comes with the time at which it was given out. Using one takes `busy_s`."""

    async def run() -> Given:
        given: Given = []
        manner = Manner(speed=speed, rate=rate)
        batches = Player(Events(events, page_events), manner, played, watch).batches()
        async with aclosing(batches):
            async for batch in batches:
                given.append((watch.now_s(), batch))
                watch.at_s += busy_s
        return given

    return asyncio.run(run())


def times(events: Sequence[StoredEvent], clock: Clock = "received", max_gap_us: int | None = None) -> list[float]:
    pace = Pace(1, clock, max_gap_us)
    return [pace.log_s(event) for event in events]


@given(
    steps=st.lists(st.integers(-30 * SECOND, 30 * SECOND), min_size=1, max_size=60),
    speed=st.sampled_from([0.25, 1.0, 10.0, 1_000.0]),
    slack=st.sampled_from([0.5, 1.0, 1.5]),
    busy_s=st.sampled_from([0.0, 0.02]),
    page_events=st.integers(1, 20),
)
def test_every_event_comes_once_in_order_and_never_before_it_is_due(
    steps: list[int], speed: float, slack: float, busy_s: float, page_events: int
) -> None:
    """Whatever the times, and whether one sleeps too long, too short, or has no time to sleep."""
    at = list(accumulate(steps, initial=T0))
    events = [event(1 + n, time) for n, time in enumerate(at)]
    watch = FakeWatch(slack=slack)
    started_s = watch.at_s
    given = give_out(events, speed, watch, page_events=page_events, busy_s=busy_s)
    assert [event for _, batch in given for event in batch] == events
    due_s = [started_s + (highest - T0) / SECOND / speed for highest in accumulate(at, max)]
    for now_s, batch in given:
        assert all(now_s >= due_s[event.id - 1] - 1e-9 for event in batch)


@given(gaps=st.lists(st.integers(0, 5 * SECOND), min_size=1, max_size=60), speed=st.sampled_from([0.5, 1.0, 25.0]))
def test_an_event_comes_as_soon_as_it_is_due(gaps: list[int], speed: float) -> None:
    events = [event(1 + n, time) for n, time in enumerate(accumulate(gaps, initial=T0))]
    watch = FakeWatch()
    started_s = watch.at_s
    for now_s, batch in give_out(events, speed, watch):
        for each in batch:
            assert now_s - started_s == pytest.approx((each.received_at - T0) / SECOND / speed, abs=1e-5)


def test_lateness_does_not_add_up() -> None:
    """Each sleep takes half as long again as it was asked for, and yet the thousandth event comes in its second."""
    events = [event(1 + n, T0 + n * SECOND) for n in range(1_000)]
    watch, played = FakeWatch(slack=1.5), Played()
    started_s = watch.at_s
    given = give_out(events, 1, watch, played=played)
    assert 999 <= given[-1][0] - started_s < 1_000
    assert 0 < played.worst_lateness_s < 1


def test_one_who_is_too_slow_gets_more_at_a_time_and_is_told_how_late_he_is() -> None:
    events = [event(1 + n, T0 + n * SECOND // 10) for n in range(100)]
    played = Played()
    given = give_out(events, 1, FakeWatch(), played=played, page_events=50, busy_s=1.0)
    assert [len(batch) for _, batch in given[:4]] == [1, 10, 10, 10]
    assert played.worst_lateness_s == pytest.approx(0.9, abs=0.11)


def test_as_fast_as_possible_gives_whole_pages_and_never_sleeps() -> None:
    events = [event(1 + n, T0 + n * HOUR) for n in range(20)]
    watch, played = FakeWatch(), Played()
    given = give_out(events, None, watch, page_events=8, played=played)
    assert [len(batch) for _, batch in given] == [8, 8, 4]
    assert (watch.waits, played.worst_lateness_s) == (0, 0.0)


@given(
    gaps=st.lists(st.integers(0, SECOND // 10), min_size=1, max_size=80),
    rate=st.sampled_from([1.0, 30.0, 1_000.0]),
    speed=st.sampled_from([1.0, 50.0, None]),
    busy_s=st.sampled_from([0.0, 0.5]),
)
def test_no_more_events_come_in_any_time_than_the_rate_lets_through(
    gaps: list[int], rate: float, speed: float | None, busy_s: float
) -> None:
    """Also after one was too slow for a while: nothing is made up for in a burst."""
    events = [event(1 + n, time) for n, time in enumerate(accumulate(gaps, initial=T0))]
    given = give_out(events, speed, FakeWatch(), rate=rate, busy_s=busy_s)
    assert [event for _, batch in given for event in batch] == events
    came = [now_s for now_s, batch in given for _ in batch]
    for first in range(len(came)):
        for last in range(first, len(came)):
            assert last - first <= (came[last] - came[first] + CATCH_UP_S) * rate + 1e-6


def test_a_rate_is_reached_evenly() -> None:
    events = [event(1 + n, T0) for n in range(500)]
    watch = FakeWatch()
    given = give_out(events, None, watch, rate=100)
    assert {len(batch) for _, batch in given} == {1}
    assert given[-1][0] - given[0][0] == pytest.approx(4.99, abs=0.02)


def test_what_was_played_is_counted() -> None:
    events = [event(11 + n, T0 + n * SECOND) for n in range(101)]
    played = Played()
    give_out(events, 10, FakeWatch(), played=played)
    assert (played.events, played.position) == (101, 111)
    assert (played.log_s, played.seconds) == pytest.approx((100.0, 10.0))
    assert (played.events_per_s, played.speed) == pytest.approx((10.1, 10.0))


def test_nothing_played_counts_as_nothing() -> None:
    played = Played()
    assert give_out([], 1, FakeWatch(), played=played) == []
    assert (played.events_per_s, played.speed) == (0.0, 0.0)


def test_what_a_device_kept_while_it_was_away_comes_at_once() -> None:
    events = [
        event(1, T0, T0),
        event(2, T0 + 10 * SECOND, T0 + 10 * SECOND),
        event(3, T0 + 11 * SECOND, T0 - HOUR),
        event(4, T0 + 11 * SECOND, T0 + 2 * SECOND),
        event(5, T0 + 12 * SECOND, T0 + 12 * SECOND),
    ]
    assert times(events, "observed") == [0, 10, 10, 10, 12]


def test_a_long_silence_is_kept_unless_gaps_are_shortened() -> None:
    events = [event(1, T0), event(2, T0 + HOUR), event(3, T0 + HOUR + 3 * SECOND), event(4, T0 + 2 * HOUR)]
    assert times(events) == [0, 3_600, 3_603, 7_200]
    assert times(events, max_gap_us=10 * SECOND) == [0, 10, 13, 23]


def test_the_pace_goes_on_when_the_gateways_clock_is_set_back() -> None:
    events = [event(1, T0), event(2, T0 + SECOND), event(3, T0 + SECOND - HOUR), event(4, T0 + 3 * SECOND - HOUR)]
    assert times(events) == [0, 1, 1, 3]


@pytest.mark.parametrize("wrong", [-1, 0, 86_400 * SECOND, 4_102_444_800 * SECOND, 2**63 - 1, -(2**63)])
def test_a_device_with_a_wrong_clock_does_not_hold_up_the_others(wrong: int) -> None:
    events = [event(1, T0), event(2, T0 + SECOND, wrong), event(3, T0 + 2 * SECOND)]
    assert times(events, "observed") == [0, 1, 2]
    assert times(events[1:], "observed") == [0, 1]


def test_a_time_is_that_of_the_clock_asked_for() -> None:
    of = event(1, T0, T0 - 5)
    assert (time_of(of, "received"), time_of(of, "observed")) == (T0, T0 - 5)


@pytest.mark.parametrize("speed", [0, -1, float("nan")])
def test_a_speed_that_leads_nowhere_is_refused(speed: float) -> None:
    with pytest.raises(ValueError, match="above 0"):
        Pace(speed, "received")
    with pytest.raises(ValueError, match="above 0"):
        Manner(speed=speed)
    with pytest.raises(ValueError, match="above 0"):
        Manner(rate=speed)


def test_whoever_stops_waits_for_the_page_that_is_being_read() -> None:
    """Another thread reads it, out of a file that is to be closed next."""
    reading, go_on, was_read = threading.Event(), threading.Event(), threading.Event()

    class Slow(Events):
        def pages(self, after: int, page_events: int) -> Iterator[list[StoredEvent]]:  # noqa: ARG002 - the same pages for all
            yield [event(1, T0)]
            reading.set()
            go_on.wait(10)
            was_read.set()
            yield [event(2, T0)]

    async def listen() -> None:
        async with aclosing(Player(Slow([]), Manner(speed=None), watch=FakeWatch()).batches()) as batches:
            async for _ in batches:
                pass

    async def run() -> None:
        listening = asyncio.create_task(listen())
        assert await asyncio.to_thread(reading.wait, 10)
        listening.cancel()
        ended, _ = await asyncio.wait([listening], timeout=0.1)
        assert not ended
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await listening
        assert was_read.is_set()

    asyncio.run(run())
