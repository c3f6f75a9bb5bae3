"""One device is one device, by whatever way Tasmota tells of it."""

from __future__ import annotations

import json

import pytest

from gateway.formats import Formats
from storage.event import Event, Rejection
from tests.formats.messages import message

SENSORS = {"Time": "2026-11-22T08:59:00Z", "AM2301": {"Temperature": 20.5, "Humidity": 50}, "TempUnit": "C"}


def read(topic: str, payload: object) -> list[Event]:
    outcome = Formats().read(message(json.dumps(payload).encode(), topic))
    assert not isinstance(outcome, Rejection), outcome
    return list(outcome)


def test_sensors_asked_for_are_those_that_come_by_themselves() -> None:
    (told,) = read("tele/cellar/SENSOR", SENSORS)
    (asked,) = read("stat/cellar/STATUS10", {"StatusSNS": SENSORS})
    assert told == asked


@pytest.mark.parametrize(
    ("topic", "device"),
    [
        ("tele/cellar/SENSOR", "cellar"),
        ("cellar/tele/SENSOR", "cellar"),
        ("house/cellar/tele/SENSOR", "house/cellar"),
        ("site/tele/house/cellar/SENSOR", "house/cellar"),
        ("telemetry/cellar/SENSOR", "telemetry/cellar"),
    ],
)
def test_the_levels_that_are_no_prefix_name_the_device(topic: str, device: str) -> None:
    (event,) = read(topic, SENSORS)
    assert (event.device, event.readings["AM2301.Temperature"]) == (device, 20.5)


def test_what_a_bridge_heard_and_what_it_measured_are_events_of_two() -> None:
    heard, own = read("tele/zb/SENSOR", {**SENSORS, "ZbReceived": {"Attic": {"Temperature": 3}}})
    assert (heard.device, heard.detail.via if heard.detail else None) == ("Attic", "zb")
    assert (own.device, own.detail) == ("zb", None)
    assert heard.observed_at == own.observed_at
