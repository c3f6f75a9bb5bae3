"""Takes segments and messages out of the log, in short transactions of its own. Never decides which.

A segment goes in steps. The first takes its row out of the catalog, and from then on nobody sees it; its tables, which
nothing names any more, follow one by one, after a crash too. Whoever reads meanwhile has a snapshot with all of it, or
none.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
from sqlalchemy import func, select

from storage import engine, replacing, schema, segments
from storage.conditions import as_json
from storage.event import EVENTS_PER_MESSAGE
from storage.segment import Segment
from storage.summaries.rollups import LACKING, raise_mark

if TYPE_CHECKING:
    from sqlalchemy import Connection

Rows = list[Any]
Ask = Callable[[str, Mapping[str, object]], Rows]
"""Runs one question in SQL and gives all rows."""

SWEPT_REJECTIONS = 1_000
THINNED_BUCKETS = 1_000

CORRECTIONS = "amber.corrections"
"""Holds everything, under this name, while the keeper has something to correct."""

EVERYTHING = 2**63
"""Above every message id."""


class Counts(msgspec.Struct):
    """So much of the log; times are of receipt."""

    segments: int = 0
    messages: int = 0
    events: int = 0
    rejections: int = 0
    received_from: int | None = None
    received_to: int | None = None

    def add(self, other: Counts) -> None:
        self.segments += other.segments
        self.messages += other.messages
        self.events += other.events
        self.rejections += other.rejections
        times = self.received_from, other.received_from
        self.received_from = min((at for at in times if at is not None), default=None)
        times = self.received_to, other.received_to
        self.received_to = max((at for at in times if at is not None), default=None)


class Holder(NamedTuple):
    """A cursor that holds the messages above `free_to`; `position` is where it stands."""

    name: str
    kind: str
    position: int
    free_to: int


def holders(ask: Ask, *, past_consumers: bool) -> list[Holder]:
    """The cursors that hold something, the hindmost first. Of those that have read the whole log none does."""
    rows = ask("SELECT name, kind, position FROM cursors ORDER BY position, name", {})
    if past_consumers:
        rows = [row for row in rows if row[1] == "summary"]
    if not rows:
        return []
    present = ask("SELECT id, first_message_id FROM segments ORDER BY id DESC", {})
    end = last_event_id(ask, [id for id, _ in present])
    found = [
        Holder(name, kind, position, _free_to(ask, present, position))
        for name, kind, position in rows
        if position < end
    ]
    # What was exchanged is to be summed up anew out of events that are all there.
    if any(row[1] == "summary" for row in rows) and ask("SELECT EXISTS (SELECT 1 FROM corrections)", {})[0][0]:
        found.insert(0, Holder(CORRECTIONS, "summary", 0, 0))
    return found


def last_event_id(ask: Ask, newest_first: Iterable[int]) -> int:
    """Of the segments with these ids; 0 where they have no event."""
    for segment in newest_first:
        last: int | None = ask(f"SELECT max(id) FROM events_{segment}", {})[0][0]
        if last is not None:
            return last
    return 0


def _free_to(ask: Ask, newest_first: Rows, position: int) -> int:
    """The last message of which no event stands above the position."""
    message_id = position // EVENTS_PER_MESSAGE
    for segment, first_message_id in newest_first:
        if first_message_id <= message_id:
            values = {"position": position, "next": (message_id + 1) * EVENTS_PER_MESSAGE}
            rest = ask(f"SELECT 1 FROM events_{segment} WHERE id > :position AND id < :next LIMIT 1", values)
            return message_id - 1 if rest else message_id
    return message_id


def free_to(held: list[Holder]) -> int:
    """The last message that nobody holds."""
    return min((holder.free_to for holder in held), default=EVERYTHING)


def drop_segment(
    connection: Connection, path: Path, id: int, received_to: int, *, past_consumers: bool
) -> Counts | None:
    """Take a sealed segment out of the catalog; `sweep` does the rest. None where it is gone or a cursor holds it.

    `received_to` is when its last message was received.
    """
    before, devices = _counted_by_device(connection, path, id)  # while the gateway need not wait for us
    with engine.transaction(connection, path):
        segment, messages = segments.find(connection, id), schema.messages(id)
        if segment is None or segment.sealed_at is None:
            return None
        last: int | None = connection.scalar(select(func.max(messages.c.id)))
        if last is not None and last > free_to(holders(asking(connection), past_consumers=past_consumers)):
            return None
        if segment != before:
            devices = _devices_of(connection, id)
        count = segments.drop(connection, segment)
        if devices:
            connection.exec_driver_sql(_FORGET, [(*device, received_to) for device in devices])
        _forget_identities(connection, segment)
    return counted(segment, count, received_to)


def _forget_identities(connection: Connection, dropped: Segment) -> None:
    """Let go of what was known of the events of a segment, and of the starts of devices that have none left."""
    last = dropped.indexed_to // EVENTS_PER_MESSAGE
    connection.exec_driver_sql(_FORGET_COPIES, (dropped.first_message_id, last))
    first_event_id = _number(connection, "SELECT min(first_event_id) FROM segments")
    connection.exec_driver_sql(_FORGET_COUNTS, (first_event_id,))
    connection.exec_driver_sql(_FORGET_SEQUENCES, (first_event_id,))


def counted(segment: Segment, messages: int, received_to: int) -> Counts:
    """What goes with a sealed segment."""
    received_from = received_to if segment.received_from is None else segment.received_from
    return Counts(1, messages, segment.events, segment.rejections, received_from, received_to)


def orphans(ask: Ask) -> list[str]:
    """The tables of segments that are no more, in the order in which to sweep them."""
    present = {id for (id,) in ask("SELECT id FROM segments", {})}
    names = (name for (name,) in ask("SELECT name FROM sqlite_master WHERE type = 'table'", {}))
    found = [match for match in map(_OF_A_SEGMENT.fullmatch, names) if match and int(match[2]) not in present]
    # The messages last: they tell which rejections were the segment's.
    found.sort(key=lambda match: (int(match[2]), match[1] == "messages"))
    kept = f"messages_{max(present, default=0) - 1}"
    return [match[0] for match in found if match[0] != kept or ask(f"SELECT 1 FROM {kept} LIMIT 1", {})]


def sweep_rejections(connection: Connection, path: Path, table: str) -> bool:
    """Delete rejections of messages that were in this table; whether there may be more."""
    with engine.transaction(connection, path):
        if not _is_there(connection, table):
            return False
        deleted = connection.exec_driver_sql(
            "DELETE FROM rejections WHERE id IN (SELECT id FROM rejections"
            f" WHERE message_id BETWEEN (SELECT min(id) FROM {table}) AND (SELECT max(id) FROM {table})"
            f" ORDER BY message_id LIMIT {SWEPT_REJECTIONS})"
        ).rowcount
    return deleted == SWEPT_REJECTIONS


def sweep_table(connection: Connection, path: Path, table: str) -> int:
    """Drop a table that nothing names any more; the bytes that are free for it.

    To drop it at once is no work for the disk: deleted in parts, its pages would be written once more.
    """
    with engine.transaction(connection, path):
        before = _number(connection, "PRAGMA freelist_count")
        newest = _number(connection, "SELECT max(id) FROM segments")
        if table == f"messages_{newest - 1}" and _is_there(connection, table):
            # The gateway looks for redeliveries in the two newest segments, and is to find a table.
            connection.exec_driver_sql(f"DELETE FROM {table}")
        else:
            connection.exec_driver_sql(f"DROP TABLE IF EXISTS {table}")
        freed = _number(connection, "PRAGMA freelist_count") - before
    return max(0, freed) * engine.PAGE_BYTES


def remove_messages(
    connection: Connection, path: Path, id: int, received_at: Mapping[int, int], *, past_consumers: bool
) -> Counts:
    """Take messages out of a segment with all that became of them; the times of receipt are by message id.

    Those stay that a cursor has come to hold meanwhile, and the last message of the log, which tells the next one's id.
    """
    with engine.transaction(connection, path):
        segment = segments.find(connection, id)
        if segment is None:
            return Counts()
        free = free_to(holders(asking(connection), past_consumers=past_consumers))
        if segment.sealed_at is None:
            free = min(free, segments.last_message_id(connection, segment) - 1)
        ids = [message_id for message_id in received_at if message_id <= free]
        if not ids:
            return Counts()
        values = {"ids": as_json(ids), "per": EVENTS_PER_MESSAGE, "indexed_to": segment.indexed_to}

        def delete(sql: str) -> int:
            used = {name: value for name, value in values.items() if f":{name}" in sql}
            return connection.exec_driver_sql(sql.format(n=id), used).rowcount

        times = [received_at[message_id] for message_id in ids]
        devices = connection.exec_driver_sql(
            _DEVICES_OF.format(n=id), {"ids": values["ids"], "per": values["per"]}
        ).all()
        if devices:
            connection.exec_driver_sql(_FORGET, [(*device, max(times)) for device in devices])
        indexed_events, events = delete(_INDEX_OF), delete(_EVENTS_OF)
        indexed_rejections, others = delete(_INDEXED_REJECTIONS_OF), delete(_REJECTIONS_OF)
        messages = delete(_MESSAGES_OF)
        delete(_COPIES_OF)
        connection.exec_driver_sql(_COUNT_OFF, (indexed_events, indexed_rejections, messages, id))
        if segment.sealed_at is None:  # the writer keeps its row in memory
            replacing.note_exchange(connection)
    return Counts(0, messages, events, indexed_rejections + others, min(times), max(times))


def thin_rollups(connection: Connection, path: Path, table: str, before: int) -> int:
    """Delete some buckets before this one; how many rows that were, 0 when none is left.

    Whoever reads is told how far they went: where a row is lacking, there may have been events all the same.
    """
    with engine.transaction(connection, path):
        end = connection.exec_driver_sql(
            f"SELECT bucket, series_id FROM {table} WHERE bucket < ? ORDER BY bucket, series_id"
            f" LIMIT 1 OFFSET {THINNED_BUCKETS}",
            (before,),
        ).first()
        until = (before, -1) if end is None else (end[0], end[1])
        sql = f"DELETE FROM {table} WHERE (bucket, series_id) < (?, ?)"
        deleted = connection.exec_driver_sql(sql, until).rowcount
        if deleted:
            raise_mark(connection, LACKING.format(table), before if end is None else end[0] + 1)
        return deleted


def asking(connection: Connection) -> Ask:
    """Questions inside the connection's transaction."""
    return lambda sql, values: list(connection.exec_driver_sql(sql, dict(values) or None))


