"""A reading's values are taken for what they are like: constant, counted, a state, a follower, or spread."""

from __future__ import annotations

import math
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.learning.likeness import distance
from gateway.learning.signals import interval_of, quantiles, signal, signals

SECOND_US = 1_000_000


def each_second(*values: Any) -> list[tuple[int, Any]]:
    return [(n * SECOND_US, value) for n, value in enumerate(values)]


def test_what_never_changes_is_constant() -> None:
    assert signal(each_second(5, 5, 5)) == {"kind": "constant", "value": 5}
    assert signal(each_second("on", "on")) == {"kind": "constant", "value": "on"}
    assert signal(each_second(*[True] * 2)) == {"kind": "constant", "value": True}


def test_what_only_rises_is_a_counter_at_its_pace() -> None:
    found = signal(each_second(*range(100, 300, 2)))
    assert found == {"kind": "counter", "start": 298, "rate": 2.0, "integer": True}


def test_texts_are_states_that_last_as_long_as_they_did() -> None:
    found = signal(each_second(*(["idle"] * 30 + ["run"] * 10) * 3))
    assert found == {"kind": "states", "states": {"idle": "30s", "run": "9.667s"}}


def test_too_many_texts_are_no_states() -> None:
    assert signal(each_second(*map(str, range(100))))["kind"] == "constant"


def test_numbers_keep_their_quantiles_their_digits_and_their_memory() -> None:
    chance, value, values = Random(1), 20.0, []
    for _ in range(2_000):
        value += 0.1 * (20 - value) + chance.gauss(0, 0.2)
        values.append(round(value, 2))
    found = signal(each_second(*values))
    assert found["kind"] == "quantiles"
    assert found["decimals"] == 2
    assert 0.8 < found["memory"] < 1  # type: ignore[operator]
    assert found["quantiles"][0] == min(values)  # type: ignore[index]
    assert found["quantiles"][-1] == max(values)  # type: ignore[index]


def test_a_reading_that_is_a_line_of_another_follows_it() -> None:
    chance = Random(1)
    temperature = [round(chance.gauss(20, 2), 2) for _ in range(200)]
    humidity = [round(90 - 2 * value + chance.gauss(0, 0.1), 1) for value in temperature]
    found = signals({"temperature": each_second(*temperature), "humidity": each_second(*humidity)})
    follower = found["humidity"]
    assert follower["kind"] == "follows"
    assert follower["of"] == "temperature"
    assert follower["factor"] == pytest.approx(-2, abs=0.05)
    assert follower["offset"] == pytest.approx(90, abs=1)


def test_a_device_that_moves_has_a_track_and_one_that_stands_has_none() -> None:
    way = [(52.5 + n / 1_000, 13.4 + n / 1_000) for n in range(100)]
    latitude, longitude = (each_second(*degrees) for degrees in zip(*way, strict=True))
    track = signals({"latitude": latitude, "longitude": longitude})["position"]
    assert track["kind"] == "track"
    assert track["speed_km_h"] == pytest.approx(3600 * 111.32 * math.hypot(1, 0.6088) / 1_000, rel=0.01)
    assert "position" not in signals({"latitude": each_second(52.5, 52.5), "longitude": each_second(13.4, 13.4)})


@pytest.mark.parametrize("every_s", [0.5, 60, 3600])
@pytest.mark.parametrize("jitter", [0, 0.1, 0.5])
def test_a_pace_is_found_again(every_s: float, jitter: float) -> None:
    chance = Random(1)
    times = [round((n + chance.uniform(0, jitter)) * every_s * SECOND_US) for n in range(2_000)]
    found_s, found_jitter, at_once = interval_of(times)
    assert found_s == pytest.approx(every_s, rel=0.01)
    assert found_jitter == pytest.approx(jitter, abs=0.05)
    assert at_once == 1


def test_bursts_are_found_again() -> None:
    times = [burst * 60 * SECOND_US + n for burst in range(20) for n in range(15)]
    assert interval_of(times) == (60, 0, 15)


def gathered(bursts: int = 20, count: int = 15, every_s: int = 60) -> tuple[list[int], list[int]]:
    """When was measured what came in bursts, and when it came: within a tenth of a second of each other."""
    times = [(n + 1) * every_s * SECOND_US // count for n in range(bursts * count)]
    return times, [(n // count + 1) * every_s * SECOND_US + n % count * 7_000 for n in range(bursts * count)]


def test_bursts_of_what_was_measured_before_are_found_by_their_arrival() -> None:
    assert interval_of(*gathered()) == pytest.approx((60, 0, 15))


def test_what_an_outage_has_held_up_is_no_burst() -> None:
    """However much of the history it is."""
    times = [n * SECOND_US for n in range(300)]
    arrivals = [200 * SECOND_US + n if 10 <= n < 200 else time for n, time in enumerate(times)]
    assert interval_of(times, arrivals) == (1, 0, 1)


def test_what_was_brought_in_afterwards_came_in_no_bursts() -> None:
    times, arrivals = gathered()
    assert interval_of(times, [arrival // 10 for arrival in arrivals])[2] == 1


def test_what_a_network_brings_together_is_no_burst() -> None:
    times, arrivals = gathered()
    fast_times, fast_arrivals = ([time // 100 for time in those] for those in (times, arrivals))
    assert interval_of(fast_times, fast_arrivals) == pytest.approx((0.04, 0, 1))


@given(st.lists(st.floats(-1e9, 1e9), min_size=2, max_size=200))
def test_quantiles_rise_from_the_least_to_the_greatest(numbers: list[float]) -> None:
    found = quantiles(numbers)
    assert found == sorted(found)
    assert found[0] == pytest.approx(min(numbers))
    assert found[-1] == pytest.approx(max(numbers))


@given(st.lists(st.integers(-5, 5), min_size=1), st.lists(st.integers(-5, 5), min_size=1))
def test_a_distance_is_one_of_two_ways_and_nothing_between_the_same(one: list[int], other: list[int]) -> None:
    assert distance(one, one) == 0
    assert 0 <= distance(one, other) == distance(other, one) <= 1
    assert distance([*map(str, one)], [*map(str, one)]) == 0


def test_what_has_nothing_in_common_is_as_far_as_can_be() -> None:
    assert distance([1, 2], [3, 4]) == 1
    assert distance(["a"], ["b"]) == 1
    assert distance([1, 2, 3, 4], [3, 4, 5, 6]) == 0.5


def test_an_outage_is_no_part_of_the_pace() -> None:
    times = [n * SECOND_US for n in range(100)] + [(1_000 + n) * SECOND_US for n in range(100)]
    assert interval_of(times) == (1, 0, 1)


def test_a_counter_that_begins_anew_is_a_counter() -> None:
    found = signal(each_second(*range(100), *range(100), *range(50)))
    assert found == {"kind": "counter", "start": 49, "rate": 1.0, "integer": True}
    assert signal(each_second(*[*range(10), *range(9, 0, -1)] * 10))["kind"] == "quantiles"
