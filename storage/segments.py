"""Segments: contiguous runs of the log in tables of their own, begun, indexed, sealed. Reads no event for anyone."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import msgspec
from sqlalchemy import func, insert, literal, select, text, update

from storage import schema
from storage.segment import Segment

if TYPE_CHECKING:
    from sqlalchemy import Connection

INDEX_RUN_EVENTS = 32_768
"""Events that may wait outside the event index: scanning so many for one device takes 3 ms, indexing them 60 ms."""

VIEWED_SEGMENTS = 400
"""SQLite joins at most 500 SELECTs in one view; whoever asks for older history asks Amber."""


def newest(connection: Connection) -> Segment | None:
    row = connection.execute(
        select(*(schema.segments.c[name] for name in Segment.__struct_fields__))
        .order_by(schema.segments.c.id.desc())
        .limit(1)
    ).first()
    return Segment(*row) if row else None


def last_ids(connection: Connection, segment: Segment) -> tuple[int, int]:
    """The ids of the last message and the last event in the log."""
    messages, events = schema.messages(segment.id), schema.events(segment.id)
    message_id = connection.scalar(select(func.max(messages.c.id)))
    event_id = connection.scalar(select(func.max(events.c.id)))
    return message_id or segment.first_message_id - 1, event_id or segment.first_event_id - 1


def begin(connection: Connection, id: int, first_message_id: int, first_event_id: int) -> Segment:
    """A new segment, open for writing, and the views grown by it."""
    for table in (schema.messages(id), schema.events(id), schema.event_index(id)):
        table.create(connection)
    segment = Segment(id, first_message_id, first_event_id, indexed_to=first_event_id - 1)
    connection.execute(insert(schema.segments).values(**msgspec.structs.asdict(segment)))
    define_views(connection)
    return segment


def index_run(connection: Connection, segment: Segment, last_event_id: int) -> Segment:
    """Bring the event index, and the bounds that let readers pass a segment over, up to `last_event_id`."""
    events, index = schema.events(segment.id), schema.event_index(segment.id)
    messages = schema.messages(segment.id)
    run = (events.c.id > segment.indexed_to, events.c.id <= last_event_id)
    connection.execute(
        insert(index).from_select(
            ["device_id", "observed_at", "event_id"],
            select(events.c.device_id, events.c.observed_at, events.c.id)
            .where(*run)
            .order_by(events.c.device_id, events.c.observed_at, events.c.id),
        )
    )
    observed_from, observed_to, first_message, last_message = connection.execute(
        select(
            func.min(events.c.observed_at),
            func.max(events.c.observed_at),
            func.min(events.c.message_id),
            func.max(events.c.message_id),
        ).where(*run)
    ).one()
    received_from, received_to = connection.execute(
        select(func.min(messages.c.received_at), func.max(messages.c.received_at)).where(
            messages.c.id.between(first_message, last_message)
        )
    ).one()
    segment = msgspec.structs.replace(
        segment,
        indexed_to=last_event_id,
        observed_from=_least(segment.observed_from, observed_from),
        observed_to=_most(segment.observed_to, observed_to),
        received_from=_least(segment.received_from, received_from),
        received_to=_most(segment.received_to, received_to),
    )
    return _store(connection, segment)


def seal(connection: Connection, segment: Segment, last_event_id: int) -> Segment:
    """Index what is left and close the segment for good."""
    if last_event_id > segment.indexed_to:
        segment = index_run(connection, segment, last_event_id)
    return _store(connection, msgspec.structs.replace(segment, sealed_at=time.time_ns() // 1000))


def define_views(connection: Connection) -> None:
    """`messages` and `events` for whoever opens the file with `sqlite3` or Datasette."""
    ids = connection.scalars(
        select(schema.segments.c.id).order_by(schema.segments.c.id.desc()).limit(VIEWED_SEGMENTS)
    ).all()
    for view, body in (("messages", _MESSAGES_VIEW), ("events", _EVENTS_VIEW)):
        connection.execute(text(f"DROP VIEW IF EXISTS {view}"))
        union = " UNION ALL ".join(body.format(n=id) for id in reversed(ids))
        connection.exec_driver_sql(f"CREATE VIEW {view} AS {union}")


def _store(connection: Connection, segment: Segment) -> Segment:
    values = msgspec.structs.asdict(segment)
    connection.execute(update(schema.segments).where(schema.segments.c.id == literal(segment.id)).values(**values))
    return segment


def _least(one: int | None, other: int | None) -> int | None:
    return min((value for value in (one, other) if value is not None), default=None)


def _most(one: int | None, other: int | None) -> int | None:
    return max((value for value in (one, other) if value is not None), default=None)


def _iso(column: str) -> str:
    return (
        f"strftime('%Y-%m-%dT%H:%M:%S', {column} / 1000000, 'unixepoch')"
        f" || printf('.%06dZ', {column} % 1000000) AS {column.partition('.')[2]}"
    )


_MESSAGES_VIEW = (
    f"SELECT m.id, topic, {_iso('m.received_at')}, qos, retain, properties, payload"
    " FROM messages_{n} m JOIN topics t ON t.id = m.topic_id"
)
_EVENTS_VIEW = (
    f"SELECT e.id, e.message_id, device, k.word AS kind, {_iso('e.observed_at')}, {_iso('m.received_at')},"
    " CASE from_device WHEN 1 THEN 'device' ELSE 'gateway' END AS time_source, topic, f.word AS format, qos, retain,"
    " seq, readings FROM events_{n} e JOIN messages_{n} m ON m.id = e.message_id JOIN topics t ON t.id = m.topic_id"
    " JOIN devices d ON d.id = e.device_id JOIN words k ON k.id = e.kind_id JOIN words f ON f.id = e.format_id"
)
