"""The tables: the catalog, and the tables of one segment. Says what they are, never what is in them."""

from __future__ import annotations

from functools import cache

from sqlalchemy import Column, Float, Index, Integer, LargeBinary, MetaData, Table, Text, UniqueConstraint

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
    # Messages that retention has taken out singly; whole segments go with their row.
    Column("removed", Integer, nullable=False, server_default="0"),
)
cursors = Table(
    "cursors",
    catalog,
    Column("name", Text, primary_key=True),
    Column("position", Integer, nullable=False),
    Column("moved_at", Integer, nullable=False),
    Column("kind", Text, nullable=False, server_default="consumer"),
    Column("created_at", Integer, nullable=False, server_default="0"),
    # What a consumer asks for, as JSON.
    Column("filters", Text),
    # Where a summary is being brought to, while it is: some of its rows are there already.
    Column("flushing_to", Integer),
)
# Numbers that the processes of a store tell each other.
marks = Table("marks", catalog, Column("name", Text, primary_key=True), Column("value", Integer, nullable=False))
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

# The newest value of each series, as JSON; `at` is when it was observed, but never after it was received.
latest = Table(
    "latest",
    catalog,
    Column("series_id", Integer, primary_key=True),
    Column("event_id", Integer, nullable=False),
    Column("at", Integer, nullable=False),
    Column("received_at", Integer, nullable=False),
    Column("value", Text, nullable=False),
    # NULL where it is the unit of the series.
    Column("unit", Text),
    Column("quality", Text),
)
# What is known of each device; the counts hold all events up to `position`.
presence = Table(
    "presence",
    catalog,
    Column("device_id", Integer, primary_key=True),
    Column("position", Integer, nullable=False),
    Column("events", Integer, nullable=False),
    Column("first_received_at", Integer, nullable=False),
    Column("last_received_at", Integer, nullable=False),
    Column("last_event_id", Integer, nullable=False),
    Column("last_observed_at", Integer, nullable=False),
    Column("kind_id", Integer, nullable=False),
    Column("format_id", Integer, nullable=False),
    # NULL where nothing has told; since `online_at`, and `said_id` is the last event that told it, of `said_at`.
    Column("online", Integer),
    Column("online_at", Integer),
    Column("said_at", Integer),
    Column("said_id", Integer),
)


def _rollups(name: str) -> Table:
    """Sums of each series by bucket, the number of a minute or an hour since the epoch, up to `position`.

    The buckets stand first in the key: what is written together stands together, and goes together.
    """
    return Table(
        name,
        catalog,
        Column("bucket", Integer, primary_key=True),
        Column("series_id", Integer, primary_key=True),
        Column("position", Integer, nullable=False),
        Column("count", Integer, nullable=False),
        Column("min", Float, nullable=False),
        Column("max", Float, nullable=False),
        Column("sum", Float, nullable=False),
        Column("last_at", Integer, nullable=False),
        Column("last", Float, nullable=False),
        sqlite_with_rowid=False,
    )


rollup_minutes = _rollups("rollup_minutes")
rollup_hours = _rollups("rollup_hours")

# Hours of devices in which events were exchanged: what the summaries say of them is to be made anew.
corrections = Table(
    "corrections",
    catalog,
    Column("device_id", Integer, primary_key=True),
    Column("hour", Integer, primary_key=True),
    sqlite_with_rowid=False,
)

# What retention has taken out of each device's events, and when the last of it was received: what is summed up of it
# cannot be summed up anew.
forgotten = Table(
    "forgotten",
    catalog,
    Column("device_id", Integer, primary_key=True),
    Column("events", Integer, nullable=False),
    Column("received_to", Integer, nullable=False),
)

# Which sequence numbers were seen of each start of a device, as the log up to the mark of this name tells; no event of
# it stands beyond `position`. What the other columns mean stands in `sequences.py`.
sequences = Table(
    "sequences",
    catalog,
    Column("device_id", Integer, primary_key=True),
    Column("boot", Text, primary_key=True),
    Column("ranges", Text, nullable=False),
    Column("at", Integer, nullable=False),
    Column("before", Integer, nullable=False),
    Column("restarts", Integer, nullable=False),
    Column("position", Integer, nullable=False),
    sqlite_with_rowid=False,
)
# How many events came again, and how many under an identity that another had; `boot` is empty for the others' ids.
copy_counts = Table(
    "copy_counts",
    catalog,
    Column("device_id", Integer, primary_key=True),
    Column("boot", Text, primary_key=True),
    Column("duplicates", Integer, nullable=False),
    Column("conflicts", Integer, nullable=False),
    sqlite_with_rowid=False,
)
# Of messages in the log: the places whose event was a copy, and left out, or a conflict, and marked.
copies = Table(
    "copies",
    catalog,
    Column("message_id", Integer, primary_key=True),
    Column("place", Integer, primary_key=True),
    Column("identity", Text, nullable=False),
    Column("conflict", Integer, nullable=False),
    sqlite_with_rowid=False,
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
