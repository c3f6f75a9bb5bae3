"""Claims about reading again: what came before its birth is read when that comes, through crashes too."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.formats import Format, Formats, Lesson, Options, Unreadable
from gateway.formats.body import Body
from gateway.formats.draft import Draft
from gateway.ingest import ingest
from gateway.link.memory import MemoryLink
from gateway.metrics import Metrics
from gateway.reread import reread, work_off
from storage.errors import StoreReopened
from storage.event import Event, Message, PendingReread, Reread
from storage.history import Reader
from storage.log import Log
from storage.outcomes import StoredOutcome
from storage.store import StoreOptions

OPTIONS = StoreOptions(segment_events=1_000, free_floor_bytes=0)


def read(sent: Message, body: Body) -> Sequence[Event] | None:
    """`toy/x/birth` names the metrics of `toy/x/data`, which come as numbers by place."""
    _, device, sort = sent.topic.split("/")
    draft = Draft("toy", sent, body)
    if sort == "birth":
        return [draft.event(device, "birth")]
    names = body.learned.get("toy", device)
    values = body.document
    if not isinstance(names, list) or not isinstance(values, list):
        raise Unreadable(f"no birth has told the names of {device} yet")
    for at, value in enumerate(values):
        draft.put(str(names[at]) if at < len(names) else f"place {at}", value)
    return [draft.event(device, provisional=len(values) > len(names))]


def teach(sent: Message, body: Body) -> Iterator[Lesson]:
    _, device, sort = sent.topic.split("/")
    if sort == "birth":
        yield Lesson(key=device, value=body.document, topics=(f"toy/{device}/data",))


TOY = Format(name="toy", read=read, topics=("toy/+/+",), teach=teach)


class Running:
    """The corridor with the task that reads again."""

    def __init__(self, log: Log, link: MemoryLink, formats: Formats) -> None:
        self.metrics, self.wake = Metrics(), asyncio.Event()
        self.tasks = [
            asyncio.create_task(ingest(link, formats, log, self.metrics, self.wake)),
            asyncio.create_task(reread(log, formats, self.metrics, self.wake)),
        ]

    async def stop(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.wait(self.tasks)


@asynccontextmanager
async def running(path: Path, link: MemoryLink) -> AsyncIterator[Running]:
    async with Log(path, OPTIONS) as log, link:
        running = Running(log, link, Formats(specific=[TOY], facts=await log.facts()))
        try:
            yield running
        finally:
            await running.stop()


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not true():
            await asyncio.sleep(0.01)


def sent(n: int, topic: str, document: object) -> Message:
    return Message(topic, json.dumps(document).encode(), 1, retain=False, received_at=n, packet_id=n + 1)


def events(path: Path) -> list[tuple[str, str, object]]:
    with Reader(path) as reader:
        return [(e.device, e.kind, json.loads(e.readings)) for page in reader.pages() for e in page]


def rejected(path: Path) -> list[str]:
    with Reader(path) as reader:
        return [one.topic for one in reader.rejections()]


async def test_what_came_before_its_birth_is_read_when_that_comes(tmp_path: Path) -> None:
    link, path = MemoryLink(), tmp_path / "amber.db"
    async with running(path, link) as gateway:
        link.connect()
        link.feed(*(sent(n, "toy/a/data", [n, -n]) for n in range(300)), sent(300, "toy/b/data", [1]))
        await until(lambda: len(link.acked) == 301)
        assert len(rejected(path)) == 301
        link.feed(sent(301, "toy/a/birth", ["x", "y"]), sent(302, "toy/a/data", [302, -302]))
        await until(lambda: gateway.metrics.read_again == 300)
    assert rejected(path) == ["toy/b/data"]
    assert [e for e in events(path) if e[1] != "birth"] == [
        ("a", "measurement", {"x": n, "y": -n}) for n in (*range(300), 302)
    ]


async def test_a_second_birth_leaves_what_the_first_explained_as_it_is(tmp_path: Path) -> None:
    link, path = MemoryLink(), tmp_path / "amber.db"
    async with running(path, link):
        link.connect()
        link.feed(sent(0, "toy/a/birth", ["x"]), sent(1, "toy/a/data", [1]))
        link.feed(sent(2, "toy/a/birth", ["z"]), sent(3, "toy/a/data", [3]))
        await until(lambda: len(link.acked) == 4)
        await asyncio.sleep(0.2)
    assert [e[2] for e in events(path) if e[1] == "measurement"] == [{"x": 1}, {"z": 3}]


async def test_what_was_read_provisionally_is_read_again_at_any_birth(tmp_path: Path) -> None:
    link, path = MemoryLink(), tmp_path / "amber.db"
    async with running(path, link) as gateway:
        link.connect()
        link.feed(sent(0, "toy/a/birth", ["x"]), sent(1, "toy/a/data", [1]), sent(2, "toy/a/data", [2, 2]))
        await until(lambda: len(link.acked) == 3)
        link.feed(sent(3, "toy/a/birth", ["z", "y"]), sent(4, "toy/a/data", [4, 4]))
        await until(lambda: gateway.metrics.read_again == 1)
    assert [e[2] for e in events(path) if e[1] == "measurement"] == [{"x": 1}, {"z": 2, "y": 2}, {"z": 4, "y": 4}]


async def test_a_gateway_that_starts_again_knows_the_births_and_finishes_what_was_pending(tmp_path: Path) -> None:
    link, path = MemoryLink(), tmp_path / "amber.db"
    async with Log(path, OPTIONS) as log, link:
        formats = Formats(specific=[TOY])
        ingesting = asyncio.create_task(ingest(link, formats, log, Metrics()))  # nobody reads again: as if killed
        link.connect()
        link.feed(sent(0, "toy/a/data", [7]), sent(1, "toy/a/birth", ["x"]))
        await until(lambda: len(link.acked) == 2)
        ingesting.cancel()
        await asyncio.wait([ingesting])
        assert len(await log.rereads()) == 1
    assert rejected(path) == ["toy/a/data"]
    link = MemoryLink()
    async with running(path, link) as gateway:
        await until(lambda: gateway.metrics.read_again == 1)
        link.connect()
        link.feed(sent(2, "toy/a/data", [8]))
        await until(lambda: len(link.acked) == 1)
    assert rejected(path) == []
    assert [e[2] for e in events(path) if e[1] == "measurement"] == [{"x": 7}, {"x": 8}]


async def test_a_format_that_is_set_aside_takes_back_nothing_that_was_read(tmp_path: Path) -> None:
    """What came before its birth is read again, and for a minute the format says no to everything."""

    def slow(sent: Message, body: Body) -> Sequence[Event] | None:
        while sent.topic.endswith("/slow"):
            threading.Event().wait(0.001)
        draft = Draft("toy", sent, body)
        draft.put("value", body.document)
        return [draft.event(sent.topic.split("/")[1])]

    link, path = MemoryLink(), tmp_path / "amber.db"
    toy = Format(name="toy", read=slow, topics=("toy/+/+",), teach=teach)
    async with Log(path, OPTIONS) as log, link:
        running = Running(log, link, Formats(Options(message_ms=20), specific=[toy]))
        link.connect()
        link.feed(*(sent(n, "toy/a/data", [n]) for n in range(5)))
        await until(lambda: len(link.acked) == 5)
        link.feed(sent(5, "toy/a/birth", [5]), *(sent(n, "toy/a/slow", n) for n in range(6, 9)))
        async with asyncio.timeout(20):
            while len(link.acked) < 9 or await log.rereads():
                await asyncio.sleep(0.01)
        await running.stop()
    assert rejected(path) == ["toy/a/slow"] * 3
    assert [e[2] for e in events(path)] == [{"value.0": n} for n in range(6)]


async def test_a_stop_waits_for_the_page_that_is_being_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that is closed under another thread takes the process with it."""
    reading, go_on, done = threading.Event(), threading.Event(), list[str]()

    class Slow(Reader):
        def to_reread(self, pending: PendingReread) -> Iterator[list[StoredOutcome]]:
            reading.set()
            go_on.wait(20)
            done.append("read")
            yield from super().to_reread(pending)

        def close(self) -> None:
            done.append("closed")
            super().close()

    monkeypatch.setattr("gateway.reread.Reader", Slow)
    async with Log(tmp_path / "amber.db", OPTIONS) as log:
        pending = PendingReread(1, Reread("toy", ("#",)), 1)
        working = asyncio.create_task(work_off(log, Formats(specific=[TOY]), Metrics(), pending))
        await asyncio.to_thread(reading.wait, 20)
        working.cancel()
        await asyncio.wait([working], timeout=0.1)
        go_on.set()
        await asyncio.wait([working])
    assert working.cancelled()
    assert done == ["read", "closed"]


