"""Claims about retention: what may go goes, nothing else does, and nobody notices but by what is missing."""

from __future__ import annotations

import contextlib
import logging
import tempfile
import threading
from collections.abc import Callable, Iterator
from functools import cache
from itertools import chain
from pathlib import Path
from random import Random

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storage import engine, retention
from storage.cursors import Cursors
from storage.engine import sqlite
from storage.event import EVENTS_PER_MESSAGE, Entry, Event, Message, Rejection
from storage.filters import Filters, topic_matcher
from storage.history import Reader
from storage.rereading import Rewriter
from storage.retention import Report, Retention, prune
from storage.retention.ages import DAY_US, FOREVER, RetentionOptions, RetentionRule, age_us, parse_size
from storage.retention.forgetting import Counts
from storage.segment import Segment
from storage.snapshot import OpenLog
from storage.store import Store, StoreOptions
from storage.summaries.keeping import Keeper
from storage.summaries.latest import Latest
from storage.writer import Writer
from tests.storage.histories import NOON, History, check, entries, outcome
from tests.storage.test_append import rows

SECOND = 1_000_000
OPTIONS = StoreOptions(segment_events=100, free_floor_bytes=0)
LATER = NOON + 10_000 * SECOND
"""Long after all that these tests store."""


def filled(path: Path, count: int, *, segment_events: int = 100, first: int = 0) -> Path:
    """A message a second with one event, every tenth on debug/x, every tenth a state, every twentieth rejected."""
    if first == 0:
        path.write_bytes(made(count, segment_events))
        return path
    return grown(path, count, segment_events, first)


@cache
def made(count: int, segment_events: int) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        return grown(Path(folder) / "amber.db", count, segment_events, 0).read_bytes()


def grown(path: Path, count: int, segment_events: int, first: int) -> Path:
    store = Store(path, StoreOptions(segment_events=segment_events, free_floor_bytes=0))
    for begin in range(first, first + count, 10):
        store.append([_entry(n) for n in range(begin, begin + 10)], 1)
    store.close()
    return path


def _entry(n: int) -> Entry:
    topic, kind = "debug/x" if n % 10 == 0 else "a/b", "state" if n % 10 == 5 else "measurement"
    message = Message(topic, b"x" * 100, 1, retain=False, received_at=NOON + n * SECOND, packet_id=n % 1000 + 1)
    event = Event("d", kind, "json", NOON + n * SECOND, {"n": n})  # type: ignore[arg-type]
    return message, Rejection("no") if n % 20 == 13 else [event]


def message_ids(path: Path) -> list[int]:
    with Reader(path) as reader:
        return [one.message_id for page in reader.outcomes() for one in page]


def pruned(path: Path, options: RetentionOptions, at: int = LATER) -> Report:
    """What went, which is what was told that it would; the catalog tells the truth before and after."""
    told = prune(path, options, dry_run=True, now=lambda: at)
    check(path)
    done = prune(path, options, now=lambda: at)
    assert told.dropped == done.dropped
    assert told.removed == done.removed
    assert told.held == done.held
    check(path)
    assert_status(path)
    return done


def assert_status(path: Path) -> None:
    """What `amber status` tells is what can be counted."""
    with Reader(path) as reader:
        status = reader.status()
        found = [one for page in reader.outcomes() for one in page]
    assert status.messages == len(found)
    assert status.events == sum(len(one.events) for one in found)
    assert status.rejections == sum(one.rejection is not None for one in found)


def tables(path: Path) -> set[str]:
    return {str(name) for (name,) in rows(path, "SELECT name FROM sqlite_master WHERE type = 'table'")}


def mark(path: Path) -> int | None:
    found = rows(path, "SELECT max(received_to) FROM forgotten")
    return None if found == [(None,)] else int(str(found[0][0]))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "amber.db"


def test_nothing_is_ever_dropped_by_default(path: Path) -> None:
    filled(path, 250)
    assert not RetentionOptions().drops
    pruned(path, RetentionOptions(), NOON + 3650 * DAY_US)
    assert message_ids(path) == list(range(1, 251))
    assert mark(path) is None


