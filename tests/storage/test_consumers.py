"""Claims about consumers: at least once, in order, from where they were confirmed, each by one at a time."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage import consumers, segments
from storage.consumers import Consumer, Lag, Start, known, remove, reset
from storage.cursors import CursorBusy, CursorError, Cursors, lock, reader_of
from storage.errors import StoreError, StoreGone
from storage.event import EVENTS_PER_MESSAGE, Entry, Event, Rejection
from storage.filters import Filters
from storage.store import Store
from tests.storage.histories import NOON, History, entries, message

NOBODY = Filters(devices=("nobody",))


def measured(count: int, first: int = 0, device: str = "thermo-1") -> list[Entry]:
    """Messages of one event each, a second apart."""
    return [
        (
            message(f"t/{number}", b"%d" % number, at := NOON + number * 1_000_000),
            [Event(device, "measurement", "json", at, {"n": number})],
        )
        for number in range(first, first + count)
    ]


def ids(events: Sequence[object]) -> list[int]:
    return [event.id for event in events]  # type: ignore[attr-defined]


def position_of(path: Path, name: str) -> int:
    with Cursors(path) as cursors:
        cursor = cursors.get(name)
    assert cursor is not None
    return cursor.position


def test_what_is_confirmed_does_not_come_again_and_what_is_not_does(new_history: History) -> None:
    new_history.append(measured(10))
    wanted = ids(new_history.events)
    with Consumer(new_history.path, "billing") as consumer:
        assert consumer.is_new
        assert ids(consumer.read(4)) == wanted[:4]
        consumer.confirm()
        assert ids(consumer.read(4)) == wanted[4:8]
    with Consumer(new_history.path, "billing") as consumer:
        assert not consumer.is_new
        assert consumer.position == wanted[3]
        assert ids(consumer.read(100)) == wanted[4:]


def test_a_part_of_a_batch_can_be_confirmed(new_history: History) -> None:
    new_history.append(measured(10))
    wanted = ids(new_history.events)
    with Consumer(new_history.path, "billing") as consumer:
        consumer.read(6)
        consumer.confirm(wanted[2])
        assert consumer.position == position_of(new_history.path, "billing") == wanted[2]
        for wrong in (wanted[1], wanted[6]):
            with pytest.raises(ValueError, match="cannot be confirmed"):
                consumer.confirm(wrong)
        consumer.rewind()
        assert ids(consumer.read(100)) == wanted[3:]


def test_history_runs_on_into_what_comes(new_history: History) -> None:
    """Whatever is appended between the reads, nothing is left out and nothing comes twice."""
    random, number, got = Random(1), 0, []
    with Consumer(new_history.path, "billing") as consumer:
        for _ in range(40):
            count = random.randrange(30)
            new_history.append(entries(random, count, number))
            number += count
            got += consumer.read(random.randrange(1, 40))
        while page := consumer.read():
            got += page
    assert got == new_history.events


def test_all_shapes_go_one_way(new_history: History) -> None:
    new_history.append(measured(9))
    wanted = ids(new_history.events)
    with Consumer(new_history.path, "billing") as consumer:
        assert ids(consumer.read(3)) == wanted[:3]
        pairs = consumer.read_messages(3)
        assert [event.id for event, _ in pairs] == wanted[3:6]
        assert [message.payload for _, message in pairs] == [b"3", b"4", b"5"]
        lines = consumer.read_lines(3)
        assert [msgspec.json.decode(line)["id"] for line in lines] == wanted[6:]
        consumer.confirm()
        assert consumer.position == wanted[-1]


def test_a_batch_is_full_where_few_events_match_and_many_are_there(new_history: History) -> None:
    for number in range(30):
        new_history.append(measured(30, number * 30))
        new_history.append(measured(1, number, "rare"))
    with Consumer(new_history.path, "rare", Filters(devices=("rare",))) as consumer:
        assert [len(consumer.read(12)) for _ in range(4)] == [12, 12, 6, 0]


def test_waiting_ends_when_an_event_comes(new_history: History) -> None:
    with Consumer(new_history.path, "billing", start="now") as consumer:
        assert consumer.read(wait_s=0.01) == []
        later = threading.Timer(0.05, new_history.append, [measured(1)])
        later.start()
        assert len(consumer.read(wait_s=None)) == 1
        later.join()


def test_lingering_gathers_what_comes_after_the_first(new_history: History) -> None:
    new_history.append(measured(1))
    with Consumer(new_history.path, "billing") as consumer:
        later = threading.Timer(0.05, new_history.append, [measured(1, 1)])
        later.start()
        assert len(consumer.read(2, linger_s=30)) == 2
        later.join()


def test_iterating_goes_on_until_it_is_stopped(new_history: History) -> None:
    new_history.append(measured(25))
    got: list[int] = []
    with Consumer(new_history.path, "billing", batch_events=10) as consumer:
        for batch in consumer:
            got += ids(batch)
            consumer.confirm()
            if len(got) == 25:
                threading.Timer(0.05, consumer.stop).start()
        assert got == ids(new_history.events)
        assert consumer.position == new_history.position


async def test_it_serves_an_event_loop(new_history: History) -> None:
    new_history.append(measured(25))
    got: list[int] = []
    with Consumer(new_history.path, "billing", batch_events=10) as consumer:
        assert len(await consumer.read_async(5, wait_s=0.0)) == 5
        consumer.rewind()
        async for batch in consumer:
            got += ids(batch)
            await consumer.confirm_async()
            if len(got) == 25:
                asyncio.get_running_loop().call_later(0.05, consumer.stop)
        assert await consumer.read_async(wait_s=0.0) == []
    assert got == ids(new_history.events)
    assert position_of(new_history.path, "billing") == new_history.position


def test_a_name_is_read_by_one_process_at_a_time(new_history: History) -> None:
    with Consumer(new_history.path, "billing"):
        with pytest.raises(CursorBusy, match=rf"reader of cursor billing \(process {os.getpid()}\)"):
            Consumer(new_history.path, "billing")
        assert reader_of(new_history.path, "billing") == str(os.getpid())
        Consumer(new_history.path, "other").close()
    assert reader_of(new_history.path, "billing") is None
    assert reader_of(new_history.path, "nobody") is None
    Consumer(new_history.path, "billing").close()


def test_a_refused_consumer_lets_the_name_go(new_history: History) -> None:
    with Cursors(new_history.path) as cursors:
        cursors.create("billing", "replay", 0)
    for _ in range(2):
        with pytest.raises(CursorError, match="the cursor of a replay: take another name"):
            Consumer(new_history.path, "billing")


@pytest.mark.parametrize("name", ["", "a b", "ü", "../x", ".x", "x" * 65, "a\n"])
def test_not_every_text_is_a_name(new_history: History, name: str) -> None:
    with pytest.raises(CursorError, match="is no name for a cursor"):
        Consumer(new_history.path, name)


def test_ambers_own_names_cannot_be_had(new_history: History) -> None:
    with pytest.raises(CursorError, match=r"amber\.rollups is Amber's own"):
        Consumer(new_history.path, "amber.rollups")


def test_the_filters_are_remembered(new_history: History) -> None:
    new_history.append([*measured(3), *measured(3, 3, "door")])
    asked = Filters(devices=("door", "gate"), kinds=("measurement",))
    Consumer(new_history.path, "billing", asked).close()
    the_same = Filters(kinds=("measurement",), devices=("gate", "door", "door"))
    for again in (None, Filters(), the_same):
        with Consumer(new_history.path, "billing", again) as consumer:
            assert ids(consumer.read()) == ids(new_history.events)[3:]


def test_other_filters_are_refused_unless_they_shall_change(new_history: History) -> None:
    new_history.append([*measured(3), *measured(3, 3, "door")])
    Consumer(new_history.path, "billing", Filters(devices=("door",))).close()
    with pytest.raises(CursorError, match="asks for devices door, not for devices thermo-1: leave"):
        Consumer(new_history.path, "billing", Filters(devices=("thermo-1",)))
    Consumer(new_history.path, "billing", Filters(devices=("thermo-1",)), change_filters=True).close()
    with Consumer(new_history.path, "billing") as consumer:
        assert len(consumer.read()) == 3
    Consumer(new_history.path, "billing", change_filters=True).close()
    with Consumer(new_history.path, "billing") as consumer:
        assert len(consumer.read()) == 6


def test_a_position_is_no_filter_of_a_consumer(new_history: History) -> None:
    with pytest.raises(ValueError, match="has its own position"):
        Consumer(new_history.path, "billing", Filters(after=3))


def test_what_matches_nothing_is_confirmed_while_it_waits(
    new_history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a consumer whose device is silent would hold up retention for ever."""
    monkeypatch.setattr(consumers, "IDLE_CONFIRM_S", 0.0)
    new_history.append(measured(500))
    with Consumer(new_history.path, "billing", NOBODY) as consumer:
        assert consumer.read() == []
        assert position_of(new_history.path, "billing") == new_history.position


