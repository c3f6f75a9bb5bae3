"""Claims about reading the log: each question gets exactly the events that a scan in plain Python finds."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from itertools import chain
from pathlib import Path
from random import Random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.engine import open_writer, sqlite
from storage.errors import StoreDamaged, StoreError
from storage.event import Event, Kind, StoredEvent
from storage.event_json import events_json
from storage.history import Clock, Filters, Reader, StoredRejection
from storage.times import SECOND, iso
from tests.storage.histories import DEVICES, KINDS, NOON, READINGS, ROOT, TOPICS, History, entries, message

GLOBS = ("thermo-*", "*", "?", "a?", "nul*", "*two", "meter[?]", "thermo-??", "none*", '*"*', "**o*1")
TOPIC_FILTERS = (
    "#",
    "+",
    "a/#",
    "a/+",
    "+/b",
    "+/+",
    "a/+/c",
    "/#",
    "$SYS/#",
    "+/a",
    "b/*",
    "b/#",
    "a//+",
    "+/[x]",
    "+/?",
    "b/*/#",
    "none/#",
)

TIMES = st.integers(NOON - 70_000_000, NOON + 720_000_000) | st.sampled_from((0, -1, 2**62))


def some(*values: str) -> st.SearchStrategy[tuple[str, ...]]:
    return st.just(()) | st.lists(st.sampled_from(values), min_size=1, max_size=3).map(tuple)


FILTERS = st.builds(
    Filters,
    devices=some(*DEVICES, *GLOBS, "nobody"),
    topics=some(*TOPICS, *TOPIC_FILTERS),
    kinds=some(*KINDS, "json", "other"),
    readings=some(*READINGS, "none", "tem"),
    since=st.none() | TIMES,
    until=st.none() | TIMES,
    clock=st.sampled_from(("received", "observed")),
    after=st.just(0) | st.integers(0, 7_500_000),
    until_position=st.none() | st.integers(0, 8_000_000),
)


@settings(max_examples=400, deadline=None)
@given(
    filters=FILTERS,
    newest_first=st.booleans(),
    limit=st.none() | st.integers(0, 30),
    page_events=st.sampled_from((1, 7, 100, 5_000)),
    scanned_events=st.sampled_from((10, 150, 32_768)),
)
def test_every_filter_finds_what_a_scan_finds(
    *,
    history: History,
    filters: Filters,
    newest_first: bool,
    limit: int | None,
    page_events: int,
    scanned_events: int,
) -> None:
    expected = [event for event in history.events if matches(event, filters)]
    expected = (expected[::-1] if newest_first else expected)[:limit]
    with Reader(history.path, scanned_events=scanned_events) as reader:
        pages = list(reader.pages(filters, newest_first=newest_first, limit=limit, page_events=page_events))
        lines = list(reader.line_pages(filters, newest_first=newest_first, limit=limit, page_events=page_events))
    assert list(chain(*pages)) == expected
    assert all(0 < len(page) <= page_events for page in pages)
    assert list(chain(*lines)) == events_json(expected)


def matches(event: StoredEvent, filters: Filters) -> bool:
    at = event.received_at if filters.clock == "received" else event.observed_at
    names = msgspec.json.decode(event.readings)
    return (
        (not filters.devices or any(like(event.device, device) for device in filters.devices))
        and (not filters.topics or any(under(event.topic, topic) for topic in filters.topics))
        and (not filters.kinds or event.kind in filters.kinds)
        and (not filters.readings or any(name in names for name in filters.readings))
        and (filters.since is None or at >= filters.since)
        and (filters.until is None or at < filters.until)
        and filters.after < event.id
        and (filters.until_position is None or event.id <= filters.until_position)
    )


def like(name: str, pattern: str) -> bool:
    """Glob matching letter by letter, unlike the way under test."""
    if not pattern:
        return not name
    if pattern[0] == "*":
        return like(name, pattern[1:]) or (name != "" and like(name[1:], pattern))
    return name != "" and pattern[0] in ("?", name[0]) and like(name[1:], pattern[1:])


def under(topic: str, pattern: str) -> bool:
    """MQTT 5.0, section 4.7, level by level."""
    if topic.startswith("$") and pattern[0] in "+#":
        return False
    levels, wanted = topic.split("/"), pattern.split("/")
    if wanted[-1] == "#":
        wanted.pop()
        levels = levels[: len(wanted)]
    return len(levels) == len(wanted) and all(w in ("+", level) for level, w in zip(levels, wanted, strict=True))


def test_the_store_under_test_has_all_that_makes_reading_hard(history: History) -> None:
    with sqlite.connect(history.path) as connection:
        rows = connection.execute("SELECT first_event_id, indexed_to, sealed_at FROM segments ORDER BY id").fetchall()
    connection.close()
    assert len(rows) >= 4
    assert all(sealed_at for _, _, sealed_at in rows[:-1])
    first, indexed_to, _ = rows[-1]
    assert first <= indexed_to < history.position


def test_each_name_and_each_wildcard_finds_what_it_means(history: History) -> None:
    alone = [
        *(Filters(devices=(device,)) for device in (*DEVICES, *GLOBS)),
        *(Filters(topics=(topic,)) for topic in (*TOPICS, *TOPIC_FILTERS)),
        *(Filters(kinds=(kind,)) for kind in KINDS),
        *(Filters(readings=(reading,)) for reading in READINGS),
    ]
    found = 0
    with Reader(history.path) as reader:
        for filters in alone:
            expected = [event for event in history.events if matches(event, filters)]
            assert list(chain(*reader.pages(filters))) == expected, filters
            found += bool(expected)
    assert found >= len(alone) - 3


@pytest.mark.parametrize("clock", ["received", "observed"])
def test_a_segment_is_passed_over_only_when_it_may_be(history: History, clock: Clock) -> None:
    with sqlite.connect(history.path) as connection:
        bounds = connection.execute(f"SELECT {clock}_from, {clock}_to FROM segments").fetchall()
    connection.close()
    with Reader(history.path) as reader:
        for bound in chain(*bounds):
            for at in {max(bound - 1, -(2**63)), bound, min(bound + 1, 2**63 - 1)}:
                for filters in (Filters(since=at, clock=clock), Filters(until=at, clock=clock)):
                    expected = [event for event in history.events if matches(event, filters)]
                    assert list(chain(*reader.pages(filters))) == expected
                    assert list(chain(*reader.pages(filters, newest_first=True))) == expected[::-1]


@pytest.mark.parametrize("newest_first", [False, True])
def test_neighbours_found_through_the_index_are_read_each_once(*, new_history: History, newest_first: bool) -> None:
    def event(device: str, kind: Kind) -> Event:
        return Event(device, kind, "json", NOON, {})

    kinds: tuple[Kind, ...] = ("state", "event")
    crowd = [(message(), [event("crowd", "state")]) for _ in range(80)]
    new_history.append([*crowd, (message(), [event("d", kind) for kind in kinds * 6]), *crowd])
    new_history.index_now()
    expected = [e for e in new_history.events if (e.device, e.kind) == ("d", "event")]
    with Reader(new_history.path, scanned_events=1) as reader:
        pages = reader.pages(
            Filters(devices=("d",), kinds=("event",)), newest_first=newest_first, limit=6, page_events=3
        )
        assert list(chain(*pages)) == (expected[::-1] if newest_first else expected)


def test_messages_come_whole_with_their_events(history: History) -> None:
    with Reader(history.path) as reader:
        pairs = list(chain(*reader.message_pages(page_events=50)))
    assert [event for event, _ in pairs] == history.events
    for event, whole in pairs:
        assert whole == history.messages[event.message_id - 1]


def test_pages_hold_no_read_open(new_history: History) -> None:
    new_history.append(entries(Random(1), 100))
    with Reader(new_history.path) as reader:
        pages = reader.pages(page_events=10)
        next(pages)
        connection = open_writer(new_history.path)
        busy, _, _ = connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").one()
        connection.close()
        assert busy == 0
        assert len(list(chain(*pages))) == len(new_history.events) - 10


def test_pages_beside_a_writer_miss_nothing_and_repeat_nothing(new_history: History) -> None:
    random, seen = Random(2), list[StoredEvent]()
    new_history.append(entries(random, 60))

    def write() -> None:
        for number in range(60, 3_000, 70):
            new_history.append(entries(random, 70, number))

    writing = threading.Thread(target=write)
    writing.start()
    with Reader(new_history.path) as reader:
        while writing.is_alive() or len(seen) < len(new_history.events):
            after = seen[-1].id if seen else 0
            for page in reader.pages(Filters(after=after), page_events=7):
                seen += page
    writing.join()
    assert seen == new_history.events


def test_a_walk_ends_where_the_log_ended_when_it_began(new_history: History) -> None:
    random = Random(3)
    new_history.append(entries(random, 50))
    count = len(new_history.events)
    with Reader(new_history.path) as reader:
        pages = reader.pages(page_events=10)
        first = next(pages)
        new_history.append(entries(random, 50, 50))
        assert len(first) + sum(map(len, pages)) == count
        assert reader.position() == new_history.position


def test_dropped_segments_are_passed_over(new_history: History) -> None:
    random = Random(4)
    for number in range(0, 900, 90):
        new_history.append(entries(random, 90, number))
    with Reader(new_history.path) as reader:
        walks = [reader.pages(filters, page_events=20) for filters in (Filters(), Filters(devices=("thermo-*",)))]
        heads = [next(walk) for walk in walks]
        kept = drop_oldest(new_history.path, 2)
        for filters, head, walk in zip((Filters(), Filters(devices=("thermo-*",))), heads, walks, strict=True):
            left = [event for event in new_history.events if event.id >= kept and matches(event, filters)]
            assert list(chain(head, *walk)) == head + left
        assert list(chain(*reader.pages(newest_first=True))) == [e for e in new_history.events if e.id >= kept][::-1]
        status = reader.status()
        assert status.events == sum(event.id >= kept for event in new_history.events)
        assert {device.device for device in reader.devices()} == {event.device for event in new_history.events}


def drop_oldest(path: Path, count: int) -> int:
    """Drop segments as retention does; the first event id that is left."""
    connection = sqlite.connect(path)
    for (id,) in connection.execute("SELECT id FROM segments ORDER BY id LIMIT ?", (count,)).fetchall():
        connection.execute("DROP VIEW IF EXISTS events")
        connection.execute("DROP VIEW IF EXISTS messages")
        for table in ("messages", "events", "event_index"):
            connection.execute(f"DROP TABLE {table}_{id}")
        connection.execute("DELETE FROM segments WHERE id = ?", (id,))
    connection.commit()
    first: int = connection.execute("SELECT min(first_event_id) FROM segments").fetchone()[0]
    connection.close()
    return first


def test_units_are_those_of_an_event_s_own_readings(new_history: History) -> None:
    units = {"temperature": "Cel", "humidity": "%"}
    shapes = [units, {"temperature": "Cel"}, {"humidity": "%"}, {}]
    new_history.append(
        [
            (
                message(),
                [Event("d", "measurement", "json", NOON, dict.fromkeys(shape, 1) | {"raw": 1}, units=shape)],
            )
            for shape in shapes
        ]
    )
    with Reader(new_history.path) as reader:
        assert [event.units for event in chain(*reader.pages())] == shapes


def test_rejections_come_with_their_messages(history: History) -> None:
    for filters in (Filters(), Filters(topics=("a/#", "$SYS")), Filters(since=NOON + 10**8, until=NOON + 4 * 10**8)):
        expected = [r for r in history.rejections if rejection_matches(r, filters)]
        assert len(expected) > 0
        with Reader(history.path) as reader:
            assert list(reader.rejections(filters)) == expected
            assert list(reader.rejections(filters, newest_first=True, limit=5)) == expected[::-1][:5]
            later = msgspec.structs.replace(filters, after=expected[3].id)
            assert list(reader.rejections(later)) == expected[4:]


def rejection_matches(rejection: StoredRejection, filters: Filters) -> bool:
    return (
        (not filters.topics or any(under(rejection.topic, topic) for topic in filters.topics))
        and (filters.since is None or rejection.received_at >= filters.since)
        and (filters.until is None or rejection.received_at < filters.until)
    )


def test_more_rejections_than_one_read_takes(new_history: History) -> None:
    for number in range(0, 6_000, 600):
        new_history.append(entries(Random(number), 600, number))
    assert len(new_history.rejections) > 500
    with Reader(new_history.path) as reader:
        assert list(reader.rejections()) == new_history.rejections
        assert list(reader.rejections(newest_first=True)) == new_history.rejections[::-1]


def test_each_device_has_its_newest_event(history: History) -> None:
    newest = {event.device: event for event in history.events}
    with Reader(history.path) as reader:
        found = list(reader.devices())
    assert sorted(newest) == sorted(device.device for device in found)
    assert {
        one.device: (one.last_position, one.last_kind, one.last_observed_at, one.last_received_at) for one in found
    } == {name: (event.id, event.kind, event.observed_at, event.received_at) for name, event in newest.items()}


def test_many_devices_are_read_in_blocks(new_history: History) -> None:
    names = [f"d{number}" for number in range(2_500)]
    new_history.append([(message(), [Event(name, "state", "json", NOON, {})]) for name in names])
    with Reader(new_history.path) as reader:
        assert [device.device for device in reader.devices()] == sorted(names)


def test_a_status_tells_how_much_there_is(history: History) -> None:
    with Reader(history.path) as reader:
        status = reader.status()
        assert reader.position() == history.position
    assert (status.messages, status.events) == (len(history.messages), len(history.events))
    assert (status.rejections, status.position) == (len(history.rejections), history.position)
    assert status.devices == len({event.device for event in history.events})
    assert status.topics == len({message.topic for message in history.messages})
    assert status.first_received_at == history.messages[0].received_at
    assert status.last_received_at == history.messages[-1].received_at
    assert status.file_bytes + status.wal_bytes > 10_000


def test_an_empty_log_answers_with_nothing(new_history: History) -> None:
    with Reader(new_history.path) as reader:
        assert reader.position() == 0
        assert [*reader.pages(), *reader.line_pages(newest_first=True), *reader.devices(), *reader.rejections()] == []
        status = reader.status()
    assert (status.messages, status.events, status.rejections, status.first_received_at) == (0, 0, 0, None)


@pytest.mark.parametrize("topic", ["", "a#", "a/#/b", "a+", "+a/b", "#/"])
def test_a_topic_filter_that_mqtt_refuses_is_refused(topic: str) -> None:
    with pytest.raises(ValueError, match="topic filter"):
        Filters(topics=(topic,))


def test_what_cannot_be_stored_cannot_be_asked_for() -> None:
    with pytest.raises(ValueError, match="UTF-8"):
        Filters(devices=("\udcff",))
    with pytest.raises(ValueError, match="64 bits"):
        Filters(since=2**63)


def test_what_is_no_store_is_said_to_be_none(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="there is no store"):
        Reader(tmp_path / "nix.db")
    (tmp_path / "empty.db").touch()
    with pytest.raises(StoreError, match="is empty"):
        Reader(tmp_path / "empty.db")
    (tmp_path / "text.db").write_text("This is no database, but it is long enough for one." * 100)
    with pytest.raises(StoreDamaged):
        Reader(tmp_path / "text.db")
    sqlite.connect(tmp_path / "other.db").executescript("CREATE TABLE a(b); PRAGMA user_version=1").connection.close()
    with pytest.raises(StoreDamaged, match="not an Amber store"):
        Reader(tmp_path / "other.db")


def test_the_json_of_an_event_has_its_keys_in_order() -> None:
    event = StoredEvent(
        id=42,
        message_id=40,
        device='thermo "1"',
        kind="measurement",
        observed_at=NOON + 123_456,
        received_at=NOON + 1_000_000,
        from_device=True,
        topic="devices/thermo/telemetry",
        format="json",
        qos=1,
        retain=False,
        seq=None,
        readings='{"temperature":21.5}',
        units={"temperature": "Cel"},
    )
    gateway = msgspec.structs.replace(event, from_device=False, retain=True, seq=-1, units={}, observed_at=-1)
    of_device, of_gateway = events_json([event, gateway])
    assert of_device == (
        '{"id":42,"message_id":40,"device":"thermo \\"1\\"","kind":"measurement",'
        '"observed_at":"2026-11-22T11:00:00.123456Z","received_at":"2026-11-22T11:00:01.000000Z",'
        '"time_source":"device","topic":"devices/thermo/telemetry","format":"json","qos":1,"retain":false,"seq":null,'
        '"readings":{"temperature":21.5},"units":{"temperature":"Cel"}}'
    )
    assert of_gateway == (
        '{"id":42,"message_id":40,"device":"thermo \\"1\\"","kind":"measurement",'
        '"observed_at":"1969-12-31T23:59:59.999999Z","received_at":"2026-11-22T11:00:01.000000Z",'
        '"time_source":"gateway","topic":"devices/thermo/telemetry","format":"json","qos":1,"retain":true,"seq":-1,'
        '"readings":{"temperature":21.5},"units":{}}'
    )


@pytest.mark.parametrize("at", [-(10**13), -1, 0, 1, 99_999, SECOND - 1, SECOND, SECOND + 1, 10**13, 10**16, 10**18])
def test_lines_tell_every_time_as_it_is(new_history: History, at: int) -> None:
    new_history.append([(message(received_at=at), [Event("d", "state", "json", at, {})])])
    with Reader(new_history.path) as reader:
        ((line,),) = reader.line_pages()
    times = msgspec.json.decode(line)
    assert times["observed_at"] == times["received_at"] == iso(at)


def test_reading_does_not_import_what_writing_needs() -> None:
    code = "import sys, storage.history; print({'sqlalchemy', 'alembic', 'asyncio', 'rich'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert re.match(r"set\(\)", done.stdout)
