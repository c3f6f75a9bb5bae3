"""Claims about a store of schema 1: opened by this Amber it holds all that it held, under the ids of today."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from random import Random

import msgspec
import pytest

from storage.engine import APPLICATION_ID, sqlite
from storage.errors import StoreError
from storage.event import EVENTS_PER_MESSAGE, Entry, Event, Rejection, StoredEvent
from storage.history import Filters, Reader
from storage.store import Store, StoreOptions
from tests.storage.histories import NOON, ROOT, History, check, entries, message
from tests.storage.lives import keep, newest_values, truths
from tests.storage.test_append import rows

NO_FLOOR = StoreOptions(free_floor_bytes=0)

CATALOG = """
CREATE TABLE topics (id INTEGER NOT NULL, topic TEXT, PRIMARY KEY (id), UNIQUE (topic));
CREATE TABLE devices (id INTEGER NOT NULL, device TEXT, PRIMARY KEY (id), UNIQUE (device));
CREATE TABLE words (id INTEGER NOT NULL, word TEXT, PRIMARY KEY (id), UNIQUE (word));
CREATE TABLE series (id INTEGER NOT NULL, device_id INTEGER NOT NULL, reading TEXT NOT NULL, unit TEXT,
    PRIMARY KEY (id), UNIQUE (device_id, reading));
CREATE TABLE sessions (id INTEGER NOT NULL, client_id TEXT NOT NULL, broker TEXT NOT NULL,
    started_at INTEGER NOT NULL, PRIMARY KEY (id));
CREATE TABLE segments (id INTEGER NOT NULL, first_message_id INTEGER NOT NULL, first_event_id INTEGER NOT NULL,
    indexed_to INTEGER NOT NULL, received_from INTEGER, received_to INTEGER, observed_from INTEGER,
    observed_to INTEGER, sealed_at INTEGER, PRIMARY KEY (id));
CREATE TABLE cursors (name TEXT NOT NULL, position INTEGER NOT NULL, moved_at INTEGER NOT NULL, PRIMARY KEY (name));
CREATE TABLE rejections (id INTEGER NOT NULL, message_id INTEGER NOT NULL, format TEXT NOT NULL,
    reason TEXT NOT NULL, PRIMARY KEY (id));
CREATE INDEX rejections_by_message ON rejections (message_id);
"""
SEGMENT = """
CREATE TABLE messages_{n} (id INTEGER NOT NULL, topic_id INTEGER NOT NULL, received_at INTEGER NOT NULL,
    qos INTEGER NOT NULL, retain INTEGER NOT NULL, session_id INTEGER NOT NULL, packet_id INTEGER NOT NULL,
    properties TEXT, payload BLOB NOT NULL, PRIMARY KEY (id));
CREATE TABLE events_{n} (id INTEGER NOT NULL, message_id INTEGER NOT NULL, device_id INTEGER NOT NULL,
    kind_id INTEGER NOT NULL, format_id INTEGER NOT NULL, observed_at INTEGER NOT NULL,
    from_device INTEGER NOT NULL, seq INTEGER, readings TEXT NOT NULL, PRIMARY KEY (id));
CREATE TABLE event_index_{n} (device_id INTEGER NOT NULL, observed_at INTEGER NOT NULL, event_id INTEGER NOT NULL,
    PRIMARY KEY (device_id, observed_at, event_id)) WITHOUT ROWID;
