"""What devices measure follows from the seed and the times, and is what the file has asked for."""

from __future__ import annotations

import hashlib
import math
import pickle
import statistics
import subprocess
import sys
from itertools import islice, pairwise
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.clock import DAY_US, SECOND_US
from devices.dialects import speak
from devices.fleet import Fleet, devices, of_models
from devices.models import MODELS, Readings
from devices.signals import KINDS, Signals
from devices.telemetry import telemetry

START_US = 1_795_338_000 * SECOND_US  # 2026-11-22T09:00:00Z
MIDNIGHT_US = START_US - 9 * 3600 * SECOND_US


def signals(folder: Path | None = None, /, **tables: dict[str, Any]) -> Signals:
    context = {"folder": folder or Path()}
    return Signals(
        {name: KINDS[table["kind"]].model_validate(table, context=context) for name, table in tables.items()}
    )


def said(
    kinds: Signals, number: int, *, every_s: float = 1.0, seed: str = "7", start_us: int = START_US
) -> list[Readings]:
    times = (start_us + int(n * every_s * SECOND_US) for n in range(number))
    return list(kinds(Random(seed), times))


def values(number: int, *, every_s: float = 1.0, seed: str = "7", start_us: int = START_US, **table: Any) -> list[Any]:
    found = said(signals(x=table), number, every_s=every_s, seed=seed, start_us=start_us)
    return [readings["x"] for readings in found]


EVERY_KIND: dict[str, dict[str, Any]] = {
    "constant": {"kind": "constant", "value": 5.0, "spread": 2},
    "daily": {"kind": "daily", "mean": 20, "swing": 5, "noise": 0.5, "spread": 1},
    "walk": {"kind": "walk", "mean": 5, "swing": 2, "over": "1m", "spread": 1},
    "noise": {"kind": "noise", "mean": 1, "noise": 2},
    "steps": {"kind": "steps", "values": ["a", "b", "c"], "every": "7s", "order": "random"},
    "states": {"kind": "states", "states": {"idle": "5s", "run": "20s", "fault": "3s"}},
    "counter": {"kind": "counter", "of": "daily", "per": "1h", "spread": 50},
    "track": {"kind": "track", "points": [[52.5, 13.4], [52.53, 13.42], [52.51, 13.5]], "speed_km_h": 40, "noise": 4},
    "follows": {"kind": "follows", "of": "walk", "factor": -2, "offset": 80, "noise": 0.3},
    "quantiles": {"kind": "quantiles", "quantiles": [0, 1, 4, 20], "memory": 0.7},
}


def test_every_kind_is_tried_here() -> None:
    assert {*EVERY_KIND} | {"csv"} == {*KINDS}


