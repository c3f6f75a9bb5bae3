"""What is not settled is kept, in order and within bounds."""

from __future__ import annotations

import pytest

from devices.outbox import Held, Outbox
from devices.outgoing import Outgoing, Publication

MESSAGES = [Outgoing("5f3a", seq, seq, seq, Publication("t", b"")) for seq in range(10)]


def filled(limit: int = 10, window: int = 10) -> Outbox:
    outbox = Outbox(limit, window)
    for message in MESSAGES:
        outbox.put(message)
    return outbox


def taken(outbox: Outbox, number: int) -> list[Held]:
    return [held for _ in range(number) if (held := outbox.take())]


def seqs(taken: list[Held]) -> list[int]:
    return [held.message.seq for held in taken]


def test_a_full_outbox_keeps_the_oldest_and_refuses_the_new() -> None:
    outbox = filled(limit=4)
    assert len(outbox) == 4
    assert not outbox.put(MESSAGES[9])
    assert seqs(taken(outbox, 10)) == [0, 1, 2, 3]


def test_what_is_on_its_way_still_counts() -> None:
    outbox = filled(limit=10)
    taken(outbox, 5)
    assert not outbox.put(Outgoing("5f3a", 10, 0, 0, Publication("t", b"")))


def test_after_a_lost_connection_the_unsettled_come_first_again() -> None:
    outbox = filled()
    sent = taken(outbox, 4)
    outbox.settle(sent[1])
    outbox.restore()
    assert seqs(taken(outbox, 10)) == [0, 2, 3, 4, 5, 6, 7, 8, 9]


def test_a_word_that_comes_after_the_connection_was_lost_settles_too() -> None:
    """A receipt can come on the next connection, before the message was sent there again."""
    outbox = filled()
    sent = taken(outbox, 2)
    outbox.restore()
    assert outbox.settle(sent[0])
    assert not outbox.settle(sent[0])
    assert len(outbox) == 9
    assert seqs(taken(outbox, 10)) == [1, 2, 3, 4, 5, 6, 7, 8, 9]


def test_no_more_than_the_window_is_on_its_way() -> None:
    outbox = filled(window=3)
    sent = taken(outbox, 10)
    assert seqs(sent) == [0, 1, 2]
    outbox.settle(sent[1])
    assert seqs(taken(outbox, 10)) == [3]


def test_nothing_leaves_a_closed_outbox() -> None:
    outbox = filled()
    outbox.close()
    assert outbox.take() is None
    assert len(outbox) == 10


def test_who_takes_from_it_is_told_when_there_is_something() -> None:
    outbox, told = Outbox(10, 10), []
    outbox.on_ready = lambda: told.append(len(outbox))
    outbox.put(MESSAGES[0])
    assert told == [1]


def test_what_is_there_already_is_not_put_twice() -> None:
    """A run with the seed and start of an earlier one measures again what that one has left."""
    outbox = Outbox(10, 10)
    outbox.put_back(Held(MESSAGES[0]))
    assert outbox.put(MESSAGES[0])
    assert seqs(taken(outbox, 10)) == [0]


def test_what_got_no_receipt_in_time_is_in_line_again() -> None:
    outbox = filled(window=3)
    late, early, unanswered = taken(outbox, 3)
    late.remind_at_s, early.remind_at_s = 5.0, 7.0
    assert not outbox.overdue(4.0)
    assert outbox.overdue(6.0)
    assert outbox.find(unanswered.message.key) is unanswered
    assert seqs(taken(outbox, 1)) == [3]  # in its turn: what was never sent comes first


@pytest.mark.parametrize("number", [1, 10])
def test_an_outbox_is_empty_when_all_is_settled(number: int) -> None:
    outbox = Outbox(10, 10)
    assert outbox.empty.is_set()
    for message in MESSAGES[:number]:
        outbox.put(message)
    assert not outbox.empty.is_set()
    for held in taken(outbox, number):
        outbox.settle(held)
    assert outbox.empty.is_set()
