"""Claims about events that come again: by what a device calls them they are in the log once, or marked."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage import identities, segments
from storage.checking import check as check_store
from storage.event import EVENTS_PER_MESSAGE, Detail, Entry, Event, Lessons, Location, Reread, StoredEvent, Value
from storage.history import Reader
from storage.rereading import Rewriter
from storage.sequences import MOST_RANGES
from storage.sequences import Sequence as Numbers
from storage.store import Store, StoreOptions
from tests.storage.histories import NOON, ROOT, check, message
from tests.storage.test_append import rows

SMALL = StoreOptions(segment_events=60, free_floor_bytes=0)
LARGE = StoreOptions(free_floor_bytes=0)
SECOND = 1_000_000


@pytest.fixture(autouse=True, scope="module")
def short_index_runs() -> Iterator[None]:
    """So that few events are enough for the index, and what is behind it, to matter."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segments, "INDEX_RUN_EVENTS", 9)
        yield


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "amber.db"


def numbered(seq: int, value: Value = 1, *, boot: str = "b", device: str = "d", at: int | None = None) -> Event:
    """An event that a device numbers, observed a second after the one before it."""
    observed_at = NOON + seq * SECOND if at is None else at
    return Event(
        device, "measurement", "json", observed_at, {"v": value}, from_device=True, seq=seq, detail=Detail(boot=boot)
    )


def named(id: str, value: Value = 1, *, at: int | None = None, **more: str) -> Event:
    """An event that its sender gave an id, with or without a time of its own."""
    detail = Detail(source_id=id, **more)  # type: ignore[arg-type]
    return Event("d", "event", "cloudevents", NOON if at is None else at, {"v": value}, at is not None, detail=detail)


def of(*events: Event) -> Entry:
    return message(), list(events)


def read(path: Path) -> list[StoredEvent]:
    with Reader(path) as reader:
        return list(chain(*reader.pages()))


def told(path: Path) -> list[tuple[int | None, str, bool]]:
    """Number, readings and whether it is marked, of each event in the log."""
    return [(event.seq, event.readings, is_marked(event)) for event in read(path)]


def is_marked(event: StoredEvent) -> bool:
    return event.detail is not None and '"conflict":true' in event.detail


def see_sound(path: Path) -> None:
    check(path)
    assert [finding for finding in check_store(path) if finding.result == "broken"] == []


def test_a_copy_is_dropped_and_counted_wherever_its_original_stands(path: Path) -> None:
    """In the same append, behind the index, in it, in a sealed segment; before and after the store is opened anew."""
    store = Store(path, SMALL)
    first = [of(numbered(seq)) for seq in range(100)]
    for start in range(0, 100, 7):
        store.append(first[start : start + 7], 1)
        assert store.append([first[start], first[max(0, start - 45)]], 1).duplicates == 2
    twice = store.append([of(numbered(100)), of(numbered(100))], 1)
    assert (twice.messages, twice.events, twice.duplicates, twice.conflicts) == (1, 1, 1, 0)
    store.close()
    store = Store(path, SMALL)
    again = store.append(first, 1)
    assert (again.messages, again.events, again.duplicates) == (0, 0, 100)
    store.close()
    assert told(path) == [(seq, '{"v":1}', False) for seq in range(101)]
    assert rows(path, "SELECT sum(duplicates), sum(conflicts) FROM copy_counts") == [(131, 0)]
    see_sound(path)


def test_the_same_number_with_other_content_is_kept_and_marked(path: Path) -> None:
    store = Store(path, SMALL)
    store.append([of(numbered(seq)) for seq in range(20)], 1)
    other = store.append([of(numbered(3, 2)), of(numbered(4, at=NOON + 1)), of(numbered(15, 2)), of(numbered(3, 2))], 1)
    assert (other.events, other.duplicates, other.conflicts) == (3, 1, 3)
    assert store.append([of(numbered(3, 2)), of(numbered(3))], 1).duplicates == 2
    store.close()
    assert [one for one in told(path) if one[2]] == [(3, '{"v":2}', True), (4, '{"v":1}', True), (15, '{"v":2}', True)]
    see_sound(path)


