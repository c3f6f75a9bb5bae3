"""Where a replay that has a name stands, so that it can be taken up again. Never moves past what was not confirmed."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec
from msgspec.structs import asdict, replace

from storage.cursors import Cursor, CursorError, Cursors, lock
from storage.filters import Filters
from storage.history import Reader
from storage.replay import end_of
from storage.snapshot import OpenLog

CONFIRM_EVERY_S = 1.0
CONFIRM_EVERY_EVENTS = 100_000


class Asked(msgspec.Struct, frozen=True):
    """What was asked for by name: the range, and the words in which its times were given, for times may be relative."""

    filters: Filters
    since: str | None = None
    until: str | None = None
    limit: int | None = None


class Bookmark:
    """The cursor of a replay; one process at a time has it. Raises StoreError, CursorError where it is another's."""

    def __init__(self, path: Path, name: str, asked: Asked, *, restart: bool = False) -> None:
        self.name = name
        with contextlib.ExitStack() as stack:
            stack.callback(lock(path, name).release)
            self._cursors = stack.enter_context(Cursors(path))
            self._take(path, asked, restart=restart)
            self.begun_at = self.position
            self._open = stack.pop_all()
        self._confirmed_s = time.monotonic()
        self._events = 0

    def _take(self, path: Path, asked: Asked, *, restart: bool) -> None:
        cursor = self._cursors.get(self.name)
        if cursor is not None and cursor.kind != "replay":
            raise CursorError(f"{self.name} is the cursor of a {cursor.kind}: take another name")
        if cursor is not None and restart:
            self._cursors.remove(self.name)
            cursor = None
        if cursor is None:
            asked = ended(path, asked)
            self._cursors.create(self.name, "replay", asked.filters.after, msgspec.json.encode(asked).decode())
            self.resumed = False
            self.position = asked.filters.after
        else:
            known = asked_by(cursor)
            if differing := differences(known, asked):
                raise CursorError(
                    f"replay {self.name} was begun with another {', '.join(differing)}: leave that as it was, or begin"
                    " anew with --restart"
                )
            asked, self.resumed, self.position = known, True, cursor.position
        now, last = end_of_log(path), asked.filters.until_position
        self.end = max(now if last is None else min(now, last), self.position)
        """The position up to which everything is played when it has come to its end."""
        self.filters = replace(asked.filters, after=self.position, until_position=self.end)
        """What is left to play."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._open.close()

    def due(self, events: int) -> bool:
        """Whether it is time to confirm, so many events having been played in all."""
        return events - self._events >= CONFIRM_EVERY_EVENTS or time.monotonic() - self._confirmed_s >= CONFIRM_EVERY_S

    def confirm(self, position: int, events: int) -> None:
        """All up to here has arrived; durably, when it returns."""
        if position != self.position:
            self._cursors.move(self.name, position, expected=self.position)
            self.position = position
        self._confirmed_s = time.monotonic()
        self._events = events


def asked_by(cursor: Cursor) -> Asked:
    """What the cursor of a replay asks for. Raises CursorError."""
    try:
        return msgspec.json.decode(cursor.filters or "{}", type=Asked)
    except msgspec.DecodeError as error:
        raise CursorError(
            f"what replay {cursor.name} asks for cannot be read ({error}): begin anew with --restart"
        ) from error


def ended(path: Path, asked: Asked) -> Asked:
    """With the limit as a position, so that it is the same range whenever it is taken up again."""
    if asked.limit is None:
        return asked
    log = OpenLog(path)
    try:
        return replace(asked, filters=replace(asked.filters, until_position=end_of(log, asked.filters, asked.limit)))
    finally:
        log.close()


def end_of_log(path: Path) -> int:
    with Reader(path) as reader:
        return reader.position()


def differences(known: Asked, asked: Asked) -> list[str]:
    """What of a range is asked for otherwise than when it was begun."""
    names = {
        "devices": "--device",
        "topics": "--topic",
        "kinds": "--kind",
        "readings": "--reading",
        "clock": "--clock",
        "after": "--after",
    }
    before, now = asdict(known.filters), asdict(asked.filters)
    differing = [option for name, option in names.items() if before[name] != now[name]]
    options = {"since": "--since", "until": "--until", "limit": "--limit"}
    return differing + [option for name, option in options.items() if getattr(known, name) != getattr(asked, name)]
