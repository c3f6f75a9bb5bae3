"""The telemetry follows from the fleet alone, and is what such devices could say."""

from __future__ import annotations

import json
from itertools import islice, pairwise
from math import cos, dist, radians
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.clock import SECOND_US, ticks
from devices.dialects import speak
from devices.fleet import Device, Fleet, any_seed, boot_id, devices, of_models
from devices.models import MODELS
from devices.outgoing import Outgoing
from devices.telemetry import telemetry

START_US = 1_795_338_000 * SECOND_US  # 2026-11-22T09:00:00Z


def fleet(*models: str, count: int = 8, rate: float = 1.0, seed: str = "7", start_us: int = START_US) -> Fleet:
    groups = of_models(models or tuple(MODELS), devices=count, rate=rate, qos=1)
    return Fleet(groups=groups, start_us=start_us, seed=seed)


def messages(device: Device, fleet: Fleet, number: int) -> list[Outgoing]:
    return list(islice(telemetry(device, fleet, speak(device, fleet)), number))


def payloads(fleet: Fleet, number: int) -> list[bytes]:
    return [message.publication.payload for device in devices(fleet) for message in messages(device, fleet, number)]


def said(device: Device, fleet: Fleet, number: int) -> list[dict[str, Any]]:
    return [json.loads(message.publication.payload) for message in messages(device, fleet, number)]


def first(fleet: Fleet) -> Device:
    return next(devices(fleet))


def test_the_same_seed_and_start_give_the_same_bytes() -> None:
    assert payloads(fleet(), 50) == payloads(fleet(), 50)


def test_another_seed_gives_other_readings_and_another_boot() -> None:
    one, other = (said(first(fleet(seed=seed)), fleet(seed=seed), 1)[0] for seed in ("7", "8"))
    assert one["readings"] != other["readings"]
    assert one["boot"] != other["boot"]


def test_another_start_is_another_boot() -> None:
    """Else a second run with the same seed would send other events under the identities of the first."""
    one, other = fleet(), fleet(start_us=START_US + 1)
    assert boot_id(first(one), one) != boot_id(first(other), other)


def test_without_a_seed_no_two_runs_are_alike() -> None:
    assert any_seed() != any_seed()


def test_a_payload_is_as_documented() -> None:
    here = fleet()
    device = first(here)
    event = said(device, here, 18)[17]
    assert list(event) == ["device", "boot", "seq", "time", "readings", "units"]
    assert event["device"] == "thermo-0001"
    assert event["seq"] == 17
    assert event["time"].startswith("2026-11-22T09:00:17.")
    assert event["time"].endswith("Z")
    assert event["units"] == {"temperature": "Cel", "humidity": "%"}
    (birth,) = speak(device, here).birth(START_US)
    assert birth.retain
    assert json.loads(birth.payload) == {
        "device": "thermo-0001",
        "boot": boot_id(device, here),
        "time": "2026-11-22T09:00:00.000000Z",
        "state": "online",
    }


def test_every_unit_belongs_to_a_reading() -> None:
    for device in devices(fleet()):
        event = said(device, fleet(), 1)[0]
        assert event["units"].keys() <= event["readings"].keys()


def test_models_take_turns_and_names_are_unique() -> None:
    names = [device.name for device in devices(fleet(count=6))]
    assert names == ["thermo-0001", "meter-0001", "door-0001", "tracker-0001", "thermo-0002", "meter-0002"]


def test_devices_do_not_fire_together() -> None:
    crowd = fleet(count=50)
    firsts = [messages(device, crowd, 1)[0].due_us for device in devices(crowd)]
    assert len(set(firsts)) == 50
    assert all(START_US <= due_us < START_US + SECOND_US for due_us in firsts)


@given(st.floats(0.001, 10_000), st.floats(0, 1, exclude_max=True), st.integers(1, 200))
def test_a_whole_number_of_intervals_holds_that_many_events(rate: float, phase: float, intervals: int) -> None:
    """So that ten devices at 5/s for 3 s publish exactly 150 events, whatever their phases."""
    times = list(islice(ticks(0, rate, phase), intervals + 1))
    assert all(before < after for before, after in pairwise(times))
    assert times[intervals - 1] < intervals * SECOND_US / rate <= times[intervals] + 1


def test_a_thermometer_knows_day_from_night() -> None:
    slow = fleet("thermometer", rate=1 / 3600)
    for device in devices(slow):
        day = [event["readings"] for event in said(device, slow, 24)]
        temperatures = [readings["temperature"] for readings in day]
        assert -10 < min(temperatures) < max(temperatures) < 40
        assert max(temperatures) - min(temperatures) > 3
        assert all(0 <= readings["humidity"] <= 100 for readings in day)


def test_a_meter_never_counts_backwards() -> None:
    one = fleet("meter", rate=0.1)
    for device in devices(one):
        readings = [event["readings"] for event in said(device, one, 1_000)]
        for before, after in pairwise(readings):
            assert after["energy"] - before["energy"] == pytest.approx(after["power"] * 10 / 3_600_000, abs=1e-5)
            assert after["power"] > 0
            assert 220 < after["voltage"] < 240


def test_a_door_counts_its_openings() -> None:
    one = fleet("door")
    for device in devices(one):
        readings = [event["readings"] for event in said(device, one, 2_000)]
        opened = sum((before["state"], after["state"]) == ("closed", "open") for before, after in pairwise(readings))
        assert {reading["state"] for reading in readings} == {"open", "closed"}
        assert readings[-1]["open_count"] - readings[0]["open_count"] == opened > 5


def test_a_tracker_is_where_its_speed_took_it() -> None:
    one = fleet("tracker")
    for device in devices(one):
        readings = [event["readings"] for event in said(device, one, 500)]
        for before, after in pairwise(readings):
            metres_a_second = after["speed"] / 3.6
            assert _metres(before, after) == pytest.approx(metres_a_second, abs=0.5)


def _metres(one: dict[str, float], other: dict[str, float]) -> float:
    east = 111_320 * cos(radians(one["latitude"]))
    return dist(
        (one["latitude"] * 111_320, one["longitude"] * east), (other["latitude"] * 111_320, other["longitude"] * east)
    )