def _counted_by_device(connection: Connection, path: Path, id: int) -> tuple[Segment | None, list[tuple[int, int]]]:
    """A segment as it is now, and the events of its devices; none where it is gone."""
    with engine.translated(path):
        connection.exec_driver_sql("BEGIN")
        try:
            segment = segments.find(connection, id)
            return segment, [] if segment is None else _devices_of(connection, id)
        finally:
            connection.rollback()


def _devices_of(connection: Connection, id: int) -> list[tuple[int, int]]:
    """The devices of a sealed segment, and how many events each has there."""
    return [(device, events) for device, events in connection.exec_driver_sql(_DEVICES.format(n=id))]


def _is_there(connection: Connection, table: str) -> bool:
    """Whether nobody else has dropped a table already."""
    found = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?"
    return connection.exec_driver_sql(found, (table,)).first() is not None


def _number(connection: Connection, sql: str) -> int:
    number: int = connection.exec_driver_sql(sql).scalar_one()
    return number


_OF_A_SEGMENT = re.compile(r"(messages|events|event_index)_(\d+)")
_DEVICES = "SELECT device_id, count(*) FROM event_index_{n} GROUP BY device_id"
_FORGET = (
    "INSERT INTO forgotten (device_id, events, received_to) VALUES (?, ?, ?) ON CONFLICT (device_id) DO UPDATE"
    " SET events = events + excluded.events, received_to = max(received_to, excluded.received_to)"
)
_FORGET_COPIES = "DELETE FROM copies WHERE message_id BETWEEN ? AND ?"
_FORGET_SEQUENCES = "DELETE FROM sequences WHERE position < ?"
_FORGET_COUNTS = (
    "DELETE FROM copy_counts WHERE (device_id, boot) IN (SELECT device_id, boot FROM sequences WHERE position < ?)"
)
_COUNT_OFF = "UPDATE segments SET events = events - ?, rejections = rejections - ?, removed = removed + ? WHERE id = ?"
_WANTED = "(SELECT value FROM json_each(:ids))"
_ITS_EVENTS = (
    "json_each(:ids) AS wanted CROSS JOIN events_{n} AS e"
    " ON e.id BETWEEN wanted.value * :per AND wanted.value * :per + :per - 1"
)
_DEVICES_OF = f"SELECT e.device_id, count(*) FROM {_ITS_EVENTS} GROUP BY e.device_id"
_INDEX_OF = (
    "DELETE FROM event_index_{n} WHERE (device_id, observed_at, event_id) IN"
    f" (SELECT e.device_id, e.observed_at, e.id FROM {_ITS_EVENTS} WHERE e.id <= :indexed_to)"
)
_EVENTS_OF = f"DELETE FROM events_{{n}} WHERE id IN (SELECT e.id FROM {_ITS_EVENTS})"
_REJECTIONS_OF = f"DELETE FROM rejections WHERE message_id IN {_WANTED}"
_INDEXED_REJECTIONS_OF = f"{_REJECTIONS_OF} AND message_id <= :indexed_to / :per"
_COPIES_OF = f"DELETE FROM copies WHERE message_id IN {_WANTED}"
_MESSAGES_OF = f"DELETE FROM messages_{{n}} WHERE id IN {_WANTED}"
