"""When devices measure: at their pace, in their hours, in bursts. Nothing of it asks a clock."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice, pairwise, takewhile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devices.clock import DAY_US, SECOND_US, microseconds
from devices.pace import Bursts, Hours, Pace, measured, openings, times

START_US = 1_795_338_000 * SECOND_US  # 2026-11-22T09:00:00Z, a Sunday
HOUR_US = 3600 * SECOND_US


def us(text: str) -> int:
    return microseconds(datetime.fromisoformat(text))


def until(end_us: int, found: Iterator[int]) -> list[int]:
    return list(takewhile(lambda time: time < end_us, found))


def opened(hours: Hours, start_us: int, number: int) -> list[tuple[str, str]]:
    return [
        (f"{datetime.fromtimestamp(begin / 1e6, UTC):%d %H:%M}", f"{datetime.fromtimestamp(end / 1e6, UTC):%d %H:%M}")
        for begin, end in islice(openings(hours, start_us), number)
    ]


def test_the_times_of_a_plain_pace_are_what_they_always_were() -> None:
    """A recorded run must come out again: the same seed, the same microseconds."""
    regular = times(Pace(1.0), START_US, "7/thermo-0001")
    assert [time - START_US for time in islice(regular, 3)] == [113_112, 1_113_112, 2_113_112]
    late = times(Pace(1.0, 0.5), START_US, "7/thermo-0001")
    assert [time - START_US for time in islice(late, 3)] == [320_065, 1_113_285, 2_292_157]


def test_jitter_makes_late_by_its_share_at_most() -> None:
    regular = list(islice(times(Pace(10.0), START_US, "a"), 500))
    late = [time - due for time, due in zip(times(Pace(10.0, 0.3), START_US, "a"), regular, strict=False)]
    assert 0 <= min(late) < 0.1 * SECOND_US
    assert 2.9 * SECOND_US < max(late) <= 3 * SECOND_US


def test_a_device_with_hours_speaks_in_them_and_at_no_other_time() -> None:
    day = until(START_US + DAY_US, times(Pace(60.0, hours=Hours(((6 * 3600, 22 * 3600),))), START_US, "a"))
    assert len(day) == 16 * 60
    assert all(6 <= time % DAY_US / HOUR_US < 22 for time in day)


def test_hours_go_on_past_midnight() -> None:
    assert opened(Hours(((22 * 3600, 6 * 3600),)), us("2026-11-22T23:30:00"), 2) == [
        ("22 23:30", "23 06:00"),
        ("23 22:00", "24 06:00"),
    ]


def test_what_is_open_since_yesterday_is_open_at_the_start() -> None:
    assert opened(Hours(((22 * 3600, 6 * 3600),)), us("2026-11-22T01:00:00"), 1) == [("22 01:00", "22 06:00")]


def test_hours_that_overlap_are_one_after_the_other() -> None:
    hours = Hours(((6 * 3600, 12 * 3600), (11 * 3600, 14 * 3600)))
    assert opened(hours, us("2026-11-22T00:00:00"), 3) == [
        ("22 06:00", "22 12:00"),
        ("22 12:00", "22 14:00"),
        ("23 06:00", "23 12:00"),
    ]


def test_hours_follow_summer_time() -> None:
    """In Berlin the clocks went forward on 29 March 2026 and back on 25 October."""
    hours = Hours(((6 * 3600, 22 * 3600),), "Europe/Berlin")
    assert opened(hours, us("2026-03-28T12:00:00"), 2) == [("28 12:00", "28 21:00"), ("29 04:00", "29 20:00")]
    assert opened(hours, us("2026-10-24T12:00:00"), 2) == [("24 12:00", "24 20:00"), ("25 05:00", "25 21:00")]


def test_a_whole_day_is_always_open() -> None:
    always, all_day = Pace(7.0), Pace(7.0, hours=Hours(((0, 86_400),)))
    assert list(islice(times(always, START_US, "a"), 30_000)) == list(islice(times(all_day, START_US, "a"), 30_000))


def test_a_night_costs_nothing() -> None:
    """Else a fast device that wakes up tomorrow would hold the simulation up: a thousand a second for 23 hours."""
    pace = Pace(0.001, hours=Hours(((8 * 3600, 8 * 3600 + 60),)))
    assert next(times(pace, START_US, "a")) == pytest.approx(us("2026-11-23T08:00:00"), abs=1_000)


@given(
    st.floats(0.5, 3600),
    st.floats(0, 0.99),
    st.lists(
        st.tuples(st.integers(0, 86_399), st.integers(0, 86_400)).filter(lambda span: span[0] != span[1]), min_size=1
    ),
    st.sampled_from(["UTC", "Europe/Berlin", "Australia/Lord_Howe", "America/St_Johns"]),
    st.integers(0, 2**51),
)
@settings(max_examples=60, deadline=None)
def test_times_never_fall_and_are_within_the_hours(
    every_s: float, jitter: float, spans: list[tuple[int, int]], zone: str, start_us: int
) -> None:
    hours = Hours(tuple(spans), zone)
    if hours.shortest_s < every_s:
        return
    found = list(islice(times(Pace(every_s, jitter, hours), start_us, "x"), 50))
    windows = openings(hours, start_us)
    begin, end = next(windows)
    for before, after in pairwise(found):
        assert before <= after
    for time in found:
        while time >= end:
            begin, end = next(windows)
        assert start_us <= begin <= time < end


def test_in_a_burst_several_come_at_once_in_place_of_one() -> None:
    found = until(START_US + 60 * SECOND_US, times(Pace(1.0, bursts=Bursts(20.0, 5)), START_US, "a"))
    counts = [found.count(time) for time in dict.fromkeys(found)]
    assert len(counts) == 60
    assert sorted(set(counts)) == [1, 5]
    assert counts.count(5) == 3


def test_where_each_is_a_burst_all_of_them_are() -> None:
    found = until(START_US + 600 * SECOND_US, times(Pace(6.0, 0.5, bursts=Bursts(6.0, 4)), START_US, "a"))
    assert {found.count(time) for time in dict.fromkeys(found)} == {4}
    assert 99 * 4 <= len(found) <= 100 * 4  # the last may be late beyond the end


def test_what_comes_in_a_burst_was_measured_evenly_over_the_interval_before_it() -> None:
    pace = Pace(10.0, bursts=Bursts(10.0, 5))
    due = list(islice(times(pace, START_US, "a"), 50))
    found = list(islice(measured(pace, START_US, "a"), 50))
    assert {later - time for time, later in pairwise(found[4:])} == {2 * SECOND_US}
    assert found[4::5] == due[4::5]
    first_us = due[0] - START_US  # before which there is no interval of ten seconds
    assert found[:5] == [due[0] - first_us * left // 5 for left in (4, 3, 2, 1, 0)]


def test_without_bursts_each_is_measured_when_it_is_due() -> None:
    pace = Pace(2.0, 0.4)
    assert [*islice(measured(pace, START_US, "a"), 20)] == [*islice(times(pace, START_US, "a"), 20)]


@given(
    every_s=st.floats(0.001, 3600),
    jitter=st.floats(0, 0.9),
    ratio=st.integers(1, 5),
    count=st.integers(1, 9),
    awake=st.booleans(),
)
@settings(max_examples=50, deadline=None)
def test_bursts_are_measured_in_order_awake_and_never_long_before(
    every_s: float, jitter: float, ratio: int, count: int, *, awake: bool
) -> None:
    hours = Hours(((9 * 3600, 11 * 3600), (12 * 3600, 14 * 3600))) if awake else None
    pace = Pace(every_s, jitter, hours, Bursts(every_s * ratio, count))
    due, found = (list(islice(of(pace, START_US, "a"), 60)) for of in (times, measured))
    assert found == sorted(found)
    assert all(0 <= at - time <= every_s * SECOND_US for at, time in zip(due, found, strict=True))
    assert found[0] >= START_US
    if hours:
        for time in found:
            begin, end = next(one for one in openings(hours, START_US) if one[1] > time)
            assert begin <= time < end


@pytest.mark.parametrize(
    "pace",
    [
        Pace(0.5),
        Pace(2.0, 0.4),
        Pace(1.0, bursts=Bursts(20.0, 5)),
        Pace(6.0, bursts=Bursts(6.0, 4)),
        Pace(2.0, hours=Hours(((9 * 3600, 10 * 3600),))),
    ],
)
def test_the_rate_that_is_told_is_the_rate_that_comes(pace: Pace) -> None:
    found = until(START_US + HOUR_US, times(pace, START_US, "a"))
    assert len(found) == pytest.approx(pace.per_s * 3600, abs=5)
