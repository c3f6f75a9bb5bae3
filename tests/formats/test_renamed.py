"""Things under a name of their owner's choice show themselves by one message, and are known by their others."""

from __future__ import annotations

import pytest

from gateway.formats import Formats
from gateway.formats.topics import takes
from storage.event import Message, Outcome, Rejection
from tests.formats.messages import message

STATION = b'{"state":"connected","id":"c44f33aa55ad","name":"openevse-55ad","mqtt":"garage/charger","http":"http://h/"}'
LIGHT = b'<?xml version="1.0" ?><vs><ac>99</ac></vs>'
CLOCK = b'{"bat":80,"lux":12,"ldr_raw":34,"temp":20.5}'
CASES = [
    ("openevse", message(STATION, "openevse/announce/55ad"), message(b"247", "garage/charger/temp")),
    ("wled", message(LIGHT, "hall/strip/v"), message(b"online", "hall/strip/status")),
    ("awtrix", message(CLOCK, "desk/clock/stats"), message(b"1", "desk/clock/stats/buttonLeft")),
]


def format_of(outcome: Outcome) -> str:
    assert not isinstance(outcome, Rejection)
    return outcome[0].format


@pytest.mark.parametrize(("name", "shown", "other"), CASES)
def test_a_thing_that_has_shown_itself_is_known_by_another_name(name: str, shown: Message, other: Message) -> None:
    formats = Formats()
    assert [format_of(outcome) for outcome in formats.read_all([other, shown, other])] == ["plain", name, name]


@pytest.mark.parametrize(("name", "shown", "other"), CASES)
def test_it_is_known_after_a_restart_too(name: str, shown: Message, other: Message) -> None:
    before = Formats()
    before.read(shown)
    assert format_of(Formats(facts=before.take_lessons().facts).read(other)) == name


@pytest.mark.parametrize(("name", "shown", "other"), CASES)
def test_only_its_own_topics_are_read_again(name: str, shown: Message, other: Message) -> None:
    formats = Formats()
    formats.read(shown)
    base = other.topic.rpartition("/")[0].removesuffix("/stats")
    topics = [topic for reread in formats.take_lessons().rereads for topic in reread.topics]
    assert other.topic in topics, name
    assert all(topic.startswith(f"{base}/") and "+" not in topic and "#" not in topic for topic in topics)


@pytest.mark.parametrize(
    ("payload", "topic"),
    [
        (STATION.replace(b"garage/charger", b"openevse-55ad"), "openevse/announce/55ad"),
        (LIGHT, "wled/a1b2c3/v"),
        (CLOCK, "awtrix_a1b2c3/stats"),
    ],
)
def test_a_thing_under_its_maker_s_name_needs_no_lesson(payload: bytes, topic: str) -> None:
    formats = Formats()
    formats.read(message(payload, topic))
    assert not formats.take_lessons().facts


@pytest.mark.parametrize(
    ("topic", "taken"),
    [("openevse-55ad/amp", True), ("openevse/amp", True), ("my-openevse/amp", False), ("openevs/amp", False)],
)
def test_a_filter_may_say_how_a_level_begins(topic: str, *, taken: bool) -> None:
    assert takes(["openevse*", "+"], topic.split("/")) is taken