def test_old_segments_go_whole_with_all_that_is_theirs(path: Path) -> None:
    filled(path, 350)
    report = pruned(path, RetentionOptions(max_age_us=100 * SECOND), NOON + 301 * SECOND)
    assert report.dropped == Counts(2, 200, 190, 10, NOON, NOON + 199 * SECOND)
    assert report.removed == Counts()
    assert message_ids(path) == list(range(201, 351))
    assert rows(path, "SELECT min(message_id) FROM rejections") == [(214,)]
    assert not {"messages_1", "events_1", "event_index_1", "messages_2"} & tables(path)
    assert rows(path, "SELECT count(*) FROM messages") == [(150,)]
    assert mark(path) == NOON + 199 * SECOND
    assert report.freed_bytes > 0


def test_a_segment_of_which_one_message_is_young_stays(path: Path) -> None:
    filled(path, 350)
    assert pruned(path, RetentionOptions(max_age_us=100 * SECOND), NOON + 199 * SECOND).dropped.segments == 0
    assert pruned(path, RetentionOptions(max_age_us=100 * SECOND), NOON + 200 * SECOND).dropped.segments == 1


def test_rejections_at_the_end_of_a_segment_keep_it_as_long_as_events_do(path: Path) -> None:
    store = Store(path, OPTIONS)
    sent = [Message("a", b"x", 0, retain=False, received_at=NOON + n * SECOND) for n in range(101)]
    for part in (sent[:100], sent[100:]):
        store.append([(message, Rejection("no")) for message in part], 1)
    store.close()
    assert rows(path, "SELECT received_to FROM segments WHERE id = 1") == [(None,)]
    age = RetentionOptions(max_age_us=100 * SECOND)
    assert pruned(path, age, NOON + 199 * SECOND).dropped.segments == 0
    assert pruned(path, age, NOON + 200 * SECOND).dropped == Counts(
        1, 100, 0, 100, NOON + 99 * SECOND, NOON + 99 * SECOND
    )


def test_the_segment_that_is_written_loses_what_is_due_but_for_the_last_message(path: Path) -> None:
    """A small flow may take years to fill it; the last message tells the next one's id."""
    filled(path, 50)
    assert pruned(path, RetentionOptions(max_age_us=SECOND)).removed.messages == 49
    assert message_ids(path) == [50]
    filled(path, 10, first=60)
    assert message_ids(path) == list(range(50, 61))
    check(path)
    assert_status(path)


def test_the_oldest_segments_go_until_the_store_is_small_enough(path: Path) -> None:
    filled(path, 2_050, segment_events=500)
    with Reader(path) as reader:
        size = reader.status().file_bytes
    report = pruned(path, RetentionOptions(max_bytes=int(size * 0.65), rules=(RetentionRule("#", None, None),)))
    assert report.dropped.segments == 2
    assert message_ids(path) == list(range(1_001, 2_051))
    assert not report.too_large_by
    report = pruned(path, RetentionOptions(max_bytes=1))
    assert message_ids(path) == list(range(2_001, 2_051))
    assert report.too_large_by


def test_a_rule_lets_go_earlier_by_topic(path: Path) -> None:
    filled(path, 350)
    options = RetentionOptions(rules=(RetentionRule("debug/#", None, 100 * SECOND),))
    report = pruned(path, options, NOON + 250 * SECOND)
    assert message_ids(path) == [n + 1 for n in range(350) if n % 10 or n >= 100]
    assert report.removed == Counts(0, 10, 10, 0, NOON, NOON + 90 * SECOND)
    assert mark(path) == NOON + 90 * SECOND
    assert rows(path, "SELECT removed, events, rejections FROM segments LIMIT 1") == [(10, 85, 5)]


def test_a_rule_keeps_longer_by_topic_and_the_rest_goes_singly(path: Path) -> None:
    filled(path, 350)
    options = RetentionOptions(max_age_us=100 * SECOND, rules=(RetentionRule("debug/#", None, None),))
    report = pruned(path, options, NOON + 301 * SECOND)
    assert message_ids(path) == [*range(1, 201, 10), *range(201, 351)]
    assert report.dropped.segments == 0
    assert report.removed.messages == 180
    assert report.removed.rejections == 10


def test_what_a_longer_rule_kept_goes_when_its_time_has_come(path: Path) -> None:
    filled(path, 350)
    options = RetentionOptions(max_age_us=100 * SECOND, rules=(RetentionRule("debug/#", None, 1000 * SECOND),))
    pruned(path, options, NOON + 301 * SECOND)
    report = pruned(path, options, NOON + 1199 * SECOND + 1)
    assert report.dropped == Counts(2, 20, 20, 0, NOON, NOON + 199 * SECOND)
    assert message_ids(path)[0] == 201


