"""Claims about following the log as it grows: seen soon, in order, each event once, and an error where it ends."""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import threading
import time
from contextlib import aclosing
from itertools import chain, islice
from random import Random

import pytest

from storage.errors import StoreGone
from storage.event import EVENTS_PER_MESSAGE, Event, Message, Rejection, StoredEvent
from storage.history import Filters, Reader
from tests.storage.histories import DEVICES, NOON, ROOT, History, entries, message

WRITER = """
import sys, time
from pathlib import Path
from storage.event import EVENTS_PER_MESSAGE, Event, Message
from storage.store import StoreOptions
from storage.writer import Writer

writer = Writer(Path(sys.argv[1]), StoreOptions(free_floor_bytes=0))
print(flush=True)
for number in range(int(sys.argv[2])):
    sys.stdin.readline()
    message = Message("t", b"", 0, False, number)
    writer.append([(message, [Event("d", "state", "json", number, {})])], 1).result()
    print(time.monotonic(), flush=True)
writer.stop()
"""


def test_a_commit_of_another_process_is_seen_within_100_ms(new_history: History) -> None:
    path, count, delays = new_history.path, 15, list[float]()
    new_history.append(entries(Random(1), 5))
    new_history.writer.stop()
    with (
        subprocess.Popen(
            [sys.executable, "-c", WRITER, path, str(count)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        ) as writer,
        Reader(path) as reader,
    ):
        assert writer.stdin
        assert writer.stdout
        writer.stdout.readline()
        follower = reader.follower(Filters(devices=("d",), after=new_history.position))
        pages = follower.pages()
        for _ in range(count):
            print(file=writer.stdin, flush=True)
            page = next(pages)
            seen = time.monotonic()
            delays.append(seen - float(writer.stdout.readline()))
            assert len(page) == 1
    assert statistics.median(delays) < 0.1, delays


def test_following_goes_through_segments_as_they_begin(new_history: History) -> None:
    random, seen = Random(2), list[StoredEvent]()
    new_history.append(entries(random, 150))
    stop = threading.Event()

    batches = [entries(random, 30, number) for number in range(150, 1_500, 30)]
    outcomes = [outcome for batch in batches for _, outcome in batch]
    # Known before it begins: told at the end, it could come after the last page, and nothing would end the following.
    expected = len(new_history.events) + sum(len(one) for one in outcomes if not isinstance(one, Rejection))

    def write() -> None:
        for batch in batches:
            new_history.append(batch)

    writing = threading.Thread(target=write)
    with Reader(new_history.path) as reader:
        for page in reader.follow(page_events=40, stop=stop):
            if not seen:
                writing.start()
            seen += page
            if len(seen) >= expected:
                stop.set()
        writing.join()
        status = reader.status()
    assert seen == new_history.events
    assert status.segments > 5


def test_following_devices_goes_on_when_the_index_grows_meanwhile(new_history: History) -> None:
    random, device = Random(3), DEVICES[4]
    with Reader(new_history.path) as reader:
        pages = reader.follow(Filters(devices=(device,)), page_events=1)
        seen = list[StoredEvent]()
        for number in range(0, 600, 60):
            new_history.append(entries(random, 60, number))
            new_history.index_now()
            seen += next(pages)
        expected = [event for event in new_history.events if event.device == device]
        seen += chain(*islice(pages, len(expected) - len(seen)))
    assert len(expected) > 15
    assert seen == expected


def test_new_names_are_found_by_filters_while_following(new_history: History) -> None:
    new_history.append([told("other", {"x": 1})])
    with Reader(new_history.path) as reader:
        pages = reader.follow(Filters(devices=("late-*",), topics=("new/#",), readings=("y",)))
        with_units = reader.follow(Filters(devices=("late-1",), after=EVENTS_PER_MESSAGE))
        new_history.append([told("late-1", {"y": 1}, topic="new/a"), told("late-1", {"x": 1}, topic="new/a")])
        assert [event.id for event in next(pages)] == [2 * EVENTS_PER_MESSAGE]
        assert [event.units for event in next(with_units)] == [{}, {}]
        new_history.append([told("late-1", {"y": 1, "z": 2}, topic="new/b", units={"z": "Cel"})])
        assert [event.id for event in next(pages)] == [4 * EVENTS_PER_MESSAGE]
        assert [event.units for event in next(with_units)] == [{"z": "Cel"}]


def told(
    device: str, readings: dict[str, int], *, topic: str = "t", units: dict[str, str] | None = None
) -> tuple[Message, list[Event]]:
    return message(topic), [Event(device, "state", "json", NOON, readings, units=units)]


@pytest.mark.parametrize("device", [None, *DEVICES[:3], "nobody"])
@pytest.mark.parametrize("last", [0, 1, 20, 10_000])
def test_following_begins_with_the_last_that_match(history: History, device: str | None, last: int) -> None:
    matching = [event for event in history.events if device in (None, event.device)]
    with Reader(history.path) as reader:
        filters = Filters(devices=(device,) if device else (), until_position=history.position)
        seen = list(chain(*reader.follower(filters, last=last).pages(page_events=7)))
    assert seen == matching[len(matching) - min(last, len(matching)) :]


def test_following_ends_at_a_position_that_is_yet_to_come(new_history: History) -> None:
    random = Random(5)
    new_history.append(entries(random, 50))
    end = 60 * EVENTS_PER_MESSAGE
    with Reader(new_history.path) as reader:
        pages = reader.follow(Filters(until_position=end))
        seen = next(pages)
        new_history.append(entries(random, 50, 50))
        assert list(chain(seen, *pages)) == [event for event in new_history.events if event.id <= end]


def test_an_event_loop_can_follow(new_history: History) -> None:
    random = Random(6)
    new_history.append(entries(random, 50))

    async def follow() -> list[StoredEvent]:
        seen = list[StoredEvent]()
        with Reader(new_history.path) as reader:
            async with aclosing(reader.follow_async(page_events=20)) as pages:
                async for page in pages:
                    seen += page
                    if len(seen) < len(new_history.events):
                        continue
                    if len(new_history.events) > 100:
                        break
                    await asyncio.to_thread(new_history.append, entries(random, 150, 50))
        return seen

    assert asyncio.run(follow()) == new_history.events


def test_following_in_an_event_loop_can_be_cancelled_at_any_time(history: History) -> None:
    async def follow() -> None:
        with Reader(history.path) as reader:
            async for _ in reader.follow_async(Filters(readings=("none",)), page_events=1):
                pass

    async def cancel(delay_s: float) -> None:
        following = asyncio.create_task(follow())
        await asyncio.sleep(delay_s)
        following.cancel()
        with pytest.raises(asyncio.CancelledError):
            await following

    for number in range(20):
        asyncio.run(cancel(number / 2_000))


def test_lines_and_messages_can_be_followed(history: History) -> None:
    filters = Filters(until_position=history.position)
    with Reader(history.path) as reader:
        assert list(chain(*reader.line_follower(filters).pages())) == list(chain(*reader.line_pages()))
        assert list(chain(*reader.message_follower(filters).pages())) == list(chain(*reader.message_pages()))


@pytest.mark.parametrize("replaced", [True, False])
def test_a_store_that_is_replaced_ends_following_with_an_error(*, new_history: History, replaced: bool) -> None:
    path = new_history.path
    new_history.append(entries(Random(7), 20))
    with Reader(path) as reader:
        pages = reader.follow()
        assert next(pages) == new_history.events
        if replaced:
            with History(path.with_name("other.db")) as other:
                other.append(entries(Random(8), 50))
            path.with_name("other.db").replace(path)
        else:
            path.unlink()
        with pytest.raises(StoreGone, match="deleted or replaced"):
            next(pages)


def test_an_idle_follower_asks_little_of_the_machine(history: History) -> None:
    stop = threading.Event()
    with Reader(history.path) as reader:
        pages = reader.follow(Filters(after=history.position), stop=stop)
        threading.Timer(1, stop.set).start()
        begun = time.process_time()
        assert list(pages) == []
        assert time.process_time() - begun < 0.2
