"""Claims about time: a slow format costs rejections, not the gateway."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Sequence

import pytest

from gateway.formats import Format, Formats, Options, Unreadable
from gateway.formats import patience as patience_module
from gateway.formats.body import Body
from storage.event import Event, Message, Outcome, Rejection
from tests.formats.messages import message

OPTIONS = Options(message_ms=20)
READ: list[str] = []


def forever(sent: Message, _body: Body) -> Sequence[Event] | None:
    READ.append(sent.topic)
    while sent.payload == b"slow":
        with contextlib.suppress(Exception):  # as a plugin would that must never fail
            threading.Event().wait(0.001)
    return [Event("d", "other", "sloth", sent.received_at, {})]


SLOTH = Format(name="sloth", read=forever, topics=("sloth/#",))


@pytest.fixture(autouse=True)
def _nothing_read() -> None:
    READ.clear()


def test_a_message_that_takes_too_long_is_rejected_with_the_bounds_name() -> None:
    outcome = Formats(OPTIONS, specific=[SLOTH]).read(message(b"slow", "sloth/1"))
    assert isinstance(outcome, Rejection)
    assert outcome.format == "sloth"
    assert "message_ms" in outcome.reason


def test_a_format_that_does_so_again_and_again_is_set_aside_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    formats = Formats(OPTIONS, specific=[SLOTH])
    outcomes = [formats.read(message(b"slow", "sloth/1")) for _ in range(10)]
    assert all(isinstance(outcome, Rejection) for outcome in outcomes)
    assert len(READ) == patience_module.OVERRUNS
    assert "set aside" in rejected(outcomes[-1]).reason
    assert not isinstance(formats.read(message(b"1", "other/1")), Rejection)
    monkeypatch.setattr("gateway.formats.patience.time.monotonic", lambda: float("inf"))
    assert not isinstance(formats.read(message(b"quick", "sloth/1")), Rejection)


def test_a_format_that_is_slow_only_now_and_then_stays() -> None:
    formats = Formats(OPTIONS, specific=[SLOTH])
    for _ in range(4):
        assert isinstance(formats.read(message(b"slow", "sloth/1")), Rejection)
        assert not isinstance(formats.read(message(b"quick", "sloth/1")), Rejection)


def test_no_alarm_rings_after_the_reading() -> None:
    Formats(OPTIONS, specific=[SLOTH]).read(message(b"quick", "sloth/1"))
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_outside_of_the_main_thread_nothing_is_timed_and_all_is_read() -> None:
    outcomes: list[Outcome] = []
    formats = Formats(OPTIONS, specific=[SLOTH])
    thread = threading.Thread(target=lambda: outcomes.append(formats.read(message(b"quick", "sloth/1"))))
    thread.start()
    thread.join()
    assert not isinstance(outcomes[0], Rejection)


def rejected(outcome: Outcome) -> Rejection:
    assert isinstance(outcome, Rejection)
    return outcome


def unpacked(sent: Message, body: Body) -> Sequence[Event] | None:
    if sent.payload:
        return None
    with contextlib.suppress(Unreadable):  # as a format does of whose parts one may be broken
        body.read_inner(b"slow")
    return [Event("d", "other", "box", 0, {})]


def test_what_is_packed_in_a_message_ends_with_it_when_the_time_is_over() -> None:
    box = Format(name="box", read=unpacked, topics=("box/#",))
    slow = Format(name="slow", read=forever, starts=(b"slow",))
    formats = Formats(OPTIONS, specific=[box, slow])
    outcomes = [rejected(formats.read(message(b"", "box/1"))) for _ in range(patience_module.OVERRUNS + 1)]
    assert outcomes[0].format == "box"
    assert "message_ms" in outcomes[0].reason
    assert "set aside" in outcomes[-1].reason


def test_an_alarm_that_is_lost_rings_again() -> None:
    def deaf_once(_sent: Message, _body: Body) -> Sequence[Event] | None:
        with contextlib.suppress(BaseException):
            threading.Event().wait(2)
        started = time.monotonic()
        threading.Event().wait(2)
        return [Event("d", "other", "deaf", 0, {"waited": time.monotonic() - started})]

    formats = Formats(OPTIONS, specific=[Format(name="deaf", read=deaf_once, topics=("deaf/#",))])
    assert "message_ms" in rejected(formats.read(message(b"", "deaf/1"))).reason
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
