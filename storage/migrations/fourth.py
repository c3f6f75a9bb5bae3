"""From schema 3 to 4: tables for the identity of events. What is in the log by then has none."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from alembic.operations import Operations


def upgrade(operations: Operations) -> None:
    connection = operations.get_bind()
    for statement in _STATEMENTS:
        connection.exec_driver_sql(statement)
    # The last place that an event can have: what comes is behind it. The ranges begin there.
    for (segment,) in connection.exec_driver_sql("SELECT id FROM segments ORDER BY id DESC").all():
        last = connection.exec_driver_sql(f"SELECT max(id) FROM events_{segment}").scalar()
        if last is not None:
            connection.exec_driver_sql("INSERT INTO marks VALUES ('sequences', ?)", (last,))
            break


# As they are in this version, whatever comes later: nothing here may change with the present tables.
_STATEMENTS = (
    (
        "CREATE TABLE sequences (device_id INTEGER NOT NULL, boot TEXT NOT NULL, ranges TEXT NOT NULL,"
        " at INTEGER NOT NULL, before INTEGER NOT NULL, restarts INTEGER NOT NULL, position INTEGER NOT NULL,"
        " PRIMARY KEY (device_id, boot)) WITHOUT ROWID"
    ),
    (
        "CREATE TABLE copy_counts (device_id INTEGER NOT NULL, boot TEXT NOT NULL, duplicates INTEGER NOT NULL,"
        " conflicts INTEGER NOT NULL, PRIMARY KEY (device_id, boot)) WITHOUT ROWID"
    ),
    (
        "CREATE TABLE copies (message_id INTEGER NOT NULL, place INTEGER NOT NULL, identity TEXT NOT NULL,"
        " conflict INTEGER NOT NULL, PRIMARY KEY (message_id, place)) WITHOUT ROWID"
    ),
)
