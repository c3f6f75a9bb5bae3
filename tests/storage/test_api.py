"""The log from Python: what `from storage import open_log` gives is what is in the store."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import math
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import storage
from storage import AmberError, Event, Log, StoreError, open_log
from storage.api.frames import by_sort, wide_table
from storage.engine import sqlite
from storage.event import Detail, Entry, Kind, Message, StoredEvent, Value
from storage.event import Event as NewEvent
from storage.event_json import events_json
from storage.history import Reader
from storage.store import Store, StoreOptions
from tests.replay.filled import T0, entry, position
from tests.storage.histories import NOON, ROOT, History

EIGHT = datetime(2026, 11, 22, 8, tzinfo=UTC)


def reading_entry(n: int, readings: dict[str, Value], **more: Any) -> Entry:
    at = NOON + n * 1_000_000
    event = NewEvent("thermo", "measurement", "json", at, readings, **more)
    return Message("devices/thermo", b"{}", 1, retain=False, received_at=at + 5, packet_id=n + 1), [event]


def fill(path: Path, *batches: list[Entry]) -> Path:
    store = Store(path, StoreOptions(free_floor_bytes=0))
    for batch in batches:
        store.append(batch, 1)
    store.close()
    return path


@pytest.fixture
def log(history: History) -> Iterator[Log]:
    with open_log(history.path) as log:
        yield log


@pytest.fixture
def numbered(tmp_path: Path) -> Path:
    """Twenty events, a second apart."""
    return fill(tmp_path / "amber.db", [reading_entry(n, {"n": n}) for n in range(20)])


def stored(events: list[Event]) -> list[StoredEvent]:
    return [event._stored for event in events]


def ids(events: list[Event]) -> list[int]:
    return [event.id for event in events]


# --- events ---


def test_all_events_come_in_their_order(log: Log, history: History) -> None:
    assert stored(list(log.events())) == history.events
    assert [event for batch in log.events().batches() for event in batch] == list(log.events())
    assert stored(list(log.events(newest_first=True, limit=7))) == history.events[:-8:-1]


async def test_they_come_the_same_with_async_for(log: Log, history: History) -> None:
    assert stored([event async for event in log.events()]) == history.events
    assert stored([event async for batch in log.events().batches() for event in batch]) == history.events


def test_a_query_can_be_walked_through_again_and_sees_what_has_come(new_history: History) -> None:
    new_history.append([reading_entry(0, {"n": 0})])
    with open_log(new_history.path) as log:
        query = log.events()
        assert len(list(query)) == query.count() == 1
        new_history.append([reading_entry(1, {"n": 1})])
        assert len(list(query)) == query.count() == 2


def test_filters_mean_what_the_commands_mean(log: Log, history: History) -> None:
    wanted = [event for event in history.events if event.device in ("thermo-1", "thermo-10", "ab")]
    assert stored(list(log.events(device=["thermo-1*", "ab"]))) == wanted
    assert log.events(kind="state").count() == sum(event.kind == "state" for event in history.events)
    assert log.events(topic="a/#", limit=5).count() == 5
    assert log.events(reading=("temperature", "ü")).count() == sum(
        not {"temperature", "ü"}.isdisjoint(json.loads(event.readings)) for event in history.events
    )
    after = history.events[100].id
    assert ids(list(log.events(after=after))) == [event.id for event in history.events if event.id > after]


def test_a_time_is_text_a_datetime_or_microseconds(log: Log, history: History) -> None:
    moment = datetime.fromtimestamp(NOON / 1e6, UTC) + timedelta(seconds=100)
    wanted = [event for event in history.events if event.received_at >= NOON + 100_000_000]
    for since in (moment, moment.astimezone().replace(tzinfo=None), moment.isoformat(), NOON + 100_000_000):
        assert stored(list(log.events(since=since))) == wanted
    assert log.events(until=moment).count() == len(history.events) - len(wanted)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"since": "soonish"}, "since: 'soonish' is no time"),
        ({"since": 1.5}, "microseconds"),
        ({"since": True}, "microseconds"),
        ({"since": "2026-11-22", "until": "2026-11-21"}, "later than since"),
        ({"since": datetime.min.replace(tzinfo=timezone(timedelta(hours=1)))}, "no time in UTC"),
        ({"since": 2**70}, "64 bits"),
        ({"device": []}, "leave it out for all"),
        ({"device": 7}, "device is a name or several"),
        ({"kind": ["state", 7]}, "kind is a name or several"),
        ({"device": "\ud800"}, "UTF-8"),
        ({"topic": "a/#/b"}, "no topic filter"),
        ({"clock": "mine"}, "no clock"),
        ({"kind": "foo"}, "there is no kind 'foo': take measurement, state, .* or other"),
        ({"kind": ["state", "foo"]}, "there is no kind 'foo'"),
        ({"after": -1}, "after is -1"),
        ({"after": "1"}, "whole number"),
        ({"limit": 0}, "leave it out for all"),
        ({"limit": 2.0}, "whole number"),
    ],
)
def test_what_makes_no_sense_is_refused_with_what_to_write(log: Log, arguments: dict[str, Any], says: str) -> None:
    with pytest.raises((ValueError, TypeError), match=says):
        log.events(**arguments)


def test_other_arguments_are_checked_as_well(log: Log) -> None:
    for speed in (0, -1, math.nan):
        with pytest.raises(ValueError, match=r"write 1, 10, 0\.5 or 'max'"):
            log.replay(speed=speed)
    with pytest.raises(TypeError, match=r"write 1, 10, 0\.5 or 'max'"):
        log.replay(speed="fast")  # type: ignore[arg-type]
    for gap in ("often", "0s", timedelta(seconds=-1), "1" + "0" * 400 + "s"):
        with pytest.raises(ValueError, match="max_gap"):
            log.replay(max_gap=gap)
    with pytest.raises(ValueError, match="not both"):
        log.follow(last=3, after=7)
    with pytest.raises(ValueError, match=r"start: 'foo' is .*'beginning', 'now', a position, or a time"):
        log.consumer("billing", start="foo")
    for start in (None, True, 1.5):
        with pytest.raises(TypeError, match="'beginning', 'now', a position"):
            log.consumer("billing", start=start)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="'wide' or 'long'"):
        log.events().to_arrow("tall")  # type: ignore[arg-type]


def test_an_event_has_the_names_of_its_json(log: Log, history: History) -> None:
    for event, as_stored in zip(log.events(), history.events, strict=True):
        told = json.loads(event.to_json())
        assert event.to_json() == events_json([as_stored])[0]
        for name in ("id", "message_id", "device", "kind", "time_source", "topic", "format", "qos", "retain", "seq"):
            assert getattr(event, name) == told.pop(name)
        assert (event.readings, event.units) == (told.pop("readings"), told.pop("units"))
        assert event.quality == told.pop("quality", {})
        assert event.observed_us == as_stored.observed_at
        assert event.received_at == datetime.fromisoformat(told.pop("received_at"))
        del told["observed_at"]
        for name, value in told.items():
            found = getattr(event.detail, name)
            assert found == value or name == "location"
        assert str(event.id) in repr(event)


def test_the_payload_of_a_message_is_there_as_it_came(log: Log, history: History) -> None:
    event = next(iter(log.events(limit=1)))
    assert log.payload(event.message_id) == history.messages[event.message_id - 1].payload
    assert log.payload(10**9) is None


def test_a_time_that_no_datetime_holds_is_the_nearest_and_exact_as_an_integer(tmp_path: Path) -> None:
    path = tmp_path / "amber.db"
    times = (-(2**63), -1, 2**63 - 1)
    message = Message("t", b"", 0, retain=False, received_at=NOON)
    fill(path, [(message, [NewEvent("d", "state", "json", at, {}, from_device=True) for at in times])])
    with open_log(path) as log:
        events = list(log.events())
        assert [event.observed_us for event in events] == list(times)
        assert [event.observed_at.year for event in events] == [1, 1969, 9999]
        assert log.events().to_arrow()["observed_at"].cast(pa.int64()).to_pylist() == list(times)
        assert len(log.events().to_pandas()) == len(log.events().to_polars()) == 3


def test_integers_of_any_size_come_whole(tmp_path: Path) -> None:
    large: dict[str, Value] = {"a": 2**53 + 1, "b": 10**40, "c": -(2**63)}
    with open_log(fill(tmp_path / "amber.db", [reading_entry(0, large)])) as log:
        assert next(iter(log.events())).readings == large
        table = log.events().to_arrow()
        assert {name: table[name].to_pylist() for name in large} == {n: [str(v)] for n, v in large.items()}


def test_an_empty_store_gives_nothing_and_no_error(new_history: History) -> None:
    with open_log(new_history.path) as log:
        assert (list(log.events()), log.events().first(), log.events().count(), log.position) == ([], None, 0, 0)
        assert list(log.replay(speed="max")) == []
        for table in (log.events().to_arrow(), log.events().to_arrow("long"), log.latest().to_arrow()):
            assert table.num_rows == 0
            assert table.column_names
        assert log.events().to_pandas().empty
        assert log.events().to_polars().is_empty()
        assert (list(log.latest()), list(log.series())) == ([], [])


def test_a_store_that_is_not_there_or_is_none_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"there is no store at .*amber run"):
        open_log(tmp_path / "none.db")
    (tmp_path / "text").write_text("not a store " * 1000)
    with pytest.raises(StoreError, match="is no SQLite database"):
        open_log(f"sqlite:///{tmp_path / 'text'}")


def test_a_way_that_is_left_halfway_leaves_nothing_open(numbered: Path) -> None:
    with open_log(numbered) as log:
        for _ in log.events():
            break
        for _ in log.replay(speed=1):
            break
        walk = iter(log.follow(last=1))
        next(walk)
        walk.close()
    connection = sqlite.connect(numbered)
    assert connection.execute("PRAGMA journal_mode=DELETE").fetchone() == ("delete",), "only where nobody else has it"
    connection.close()


async def test_an_async_way_may_be_left_and_cancelled(numbered: Path) -> None:
    async with open_log(numbered) as log:
        async for event in log.events():
            assert event.readings == {"n": 0}
            break

        async def walk() -> None:
            async for _ in log.follow():
                pass

        task = asyncio.create_task(walk())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


def test_a_closed_log_says_so(numbered: Path) -> None:
    log = open_log(numbered)
    walk = iter(log.events().batches())
    log.close()
    with pytest.raises(StoreError, match="was closed"):
        next(walk)
    with pytest.raises(StoreError, match="was closed"):
        log.events().first()
    with pytest.raises(StoreError, match="was closed"):
        log.consumer("c")


def test_threads_share_a_log(log: Log, history: History) -> None:
    found: list[int] = []

    def count() -> None:
        found.extend(len(list(log.events())) for _ in range(3))

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [len(history.events)] * 12


# --- follow and replay ---


def test_following_gives_what_comes_after_it_was_asked_for(new_history: History) -> None:
    new_history.append([reading_entry(n, {"n": n}) for n in range(5)])
    with open_log(new_history.path) as log:
        live, two, all_of_it = log.follow(), log.follow(last=2), log.follow(since=0)
        new_history.append([reading_entry(5, {"n": 5})])
        assert next(iter(live)).readings == {"n": 5}
        assert next(iter(two)).readings == {"n": 3}
        assert next(iter(all_of_it)).readings == {"n": 0}
        assert next(iter(log.follow(after=30_000))).readings == {"n": 3}


def test_closing_the_log_ends_who_follows_it_on_another_thread(numbered: Path) -> None:
    log, found, begun = open_log(numbered), list[int](), threading.Event()

    def follow() -> None:
        for event in log.follow(last=1):
            found.append(event.id)
            begun.set()

    thread = threading.Thread(target=follow)
    thread.start()
    assert begun.wait(10)
    log.close()
    thread.join(10)
    assert not thread.is_alive()
    assert found == [200_000]


async def test_following_with_async_for_sees_history_and_then_what_comes(new_history: History) -> None:
    new_history.append([reading_entry(0, {"n": 0})])
    found = []
    async with open_log(new_history.path) as log:
        async for event in log.follow(last=1):
            found.append(event.readings["n"])
            if len(found) == 3:
                break
            new_history.append([reading_entry(len(found), {"n": len(found)})])
    assert found == [0, 1, 2]


def test_a_replay_keeps_its_pace_without_an_event_loop(numbered: Path) -> None:
    with open_log(numbered) as log:
        began = datetime.now(UTC)
        played = list(log.replay(speed=100))
        assert ids(played) == ids(list(log.events()))
        assert datetime.now(UTC) - began >= timedelta(seconds=0.18), "19 s of the log at a hundred times its pace"


async def test_a_replay_is_the_same_with_and_without_an_event_loop(numbered: Path) -> None:
    with open_log(numbered) as log:
        wanted = ids(list(log.events(after=50_000, limit=9)))
        for speed in (1_000, math.inf):
            replay = log.replay(after=50_000, limit=9, speed=speed, max_gap="1s")
            assert ids(list(replay)) == wanted
            assert [event.id async for event in replay] == wanted


def test_closing_the_log_ends_a_replay_that_waits(tmp_path: Path) -> None:
    log = open_log(fill(tmp_path / "amber.db", [reading_entry(0, {}), reading_entry(100_000, {})]))
    found, begun = list[int](), threading.Event()

    def play() -> None:
        for event in log.replay():
            found.append(event.id)
            begun.set()

    thread = threading.Thread(target=play)
    thread.start()
    assert begun.wait(10)
    log.close()
    thread.join(10)
    assert not thread.is_alive()
    assert found == [10_000]


@pytest.mark.parametrize("walk", ["replay", "player"])
async def test_closing_the_log_ends_an_async_replay_that_waits(tmp_path: Path, walk: str) -> None:
    """From another thread, an hour before the next event is due."""
    path = fill(tmp_path / "amber.db", [entry(0, at=T0), entry(1, at=T0 + 3_600_000_000)])
    log = open_log(path)
    came: list[int] = []

    async def note(events: AsyncIterable[Event]) -> None:
        async for event in events:
            came.append(event.id)
            asyncio.get_running_loop().call_later(0.05, threading.Thread(target=log.close).start)

    async with asyncio.timeout(30):
        if walk == "replay":
            await note(log.replay())
        else:
            async with log.player() as player:
                await note(player)
    assert came == [position(1)]


async def test_a_player_refuses_what_makes_no_sense(numbered: Path) -> None:
    with open_log(numbered) as log:
        async with log.player(paused=True) as player:
            player.speed = "max"
            assert player.speed is None
            with pytest.raises(ValueError, match="speed is 0"):
                player.speed = 0
            with pytest.raises(ValueError, match="events is 0"):
                player.step(0)


async def test_a_player_does_as_it_is_told(numbered: Path) -> None:
    async with open_log(numbered) as log:
        async with log.player(limit=3, paused=True) as player:
            player.step(2)
            found = []
            async for event in player:
                found.append(event.readings["n"])
                if len(found) == 2:
                    assert player.paused
                    assert player.received_at == event.received_at
                    player.resume()
                    player.speed = 1_000
            assert found == [0, 1, 2]
        async with log.player(limit=2, speed="max", rounds=2) as player:
            assert [event.readings["n"] async for event in player] == [0, 1, 0, 1]
        with pytest.raises(ValueError, match="rate"):
            async with log.player(rate=0):
                pass


@pytest.mark.parametrize("walk", ["log.replay()", "log.follow(last=1)", "log.consumer('c')"])
def test_ctrl_c_ends_whoever_waits(tmp_path: Path, walk: str) -> None:
    fill(tmp_path / "amber.db", [reading_entry(0, {}), reading_entry(100_000, {})])
    program = f"from storage import open_log\nlog = open_log('amber.db')\nfor _ in {walk}: print(1, flush=True)"
    command, env = [sys.executable, "-c", program], {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, cwd=tmp_path, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stderr
        assert process.stdout.readline() == "1\n"
        process.send_signal(signal.SIGINT)
        assert process.stderr.read().endswith("KeyboardInterrupt\n")
    assert process.returncode == -signal.SIGINT


# --- frames ---

MIXED: list[dict[str, Value]] = [
    {"temperature": 21.5, "on": True},
    {"temperature": 22, "on": None, "mode": "auto"},
    {"temperature": "unavailable", "id": 7},
    {},
    {"temperature": False, "mode": None, "count": 2**60},
]


@pytest.fixture
def mixed(tmp_path: Path) -> Iterator[Log]:
    with open_log(fill(tmp_path / "amber.db", [reading_entry(n, one) for n, one in enumerate(MIXED)])) as log:
        yield log


def test_a_wide_table_has_a_column_for_each_sort_of_a_reading(mixed: Log) -> None:
    table = mixed.events().to_arrow()
    found = {name: table[name].to_pylist() for name in table.column_names[12:]}
    assert found == {
        "temperature": [21.5, 22.0, None, None, None],
        "temperature.text": [None, None, "unavailable", None, None],
        "temperature.boolean": [None, None, None, None, False],
        "on": [True, None, None, None, None],
        "mode": [None, "auto", None, None, None],
        "readings.id": [None, None, 7.0, None, None],
        "count": [None, None, None, None, str(2**60)],
    }
    assert table["id"].to_pylist() == [10_000, 20_000, 30_000, 40_000, 50_000]
    assert table.schema.field("observed_at").type == pa.timestamp("us", tz="UTC")
    assert table.schema.field("temperature").type == pa.float64()


def test_a_long_table_has_a_row_for_each_reading(mixed: Log) -> None:
    rows = mixed.events().to_arrow("long").to_pylist()
    wanted = [(n, name, value) for n, readings in enumerate(MIXED) for name, value in readings.items()]
    assert [(row["event_id"] // 10_000 - 1, row["reading"]) for row in rows] == [one[:2] for one in wanted]
    for row, (_, _, value) in zip(rows, wanted, strict=True):
        given = {sort: row[sort] for sort in ("number", "text", "boolean") if row[sort] is not None}
        sort = {bool: "boolean", str: "text"}.get(type(value), "number")
        assert given == ({} if value is None else {"text": str(value)} if value == 2**60 else {sort: value})


def test_a_frame_has_only_the_readings_asked_for(mixed: Log) -> None:
    assert mixed.events(reading="mode").to_arrow().column_names[12:] == ["mode"]
    assert set(mixed.events(reading="mode").to_arrow("long")["reading"].to_pylist()) == {"mode"}
    assert mixed.events(reading="nothing").to_arrow()["nothing"].to_pylist() == []


def test_pandas_and_polars_have_the_types_that_fit(mixed: Log) -> None:
    frame = mixed.events().to_pandas()
    kinds = {name: str(kind) for name, kind in frame.dtypes.items()}
    assert kinds["observed_at"] == "datetime64[us, UTC]"
    assert (kinds["temperature"], kinds["on"], kinds["seq"], kinds["device"]) == (
        *("float64", "boolean", "Int64", "category"),
    )
    assert frame["observed_at"][0] == datetime.fromtimestamp(NOON / 1e6, UTC)
    other = mixed.events().to_polars()
    assert str(other.schema["observed_at"]) == "Datetime(time_unit='us', time_zone='UTC')"
    assert other["temperature"].to_list() == [21.5, 22.0, None, None, None]
    assert len(mixed.events().to_polars("long")) == len(mixed.events().to_pandas("long")) == 10


def test_units_and_quality_come_along(tmp_path: Path) -> None:
    bad = Detail(quality={"t": "bad"})
    entry = reading_entry(0, {"t": 1.0, "u": 2.0}, units={"t": "Cel"}, detail=bad)
    with open_log(fill(tmp_path / "amber.db", [entry])) as log:
        assert log.events().to_arrow().schema.field("t").metadata == {b"unit": b"Cel"}
        rows = log.events().to_arrow("long").to_pylist()
        assert [(row["reading"], row["unit"], row["quality"]) for row in rows] == [
            *(("t", "Cel", "bad"), ("u", None, None)),
        ]


def test_tables_of_any_history_hold_all_of_it(log: Log, history: History) -> None:
    wide, long = log.events().to_arrow(), log.events().to_arrow("long")
    assert wide["id"].to_pylist() == [event.id for event in history.events]
    assert wide["device"].to_pylist() == [event.device for event in history.events]
    assert wide["seq"].to_pylist() == [event.seq for event in history.events]
    assert long.num_rows == sum(len(json.loads(event.readings)) for event in history.events)
    wide.validate(full=True)
    long.validate(full=True)


VALUES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
NAMES = st.sampled_from(["a", "a.text", "a.boolean", "id", "readings.id", "b"])


@given(st.lists(st.lists(st.dictionaries(NAMES, VALUES), max_size=4), max_size=4))
@settings(max_examples=60, deadline=None)
def test_nothing_is_lost_in_a_wide_table(pages: list[list[dict[str, Value]]]) -> None:
    events = [
        [
            StoredEvent(
                *(n, n, "d", "state", n, n, False, "t", "json", 0, False, None, json.dumps(readings), {}),
            )
            for n, readings in enumerate(page)
        ]
        for page in pages
    ]
    table = wide_table(events)
    table.validate(full=True)
    rows = [list(row.values())[12:] for row in table.to_pylist()]
    assert len(set(table.column_names)) == table.num_columns
    for row, readings in zip(rows, [readings for page in pages for readings in page], strict=True):
        found = sorted(str(value) for value in row if value is not None)
        values = [value for value in readings.values() if value is not None]
        exact = [float(value) if type(value) is int and abs(value) <= 2**53 else value for value in values]
        assert found == sorted(map(str, exact))


def test_values_are_sorted_out_without_a_column_too_many() -> None:
    assert by_sort([None, None]) == {}
    assert by_sort([1, None, 2.5]) == {"number": [1, None, 2.5]}
    assert by_sort([2**53 + 1]) == {"text": [str(2**53 + 1)]}


def test_a_package_that_is_missing_is_named(numbered: Path) -> None:
    program = (
        "import sys; sys.modules['polars'] = None; sys.meta_path.insert(0, type('No', (), {'find_spec': staticmethod("
        "lambda name, *_: exec('raise ModuleNotFoundError(name)') if name == 'polars' else None)}))\n"
        f"from storage import open_log\nopen_log({str(numbered)!r}).events().to_polars()"
    )
    ended = run(program)
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1] == (
        "ImportError: polars is not installed: `pip install polars`, or take to_arrow()"
    )


# --- latest, buckets, consumers ---


def test_latest_and_series_have_values_and_times(mixed: Log) -> None:
    latest = mixed.latest(device="thermo")
    assert {one.reading: one.value for one in latest} == {
        "temperature": False,
        "on": None,
        "mode": None,
        "id": 7,
        "count": 2**60,
    }
    assert latest[0].received_at.tzinfo is UTC
    assert [one.reading for one in mixed.series()] == sorted({name for one in MIXED for name in one})
    assert latest.to_arrow().num_rows == len(latest[:3]) + 2 == len(latest.to_pandas()) == len(latest.to_polars())
    assert mixed.series().to_pandas()["reading"].tolist() == [one.reading for one in mixed.series()]


def test_devices_tell_what_is_known_of_them(log: Log, history: History) -> None:
    devices = log.devices()
    assert [one.device for one in devices] == sorted({event.device for event in history.events})
    assert sum(one.events for one in devices) == len(history.events)
    (one,) = log.devices(device="thermo-1")
    assert one.last_position == next(event.id for event in history.events[::-1] if event.device == "thermo-1")
    assert one.last_received_at >= one.first_received_at
    assert devices.to_arrow().num_rows == len(devices.to_pandas()) == len(devices.to_polars()) == len(devices)


def test_buckets_are_means_over_time(numbered: Path) -> None:
    with open_log(numbered) as log:
        buckets = log.buckets("thermo", "n", since=NOON, until=NOON + 20_000_000, every="10s")
        assert [(one.count, one.min, one.mean, one.max, one.last) for one in buckets] == [
            *((10, 0, 4.5, 9, 9), (10, 10, 14.5, 19, 19)),
        ]
        assert buckets.to_pandas()["mean"].tolist() == buckets.to_polars()["mean"].to_list() == [4.5, 14.5]
        with pytest.raises(AmberError, match="has no reading"):
            log.buckets("thermo", "m", since="1h", every="1m")
        with pytest.raises(ValueError, match="later than since"):
            log.buckets("thermo", "n", since=NOON, until=NOON, every="1m")


def test_a_consumer_goes_on_where_it_was_confirmed(numbered: Path) -> None:
    with open_log(numbered) as log:
        with log.consumer("billing", kind="measurement") as consumer:
            assert ids(consumer.read(3)) == [10_000, 20_000, 30_000]
            consumer.confirm()
            assert ids(consumer.read(3))[0] == 40_000
            with pytest.raises(StoreError):
                log.consumer("billing")
        with log.consumer("billing", batch_events=5) as consumer:
            assert (consumer.position, consumer.lag()) == (30_000, 17)
            batch = next(iter(consumer))
            assert ids(batch)[0] == 40_000
            assert len(batch) == 5
            consumer.confirm(50_000)
            assert consumer.position == 50_000
        with log.consumer("late", start="now") as consumer:
            assert consumer.read() == []
        with log.consumer("timed", start=datetime.fromtimestamp(NOON / 1e6 + 10, UTC)) as consumer:
            assert ids(consumer.read(1)) == [110_000]


async def test_a_consumer_reads_beside_an_event_loop(numbered: Path) -> None:
    found = []
    async with open_log(numbered) as log, log.consumer("c", batch_events=8) as consumer:
        async for batch in consumer:
            found.append(len(batch))
            consumer.confirm()
            if sum(found) == 20:
                consumer.stop()
    assert found == [8, 8, 4]


# --- the package ---


def run(program: str, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *options, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )


def test_nothing_is_imported_before_it_is_named() -> None:
    loaded = run("import storage, sys; print(sorted(m for m in sys.modules if m.startswith(('storage.', 'msgspec'))))")
    assert loaded.stdout == "[]\n"
    loaded = run(
        "from storage import open_log; import sys;"
        " print([m for m in ('asyncio', 'sqlalchemy', 'pyarrow', 'pandas', 'polars') if m in sys.modules])"
    )
    assert loaded.stdout == "[]\n"


def test_the_package_offers_what_it_names_and_nothing_else() -> None:
    for name in storage._PLACES:
        assert getattr(storage, name).__name__ == name
        assert name in dir(storage)
    with pytest.raises(AttributeError, match="'nothing'"):
        _ = storage.nothing  # type: ignore[attr-defined]


PROGRAM = """
from collections.abc import Sequence
from datetime import datetime