def test_nothing_is_confirmed_by_the_way_while_an_event_waits_for_it(
    new_history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumers, "IDLE_CONFIRM_S", 0.0)
    new_history.append([*measured(1, 0, "door"), *measured(50, 1)])
    with Consumer(new_history.path, "billing", Filters(devices=("door",))) as consumer:
        assert len(consumer.read()) == 1
        new_history.append(measured(50, 51))
        assert consumer.read() == []
        assert consumer.position == 0
        consumer.confirm()
        assert consumer.position == new_history.position


@pytest.mark.parametrize(
    ("start", "skipped"),
    [
        ("beginning", 0),
        ("now", 600),
        (250 * EVENTS_PER_MESSAGE, 250),
        (0, 0),
        (datetime.fromtimestamp(NOON / 1e6, UTC) + timedelta(seconds=399, microseconds=1), 400),
        (datetime(1970, 1, 1, tzinfo=UTC), 0),
    ],
)
def test_a_new_consumer_begins_where_it_is_told(new_history: History, start: Start, skipped: int) -> None:
    now = datetime.now(UTC)
    shift = int(now.timestamp() * 1e6) - NOON - 3_600_000_000  # what the log holds is of the last hour
    if isinstance(start, datetime) and start.year > 1970:
        start += timedelta(microseconds=shift)
    for first in range(0, 600, 100):
        new_history.append(
            [
                (msgspec.structs.replace(message, received_at=message.received_at + shift), outcome)
                for message, outcome in measured(100, first)
            ]
        )
    with Consumer(new_history.path, "billing", start=start) as consumer:
        new_history.append(measured(1, 600))
        assert ids(consumer.read(1_000)) == ids(new_history.events)[skipped:]


