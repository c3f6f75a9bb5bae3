"""Which files the log has taken in, and how far. Never reads a file.

An import is a session of its own, named for the content of the file; its messages have the number of their record in
the packet id. Another session, begun when the file is done, says that it is.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from storage.snapshot import OpenLog


class Earlier(msgspec.Struct, frozen=True):
    """The last import of a file: its session, and the last record that is committed; 0 where none is."""

    session_id: int
    file: str
    at: int
    complete: bool
    record: int


def begins(digest: str) -> str:
    """The name of the session that an import is."""
    return f"import:{digest}"


def ends(digest: str) -> str:
    """The name of the session that says that an import is complete."""
    return f"imported:{digest}"


def earlier(store: Path, digest: str) -> Earlier | None:
    """What the log knows of a file; None where it knows nothing. Raises StoreError."""
    log = OpenLog(store)
    try:
        with log.snapshot():
            names = {"begins": begins(digest), "ends": ends(digest)}
            rows = log.rows(_SESSIONS, names)
            if not rows:
                return None
            session_id, client_id, file, started_at = rows[0]
            if client_id == names["ends"]:
                return Earlier(session_id, file, started_at, complete=True, record=0)
            return Earlier(session_id, file, started_at, complete=False, record=_last_record(log, *rows[0][::3]))
    finally:
        log.close()


def _last_record(log: OpenLog, session_id: int, started_at: int) -> int:
    for segment in reversed(log.segments):
        if segment.sealed_at is not None and segment.sealed_at < started_at:
            break
        found = log.rows(_LAST.format(n=segment.id), {"session": session_id})
        if found:
            record: int = found[0][0]
            return record
    return 0


_SESSIONS = (
    "SELECT id, client_id, broker, started_at FROM sessions WHERE client_id IN (:begins, :ends)"
    " ORDER BY id DESC LIMIT 1"
)
_LAST = "SELECT packet_id FROM messages_{n} WHERE session_id = :session ORDER BY id DESC LIMIT 1"