def test_another_unit_is_other_content_and_another_device_or_start_another_event(path: Path) -> None:
    store = Store(path, LARGE)
    unit = msgspec.structs.replace(numbered(0), units={"v": "Cel"})
    store.append([of(unit)], 1)
    assert store.append([of(msgspec.structs.replace(unit, units={"v": "K"}))], 1).conflicts == 1
    assert store.append([of(unit), of(msgspec.structs.replace(unit, units={"v": "K"}))], 1).duplicates == 2
    assert store.append([of(numbered(0, boot="c")), of(numbered(0, device="e"))], 1).events == 2
    store.close()


def test_what_says_no_start_or_no_number_is_never_a_copy(path: Path) -> None:
    store = Store(path, LARGE)
    bare = msgspec.structs.replace(numbered(0), detail=None)
    without = [bare, msgspec.structs.replace(numbered(0), seq=None), msgspec.structs.replace(numbered(0), seq=-1)]
    for _ in range(2):
        assert store.append([of(event) for event in [*without, numbered(0, boot="")]], 1).events == 4
    store.close()


def test_of_a_message_only_what_is_new_is_stored_and_in_its_place(path: Path) -> None:
    store = Store(path, LARGE)
    store.append([of(numbered(0))], 1)
    part = store.append([of(numbered(0), numbered(1), numbered(0), numbered(2)), of(numbered(3))], 1)
    assert (part.messages, part.events, part.duplicates) == (2, 3, 2)
    assert [event.id for event in read(path)][1:] == [2 * EVENTS_PER_MESSAGE + 1, 2 * EVENTS_PER_MESSAGE + 3, 30_000]
    store.close()
    see_sound(path)


def test_parts_that_one_message_tells_under_one_number_are_no_conflict_and_come_only_once(path: Path) -> None:
    store = Store(path, SMALL)
    parts = of(numbered(0, 1), numbered(0, 2), numbered(0, 3))
    assert store.append([parts], 1).conflicts == 0
    store.append([of(numbered(seq)) for seq in range(1, 12)], 1)
    store.close()
    store = Store(path, SMALL)
    assert store.append([parts, parts], 1).duplicates == 6
    assert store.append([of(named("x", 1), named("x", 2))], 1).conflicts == 0
    assert store.append([of(named("x", 1), named("x", 2))], 1).duplicates == 2
    store.close()
    assert not any(map(is_marked, read(path)))


def test_reading_a_message_again_does_not_bring_back_what_was_left_out(path: Path) -> None:
    """Neither in the gateway nor beside it; and a mark stays."""
    store = Store(path, LARGE)
    store.append([of(numbered(0)), of(numbered(0), numbered(1)), of(numbered(1, 5), numbered(2))], 1)
    before = read(path)
    assert store.replace([(2, [numbered(0), numbered(1)]), (3, [numbered(1, 5), numbered(2)])]).messages == 0
    with Rewriter(path, LARGE) as rewriter:
        rewriter.stage([(2, [numbered(0), numbered(1)]), (3, [numbered(1, 5), numbered(2)])])
        rewriter.exchange()
    assert read(path) == before
    changed = [msgspec.structs.replace(event, device="renamed") for event in (numbered(0), numbered(1))]
    store.replace([(2, changed)])
    assert [(event.device, event.seq) for event in read(path) if event.message_id == 2] == [("renamed", 1)]
    moved = [named("new"), numbered(0), numbered(1)]
    store.replace([(2, moved)])
    assert [event.seq for event in read(path) if event.message_id == 2] == [None, 1]
    store.close()
    see_sound(path)


