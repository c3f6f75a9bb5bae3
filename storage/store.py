"""The open store as its writer sees it: one connection, the newest segment, the next ids. One transaction an append."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from sqlalchemy import func, insert, select
from sqlalchemy.dialects.sqlite import dialect
from sqlalchemy.dialects.sqlite import insert as upsert

from storage import engine, migrations, schema, segments
from storage.catalog import Catalog
from storage.errors import StoreFull
from storage.event import Entry, Rejection

if TYPE_CHECKING:
    from sqlalchemy import Connection, Table

logger = logging.getLogger("amber.store")

ROWS_PER_STATEMENT = (2048, 256, 32, 4, 1)
"""Many rows to a statement: SQLite then works through them in one step, outside the interpreter's lock."""

WAL_LIMIT_BYTES = 48 << 20
"""Past this size of the write-ahead log the writer waits for the readers that hold a checkpoint up."""

WAL_LOOK_S = 1.0


class StoreOptions(msgspec.Struct, frozen=True):
    """How a store is written: the size of a segment, and the room that must be left on its disk."""

    segment_events: int = 1_000_000
    free_floor_bytes: int = 64 << 20


class Committed(msgspec.Struct, frozen=True):
    """What one append put into the log, the position it brought the log to, and the time its transaction took."""

    messages: int
    events: int
    rejections: int
    position: int
    seconds: float


class Store:
    """Opens the file, makes or migrates its tables, and writes. Used by one thread at a time."""

    def __init__(self, path: Path, options: StoreOptions) -> None:
        self.path = path
        self.options = options
        self.connection = engine.open_writer(path)
        try:
            with self._transaction():
                migrations.bring_up_to_date(self.connection)
                self.segment = segments.newest(self.connection) or segments.begin(self.connection, 1, 1, 1)
            self.message_id, self.event_id = segments.last_ids(self.connection, self.segment)
            self._catalog = Catalog(self.connection)
            self._watch = engine.Watch(path)
            self._wal_seen_at = 0.0
        except BaseException:
            self.connection.close()
            raise

    def append(self, entries: Sequence[Entry], session_id: int) -> Committed:
        """Commit the entries, all or none. Raises StoreError; what was not committed may be appended again."""
        started = time.perf_counter()
        self._see_room()
        self._bound_wal()
        before = self.message_id, self.event_id, self.segment
        try:
            with self._transaction():
                rejections = self._write(entries, session_id)
        except BaseException:
            self.message_id, self.event_id, self.segment = before
            self._catalog = Catalog(self.connection)
            raise
        self._watch.check()
        return Committed(
            messages=self.message_id - before[0],
            events=self.event_id - before[1],
            rejections=rejections,
            position=self.event_id,
            seconds=time.perf_counter() - started,
        )

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
        """Which file this is: another after the one at the path was deleted or replaced."""
        return self._watch.opened

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

    def _write(self, entries: Sequence[Entry], session_id: int) -> int:
        catalog, encode = self._catalog, msgspec.json.Encoder().encode
        topics, devices, words, note_series = catalog.topics, catalog.devices, catalog.words, catalog.note_series
        message_id, event_id = self.message_id, self.event_id
        messages: list[object] = []
        events: list[object] = []
        rejections: list[object] = []
        for message, outcome in entries:
            message_id += 1
            properties = None if message.properties is None else encode(message.properties).decode()
            messages += (
                message_id,
                topics[message.topic],
                message.received_at,
                message.qos,
                +message.retain,  # an int: a bool is bound by way of an adapter
                session_id,
                message.packet_id,
                properties,
                message.payload,
            )
            if isinstance(outcome, Rejection):
                rejections += (message_id, outcome.format, outcome.reason)
                continue
            for event in outcome:
                event_id += 1
                device_id = devices[event.device]
                note_series(device_id, event)
                events += (
                    event_id,
                    message_id,
                    device_id,
                    words[event.kind],
                    words[event.format],
                    event.observed_at,
                    +event.from_device,
                    event.seq,
                    encode(event.readings).decode(),
                )
        insert_rows(self.connection, schema.messages(self.segment.id), messages)
        insert_rows(self.connection, schema.events(self.segment.id), events)
        insert_rows(self.connection, schema.rejections, rejections, omit=("id",))
        self.message_id, self.event_id = message_id, event_id
        self._turn_pages()
        return len(rejections) // 3

    def _turn_pages(self) -> None:
        """Index a run when one is due, begin a new segment when this one is full."""
        full = self.options.segment_events
        if (
            max(self.event_id - self.segment.first_event_id, self.message_id - self.segment.first_message_id) + 1
            >= full
        ):
            segments.seal(self.connection, self.segment, self.event_id)
            self.segment = segments.begin(self.connection, self.segment.id + 1, self.message_id + 1, self.event_id + 1)
        elif self.event_id - self.segment.indexed_to >= segments.INDEX_RUN_EVENTS:
            self.segment = segments.index_run(self.connection, self.segment, self.event_id)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        with engine.translated(self.path):
            self.connection.exec_driver_sql("BEGIN IMMEDIATE")
            try:
                yield
                self.connection.commit()
            except BaseException:
                with contextlib.suppress(Exception):  # a rollback that fails has nothing left to roll back
                    self.connection.rollback()
                raise

    def _see_room(self) -> None:
        free = engine.free_bytes(self.path)
        if free < self.options.free_floor_bytes:
            raise StoreFull(
                f"the disk under {self.path} has {free >> 20} MB left, and {self.options.free_floor_bytes >> 20} MB "
                "must stay free: make room, or lower store.free_floor_mb"
            )

    def _bound_wal(self) -> None:
        now = time.monotonic()
        if now - self._wal_seen_at < WAL_LOOK_S:
            return
        self._wal_seen_at = now
        with contextlib.suppress(FileNotFoundError), engine.translated(self.path):
            if Path(f"{self.path}-wal").stat().st_size > WAL_LIMIT_BYTES:
                self.connection.exec_driver_sql("PRAGMA wal_checkpoint(RESTART)")


def insert_rows(connection: Connection, table: Table, values: list[object], omit: tuple[str, ...] = ()) -> None:
    """Insert rows given as one flat list of their values, many rows to a statement."""
    width = len(table.c) - len(omit)
    start, end = 0, len(values)
    for rows in ROWS_PER_STATEMENT:
        step = rows * width
        while end - start >= step:
            connection.exec_driver_sql(_insert_sql(table, rows, omit), tuple(values[start : start + step]))
            start += step


@lru_cache(maxsize=64)
def _insert_sql(table: Table, rows: int, omit: tuple[str, ...]) -> str:
    names = [column.name for column in table.c if column.name not in omit]
    head, _, row = str(insert(table).compile(dialect=dialect(), column_keys=names)).partition(" VALUES ")
    return f"{head} VALUES {', '.join([row] * rows)}"


def storable(entry: Entry) -> Entry:
    """The entry, or its message with a rejection where a format gave what no column can hold."""
    message, outcome = entry
    if isinstance(outcome, Rejection):
        return entry
    try:
        for event in outcome:
            (event.observed_at | (event.seq or 0)).to_bytes(8, signed=True)
            "\n".join((event.device, event.kind, event.format, *event.readings, *(event.units or {}).values())).encode()
            msgspec.json.encode(event.readings)
    except Exception as error:  # noqa: BLE001 - whatever it is, it concerns this one message only
        return message, Rejection(f"cannot be stored: {error}", outcome[0].format)
    return entry
