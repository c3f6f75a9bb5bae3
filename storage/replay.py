"""Plays a stretch of the log again, in its order and at its own pace or another. Never knows who listens."""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_right
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Literal, Protocol, TypeVar

import msgspec

from storage.event import Message, StoredEvent
from storage.history import Filters, Reader

Clock = Literal["observed", "received"]

PAGE_EVENTS = 2_000
"""What is held in memory: one page being played, and the next."""

CLOCKS_SET_SINCE_US = 978_307_200_000_000
"""2001: a device's clock that was never set starts in 1970, in 1980 (GPS) or in 2000."""

STEP_US = 60_000_000
"""When the gateway's own clock goes back by more, somebody has set it."""

T = TypeVar("T")


class Tempo(msgspec.Struct, frozen=True):
    """How fast, and by which clock.

    `speed` 1 is the pace at which it happened, 10 ten times that, None as fast as possible. Silences in the log that
    are longer than `max_gap_us` are played as if they had been so long.
    """

    speed: float | None = 1.0
    clock: Clock = "received"
    max_gap_us: int | None = None


class Played(msgspec.Struct):
    """What a replay has done so far; `log_us` is the stretch of the clock that it has gone through."""

    events: int = 0
    position: int = 0
    last_position: int = 0
    log_us: int = 0
    seconds: float = 0.0
    worst_lateness_s: float = 0.0

    @property
    def events_per_s(self) -> float:
        return self.events / self.seconds if self.seconds else 0.0

    @property
    def speed(self) -> float:
        return self.log_us / 1e6 / self.seconds if self.seconds else 0.0


class Stopwatch(Protocol):
    """Time as a replay needs it."""

    def now_s(self) -> float:
        """A clock that nobody sets."""

    async def sleep(self, seconds: float) -> None:
        """Wait about so long; it is asked again until the time has come."""


async def replay(
    path: Path, filters: Filters, tempo: Tempo, *, limit: int | None = None, played: Played | None = None
) -> AsyncIterator[list[StoredEvent]]:
    """The events of a range that are in the log now, in the order of their positions, in batches as they are due.

    At full speed a batch is a whole page. What is committed after the start is not played. Raises StoreError.
    """
