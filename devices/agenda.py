"""When each device is due next: one timer for all of them. Knows no device, and no clock but the event loop's."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable

Step = Callable[[], float | None]
"""What is done when it is due; it says when it wants to be done next. None: it has come to its end."""

AT_A_TIME = 200
"""Steps that are late before the others may run."""


class Agenda:
    """Its steps end all together when `stopping` is set."""

    # A timer for each device costs the loop 10 µs a message, most of it comparing timers in Python.

    def __init__(self, stopping: asyncio.Event) -> None:
        self._stopping = stopping
        self._loop = asyncio.get_running_loop()
        self._due: list[tuple[float, int, Step, asyncio.Future[None]]] = []
        self._number = 0
        self._timer: asyncio.TimerHandle | None = None
        self._watch: asyncio.Task[None] | None = None

    async def follow(self, step: Step, first_s: float) -> None:
        """Do a step again and again, first at a time of the loop's clock, until it ends or all is to stop."""
        ended = self._loop.create_future()
        self._number += 1  # tells apart what is due at the same time, and keeps its order
        heapq.heappush(self._due, (first_s, self._number, step, ended))
        if self._watch is None:
            self._watch = self._loop.create_task(self._until_stopped(), name="agenda")
        self._wake()
        try:
            await ended
        finally:
            ended.cancel()

    def _wake(self) -> None:
        """Have `_run` called when the first of them is due."""
        if self._timer is not None:
            if self._due and self._timer.when() <= self._due[0][0]:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(self._due[0][0], self._run) if self._due else None

    def _run(self) -> None:
        self._timer = None
        due, now_s = self._due, self._loop.time()
        for _ in range(AT_A_TIME):
            if not due or due[0][0] > now_s or self._stopping.is_set():
                break
            _, number, step, ended = due[0]
            next_s = None
            if not ended.done():
                try:
                    next_s = step()
                except Exception as error:  # noqa: BLE001  (it rises where the step is awaited)
                    ended.set_exception(error)
            if next_s is None:
                heapq.heappop(due)
                if not ended.done():
                    ended.set_result(None)
            else:
                heapq.heapreplace(due, (next_s, number, step, ended))
        self._wake()

    async def _until_stopped(self) -> None:
        await self._stopping.wait()
        due, self._due = self._due, []
        self._wake()
        for _, _, _, ended in due:
            if not ended.done():
                ended.set_result(None)
        self._watch = None
