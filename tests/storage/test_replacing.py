"""Claims about messages that are read again: their events are the new ones, and nothing else is another than before."""

from __future__ import annotations

import tempfile
from functools import partial
from itertools import chain
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.event import EVENTS_PER_MESSAGE, Detail, Event, Outcome, Rejection, StoredEvent, UnitSource
from storage.history import Filters, Reader
from storage.replacing import Replaced
from storage.rereading import Rewriter
from storage.store import Store, StoreOptions
from tests.storage.histories import NOON, History, check, entries, message, outcome
from tests.storage.test_append import rows
from tests.storage.test_history import drop_oldest

NO_FLOOR = StoreOptions(free_floor_bytes=0)


def event(device: str = "d", **readings: float) -> Event:
    return Event(device, "measurement", "json", NOON, readings)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), steps=st.lists(st.sampled_from("aaarrwwio"), min_size=4, max_size=25))
def test_a_log_that_is_read_again_holds_what_a_plain_list_holds(seed: int, steps: list[str]) -> None:
    """Appends, exchanges by the gateway and beside it, index runs and restarts, in any order; many segments."""
    random = Random(seed)
    with tempfile.TemporaryDirectory() as folder, History(Path(folder) / "amber.db", segment_events=60) as history:
        history.append(entries(random, 5))
        with Reader(history.path) as reader:
            for step in steps:
                take(step, history, random)
                assert list(chain(*reader.pages())) == history.events
            devices = Filters(devices=("thermo-*", "ab"))
            wanted = [one for one in history.events if one.device.startswith("thermo-") or one.device == "ab"]
            assert list(chain(*reader.pages(devices))) == wanted
            assert without_ids(history) == without_ids(reader)
            status = reader.status()
            found = status.messages, status.events, status.rejections, status.position
            assert found == (
                len(history.messages),
                len(history.events),
                len(history.rejections),
                history.position,
            )
        check(history.path)


def take(step: str, history: History, random: Random) -> None:
    count = len(history.messages)
    if step == "a":
        history.append(entries(random, random.randrange(1, 40), count))
    elif step == "i":
        history.index_now()
    elif step == "o":
        history.reopen()
    else:
        chosen = random.sample(range(1, count + 1), min(count, random.randrange(1, 12)))
        outcomes = [(id, outcome(random, history.messages[id - 1].received_at)) for id in chosen]
        if step == "r":
            history.replace(outcomes)
        else:
            with Rewriter(history.path, NO_FLOOR) as rewriter:
                rewriter.stage(outcomes)
                rewriter.exchange()
            history.note_replaced(outcomes)


def without_ids(source: History | Reader) -> list[tuple[object, ...]]:
    found = source.rejections if isinstance(source, History) else source.rejections()
    return sorted((one.message_id, one.reason, one.format, one.topic, one.payload) for one in found)


def test_only_what_differs_is_written(new_history: History) -> None:
    old: list[Outcome] = [[event(x=1), event(x=2)], Rejection("empty"), [event(x=3)], Rejection("empty", "json")]
    new_history.append([(message(), one) for one in old])
    same: list[tuple[int, Outcome]] = list(enumerate(old, 1))
    before = rows(new_history.path, "SELECT * FROM events_1")
    assert new_history.replace(same) == Replaced()
    with Rewriter(new_history.path, NO_FLOOR) as rewriter:
        rewriter.stage(same)
        assert rewriter.exchange() == Replaced()
    assert rows(new_history.path, "SELECT * FROM events_1") == before
    changes: list[tuple[int, Outcome]] = [
        (1, [event(x=1), event(x=9), event(x=2)]),
        (2, [event(x=4)]),
        (3, Rejection("no more")),
        (4, Rejection("empty", "senml")),
    ]
    assert new_history.replace(changes) == Replaced(
        messages=4, events_added=2, events_changed=1, events_removed=1, rejections_added=1, rejections_removed=1
    )
    assert rows(new_history.path, "SELECT message_id, reason, format FROM rejections ORDER BY 1") == [
        (3, "no more", ""),
        (4, "empty", "senml"),
    ]