def test_rules_go_by_kind_and_what_is_no_event_by_topic(path: Path) -> None:
    filled(path, 350)
    options = RetentionOptions(
        rules=(RetentionRule(None, "state", 100 * SECOND), RetentionRule("debug/#", None, None)),
    )
    pruned(path, options, NOON + 250 * SECOND)
    assert message_ids(path) == [n + 1 for n in range(350) if n % 10 != 5 or n >= 100]


def test_a_message_goes_when_all_its_events_may(path: Path) -> None:
    store = Store(path, OPTIONS)
    both = [Event("d", kind, "json", NOON, {"n": 1}) for kind in ("state", "measurement")]
    for outcome_ in (both, both[:1], both[1:], []):
        store.append([(Message("a", b"", 0, retain=False, received_at=NOON), outcome_)], 1)
    store.append([(Message("a", b"", 0, retain=False, received_at=NOON), both)], 1)
    store.close()
    pruned(path, RetentionOptions(rules=(RetentionRule(None, "state", SECOND),)))
    assert message_ids(path) == [1, 3, 4, 5]
    pruned(path, RetentionOptions(max_age_us=SECOND, rules=(RetentionRule(None, "measurement", None),)))
    assert message_ids(path) == [1, 3, 5]


def test_the_first_rule_that_takes_an_event_counts(path: Path) -> None:
    filled(path, 350)
    options = RetentionOptions(rules=(RetentionRule("debug/x", None, None), RetentionRule("debug/#", None, SECOND)))
    pruned(path, options)
    assert message_ids(path) == list(range(1, 351))


