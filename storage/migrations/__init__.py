"""Brings the tables of an older store up to the present ones, all steps in one transaction."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from storage import schema, segments
from storage.engine import APPLICATION_ID, SCHEMA_VERSION
from storage.migrations import fourth, second, third

if TYPE_CHECKING:
    from alembic.operations import Operations
    from sqlalchemy import Connection

logger = logging.getLogger("amber.store")

Step = Callable[["Operations"], None]

STEPS: Mapping[int, Step] = {1: second.upgrade, 2: third.upgrade, 3: fourth.upgrade}
"""What leads from each version of the schema to the next: `{1: second.upgrade}` leads from 1 to 2."""


def bring_up_to_date(connection: Connection, steps: Mapping[int, Step] = STEPS, wanted: int = SCHEMA_VERSION) -> None:
    """Make the tables in an empty file, or take the steps that are missing. Runs inside the caller's transaction."""
    version = connection.exec_driver_sql("PRAGMA user_version").scalar_one()
    if version == wanted:
        return
    if version == 0:
        schema.catalog.create_all(connection, checkfirst=False)
        connection.exec_driver_sql(f"PRAGMA application_id={APPLICATION_ID}")
    else:
        logger.warning("bringing the store from schema %d to %d: this may take minutes", version, wanted)
        operations = _operations(connection)
        for step in range(version, wanted):
            steps[step](operations)
        segments.define_views(connection)
    connection.exec_driver_sql(f"PRAGMA user_version={wanted}")


def _operations(connection: Connection) -> Operations:
    from alembic.migration import MigrationContext  # half a second that only an old store costs
    from alembic.operations import Operations

    return Operations(MigrationContext.configure(connection, opts={"transactional_ddl": True}))
