"""The store at a glance: its size, and every device with its newest event. Never counts the events row by row."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from storage.conditions import Row, as_json
from storage.engine import SCHEMA_VERSION, sqlite
from storage.event import EVENTS_PER_MESSAGE
from storage.segment import Segment
from storage.snapshot import OpenLog

DEVICES_A_READ = 1_000


class Status(msgspec.Struct, frozen=True):
    """What is in a store; times are of the first and the last message that it still has."""

    path: str
    messages: int
    events: int
    rejections: int
    devices: int
    series: int
    topics: int
    segments: int
    position: int
    first_received_at: int | None
    last_received_at: int | None
    file_bytes: int
    wal_bytes: int
    schema_version: int
    sqlite_version: str


class StoredDevice(msgspec.Struct, frozen=True):
    """A device and its newest event by position; None where retention has dropped all it had."""

    device: str
    last_position: int | None = None
    last_kind: str | None = None
    last_observed_at: int | None = None
    last_received_at: int | None = None


def status(log: OpenLog) -> Status:
    with log.snapshot():
        first, last = log.segments[0], log.segments[-1]
        last_message_id = _number(log, f"SELECT max(id) FROM messages_{last.id}") or last.first_message_id - 1
        return Status(
            path=str(log.path),
            # Ids of messages are dense; what has gone out of a segment singly is counted.
            messages=last_message_id - first.first_message_id + 1 - sum(segment.removed for segment in log.segments),
            events=sum(segment.events for segment in log.segments)
            + _count(log, f"events_{last.id} WHERE id > {last.indexed_to}"),
            rejections=sum(segment.rejections for segment in log.segments)
            + _count(log, f"rejections WHERE message_id > {last.indexed_to // EVENTS_PER_MESSAGE}"),
            devices=_count(log, "devices"),
            series=_count(log, "series"),
            topics=_count(log, "topics"),
            segments=len(log.segments),
            position=log.position,
            first_received_at=_received_at(log, log.segments, "ASC"),
            last_received_at=_received_at(log, reversed(log.segments), "DESC"),
            file_bytes=_size(log.path),
            wal_bytes=_size(log.path.with_name(log.path.name + "-wal")),
            schema_version=SCHEMA_VERSION,
            sqlite_version=sqlite.sqlite_version,
        )


def devices(log: OpenLog) -> Iterator[StoredDevice]:
    """Every device with its newest event, by name, a thousand to a read."""
    with log.snapshot():
        unindexed = _newest_unindexed(log)
    comparison, name = ">=", ""
    while True:
        with log.snapshot():
            block = log.rows(
                f"SELECT id, device FROM devices WHERE device {comparison} :name ORDER BY device LIMIT :limit",
                {"name": name, "limit": DEVICES_A_READ},
            )
            details = _newest_events(log, {id: unindexed.get(id, 0) for id, _ in block})
        if not block:
            return
        for id, device in block:
            yield StoredDevice(device, *details.get(id, ()))
        comparison, name = ">", block[-1][1]


def _newest_unindexed(log: OpenLog) -> dict[int, int]:
    """Device id → id of its newest event, of those that no index knows yet."""
    found: dict[int, int] = {}
    for segment in log.segments:
        if segment.sealed_at is None:
            sql = f"SELECT device_id, max(id) FROM events_{segment.id} WHERE id > :indexed_to GROUP BY device_id"
            found.update(log.rows(sql, {"indexed_to": segment.indexed_to}))
    return found


def _newest_events(log: OpenLog, newest: dict[int, int]) -> dict[int, Row]:
    """Device id → position, kind and times of the newest event. `newest` says what is known, 0 where nothing is."""
    details: dict[int, Row] = {}
    for segment in reversed(log.segments):
        missing = [device_id for device_id, event_id in newest.items() if not event_id]
        newest.update(log.rows(_NEWEST_INDEXED.format(n=segment.id), {"device_ids": as_json(missing)}))
        here = [event_id for event_id in newest.values() if event_id >= segment.first_event_id]
        for device_id, *detail in log.rows(_DETAILS.format(n=segment.id), {"ids": as_json(here)}):
            details[device_id] = tuple(detail)
        if len(details) == len(newest):
            break
    return details


_NEWEST_INDEXED = (
    "SELECT device.value, ifnull((SELECT max(event_id) FROM event_index_{n} WHERE device_id = device.value), 0)"
    " FROM json_each(:device_ids) AS device"
)
_DETAILS = (
    "SELECT e.device_id, e.id, (SELECT word FROM words WHERE id = e.kind_id), e.observed_at, m.received_at"
    f" FROM events_{{n}} AS e CROSS JOIN messages_{{n}} AS m ON m.id = e.id / {EVENTS_PER_MESSAGE}"
    " WHERE e.id IN (SELECT value FROM json_each(:ids))"
)


def _received_at(log: OpenLog, segments: Iterable[Segment], order: str) -> int | None:
    for segment in segments:
        found = _number(log, f"SELECT received_at FROM messages_{segment.id} ORDER BY id {order} LIMIT 1")
        if found is not None:
            return found
    return None


def _count(log: OpenLog, rows: str) -> int:
    return _number(log, f"SELECT count(*) FROM {rows}") or 0


def _number(log: OpenLog, sql: str) -> int | None:
    rows = log.rows(sql)
    return rows[0][0] if rows else None


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0