def test_a_reading_again_moves_no_other_event_and_no_cursor(new_history: History) -> None:
    new_history.append([(message(), [event(x=n)]) for n in range(5)])
    new_history.writer.submit(lambda store: store.move_cursor("sink", 3 * EVENTS_PER_MESSAGE)).result()
    with Reader(new_history.path) as reader:
        follower = reader.follower()
        assert len(follower.read()) == 5
        new_history.replace([(2, [event(x=7), event(x=8), event(x=9)])])
        assert follower.read() == []
        new_history.append([(message(), [event(x=5)])])
        assert [one.id for one in follower.read()] == [6 * EVENTS_PER_MESSAGE]
        later = chain(*reader.pages(Filters(after=3 * EVENTS_PER_MESSAGE)))
        assert [one.id // EVENTS_PER_MESSAGE for one in later] == [4, 5, 6]
    assert new_history.writer.submit(lambda store: store.cursor("sink")).result() == 3 * EVENTS_PER_MESSAGE


@pytest.mark.parametrize("newest_first", [False, True])
def test_a_walk_by_device_sees_what_is_exchanged_before_it(*, new_history: History, newest_first: bool) -> None:
    """The places that the index gave are asked for again when they may be others."""
    new_history.append([(message(), [event("d" if n % 12 == 0 else "other", x=n)]) for n in range(190)])
    new_history.index_now()
    with Reader(new_history.path) as reader:
        pages = reader.pages(Filters(devices=("d",)), newest_first=newest_first, page_events=2)
        seen = [*next(pages)]
        new_history.replace([(100, [event("d", x=1)]), (97, [event("other", x=1)])])
        seen += chain(*pages)
    wanted = [one for one in new_history.events if one.device == "d"]
    assert seen == (wanted[::-1] if newest_first else wanted)


def test_a_message_that_is_dropped_or_yet_to_come_is_passed_over(new_history: History) -> None:
    for number in range(0, 450, 50):
        new_history.append(entries(Random(number), 50, number))
    kept = drop_oldest(new_history.path, 1)
    new_history.reopen()
    with Rewriter(new_history.path, NO_FLOOR) as rewriter:
        for outcomes in ([(1, [event(x=1)]), (451, [event(x=1)])], [(9_999, [event(x=1)])]):
            assert new_history.writer.submit(partial(Store.replace, outcomes=outcomes)).result() == Replaced()
            rewriter.stage(outcomes)
        assert rewriter.exchange() == Replaced()
    with Reader(new_history.path) as reader:
        assert list(chain(*reader.pages())) == [one for one in new_history.events if one.id >= kept]


def test_a_message_may_give_so_many_events_and_no_more(new_history: History) -> None:
    new_history.append([(message(), [event(x=n) for n in range(EVENTS_PER_MESSAGE)]), (message(), [event(x=-1)])])
    with Reader(new_history.path) as reader:
        assert list(chain(*reader.pages())) == new_history.events
    too_many = [event(x=n) for n in range(EVENTS_PER_MESSAGE + 1)]
    done = new_history.writer.append([(message(), too_many), (message(), [event(x=1)])], 1).result()
    assert (done.messages, done.events, done.rejections) == (2, 1, 1)
    assert rows(new_history.path, "SELECT reason, format FROM rejections") == [
        ("cannot be stored: a message may give 10000 events at most", "json")
    ]
    new_history.writer.submit(lambda store: store.replace([(2, too_many)])).result()
    assert rows(new_history.path, "SELECT message_id FROM rejections ORDER BY 1") == [(2,), (3,)]
    check(new_history.path)


def test_what_no_column_can_hold_is_a_rejection_when_read_again_too(new_history: History) -> None:
    new_history.append([(message(), [event(x=1)]) for _ in range(2)])
    poison: list[tuple[int, Outcome]] = [(1, [Event("d", "state", "json", 2**63, {})]), (2, [event(x=2)])]
    new_history.writer.submit(lambda store: store.replace(poison)).result()
    with Rewriter(new_history.path, NO_FLOOR) as rewriter:
        rewriter.stage([(2, [Event("\ud800", "state", "json", 0, {})])])
        rewriter.exchange()
    reasons = rows(new_history.path, "SELECT reason FROM rejections")
    assert len(reasons) == 2
    assert all(str(reason).startswith("cannot be stored: ") for (reason,) in reasons)


def test_where_messages_have_many_events_a_read_looks_at_few_of_them(new_history: History) -> None:
    new_history.append([(message(), [event("d", n=n, k=k) for k in range(7)]) for n in range(25)])
    new_history.index_now()
    new_history.append([(message(), [event("d", n=n, k=k) for k in range(3)]) for n in range(25, 30)])
    for newest_first in (False, True):
        with Reader(new_history.path, scanned_events=10) as reader:
            found = list(
                chain(*reader.pages(Filters(kinds=("measurement",)), newest_first=newest_first, page_events=4))
            )
        assert found == (new_history.events[::-1] if newest_first else new_history.events)


def test_detail_comes_out_as_it_went_in(new_history: History) -> None:
    detail = Detail(via="gw", vendor_type="STATE", historical=True, quality={"x": "bad"})
    plain, told = event(x=1), Event("d", "state", "json", NOON, {"x": 85}, detail=detail)
    new_history.append([(message(), [plain, told, Event("d", "state", "json", NOON, {}, detail=Detail())])])
    with Reader(new_history.path) as reader:
        stored = list(chain(*reader.pages()))
        lines = list(chain(*reader.line_pages()))
    assert [one.detail for one in stored] == [None, stored[1].detail, None]
    assert lines[1].endswith('"units":{},"via":"gw","vendor_type":"STATE","historical":true,"quality":{"x":"bad"}}')
    assert lines[0].endswith('"units":{}}')
    assert rows(new_history.path, "SELECT detail ->> '$.via' FROM events") == [(None,), ("gw",), (None,)]


def unit(path: Path) -> object:
    return rows(path, "SELECT unit, unit_source FROM series")[0]


def with_unit(unit: str | None, source: UnitSource = "message") -> list[Event]:
    units = None if unit is None else {"x": unit}
    return [Event("d", "state", "json", NOON, {"x": 1}, units=units, unit_sources={"x": source})]


def test_a_unit_gives_way_to_a_better_source_and_not_to_a_worse_one(new_history: History) -> None:
    told: list[tuple[list[Event], object]] = [
        (with_unit(None), (None, None)),
        (with_unit("a", "format"), ("a", "format")),
        (with_unit("b", "learned"), ("b", "learned")),
        (with_unit("a", "format"), ("b", "learned")),
        (with_unit("c", "message"), ("c", "message")),
        (with_unit("b", "learned"), ("c", "message")),
        (with_unit(None), ("c", "message")),
        (with_unit("d", "message"), ("c", "message")),
        (with_unit("e", "rule"), ("e", "rule")),
        (with_unit("f", "format"), ("f", "format")),
    ]
    for events, expected in told:
        new_history.reopen()  # what was the same before is not looked at again
        new_history.append([(message(), events)])
        assert unit(new_history.path) == expected


def test_what_an_old_message_states_does_not_undo_what_a_newer_one_stated(new_history: History) -> None:
    new_history.append([(message(), with_unit(None)), (message(), with_unit("K"))])
    new_history.replace([(1, with_unit("Cel"))])
    assert unit(new_history.path) == ("K", "message")
    new_history.replace([(1, with_unit("Cel", "rule"))])
    assert unit(new_history.path) == ("Cel", "rule")


def test_the_gateway_looks_at_a_series_again_that_another_process_may_have_changed(new_history: History) -> None:
    new_history.append([(message(), with_unit("K"))])
    with Rewriter(new_history.path, NO_FLOOR) as rewriter:
        rewriter.stage([(1, with_unit("Cel", "rule"))])
        rewriter.exchange()
    assert unit(new_history.path) == ("Cel", "rule")
    new_history.append([(message(), with_unit("K"))])
    assert unit(new_history.path) == ("K", "message")


def test_the_gateway_goes_on_after_another_process_has_exchanged(new_history: History) -> None:
    """Its memory of names, series and counts is of before: it must see that, also when its own append then fails."""
    new_history.append([(message(), [event("d", x=1)]) for _ in range(50)])
    new_history.index_now()
    with Rewriter(new_history.path, NO_FLOOR) as rewriter:
        changes: list[tuple[int, Outcome]] = [(n, [event("new", y=1), event("d", x=n)]) for n in range(1, 51)]
        rewriter.stage(changes)
        rewriter.exchange()
    new_history.note_replaced(changes)
    new_history.append([(message(), [event("new", y=2)]), (message(), [Event("n", "other", "new", 2**62, {"z": 1})])])
    new_history.append(entries(Random(1), 150, 52))
    with Reader(new_history.path) as reader:
        assert list(chain(*reader.pages())) == new_history.events
        assert reader.status().segments == 2
    check(new_history.path)


def test_a_change_in_the_open_segment_is_not_lost_when_the_gateway_indexes_it(new_history: History) -> None:
    new_history.append([(message(), [event(x=n)]) for n in range(20)])
    with Rewriter(new_history.path, NO_FLOOR) as rewriter:
        rewriter.stage([(5, [event("late", x=1), event("late", x=2)])])
        rewriter.exchange()
    new_history.index_now()
    check(new_history.path)
    with Reader(new_history.path) as reader:
        found: list[StoredEvent] = list(chain(*reader.pages(Filters(devices=("late",)))))
    assert [one.id for one in found] == [5 * EVENTS_PER_MESSAGE, 5 * EVENTS_PER_MESSAGE + 1]


def test_the_last_event_may_go(new_history: History) -> None:
    new_history.append([(message(), [event(x=n)]) for n in range(3)])
    new_history.replace([(3, Rejection("no more"))])
    with Reader(new_history.path) as reader:
        assert reader.position() == 2 * EVENTS_PER_MESSAGE
        follower = reader.follower(Filters(after=3 * EVENTS_PER_MESSAGE))
        assert follower.read() == []
        assert not follower.behind