def test_what_an_exchange_brings_into_the_log_is_known_to_the_gateway(path: Path) -> None:
    """Its own exchange, and one of another process; in front of the index and behind it."""
    store = Store(path, LARGE)
    bare = [msgspec.structs.replace(numbered(seq), detail=None) for seq in range(25)]
    store.append([of(event) for event in bare], 1)
    store.replace([(seq + 1, [numbered(seq)]) for seq in range(10)])
    assert store.append([of(numbered(seq)) for seq in range(10)], 1).duplicates == 10
    with Rewriter(path, LARGE) as rewriter:
        rewriter.stage([(seq + 1, [numbered(seq)]) for seq in range(10, 25)])
        rewriter.exchange()
    assert store.append([of(numbered(seq)) for seq in range(25)], 1).duplicates == 25
    store.close()
    store = Store(path, LARGE)
    assert store.append([of(numbered(seq)) for seq in range(26)], 1).duplicates == 25
    store.close()


def test_a_counter_that_begins_anew_later_is_no_conflict(path: Path) -> None:
    """Of 8 bits, and the device says the same start; what it sent in an earlier round is still known."""
    store = Store(path, SMALL)
    events = [numbered(n % 256, n % 256, at=NOON + n * SECOND) for n in range(700)]
    done = [store.append([of(event) for event in events[start : start + 90]], 1) for start in range(0, 700, 90)]
    assert sum(one.events for one in done) == 700
    assert sum(one.conflicts for one in done) == 0
    assert store.append([of(event) for event in events], 1).duplicates == 700
    store.close()
    store = Store(path, SMALL)
    assert store.append([of(event) for event in events[::-1]], 1).duplicates == 700
    store.close()
    with Reader(path) as reader:
        (found,) = reader.gaps()
    assert (found.first, found.last, found.restarts, found.missing) == (0, 700 - 513, 2, 0)


def test_a_device_without_a_clock_is_known_by_its_numbers_too(path: Path) -> None:
    """Its events are observed when they are received, and so at another time whenever they are sent."""

    def event(seq: int, at: int) -> Event:
        return msgspec.structs.replace(numbered(seq, seq, at=at), from_device=False)

    store = Store(path, SMALL)
    store.append([of(event(seq, NOON + seq)) for seq in range(50)], 1)
    again = [of(event(seq, NOON + SECOND + seq)) for seq in range(1, 50)]
    assert store.append(again, 1).duplicates == 49
    store.close()
    store = Store(path, SMALL)
    assert store.append(again, 1).duplicates == 49
    assert store.append([of(msgspec.structs.replace(event(7, NOON), readings={"v": "other"}))], 1).conflicts == 1
    store.close()


def test_a_byte_that_counts_without_a_clock_loses_nothing_when_it_begins_anew(path: Path) -> None:
    """All readings are alike: nothing but the number tells one event from another."""
    store = Store(path, LARGE)
    events = [msgspec.structs.replace(numbered(n % 256, at=NOON + n), from_device=False) for n in range(600)]
    stored = [store.append([of(event) for event in events[start : start + 50]], 1) for start in range(0, 600, 50)]
    assert sum(one.events for one in stored) == 600
    store.close()


@pytest.mark.parametrize("lost", [{255}, {256}, {255, 256, 257}, {250, 300}])
@pytest.mark.parametrize("clock", [False, True])
def test_a_byte_that_counts_loses_nothing_where_its_last_or_first_number_is_missing(
    path: Path, lost: set[int], *, clock: bool
) -> None:
    store = Store(path, LARGE)
    events = [
        msgspec.structs.replace(numbered(n % 256, at=NOON + n * SECOND), from_device=clock)
        for n in range(600)
        if n not in lost
    ]
    done = [store.append([of(event) for event in events[start : start + 50]], 1) for start in range(0, 600, 50)]
    store.close()
    assert sum(one.events for one in done) == len(events)
    assert sum(one.conflicts for one in done) == 0
    with Reader(path) as reader:
        (found,) = reader.gaps()
    assert found.restarts == 2


