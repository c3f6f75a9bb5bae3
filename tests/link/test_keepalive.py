"""Keep-alive by a clock that the test turns: who must be asked, and who is gone."""

from __future__ import annotations

from itertools import pairwise

from gateway.link.keepalive import KeepAlive


def turn(keep_alive: KeepAlive, to: float, *, listening: bool = True, answers: bool = False) -> list[tuple[float, str]]:
    """Tick from 0 to a time; a broker that answers does so at once. What was done, and when."""
    done: list[tuple[float, str]] = []
    now = 0.0
    while now <= to:
        todo = keep_alive.check(now, listening=listening)
        if todo != "wait":
            done.append((now, todo))
        if todo == "give up":
            break
        if todo == "ask":
            keep_alive.said_at = now
            if answers:
                keep_alive.heard_at = now + 0.01
        now += keep_alive.tick_s
    return done


def test_a_quiet_connection_is_asked_within_each_interval() -> None:
    asked = turn(KeepAlive(40, 0), 400, answers=True)
    assert {todo for _, todo in asked} == {"ask"}
    times = [0.0, *(when for when, _ in asked)]
    assert all(later - earlier <= 40 for earlier, later in pairwise(times))


def test_who_does_not_answer_is_given_up_after_one_and_a_half_intervals() -> None:
    assert turn(KeepAlive(40, 0), 400) == [(30, "ask"), (60, "ask"), (90, "give up")]


def test_who_hears_us_but_says_nothing_is_asked_and_given_up() -> None:
    """Acknowledging into a dead connection is no sign of life."""
    keep_alive = KeepAlive(40, 0)
    done = []
    for now in range(0, 200, 10):
        keep_alive.said_at = now
        done.append(keep_alive.check(now, listening=True))
    assert done[3] == "ask"
    assert done[9] == "give up"
    assert "give up" not in done[:9]


def test_who_talks_without_end_is_still_told_that_we_live() -> None:
    """QoS 0 needs no answer; but a broker closes on who says nothing."""
    keep_alive = KeepAlive(40, 0)
    done = []
    for now in range(0, 200, 10):
        keep_alive.heard_at = now
        todo = keep_alive.check(now, listening=True)
        if todo == "ask":
            keep_alive.said_at = now
        done.append(todo)
    assert done.count("ask") >= 5
    assert "give up" not in done


def test_while_we_do_not_listen_nobody_is_given_up_but_all_are_told() -> None:
    done = turn(KeepAlive(40, 0), 400, listening=False)
    assert {todo for _, todo in done} == {"ask"}
    assert len(done) >= 10


def test_after_a_pause_the_broker_has_its_whole_time_to_answer() -> None:
    keep_alive = KeepAlive(40, 0)
    turn(keep_alive, 390, listening=False)
    assert keep_alive.check(391, listening=True) != "give up"
    assert keep_alive.check(440, listening=True) != "give up"
