"""Claims about what stood before the start of a replay: the newest value of each series, and nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from random import Random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.event import EVENTS_PER_MESSAGE, Entry, Event, Kind, Message, StoredEvent, Value
from storage.filters import Filters
from storage.history import Reader
from storage.replay import time_of
from storage.replay.state import State, start_of
from storage.store import Store, StoreOptions
from storage.summaries import NOT_OF_THE_DEVICE
from tests.replay.filled import SECOND, T0, position
from tests.storage.histories import History
from tests.storage.histories import entries as some_entries


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "amber.db"


def said(
    n: int,
    device: str,
    readings: Mapping[str, Value],
    *,
    kind: Kind = "measurement",
    ago_s: int = 0,
    topic: str | None = None,
) -> Entry:
    """The n-th message, a second after the one before, observed some time ago."""
    at = T0 + n * SECOND
    event = Event(device, kind, "json", at - ago_s * SECOND, readings, from_device=ago_s != 0)
    return Message(topic or f"devices/{device}", b"%d" % n, 0, retain=False, received_at=at), [event]


def fill(path: Path, entries: Sequence[Entry], segment_events: int = 1_000) -> Path:
    store = Store(path, StoreOptions(segment_events=segment_events, free_floor_bytes=0))
    for begin in range(0, len(entries), 50):
        store.append(entries[begin : begin + 50], 1)
    store.close()
    return path


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Iterator[History]:
    """Some sealed segments, and an open one with an index and a tail behind it."""
    random = Random(7)
    with History(tmp_path_factory.mktemp("history") / "amber.db") as history:
        for number in range(0, 600, 60):
            history.append(some_entries(random, 60, number))
        history.index_now()
        history.append(some_entries(random, 40, 600))
        yield history


def state(path: Path, filters: Filters | None = None, *, at: int | None = None) -> list[int]:
    """The numbers of the messages whose events are the state, counted from 1."""
    with State(path, filters or Filters(), 2**62 if at is None else position(at)) as found:
        by_event = [event.id for page in found.events() for event in page]
        by_message = [event.id for page in found.messages() for event, _ in page]
    assert by_event == by_message == sorted(set(by_event))
    return [id // EVENTS_PER_MESSAGE for id in by_event]


def test_it_is_the_last_event_of_each_series_each_once(path: Path) -> None:
    """However old, and although one event holds several series."""
    fill(
        path,
        [
            said(0, "a", {"temperature": 1, "firmware": "2.0"}),
            said(1, "a", {"temperature": 2, "humidity": 40}),
            said(2, "b", {"open": True}),
            said(3, "a", {"temperature": 3, "humidity": 41}),
            said(4, "b", {"open": False}),
        ],
    )
    assert state(path) == [1, 4, 5]
    assert state(path, at=3) == [1, 2, 3]
    assert state(path, at=1) == [1]
    assert state(path, at=0) == []


def test_only_series_that_the_filters_admit_are_state(path: Path) -> None:
    fill(
        path,
        [
            said(0, "a", {"temperature": 1}, topic="x/a"),
            said(1, "b", {"temperature": 1, "humidity": 2}, topic="x/b"),
            said(2, "b", {"temperature": 2}, topic="y/b"),
            said(3, "a", {"online": True}, kind="state", topic="x/a"),
        ],
    )
    assert state(path, Filters(devices=("b",))) == [2, 3]
    assert state(path, Filters(readings=("humidity",))) == [2]
    assert state(path, Filters(topics=("x/#",))) == [1, 2, 4]
    assert state(path, Filters(kinds=("state",))) == [4]
    assert state(path, Filters(devices=("c",))) == []
    # They say since when to play, not since when to know.
    assert state(path, Filters(since=T0 + 3 * SECOND, after=position(3))) == [1, 2, 3, 4]


def test_what_a_device_was_told_is_not_its_state(path: Path) -> None:
    fill(path, [said(0, "a", {"on": True}), said(1, "a", {"on": False}, kind="command")])
    assert state(path) == [1]


def test_what_comes_late_out_of_a_buffer_is_not_the_newest(path: Path) -> None:
    fill(path, [*(said(n, "a", {"t": n}) for n in range(10)), said(10, "a", {"t": 10}, ago_s=5)])
    assert state(path) == [10]


def test_a_clock_that_was_never_set_or_runs_ahead_counts_as_the_gateways(path: Path) -> None:
    fill(path, [said(0, "a", {"t": 0}, ago_s=-3_600), said(1, "a", {"t": 1}, ago_s=10**9), said(2, "b", {"t": 1})])
    assert state(path) == [2, 3]


def test_an_empty_store_has_no_state(path: Path) -> None:
    assert state(fill(path, [])) == []


def expected(events: Iterable[StoredEvent], at: int) -> list[int]:
    """By looking at everything."""
    newest: dict[tuple[str, str], tuple[int, int]] = {}
    for event in events:
        if event.id <= at and event.kind not in NOT_OF_THE_DEVICE:
            for name in msgspec.json.decode(event.readings):
                key, value = (event.device, name), (time_of(event, "observed"), event.id)
                newest[key] = max(newest.get(key, value), value)
    return sorted({id for _, id in newest.values()})


@pytest.mark.parametrize("part", [0.1, 0.4, 0.8, 1.0])
def test_it_is_what_looking_at_everything_finds(history: History, part: float) -> None:
    """In many segments, an index, and a tail behind it; with all sorts of names, and clocks."""
    at = history.events[int(part * len(history.events)) - 1].id
    with Reader(history.path) as reader:
        events = [event for page in reader.pages() for event in page]
    for filters in (Filters(), Filters(devices=("thermo-1", "door*")), Filters(devices=("",))):
        admitted = [event for event in events if not filters.devices or event.device in filters.devices]
        with State(history.path, filters, at) as found:
            assert [event.id for page in found.events() for event in page] == expected(admitted, at)


@settings(max_examples=30, deadline=None)
@given(
    spoken=st.lists(
        st.tuples(st.sampled_from("abc"), st.sets(st.sampled_from("xyz"), min_size=1), st.integers(0, 40)), max_size=60
    ),
    at=st.integers(0, 60),
)
def test_whatever_was_said_however_late_the_newest_is_found(
    tmp_path_factory: pytest.TempPathFactory, spoken: list[tuple[str, set[str], int]], at: int
) -> None:
    path = tmp_path_factory.mktemp("state") / "amber.db"
    fill(
        path, [said(n, device, dict.fromkeys(names, n), ago_s=ago) for n, (device, names, ago) in enumerate(spoken)], 20
    )
    with Reader(path) as reader:
        events = [event for page in reader.pages() for event in page]
    with State(path, Filters(), position(at)) as found:
        assert [event.id for page in found.events() for event in page] == expected(events, position(at))


def test_the_start_is_before_the_first_event_that_is_played(path: Path) -> None:
    fill(path, [said(n, "ab"[n % 2], {"t": n}) for n in range(10)])
    assert start_of(path, Filters(since=T0 + 4 * SECOND), "received") == (position(5) - 1, T0 + 4 * SECOND)
    assert start_of(path, Filters(devices=("b",), after=position(3)), "received") == (position(4) - 1, T0 + 3 * SECOND)
    assert start_of(path, Filters(devices=("c",), since=T0 + 4 * SECOND), "received") == (position(5) - 1, None)
    assert start_of(path, Filters(after=position(10)), "received") == (position(10), None)
