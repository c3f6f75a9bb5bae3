"""Claims about reading again beside a gateway that writes: nothing is lost, and a kill leaves nothing half done."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from itertools import chain
from pathlib import Path
from random import Random

import pytest

from storage.engine import SCHEMA_VERSION, sqlite
from storage.errors import StoreBusy, StoreError
from storage.event import EVENTS_PER_MESSAGE, Outcome, StoredEvent
from storage.history import Reader
from storage.rereading import Rewriter
from storage.store import StoreOptions
from tests.storage.histories import ROOT, History, check, entries, outcome
from tests.storage.test_append import rows

NO_FLOOR = StoreOptions(free_floor_bytes=0)

REREADING = """
import sys
from pathlib import Path
from random import Random
from storage import rereading
from storage.history import Reader
from storage.store import StoreOptions
from tests.storage.histories import outcome

rereading.EXCHANGED_EVENTS = 40
random, path = Random(5), Path(sys.argv[1])
with Reader(path) as reader, rereading.Rewriter(path, StoreOptions(free_floor_bytes=0)) as rewriter:
    for page in reader.outcomes(up_to_message=int(sys.argv[2])):
        for one in page:
            rewriter.stage([(one.message_id, outcome(random, one.message.received_at))])
    if sys.argv[3] == "killed":
        print(flush=True)
        sys.stdin.readline()
    rewriter.exchange()
"""


def reread(path: Path, up_to: int, how: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", REREADING, path, str(up_to), how],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


def reread_outcomes(history: History, up_to: int) -> list[tuple[int, Outcome]]:
    """What the process above makes of the messages."""
    random = Random(5)
    return [(id, outcome(random, history.messages[id - 1].received_at)) for id in range(1, up_to + 1)]


def test_two_processes_write_at_once_and_nothing_is_lost(new_history: History) -> None:
    """One appends, one reads again, one follows: the follower sees each position once and in order."""
    random = Random(1)
    for number in range(0, 600, 60):
        new_history.append(entries(random, 60, number))
    stop, seen = threading.Event(), list[StoredEvent]()

    def follow() -> None:
        with Reader(new_history.path) as reader:
            for page in reader.follow(page_events=50, stop=stop):
                seen.extend(page)

    following = threading.Thread(target=follow)
    following.start()
    with reread(new_history.path, 600, "whole") as process:
        count = 600
        while process.poll() is None or count < 900:
            new_history.append(entries(random, 5, count))
            count += 5
        assert process.returncode == 0
    new_history.note_replaced(reread_outcomes(new_history, 600))
    with Reader(new_history.path) as reader:
        assert list(chain(*reader.pages())) == new_history.events
    while not seen or seen[-1].id < new_history.position:
        assert following.is_alive()
    stop.set()
    following.join()
    positions = [event.id for event in seen]
    assert positions == sorted(set(positions))
    live = [event for event in new_history.events if event.id > 600 * EVENTS_PER_MESSAGE + EVENTS_PER_MESSAGE]
    assert [event for event in seen if event.id >= live[0].id] == live
    check(new_history.path)


def test_a_kill_before_the_exchange_leaves_the_rest_as_it_was(new_history: History) -> None:
    new_history.append(entries(Random(1), 100))
    new_history.append(entries(Random(2), 20, 100))
    with reread(new_history.path, 30, "killed") as process:
        assert process.stdout
        process.stdout.readline()
        with pytest.raises(StoreBusy, match=rf"another `amber reprocess` \(process {process.pid}\)"):
            Rewriter(new_history.path, NO_FLOOR)
        process.send_signal(signal.SIGKILL)
    with Reader(new_history.path) as reader:
        assert list(chain(*reader.pages())) == new_history.events
    with reread(new_history.path, 30, "whole") as process:
        assert process.wait(30) == 0
    new_history.note_replaced(reread_outcomes(new_history, 30))
    with Reader(new_history.path) as reader:
        assert list(chain(*reader.pages())) == new_history.events
    check(new_history.path)


def test_an_exchange_that_fails_may_be_tried_again(new_history: History) -> None:
    new_history.append(entries(Random(1), 50))
    outcomes = reread_outcomes(new_history, 50)
    with Rewriter(new_history.path, StoreOptions(free_floor_bytes=1 << 60)) as rewriter:
        rewriter.stage(outcomes)
        with pytest.raises(StoreError, match="must stay free"):
            rewriter.exchange()
        rewriter._options = NO_FLOOR
        assert rewriter.exchange().messages > 10
    new_history.note_replaced(outcomes)
    with Reader(new_history.path) as reader:
        assert list(chain(*reader.pages())) == new_history.events


def test_an_exchange_that_finds_the_store_locked_may_be_tried_again(new_history: History) -> None:
    new_history.append(entries(Random(1), 50))
    outcomes = reread_outcomes(new_history, 50)
    other = sqlite.connect(new_history.path, isolation_level=None)
    with Rewriter(new_history.path, NO_FLOOR) as rewriter:
        rewriter._connection.exec_driver_sql("PRAGMA busy_timeout=0")
        rewriter.stage(outcomes)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreBusy):
            rewriter.exchange()
        other.execute("ROLLBACK")
        other.close()
        rewriter.exchange()
    new_history.note_replaced(outcomes)
    with Reader(new_history.path) as reader:
        assert list(chain(*reader.pages())) == new_history.events


def test_of_two_outcomes_of_a_message_the_later_stands(new_history: History) -> None:
    new_history.append(entries(Random(1), 50))
    with Rewriter(new_history.path, NO_FLOOR) as rewriter:
        for seed in (1, 2):
            outcomes = [(id, outcome(Random(seed), new_history.messages[id - 1].received_at)) for id in (7, 3)]
            rewriter.stage(outcomes)
        rewriter.exchange()
    new_history.note_replaced(outcomes)
    with Reader(new_history.path) as reader:
        assert list(chain(*reader.pages())) == new_history.events


def test_what_was_never_exchanged_was_never_there(new_history: History) -> None:
    new_history.append(entries(Random(1), 50))
    before = rows(new_history.path, "SELECT * FROM events")
    with Rewriter(new_history.path, NO_FLOOR) as rewriter:
        rewriter.stage(reread_outcomes(new_history, 50))
    assert rows(new_history.path, "SELECT * FROM events") == before
    assert rows(new_history.path, "SELECT name FROM sqlite_master WHERE name LIKE 'staged%'") == []


def test_a_store_that_is_not_there_or_not_up_to_date_is_refused(tmp_path: Path, new_history: History) -> None:
    with pytest.raises(StoreError, match="there is no store"):
        Rewriter(tmp_path / "nix.db")
    new_history.writer.submit(lambda store: store.connection.exec_driver_sql("PRAGMA user_version=1")).result()
    with pytest.raises(StoreError, match="brings it up to date"):
        Rewriter(new_history.path, NO_FLOOR)
    new_history.writer.submit(
        lambda store: store.connection.exec_driver_sql(f"PRAGMA user_version={SCHEMA_VERSION}")
    ).result()
    Rewriter(new_history.path, NO_FLOOR).__exit__(None, None, None)
