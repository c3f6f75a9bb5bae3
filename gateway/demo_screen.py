"""The demo's live screen: rates, latest values, newest events. Reads the store like any other reader."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table

from storage.event import StoredEvent
from storage.filters import Filters
from storage.history import Reader
from storage.overview import Status

NEWEST, LATEST = 6, 12
PLAIN_LINE_EVERY_S = 5.0


class Screen:
    """Shows what the store holds: as a live screen on a terminal, else as a line now and then.

    `notes` is what is to be said before the figures.
    """

    def __init__(self, seconds: float) -> None:
        self.notes: Sequence[str] = ()
        self._seconds = seconds
        self._started = self._said_at = time.monotonic()
        self._console = Console()
        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        self._position = 0
        self._newest: deque[StoredEvent] = deque(maxlen=NEWEST)
        self._latest: dict[str, StoredEvent] = {}
        self._marks: deque[tuple[float, int]] = deque(maxlen=12)

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def show(self, reader: Reader) -> None:
        """Read what is new and draw it."""
        for page in reader.pages(Filters(after=self._position)):
            for event in page:
                self._newest.append(event)
                if event.kind != "availability":
                    self._latest[event.device] = event
            self._position = page[-1].id
        status, now = reader.status(), time.monotonic()
        self._marks.append((now, status.messages))
        if self._console.is_terminal:
            self._live.update(self._draw(status, now - self._started), refresh=True)
        elif now - self._said_at >= PLAIN_LINE_EVERY_S:
            self._said_at = now
            print(self._head(status))

    def _head(self, status: Status) -> str:
        (then, before), (now, messages) = self._marks[0], self._marks[-1]
        rate = (messages - before) / (now - then) if now > then else 0.0
        size_mb = (status.file_bytes + status.wal_bytes) / 1e6
        figures = (
            f"{rate:,.0f} messages/s · {status.messages:,} messages · {status.events:,} events · "
            f"{status.rejections:,} rejected · {len(self._latest):,} devices · store {size_mb:.1f} MB"
        )
        return " · ".join((*self.notes, figures))

    def _draw(self, status: Status, elapsed_s: float) -> Group:
        bar = ProgressBar(total=self._seconds, completed=min(elapsed_s, self._seconds))
        latest = Table(title="Latest values", expand=True)
        latest.add_column("device")
        latest.add_column("readings", overflow="ellipsis", no_wrap=True)
        for device in sorted(self._latest)[:LATEST]:
            latest.add_row(device, self._latest[device].readings)
        newest = Table(title="Newest events", expand=True)
        for column in ("position", "device", "kind", "readings"):
            newest.add_column(column, overflow="ellipsis", no_wrap=True)
        for event in reversed(self._newest):
            newest.add_row(str(event.id), event.device, event.kind, event.readings)
        return Group(Panel(Group(self._head(status), bar), title="Amber"), latest, newest)
