"""Claims about roll-ups: whatever happened to the log and to the keeper, they say what all the events say."""

from __future__ import annotations

import contextlib
import json
import math
import tempfile
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection

from storage.engine import sqlite
from storage.event import Detail, Entry, Event, Outcome, Quality, Rejection, Value
from storage.history import Reader
from storage.rereading import Rewriter
from storage.retention import prune
from storage.retention.ages import RetentionOptions, RetentionRule
from storage.snapshot import OpenLog
from storage.store import StoreOptions
from storage.summaries import buckets as answering
from storage.summaries import device_events
from storage.summaries.buckets import Bucket, NoSuchSeries, TooManyBuckets
from storage.summaries.keeping import Keeper
from storage.summaries.rollups import Rollups
from tests.storage.histories import NOON, History, message

SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR

DEVICES = ("a", "b")
READINGS = ("t", "on")
AFTERNOON, EVER = (NOON, NOON + 2 * HOUR - 1), (-(2**63), 2**63)
QUESTIONS = (
    *((AFTERNOON, every) for every in (5 * MINUTE, HOUR, 7 * SECOND)),
    *((EVER, every) for every in (MINUTE, DAY)),
)

VALUES: st.SearchStrategy[Value] = st.one_of(
    st.floats(-1e6, 1e6),
    st.integers(-50, 50),
    st.booleans(),
    st.sampled_from((None, "on", 2**62, 1e300, -1e287)),
)
QUALITIES: st.SearchStrategy[dict[str, Quality]] = st.dictionaries(
    st.sampled_from(READINGS), st.sampled_from(("bad", "stale")), max_size=1
)


@st.composite
def events(draw: st.DrawFn) -> Event:
    readings = draw(st.dictionaries(st.sampled_from(READINGS), VALUES, max_size=2))
    unit = draw(st.sampled_from((None, "Cel", "Cel", "[degF]")))
    quality = draw(st.one_of(st.just({}), QUALITIES))
    return Event(
        device=draw(st.sampled_from(DEVICES)),
        kind=draw(st.sampled_from(("measurement", "measurement", "state", "command"))),
        format="json",
        # Of three hours, a few in the same instant; and some of a clock that says anything.
        observed_at=draw(
            st.one_of(
                st.integers(0, 60).map(lambda n: NOON + n * 3 * MINUTE + 7 * SECOND),
                st.integers(0, 8).map(lambda n: NOON + n * 10 * SECOND),
                st.sampled_from((0, -1, -(2**63), 2**63 - 1)),
            )
        ),
        readings=readings,
        units={"t": unit} if unit and "t" in readings else None,
        detail=Detail(quality=quality) if quality else None,
    )


OUTCOMES: st.SearchStrategy[Outcome] = st.one_of(st.lists(events(), max_size=3), st.just(Rejection("no", "json")))
AGES = st.sampled_from((None, 1, HOUR, 2 * HOUR, 100_000 * DAY))
ACTIONS = st.one_of(
    st.tuples(st.just("append"), st.lists(OUTCOMES, min_size=1, max_size=12)),
    st.tuples(
        st.sampled_from(("exchange", "reread")),
        st.lists(st.tuples(st.integers(1, 30), OUTCOMES), min_size=1, max_size=4),
    ),
    st.tuples(st.just("crash"), st.integers(0, 4)),
    st.tuples(st.sampled_from(("note", "flush", "index")), st.none()),
    st.tuples(st.just("thin"), st.tuples(AGES, AGES)),
)


class Killed(Exception):
    pass


class Mortal(Rollups):
    """Writes two rows in a transaction, and ends before the one after `left`."""

    left = 1_000_000

    def write(self, connection: Connection, position: int, rows: int) -> None:  # noqa: ARG002 - it decides itself
        if self.left == 0:
            raise Killed
        self.left -= 1
        super().write(connection, position, 2)