def test_without_a_clock_what_comes_again_later_than_within_the_hour_is_kept(path: Path) -> None:
    """`boot` may be nothing but the reason of the start, and a door's readings are alike each day."""
    store = Store(path, SMALL)

    def day(n: int, first: int = 0) -> list[Entry]:
        at = NOON + n * 86_400 * SECOND
        events = [numbered(seq, boot="power on", at=at + seq * SECOND) for seq in range(first, 20)]
        return [of(msgspec.structs.replace(event, from_device=False)) for event in events]

    for n in range(3):
        assert store.append(day(n), 1).events == 20
        assert store.append(day(n, 1), 1).duplicates == 19
    later = store.append(day(3, 5), 1)
    assert (later.events, later.conflicts) == (15, 15)
    ids = [named("1"), named("2")]
    assert store.append([of(event) for event in ids], 1).events == 2
    ids = [msgspec.structs.replace(event, observed_at=NOON + 86_400 * SECOND) for event in ids]
    assert store.append([of(event) for event in ids], 1).events == 2
    store.close()


def test_what_comes_by_another_topic_is_no_copy(path: Path) -> None:
    """Two devices may share a name, and one may count the messages of each of its topics."""
    store = Store(path, LARGE)
    for event in (numbered(1), msgspec.structs.replace(numbered(2), from_device=False), named("x")):
        here, elsewhere = (message("t"), [event]), (message("elsewhere"), [event])
        store.append([here], 1)
        assert store.append([elsewhere], 1).conflicts == 1
        assert store.append([elsewhere, here], 1).duplicates == 2
    store.close()


@pytest.mark.parametrize("clock", [False, True])
def test_of_what_one_message_tells_nothing_is_a_copy(path: Path, *, clock: bool) -> None:
    """Two samples of one second may be alike; sent again as a whole both are known."""
    event = msgspec.structs.replace(numbered(3), from_device=clock)
    store = Store(path, LARGE)
    alike = of(event, event, event)
    first = store.append([alike, alike], 1)
    assert (first.events, first.duplicates, first.conflicts) == (3, 3, 0)
    store.close()
    store = Store(path, LARGE)
    assert store.append([alike, of(event)], 1).duplicates == 4
    store.close()


def test_another_quality_or_place_is_other_content(path: Path) -> None:
    store = Store(path, LARGE)
    details = [
        Detail(boot="b"),
        Detail(boot="b", quality={"v": "bad"}),
        Detail(boot="b", location=Location(1.0, 2.0)),
    ]
    entries = [of(msgspec.structs.replace(numbered(1), detail=detail)) for detail in details]
    assert store.append(entries, 1).conflicts == 2
    assert store.append(entries, 1).duplicates == 3
    store.close()


def test_starts_of_many_ranges_are_not_all_kept_in_memory(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identities, "REMEMBERED_RANGES", 20)
    store = Store(path, SMALL)
    for seq in range(0, 200, 2):
        store.append([of(*(numbered(seq, device=device) for device in "abc"))], 1)
    store.append([of(numbered(seq)) for seq in range(60)], 1)
    assert len(store._repeats.sequences) <= 1
    assert store.append([of(numbered(seq, device="b")) for seq in range(0, 200, 2)], 1).duplicates == 100
    store.close()


@pytest.mark.parametrize("at", [None, NOON])
def test_an_id_is_known_within_its_kind_type_and_way(path: Path, at: int | None) -> None:
    store = Store(path, SMALL)
    sent = [of(named(f"id-{n}", n, at=at)) for n in range(60)]
    assert store.append([*sent, sent[3]], 1).duplicates == 1
    assert (
        store.append([of(named("id-1", 1, at=at, via="x")), of(named("id-1", 1, at=at, vendor_type="x"))], 1).events
        == 2
    )
    store.close()
    store = Store(path, SMALL)
    again = store.append([*sent, of(named("id-5", "other", at=at)), sent[5]], 1)
    assert (again.events, again.duplicates, again.conflicts) == (1, 61, 1)
    store.close()
    assert rows(path, "SELECT boot, duplicates, conflicts FROM copy_counts") == [("", 62, 1)]
    see_sound(path)