def test_where_it_began_does_not_matter_later(new_history: History) -> None:
    new_history.append(measured(3))
    Consumer(new_history.path, "billing", start="now").close()
    with Consumer(new_history.path, "billing", start="beginning") as consumer:
        assert consumer.read() == []


@pytest.mark.parametrize("start", [30_001, 2**62, -1])
def test_a_position_that_is_not_there_is_refused(new_history: History, start: int) -> None:
    new_history.append(measured(3))
    with pytest.raises(CursorError, match="there is no position"):
        Consumer(new_history.path, "billing", start=start)


def test_a_time_to_come_is_refused(new_history: History) -> None:
    with pytest.raises(ValueError, match="is yet to come"):
        Consumer(new_history.path, "billing", start=datetime.now(UTC) + timedelta(hours=1))


def test_a_cursor_that_another_moved_stops_it(new_history: History) -> None:
    new_history.append(measured(5))
    with Consumer(new_history.path, "billing") as consumer:
        consumer.read()
        with Cursors(new_history.path) as cursors:
            cursors.move("billing", 20_000)
        with pytest.raises(CursorError, match="was moved to 20000 by another"):
            consumer.confirm()


def test_a_cursor_that_another_removed_stops_it(new_history: History) -> None:
    new_history.append(measured(5))
    with Consumer(new_history.path, "billing") as consumer:
        consumer.read()
        with Cursors(new_history.path) as cursors:
            cursors.remove("billing")
        with pytest.raises(CursorError, match="has been removed"):
            consumer.confirm()


def drop_oldest(history: History, count: int) -> None:
    """Take whole segments away, as retention does."""

    def job(store: Store) -> None:
        with store._transaction():
            for number in range(1, count + 1):
                store.connection.exec_driver_sql(f"DELETE FROM segments WHERE id = {number}")
            segments.define_views(store.connection)
            for number in range(1, count + 1):
                for table in ("messages", "events", "event_index"):
                    store.connection.exec_driver_sql(f"DROP TABLE {table}_{number}")

    history.writer.submit(job).result()


