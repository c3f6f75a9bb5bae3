"""What the list of devices teaches: units, and under a renamed base the topics."""

from __future__ import annotations

import json

from gateway.formats import Formats
from storage.event import Event, Message, Rejection
from tests.formats.messages import message, written

EXPOSES = [{"type": "numeric", "property": "pressure", "unit": "kPa", "access": 1}]
BOILER = {"friendly_name": "boiler", "ieee_address": "0x01", "definition": {"exposes": EXPOSES}}


def sent(topic: str, payload: object) -> Message:
    return message(json.dumps(payload).encode(), topic)


def events(formats: Formats, sent: Message) -> list[Event]:
    outcome = formats.read(sent)
    assert not isinstance(outcome, Rejection), outcome
    return list(outcome)


def test_an_earlier_state_is_read_again_with_the_units_of_a_list_that_came_later() -> None:
    formats, state = Formats(), sent("zigbee2mqtt/boiler", {"pressure": 151})
    (before,) = events(formats, state)
    events(formats, sent("zigbee2mqtt/bridge/devices", [BOILER]))
    again = formats.read_again(state)
    assert not isinstance(again, Rejection)
    assert before.units == {"pressure": "hPa"}
    assert (again[0].units, again[0].unit_sources) == ({"pressure": "kPa"}, {"pressure": "learned"})


def test_a_list_lets_the_topics_of_its_devices_be_read_again_and_no_others() -> None:
    formats = Formats()
    events(formats, sent("house/zig/bridge/devices", [BOILER]))
    asked = {topic for reread in formats.take_lessons().rereads for topic in reread.topics}
    roles = ("", "/availability", "/set", "/get")
    assert asked == {f"house/zig/boiler{role}" for role in roles}


def test_the_same_list_teaches_nothing_new() -> None:
    formats = Formats()
    events(formats, sent("zigbee2mqtt/bridge/devices", [BOILER]))
    formats.take_lessons()
    events(formats, sent("zigbee2mqtt/bridge/devices", [BOILER]))
    assert formats.take_lessons().facts == ()


def test_what_was_learned_outlives_a_restart() -> None:
    formats, state = Formats(), sent("house/zig/boiler", {"pressure": 151})
    events(formats, sent("house/zig/bridge/devices", [BOILER]))
    restarted = Formats(facts=formats.take_lessons().facts)
    assert written(restarted.read(state)) == written(formats.read(state))


def test_a_request_is_one_of_a_bridge_only_under_a_known_base() -> None:
    formats, request = Formats(), message(b"true", "house/zig/bridge/request/permit_join")
    assert [event.format for event in events(formats, request)] == ["plain"]
    events(formats, sent("house/zig/bridge/devices", [BOILER]))
    assert [event.kind for event in events(formats, request)] == ["command"]


def test_a_list_of_anything_else_teaches_nothing() -> None:
    formats = Formats()
    lists: list[object] = [[{"friendly_name": "a"}], [{"ieee_address": "0x01"}], [5, None], {"devices": []}]
    for items in lists:
        formats.read(sent("plant/bridge/devices", items))
    assert formats.take_lessons().facts == ()


def test_a_broken_definition_teaches_a_device_without_units() -> None:
    formats = Formats()
    for exposes in ([[1], {}, {"property": 5}], {"type": "numeric"}, "x", [{"features": [{"features": 3}]}]):
        device = {"friendly_name": "odd", "ieee_address": "0x09", "definition": {"exposes": exposes}}
        events(formats, sent("zigbee2mqtt/bridge/devices", [device]))
        (state,) = events(formats, sent("zigbee2mqtt/odd", {"pressure": 990}))
        assert state.units == {"pressure": "hPa"}
