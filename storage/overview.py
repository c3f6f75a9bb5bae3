"""The store at a glance: how much it holds, from when to when. Never counts the events row by row."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec

from storage.engine import SCHEMA_VERSION, sqlite
from storage.event import EVENTS_PER_MESSAGE
from storage.segment import Segment
from storage.snapshot import OpenLog


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