def test_what_a_batch_taught_is_to_be_read_again_only_before_it(path: Path) -> None:
    """The messages that are left out of the log do not count."""
    store = Store(path, LARGE)
    store.append([of(numbered(0)), of(numbered(1))], 1)
    store.append(
        [of(numbered(0)), of(numbered(1)), of(numbered(2)), of(numbered(3))],
        1,
        Lessons(rereads=(Reread("json", ("#",), before=3),)),
    )
    assert [pending.up_to_message_id for pending in store.rereads()] == [3]
    store.close()


def test_a_failed_append_leaves_nothing_behind_in_memory(path: Path) -> None:
    store = Store(path, SMALL)
    store.append([of(numbered(0))], 1)
    failing = [of(numbered(1)), of(named("a")), of(numbered(0, 2)), of(numbered(2, at=2**70))]
    with pytest.raises(OverflowError):
        store.append(failing, 1)
    done = store.append(failing[:3], 1)
    assert (done.events, done.duplicates, done.conflicts) == (3, 0, 1)
    store.close()


def test_ranges_are_bounded_and_what_is_forgotten_is_kept_in_doubt() -> None:
    numbers = Numbers()
    for number in range(0, 2 * MOST_RANGES + 20, 2):
        numbers.add(number, number)
    assert len(numbers.ranges) == MOST_RANGES
    assert numbers.is_new(0, 0, by_device=True)
    assert not numbers.is_new(2 * MOST_RANGES, 0, by_device=True)


@given(st.lists(st.integers(0, 40)))
def test_ranges_hold_what_a_set_holds(added: list[int]) -> None:
    numbers, plain = Numbers(), set[int]()
    for number in added:
        assert (number in numbers) == (number in plain)
        numbers.add(number, 0)
        plain.add(number)
    assert [n for first, last in numbers.ranges for n in range(first, last + 1)] == sorted(plain)
    assert Numbers.of_row(*numbers.row()).ranges == numbers.ranges


class Plain:
    """What the log must hold, told without ranges, tables or an index."""

    def __init__(self) -> None:
        self.events: list[tuple[Event, bool]] = []
        self.duplicates = 0
        self._contents: dict[object, list[tuple[object, int]]] = {}
        self._first: dict[object, int] = {}
        self._messages = 0

    def append(self, outcome: Sequence[Event]) -> None:
        self._messages += 1
        for event in outcome:
            detail = event.detail or Detail()
            if detail.boot and event.seq is not None:
                key: object = event.device, detail.boot, event.seq
            elif detail.source_id:
                key = event.device, detail.source_id
            else:
                self.events.append((event, False))
                continue
            content = event.kind, event.observed_at if event.from_device else None, event.readings
            there = self._contents.setdefault(key, [])
            if any(content == known and n != self._messages for known, n in there):
                self.duplicates += 1
                continue
            there.append((content, self._messages))
            self._first.setdefault(key, self._messages)
            self.events.append((event, self._first[key] != self._messages))


@st.composite
def arrivals(draw: st.DrawFn) -> list[tuple[str, list[list[Event]]]]:
    """Appends of messages: in order, late, again, with gaps, of several starts; and what happens between them."""
    pool: list[Event] = []
    for device in ("a", "b"):
        for boot in ("1", "2"):
            numbers = draw(st.lists(st.integers(1, 25), max_size=25, unique=True))
            pool += [
                numbered(n, boot=boot, device=device) for n in (sorted(numbers) if draw(st.booleans()) else numbers)
            ]
    pool += [msgspec.structs.replace(numbered(n, n, device="clockless"), from_device=False) for n in range(1, 8)]
    pool += [named(f"{n}", n, at=NOON + n if n % 2 else None) for n in range(6)]
    pool += [numbered(n, 2, device="a", boot="1") for n in draw(st.lists(st.integers(1, 25), max_size=3))]  # conflicts
    pool += [Event("a", "measurement", "json", NOON, {"v": 1})]
    sent = [*pool, *draw(st.lists(st.sampled_from(pool), max_size=40))]
    if draw(st.booleans()):
        sent = draw(st.permutations(sent))
    steps = []
    while sent:
        messages = []
        for _ in range(draw(st.integers(1, 12))):
            events, sent = sent[: (width := draw(st.sampled_from((1, 1, 1, 1, 3))))], sent[width:]
            messages.append(events)
        steps.append((draw(st.sampled_from("....rfx")), [events for events in messages if events]))
    return steps