async def test_a_file_that_is_deleted_meanwhile_gets_nothing_of_what_the_old_one_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the new file the same ids are other messages."""
    path = tmp_path / "amber.db"
    formats = Formats(specific=[TOY])
    old, new = sent(0, "toy/a/data", [1]), sent(1, "other/b", 5)
    reading, go_on = threading.Event(), threading.Event()

    class Slow(Reader):
        def to_reread(self, pending: PendingReread) -> Iterator[list[StoredOutcome]]:
            pages = list(super().to_reread(pending))
            reading.set()
            go_on.wait(20)
            yield from pages

    monkeypatch.setattr("gateway.reread.Reader", Slow)
    async with Log(path, OPTIONS) as log:
        await log.append([(old, formats.read(old))], 1)
        formats.read(sent(0, "toy/a/birth", ["x"]))
        pending = PendingReread(1, Reread("toy", ("#",), 1), 1)
        working = asyncio.create_task(work_off(log, formats, Metrics(), pending))
        await asyncio.to_thread(reading.wait, 20)
        for end in ("", "-wal", "-shm"):
            path.with_name(path.name + end).unlink()
        await log.append([(new, formats.read(new))], 1)
        go_on.set()
        with pytest.raises(StoreReopened):
            await working
    assert events(path) == [("other", "measurement", {"b": 5})]
