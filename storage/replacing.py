"""Exchanges what became of messages for what has become of them now. Runs inside the caller's transaction.

The new rows are laid out in tables that only this connection sees, and are compared with the old ones there: what does
not differ is not written.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import msgspec
from sqlalchemy import Column, Integer, MetaData, Table, Text
from sqlalchemy.schema import CreateTable

from storage import identities, own_units, segments
from storage.catalog import ENTER_SERIES, UPDATE_SERIES, series_of, units_of
from storage.conditions import as_json
from storage.event import EVENTS_PER_MESSAGE, Detail, Event, Outcome, Rejection
from storage.repeats import without_copies
from storage.rows import insert_rows
from storage.segment import Segment
from storage.summaries import HOUR_US

if TYPE_CHECKING:
    from sqlalchemy import Connection

REMEMBERED_SERIES = 500_000


class Replaced(msgspec.Struct, frozen=True):
    """What an exchange has changed: messages whose outcome differs, and how it does."""

    messages: int = 0
    events_added: int = 0
    events_changed: int = 0
    events_removed: int = 0
    rejections_added: int = 0
    rejections_removed: int = 0
    series: int = 0
    """Series that are new, or have another unit."""


def total(parts: Iterable[Replaced]) -> Replaced:
    return Replaced(
        *map(sum, zip(msgspec.structs.astuple(Replaced()), *map(msgspec.structs.astuple, parts), strict=True))
    )


def replace(connection: Connection, outcomes: Sequence[tuple[int, Outcome]]) -> Replaced:
    """Exchange the outcomes of messages of any segments; what retention has dropped is passed over."""
    present = segments.present(connection)
    firsts = [segment.first_message_id for segment in present]
    last = segments.last_message_id(connection, present[-1])
    parts: dict[int, list[tuple[int, Outcome]]] = {}
    for message_id, outcome in dict(outcomes).items():
        number = bisect_right(firsts, message_id) - 1
        if number >= 0 and message_id <= last:
            parts.setdefault(number, []).append((message_id, outcome))
    stage, done = Stage(connection), []
    for number, part in sorted(parts.items()):
        stage.put(part)
        done.append(stage.exchange(present[number]))
        stage.clear()
    return total(done)


class Stage:
    """New outcomes of messages of one segment, beside the log: nothing of them is in the file until the exchange."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._series: dict[tuple[str, str, str | None], str | None] = {}
        self._entered: dict[tuple[str, str, str | None], str | None] = {}
        self._units: dict[tuple[str, str], tuple[str | None, str | None]] = {}
        for table in _TABLES:
            connection.execute(CreateTable(table, if_not_exists=True))
        self.clear()

    def put(self, outcomes: Iterable[tuple[int, Outcome]]) -> None:
        """Add outcomes, each message once; they are storable."""
        encode = msgspec.json.Encoder().encode
        messages: list[object] = []
        events: list[object] = []
        for message_id, outcome in self._without_copies([*outcomes]):
            if isinstance(outcome, Rejection):
                messages += (message_id, outcome.format, outcome.reason)
                continue
            messages += (message_id, None, None)
            for event_id, event in enumerate(outcome, message_id * EVENTS_PER_MESSAGE):
                if event is None:
                    continue
                self._note_series(event)
                own = own_units.stated(units_of(event), self._known_series(event))
                events += (
                    event_id,
                    event.device,
                    event.kind,
                    event.format,
                    event.observed_at,
                    +event.from_device,
                    event.seq,
                    encode(event.readings).decode(),
                    detail_json(event.detail, own),
                )
        insert_rows(self._connection, _STAGED, messages)
        insert_rows(self._connection, _STAGED_EVENTS, events)

    def narrow(self, segment: Segment) -> None:
        """Leave out what the log does not have, and the messages that nothing differs for: so the exchange is short."""
        for statement in _LEAVE_OUT:
            self._run(statement, segment)
        self._run("DELETE FROM staged_differing")
        self._run(_DIFFERING, segment)
        self._run("DELETE FROM staged WHERE message_id NOT IN (SELECT message_id FROM staged_differing)")
        self._run("DELETE FROM staged_events WHERE id / :per NOT IN (SELECT message_id FROM staged_differing)")

    @property
    def empty(self) -> bool:
        """Whether an exchange would change nothing."""
        staged = self._connection.exec_driver_sql("SELECT EXISTS (SELECT 1 FROM staged)").scalar_one()
        return not staged and not self._series

    def exchange(self, segment: Segment) -> Replaced:
        """Put what is staged in the place of what is there, and keep the index, the bounds and the counts right."""
        if segment.removed:
            for statement in _LEAVE_OUT:
                self._run(statement, segment)
        note_exchange(self._connection)
        for statement in _ENTER_NAMES:
            self._run(statement)
        series = self._enter_series()
        self._run(_FRESH, segment)
        self._run(_GONE, segment)
        replaced = self._counted(segment)
        if replaced != Replaced():
            self._write(segment)
        return msgspec.structs.replace(replaced, series=series)

    def clear(self) -> None:
        """Forget what is staged, as it has been exchanged or will not be."""
        if len(self._entered) >= REMEMBERED_SERIES:
            self._entered.clear()
        self._entered.update(self._series)
        self._series.clear()
        self._units.clear()
        for table in _TABLES:
            self._run(f"DELETE FROM {table.name}")

    def _without_copies(
        self, outcomes: Sequence[tuple[int, Outcome]]
    ) -> Iterable[tuple[int, Sequence[Event | None] | Rejection]]:
        """The outcomes without what was left out of their messages when these came, and marked where that was."""
        copies: dict[int, list[tuple[int, str, int]]] = {}
        ids = as_json([message_id for message_id, _ in outcomes])
        for message_id, *copy in self._connection.exec_driver_sql(_COPIES, (ids,)):
            copies.setdefault(message_id, []).append((copy[0], copy[1], copy[2]))
        for message_id, outcome in outcomes:
            yield message_id, without_copies(outcome, copies[message_id]) if message_id in copies else outcome

    def _note_series(self, event: Event) -> None:
        for reading, unit, source in series_of(event):
            key = event.device, reading, source
            if key not in self._entered or self._entered[key] != unit:
                self._series.setdefault(key, unit)

    def _known_series(self, event: Event) -> dict[str, tuple[str | None, str | None]]:
        """Unit and source of the series of an event, as they are before the exchange."""
        found = {}
        for reading in event.units or {}:
            key = event.device, reading
            if key not in self._units:
                row = self._connection.exec_driver_sql(_SERIES, key).first()
                self._units[key] = (None, None) if row is None else (row[0], row[1])
            found[reading] = self._units[key]
            if found[reading][0] is None:  # what this event states is what the series will have
                self._units[key] = units_of(event)[reading]
        return found

    def _write(self, segment: Segment) -> None:
        rejected_before = self._indexed_rejections(segment)
        mark = identities.marked(self._connection)
        rows = self._connection.exec_driver_sql(_IDENTIFIED, (mark,)).all()
        identities.include(self._connection, [(row[0], row[1], row[2], row[3], row[4]) for row in rows])
        for statement in _EXCHANGE:
            self._run(statement, segment)
        rejections = segment.rejections + self._indexed_rejections(segment) - rejected_before
        indexed = self._row(_INDEXED, segment)
        added, removed, observed_from, observed_to, received_from, received_to = indexed
        segment = segments.widened(segment, (observed_from, observed_to), (received_from, received_to))
        segments.update_row(
            self._connection,
            msgspec.structs.replace(
                segment,
                events=segment.events + added - removed,
                rejections=rejections,
                rewritten=segment.rewritten + 1,
            ),
        )

    def _enter_series(self) -> int:
        rows = [
            {"device": device, "reading": reading, "unit": unit, "unit_source": source}
            for (device, reading, source), unit in self._series.items()
        ]
        if not rows:
            return 0
        of_device = "SELECT id, :reading, :unit, :unit_source FROM devices WHERE device = :device"
        return self._connection.exec_driver_sql(f"{ENTER_SERIES} {of_device} {UPDATE_SERIES}", rows).rowcount

    def _counted(self, segment: Segment) -> Replaced:
        return Replaced(*self._row(_COUNTED, segment))

    def _indexed_rejections(self, segment: Segment) -> int:
        count: int = self._row(_INDEXED_REJECTIONS, segment)[0]
        return count

    def _run(self, sql: str, segment: Segment | None = None) -> None:
        self._connection.exec_driver_sql(*_bound(sql, segment))

    def _row(self, sql: str, segment: Segment) -> Sequence[int]:
        row: Sequence[int] = self._connection.exec_driver_sql(*_bound(sql, segment)).one()
        return row