@settings(max_examples=20, deadline=None)
@given(steps=arrivals())
def test_whatever_comes_the_log_holds_what_a_plain_list_holds(steps: list[tuple[str, list[list[Event]]]]) -> None:
    """With restarts of the writer, appends that fail and exchanges by another process between; many short segments."""
    plain, stored, now = Plain(), 0, NOON
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "amber.db"
        store = Store(path, SMALL)
        for what, messages in steps:
            if what == "r":
                store.close()
                store = Store(path, SMALL)
            elif what == "f":
                with pytest.raises(OverflowError):
                    store.append([of(*events) for events in messages] + [of(numbered(99, at=2**70))], 1)
            elif what == "x" and store.message_id:
                with Rewriter(path, SMALL) as rewriter:
                    rewriter.stage([(store.message_id + 1, [])])
                    rewriter.exchange()
                store.replace([(10**6, [])])
            now += SECOND
            timed = [
                [event if event.from_device else msgspec.structs.replace(event, observed_at=now) for event in events]
                for events in messages
            ]
            stored += store.append([of(*events) for events in timed], 1).duplicates
            for events in timed:
                plain.append(events)
        store.close()
        assert [(event.device, event.seq, event.readings, is_marked(event)) for event in read(path)] == [
            (event.device, event.seq, msgspec.json.encode(event.readings).decode(), marked)
            for event, marked in plain.events
        ]
        assert stored == plain.duplicates
        see_sound(path)
        see_gaps(path, plain)


def see_gaps(path: Path, plain: Plain) -> None:
    """What is missing is what no event in the list has a number of."""
    seen: dict[tuple[str, str], set[int]] = {}
    for event, _ in plain.events:
        if event.detail is not None and event.detail.boot and event.seq is not None:
            seen.setdefault((event.device, event.detail.boot), set()).add(event.seq)
    with Reader(path) as reader:
        found = {(one.device, one.boot): one for one in reader.gaps() if one.boot is not None}
    assert found.keys() == seen.keys()
    for start, numbers in seen.items():
        one = found[start]
        assert (one.first, one.last, one.events) == (min(numbers), max(numbers), len(numbers))
        missing = set(range(min(numbers), max(numbers))) - numbers
        assert {n for first, last in one.missing_ranges for n in range(first, last + 1)} == missing
        assert one.missing == len(missing)


KILLED = """
import signal, sys
from pathlib import Path
from random import Random
import tests.storage.test_identity as claims
from storage import segments
from storage.store import Store
segments.INDEX_RUN_EVENTS = 9
random = Random(int(sys.argv[2]))
store = Store(Path(sys.argv[1]), claims.SMALL)
print(flush=True)
signal.setitimer(signal.ITIMER_REAL, random.uniform(0.01, 0.3))  # nobody hears it: the process is gone
while True:
    store.append([claims.of(claims.sent(random.randrange(400))) for _ in range(random.randrange(1, 9))], 1)
"""


def sent(n: int) -> Event:
    return named(f"{n}", n, at=NOON + n) if n % 5 == 0 else numbered(n // 2, n, boot=f"{n % 2}")


def test_killed_at_any_moment_the_log_holds_each_event_once(path: Path) -> None:
    """A device sends the same events again and again; the gateway is killed between."""
    for seed in range(3):
        with subprocess.Popen([sys.executable, "-c", KILLED, path, str(seed)], cwd=ROOT) as process:
            pass
        assert process.returncode == -signal.SIGALRM
    store = Store(path, SMALL)
    store.append([of(sent(n)) for n in range(400)], 1)
    store.close()
    assert sorted(event.readings for event in read(path)) == sorted(f'{{"v":{n}}}' for n in range(400))
    assert not any(map(is_marked, read(path)))
    see_sound(path)
