"""Claims about the topics under which messages of the log are published."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from gateway.sinks.topics import TopicError, prefixed, templated
from storage.event import Message, StoredEvent
from tests.replay.filled import T0, event

MESSAGE = Message("devices/thermo/telemetry", b"", 0, retain=False, received_at=T0)


def topic(template: str, one: StoredEvent | None = None, message: Message = MESSAGE) -> str:
    return templated(template)(one or event(1, T0), message)


def test_a_template_is_filled_with_what_the_event_and_its_topic_say() -> None:
    assert topic("test/{device}/{kind}") == "test/thermo/measurement"
    assert topic("{format}/{2}-{1}/{3}") == "json/thermo-devices/telemetry"
    assert topic("old/{topic}") == "old/devices/thermo/telemetry"
    assert topic("all") == "all"
    assert topic("{{{device}}}") == "{thermo}"


def test_a_prefix_goes_before_the_topic_as_it_was() -> None:
    assert prefixed("replay/")(event(1, T0), MESSAGE) == "replay/devices/thermo/telemetry"


def test_where_there_is_nothing_to_put_a_level_stands_all_the_same() -> None:
    assert topic("x/{device}/{4}", replace(event(1, T0), device="")) == "x/_/_"
    assert topic("x/{1}", message=replace(MESSAGE, topic="/a")) == "x/_"


@given(st.text())
def test_a_name_makes_one_level_that_any_broker_takes(name: str) -> None:
    made = topic("x/{device}/y", replace(event(1, T0), device=name))
    assert made.count("/") == 2
    assert not set(made) & {"+", "#", "\0"}
    assert made.split("/")[1] != ""


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("", "empty"),
        ("//", "empty"),
        ("test/+/{device}", "leave out"),
        ("test/#", "leave out"),
        ("a\0b", "leave out"),
        ("test/{color}", "no placeholder"),
        ("test/{}", "no placeholder"),
        ("test/{0}", "no placeholder"),
        ("test/{device!r}", "no placeholder"),
        ("test/{device:10}", "no placeholder"),
        ("test/{device.kind}", "no placeholder"),
        ("test/{device", "no template"),
        ("test/device}", "no template"),
        ("{topic}", "--same-topics"),
        ("$SYS/{device}", "begins with"),
    ],
)
def test_what_makes_no_topic_is_refused(template: str, said: str) -> None:
    with pytest.raises(TopicError, match=said):
        templated(template)
