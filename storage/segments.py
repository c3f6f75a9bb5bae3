"""Segments: runs of the log in tables of their own, begun, indexed, sealed, dropped. Reads no event for anyone."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import msgspec
from sqlalchemy import delete, func, insert, literal, select, text, update

from storage import schema
from storage.event import EVENTS_PER_MESSAGE
from storage.segment import Segment

if TYPE_CHECKING:
    from sqlalchemy import Connection

INDEX_RUN_EVENTS = 32_768
"""Events that may wait outside the event index: scanning so many for one device takes 3 ms, indexing them 60 ms."""

VIEWED_SEGMENTS = 400
"""SQLite joins at most 500 SELECTs in one view; whoever asks for older history asks Amber."""


def newest(connection: Connection) -> Segment | None:
    row = connection.execute(_SEGMENTS.order_by(schema.segments.c.id.desc()).limit(1)).first()
    return Segment(*row) if row else None


def present(connection: Connection) -> list[Segment]:
    """Those that retention has left, oldest first."""
    return [Segment(*row) for row in connection.execute(_SEGMENTS.order_by(schema.segments.c.id))]


def find(connection: Connection, id: int) -> Segment | None:
    row = connection.execute(_SEGMENTS.where(schema.segments.c.id == id)).first()
    return Segment(*row) if row else None


def last_message_id(connection: Connection, segment: Segment) -> int:
    """The id of the last message in the log; `segment` is the newest."""
    last: int | None = connection.scalar(select(func.max(schema.messages(segment.id).c.id)))
    return segment.first_message_id - 1 if last is None else last


def last_event_id(connection: Connection) -> int:
    """The id of the last event in the log, 0 before the first; the newest segments may have none."""
    for segment in reversed(present(connection)):
        last: int | None = connection.scalar(select(func.max(schema.events(segment.id).c.id)))
        if last is not None:
            return last
    return 0


def events_in(connection: Connection, segment: Segment) -> int:
    """How many events a segment has: those in its index are counted, and few are behind it."""
    events = schema.events(segment.id)
    behind = select(func.count()).select_from(events).where(events.c.id > segment.indexed_to)
    return segment.events + connection.execute(behind).scalar_one()


def begin(connection: Connection, id: int, first_message_id: int) -> Segment:
    """A new segment, open for writing, and the views grown by it."""
    for table in (schema.messages(id), schema.events(id), schema.event_index(id)):
        table.create(connection)
    first_event_id = first_message_id * EVENTS_PER_MESSAGE
    segment = Segment(id, first_message_id, first_event_id, indexed_to=first_event_id - 1)
    connection.execute(insert(schema.segments).values(**msgspec.structs.asdict(segment)))
    define_views(connection)
    return segment


def index_run(connection: Connection, segment: Segment, last_message_id: int) -> Segment:
    """Bring the event index, the bounds that let readers pass a segment over, and the counts up to a message."""
    events, index = schema.events(segment.id), schema.event_index(segment.id)
    messages, rejections = schema.messages(segment.id), schema.rejections
    indexed_to = (last_message_id + 1) * EVENTS_PER_MESSAGE - 1
    run = (events.c.id > segment.indexed_to, events.c.id <= indexed_to)
    connection.execute(
        insert(index).from_select(
            ["device_id", "observed_at", "event_id"],
            select(events.c.device_id, events.c.observed_at, events.c.id)
            .where(*run)
            .order_by(events.c.device_id, events.c.observed_at, events.c.id),
        )
    )
    count, observed_from, observed_to, first, last = connection.execute(
        select(
            func.count(),
            func.min(events.c.observed_at),
            func.max(events.c.observed_at),
            func.min(events.c.id),
            func.max(events.c.id),
        ).where(*run)
    ).one()
    received_from, received_to = connection.execute(
        select(func.min(messages.c.received_at), func.max(messages.c.received_at)).where(
            messages.c.id.between((first or 0) // EVENTS_PER_MESSAGE, (last or 0) // EVENTS_PER_MESSAGE)
        )
    ).one()
    rejected = select(func.count()).where(
        rejections.c.message_id.between(segment.indexed_to // EVENTS_PER_MESSAGE + 1, last_message_id)
    )
    segment = msgspec.structs.replace(
        segment,
        indexed_to=indexed_to,
        events=segment.events + count,
        rejections=segment.rejections + connection.execute(rejected).scalar_one(),
    )
    return update_row(connection, widened(segment, (observed_from, observed_to), (received_from, received_to)))


def seal(connection: Connection, segment: Segment, last_message_id: int) -> Segment:
    """Index what is left and close the segment to new messages."""
    segment = index_run(connection, segment, last_message_id)
    return update_row(connection, msgspec.structs.replace(segment, sealed_at=time.time_ns() // 1000))


def drop(connection: Connection, segment: Segment) -> int:
    """Take a sealed segment out of the catalog and the views, its tables being left to drop; how many messages it had.

    What it leaves between two others counts as removed from the one before it.
    """
    ids = schema.segments.c
    after = connection.execute(select(ids.first_message_id).where(ids.id > segment.id).order_by(ids.id).limit(1))
    width = after.scalar_one() - segment.first_message_id
    before = select(func.max(ids.id)).where(ids.id < segment.id).scalar_subquery()
    connection.execute(update(schema.segments).where(ids.id == before).values(removed=ids.removed + width))
    connection.execute(delete(schema.segments).where(ids.id == segment.id))
    define_views(connection)
    return int(width - segment.removed)


Span = tuple[int | None, int | None]


def widened(segment: Segment, observed: Span, received: Span) -> Segment:
    """The segment with bounds that hold these times too."""
    return msgspec.structs.replace(
        segment,
        observed_from=_least(segment.observed_from, observed[0]),
        observed_to=_most(segment.observed_to, observed[1]),
        received_from=_least(segment.received_from, received[0]),
        received_to=_most(segment.received_to, received[1]),
    )


def update_row(connection: Connection, segment: Segment) -> Segment:
    values = msgspec.structs.asdict(segment)
    connection.execute(update(schema.segments).where(schema.segments.c.id == literal(segment.id)).values(**values))
    return segment


def define_views(connection: Connection) -> None:
    """`messages` and `events` for whoever opens the file with `sqlite3` or Datasette."""
    ids = connection.scalars(
        select(schema.segments.c.id).order_by(schema.segments.c.id.desc()).limit(VIEWED_SEGMENTS)
    ).all()
    for view, body in (("messages", _MESSAGES_VIEW), ("events", _EVENTS_VIEW)):
        connection.execute(text(f"DROP VIEW IF EXISTS {view}"))
        union = " UNION ALL ".join(body.format(n=id) for id in reversed(ids))
        connection.exec_driver_sql(f"CREATE VIEW {view} AS {union}")


def _least(one: int | None, other: int | None) -> int | None:
    return min((value for value in (one, other) if value is not None), default=None)


def _most(one: int | None, other: int | None) -> int | None:
    return max((value for value in (one, other) if value is not None), default=None)


def _iso(column: str) -> str:
    return (
        f"strftime('%Y-%m-%dT%H:%M:%S', {column} / 1000000, 'unixepoch')"
        f" || printf('.%06dZ', {column} % 1000000) AS {column.partition('.')[2]}"
    )


_SEGMENTS = select(*(schema.segments.c[name] for name in Segment.__struct_fields__))
_MESSAGES_VIEW = (
    f"SELECT m.id, topic, {_iso('m.received_at')}, qos, retain, properties, payload"
    " FROM messages_{n} m JOIN topics t ON t.id = m.topic_id"
)
_EVENTS_VIEW = (
    f"SELECT e.id, e.id / {EVENTS_PER_MESSAGE} AS message_id, device, k.word AS kind,"
    f" {_iso('e.observed_at')}, {_iso('m.received_at')},"
    " CASE from_device WHEN 1 THEN 'device' ELSE 'gateway' END AS time_source, topic, f.word AS format, qos, retain,"
    " seq, readings, detail FROM events_{n} e"
    f" JOIN messages_{{n}} m ON m.id = e.id / {EVENTS_PER_MESSAGE} JOIN topics t ON t.id = m.topic_id"
    " JOIN devices d ON d.id = e.device_id JOIN words k ON k.id = e.kind_id JOIN words f ON f.id = e.format_id"
)
