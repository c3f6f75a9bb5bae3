"""The generations of Shelly share topics: what tells them apart."""

from __future__ import annotations

import json

import pytest

from gateway.formats import Formats
from storage.event import Rejection
from tests.formats.messages import message

NOTICE = {"src": "plug-1", "dst": "shellies/plug/events", "method": "NotifyStatus", "params": {"ts": 1.5, "ws": {}}}


@pytest.mark.parametrize(
    ("topic", "payload", "format"),
    [
        ("shellies/plug/relay/0", b"on", "shelly_gen1"),
        ("shellies/plug/status", b'{"motion":true}', "shelly_gen1"),
        ("shellies/plug/command", b"announce", "shelly_gen1"),
        ("shellies/plug/status/switch:0", b'{"id":0,"output":true}', "shelly_gen2"),
        ("shellies/plug/command/switch:0", b"on", "shelly_gen2"),
        ("shellies/plug/rpc", b'{"id":1,"src":"me","method":"Shelly.GetStatus"}', "shelly_gen2"),
        ("shellies/plug/events/rpc", json.dumps(NOTICE).encode(), "shelly_gen2"),
    ],
)
def test_a_topic_under_shellies_is_of_one_generation(topic: str, payload: bytes, format: str) -> None:
    outcome = Formats().read(message(payload, topic))
    assert not isinstance(outcome, Rejection)
    assert {event.format for event in outcome} == {format}


def test_a_notice_teaches_once_that_the_prefix_is_of_the_second_generation() -> None:
    formats, notice = Formats(), message(json.dumps(NOTICE).encode(), "shellies/plug/events/rpc")
    formats.read(notice)
    assert [fact.key for fact in formats.take_lessons().facts] == ["shellies/plug/online"]
    formats.read(notice)
    assert formats.take_lessons().facts == ()
