"""Looks whether a store is sound: SQLite's own check, then what Amber knows of its tables. Never mends anything.

A gateway may be writing: each look is a short snapshot of its own, and compares only what that snapshot shows.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import msgspec

from storage.engine import SCHEMA_VERSION, sqlite
from storage.errors import StoreDamaged
from storage.event import EVENTS_PER_MESSAGE, Value
from storage.names import REMEMBERED_NAMES
from storage.segment import Segment
from storage.sequences import decode_ranges
from storage.snapshot import OpenLog
from storage.summaries import SeriesIds

Result = Literal["ok", "warning", "broken"]

PIECE_ROWS = 10_000
"""Entries compared in one snapshot: some 30 ms."""

LARGE_WAL_BYTES = 64 << 20

SHOWN_FAULTS = 3

RESTORE = "bring back a backup; what the store still shows can be read and exported"
SWEEP = "a running gateway clears it away, and so does `amber prune`"
REINDEX = "`amber backup` makes a copy with a new index: put that in its place"


class Finding(msgspec.Struct, frozen=True):
    """What a check has found, and what there is to do about it."""

    check: str
    result: Result
    found: str
    remedy: str = ""


def check(path: Path, *, quick: bool = False) -> Iterator[Finding]:
    """All findings, in order. `quick` takes counts for what each entry would tell. Raises StoreError."""
    log = OpenLog(path)
    try:
        running = is_held(path)
        checks: list[tuple[str, Callable[[], Iterator[Finding]]]] = [
            ("file", lambda: _file(log)),
            ("SQLite", _sqlite),
            ("gateway", lambda: _gateway(path, running=running)),
            ("write-ahead log", lambda: _wal(path, running=running)),
            ("pages", lambda: _pages(log, quick=quick, running=running)),
            ("tables", lambda: _tables(log)),
            ("segments", lambda: _segments(log, quick=quick)),
            ("rejections", lambda: _rejections(log)),
            ("names", lambda: _names(log)),
            ("cursors", lambda: _cursors(log)),
            ("identity", lambda: _identity(log)),
            ("pending", lambda: _pending(log)),
        ]
        for name, findings in checks:
            yield from _readable(name, findings)
    finally:
        log.close()


def is_held(path: Path, suffix: str = ".lock") -> bool:
    """Whether a gateway holds the store's lock. Asked by trying it, for the fraction of a moment."""
    try:
        file = os.open(path.with_name(path.name + suffix), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(file)
    return False


def _readable(name: str, findings: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """The findings; what cannot even be read is one."""
    try:
        yield from findings()
    except StoreDamaged as error:
        yield Finding(name, "broken", f"cannot be read: {error.__cause__ or error}", RESTORE)
    except sqlite.OperationalError as error:  # no such table, no such column
        yield Finding(name, "broken", f"cannot be read: {error}", RESTORE)


def _file(log: OpenLog) -> Iterator[Finding]:
    with log.snapshot():
        page_bytes, pages, free = (
            _number(log, f"PRAGMA {name}") for name in ("page_size", "page_count", "freelist_count")
        )
    yield Finding(
        "file",
        "ok",
        f"schema {SCHEMA_VERSION}, {_megabytes(pages * page_bytes)} in pages of {page_bytes:,} bytes, "
        f"{_megabytes(free * page_bytes)} of it free",
    )


def _sqlite() -> Iterator[Finding]:
    version = sqlite.sqlite_version_info
    if (3, 7, 0) <= version <= (3, 51, 2):
        yield Finding(
            "SQLite",
            "warning",
            f"{sqlite.sqlite_version} can damage a store when it starts its write-ahead log over",
            "install pysqlite3, or a Python with SQLite 3.51.3 or later",
        )
    else:
        yield Finding("SQLite", "ok", sqlite.sqlite_version)


def _gateway(path: Path, *, running: bool) -> Iterator[Finding]:
    keeper = ", and keeps summaries" if is_held(path, ".keeper") else ""
    yield Finding("gateway", "ok", f"one is running{keeper}" if running else "none is running")


def _wal(path: Path, *, running: bool) -> Iterator[Finding]:
    try:
        size = path.with_name(path.name + "-wal").stat().st_size
    except FileNotFoundError:
        size = 0
    if size > LARGE_WAL_BYTES:
        remedy = "end what reads the store for long" if running else "`amber run` takes it into the store"
        yield Finding("write-ahead log", "warning", _megabytes(size), remedy)
    else:
        yield Finding("write-ahead log", "ok", _megabytes(size) if size else "empty")


def _pages(log: OpenLog, *, quick: bool, running: bool) -> Iterator[Finding]:
    """SQLite's check: of the whole file at once, or table by table while a gateway must not wait for a long read."""
    pragma = "quick_check" if quick else "integrity_check"
    if running:
        tables = [name for (name,) in log.rows("SELECT name FROM sqlite_master WHERE type = 'table'")]
        sqls = ["PRAGMA {}('{}')".format(pragma, name.replace("'", "''")) for name in tables]
    else:
        sqls = [f"PRAGMA {pragma}"]
    faults: list[str] = []
    for sql in sqls:
        try:
            faults += [text for row in log.rows(sql) for text in str(row[0]).splitlines() if text != "ok"]
        except sqlite.OperationalError as error:
            if "no such table" not in str(error):  # retention was faster
                raise
    if faults:
        yield Finding("pages", "broken", _listed(faults), RESTORE)
    else:
        yield Finding("pages", "ok", f"{pragma}{', each table by itself' if running else ''}: no fault")


def _tables(log: OpenLog) -> Iterator[Finding]:
    with log.snapshot():
        there = {name for (name,) in log.rows(_SEGMENT_TABLES)}
        wanted = {f"{kind}_{segment.id}" for segment in log.segments for kind in _KINDS}
        if log.segments:  # retention leaves it where the gateway looks for it
            there.discard(kept := f"messages_{log.segments[-1].id - 1}")
            wanted.discard(kept)
    if missing := sorted(wanted - there):
        yield Finding("tables", "broken", f"missing: {_listed(missing)}", RESTORE)
    if orphans := sorted(there - wanted):
        yield Finding("tables", "warning", f"of dropped segments: {_listed(orphans)}", SWEEP)
    if there == wanted:
        yield Finding("tables", "ok", f"all of {len(log.segments):,} segments are there")


def _segments(log: OpenLog, *, quick: bool) -> Iterator[Finding]:
    with log.snapshot():
        ids = [segment.id for segment in log.segments]
    sound = events = 0
    series = _KnownSeries(log)
    for id in ids:
        name = f"segment {id}"
        faults: list[Finding] = []
        for finding in _readable(name, lambda id=id: _segment(log, id, series, quick=quick)):  # type: ignore[misc]
            if finding.result == "ok":
                sound, events = sound + 1, events + int(finding.found)
            else:
                faults.append(finding)
        yield from faults
    what = "counts" if quick else "counts and each entry"
    yield Finding("segments", "ok", f"{sound:,} sound by {what}: {events:,} events")


def _segment(log: OpenLog, id: int, series: _KnownSeries, *, quick: bool) -> Iterator[Finding]:
    """What is wrong with a segment; else its number of events. Nothing where retention has just dropped it."""
    with log.snapshot():
        segment = _present(log, id)
        if segment is None:
            return
        events, faults = _counted(log, segment)
    if not quick and not faults:
        faults = _entries(log, id, series)
    for fault, remedy in faults:
        yield Finding(f"segment {id}", "broken", fault, remedy)
    if not faults:
        yield Finding(f"segment {id}", "ok", str(events))


Faults = list[tuple[str, str]]
"""What is wrong, and what to do."""


def _present(log: OpenLog, id: int) -> Segment | None:
    """The segment as it is now."""
    return next((segment for segment in log.segments if segment.id == id), None)


def _last_message_id(log: OpenLog, segment: Segment) -> int:
    """The id of the last message of a segment. Runs inside a snapshot."""
    if segment.sealed_at is not None:
        return segment.indexed_to // EVENTS_PER_MESSAGE
    return _number(log, f"SELECT ifnull(max(id), {segment.first_message_id - 1}) FROM messages_{segment.id}")


def _counted(log: OpenLog, segment: Segment) -> tuple[int, Faults]:
    """How many events there are, and what the counts say. Runs inside a snapshot."""
    n, faults = segment.id, Faults()
    indexed_message = segment.indexed_to // EVENTS_PER_MESSAGE
    events, first_event, last_event = log.rows(f"SELECT count(*), min(id), max(id) FROM events_{n}")[0]
    messages, first, last = log.rows(f"SELECT count(*), min(id), max(id) FROM messages_{n}")[0]
    behind = _number(log, f"SELECT count(*) FROM events_{n} WHERE id > {segment.indexed_to}")
    entries = _number(log, f"SELECT count(*) FROM event_index_{n}")
    end = _last_message_id(log, segment)
    rejections = _number(log, _REJECTED.format(first=segment.first_message_id, last=indexed_message))
    lost = _number(log, _UNKNOWN_MESSAGE.format(n=n, first=segment.first_message_id, last=end))
    missing = end - segment.first_message_id + 1 - segment.removed - messages
    if events - behind != segment.events:
        faults.append((f"{events - behind:,} events where the catalog counts {segment.events:,}", RESTORE))
    if entries != events - behind:
        faults.append((f"{entries:,} entries in the index of {events - behind:,} events", REINDEX))
    if missing:
        what = f"{missing:,} messages are missing" if missing > 0 else f"{-missing:,} messages too many"
        faults.append((what, RESTORE))
    if (first or segment.first_message_id) < segment.first_message_id or (last or 0) > end:
        faults.append((f"messages {first} to {last} outside of {segment.first_message_id} to {end}", RESTORE))
    last_place = (end + 1) * EVENTS_PER_MESSAGE - 1
    if (first_event or segment.first_event_id) < segment.first_event_id or (last_event or 0) > last_place:
        faults.append(
            (f"events {first_event} to {last_event} outside of {segment.first_event_id} to {last_place}", RESTORE)
        )
    if rejections != segment.rejections:
        faults.append((f"{rejections:,} rejections where the catalog counts {segment.rejections:,}", RESTORE))
    if lost:
        faults.append((f"{lost:,} rejections of messages that are not there", RESTORE))
    return events, faults


def _entries(log: OpenLog, id: int, series: _KnownSeries) -> Faults:
    """What is wrong with single rows of a segment."""
    topics = 0
    for _, low, high in _pieces(log, "messages", id):
        topics += _number(log, _UNKNOWN_TOPIC.format(n=id, low=low, high=high))
    found = [0] * len(_ENTRY_FAULTS)
    unknown = 0
    for segment, low, high in _pieces(log, "events", id):
        bounds = {name: getattr(segment, name) for name in _BOUNDS}
        row = log.rows(_ENTRIES.format(n=id, low=low, high=high), {"indexed_to": segment.indexed_to, **bounds})[0]
        found = [old + (new or 0) for old, new in zip(found, row, strict=True)]
        rows = log.rows(f"SELECT device_id, readings FROM events_{id} WHERE id > {low} AND id <= {high}")
        unknown += sum(not series.knows(device_id, readings) for device_id, readings in rows)
    faults = [
        (f"{number:,} {fault}", remedy) for number, (fault, remedy) in zip(found, _ENTRY_FAULTS, strict=True) if number
    ]
    if topics:
        faults.append((f"{topics:,} messages of topics that are not there", RESTORE))
    if unknown:
        faults.append((f"{unknown:,} events with readings of no series, or that are no JSON", RESTORE))
    return faults


def _pieces(log: OpenLog, kind: str, id: int) -> Iterator[tuple[Segment, int, int]]:
    """The segment as it is, and a range of ids above the first and up to the second; each inside a snapshot."""
    low = -(1 << 63)
    while True:
        with log.snapshot():
            segment = _present(log, id)
            if segment is None:
                return
            high = log.rows(
                f"SELECT max(id) FROM (SELECT id FROM {kind}_{id} WHERE id > {low} ORDER BY id LIMIT {PIECE_ROWS})"
            )[0][0]
            if high is None:
                return
            yield segment, low, high
        low = high


class _KnownSeries:
    """Whether the readings of events have their series; remembers a bounded number of shapes."""

    def __init__(self, log: OpenLog) -> None:
        self._ids = SeriesIds(log)
        self._seen: set[tuple[int, tuple[str, ...]]] = set()

    def knows(self, device_id: int, readings: str) -> bool:
        try:
            shape = device_id, tuple(_decode(readings))
        except (msgspec.DecodeError, TypeError):
            return False
        if shape in self._seen:
            return True
        if not self._ids[device_id].keys() >= set(shape[1]):
            self._ids.pop(device_id)  # some may be newer than what was looked up
            if not self._ids[device_id].keys() >= set(shape[1]):
                return False
        if len(self._seen) >= REMEMBERED_NAMES:
            self._seen.clear()
        self._seen.add(shape)
        return True


def _rejections(log: OpenLog) -> Iterator[Finding]:
    with log.snapshot():
        count = _number(log, "SELECT count(*) FROM rejections")
        spans = [(segment.first_message_id, _last_message_id(log, segment)) for segment in log.segments]
        of_segments = sum(_number(log, _REJECTED.format(first=first, last=last)) for first, last in spans)
        left = {name for (name,) in log.rows(_SEGMENT_TABLES)} - {f"messages_{segment.id}" for segment in log.segments}
    found = f"{count - of_segments:,} of messages in no segment"
    if count != of_segments and any(name.startswith("messages_") for name in left):
        yield Finding("rejections", "warning", found, SWEEP)
    elif count != of_segments:
        yield Finding("rejections", "broken", found, RESTORE)
    else:
        yield Finding("rejections", "ok", f"{count:,}, each in its segment")


def _names(log: OpenLog) -> Iterator[Finding]:
    faults = []
    with log.snapshot():
        for sql, what in _NAMELESS:
            if number := _number(log, sql):
                faults.append(f"{number:,} {what}")
        devices, series = (_number(log, f"SELECT count(*) FROM {table}") for table in ("devices", "series"))
    for fault in faults:
        yield Finding("names", "broken", fault, RESTORE)
    if not faults:
        yield Finding("names", "ok", f"{devices:,} devices, {series:,} series")


def _cursors(log: OpenLog) -> Iterator[Finding]:
    with log.snapshot():
        position = log.position
        end = _end(log)
        cursors = log.rows("SELECT name, kind, position FROM cursors ORDER BY name")
    beyond = [name for name, _, at in cursors if at > end]
    if beyond:
        remedy = "set them back: what comes next would be left out"
        yield Finding("cursors", "broken", f"beyond the end of the log: {_listed(beyond)}", remedy)
    lags = [f"{name} {_behind(position, at)}" for name, kind, at in cursors if kind == "summary" and at <= end]
    if not beyond:
        yield Finding("cursors", "ok", _listed([f"{len(cursors):,} in the log", *lags], len(lags) + 1))


def _identity(log: OpenLog) -> Iterator[Finding]:
    """The numbers seen of each start of a device, and what was left out of messages or marked."""
    low: tuple[int, str] = (-(1 << 63), "")
    starts = unordered = 0
    while True:
        with log.snapshot():
            rows = log.rows(_SEQUENCES, {"device_id": low[0], "boot": low[1], "limit": PIECE_ROWS})
        if not rows:
            break
        starts, low = starts + len(rows), (rows[-1][0], rows[-1][1])
        unordered += sum(not _in_order(ranges) for _, _, ranges in rows)
    faults = [f"{unordered:,} starts of devices whose numbers make no sense"] if unordered else []
    with log.snapshot():
        faults += [f"{number:,} {what}" for sql, what in _UNIDENTIFIED if (number := _number(log, sql))]
        spans = [(segment.first_message_id, _last_message_id(log, segment)) for segment in log.segments]
        copies = _number(log, "SELECT count(*) FROM copies")
        there = sum(_number(log, _COPIES.format(first=first, last=last)) for first, last in spans)
    if copies != there:
        faults.append(f"{copies - there:,} copies in messages of no segment")
    for fault in faults:
        yield Finding("identity", "broken", fault, RESTORE)
    if not faults:
        yield Finding("identity", "ok", f"{starts:,} starts of devices number their events")


def _in_order(ranges: str) -> bool:
    """Whether ranges are such: each from its first number to its last, with a number between it and the next."""
    try:
        pairs = decode_ranges(ranges)
    except msgspec.DecodeError:
        return False
    ends = [-2, *(last for _, last in pairs)]
    return all(end + 1 < first <= last for end, (first, last) in zip(ends, pairs, strict=False))


def _pending(log: OpenLog) -> Iterator[Finding]:
    with log.snapshot():
        rereads, corrections = (_number(log, f"SELECT count(*) FROM {table}") for table in ("rereads", "corrections"))
    yield Finding("pending", "ok", f"{rereads:,} rereads, {corrections:,} hours of devices to be summed up anew")


def _behind(position: int, at: int) -> str:
    messages = position // EVENTS_PER_MESSAGE - at // EVENTS_PER_MESSAGE
    return f"{messages:,} messages behind" if messages > 0 else "up to date"


def _end(log: OpenLog) -> int:
    """The last place that an event can have had: the newest may have been exchanged for none. Inside a snapshot."""
    if not log.segments:
        return 0
    return (_last_message_id(log, log.segments[-1]) + 1) * EVENTS_PER_MESSAGE - 1


def _number(log: OpenLog, sql: str) -> int:
    number: int = log.rows(sql)[0][0]
    return number


def _listed(texts: list[str], shown: int = SHOWN_FAULTS) -> str:
    more = f" and {len(texts) - shown:,} more" if len(texts) > shown else ""
    return "; ".join(texts[:shown]) + more


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"


_decode = msgspec.json.Decoder(dict[str, Value]).decode

_KINDS = "messages", "events", "event_index"
_BOUNDS = "observed_from", "observed_to", "received_from", "received_to"

_SEGMENT_TABLES = (
    "SELECT name FROM sqlite_master WHERE type = 'table' AND (name GLOB 'messages_[0-9]*' OR name GLOB 'events_[0-9]*'"
    " OR name GLOB 'event_index_[0-9]*')"
)
_REJECTED = "SELECT count(*) FROM rejections WHERE message_id BETWEEN {first} AND {last}"
_UNKNOWN_MESSAGE = (
    "SELECT count(*) FROM rejections AS r WHERE message_id BETWEEN {first} AND {last}"
    " AND NOT EXISTS (SELECT 1 FROM messages_{n} AS m WHERE m.id = r.message_id)"
)
_UNKNOWN_TOPIC = (
    "SELECT count(*) - count(t.id) FROM messages_{n} AS m LEFT JOIN topics AS t ON t.id = m.topic_id"
    " WHERE m.id > {low} AND m.id <= {high}"
)
_ENTRIES = (
    "SELECT sum(m.id IS NULL), sum(d.id IS NULL), sum(k.id IS NULL OR f.id IS NULL),"
    " sum(e.id <= :indexed_to AND i.event_id IS NULL),"
    " sum(e.id <= :indexed_to AND NOT (e.observed_at BETWEEN :observed_from AND :observed_to"
    " AND m.received_at BETWEEN :received_from AND :received_to) IS TRUE)"
    f" FROM events_{{n}} AS e LEFT JOIN messages_{{n}} AS m ON m.id = e.id / {EVENTS_PER_MESSAGE}"
    " LEFT JOIN devices AS d ON d.id = e.device_id"
    " LEFT JOIN words AS k ON k.id = e.kind_id LEFT JOIN words AS f ON f.id = e.format_id"
    " LEFT JOIN event_index_{n} AS i"
    " ON i.device_id = e.device_id AND i.observed_at = e.observed_at AND i.event_id = e.id"
    " WHERE e.id > {low} AND e.id <= {high}"
)
_ENTRY_FAULTS = (
    ("events of messages that are not there", RESTORE),
    ("events of devices that are not there", RESTORE),
    ("events of kinds or formats that are not there", RESTORE),
    ("events that the index does not know", REINDEX),
    ("events outside of the times that the catalog gives", RESTORE),
)
_SEQUENCES = (
    "SELECT device_id, boot, ranges FROM sequences WHERE (device_id, boot) > (:device_id, :boot)"
    " ORDER BY device_id, boot LIMIT :limit"
)
_COPIES = "SELECT count(*) FROM copies WHERE message_id BETWEEN {first} AND {last}"
_UNIDENTIFIED = (
    ("SELECT count(*) FROM sequences WHERE device_id NOT IN (SELECT id FROM devices)", "starts of devices not there"),
    ("SELECT count(*) FROM copy_counts WHERE device_id NOT IN (SELECT id FROM devices)", "counts of devices not there"),
)
_NAMELESS = (
    ("SELECT count(*) FROM series WHERE device_id NOT IN (SELECT id FROM devices)", "series of devices not there"),
    ("SELECT count(*) FROM latest WHERE series_id NOT IN (SELECT id FROM series)", "latest values of series not there"),
    ("SELECT count(*) FROM presence WHERE device_id NOT IN (SELECT id FROM devices)", "presences of devices not there"),
)