def test_it_goes_on_with_the_oldest_there_is_and_says_once_what_is_missing(
    new_history: History, caplog: pytest.LogCaptureFixture
) -> None:
    for first in range(0, 500, 100):
        new_history.append(measured(100, first))
    with Consumer(new_history.path, "billing", start=50 * EVENTS_PER_MESSAGE) as consumer:
        drop_oldest(new_history, 2)
        with caplog.at_level(logging.WARNING, "amber.consumer"):
            got = [event for _ in range(10) for event in consumer.read(20)]
        (said,) = caplog.messages
        first = got[0].message_id
        assert first > 51
        assert consumer.missed_messages == first - 51
        assert f"retention has dropped {first - 51} messages that came before" in said
        assert ids(got) == [id for id in ids(new_history.events) if id >= got[0].id][:200]


def test_what_is_missing_is_told_once_where_nothing_is_left(
    new_history: History, caplog: pytest.LogCaptureFixture
) -> None:
    for first in range(0, 500, 100):
        new_history.append(measured(100, first))
    with Consumer(new_history.path, "billing") as consumer:
        drop_oldest(new_history, 2)

        def empty(store: Store) -> None:
            with store._transaction():
                for table in ("events", "event_index", "messages"):
                    store.connection.exec_driver_sql(f"DELETE FROM {table}_{store.segment.id}")

        new_history.writer.submit(empty).result()
        assert [consumer.read() for _ in range(3)] == [[], [], []]
        missed = consumer.missed_messages
        assert 0 < missed < 500
        assert len(caplog.messages) == 1


