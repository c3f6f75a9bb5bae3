"""From schema 1 to 2: an event's id tells its message. Numbers the events anew, and all that speaks of their ids."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from alembic.operations import Operations
    from sqlalchemy import Connection

# As they were and are in these two versions, whatever comes later: nothing here may change with the present tables.
PER = 10_000


def upgrade(operations: Operations) -> None:
    connection = operations.get_bind()
    for view in ("messages", "events"):
        _run(connection, f"DROP VIEW IF EXISTS {view}")
    for statement in _CATALOG:
        _run(connection, statement)
    segments = [id for (id,) in _rows(connection, "SELECT id FROM segments ORDER BY id")]
    _move_cursors(connection, segments)
    for id in segments:
        _renumber(connection, id)


def _move_cursors(connection: Connection, segments: list[int]) -> None:
    """Each to the same event, or to the last before it that is still there."""
    for name, position in _rows(connection, "SELECT name, position FROM cursors"):
        moved = 0
        for id in reversed(segments):
            found = _rows(connection, _SAME_EVENT.format(n=id, position=position))
            if found:
                moved = found[0][0]
                break
        connection.exec_driver_sql("UPDATE cursors SET position = ? WHERE name = ?", (moved, name))


def _renumber(connection: Connection, id: int) -> None:
    indexed = _rows(connection, _INDEXED_MESSAGE.format(n=id))[0][0]
    for statement in _RENUMBER:
        _run(connection, statement.format(n=id, indexed=indexed))


def _run(connection: Connection, sql: str) -> None:
    connection.exec_driver_sql(sql)


def _rows(connection: Connection, sql: str) -> list[tuple[int, ...]]:
    return [tuple(row) for row in connection.exec_driver_sql(sql)]


_CATALOG = (
    "ALTER TABLE segments ADD COLUMN events INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE segments ADD COLUMN rejections INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE segments ADD COLUMN rewritten INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE series ADD COLUMN unit_source TEXT",
    (
        "CREATE TABLE facts (id INTEGER NOT NULL PRIMARY KEY, format TEXT NOT NULL, key TEXT NOT NULL,"
        " value TEXT NOT NULL, learned_at INTEGER NOT NULL, UNIQUE (format, key))"
    ),
    (
        "CREATE TABLE rereads (id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, format TEXT NOT NULL,"
        " topics TEXT NOT NULL, recent_messages INTEGER NOT NULL, provisional_only INTEGER NOT NULL,"
        " up_to_message_id INTEGER NOT NULL)"
    ),
)

# Ids were dense, so a message's first event is not far before any other of its events.
_SAME_EVENT = (
    f"SELECT last.message_id * {PER} + min(last.id - (SELECT min(e.id) FROM events_{{n}} AS e"
    f" WHERE e.id > last.id - {PER} AND e.id <= last.id AND e.message_id = last.message_id), {PER - 1})"
    " FROM (SELECT id, message_id FROM events_{n} WHERE id <= {position} ORDER BY id DESC LIMIT 1) AS last"
)

# A run of the index ended with a commit, and so with a message; a sealed segment's last run with its last message.
_INDEXED_MESSAGE = (
    "SELECT CASE WHEN sealed_at IS NOT NULL"
    " THEN ifnull((SELECT max(id) FROM messages_{n}), first_message_id - 1)"
    " ELSE ifnull((SELECT max(e.message_id) FROM events_{n} AS e WHERE e.id <= indexed_to), first_message_id - 1) END"
    " FROM segments WHERE id = {n}"
)

_RENUMBER = (
    # No message of that many events is known; it is kept, as one that cannot be read.
    (
        "INSERT INTO rejections (message_id, format, reason) SELECT message_id, word,"
        f" 'cannot be stored: a message may give {PER} events at most'"
        f" FROM events_{{n}} JOIN words ON words.id = format_id GROUP BY message_id HAVING count(*) > {PER}"
    ),
    (
        "CREATE TABLE new_events (id INTEGER NOT NULL PRIMARY KEY, device_id INTEGER NOT NULL,"
        " kind_id INTEGER NOT NULL, format_id INTEGER NOT NULL, observed_at INTEGER NOT NULL,"
        " from_device INTEGER NOT NULL, seq INTEGER, readings TEXT NOT NULL, detail TEXT)"
    ),
    (
        f"INSERT INTO new_events SELECT message_id * {PER} + place - 1, device_id, kind_id, format_id, observed_at,"
        " from_device, seq, readings, NULL FROM"
        " (SELECT *, row_number() OVER (PARTITION BY message_id ORDER BY id) AS place FROM events_{n}"
        f" WHERE message_id NOT IN (SELECT message_id FROM events_{{n}} GROUP BY message_id HAVING count(*) > {PER}))"
    ),
    "DROP TABLE events_{n}",
    "ALTER TABLE new_events RENAME TO events_{n}",
    (
        f"UPDATE segments SET first_event_id = first_message_id * {PER}, indexed_to = {{indexed}} * {PER} + {PER - 1},"
        f" events = (SELECT count(*) FROM events_{{n}} WHERE id < ({{indexed}} + 1) * {PER}),"
        " rejections = (SELECT count(*) FROM rejections WHERE message_id BETWEEN first_message_id AND {indexed})"
        " WHERE id = {n}"
    ),
    "DELETE FROM event_index_{n}",
    (
        "INSERT INTO event_index_{n} (device_id, observed_at, event_id) SELECT device_id, observed_at, id"
        f" FROM events_{{n}} WHERE id < ({{indexed}} + 1) * {PER} ORDER BY device_id, observed_at, id"
    ),
)
