"""Claims about what messages teach: it is there exactly when they are, in the order in which it was learned."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from storage.errors import StoreFailing
from storage.event import Entry, Fact, Lessons, PendingReread, Reread
from storage.log import Log
from storage.store import Committed, Store, StoreOptions
from storage.writer import Writer
from tests.storage.histories import ROOT
from tests.storage.test_append import entry, rows

NO_FLOOR = StoreOptions(free_floor_bytes=0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "amber.db"


def test_facts_and_rereads_come_out_of_the_log_as_they_went_in(path: Path) -> None:
    lessons = Lessons(
        (Fact("sparkplug", "b", "[1]"), Fact("sparkplug", "a", "[2]")),
        (Reread("ha", ("a/#", "b"), 5, provisional_only=True, before=1),),
    )
    kept = Reread("ha", ("a/#", "b"), 5, provisional_only=True)

    async def run() -> None:
        async with Log(path, NO_FLOOR) as log:
            await log.append([entry(0), entry(1)], 1, lessons)
            await log.append([entry(2)], 1)
        async with Log(path, NO_FLOOR) as log:
            assert await log.facts() == list(lessons.facts)
            assert await log.rereads() == [PendingReread(1, kept, 1)]
            await log.replace([(1, [])], done=1)
            assert await log.rereads() == []
            await log.append([entry(3)], 1, lessons)
            assert await log.rereads() == [PendingReread(2, kept, 4)]

    asyncio.run(run())


def test_a_fact_moves_to_the_end_only_with_another_value(path: Path) -> None:
    store = Store(path, NO_FLOOR)

    def learn(*facts: Fact) -> list[tuple[str, str | None]]:
        store.append([entry(0)], 1, Lessons(facts))
        return [(fact.key, fact.value) for fact in store.facts()]

    a, b, other = Fact("f", "a", "1"), Fact("f", "b", "2"), Fact("g", "a", "3")
    assert learn(a, b, other) == [("a", "1"), ("b", "2"), ("a", "3")]
    assert learn(a) == [("a", "1"), ("b", "2"), ("a", "3")]
    assert learn(Fact("f", "a", "9"), b) == [("b", "2"), ("a", "3"), ("a", "9")]
    assert learn(Fact("f", "b", None), Fact("f", "none", None)) == [("a", "3"), ("a", "9")]
    assert learn(Fact("f", "a", None), a) == [("a", "3"), ("a", "1")]
    store.close()


def test_what_no_column_can_hold_costs_itself_only(path: Path) -> None:
    writer = Writer(path, NO_FLOOR)
    facts = Fact("f", "\ud800", "1"), Fact("f", "a", "1")
    rereads = Reread("f", ("\ud800",)), Reread("f", ("a",)), Reread("f", ("a",), 2**63)
    done = writer.append([entry(0), entry(1, seq=2**64)], 1, Lessons(facts, rereads)).result()
    assert (done.messages, done.rejections) == (2, 1)
    assert writer.submit(lambda store: store.facts()).result() == [facts[1]]
    assert [one.reread for one in writer.submit(lambda store: store.rereads()).result()] == [rereads[1]]
    writer.stop()


class Uncertain(Store):
    """Commits its first append, and then says that the disk has failed."""

    failed = False

    def append(self, entries: list[Entry], session_id: int, learned: Lessons = Lessons()) -> Committed:  # type: ignore[override]  # noqa: B008
        done = super().append(entries, session_id, learned)
        if not Uncertain.failed:
            Uncertain.failed = True
            raise StoreFailing("the disk fails")
        return done

    def abandon(self) -> None:
        """The new write-ahead log is another file: on a busy disk, its inode is taken before it comes."""
        super().abandon()
        taken = [self.path.with_name(f"taken{n}") for n in range(64)]
        for file in taken:
            file.touch()


def test_an_append_whose_commit_was_uncertain_teaches_once(path: Path) -> None:
    writer = Writer(path, NO_FLOOR)
    writer.submit(lambda _: None).result()
    writer._store.close()
    writer._store = Uncertain(path, NO_FLOOR)
    writer.append([entry(0)], 1, Lessons((Fact("f", "a", "1"),), (Reread("f", ("a",)),))).result()
    writer.stop()
    assert Uncertain.failed
    assert rows(path, "SELECT seq FROM events") == [(0,)]
    assert rows(path, "SELECT key, value FROM facts") == [("a", "1")]
    assert rows(path, "SELECT id, topics FROM rereads") == [(1, '["a"]')]


def test_lessons_survive_a_kill_exactly_with_their_batch(path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path\n"
        "from tests.storage.test_append import entry\n"
        "from storage.event import *; from storage.store import Store, StoreOptions\n"
        "store = Store(Path(sys.argv[1]), StoreOptions(free_floor_bytes=0))\n"
        "for n in range(1000):\n"
        "    lessons = Lessons((Fact('f', str(n), '1'), Fact('f', 'last', str(n))), (Reread('f', (str(n),)),))\n"
        "    store.append([entry(n)], 1, lessons); os.write(1, b'%d\\n' % n)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, cwd=ROOT)
    assert child.stdout
    for _ in range(30):
        child.stdout.readline()
    os.kill(child.pid, signal.SIGKILL)
    child.stdout.close()
    child.wait()
    count = len(rows(path, "SELECT id FROM messages"))
    assert count >= 30
    store = Store(path, NO_FLOOR)
    facts, rereads = store.facts(), store.rereads()
    store.close()
    assert facts == [*(Fact("f", str(n), "1") for n in range(count)), Fact("f", "last", str(count - 1))]
    assert rereads == [PendingReread(n + 1, Reread("f", (str(n),)), n) for n in range(count)]


def test_what_tens_of_thousands_of_descriptions_teach_is_committed_at_once(path: Path) -> None:
    """A gateway that connects for the first time is sent all that are retained; what it acknowledges waits for them."""
    store = Store(path, NO_FLOOR)
    facts = tuple(Fact("toy", f"site/{n}", f'"{n}"') for n in range(20_000))
    committed = store.append([entry(0)], 1, Lessons(facts))
    assert store.facts() == list(facts)
    store.close()
    assert committed.seconds < 2  # with statements of its own for each fact it was five