def exchanges(connection: Connection) -> int:
    """How many exchanges there have been: another number tells that events, or the units of series, are others now."""
    count: int | None = connection.exec_driver_sql("SELECT value FROM marks WHERE name = 'exchanges'").scalar()
    return count or 0


def note_exchange(connection: Connection) -> None:
    """Have the writer look again at what it keeps in memory of the file."""
    connection.exec_driver_sql(_MARK)


def detail_json(detail: Detail | None, own: str | None) -> str | None:
    """The JSON of a detail as it is stored, with the units that are the event's own; None where it says nothing."""
    text = None if detail is None else msgspec.json.encode(detail).decode()
    text = None if text == "{}" else text
    return text if own is None else own_units.put(text, own)


def _bound(sql: str, segment: Segment | None) -> tuple[str, dict[str, int]]:
    """The statement for a segment, with the values that it names."""
    values = {"per": EVENTS_PER_MESSAGE}
    if segment is not None:
        sql = sql.replace("{n}", str(segment.id))
        values["indexed_to"] = segment.indexed_to
    return sql, {name: value for name, value in values.items() if f":{name}" in sql}


def _temporary(name: str, *columns: Column[object]) -> Table:
    return Table(name, MetaData(), *columns, prefixes=["TEMPORARY"])


_SERIES = (
    "SELECT unit, unit_source FROM series WHERE device_id = (SELECT id FROM devices WHERE device = ?) AND reading = ?"
)
_COPIES = (
    "SELECT message_id, place, identity, conflict FROM copies"
    " WHERE message_id IN (SELECT value FROM json_each(?)) ORDER BY message_id, place"
)
_IDENTIFIED = (
    "SELECT id, device_id, seq, observed_at, detail FROM staged_fresh"
    " WHERE id <= ? AND seq >= 0 AND instr(detail, '\"boot\":') ORDER BY id"
)
_STAGED = _temporary(
    "staged",
    Column("message_id", Integer, primary_key=True),
    Column("format", Text),
    Column("reason", Text),  # NULL where it is no rejection
)
_STAGED_EVENTS = _temporary(
    "staged_events",
    Column("id", Integer, primary_key=True),
    Column("device", Text),
    Column("kind", Text),
    Column("format", Text),
    Column("observed_at", Integer),
    Column("from_device", Integer),
    Column("seq", Integer),
    Column("readings", Text),
    Column("detail", Text),
)
_DIFFERING_MESSAGES = _temporary("staged_differing", Column("message_id", Integer, primary_key=True))
# Rows that are new or differ, with what the old one's entry in the event index says.
_FRESH_ROWS = _temporary(
    "staged_fresh",
    Column("id", Integer, primary_key=True),
    Column("device_id", Integer),
    Column("kind_id", Integer),
    Column("format_id", Integer),
    Column("observed_at", Integer),
    Column("from_device", Integer),
    Column("seq", Integer),
    Column("readings", Text),
    Column("detail", Text),
    Column("old_device_id", Integer),
    Column("old_observed_at", Integer),
)
_GONE_ROWS = _temporary(
    "staged_gone",
    Column("id", Integer, primary_key=True),
    Column("device_id", Integer),
    Column("observed_at", Integer),
)
_TABLES = _STAGED, _STAGED_EVENTS, _DIFFERING_MESSAGES, _FRESH_ROWS, _GONE_ROWS

