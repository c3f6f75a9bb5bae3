"""The open store as its writer sees it: one connection, the newest segment, the next ids. One transaction an append."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

import msgspec
from sqlalchemy import func, insert, select
from sqlalchemy.dialects.sqlite import insert as upsert

from storage import engine, lessons, migrations, replacing, schema, segments
from storage.catalog import Catalog
from storage.event import EVENTS_PER_MESSAGE, Entry, Fact, Lessons, Outcome, PendingReread, Rejection
from storage.repeats import Kept, Repeats
from storage.replacing import Replaced
from storage.rows import insert_rows
from storage.segment import Segment

logger = logging.getLogger("amber.store")

WAL_LIMIT_BYTES = 48 << 20
"""Past this size of the write-ahead log the writer waits for the readers that hold a checkpoint up."""

WAL_LOOK_S = 1.0

EVENT_COLUMNS = len(schema.events(1).c)

TOO_MANY = f"cannot be stored: a message may give {EVENTS_PER_MESSAGE} events at most"

NOTHING_LEARNED = Lessons()


class StoreOptions(msgspec.Struct, frozen=True):
    """How a store is written: the size of a segment, and the room that must be left on its disk."""

    segment_events: int = 1_000_000
    free_floor_bytes: int = 64 << 20


class Committed(msgspec.Struct, frozen=True):
    """What one append put into the log, the position it brought the log to, and the time its transaction took.

    `duplicates` are events that the log had already, and that are not in it again; `conflicts` are among the events.
    """

    messages: int
    events: int
    rejections: int
    position: int
    seconds: float
    duplicates: int = 0
    conflicts: int = 0


class Store:
    """Opens the file, makes or migrates its tables, and writes. Used by one thread at a time."""

    segment: Segment
    message_id: int
    event_id: int
    intended: int | None = None
    """The last message's id when the last append's COMMIT began; None where it did not come to that."""
    _segment_events: int
    _version: int
    _exchanges: int

    def __init__(self, path: Path, options: StoreOptions) -> None:
        self.path = path
        self.options = options
        self.connection = engine.open_writer(path)
        self._catalog = Catalog(self.connection)
        self._repeats = Repeats(self.connection, self._catalog)
        try:
            with engine.transaction(self.connection, path):
                migrations.bring_up_to_date(self.connection)
                self._look()
            self._watch = engine.Watch(path)
            self._wal_seen_at = 0.0
        except BaseException:
            self.connection.close()
            raise

    def append(self, entries: Sequence[Entry], session_id: int, learned: Lessons = NOTHING_LEARNED) -> Committed:
        """Commit the entries and what they taught, all or none; of the events those that the log does not have.

        Raises StoreError; what was not committed may be appended again.
        """
        started, self.intended = time.perf_counter(), None
        engine.see_room(self.path, self.options.free_floor_bytes)
        self._bound_wal()
        first, events, rejections = self.message_id, 0, 0
        try:
            with self._transaction():
                sifted = self._repeats.sift(entries)
                events, rejections = self._write(sifted.entries, session_id)
                self._repeats.note(sifted, first)
                lessons.learn(self.connection, learned, first, sifted.before)
                self.intended = self.message_id
        except BaseException:
            self.message_id = first  # nobody else writes messages; the rest is looked at again
            self._forget()
            raise
        self._repeats.committed(sifted, first)
        self._watch.check()
        return Committed(
            messages=self.message_id - first,
            events=events,
            rejections=rejections,
            position=self.event_id,
            seconds=time.perf_counter() - started,
            duplicates=sifted.duplicates,
            conflicts=sifted.conflicts,
        )

    def replace(self, outcomes: Sequence[tuple[int, Outcome]], done: int | None = None) -> Replaced:
        """Commit what became of messages, each by its id, in place of what became of them before; all or none.

        `done` is the reread that has been done by this. What does not differ is not written, and a message that
        retention has dropped is passed over. Raises StoreError.
        """
        engine.see_room(self.path, self.options.free_floor_bytes)
        self._bound_wal()
        try:
            with self._transaction():
                self._repeats.sequences.flush(self.event_id)
                replaced = replacing.replace(
                    self.connection, [(message_id, storable_outcome(outcome)) for message_id, outcome in outcomes]
                )
                if done is not None:
                    lessons.settle(self.connection, done)
                self._look()
                self._repeats.use(self._catalog)
        except BaseException:
            self._forget()
            raise
        self._watch.check()
        return replaced

    def facts(self) -> list[Fact]:
        """What messages have taught the formats, oldest first."""
        with engine.translated(self.path):
            return lessons.known_facts(self.connection)

    def rereads(self) -> list[PendingReread]:
        """What is yet to be read again, oldest first."""
        with engine.translated(self.path):
            return lessons.pending_rereads(self.connection)

    def open_session(self, client_id: str, broker: str, *, resumed: bool) -> int:
        """The id of the broker's session: the one before where it was resumed, else a new one."""
        sessions = schema.sessions
        if resumed:
            mine = (sessions.c.client_id == client_id, sessions.c.broker == broker)
            known: int | None = self.connection.scalar(select(func.max(sessions.c.id)).where(*mine))
            if known is not None:
                return known
        values = {"client_id": client_id, "broker": broker, "started_at": time.time_ns() // 1000}
        with self._transaction():
            return int(self.connection.execute(insert(sessions).values(values).returning(sessions.c.id)).scalar_one())

    def recent(self, session_id: int, limit: int) -> dict[int, int]:
        """Packet id → content hash of the last `limit` acknowledgeable messages of a session, from two segments."""
        found: dict[int, int] = {}
        topics = schema.topics
        for segment in (self.segment.id, self.segment.id - 1):
            if segment < 1 or len(found) >= limit:
                break
            messages = schema.messages(segment)
            newest_first = (
                select(messages.c.packet_id, topics.c.topic, messages.c.payload)
                .join_from(messages, topics, topics.c.id == messages.c.topic_id)
                .where(messages.c.session_id == session_id, messages.c.packet_id > 0)
                .order_by(messages.c.id.desc())
                .limit(limit - len(found))
            )
            with engine.translated(self.path):
                for packet_id, topic, payload in self.connection.execute(newest_first):
                    found.setdefault(packet_id, hash((topic, payload)))
        return found

    def cursor(self, name: str) -> int:
        """The position that a consumer has confirmed, 0 where it has confirmed nothing."""
        cursors = schema.cursors
        with engine.translated(self.path):
            return self.connection.scalar(select(cursors.c.position).where(cursors.c.name == name)) or 0

    def move_cursor(self, name: str, position: int) -> None:
        """Commit a consumer's position."""
        values = {"position": position, "moved_at": time.time_ns() // 1000}
        statement = upsert(schema.cursors).values(name=name, **values)
        with self._transaction():
            self.connection.execute(statement.on_conflict_do_update(index_elements=["name"], set_=values))

    @property
    def file(self) -> object:
        """Which file this is: another after the one at the path was deleted or replaced.

        Its write-ahead log does not count: that is gone with the last connection, and may come back as another inode.
        """
        return self._watch.opened[0]

    def close(self) -> None:
        """Leave one file behind: what the write-ahead log holds goes into the database."""
        with contextlib.suppress(Exception):  # what is committed is safe in either file
            self.connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
        self.connection.close()

    def abandon(self) -> None:
        """Let go of a file that failed us. A write-ahead log whose database is gone is put aside, not thrown away."""
        with contextlib.suppress(Exception):  # nothing that it could say would be news
            self.connection.close()
        self._watch.put_orphan_aside()

    def rewrite_wal(self) -> None:
        """Copy the write-ahead log into the database and sync that.

        After a failed sync the kernel counts the pages as clean: only writing them anew makes them safe.
        """
        with engine.translated(self.path):
            self.connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")

    def _write(self, entries: Sequence[Kept], session_id: int) -> tuple[int, int]:
        """Insert the entries; how many events and rejections that were."""
        catalog, encode = self._catalog, msgspec.json.Encoder().encode
        topics, devices, words, note_series = catalog.topics, catalog.devices, catalog.words, catalog.note_series
        message_id = self.message_id
        # To bind a None costs half a microsecond: most rows have no properties or detail, and are inserted without.
        messages: list[object] = []
        with_properties: list[object] = []
        events: list[object] = []
        with_detail: list[object] = []
        rejections: list[object] = []
        for message, outcome in entries:
            message_id += 1
            head = (
                message_id,
                topics[message.topic],
                message.received_at,
                message.qos,
                +message.retain,  # an int: a bool is bound by way of an adapter
                session_id,
                message.packet_id,
            )
            if message.properties is None:
                messages += head
                messages.append(message.payload)
            else:
                with_properties += (*head, encode(message.properties).decode(), message.payload)
            if isinstance(outcome, Rejection):
                rejections += (message_id, outcome.format, outcome.reason)
                continue
            if len(outcome) > EVENTS_PER_MESSAGE:
                raise ValueError(TOO_MANY)
            event_id = message_id * EVENTS_PER_MESSAGE
            for event in outcome:
                if event is None:
                    event_id += 1
                    continue
                device_id, detail = devices[event.device], event.detail
                own = note_series(device_id, event)
                row = (
                    event_id,
                    device_id,
                    words[event.kind],
                    words[event.format],
                    event.observed_at,
                    +event.from_device,
                    event.seq,
                    encode(event.readings).decode(),
                )
                if detail is None and own is None:
                    events += row
                else:
                    with_detail += (*row, replacing.detail_json(detail, own))
                event_id += 1
        message_table, event_table = schema.messages(self.segment.id), schema.events(self.segment.id)
        insert_rows(self.connection, message_table, messages, omit=("properties",))
        insert_rows(self.connection, message_table, with_properties)
        insert_rows(self.connection, event_table, events, omit=("detail",))
        insert_rows(self.connection, event_table, with_detail)
        insert_rows(self.connection, schema.rejections, rejections, omit=("id",))
        event_ids = [*events[-(EVENT_COLUMNS - 1) :][:1], *with_detail[-EVENT_COLUMNS:][:1]]
        written = len(events) // (EVENT_COLUMNS - 1) + len(with_detail) // EVENT_COLUMNS
        self.message_id = message_id
        self.event_id = max([self.event_id, *cast("list[int]", event_ids)])
        self._segment_events += written
        self._turn_pages()
        return written, len(rejections) // 3

    def _turn_pages(self) -> None:
        """Index a run when one is due, begin a new segment when this one is full."""
        segment, events = self.segment, self._segment_events
        if max(events, self.message_id - segment.first_message_id + 1) >= self.options.segment_events:
            self._repeats.sequences.flush(self.event_id)
            segments.seal(self.connection, segment, self.message_id)
            self.segment = segments.begin(self.connection, segment.id + 1, self.message_id + 1)
            self._segment_events = 0
        elif events - segment.events >= segments.INDEX_RUN_EVENTS:
            self._repeats.sequences.flush(self.event_id)
            self.segment = segments.index_run(self.connection, segment, self.message_id)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        with engine.transaction(self.connection, self.path):
            version = engine.data_version(self.connection)
            if version != self._version:  # another process has committed: only an exchange concerns us
                if replacing.exchanges(self.connection) != self._exchanges:
                    self._look()
                    self._catalog.forget_series()
                    self._repeats.use(self._catalog)
                self._version = version
            yield

    def _look(self) -> None:
        """Take from the file what we keep in memory of it. Runs inside a transaction."""
        self.segment = segments.newest(self.connection) or segments.begin(self.connection, 1, 1)
        self.message_id = segments.last_message_id(self.connection, self.segment)
        self.event_id = segments.last_event_id(self.connection)
        self._segment_events = segments.events_in(self.connection, self.segment)
        self._version = engine.data_version(self.connection)
        self._exchanges = replacing.exchanges(self.connection)

    def _forget(self) -> None:
        """Believe nothing of what a transaction that failed has left in memory."""
        self._catalog = Catalog(self.connection)
        self._repeats.use(self._catalog)
        self._version = self._exchanges = -1

    def _bound_wal(self) -> None:
        now = time.monotonic()
        if now - self._wal_seen_at < WAL_LOOK_S:
            return
        self._wal_seen_at = now
        with contextlib.suppress(FileNotFoundError), engine.translated(self.path):
            if Path(f"{self.path}-wal").stat().st_size > WAL_LIMIT_BYTES:
                self.connection.exec_driver_sql("PRAGMA wal_checkpoint(RESTART)")


def storable(entry: Entry) -> Entry:
    """The entry, or its message with a rejection where a format gave what no column can hold."""
    message, outcome = entry
    return message, storable_outcome(outcome)


def storable_outcome(outcome: Outcome) -> Outcome:
    """The outcome, or a rejection where a format gave what no column can hold."""
    if isinstance(outcome, Rejection):
        return outcome
    if len(outcome) > EVENTS_PER_MESSAGE:
        return Rejection(TOO_MANY, outcome[0].format)
    try:
        for event in outcome:
            (event.observed_at | (event.seq or 0)).to_bytes(8, signed=True)
            names = event.device, event.kind, event.format, *event.readings
            "\n".join((*names, *(event.units or {}).values(), *(event.unit_sources or {}).values())).encode()
            msgspec.json.encode((event.readings, event.detail))
    except Exception as error:  # noqa: BLE001 - whatever it is, it concerns this one message only
        return Rejection(f"cannot be stored: {error}", outcome[0].format)
    return outcome
