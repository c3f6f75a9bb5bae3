"""From schema 2 to 3: tables for what is kept beside the log, and what cursors and segments say more of themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from alembic.operations import Operations


def upgrade(operations: Operations) -> None:
    connection = operations.get_bind()
    for statement in _STATEMENTS:
        connection.exec_driver_sql(statement)


# As they were and are in these two versions, whatever comes later: nothing here may change with the present tables.
_ROLLUPS = (
    "(bucket INTEGER NOT NULL, series_id INTEGER NOT NULL, position INTEGER NOT NULL, count INTEGER NOT NULL,"
    " min FLOAT NOT NULL, max FLOAT NOT NULL, sum FLOAT NOT NULL, last_at INTEGER NOT NULL, last FLOAT NOT NULL,"
    " PRIMARY KEY (bucket, series_id)) WITHOUT ROWID"
)
_STATEMENTS = (
    "ALTER TABLE segments ADD COLUMN removed INTEGER NOT NULL DEFAULT '0'",
    "ALTER TABLE cursors ADD COLUMN kind TEXT NOT NULL DEFAULT 'consumer'",
    "ALTER TABLE cursors ADD COLUMN created_at INTEGER NOT NULL DEFAULT '0'",
    "ALTER TABLE cursors ADD COLUMN filters TEXT",
    "ALTER TABLE cursors ADD COLUMN flushing_to INTEGER",
    "CREATE TABLE marks (name TEXT NOT NULL, value INTEGER NOT NULL, PRIMARY KEY (name))",
    (
        "CREATE TABLE latest (series_id INTEGER NOT NULL PRIMARY KEY, event_id INTEGER NOT NULL, at INTEGER NOT NULL,"
        " received_at INTEGER NOT NULL, value TEXT NOT NULL, unit TEXT, quality TEXT)"
    ),
    (
        "CREATE TABLE presence (device_id INTEGER NOT NULL PRIMARY KEY, position INTEGER NOT NULL,"
        " events INTEGER NOT NULL, first_received_at INTEGER NOT NULL, last_received_at INTEGER NOT NULL,"
        " last_event_id INTEGER NOT NULL, last_observed_at INTEGER NOT NULL, kind_id INTEGER NOT NULL,"
        " format_id INTEGER NOT NULL, online INTEGER, online_at INTEGER, said_at INTEGER, said_id INTEGER)"
    ),
    f"CREATE TABLE rollup_minutes {_ROLLUPS}",
    f"CREATE TABLE rollup_hours {_ROLLUPS}",
    (
        "CREATE TABLE corrections (device_id INTEGER NOT NULL, hour INTEGER NOT NULL, PRIMARY KEY (device_id, hour))"
        " WITHOUT ROWID"
    ),
    (
        "CREATE TABLE forgotten (device_id INTEGER NOT NULL PRIMARY KEY, events INTEGER NOT NULL,"
        " received_to INTEGER NOT NULL)"
    ),
)