_MARK = "INSERT INTO marks VALUES ('exchanges', 1) ON CONFLICT (name) DO UPDATE SET value = value + 1"
# What retention has taken out singly is in no segment.
_LEAVE_OUT = (
    "DELETE FROM staged WHERE NOT EXISTS (SELECT 1 FROM messages_{n} AS m WHERE m.id = message_id)",
    "DELETE FROM staged_events WHERE NOT EXISTS (SELECT 1 FROM staged WHERE message_id = id / :per)",
)
_ENTER_NAMES = (
    (
        "INSERT INTO devices (device) SELECT device FROM staged_events AS s"
        " WHERE NOT EXISTS (SELECT 1 FROM devices AS d WHERE d.device = s.device) GROUP BY device ORDER BY min(id)"
    ),
    *(
        f"INSERT INTO words (word) SELECT DISTINCT {column} FROM staged_events AS s"
        f" WHERE NOT EXISTS (SELECT 1 FROM words AS w WHERE w.word = s.{column})"
        for column in ("kind", "format")
    ),
)

_NAMED = (
    "staged_events AS s LEFT JOIN devices AS d ON d.device = s.device LEFT JOIN words AS k ON k.word = s.kind"
    " LEFT JOIN words AS f ON f.word = s.format LEFT JOIN events_{n} AS o ON o.id = s.id"
)
_ROW_DIFFERS = (
    "(o.id IS NULL OR o.device_id IS NOT d.id OR o.kind_id IS NOT k.id OR o.format_id IS NOT f.id"
    " OR o.observed_at IS NOT s.observed_at OR o.from_device IS NOT s.from_device OR o.seq IS NOT s.seq"
    " OR o.readings IS NOT s.readings OR o.detail IS NOT s.detail)"
)
_OLD = (
    "staged AS s CROSS JOIN events_{n} AS o ON o.id BETWEEN s.message_id * :per AND s.message_id * :per + :per - 1"
    " WHERE NOT EXISTS (SELECT 1 FROM staged_events AS n WHERE n.id = o.id)"
)
_VERDICTS = "staged AS s LEFT JOIN rejections AS r ON r.message_id = s.message_id"
_VERDICT_DIFFERS = "(r.reason IS NOT s.reason OR r.format IS NOT s.format)"