@pytest.mark.parametrize("kind", ["consumer", "replay", "summary"])
def test_a_cursor_holds_what_it_has_yet_to_read(path: Path, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    filled(path, 350)
    with Cursors(path) as cursors:
        cursors.create("billing", kind, 150 * EVENTS_PER_MESSAGE)  # type: ignore[arg-type]
    options = RetentionOptions(max_age_us=100 * SECOND)
    report = pruned(path, options)
    assert message_ids(path) == list(range(101, 351))
    assert report.held[("billing",)].segments == 2
    assert report.held[("billing",)].messages == 200 + 49
    with caplog.at_level(logging.WARNING), kept_up(path, Retention(options, lambda: LATER)) as step:
        step()
        step()
    told = [record.message for record in caplog.records]
    assert told == [] if kind == "summary" else len(told) == 1
    assert all(
        f"{kind} billing stands at 1500000, about 200 messages behind, and holds 2 segments" in one for one in told
    )
    with Cursors(path) as cursors:
        cursors.move("billing", 350 * EVENTS_PER_MESSAGE)
    assert pruned(path, options).held == {}
    assert message_ids(path) == [350]


def test_only_the_summaries_hold_past_consumers(path: Path) -> None:
    filled(path, 350)
    with Cursors(path) as cursors:
        cursors.create("billing", "consumer", 0)
        cursors.create("again", "replay", 0)
        cursors.create("sums", "summary", 250 * EVENTS_PER_MESSAGE)
    options = RetentionOptions(max_age_us=100 * SECOND)
    assert pruned(path, options).dropped.segments == 0
    report = pruned(path, msgspec.structs.replace(options, past_consumers=True))
    assert message_ids(path) == list(range(201, 351))
    assert list(report.held) == [("sums",)]


def test_a_message_that_a_consumer_has_half_read_is_held(path: Path) -> None:
    store = Store(path, OPTIONS)
    event = Event("d", "state", "json", NOON, {"n": 1})
    for _ in range(4):
        store.append([(Message("a", b"", 0, retain=False, received_at=NOON), [event, event])], 1)
    store.close()
    with Cursors(path) as cursors:
        cursors.create("slow", "consumer", 2 * EVENTS_PER_MESSAGE)
    pruned(path, RetentionOptions(max_age_us=SECOND))
    assert message_ids(path) == [2, 3, 4]
    with Cursors(path) as cursors:
        cursors.move("slow", 2 * EVENTS_PER_MESSAGE + 1)
    pruned(path, RetentionOptions(max_age_us=SECOND))
    assert message_ids(path) == [3, 4]


def test_a_store_of_rejections_is_not_held_by_those_who_wait_for_events(path: Path) -> None:
    store = Store(path, OPTIONS)
    for n in (0, 100, 150):
        message = Message("a", b"x", 0, retain=False, received_at=NOON + n)
        store.append([(message, Rejection("no"))] * 50, 1)
    store.close()
    with Cursors(path) as cursors:
        cursors.create("sums", "summary", 0)
    pruned(path, RetentionOptions(max_age_us=SECOND))
    assert message_ids(path) == [150]


def test_what_is_yet_to_be_summed_up_anew_is_held(path: Path) -> None:
    """The newest value of a series has been exchanged away: dropped before that is seen to, it would stay for ever."""
    filled(path, 150)
    with Keeper(path, [Latest]) as keeper:
        keeper.catch_up()
        with Rewriter(path, OPTIONS) as rewriter:
            rewriter.stage([(150, [])])
            rewriter.exchange()
        done = pruned(path, RetentionOptions(max_age_us=SECOND))
        assert done.dropped == done.removed == Counts()
        assert list(done.held) == [("amber.corrections",)]
        keeper.catch_up()
    pruned(path, RetentionOptions(max_age_us=SECOND))
    assert message_ids(path) == [150]
    with Reader(path) as reader:
        assert [one.value for one in reader.latest()] == ["148"]


@contextlib.contextmanager
def kept_up(path: Path, chore: Retention) -> Iterator[Callable[[], None]]:
    """Gives a function that has the chore do a whole pass, as the keeper does in parts."""
    connection, log = engine.open_beside(path), OpenLog(path)

    def whole_pass() -> None:
        while chore.step(connection, log) < retention.LOOK_S:
            pass

    try:
        yield whole_pass
    finally:
        log.close()
        connection.close()


def test_the_chore_does_what_prune_does_and_then_leaves_the_store_alone(path: Path) -> None:
    filled(path, 350)
    at = [NOON + 320 * SECOND]
    options = RetentionOptions(
        max_age_us=100 * SECOND, rules=(RetentionRule("debug/#", None, None), RetentionRule(None, "state", 10 * SECOND))
    )
    with kept_up(path, Retention(options, lambda: at[0])) as step:
        step()
        kept = [n + 1 for n in range(350) if n % 10 == 0 or (n >= 200 and (n % 10 != 5 or n > 309))]
        assert message_ids(path) == kept
        check(path)
        watching = sqlite.connect(path)
        version = watching.execute("PRAGMA data_version").fetchone()
        step()
        assert watching.execute("PRAGMA data_version").fetchone() == version
        watching.close()
        at[0] += 20 * SECOND
        step()
    assert message_ids(path) == [n for n in kept if n not in (316, 326)]
    check(path)
    assert_status(path)


@pytest.mark.parametrize("pieces", range(1, 16))
def test_a_crash_between_the_steps_leaves_no_half_segment_and_is_made_good(path: Path, pieces: int) -> None:
    filled(path, 350)
    options, at = RetentionOptions(max_age_us=100 * SECOND), NOON + 301 * SECOND
    connection, log = engine.open_beside(path), OpenLog(path)
    work = retention.Pass(options, log, connection, retention.Memory(), at).run()
    for _ in range(pieces):
        next(work, None)
    connection.close()
    log.close()
    found = message_ids(path)
    assert found[0] in (1, 101, 201)
    assert found == list(range(found[0], 351))
    assert_status(path)
    check(path)
    with kept_up(path, Retention(options, lambda: at)) as step:
        step()
    assert message_ids(path) == list(range(201, 351))
    assert rows(path, "SELECT min(message_id) FROM rejections") == [(214,)]
    assert not {"messages_1", "events_1", "event_index_1", "messages_2"} & tables(path)


def test_a_gateway_that_starts_again_does_not_miss_the_segment_before_the_newest(path: Path) -> None:
    """It looks there for messages that the broker may send again."""
    filled(path, 200)
    pruned(path, RetentionOptions(max_age_us=SECOND))
    assert rows(path, "SELECT id FROM segments") == [(3,)]
    store = Store(path, OPTIONS)
    assert store.recent(1, 100) == {}
    assert (store.message_id, store.segment.first_message_id) == (200, 201)
    store.close()
    assert "messages_2" in tables(path)
    assert rows(path, "SELECT count(*) FROM messages_2") == [(0,)]
    filled(path, 110, first=200)
    pruned(path, RetentionOptions(max_age_us=SECOND))
    assert not {"messages_1", "messages_2"} & tables(path)
    assert message_ids(path) == [310]


def test_a_reader_that_pages_while_segments_go_sees_what_is_there(path: Path) -> None:
    filled(path, 1_050)
    options = RetentionOptions(max_age_us=SECOND)
    with Reader(path) as reader:
        forward, back = reader.pages(page_events=20), reader.pages(page_events=20, newest_first=True)
        devices = reader.pages(Filters(devices=("d",)), page_events=20)
        outcomes, rejections, follower = reader.outcomes(), reader.rejections(), reader.follower()
        for pages in (forward, back, devices, outcomes):
            next(pages)
        next(rejections)
        follower.read(20)
        prune(path, options, now=lambda: NOON + 900 * SECOND)
        rest = [event.id for page in forward for event in page]
        assert rest == sorted(rest)
        assert [id for id in rest if id >= 801 * EVENTS_PER_MESSAGE] == [e.id for e in chain(*reader.pages())]
        assert [event.id for page in devices for event in page][-1] == rest[-1]
        assert [event.id for page in back for event in page][-1] // EVENTS_PER_MESSAGE == 801
        assert [one.message_id for page in outcomes for one in page][-1] == 1_050
        assert [rejection.message_id for rejection in rejections][-1] > 1_000
        followed = []
        while follower.behind:
            followed += [event.id for event in follower.read(100)]
        assert followed[-1] == rest[-1]


def test_readers_page_on_while_another_thread_drops_and_a_writer_appends(path: Path) -> None:
    """Appends, a pass after the other, and reading from both ends, all at once."""
    filled(path, 1_000)
    writer = Writer(path, OPTIONS)
    at, stop, failed = [NOON + 300 * SECOND], threading.Event(), list[BaseException]()
    options = RetentionOptions(max_age_us=250 * SECOND, rules=(RetentionRule("debug/#", None, 50 * SECOND),))

    def drop() -> None:
        try:
            with kept_up(path, Retention(options, lambda: at[0])) as step:
                while not stop.is_set():
                    step()
        except BaseException as error:  # noqa: BLE001 - it is for the test to see
            failed.append(error)

    dropping = threading.Thread(target=drop)
    dropping.start()
    with Reader(path) as reader:
        for n in range(1_000, 1_600, 10):
            batch = []
            for k in range(n, n + 10):
                topic = "debug/x" if k % 10 == 0 else "a/b"
                message = Message(topic, b"", 0, retain=False, received_at=NOON + k * SECOND)
                batch.append((message, [Event("d", "measurement", "json", NOON, {"n": k})]))
            assert writer.append(batch, 1).result().messages == 10
            at[0] = NOON + (n + 10) * SECOND
            backwards = reader.pages(newest_first=True, page_events=50, limit=100)
            assert next(event.id for page in backwards for event in page) == (n + 10) * EVENTS_PER_MESSAGE
            found = [event.id for page in reader.pages(page_events=100) for event in page]
            assert found == sorted(set(found))
    stop.set()
    dropping.join()
    writer.stop()
    assert failed == []
    with kept_up(path, Retention(options, lambda: at[0])) as step:
        step()
    check(path)
    assert_status(path)
    assert message_ids(path)[-1] == 1_600
    assert message_ids(path)[0] > 1_200


def test_two_that_drop_at_once_do_each_thing_once(path: Path) -> None:
    """`amber prune` beside the gateway's keeper."""
    filled(path, 1_050)
    options = RetentionOptions(max_age_us=500 * SECOND, rules=(RetentionRule("debug/#", None, 50 * SECOND),))
    reports = list[Report]()

    def drop() -> None:
        reports.append(prune(path, options, now=lambda: NOON + 1_050 * SECOND))

    dropping = [threading.Thread(target=drop) for _ in range(3)]
    for thread in dropping:
        thread.start()
    for thread in dropping:
        thread.join()
    assert len(reports) == 3
    check(path)
    assert_status(path)
    stay = [n + 1 for n in range(500, 1_050) if n % 10 or n >= 1_000]
    assert message_ids(path) == stay
    assert sum(one.dropped.messages + one.removed.messages for one in reports) == 1_050 - len(stay)
    assert tables(path) >= {"messages_6", "messages_11"}
    assert not {"messages_1", "messages_5", "events_5"} & tables(path)


def test_the_writer_goes_on_right_after_something_went_out_of_its_segment(new_history: History) -> None:
    new_history.append(entries(Random(3), 60))
    new_history.index_now()
    prune(new_history.path, RetentionOptions(max_age_us=SECOND), now=lambda: NOON + 40 * SECOND)
    new_history.append(entries(Random(4), 30, 60))
    new_history.index_now()
    check(new_history.path)
    assert_status(new_history.path)
    new_history.append(entries(Random(5), 300, 90))
    check(new_history.path)
    assert_status(new_history.path)


def test_what_is_gone_is_not_brought_back_by_reading_again(new_history: History) -> None:
    """Neither by the gateway nor by `amber reprocess`, which may have it staged already."""
    new_history.append(entries(Random(3), 250))
    new_history.append(entries(Random(4), 250, 250))
    new_history.append(entries(Random(5), 50, 500))
    again = [(id, outcome(Random(id), NOON)) for id in range(1, 551)]
    options = RetentionOptions(max_age_us=SECOND, rules=(RetentionRule("a/#", None, None),))
    with Rewriter(new_history.path, StoreOptions(free_floor_bytes=0)) as rewriter:
        rewriter.stage(again[:200])
        prune(new_history.path, options, now=lambda: LATER)
        kept = message_ids(new_history.path)
        assert 50 < len(kept) < 500
        rewriter.exchange()
        rewriter.stage(again[200:300])
        rewriter.exchange()
    new_history.replace(again[300:])
    check(new_history.path)
    assert message_ids(new_history.path) == kept
    assert_status(new_history.path)
    with Rewriter(new_history.path, StoreOptions(free_floor_bytes=0)) as rewriter:
        rewriter.stage(again[:100])
        prune(new_history.path, RetentionOptions(max_age_us=SECOND), now=lambda: LATER)
        rewriter.exchange()
        rewriter.stage(again)
        rewriter.exchange()
    check(new_history.path)
    assert len(message_ids(new_history.path)) == 1


def test_roll_ups_are_kept_longer_and_go_by_their_own_ages(path: Path) -> None:
    filled(path, 10)
    connection = sqlite.connect(path)
    for table, width in (("rollup_minutes", 60), ("rollup_hours", 3_600)):
        for bucket in range(5_000):
            values = bucket + NOON // SECOND // width, 1, 1, 1, 0.0, 0.0, 0.0, 0, 0.0
            connection.execute(f"INSERT INTO {table} VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", values)
    connection.commit()
    connection.close()
    options, at = RetentionOptions(max_age_us=DAY_US, hours_age_us=DAY_US), NOON + 401 * DAY_US
    assert prune(path, options, dry_run=True, now=lambda: at).minutes == 1_440
    report = prune(path, options, now=lambda: at)
    assert (report.minutes, report.hours) == (1_440, 5_000)
    assert rows(path, "SELECT count(*), min(bucket) FROM rollup_minutes") == [(3_560, NOON // SECOND // 60 + 1_440)]
    assert prune(path, options, now=lambda: at).minutes == 0


def test_an_empty_store_has_nothing_to_lose(path: Path) -> None:
    Store(path, OPTIONS).close()
    report = pruned(path, RetentionOptions(max_age_us=1, max_bytes=1, rules=(RetentionRule("#", "state", 1),)))
    assert report.dropped == report.removed == Counts()


AGES = st.none() | st.integers(1, 700).map(lambda seconds: seconds * SECOND)
RULES = st.builds(
    RetentionRule,
    st.sampled_from((None, "#", "a/#", "+/b", "b/*", "$SYS/a", "ü/b")),
    st.sampled_from((None, "measurement", "state", "event")),
    AGES,
)


@pytest.fixture(scope="module")
def kept_history(tmp_path_factory: pytest.TempPathFactory) -> Iterator[History]:
    with History(tmp_path_factory.mktemp("kept") / "amber.db") as history:
        for number in range(0, 700, 70):
            history.append(entries(Random(number), 70, number))
        history.index_now()
        history.append(entries(Random(1), 20, 700))
        yield history


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    age=AGES,
    rules=st.lists(RULES, max_size=3),
    at=st.integers(0, 1_500),
    cursor=st.none() | st.integers(0, 730),
)
def test_what_stays_is_what_the_rules_say(
    kept_history: History,
    tmp_path_factory: pytest.TempPathFactory,
    *,
    age: int | None,
    rules: list[RetentionRule],
    at: int,
    cursor: int | None,
) -> None:
    path = tmp_path_factory.mktemp("copy") / "amber.db"
    source, target = sqlite.connect(kept_history.path), sqlite.connect(path)
    source.backup(target)
    source.close()
    target.close()
    if cursor is not None:
        with Cursors(path) as cursors:
            cursors.create("c", "consumer", cursor * EVENTS_PER_MESSAGE + EVENTS_PER_MESSAGE - 1)
    options, now = RetentionOptions(age, None, tuple(rules)), NOON + at * SECOND
    with Reader(path) as reader:
        reader.position()
        segments = reader._log.segments
    stay = staying(kept_history, segments, options, now, cursor)
    report = pruned(path, options, now)
    assert message_ids(path) == stay
    assert report.dropped.messages + report.removed.messages == len(kept_history.messages) - len(stay)
    with Reader(path) as reader:
        wanted = set(stay)
        assert list(chain(*reader.pages())) == [one for one in kept_history.events if one.message_id in wanted]
        assert list(reader.rejections()) == [one for one in kept_history.rejections if one.message_id in wanted]


def staying(
    history: History, segments: list[Segment], options: RetentionOptions, now: int, cursor: int | None
) -> list[int]:
    """The messages that stay, by the words of the documentation."""
    ages = [options.max_age_us, *(rule.max_age_us for rule in options.rules)]
    finite = [age for age in ages if age is not None]
    free = (
        len(history.messages) if cursor is None or cursor * EVENTS_PER_MESSAGE >= history.position - 9_999 else cursor
    )
    stay = []
    firsts = [segment.first_message_id for segment in segments]
    for segment, end in zip(segments, [*firsts[1:], len(history.messages) + 1], strict=True):
        ids = range(segment.first_message_id, end)
        due = {id for id in ids if finite and history.messages[id - 1].received_at + age_of(history, id, options) < now}
        newest = max(segment.received_to or 0, history.messages[end - 2].received_at)
        if segment.sealed_at is None:
            young = (id for id in ids if history.messages[id - 1].received_at + min(finite, default=FOREVER) >= now)
            first_young = next(young, end)
            due = {id for id in due if id < min(first_young, end - 1)}
        elif len(due) < len(ids):
            longest = max((age for age in finite if newest + age < now), default=0)
            due = {id for id in due if age_of(history, id, options) <= longest}
        elif newest + min(finite) >= now or free < end - 1:
            due = set()  # such a segment goes whole, and later
        stay += [id for id in ids if id not in due or id > free]
    return stay


def age_of(history: History, id: int, options: RetentionOptions) -> int:
    result, message = history.outcomes[id], history.messages[id - 1]
    kinds: set[str | None] = set() if isinstance(result, Rejection) else {event.kind for event in result}
    ages = []
    for kind in kinds or {None}:
        for rule in options.rules:
            if rule.kind in (None, kind) and (rule.topic is None or topic_matcher([rule.topic])(message.topic)):
                ages.append(rule.max_age_us)
                break
        else:
            ages.append(options.max_age_us)
    return max(FOREVER if age is None else age for age in ages)


@pytest.mark.parametrize(
    ("text", "age"), [("90d", 90 * DAY_US), ("1h30m", 5_400 * SECOND), ("forever", None), ("9" * 30 + "d", None)]
)
def test_ages_are_written_as_durations(text: str, age: int | None) -> None:
    assert age_us(text) == age


@pytest.mark.parametrize(
    ("text", "size"),
    [("10GB", 10 << 30), ("1.5 TiB", 3 << 39), ("500m", 500 << 20), ("10", None), ("-1GB", None), ("GB", None)],
)
def test_sizes_are_written_with_a_unit(text: str, size: int | None) -> None:
    assert parse_size(text) == size


def test_options_cross_to_another_process_as_json() -> None:
    options = RetentionOptions(1, 2, (RetentionRule("a/#", "state", None),), past_consumers=True)
    assert msgspec.json.decode(msgspec.json.encode(options), type=RetentionOptions) == options