"""
VIEWS = """
CREATE VIEW messages AS SELECT id FROM messages_1 UNION ALL SELECT id FROM messages_2;
CREATE VIEW events AS SELECT id, message_id FROM events_1 UNION ALL SELECT id, message_id FROM events_2;
"""


class First:
    """A store of schema 1 as it was written then: dense ids, the message's id in each event."""

    def __init__(self, path: Path) -> None:
        self.connection = sqlite.connect(path)
        self.connection.executescript(
            f"PRAGMA journal_mode=WAL; PRAGMA application_id={APPLICATION_ID}; PRAGMA user_version=1; {CATALOG}"
        )
        self.message_id = self.event_id = self.segment = 0
        self.ids: list[tuple[int, int]] = []
        """The ids of each event, then and now."""

    def begin(self) -> None:
        self.segment += 1
        self.connection.executescript(SEGMENT.format(n=self.segment))
        first = self.segment, self.message_id + 1, self.event_id + 1, self.event_id
        self.connection.execute("INSERT INTO segments VALUES (?, ?, ?, ?, NULL, NULL, NULL, NULL, NULL)", first)

    def append(self, entries: Sequence[Entry]) -> None:
        for one, outcome in entries:
            self.message_id += 1
            properties = None if one.properties is None else msgspec.json.encode(one.properties).decode()
            values = (
                *(self.message_id, self.id("topic", one.topic), one.received_at, one.qos, one.retain, 1, one.packet_id),
                *(properties, one.payload),
            )
            self.connection.execute(f"INSERT INTO messages_{self.segment} VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", values)
            if isinstance(outcome, Rejection):
                reject = "INSERT INTO rejections (message_id, format, reason) VALUES (?, ?, ?)"
                self.connection.execute(reject, (self.message_id, outcome.format, outcome.reason))
                continue
            for place, event in enumerate(outcome):
                self.note(event, place)

    def note(self, event: Event, place: int) -> None:
        self.event_id += 1
        self.ids.append((self.event_id, self.message_id * EVENTS_PER_MESSAGE + place))
        device = self.id("device", event.device)
        values = (
            *(self.event_id, self.message_id, device, self.id("word", event.kind), self.id("word", event.format)),
            *(event.observed_at, event.from_device, event.seq, msgspec.json.encode(event.readings).decode()),
        )
        self.connection.execute(f"INSERT INTO events_{self.segment} VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", values)
        for reading in event.readings:
            series = device, reading, (event.units or {}).get(reading)
            self.connection.execute("INSERT OR REPLACE INTO series (device_id, reading, unit) VALUES (?, ?, ?)", series)

    def index(self, *, seal: bool = False) -> None:
        n = self.segment
        self.connection.executescript(
            f"INSERT OR IGNORE INTO event_index_{n} SELECT device_id, observed_at, id FROM events_{n};"
            f"UPDATE segments SET indexed_to = {self.event_id}, received_from = {-(2**63)}, received_to = {2**63 - 1},"
            f" observed_from = {-(2**63)}, observed_to = {2**63 - 1}, sealed_at = {'1' if seal else 'NULL'}"
            f" WHERE id = {n}"
        )

    def id(self, sort: str, name: str) -> int:
        self.connection.execute(f"INSERT OR IGNORE INTO {sort}s ({sort}) VALUES (?)", (name,))
        found: int = self.connection.execute(f"SELECT id FROM {sort}s WHERE {sort} = ?", (name,)).fetchone()[0]
        return found

    def close(self) -> None:
        self.connection.executescript(VIEWS)
        self.connection.commit()
        self.connection.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "first.db"


def without_detail(random: Random, count: int, first: int) -> list[Entry]:
    return [
        (one, outcome if isinstance(outcome, Rejection) else [msgspec.structs.replace(e, detail=None) for e in outcome])
        for one, outcome in entries(random, count, first)
    ]


def fill(path: Path, tmp_path: Path) -> tuple[First, History]:
    """The same log as it was, and as it would be now: a sealed segment and an open one with a tail behind its index."""
    random = Random(1)
    batches = [without_detail(random, 100, first) for first in range(0, 400, 100)]
    first = First(path)
    first.begin()
    first.append(batches[0])
    first.append(batches[1])
    first.index(seal=True)
    first.begin()
    first.append(batches[2])
    first.index()
    first.append(batches[3])
    now = History(tmp_path / "now.db")
    for batch in batches:
        now.append(batch)
    return first, now


def read(path: Path, filters: Filters) -> list[StoredEvent]:
    with Reader(path) as reader:
        return list(chain(*reader.pages(filters)))


