"""Claims about the corridor: what is acknowledged is committed, once, and in order."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.ingest import ingest
from gateway.link.memory import MemoryLink
from gateway.metrics import Metrics
from storage.engine import sqlite
from storage.errors import StoreDamaged
from storage.event import Event, Lessons, Message, Outcome, Properties, Rejection
from storage.log import Log
from storage.store import Committed, StoreOptions

OPTIONS = StoreOptions(segment_events=1_000, free_floor_bytes=0)


class Scalars:
    """A format for these tests: a number is an event, anything else a rejection."""

    def read_all(self, messages: Sequence[Message]) -> list[Outcome]:
        return [self.read(message) for message in messages]

    def read_again(self, message: Message) -> Outcome:
        return self.read(message)

    def take_lessons(self, _batch: Sequence[Message]) -> Lessons:
        return Lessons()

    def read(self, message: Message) -> Outcome:
        if not message.payload.isdigit():
            return Rejection("not a number", "scalar")
        return [Event("d", "measurement", "scalar", message.received_at, {"value": int(message.payload)})]


def message(n: int, *, packet_id: int | None = None, qos: int = 1, **changes: object) -> Message:
    packet_id = n + 1 if packet_id is None else packet_id
    fields: dict[str, object] = {"topic": "d/value", "payload": b"%d" % n, "retain": False, "received_at": n} | changes
    return Message(qos=qos, packet_id=packet_id, **fields)  # type: ignore[arg-type]


@asynccontextmanager
async def corridor(path: Path, link: MemoryLink, metrics: Metrics | None = None) -> AsyncIterator[Log]:
    async with Log(path, OPTIONS) as log, link:
        task = asyncio.create_task(ingest(link, Scalars(), log, metrics or Metrics()))
        try:
            yield log
        finally:
            task.cancel()
            await task


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not true():
            await asyncio.sleep(0)


def stored(path: Path) -> list[object]:
    connection = sqlite.connect(path)
    try:
        return [row[0] for row in connection.execute("SELECT CAST(payload AS TEXT) FROM messages ORDER BY id")]
    finally:
        connection.close()


async def test_all_are_stored_and_acknowledged_in_order(tmp_path: Path) -> None:
    link, path = MemoryLink(), tmp_path / "amber.db"
    async with corridor(path, link):
        link.connect()
        for start in range(0, 3_000, 100):
            link.feed(*(message(n) for n in range(start, start + 100)))
            await asyncio.sleep(0)
        await until(lambda: len(link.acked) == 3_000)
    assert [int(m.payload) for m in link.acked] == list(range(3_000))
    assert stored(path) == [str(n) for n in range(3_000)]


async def test_nothing_is_acknowledged_before_its_commit(tmp_path: Path) -> None:
    link, path = MemoryLink(), tmp_path / "amber.db"
    async with corridor(path, link):
        link.connect()
        link.feed(message(0))
        await until(lambda: len(link.acked) == 1)
        holder = sqlite.connect(path, isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        for n in range(1, 50):
            link.feed(message(n))
        for _ in range(200):
            await asyncio.sleep(0.001)
        assert len(link.acked) == 1
        holder.execute("ROLLBACK")
        holder.close()
        await until(lambda: len(link.acked) == 50)
    assert stored(path) == [str(n) for n in range(50)]


async def test_what_had_arrived_when_it_was_told_to_stop_is_stored_and_acknowledged(tmp_path: Path) -> None:
    link, path = MemoryLink(), tmp_path / "amber.db"
    async with corridor(path, link):
        link.connect()
        await until(lambda: not link._waiting)
        link.feed(message(0), message(1))
    assert len(link.acked) == 2
    assert stored(path) == ["0", "1"]


async def test_a_redelivery_in_a_continuing_session_is_stored_once(tmp_path: Path) -> None:
    link, path, metrics = MemoryLink(), tmp_path / "amber.db", Metrics()
    async with corridor(path, link, metrics):
        link.connect()
        link.feed(*(message(n) for n in range(10)))
        await until(lambda: len(link.acked) == 10)
        link.connect(resumed=True)
        link.feed(*(message(n, dup=True) for n in range(4, 12)))
        await until(lambda: len(link.acked) == 18)
    assert stored(path) == [str(n) for n in range(12)]
    assert (metrics.messages, metrics.redelivered, metrics.unacknowledged) == (12, 6, 0)


async def test_a_redelivery_is_known_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "amber.db"
    for resumed in (False, True):
        link = MemoryLink()
        async with corridor(path, link):
            link.connect(resumed=resumed)
            link.feed(*(message(n, dup=resumed) for n in range(10)))
            await until(lambda link=link: len(link.acked) == 10)  # type: ignore[misc]
    assert stored(path) == [str(n) for n in range(10)]


@pytest.mark.parametrize(
    ("resumed", "changes"),
    [
        (False, {"dup": True}),
        (True, {"dup": False}),
        (True, {"dup": True, "packet_id": 99}),
        (True, {"dup": True, "topic": "d/other"}),
        (True, {"dup": True, "payload": b"7"}),
    ],
    ids=["another session", "no dup", "another id", "another topic", "another payload"],
)
async def test_in_doubt_the_message_is_kept(tmp_path: Path, resumed: bool, changes: dict[str, object]) -> None:  # noqa: FBT001
    link, path = MemoryLink(), tmp_path / "amber.db"
    async with corridor(path, link):
        link.connect()
        link.feed(message(0))
        await until(lambda: len(link.acked) == 1)
        link.connect(resumed=resumed)
        link.feed(message(0, **changes))  # type: ignore[arg-type]
        await until(lambda: len(link.acked) == 2)
    assert len(stored(path)) == 2


async def test_the_same_redelivery_counts_once(tmp_path: Path) -> None:
    link, path = MemoryLink(), tmp_path / "amber.db"
    async with corridor(path, link):
        link.connect()
        link.feed(message(0))
        await until(lambda: len(link.acked) == 1)
        link.connect(resumed=True)
        link.feed(message(0, dup=True), message(0), message(0, dup=True))
        await until(lambda: len(link.acked) == 4)
    assert len(stored(path)) == 3


async def test_the_gateways_own_voice_and_replays_are_acknowledged_and_not_stored(tmp_path: Path) -> None:
    link, path, metrics = MemoryLink(), tmp_path / "amber.db", Metrics()
    marked = Properties(user=(("amber-replay", "12"),))
    async with corridor(path, link, metrics):
        link.connect()
        link.feed(message(0, topic="amber/receipts/x"), message(1, properties=marked), message(2))
        await until(lambda: len(link.acked) == 3)
    assert stored(path) == ["2"]
    assert metrics.own == 2


async def test_rejections_are_stored_and_acknowledged_like_events(tmp_path: Path) -> None:
    link, path, metrics = MemoryLink(), tmp_path / "amber.db", Metrics()
    async with corridor(path, link, metrics):
        link.connect()
        link.feed(message(0, payload=b"\xff"), message(1))
        await until(lambda: len(link.acked) == 2)
    assert (metrics.messages, metrics.events, metrics.rejections) == (2, 1, 1)


async def test_a_store_that_cannot_go_on_ends_the_ingest_without_an_acknowledgement(tmp_path: Path) -> None:
    class Damaged(Log):
        async def append(self, *_: object) -> Committed:
            raise StoreDamaged("broken")

    link = MemoryLink()
    async with Damaged(tmp_path / "amber.db", OPTIONS) as log, link:
        link.connect()
        link.feed(message(0))
        with pytest.raises(StoreDamaged):
            await ingest(link, Scalars(), log, Metrics())
    assert link.acked == []
