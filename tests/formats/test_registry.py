"""The registry chooses by sign, and no format costs more than the message it fails on."""

from __future__ import annotations

from asyncio import CancelledError
from collections.abc import Sequence
from typing import cast

import pytest

from gateway.formats import Format, Formats, Options, Reader, Unreadable
from gateway.formats.body import Body
from gateway.formats.routes import MOST_TOPICS
from storage.event import Event, Kind, Message, Properties, Rejection, Value
from tests.formats.messages import NOW, message


class Panic(BaseException):
    """As pyo3's PanicException: no Exception."""


class Speechless(Exception):
    def __str__(self) -> str:
        raise RuntimeError("not even a word")


def endless(depth: int = 0) -> int:
    return endless(depth + 1) + 1


FAULTS = [
    ValueError("a\nlong \ud800 " + "story" * 100),
    OverflowError(),
    MemoryError(),
    KeyError("key"),
    Panic("byte index 1"),
    Speechless(),
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: type(fault).__name__)
def test_whatever_a_format_raises_costs_one_rejection(fault: BaseException) -> None:
    formats = Formats(specific=[poisoned(fault)])
    outcomes = formats.read_all([message(b"poison", "poison"), message(b"21.5"), message(b'{"a":1}')])
    first, *others = outcomes
    assert isinstance(first, Rejection)
    assert first.format == "poison"
    assert type(fault).__name__ in first.reason
    assert len(first.reason.encode()) < 400
    assert not any(isinstance(outcome, Rejection) for outcome in others)


def test_endless_recursion_costs_one_rejection() -> None:
    def read(_: Message, __: Body) -> None:
        endless()

    outcome = Formats(specific=[Format(name="poison", read=read, topics=("#",))]).read(message(b"x"))
    assert isinstance(outcome, Rejection)
    assert "RecursionError" in outcome.reason


@pytest.mark.parametrize("order", [KeyboardInterrupt, SystemExit, CancelledError])
def test_an_order_to_stop_is_obeyed(order: type[BaseException]) -> None:
    formats = Formats(specific=[poisoned(order())])
    with pytest.raises(order):
        formats.read(message(b"x", "poison"))


def test_a_broken_message_is_rejected_under_the_name_of_its_format() -> None:
    formats = Formats(specific=[poisoned(Unreadable("the checksum is wrong"))])
    assert formats.read(message(b"x", "poison")) == Rejection("the checksum is wrong", "poison")


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        (Event("", "other", "f", NOW, {}), "without a device"),
        (Event("d", cast("Kind", "gossip"), "f", NOW, {}), "kind gossip"),
        (Event("d", "other", "f", 2**63, {}), "a time of"),
        (Event("d", "other", "f", NOW, {}, seq=2**63), "a sequence number of"),
        (Event("d", "other", "f", NOW, {"a": cast("Value", [1])}), "neither number nor text"),
        (Event("d", "other", "f", NOW, {"a": "\ud800"}), "surrogate"),
        (Event("d\ud800", "other", "f", NOW, {}), "surrogate"),
        (Event("d", "other", "f", NOW, {"a\0": 1}), "NUL"),
        (cast("Event", "no event at all"), "AttributeError"),
    ],
)
def test_what_cannot_be_stored_does_not_leave_the_room(event: Event, reason: str) -> None:
    outcome = Formats(specific=[giving([event])]).read(message(b"x"))
    assert isinstance(outcome, Rejection)
    assert reason in outcome.reason


def test_the_letters_of_an_escape_are_no_nul() -> None:
    event = Event("d", "other", "f", NOW, {"a": "\\u0000"})
    assert Formats(specific=[giving([event])]).read(message(b"x")) == [event]


def test_a_message_of_no_events_is_no_rejection() -> None:
    assert Formats(specific=[giving([])]).read(message(b"x")) == []


def test_properties_come_before_the_topic_and_the_topic_before_the_content() -> None:
    asked: list[str] = []

    def row(name: str, **signature: object) -> Format:
        def read(_: Message, __: Body) -> None:
            asked.append(name)

        return Format(name=name, read=read, **signature)  # type: ignore[arg-type]

    rows = [
        row("unsigned"),
        row("start", starts=(b"a=",)),
        row("keys", keys=(frozenset({"a", "b"}), frozenset({"x"}))),
        row("topic", topics=("+/d1/#", "devices/d1/telemetry")),
        row("elsewhere", topics=("+/d2/#",), keys=(frozenset({"c"}),)),
        row("user", user_properties=("ce_id",), topics=("#",)),
        row("type", content_types=("application/x",)),
    ]
    formats = Formats(specific=rows)
    properties = Properties(content_type="Application/X; charset=utf-8", user=(("ce_id", "1"),))
    for payload, wanted in (
        (b'{"b":1,"a":2}', ["user", "type", "topic", "keys"]),
        (b'[{"b":1,"a":2},{}]', ["user", "type", "topic", "keys"]),
        (b'{"a":2}', ["user", "type", "topic"]),
        (b"a=1", ["user", "type", "topic", "start", "unsigned"]),
        (b"[]", ["user", "type", "topic"]),
    ):
        asked.clear()
        assert not isinstance(formats.read(message(payload, properties=properties)), Rejection)
        assert asked == wanted


def test_a_start_of_json_is_no_sign() -> None:
    with pytest.raises(ValueError, match="told by keys"):
        Format(name="f", read=giving([]).read, starts=(b"{",))


def test_what_is_remembered_stays_bounded() -> None:
    formats = Formats()
    for i in range(MOST_TOPICS + 100):
        formats.read(message(b"1", f"devices/d{i}/t"))
    formats.read(message(b"1", "x" * 60_000))
    assert len(formats._routes) <= MOST_TOPICS
    assert max(map(len, formats._routes)) < 1_000
    for i in range(5_000):
        formats.read(message(b'{"k%d":{"value":1}}' % i))
        formats.read(message(b'{"readings":{"a":1},"units":{"a":"u%d"}}' % i))
    quick = formats._quick
    assert len(quick._plans) <= quick._plans.MOST
    assert len(quick._codes) <= quick._codes.MOST


def test_a_limit_that_allows_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="depth is 1: give 2 or more"):
        Options(depth=1)


def poisoned(fault: BaseException) -> Format:
    def read(_: Message, __: Body) -> None:
        raise fault

    return Format(name="poison", read=read, topics=("poison",))


def giving(events: Sequence[Event]) -> Format:
    read: Reader = lambda _, __: events  # noqa: E731
    return Format(name="f", read=read, topics=("#",))
