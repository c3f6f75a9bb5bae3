"""Cursors: named, durable positions in the log. Written beside a running gateway; never knows what reads from them."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import msgspec

from storage.conditions import Row
from storage.engine import Lock, beside, open_reader, open_writer_beside
from storage.errors import StoreBusy, StoreError
from storage.snapshot import OpenLog

CursorKind = Literal["consumer", "replay", "summary"]
"""Whose it is: a consumer's, that of a replay that can be taken up again, or of what Amber sums up for itself."""

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

RESERVED = "amber."
"""Names that begin so are those of Amber's own cursors."""

LOOKS = 3
LOOK_PAUSE_S = 0.02


class CursorError(StoreError):
    """A cursor that is not there, is another's, or has a name that cannot be."""


class CursorBusy(StoreBusy):
    """Another process reads by the cursor."""


class Cursor(msgspec.Struct, frozen=True):
    """Everything up to `position` is confirmed; times are microseconds. `filters` is what it asks for, as JSON."""

    name: str
    kind: CursorKind
    position: int
    moved_at: int
    created_at: int
    filters: str | None = None


def cursors(log: OpenLog) -> list[Cursor]:
    """All cursors, by name. Within a snapshot of the log they fit it."""
    return [Cursor(*row) for row in log.rows(f"SELECT {_COLUMNS} FROM cursors ORDER BY name")]


def check_name(name: str) -> str:
    """Raises CursorError for what cannot name a cursor, and so a file, and for names that are Amber's own."""
    if not NAME.fullmatch(name):
        raise CursorError(f"{name!r} is no name for a cursor: take letters, digits, dots, - and _, at most 64")
    if name.startswith(RESERVED):
        raise CursorError(f"{name} is Amber's own: take a name that does not begin with {RESERVED}")
    return name


class Cursors:
    """The cursors of a store, open for writing beside its gateway; for one thread at a time. Raises StoreError."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._connection = open_writer_beside(path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._connection.close()

    def get(self, name: str) -> Cursor | None:
        with self._transaction():
            row = self._connection.execute(f"SELECT {_COLUMNS} FROM cursors WHERE name = ?", (name,)).fetchone()
        return row and Cursor(*row)

    def create(self, name: str, kind: CursorKind, position: int, filters: str | None = None) -> Cursor:
        """A new one. Raises CursorError where there is one of the name."""
        now = time.time_ns() // 1000
        with self._transaction():
            if self._row(name) is not None:
                raise CursorError(f"there is a cursor {name} already")
            self._connection.execute(
                "INSERT INTO cursors (name, kind, position, moved_at, created_at, filters) VALUES (?, ?, ?, ?, ?, ?)",
                (check_name(name), kind, position, now, now, filters),
            )
        return Cursor(name, kind, position, now, now, filters)

    def move(self, name: str, position: int, *, expected: int | None = None) -> None:
        """Confirm everything up to a position, durably when it returns; or set it back.

        Raises CursorError where the cursor is gone, or is not where it was `expected`: another has moved it.
        """
        with self._transaction():
            row = self._row(name)
            if row is None:
                raise CursorError(f"there is no cursor {name}: it has been removed")
            if expected not in (None, row[0]):
                raise CursorError(f"cursor {name} was moved to {row[0]} by another: start again to go on from there")
            self._connection.execute(
                "UPDATE cursors SET position = ?, moved_at = ? WHERE name = ?", (position, time.time_ns() // 1000, name)
            )

    def ask_for(self, name: str, filters: str | None) -> None:
        """Remember other filters from now on."""
        with self._transaction():
            self._connection.execute("UPDATE cursors SET filters = ? WHERE name = ?", (filters, name))

    def remove(self, name: str) -> bool:
        """Whether there was one."""
        with self._transaction():
            removed: int = self._connection.execute("DELETE FROM cursors WHERE name = ?", (name,)).rowcount
        return removed > 0

    def _row(self, name: str) -> Row | None:
        row: Row | None = self._connection.execute("SELECT position FROM cursors WHERE name = ?", (name,)).fetchone()
        return row

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        with beside(self._connection, self.path):
            yield


def lock(path: Path, name: str) -> Lock:
    """One process at a time reads by a cursor. Raises CursorBusy, which names the other."""
    open_reader(path).close()  # no lock beside a store that is not there
    check_name(name)
    for _ in range(LOOKS):  # `reader_of` holds it for a moment
        try:
            return Lock(path, f"reader of cursor {name}", _suffix(name))
        except StoreBusy as error:
            busy = error
        time.sleep(LOOK_PAUSE_S)
    raise CursorBusy(str(busy)) from busy


def reader_of(path: Path, name: str) -> str | None:
    """The process that reads by the cursor now, as it calls itself; None where none does."""
    try:
        file = os.open(path.with_name(path.name + _suffix(name)), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:  # it has never been read by
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return os.pread(file, 32, 0).decode(errors="replace").strip() or "unknown"
    finally:
        os.close(file)
    return None


def _suffix(name: str) -> str:
    return f".{name}.cursor"


_COLUMNS = "name, kind, position, moved_at, created_at, filters"
