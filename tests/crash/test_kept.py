"""Claims about what is kept beside the log while everything happens to it at once, and the keeper is killed at random.

`python -m tests.crash.test_kept 300_000` is the long proof.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cache
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import TypeVar

import msgspec
import pytest

from storage import checking
from storage.backup import backup
from storage.consumers import Consumer
from storage.cursors import cursors
from storage.engine import sqlite
from storage.errors import StoreError
from storage.event import EVENTS_PER_MESSAGE, Event, Kind, Message, Outcome, Rejection, StoredEvent
from storage.history import Reader
from storage.retention import Retention, prune
from storage.retention.ages import RetentionOptions, RetentionRule
from storage.store import Store, StoreOptions
from storage.summaries import HOUR_US, MINUTE_US, keeping
from storage.summaries.keeping import Keeper
from storage.summaries.latest import Latest
from storage.summaries.presence import Presence
from storage.summaries.rollups import Rollups
from tests.storage.histories import NOON, check, stored_event
from tests.storage.lives import newest_values, truths

ROOT = Path(__file__).resolve().parents[2]
SHORT, FOLLOWERS = 7_000, 2

LIFE_S = 1.0
"""Of a keeper, at most."""

SECOND = 1_000_000
APART_US = 10 * SECOND
"""From one message to the next."""

EXCHANGED_BACK = 1_000
"""Messages are read again while no more than so many have come since: what is dropped is older."""

RETENTION = RetentionOptions(
    max_age_us=5 * EXCHANGED_BACK * APART_US, rules=(RetentionRule("debug/#", None, 3 * EXCHANGED_BACK * APART_US),)
)
SUMMARIES = Latest, Presence, Rollups

K = TypeVar("K")
T = TypeVar("T")


@pytest.mark.slow
def test_whatever_happens_at_once_what_is_kept_is_what_the_events_say(tmp_path: Path) -> None:
    prove(tmp_path, SHORT)


def prove(folder: Path, messages: int) -> Counter[str]:
    """Write, exchange, keep, prune, back up, follow, each in a process; kill some; compare with a plain reckoning."""
    store, copy, random, done = folder / "amber.db", folder / "copy.db", Random(messages), Counter[str]()
    Store(store, StoreOptions(free_floor_bytes=0)).close()
    with ExitStack() as stack:
        writer = stack.enter_context(process("write", store, messages))
        followers = [stack.enter_context(process("follow", store, messages, n)) for n in range(FOLLOWERS)]
        beside = ("prune", store), ("backup", store, copy)
        while writer.poll() is None:
            other = random.choice(beside)
            with process(*other) as beside_it, process("keep", store) as keeper:
                wait_until_begun(keeper)
                time.sleep(random.random() * LIFE_S)
                assert (beside_it.poll(), keeper.poll()) == (None, None), other
            done.update(("keep", other[0]))
        assert writer.returncode == 0
        with process("keep", store) as keeper:  # retention waits for it, and they for each other
            for number, follower in enumerate(followers):
                assert follower.communicate(timeout=600)[0].split() == [], f"follower {number}"
                assert follower.returncode == 0
            assert keeper.poll() is None
    prune(store, RETENTION, now=lambda: time_of(messages))
    with Keeper(store, SUMMARIES) as last_keeper:
        last_keeper.catch_up()
    backup(store, copy, overwrite=True)
    for file in (store, copy):
        assert [one for one in checking.check(file) if one.result == "broken"] == []
        check(file)
        compare(file, messages)
    return done


def wait_until_begun(child: subprocess.Popen[str]) -> None:
    assert child.stdout is not None
    assert child.stdout.readline() == "begun\n"


def compare(store: Path, messages: int) -> None:
    events = [event for n in range(1, messages + 1) for event in stored(n)]
    with Reader(store) as reader:
        there = {event.id: event for page in reader.pages() for event in page}
        newest = {(one.device, one.reading): (one.event_id, one.at, one.value, one.quality) for one in reader.latest()}
        known = {
            one.device: (one.events, one.first_received_at, one.last_position, one.online) for one in reader.devices()
        }
    end = time_of(messages)
    for event in events:
        age = RETENTION.rules[0].max_age_us if event.topic == "debug/x" else RETENTION.max_age_us
        assert age is not None
        found = there.pop(event.id, None)
        if found is None:
            assert event.received_at + age < end, event
        else:
            assert (found.device, found.observed_at, found.readings) == (
                event.device,
                event.observed_at,
                event.readings,
            )
    assert there == {}
    compared = [
        different(newest, newest_values(events)),
        # Not since when it is there: an earlier sign of life that an exchange brings is not looked for.
        different(known, {device: tuple(truth[:4]) for device, truth in truths(events).items()}),
    ]
    for table, width_us in (("rollup_minutes", MINUTE_US), ("rollup_hours", HOUR_US)):
        compared.append(different(rollups(store, table), sums(events, width_us)))
    assert not any(compared), compared


def different(found: Mapping[K, object], wanted: Mapping[K, object]) -> dict[K, tuple[object, object]]:
    keys = {*found, *wanted}
    return {key: (found.get(key), wanted.get(key)) for key in keys if found.get(key) != wanted.get(key)}


def rollups(store: Path, table: str) -> dict[tuple[str, str, int], tuple[float, ...]]:
    connection = sqlite.connect(store)
    sql = (
        "SELECT device, reading, bucket, count, min, max, sum, last_at, last"
        f" FROM {table} JOIN series ON series.id = series_id JOIN devices ON devices.id = device_id"
    )
    found = {(device, reading, bucket): tuple(row) for device, reading, bucket, *row in connection.execute(sql)}
    connection.close()
    return found


def sums(events: list[StoredEvent], width_us: int) -> dict[tuple[str, str, int], tuple[float, ...]]:
    values: dict[tuple[str, str, int], list[tuple[int, float]]] = {}
    for event in events:
        for reading, value in msgspec.json.decode(event.readings).items():
            if event.kind != "command" and not isinstance(value, str):
                key = event.device, reading, event.observed_at // width_us
                values.setdefault(key, []).append((event.observed_at, value))
    found: dict[tuple[str, str, int], tuple[float, ...]] = {}
    for key, readings in values.items():
        numbers = [number for _, number in readings]
        found[key] = len(numbers), min(numbers), max(numbers), sum(numbers), *max(readings)
    return found


def stored(n: int) -> list[StoredEvent]:
    """The events of a message as they are in the end."""
    outcome = exchanged(n) if is_exchanged(n) else at_first(n)
    if isinstance(outcome, Rejection):
        return []
    return [stored_event(n * EVENTS_PER_MESSAGE + k, n, message(n), event) for k, event in enumerate(outcome)]


def time_of(n: int) -> int:
    return NOON + n * APART_US


def message(n: int) -> Message:
    return Message("debug/x" if n % 10 == 0 else "a/b", b"%d" % n, 1, retain=False, received_at=time_of(n))


def is_exchanged(n: int) -> bool:
    return n % 7 == 3 and n % 10 != 0


@cache
def at_first(n: int) -> Outcome:
    random = Random(n)
    if n % 20 == 13:
        return Rejection("no")
    if n % 10 == 0:
        return [measured(random, n, 0, f"debug-{n % 3}")]
    if n % 31 == 0 and not is_exchanged(n):
        word = random.choice(("online", "offline"))
        return [Event(f"d{n % 9}", "availability", "json", time_of(n) - n, {"state": word})]
    return [measured(random, n, place, f"d{random.randrange(9)}") for place in range(random.choice((1, 1, 1, 0, 2)))]


@cache
def exchanged(n: int) -> Outcome:
    """Others: of other devices, at other times, more of them or fewer; or none."""
    random = Random(-n)
    if random.random() < 0.1:
        return Rejection("not any more")
    devices = *(f"d{k}" for k in range(9)), "found-1", "found-2"
    return [measured(random, n, place, random.choice(devices)) for place in range(random.choice((1, 1, 2, 0)))]


def measured(random: Random, n: int, place: int, device: str) -> Event:
    """No two are of the same moment."""
    kind: Kind = random.choice(("measurement", "measurement", "state", "command"))
    at = time_of(n) - random.randrange(5_400) * SECOND + place * SECOND // 2 + n
    return Event(device, kind, "json", at, {"n": n, "t": random.randrange(100), "on": "yes"})


def write(path: Path, messages: int) -> None:
    """Batches of all sizes over many segments; each message that is to be exchanged is so soon after."""
    random, number, waiting = Random(messages), 0, list[int]()
    options = StoreOptions(segment_events=max(messages // 20, 500), free_floor_bytes=0)
    store = patiently(lambda: Store(path, options))
    while number < messages or waiting:
        while hindmost(path) < number - EXCHANGED_BACK:  # else all would happen at the end
            time.sleep(0.01)
        size = min(random.choice((1, 7, 50, 200)), messages - number)
        ids = range(number + 1, number + size + 1)
        if size:
            patiently(lambda ids=ids: store.append([(message(n), at_first(n)) for n in ids], 1))  # type: ignore[misc]
        number += size
        waiting += filter(is_exchanged, ids)
        random.shuffle(waiting)
        due = [n for n in waiting if n < number - EXCHANGED_BACK // 2 or number == messages]
        part = (due or waiting)[: random.choice((0, 1, 5, 200))]
        if due:
            part = due
        patiently(lambda part=part: store.replace([(n, exchanged(n)) for n in part]))  # type: ignore[misc]
        waiting = [n for n in waiting if n not in set(part)]
    store.close()


def hindmost(path: Path) -> int:
    """The message up to which all have read that are to."""
    with Reader(path) as reader:
        found = [cursor.position for cursor in cursors(reader._log)]
    return min(found) // EVENTS_PER_MESSAGE if len(found) == len(SUMMARIES) + FOLLOWERS else -EXCHANGED_BACK


def patiently(job: Callable[[], T]) -> T:
    """Again, until nobody else holds the file."""
    while True:
        try:
            return job()
        except StoreError as error:
            print(error, file=sys.stderr)


def keep(path: Path) -> None:
    keeping.WRITTEN_ROWS = 40
    keeping.PAGE_EVENTS = 100
    Presence.flush_s = Latest.flush_s = 0.05
    Rollups.flush_s = 0.2
    retention = Retention(RETENTION, now=lambda: time_of(position(path)))
    with Keeper(path, SUMMARIES, [retention]) as keeper:
        print("begun", flush=True)
        while True:
            if not keeper.step():
                time.sleep(0.01)


def position(path: Path) -> int:
    with Reader(path) as reader:
        return reader.position() // EVENTS_PER_MESSAGE


def prune_again(path: Path) -> None:
    print("begun", flush=True)
    while True:
        prune(path, RETENTION, now=lambda: time_of(position(path)))


def back_up(path: Path, copy: Path) -> None:
    print("begun", flush=True)
    while True:
        backup(path, copy, overwrite=True)
        broken = [one for one in checking.check(copy) if one.result == "broken"]
        assert not broken, broken


def follow(path: Path, messages: int, number: int) -> None:
    """Every event of messages that nobody exchanges comes once, in order; and retention waits for us."""
    seen = list[int]()
    with Consumer(path, f"c{number}") as consumer:
        while not seen or seen[-1] < messages * EVENTS_PER_MESSAGE:
            seen += (event.id for event in consumer.read(500, wait_s=1.0))
            consumer.confirm()
            assert consumer.missed_messages == 0
    assert all(one < other for one, other in pairwise(seen))
    wanted = {event.id for n in range(1, messages + 1) if not is_exchanged(n) for event in stored(n)}
    assert not wanted - set(seen)


@contextmanager
def process(*arguments: object) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-P", "-m", "tests.crash.test_kept", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment) as child:
        try:
            yield child
        finally:
            child.kill()


def main(arguments: list[str]) -> None:
    match arguments:
        case ["write", path, messages]:
            write(Path(path), int(messages))
        case ["keep", path]:
            keep(Path(path))
        case ["prune", path]:
            prune_again(Path(path))
        case ["backup", path, copy]:
            back_up(Path(path), Path(copy))
        case ["follow", path, messages, number]:
            follow(Path(path), int(messages), int(number))
        case _:
            count = int(arguments[0])
            with tempfile.TemporaryDirectory(prefix="amber-kept-") as folder:
                done = prove(Path(folder), count)
            print(f"{count:,} messages, killed meanwhile: {dict(done)}: what is kept is what the events say")


if __name__ == "__main__":
    main(sys.argv[1:])