class Kept:
    """A keeper that may be killed in the middle of writing."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.start()

    def start(self) -> None:
        self.summary: Mortal | None = None
        self.keeper = Keeper(self.path, [self._make])

    def _make(self, log: OpenLog) -> Mortal:
        self.summary = Mortal(log)
        return self.summary

    def flush(self) -> None:
        self.keeper.catch_up()

    def crash(self, after: int) -> None:
        """Note all, write so many steps of it, and be gone."""
        assert self.summary is not None
        self.keeper.step()
        self.summary.left = after
        with contextlib.suppress(Killed):
            self.keeper.flush()
        self.keeper.__exit__(None, None, None)

    def close(self) -> None:
        self.keeper.__exit__(None, None, None)


@settings(max_examples=30, deadline=None)
@given(st.lists(ACTIONS, min_size=1, max_size=12))
def test_rollups_and_tail_say_what_all_events_say(actions: list[tuple[str, Any]]) -> None:
    with tempfile.TemporaryDirectory() as folder, History(Path(folder) / "amber.db", segment_events=15) as history:
        history.append([(message(), [Event("a", "state", "json", NOON, {"t": 1.5, "on": True}, units={"t": "Cel"})])])
        history.append([(message(), [Event("b", "state", "json", NOON, {"t": 1, "on": 0})])])
        kept = Kept(history.path)
        for action, what in actions:
            if action == "append":
                history.append([(message(), outcome) for outcome in what])
            elif action == "exchange":
                exchange(history, what)
            elif action == "reread":
                with Rewriter(history.path, StoreOptions(free_floor_bytes=0)) as rewriter:
                    rewriter.stage(what)
                    rewriter.exchange()
            elif action == "index":
                history.index_now()
            elif action == "thin":
                thin(history.path, *what)
            elif action == "note":
                kept.keeper.step()
            elif action == "flush":
                kept.flush()
            else:
                kept.crash(what)
                compare(history.path)
                kept.start()
            compare(history.path)
        kept.flush()
        compare(history.path)
        kept.close()
        wanted, rows, first = rows_wanted(history.path), rows_kept(history.path), first_sure(history.path)
        assert not rows_from(rows, first) ^ rows_from(wanted, first)


def thin(path: Path, minutes_age_us: int | None, hours_age_us: int | None) -> None:
    """Drop roll-ups as retention does, three hours after noon."""
    options = RetentionOptions(minutes_age_us=minutes_age_us, hours_age_us=hours_age_us)
    prune(path, options, now=lambda: NOON + 3 * HOUR)


def first_sure(path: Path) -> dict[str, int]:
    """The first bucket of each table that cannot have been dropped by its age."""
    connection = sqlite.connect(path)
    marks = dict(connection.execute("SELECT name, value FROM marks"))
    connection.close()
    return {table: marks.get(f"lacking.rollup_{table}", -(2**63)) for table in ("minutes", "hours")}


def rows_from(rows: set[tuple[Any, ...]], first: dict[str, int]) -> set[tuple[Any, ...]]:
    return {row for row in rows if row[1] >= first[row[0]]}


@pytest.fixture
def ended(new_history: History) -> History:
    """Ten minutes of one device, six numbers to the minute, all of them summed up."""
    new_history.append([entry(NOON + n * 10 * SECOND, {"t": float(n)}) for n in range(60)])
    with Keeper(new_history.path, [Rollups]) as keeper:
        keeper.catch_up()
    return new_history


def entry(at: int, readings: dict[str, Value], device: str = "a") -> Entry:
    return message(), [Event(device, "measurement", "json", at, readings)]


def exchange(history: History, outcomes: list[tuple[int, Outcome]]) -> None:
    history.writer.submit(lambda store: store.replace(outcomes)).result()


def test_a_bucket_says_what_its_readings_come_to(ended: History) -> None:
    with Reader(ended.path) as reader:
        found = reader.buckets("a", "t", since=NOON + 2 * MINUTE + 1, until=NOON + 4 * MINUTE, every_us=MINUTE)
    assert found == [
        Bucket(NOON + 2 * MINUTE, 6, 12.0, 17.0, 87.0, 17.0),
        Bucket(NOON + 3 * MINUTE, 6, 18.0, 23.0, 123.0, 23.0),
    ]
    assert found[0].mean == 14.5


def test_of_two_readings_of_one_instant_the_later_in_the_log_is_the_last(new_history: History) -> None:
    """Whether they are summed up at once or one after the other, and an older one that comes late is not."""
    with Keeper(new_history.path, [Rollups]) as keeper:
        for at, value in ((NOON, 1.0), (NOON, 2.0), (NOON - 1, 3.0)):
            new_history.append([entry(at, {"t": value})])
            with Reader(new_history.path) as reader:
                before = reader.buckets("a", "t", since=NOON, until=NOON + 1, every_us=HOUR)
                keeper.catch_up()
                assert reader.buckets("a", "t", since=NOON, until=NOON + 1, every_us=HOUR) == before
            assert before[-1].last == min(value, 2.0)


@pytest.mark.parametrize("at", [-(2**63), 2**63 - 1])
def test_the_first_and_the_last_moment_that_there_is_are_in_one_hour_only(ended: History, at: int) -> None:
    """Even while it is to be summed up anew, and those beside it would lie where no column reaches."""
    exchange(ended, [(1, entry(at, {"t": 1.5})[1])])
    with Reader(ended.path) as reader, Keeper(ended.path, [Rollups]) as keeper:
        for every in (MINUTE, HOUR, DAY, 7 * SECOND):
            for _ in range(2):
                found = reader.buckets("a", "t", since=at, until=at + 1, every_us=every)
                assert found == [Bucket(at // every * every, 1, 1.5, 1.5, 1.5, 1.5)]
                keeper.catch_up()


def test_the_steps_that_a_range_begins_and_ends_in_are_whole(ended: History) -> None:
    with Reader(ended.path) as reader:
        for every in (MINUTE, 30 * SECOND):
            found = reader.buckets("a", "t", since=NOON + 100 * SECOND, until=NOON + 130 * SECOND, every_us=every)
            assert found[0].start == NOON + 100 * SECOND // every * every
            assert sum(bucket.count for bucket in found) * 10 * SECOND == len(found) * every
            assert reader.buckets("a", "t", since=NOON + 90 * SECOND, until=NOON, every_us=every) == []


def test_what_retention_has_dropped_is_still_in_the_rollups(ended: History) -> None:
    """Minutes are gone before hours, events before both; each answer is of what is left."""
    connection = sqlite.connect(ended.path)
    connection.execute("DELETE FROM events_1")
    connection.execute("DELETE FROM event_index_1")
    connection.commit()
    ask = {"since": NOON, "until": NOON + HOUR}
    with Reader(ended.path) as reader:
        assert sum(bucket.count for bucket in reader.buckets("a", "t", **ask, every_us=5 * MINUTE)) == 60
        assert reader.buckets("a", "t", **ask, every_us=10 * SECOND) == []
        connection.execute("DELETE FROM rollup_minutes")
        connection.commit()
        assert reader.buckets("a", "t", **ask, every_us=MINUTE) == []
        assert sum(bucket.count for bucket in reader.buckets("a", "t", **ask, every_us=HOUR)) == 60
    connection.close()


def test_an_hour_that_retention_has_reached_is_not_made_anew(ended: History) -> None:
    """What is exchanged there changes nothing of the sums: the events that made them may be gone."""
    ended.append([entry(NOON + HOUR, {"t": 1.0})])
    forget_to(ended.path, NOON + 1)
    exchange(ended, [(1, []), (61, [])])
    ask = {"since": NOON, "until": NOON + 2 * HOUR, "every_us": HOUR}
    with Reader(ended.path) as reader, Keeper(ended.path, [Rollups]) as keeper:
        assert [(bucket.start, bucket.count) for bucket in reader.buckets("a", "t", **ask)] == [(NOON, 60)]
        keeper.catch_up()
        assert [(bucket.start, bucket.count) for bucket in reader.buckets("a", "t", **ask)] == [(NOON, 60)]


def test_what_retention_takes_of_one_device_does_not_keep_others_from_being_made_anew(new_history: History) -> None:
    def said(n: int, topic: str, device: str) -> Entry:
        return message(topic, received_at=NOON + n), [Event(device, "measurement", "json", NOON + n, {"t": 1.0})]

    new_history.append([said(n, "debug", "noisy") if n % 2 else said(n, "a", "a") for n in range(40)])
    with Keeper(new_history.path, [Rollups]) as keeper:
        keeper.catch_up()
        rules = (RetentionRule("debug", None, 1),)
        prune(new_history.path, RetentionOptions(rules=rules), now=lambda: NOON + DAY)
        exchange(new_history, [(n, []) for n in range(1, 11)])
        keeper.catch_up()
    ask = {"since": NOON, "until": NOON + 1, "every_us": HOUR}
    with Reader(new_history.path) as reader:
        assert [bucket.count for bucket in reader.buckets("a", "t", **ask)] == [15]
        assert [bucket.count for bucket in reader.buckets("noisy", "t", **ask)] == [20]


LONG_AGO = 1_699_963_200_000_000 + 20 * MINUTE


@pytest.mark.parametrize("every", [MINUTE, 90 * SECOND, 90 * MINUTE, HOUR, DAY])
@pytest.mark.parametrize(("minutes_age_us", "hours_age_us"), [(DAY, None), (None, DAY), (DAY, DAY)])
def test_what_is_too_old_for_its_sums_is_told_by_the_events(
    new_history: History, every: int, minutes_age_us: int | None, hours_age_us: int | None
) -> None:
    """What was imported long after, and what came for the same minute when the sum of the others was gone."""
    ask = {"since": LONG_AGO - DAY, "until": LONG_AGO + DAY, "every_us": every}
    start = LONG_AGO // every * every
    with Keeper(new_history.path, [Rollups]) as keeper, Reader(new_history.path) as reader:
        for n, values in enumerate(([1.5], [1.5, 2.5], [1.5, 2.5, 3.5])):
            new_history.append([entry(LONG_AGO + n, {"t": values[-1]})])
            for _ in range(2):
                found = reader.buckets("a", "t", **ask)
                assert found == [Bucket(start, len(values), 1.5, values[-1], sum(values), values[-1])]
                keeper.catch_up()
            if n != 1:  # the last time the row of one event alone stays
                thin(new_history.path, minutes_age_us, hours_age_us)


def test_where_sums_are_lacking_those_that_have_more_than_the_events_count(ended: History) -> None:
    """Of minutes whose events have been dropped, and that were dropped themselves but for what came late."""
    connection = sqlite.connect(ended.path)
    connection.execute("DELETE FROM events_1 WHERE id < 300000")
    connection.execute("DELETE FROM event_index_1 WHERE event_id < 300000")
    connection.execute("DELETE FROM rollup_minutes WHERE bucket IN (?, ?)", (NOON // MINUTE, NOON // MINUTE + 8))
    connection.execute("INSERT INTO marks VALUES ('lacking.rollup_minutes', ?)", (NOON // MINUTE + 9,))
    connection.commit()
    connection.close()
    with Reader(ended.path) as reader:
        minutes = reader.buckets("a", "t", since=NOON, until=NOON + HOUR, every_us=MINUTE)
        assert [((bucket.start - NOON) // MINUTE, bucket.count) for bucket in minutes] == [(n, 6) for n in range(1, 10)]
        hours = reader.buckets("a", "t", since=NOON, until=NOON + HOUR, every_us=HOUR)
        assert [bucket.count for bucket in hours] == [60]


@pytest.mark.parametrize("whose", ["noisy", "a"])
def test_sums_that_cannot_be_made_anew_are_told(new_history: History, whose: str) -> None:
    """A rule has changed the numbers and the unit: where all events are there the sums follow, else it is said."""
    watts = Event("a", "measurement", "json", NOON, {"power": 500.0}, units={"power": "W"})
    by_rule = msgspec.structs.replace(watts, readings={"power": 0.5}, units={"power": "kW"})
    kilowatts = msgspec.structs.replace(by_rule, unit_sources={"power": "rule"})
    new_history.append([(message(), [watts]), (message(), [watts]), entry(NOON, {"t": 1.0}, "noisy")])
    connection = sqlite.connect(new_history.path)
    with Keeper(new_history.path, [Rollups]) as keeper, contextlib.closing(OpenLog(new_history.path)) as log:
        keeper.catch_up()
        connection.execute("INSERT INTO forgotten SELECT id, 1, ? FROM devices WHERE device = ?", (NOON, whose))
        connection.commit()
        exchange(new_history, [(1, [kilowatts]), (2, [kilowatts])])
        for _ in range(2):  # before the keeper has seen it, and after
            series = answering.find_series(log, "a", "power")
            (bucket,) = answering.buckets(log, "a", "power", since=NOON, until=NOON + 1, every_us=MINUTE)
            told = [
                answering.as_they_were(log, series, since=since, every_us=every)
                for since, every in ((NOON, MINUTE), (NOON - DAY, HOUR), (NOON, SECOND), (NOON + HOUR, HOUR))
            ]
            if whose == "a":
                assert bucket.max == 500
                assert told == [NOON // HOUR * HOUR + HOUR] * 2 + [None, None]
            else:
                assert bucket.max == 0.5
                assert told == [None] * 4
            keeper.catch_up()
    connection.close()


def forget_to(path: Path, at: int) -> None:
    connection = sqlite.connect(path)
    connection.execute("INSERT INTO forgotten SELECT id, 1, ? FROM devices", (at,))
    connection.commit()
    connection.close()


def test_nothing_is_left_of_readings_that_are_exchanged_away(ended: History) -> None:
    exchange(ended, [(id, Rejection("no", "json")) for id in range(1, 61)])
    with Keeper(ended.path, [Rollups]) as keeper:
        keeper.catch_up()
    assert rows_kept(ended.path) == set()


def test_a_new_keeper_leaves_alone_what_the_one_before_had_written(new_history: History) -> None:
    """Killed in the middle, with half the rows there: they are not added a second time."""
    new_history.append([entry(NOON + n * MINUTE, {"t": 1.0, "on": True}) for n in range(20)])
    kept = Kept(new_history.path)
    kept.crash(after=7)
    assert 0 < len(rows_kept(new_history.path)) < len(rows_wanted(new_history.path))
    kept.start()
    kept.flush()
    kept.close()
    assert rows_kept(new_history.path) == rows_wanted(new_history.path)


class Disturbed(OpenLog):
    """Somebody exchanges events each time before this log is looked at, so often."""

    def __init__(self, path: Path, disturb: Callable[[], None], times: int) -> None:
        super().__init__(path)
        self._disturb = disturb
        self._left = times

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[None]:
        if self._left:
            self._left -= 1
            self._disturb()
        with super().snapshot():
            yield


@pytest.mark.parametrize("times", [0, 1, 2, 3, 4, 5, 6, 7, 100])
@pytest.mark.parametrize("every", [HOUR, 10 * SECOND])
def test_an_answer_is_of_one_moment_while_events_are_exchanged(
    new_history: History, monkeypatch: pytest.MonkeyPatch, times: int, every: int
) -> None:
    """Each exchange moves a number between the first event and the last: all answers have it once."""
    monkeypatch.setattr(device_events, "PAGE_EVENTS", 5)
    new_history.append([entry(NOON + n * MINUTE, {"t": 1.0}) for n in range(40)])
    turn = iter(range(1_000_000))

    def disturb() -> None:
        away, here = (1, 40) if next(turn) % 2 else (40, 1)
        exchange(new_history, [(away, []), (here, entry(NOON + here * MINUTE, {"t": 1.0})[1])])

    disturb()
    log = Disturbed(new_history.path, disturb, times)
    found = answering.buckets(log, "a", "t", since=NOON, until=NOON + HOUR, every_us=every)
    assert sum(bucket.count for bucket in found) == 39
    log.close()


@pytest.mark.parametrize("times", [2, 3, 100])
def test_a_segment_may_be_dropped_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    """The answer is what is there before, or what is left after."""
    monkeypatch.setattr(device_events, "PAGE_EVENTS", 5)
    with History(tmp_path / "amber.db", segment_events=20) as history:
        for n in range(3):
            history.append([entry(NOON + (20 * n + k) * SECOND, {"t": 1.0}) for k in range(20)])
        calls = iter(range(1_000))

        def disturb() -> None:
            if next(calls) == times - 1:
                drop(history.path, 2)

        log = Disturbed(history.path, disturb, times)
        found = answering.buckets(log, "a", "t", since=NOON, until=NOON + HOUR, every_us=SECOND)
        assert len(found) == (60 if times == 100 else 40)
        log.close()


def drop(path: Path, segment: int) -> None:
    connection = sqlite.connect(path)
    connection.execute("BEGIN")
    connection.execute("DELETE FROM segments WHERE id = ?", (segment,))
    for table in ("messages", "events", "event_index"):
        connection.execute(f"DROP TABLE {table}_{segment}")
    connection.commit()
    connection.close()


def test_numbers_that_cannot_be_summed_are_left_out(new_history: History) -> None:
    values: list[Value] = [1e308, -1e308, 2**63, 1e287, 1e287, True, "on", None, 2]
    new_history.append([entry(NOON + n * SECOND, {"t": value}) for n, value in enumerate(values)])
    for _ in range(2):  # from the events, and from the roll-ups
        with Reader(new_history.path) as reader:
            (bucket,) = reader.buckets("a", "t", since=NOON, until=NOON + 1, every_us=HOUR)
        assert (bucket.count, bucket.min, bucket.max, bucket.last) == (5, 1.0, 1e287, 2.0)
        assert bucket.sum == pytest.approx(2e287)
        with Keeper(new_history.path, [Rollups]) as keeper:
            keeper.catch_up()


def test_what_is_not_there_is_named_with_what_is_near(ended: History) -> None:
    with Reader(ended.path) as reader:
        ask = {"since": NOON, "until": NOON + HOUR, "every_us": HOUR}
        with pytest.raises(NoSuchSeries, match=r"no device 'aa': is it a\? `amber devices` lists them"):
            reader.buckets("aa", "t", **ask)
        with pytest.raises(NoSuchSeries, match=r"a has no reading 'temp': is it t\?"):
            reader.buckets("a", "temp", **ask)


def test_an_answer_has_an_end(ended: History, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answering, "MOST_BUCKETS", 5)
    with Reader(ended.path) as reader, pytest.raises(TooManyBuckets):
        reader.buckets("a", "t", since=NOON, until=NOON + HOUR, every_us=MINUTE)


def compare(path: Path) -> None:
    everything = told(path)
    with Reader(path) as reader:
        for device, reading, (span, every) in product(DEVICES, READINGS, QUESTIONS):
            got = reader.buckets(device, reading, since=span[0], until=span[1], every_us=every)
            expect(got, reckoned(everything, device, reading, span, every))


def expect(got: list[Bucket], wanted: list[Bucket]) -> None:
    assert [without_sum(bucket) for bucket in got] == [without_sum(bucket) for bucket in wanted]
    for one, other in zip(got, wanted, strict=True):
        assert math.isclose(one.sum, other.sum, rel_tol=1e-9, abs_tol=1e-12 * largest(one))


def without_sum(bucket: Bucket) -> tuple[float, ...]:
    return bucket.start, bucket.count, bucket.min, bucket.max, bucket.last


def largest(bucket: Bucket) -> float:
    return bucket.count * max(abs(bucket.min), abs(bucket.max))


Told = tuple[int, str, str, int, float]
"""Id, device, reading, time and value of what counts."""


def told(path: Path) -> list[Told]:
    """Each number in the log that says how a device is, without a word of what is being tested."""
    connection = sqlite.connect(path)
    found: list[Told] = []
    for (n,) in connection.execute("SELECT id FROM segments").fetchall():
        sql = (
            "SELECT e.id, device, word, observed_at, readings, detail FROM events_{} AS e"
            " JOIN devices AS d ON d.id = device_id JOIN words AS w ON w.id = kind_id ORDER BY e.id"
        )
        for id, device, kind, at, readings, detail in connection.execute(sql.format(n)):
            said = json.loads(detail or "{}")
            for reading, value in json.loads(readings).items():
                own = reading in said.get("units", {}) or said.get("quality", {}).get(reading) == "bad"
                if isinstance(value, int | float) and abs(value) < 1e288 and kind != "command" and not own:
                    found.append((id, device, reading, at, float(value)))
    connection.close()
    return found


def reckoned(events: list[Told], device: str, reading: str, span: tuple[int, int], every: int) -> list[Bucket]:
    found: dict[int, list[tuple[int, int, float]]] = {}
    for id, of, name, at, value in events:
        start = at // every * every
        if of == device and name == reading and start + every > span[0] and start < span[1]:
            found.setdefault(start, []).append((at, id, value))
    return [bucket_of(start, [value for _, _, value in those], max(those)[2]) for start, those in sorted(found.items())]


def bucket_of(start: int, values: list[float], last: float) -> Bucket:
    return Bucket(start, len(values), min(values), max(values), math.fsum(values), last)


def rows_kept(path: Path) -> set[tuple[object, ...]]:
    """The rows without their sums and positions."""
    connection = sqlite.connect(path)
    columns = "bucket, device, reading, count, min, max, last_at, last"
    sql = (
        f"SELECT {columns} FROM rollup_{{}} AS r JOIN series AS s ON s.id = series_id"
        " JOIN devices AS d ON d.id = s.device_id"
    )
    rows = {(table, *row) for table in ("minutes", "hours") for row in connection.execute(sql.format(table))}
    connection.close()
    return rows


def rows_wanted(path: Path) -> set[tuple[object, ...]]:
    found: dict[tuple[object, ...], list[tuple[int, int, float]]] = {}
    for id, device, reading, at, value in told(path):
        for table, unit in (("minutes", MINUTE), ("hours", HOUR)):
            found.setdefault((table, at // unit, device, reading), []).append((at, id, value))
    return {
        (*key, len(those), min(value for *_, value in those), max(value for *_, value in those), at, last)
        for key, those in found.items()
        for at, _, last in [max(those)]
    }