def test_the_same_seed_and_times_give_the_same_values_in_another_process() -> None:
    """Python hashes texts with another salt in each process: nothing may hang on that."""
    program = (
        "from tests.devices.test_signals import EVERY_KIND, said, signals;"
        "import hashlib; print(hashlib.sha256(repr(said(signals(**EVERY_KIND), 300)).encode()).hexdigest())"
    )
    here = hashlib.sha256(repr(said(signals(**EVERY_KIND), 300)).encode()).hexdigest()
    root = Path(__file__).parents[2]
    there = {
        subprocess.run(
            [sys.executable, "-c", program],
            cwd=root,
            env={"PYTHONHASHSEED": salt},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for salt in ("1", "2")
    }
    assert there == {here}


def test_another_seed_gives_other_values() -> None:
    one, other = (said(signals(**EVERY_KIND), 100, seed=seed) for seed in "ab")
    for name in one[0]:
        assert [readings[name] for readings in one] != [readings[name] for readings in other]


def test_one_signal_more_leaves_the_others_as_they_were() -> None:
    more = said(signals(new={"kind": "noise", "mean": 0, "noise": 1}, **EVERY_KIND), 100)
    assert [{name: value for name, value in readings.items() if name != "new"} for readings in more] == said(
        signals(**EVERY_KIND), 100
    )


def test_the_readings_come_in_the_order_of_the_file() -> None:
    """Also where one is reckoned from a later one."""
    kinds = signals(b={"kind": "follows", "of": "a"}, a={"kind": "constant", "value": 3})
    assert [*said(kinds, 1)[0].items()] == [("b", 3), ("a", 3)]


def test_signals_go_to_another_process_and_stay_the_same() -> None:
    kinds = signals(**EVERY_KIND)
    assert said(pickle.loads(pickle.dumps(kinds)), 20) == said(kinds, 20)


def test_the_models_give_the_bytes_they_always_gave() -> None:
    fleet = Fleet(groups=of_models(tuple(MODELS), devices=8, rate=1.0, qos=1), seed="7", start_us=START_US)
    digest = hashlib.blake2b(digest_size=8)
    for device in devices(fleet):
        for message in islice(telemetry(device, fleet, speak(device, fleet)), 50):
            digest.update(message.publication.topic.encode() + message.publication.payload)
    assert digest.hexdigest() == "b62fdf5856af4b4d"


def test_a_daily_signal_is_highest_at_its_peak() -> None:
    day = values(24, kind="daily", mean=21, swing=5, peak="15:00", every_s=3600, start_us=MIDNIGHT_US)
    assert (max(day), day.index(max(day))) == (26, 15)
    assert (min(day), day.index(min(day))) == (16, 3)


def test_devices_differ_by_their_spread_and_no_more() -> None:
    means = [values(1, kind="daily", mean=21, swing=0, spread=2, seed=f"{n}")[0] for n in range(300)]
    assert 19 <= min(means) < 19.2
    assert 22.8 < max(means) <= 23


@pytest.mark.parametrize("every_s", [0.1, 1, 60])
def test_a_walk_has_its_mean_and_swing_however_often_it_is_looked_at(every_s: float) -> None:
    found = [
        value
        for n in range(200)
        for value in values(20, kind="walk", mean=10, swing=3, over="30s", every_s=every_s, seed=f"{n}")
    ]
    assert statistics.fmean(found) == pytest.approx(10, abs=0.6)
    assert statistics.pstdev(found) == pytest.approx(3, abs=0.4)


def test_a_walk_goes_from_value_to_value_in_small_steps() -> None:
    found = values(500, kind="walk", mean=10, swing=3, over="10m")
    assert max(abs(after - before) for before, after in pairwise(found)) < 1


@given(st.integers(0, 6), st.floats(-50, 0), st.floats(0, 50))
def test_bounds_and_decimals_hold(decimals: int, low: float, high: float) -> None:
    table: dict[str, Any] = {"kind": "noise", "mean": 0, "noise": 40, "min": low, "max": high, "decimals": decimals}
    for value in values(20, **table):
        assert round(value, decimals) == value
        assert low - 10.0**-decimals < value < high + 10.0**-decimals
        assert math.copysign(1, value) == 1 or value != 0  # no -0.0


def test_whole_numbers_are_whole() -> None:
    assert {type(value) for value in values(20, kind="walk", mean=50, swing=9, integer=True)} == {int}


def test_steps_change_at_the_same_moment_for_all() -> None:
    one, other = (values(20, kind="steps", values=[1, 2, 3], every="5s", seed=seed) for seed in "ab")
    assert one == other
    assert one == [value for value in islice([1, 2, 3] * 3, START_US // 5_000_000 % 3, None) for _ in range(5)][:20]


def test_states_stay_as_long_as_they_are_told_on_average() -> None:
    found = values(60_000, kind="states", states={"idle": "10s", "run": "40s"})
    assert found.count("run") / len(found) == pytest.approx(0.8, abs=0.04)
    changes = sum(before != after for before, after in pairwise(found))
    assert changes == pytest.approx(60_000 / 25, rel=0.1)


def test_states_follow_each_other_as_transitions_say() -> None:
    table: dict[str, Any] = {
        "states": {"idle": "5s", "run": "5s", "fault": "5s"},
        "transitions": {"idle": {"run": 1.0}, "run": {"idle": 0.9, "fault": 0.1}, "fault": {"idle": 1.0}},
    }
    found = values(30_000, kind="states", **table)
    changes = [(before, after) for before, after in pairwise(values(30_000, kind="states", **table)) if before != after]
    assert {*found} == {"idle", "run", "fault"}
    after_run = [after for before, after in changes if before == "run"]
    assert after_run.count("fault") / len(after_run) == pytest.approx(0.1, abs=0.05)
    assert ("fault", "run") not in changes or changes.count(("fault", "run")) < changes.count(("fault", "idle")) / 3


def test_states_named_true_and_false_are_booleans() -> None:
    assert {type(value) for value in values(50, kind="states", states={"true": "3s", "false": "3s"})} == {bool}


def test_a_state_after_a_long_night_costs_nothing() -> None:
    """A signal that changes each millisecond would change a hundred million times in a day."""
    assert len(values(5, kind="states", states={"a": "1ms", "b": "1ms"}, every_s=86_400)) == 5


def test_a_single_state_stays() -> None:
    assert {*values(100, kind="states", states={"on": "1s"})} == {"on"}


def test_a_counter_sums_up_what_another_signal_is() -> None:
    kinds = signals(
        power={"kind": "walk", "mean": 1_000, "swing": 300, "min": 0},
        energy={"kind": "counter", "of": "power", "per": "1h", "factor": 0.001, "start": 5, "decimals": 9},
    )
    found: list[dict[str, Any]] = [{**readings} for readings in said(kinds, 500, every_s=10)]
    assert found[0]["energy"] == 5
    for before, after in pairwise(found):
        assert after["energy"] - before["energy"] == pytest.approx(after["power"] * 10 / 3_600_000, abs=1e-8)


@given(st.floats(1, 1000), st.floats(0, 500), st.booleans())
def test_a_counter_rolls_over_and_never_shows_its_modulus(modulus: float, rate: float, integer: bool) -> None:  # noqa: FBT001
    found = values(50, kind="counter", rate=rate, modulus=modulus, integer=integer, decimals=1)
    assert all(0 <= value < modulus + (0.05 if not integer else 0) for value in found)


def test_a_counter_never_falls_though_what_it_counts_may_be_negative() -> None:
    kinds = signals(
        flow={"kind": "noise", "mean": 0, "noise": 5}, total={"kind": "counter", "of": "flow", "decimals": 9}
    )
    totals: list[Any] = [readings["total"] for readings in said(kinds, 200)]
    assert all(before <= after for before, after in pairwise(totals))


def test_what_follows_a_text_has_a_value_for_each() -> None:
    kinds = signals(
        mode={"kind": "states", "states": {"idle": "3s", "run": "3s"}},
        power={"kind": "follows", "of": "mode", "values": {"idle": 40, "run": 900}},
    )
    assert {(readings["mode"], readings["power"]) for readings in said(kinds, 60)} == {("idle", 40), ("run", 900)}


def test_what_follows_a_boolean_has_a_value_for_each() -> None:
    kinds = signals(
        open={"kind": "steps", "values": [True, False], "every": "1s"},
        word={"kind": "follows", "of": "open", "values": {"true": "open", "false": "closed"}},
    )
    assert {(readings["open"], readings["word"]) for readings in said(kinds, 4)} == {(True, "open"), (False, "closed")}


def test_a_track_is_where_its_speed_took_it() -> None:
    route = signals(way={"kind": "track", "points": [[52.5, 13.4], [52.6, 13.4], [52.6, 13.6]], "speed_km_h": 50})
    found: list[dict[str, Any]] = [{**readings} for readings in said(route, 400, every_s=2)]
    assert [*found[0]] == ["latitude", "longitude", "speed"]
    driven = [_km(before, after) for before, after in pairwise(found)]
    assert statistics.median(driven) == pytest.approx(50 * 2 / 3600, rel=0.02)
    assert max(driven) < 50 * 2 / 3600 * 1.05  # a corner is cut, never jumped


def test_a_track_that_is_no_loop_comes_back_the_way_it_went() -> None:
    table: dict[str, Any] = {
        "kind": "track",
        "points": [[52.5, 13.4], [52.6, 13.4]],
        "speed_km_h": 100,
        "loop": False,
        "heading": True,
    }
    found: list[dict[str, Any]] = [{**readings} for readings in said(signals(way=table), 2_000, every_s=2)]
    assert {readings["heading"] for readings in found} == {0.0, 180.0}
    assert {readings["longitude"] for readings in found} == {13.4}
    for before, after in pairwise(found):
        assert _km(before, after) < 0.06


def test_a_track_may_cross_the_date_line() -> None:
    table: dict[str, Any] = {"kind": "track", "points": [[10, 179.99], [10, -179.99]], "speed_km_h": 100}
    for before, after in pairwise(said(signals(way=table), 200)):
        assert _km({**before}, {**after}, wrapped=True) < 0.03


def _km(one: dict[str, Any], other: dict[str, Any], *, wrapped: bool = False) -> float:
    east = other["longitude"] - one["longitude"]
    if wrapped:
        east = (east + 180) % 360 - 180
    return 111.32 * math.hypot(other["latitude"] - one["latitude"], east * math.cos(math.radians(one["latitude"])))


@pytest.mark.parametrize("memory", [0, 0.5])
def test_quantiles_are_those_that_were_asked_for(memory: float) -> None:
    wanted = [1, 2, 5, 20]
    found = sorted(values(20_000, kind="quantiles", quantiles=wanted, memory=memory))
    assert found[len(found) // 3] == pytest.approx(2, abs=0.1)
    assert found[2 * len(found) // 3] == pytest.approx(5, abs=0.4)
    assert 1 <= found[0] < 1.1
    assert 19 < found[-1] <= 20


def test_quantiles_at_shares_of_their_own() -> None:
    found = sorted(values(10_000, kind="quantiles", quantiles=[0, 1, 100], at=[0, 0.9, 1]))
    assert found[8_999] == pytest.approx(1, abs=1.5)


def test_memory_makes_neighbours_alike() -> None:
    def jumps(memory: float) -> float:
        found = values(2_000, kind="quantiles", quantiles=[0, 1], memory=memory)
        return statistics.fmean(abs(after - before) for before, after in pairwise(found))

    assert jumps(1) == 0
    assert jumps(0.99) < jumps(0.5) / 3 < jumps(0) / 3


def test_quantiles_that_are_all_the_same_are_a_constant() -> None:
    assert {*values(20, kind="quantiles", quantiles=[3, 3, 3])} == {3}


CSV = "t,temperature,mode,ok\n0,10,idle,true\n2,20,run,false\n4,40,run,true\n"


def rows(tmp_path: Path, number: int, *, every_s: float = 1.0, **table: Any) -> list[Any]:
    (tmp_path / "day.csv").write_text(CSV)
    kinds = signals(tmp_path, x={"kind": "csv", "file": "day.csv", **table})
    return [readings["x"] for readings in said(kinds, number, every_s=every_s)]


def test_a_recorded_column_holds_each_value_till_the_next_and_begins_again(tmp_path: Path) -> None:
    assert rows(tmp_path, 8, column="temperature", time="t") == [10, 10, 20, 20, 40, 40, 10, 10]


def test_a_recorded_column_may_go_on_a_line_from_value_to_value(tmp_path: Path) -> None:
    assert rows(tmp_path, 6, column="temperature", time="t", interpolate=True) == [10, 15, 20, 30, 40, 40]


def test_rows_without_times_come_at_their_pace(tmp_path: Path) -> None:
    assert rows(tmp_path, 4, column="mode", every="1s") == ["idle", "run", "run", "idle"]
    assert rows(tmp_path, 3, column="ok", every="1s") == [True, False, True]


def test_a_recorded_signal_forgets_nothing_on_its_way_to_another_process(tmp_path: Path) -> None:
    (tmp_path / "day.csv").write_text(CSV)
    kinds = signals(tmp_path, x={"kind": "csv", "file": "day.csv", "column": "mode"})
    assert said(pickle.loads(pickle.dumps(kinds)), 5) == said(kinds, 5)


def test_no_kind_has_the_day_of_the_machine_in_it() -> None:
    """The same times of another day give other values only where the day is told to matter."""
    assert values(10, kind="daily", mean=1, swing=2) == values(
        10, kind="daily", mean=1, swing=2, start_us=START_US + DAY_US
    )
