"""The tables: the catalog, and the tables of one segment. Says what they are, never what is in them."""

from __future__ import annotations

from functools import cache

from sqlalchemy import Column, Index, Integer, LargeBinary, MetaData, Table, Text, UniqueConstraint

catalog = MetaData()

topics = Table("topics", catalog, Column("id", Integer, primary_key=True), Column("topic", Text, unique=True))
devices = Table("devices", catalog, Column("id", Integer, primary_key=True), Column("device", Text, unique=True))

# Kinds and formats: few words that stand in every event.
words = Table("words", catalog, Column("id", Integer, primary_key=True), Column("word", Text, unique=True))

series = Table(
    "series",
    catalog,
    Column("id", Integer, primary_key=True),
    Column("device_id", Integer, nullable=False),
    Column("reading", Text, nullable=False),
    Column("unit", Text),
    UniqueConstraint("device_id", "reading"),
)
sessions = Table(
    "sessions",
    catalog,
    Column("id", Integer, primary_key=True),
    Column("client_id", Text, nullable=False),
    Column("broker", Text, nullable=False),
    Column("started_at", Integer, nullable=False),
)
segments = Table(
    "segments",
    catalog,
    Column("id", Integer, primary_key=True),
    Column("first_message_id", Integer, nullable=False),
    Column("first_event_id", Integer, nullable=False),
    # The event index reaches to here, and the four bounds below speak of the events up to here.
    Column("indexed_to", Integer, nullable=False),
    Column("received_from", Integer),
    Column("received_to", Integer),
    Column("observed_from", Integer),
    Column("observed_to", Integer),
    Column("sealed_at", Integer),
)
cursors = Table(
    "cursors",
    catalog,
    Column("name", Text, primary_key=True),
    Column("position", Integer, nullable=False),
    Column("moved_at", Integer, nullable=False),
)
rejections = Table(
    "rejections",
    catalog,
    Column("id", Integer, primary_key=True),
    Column("message_id", Integer, nullable=False),
    Column("format", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Index("rejections_by_message", "message_id"),
)


@cache
def messages(segment: int) -> Table:
    """The messages of a segment. The payload stands last: what is read often lies before it in the row."""
    return Table(
        f"messages_{segment}",
        MetaData(),
        Column("id", Integer, primary_key=True),
        Column("topic_id", Integer, nullable=False),
        Column("received_at", Integer, nullable=False),
        Column("qos", Integer, nullable=False),
        Column("retain", Integer, nullable=False),
        Column("session_id", Integer, nullable=False),
        Column("packet_id", Integer, nullable=False),
        Column("properties", Text),
        Column("payload", LargeBinary, nullable=False),
    )


@cache
def events(segment: int) -> Table:
    """The events of a segment; `readings` is a JSON object."""
    return Table(
        f"events_{segment}",
        MetaData(),
        Column("id", Integer, primary_key=True),
        Column("message_id", Integer, nullable=False),
        Column("device_id", Integer, nullable=False),
        Column("kind_id", Integer, nullable=False),
        Column("format_id", Integer, nullable=False),
        Column("observed_at", Integer, nullable=False),
        Column("from_device", Integer, nullable=False),
        Column("seq", Integer),
        Column("readings", Text, nullable=False),
    )


@cache
def event_index(segment: int) -> Table:
    """Where a device's events stand, by its own time.

    A table, not an index, because it is filled in sorted runs behind the events: entry by entry it cost two thirds
    of the rate with a thousand devices, and more with a hundred thousand.
    """
    return Table(
        f"event_index_{segment}",
        MetaData(),
        Column("device_id", Integer, primary_key=True),
        Column("observed_at", Integer, primary_key=True),
        Column("event_id", Integer, primary_key=True),
        sqlite_with_rowid=False,
    )