_DIFFERING = (
    f"INSERT INTO staged_differing SELECT s.id / :per FROM {_NAMED} WHERE {_ROW_DIFFERS}"
    f" UNION SELECT s.message_id FROM {_OLD} UNION SELECT s.message_id FROM {_VERDICTS} WHERE {_VERDICT_DIFFERS}"
)
_FRESH = (
    "INSERT INTO staged_fresh SELECT s.id, d.id, k.id, f.id, s.observed_at, s.from_device, s.seq, s.readings, s.detail,"
    f" o.device_id, o.observed_at FROM {_NAMED} WHERE {_ROW_DIFFERS}"
)
_GONE = f"INSERT INTO staged_gone SELECT o.id, o.device_id, o.observed_at FROM {_OLD}"
_COUNTED = (
    "SELECT (SELECT count(*) FROM (SELECT id / :per FROM staged_fresh UNION SELECT id / :per FROM staged_gone"
    f" UNION SELECT s.message_id FROM {_VERDICTS} WHERE {_VERDICT_DIFFERS})),"
    " (SELECT count(*) FROM staged_fresh WHERE old_device_id IS NULL),"
    " (SELECT count(*) FROM staged_fresh WHERE old_device_id IS NOT NULL),"
    " (SELECT count(*) FROM staged_gone),"
    f" (SELECT count(*) FROM {_VERDICTS} WHERE r.id IS NULL AND s.reason IS NOT NULL),"
    f" (SELECT count(*) FROM {_VERDICTS} WHERE r.id IS NOT NULL AND s.reason IS NULL)"
)
_MOVED = "id <= :indexed_to AND (old_device_id IS NOT device_id OR old_observed_at IS NOT observed_at)"


def _hour(at: str) -> str:
    """The number of the hour since the epoch; SQL's division cuts towards zero."""
    return f"{at} / {HOUR_US} - ({at} % {HOUR_US} < 0)"


_EXCHANGE = (
    (
        f"INSERT OR IGNORE INTO corrections SELECT device_id, {_hour('observed_at')} FROM staged_gone UNION"
        f" SELECT device_id, {_hour('observed_at')} FROM staged_fresh UNION"
        f" SELECT old_device_id, {_hour('old_observed_at')} FROM staged_fresh WHERE old_device_id IS NOT NULL"
    ),
    (
        "DELETE FROM event_index_{n} WHERE (device_id, observed_at, event_id) IN"
        " (SELECT device_id, observed_at, id FROM staged_gone WHERE id <= :indexed_to UNION ALL"
        f" SELECT old_device_id, old_observed_at, id FROM staged_fresh WHERE old_device_id IS NOT NULL AND {_MOVED})"
    ),
    "DELETE FROM events_{n} WHERE id IN (SELECT id FROM staged_gone)",
    (
        "INSERT OR REPLACE INTO events_{n}"
        " (id, device_id, kind_id, format_id, observed_at, from_device, seq, readings, detail)"
        " SELECT id, device_id, kind_id, format_id, observed_at, from_device, seq, readings, detail"
        " FROM staged_fresh ORDER BY id"
    ),
    (
        "INSERT INTO event_index_{n} (device_id, observed_at, event_id)"
        f" SELECT device_id, observed_at, id FROM staged_fresh WHERE {_MOVED} ORDER BY device_id, observed_at, id"
    ),
    "DELETE FROM rejections WHERE message_id IN (SELECT message_id FROM staged WHERE reason IS NULL)",
    (
        "UPDATE rejections SET (format, reason) = (s.format, s.reason) FROM staged AS s WHERE"
        " s.message_id = rejections.message_id"
        " AND (s.format IS NOT rejections.format OR s.reason IS NOT rejections.reason)"
    ),
    (
        "INSERT INTO rejections (message_id, format, reason) SELECT s.message_id, s.format, s.reason"
        f" FROM {_VERDICTS} WHERE r.id IS NULL AND s.reason IS NOT NULL ORDER BY s.message_id"
    ),
)
_INDEXED_REJECTIONS = (
    "SELECT count(*) FROM staged AS s CROSS JOIN rejections AS r ON r.message_id = s.message_id"
    " WHERE s.message_id <= :indexed_to / :per"
)
_INDEXED = (
    "SELECT (SELECT count(*) FROM staged_fresh WHERE old_device_id IS NULL AND id <= :indexed_to),"
    " (SELECT count(*) FROM staged_gone WHERE id <= :indexed_to),"
    " min(f.observed_at), max(f.observed_at), min(m.received_at), max(m.received_at)"
    " FROM staged_fresh AS f CROSS JOIN messages_{n} AS m ON m.id = f.id / :per WHERE f.id <= :indexed_to"
)