def test_a_new_one_misses_nothing_of_what_was_dropped_before(
    new_history: History, caplog: pytest.LogCaptureFixture
) -> None:
    for first in range(0, 500, 100):
        new_history.append(measured(100, first))
    drop_oldest(new_history, 2)
    with Consumer(new_history.path, "billing") as consumer:
        assert consumer.lag() == Lag(len(consumer.read(1_000)), 500 - consumer.position // EVENTS_PER_MESSAGE)
        assert consumer.missed_messages == 0
    assert caplog.messages == []


def test_it_knows_how_far_it_is_behind(new_history: History) -> None:
    """Events where they can be counted quickly; messages of which no event came are counted among the messages."""
    random = Random(4)
    for first in range(0, 600, 60):
        new_history.append(entries(random, 60, first))
    wanted = ids(new_history.events)
    with Consumer(new_history.path, "billing") as consumer:
        for count in (0, 1, 150, 300, 10_000):
            read = consumer.read(count) if count else []
            consumer.confirm()
            behind = [id for id in wanted if id > consumer.position]
            said = consumer.lag()
            assert said.events == len(behind)
            last = wanted[-1] // EVENTS_PER_MESSAGE
            assert said.messages == last - consumer.position // EVENTS_PER_MESSAGE
            assert len(read) <= count


def test_what_cannot_be_counted_quickly_is_not(new_history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consumers, "COUNTED_EVENTS", 50)
    new_history.append(measured(60))
    with Consumer(new_history.path, "billing") as consumer:
        assert consumer.lag() == Lag(60, None)


def test_those_that_there_are_are_known(new_history: History) -> None:
    new_history.append(measured(5))
    with Cursors(new_history.path) as cursors:
        cursors.create("played", "replay", 30_000)
    new_history.writer.submit(lambda store: store.move_cursor("amber.sums", 50_000)).result()
    with Consumer(new_history.path, "billing", NOBODY):
        found = {one.cursor.name: one for one in known(new_history.path)}
    assert found["billing"].reader == str(os.getpid())
    assert found["billing"].lag == Lag(5, 5)
    assert found["billing"].cursor.filters == '{"devices":["nobody"]}'
    assert found["played"].lag == Lag(2, 2)
    assert found["played"].reader is None


def test_one_at_rest_can_be_reset_and_removed(new_history: History) -> None:
    new_history.append(measured(5))
    with Consumer(new_history.path, "billing") as consumer:
        consumer.read()
        consumer.confirm()
        for change in (lambda: reset(new_history.path, "billing", 0), lambda: remove(new_history.path, "billing")):
            with pytest.raises(CursorBusy, match="in use by another reader"):
                change()
    was, position = reset(new_history.path, "billing", 20_000)
    assert (was.kind, was.position, position) == ("consumer", 50_000, 20_000)
    with Consumer(new_history.path, "billing") as consumer:
        assert ids(consumer.read()) == [30_000, 40_000, 50_000]
    remove(new_history.path, "billing")
    with pytest.raises(CursorError, match="there is no consumer 'billing'"):
        remove(new_history.path, "billing")
    lock(new_history.path, "billing").release()


def lock_files(path: Path) -> list[Path]:
    return list(path.parent.glob("*.cursor"))


def test_its_lock_file_goes_with_it(new_history: History) -> None:
    new_history.append(measured(1))
    Consumer(new_history.path, "billing").close()
    assert len(lock_files(new_history.path)) == 1
    remove(new_history.path, "billing")
    assert lock_files(new_history.path) == []
    for start in (-1, datetime(2999, 1, 1, tzinfo=UTC)):
        with pytest.raises((CursorError, ValueError)):
            Consumer(new_history.path, "billing", start=start)
    assert lock_files(new_history.path) == []


def test_who_opened_a_lock_that_was_removed_then_holds_the_one_that_others_find(
    new_history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other comes between: it removes its file and lets go after we have opened that, and before we lock it."""
    new_history.append(measured(1))
    Consumer(new_history.path, "billing").close()
    flock, others = fcntl.flock, [lock(new_history.path, "billing")]

    def flock_late(file: int, operation: int) -> None:
        for other in others:
            other.remove_file()
            other.release()
        others.clear()
        flock(file, operation)

    monkeypatch.setattr(fcntl, "flock", flock_late)
    held = lock(new_history.path, "billing")
    assert others == []
    assert len(lock_files(new_history.path)) == 1
    with pytest.raises(CursorBusy):
        lock(new_history.path, "billing")
    held.release()
    lock(new_history.path, "billing").release()


def test_a_lock_file_that_is_anothers_is_left_alone(new_history: History) -> None:
    held = lock(new_history.path, "billing")
    held.path.unlink()
    other = lock(new_history.path, "billing")
    held.remove_file()
    held.release()
    with pytest.raises(CursorBusy):
        lock(new_history.path, "billing")
    other.release()


def test_an_empty_log_has_a_beginning(new_history: History) -> None:
    for start in ("beginning", "now"):
        with Consumer(new_history.path, start, start=start) as consumer:
            assert consumer.read() == []
            assert consumer.lag() == Lag(0, 0)
            new_history.append([(message(), Rejection("it is empty"))])
            new_history.append(measured(1))
            assert len(consumer.read()) == 1
    assert consumer.missed_messages == 0


def test_a_store_that_is_not_there_leaves_no_lock_behind(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="there is no store"):
        Consumer(tmp_path / "amber.db", "billing")
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_is_replaced_stops_it(new_history: History) -> None:
    with Consumer(new_history.path, "billing") as consumer:
        consumer.read()
        new_history.path.rename(new_history.path.with_suffix(".old"))
        with pytest.raises(StoreGone):
            consumer.read()


Step = tuple[str, int]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(("read", "lines", "messages", "confirm", "part", "rewind", "restart", "append")),
        st.integers(1, 40),
    ),
    max_size=25,
)


@settings(max_examples=15, deadline=None)
@given(steps=STEPS)
def test_whatever_is_done_the_next_is_what_comes_after_what_was_read(
    steps: list[Step], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A model of three numbers says what must come; a restart takes the reader back to what was confirmed."""
    with History(tmp_path_factory.mktemp("steps") / "amber.db", segment_events=30) as history:
        history.append(measured(20))
        consumer = Consumer(history.path, "billing")
        read = confirmed = 0
        shapes: dict[str, Callable[[int], Sequence[object]]]
        for step, count in steps:
            shapes = {"read": consumer.read, "lines": consumer.read_lines, "messages": consumer.read_messages}
            if step in shapes:
                assert len(shapes[step](count)) == min(count, len(history.events) - read)
                read = min(read + count, len(history.events))
            elif step == "append":
                history.append(measured(count, len(history.events)))
            elif step == "confirm":
                consumer.confirm()
                confirmed = read
            elif step == "part" and read > confirmed:
                confirmed += (count % (read - confirmed)) + 1
                consumer.confirm(history.events[confirmed - 1].id)
            else:
                if step == "rewind":
                    consumer.rewind()
                elif step == "restart":
                    consumer.close()
                    consumer = Consumer(history.path, "billing")
                read = confirmed if step in ("rewind", "restart") else read
        rest = ids(history.events)[read:]
        assert ids(consumer.read(10_000)) == rest
        consumer.close()
