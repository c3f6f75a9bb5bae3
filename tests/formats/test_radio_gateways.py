"""Devices behind gateways of radio and Bluetooth: claims over more than one message."""

from __future__ import annotations

import json

import pytest

from gateway.formats import Formats
from storage.event import Event, Rejection
from tests.formats.messages import message, written


def read(topic: str, payload: object) -> list[Event]:
    outcome = Formats().read(message(json.dumps(payload).encode(), topic))
    assert not isinstance(outcome, Rejection), outcome
    return list(outcome)


def test_a_node_is_one_device_whether_its_number_is_signed_or_not() -> None:
    packet = {"id": 1, "payload": {"text": "hi"}, "sender": "!32962f10", "timestamp": 1795337990, "type": "text"}
    new = read("msh/2/json/LongFast/!32962f10", {**packet, "from": 3792937512})
    old = read("msh/2/json/LongFast/!32962f10", {**packet, "from": -502029784})
    assert [event.device for event in (*new, *old)] == ["!e213a228", "!e213a228"]


def test_a_transmitter_is_one_device_in_all_of_its_topics() -> None:
    event = {"time": "2026-11-22T08:59:00Z", "model": "Nexus-TH", "id": 42, "channel": 2, "temperature_C": 20.5}
    whole = read("rtl_433/attic/events", event)
    single = read("rtl_433/attic/devices/Nexus-TH/2/42/temperature_C", 20.5)
    relayed = read("home/OMG/RTL_433toMQTT/Nexus-TH/2/42", event)
    assert {found.device for found in (*whole, *single, *relayed)} == {"Nexus-TH/2/42"}
    assert {found.readings["temperature_C"] for found in (*whole, *single, *relayed)} == {20.5}


def test_a_bluetooth_device_is_one_whether_its_address_is_in_the_payload_or_the_topic() -> None:
    named = read("home/OMG/BTtoMQTT/4C33A6603C79", {"id": "4C:33:A6:60:3C:79", "rssi": -70})
    unnamed = read("home/OMG/BTtoMQTT/4c33a6603c79", {"tempc": "19.5"})
    assert [event.device for event in (*named, *unnamed)] == ["4C:33:A6:60:3C:79", "4C:33:A6:60:3C:79"]


def test_a_relayed_history_of_too_many_tags_is_rejected_with_its_bound() -> None:
    tags: dict[str, dict[str, int]] = {f"tag{at}": {} for at in range(20_000)}
    sent = message(json.dumps({"data": {"gw_mac": "C8:25:2D:8E:9C:2C", "tags": tags}}).encode(), "ruuvi/history")
    outcome = Formats().read(sent)
    assert isinstance(outcome, Rejection)
    assert "(entries)" in outcome.reason


@pytest.mark.parametrize("cut", [0, 10, 30, 31, 50, 60])
def test_an_advertisement_cut_short_is_kept_as_it_is(cut: int) -> None:
    whole = "0201061BFF9904050F0853DAC3C80010FFE00418B196940D3EF0661B4D4621"
    gateway = {"gw_mac": "C8:25:2D:8E:9C:2C", "rssi": -60}
    outcome = Formats().read(message(json.dumps({**gateway, "data": whole[:cut]}).encode(), "ruuvi/a/b"))
    if cut % 2:
        assert isinstance(outcome, Rejection)
        assert "hexadecimal" in outcome.reason
    else:
        assert not isinstance(outcome, Rejection)
        assert outcome[0].readings == {"rssi": -60, "data": whole[:cut]}


def test_reading_a_message_twice_gives_one_result() -> None:
    formats = Formats()
    sent = message(b'{"model":"X","id":1,"battery_ok":1,"temperature_C":4.5}', "rtl_433/attic/events")
    assert written(formats.read(sent)) == written(formats.read(sent)) == written(formats.read_again(sent))


def test_a_long_name_has_no_unit_and_costs_no_time() -> None:
    key = "temperature_" + "_" * 200_000 + "C"
    outcome = Formats().read(message(json.dumps({"model": "X", "battery_ok": 1, key: 1}).encode(), "rtl_433/a/events"))
    assert isinstance(outcome, Rejection)
    assert "(name_chars)" in outcome.reason