from storage import AmberError, Bucket, Event, Latest, StoreError, open_log


def names(events: Sequence[Event]) -> list[str]:
    return [event.device for event in events]


def ask() -> list[datetime]:
    with open_log("amber.db") as log:
        first: Event | None = log.events(device=["a", "b"], since="2h", clock="observed").first()
        latest: Sequence[Latest] = log.latest(device="a")
        buckets: Sequence[Bucket] = log.buckets("a", "t", since="1d", every="5m")
        value: bool | int | float | str | None = latest[0].value
        with log.consumer("c", start="now") as consumer:
            for batch in consumer:
                names(batch)
                consumer.confirm()
        return [event.observed_at for event in log.replay(speed="max")]


async def follow() -> None:
    async with open_log("amber.db") as log:
        async for event in log.follow(after=3):
            size: int = len(event.readings)
        async for batch in log.events().batches():
            names(batch)
"""


@pytest.mark.slow
def test_a_users_program_passes_strict_type_checks(tmp_path: Path) -> None:
    wrong = PROGRAM.replace("log.follow(after=3)", "log.follow(after='3')").replace(
        "consumer.confirm()", "consumer.ok()"
    )
    (tmp_path / "program.py").write_text(PROGRAM)
    (tmp_path / "wrong.py").write_text(wrong)
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file", str(ROOT / "pyproject.toml")]
    command += ["--cache-dir", str(ROOT / ".mypy_cache"), str(tmp_path / "program.py"), str(tmp_path / "wrong.py")]
    checked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    # Out of its cache mypy tells errors with the folder of an earlier run.
    told = re.findall(r"(program|wrong)\.py:\d+: error: (.*)  \[", checked.stdout)
    assert told == [
        ("wrong", '"Consumer" has no attribute "ok"'),
        ("wrong", 'Argument "after" to "follow" of "Log" has incompatible type "str"; expected "int | None"'),
    ]


# --- the document ---


def document_store(path: Path) -> Path:
    """Two thermometers that speak each minute for an hour, and a door that moves twice."""
    found: list[Entry] = []
    for minute in range(60):
        at = int((EIGHT + timedelta(minutes=minute)).timestamp()) * 1_000_000
        for n, (warm, wet) in enumerate([(20.0, 40), (22.0, 45)], 1):
            readings: dict[str, Value] = {"temperature": round(warm + minute / 10, 1), "humidity": wet}
            found.append(document_entry(f"thermo-000{n}", "measurement", at, n, readings))
        if minute % 20 == 0:
            contact = "open" if minute == 20 else "closed"
            found.append(document_entry("door-0001", "state", at, 3, {"contact": contact}))
    return fill(path, found)


def document_entry(device: str, kind: Kind, at: int, quarters: int, readings: dict[str, Value]) -> Entry:
    topic = f"devices/{device}/{'state' if kind == 'state' else 'telemetry'}"
    units = {name: unit for name, unit in (("temperature", "Cel"), ("humidity", "%")) if name in readings}
    message = Message(topic, b"{}", 1, retain=False, received_at=at + quarters * 250_000)
    return message, [NewEvent(device, kind, "json", at, readings, from_device=True, units=units or None)]


def test_the_examples_of_the_document_run_and_print_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    document_store(tmp_path / "amber.db")
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs" / "python.md").read_text("utf-8")
    examples = re.findall(r"```python\n(.*?)```\n(?:```text\n(.*?)```)?", text, re.DOTALL)
    assert len(examples) > 8
    names: dict[str, object] = {}
    for code, wanted in examples:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(code, "docs/python.md", "exec"), names)
        assert printed.getvalue() == wanted
    for name in ("consumer", "query", "log"):
        names.pop(name, None)


def test_a_count_reads_no_more_than_it_is_told(history: History) -> None:
    with Reader(history.path) as reader:
        assert (reader.count(), reader.count(limit=11)) == (len(history.events), 11)
