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
    Column("unit_source", Text),
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
    # The event index reaches to here, and the bounds and counts below speak of what stands up to here.
    Column("indexed_to", Integer, nullable=False),
    Column("received_from", Integer),
    Column("received_to", Integer),
    Column("observed_from", Integer),
    Column("observed_to", Integer),
    Column("sealed_at", Integer),
    Column("events", Integer, nullable=False),
    Column("rejections", Integer, nullable=False),
    Column("rewritten", Integer, nullable=False),
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

# What messages taught the formats; the ids give the order.
facts = Table(
    "facts",
    catalog,
    Column("id", Integer, primary_key=True),
    Column("format", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("value", Text, nullable=False),
    Column("learned_at", Integer, nullable=False),
    UniqueConstraint("format", "key"),
)
# Rereads that are yet to be done; an id never comes twice, for whoever is done with one names it by its id.
rereads = Table(
    "rereads",
    catalog,
    Column("id", Integer, primary_key=True),
    Column("format", Text, nullable=False),
    Column("topics", Text, nullable=False),
    Column("recent_messages", Integer, nullable=False),
    Column("provisional_only", Integer, nullable=False),
    Column("up_to_message_id", Integer, nullable=False),
    sqlite_autoincrement=True,
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
    """The events of a segment, the id telling the message; `readings` and `detail` are JSON objects."""
    return Table(
        f"events_{segment}",
        MetaData(),
        Column("id", Integer, primary_key=True),
        Column("device_id", Integer, nullable=False),
        Column("kind_id", Integer, nullable=False),
        Column("format_id", Integer, nullable=False),
        Column("observed_at", Integer, nullable=False),
        Column("from_device", Integer, nullable=False),
        Column("seq", Integer),
        Column("readings", Text, nullable=False),
        Column("detail", Text),
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