def test_a_store_of_schema_1_holds_all_that_it_held(path: Path, tmp_path: Path) -> None:
    first, now = fill(path, tmp_path)
    first.connection.executemany(
        "INSERT INTO cursors VALUES (?, ?, 0)",
        [("none", 0), ("beyond", 10**6), *((f"at {old}", old) for old, _ in first.ids)],
    )
    first.close()
    with pytest.raises(StoreError, match="brings it up to date"):
        Reader(path)
    store = Store(path, NO_FLOOR)
    store.append(without_detail(Random(2), 50, 400), 1)
    assert store.cursor("none") == 0
    assert store.cursor("beyond") == first.ids[-1][1]
    assert {old: store.cursor(f"at {old}") for old, _ in first.ids} == dict(first.ids)
    store.close()
    now.append(without_detail(Random(2), 50, 400))
    now.writer.stop()
    for filters in (Filters(), Filters(devices=("thermo-*",)), Filters(topics=("a/#",), kinds=("state",))):
        assert read(path, filters) == read(now.path, filters)
    with Reader(path) as old, Reader(now.path) as new:
        assert list(chain(*old.outcomes())) == list(chain(*new.outcomes()))
        assert old.status().events == new.status().events == len(now.events)
        assert old.status().rejections == new.status().rejections
    assert rows(path, "SELECT count(*), max(id) FROM events") == [(len(now.events), now.position)]
    check(path)


def test_what_is_summed_up_of_an_old_store_is_what_its_events_say_before_the_keeper_comes_and_after(
    path: Path, tmp_path: Path
) -> None:
    first, now = fill(path, tmp_path)
    first.close()
    now.writer.stop()
    store = Store(path, NO_FLOOR)
    for _ in range(2):
        with Reader(path) as reader:
            events = list(chain(*reader.pages()))
            newest = {
                (one.device, one.reading): (one.event_id, one.at, one.value, one.quality) for one in reader.latest()
            }
            counts = {one.device: (one.events, one.last_position) for one in reader.devices()}
        assert newest == newest_values(events)
        assert counts == {device: (truth.events, truth.last_position) for device, truth in truths(events).items()}
        keep(path)
        store.replace([(id, []) for id in range(1, 400, 5)])  # one page of the keeper's is not the whole store
        keep(path)
    store.close()


def test_a_cursor_of_what_retention_has_dropped_begins_with_what_is_left(path: Path, tmp_path: Path) -> None:
    first, now = fill(path, tmp_path)
    now.writer.stop()
    for table in ("messages_1", "events_1", "event_index_1"):
        first.connection.execute(f"DROP TABLE {table}")
    first.connection.execute("DELETE FROM segments WHERE id = 1")
    first.connection.execute("INSERT INTO cursors VALUES ('dropped', 5, 0)")
    first.connection.commit()
    first.connection.close()
    store = Store(path, NO_FLOOR)
    after = store.cursor("dropped")
    store.close()
    left = [event for event in now.events if event.message_id > 200]
    found = read(path, Filters(after=after))
    assert [event.id for event in found] == [event.id for event in left]
    check(path)


def test_a_message_with_more_events_than_there_are_places_is_a_rejection(path: Path) -> None:
    first = First(path)
    first.begin()
    many = [Event("d", "state", "json", NOON, {"n": n}) for n in range(EVENTS_PER_MESSAGE + 1)]
    first.append([(message(), many[:-1]), (message(), many), (message(), many[:1])])
    first.begin()
    first.close()
    Store(path, NO_FLOOR).close()
    assert len(read(path, Filters())) == EVENTS_PER_MESSAGE + 1
    assert rows(path, "SELECT message_id, format FROM rejections") == [(2, "json")]


def test_a_kill_half_way_leaves_the_store_as_it_was(path: Path, tmp_path: Path) -> None:
    first, now = fill(path, tmp_path)
    now.writer.stop()
    first.close()
    code = (
        "import sys; from pathlib import Path\n"
        "from storage import engine, migrations\n"
        "connection = engine.open_writer(Path(sys.argv[1]))\n"
        "connection.exec_driver_sql('PRAGMA cache_spill=1')\n"
        "connection.exec_driver_sql('BEGIN IMMEDIATE')\n"
        "migrations.bring_up_to_date(connection)\n"
        "print(flush=True); sys.stdin.readline()\n"
    )
    before = rows(path, "SELECT * FROM sqlite_master"), rows(path, "SELECT * FROM events_2")
    with subprocess.Popen(
        [sys.executable, "-c", code, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
    ) as process:
        assert process.stdout
        process.stdout.readline()
        process.send_signal(signal.SIGKILL)
    assert (rows(path, "SELECT * FROM sqlite_master"), rows(path, "SELECT * FROM events_2")) == before
    Store(path, NO_FLOOR).close()
    assert read(path, Filters()) == read(now.path, Filters())
    check(path)
