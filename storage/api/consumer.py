"""A consumer for Python programs: events by a durable cursor. Never confirms what it was not told to."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from pathlib import Path
from types import TracebackType
from typing import Self

from storage import consumers
from storage.api.event import Event
from storage.api.words import count
from storage.filters import Filters


class Consumer:
    """Reads events by a name, each at least once; for one thread at a time.

    What was read is done when it is confirmed. What was not comes again, however the consumer ended.
    """

    def __init__(
        self, path: Path, name: str, filters: Filters | None, start: consumers.Start, *, batch_events: int
    ) -> None:
        self._consumer = consumers.Consumer(
            path, name, filters, start=start, batch_events=count(batch_events, "batch_events", least=1)
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the name."""
        self._consumer.close()

    def __iter__(self) -> Generator[list[Event], None, None]:
        """Batches as they come, without end, or until `stop`."""
        for batch in self._consumer:
            yield list(map(Event, batch))

    async def __aiter__(self) -> AsyncGenerator[list[Event], None]:
        while batch := await self._consumer.read_async(self._consumer.batch_events, wait_s=None):
            yield list(map(Event, batch))

    def read(self, max_events: int | None = None, *, wait_s: float | None = 0.0) -> list[Event]:
        """The next events; none where none came within `wait_s` seconds. With None it waits until some come."""
        most = self._consumer.batch_events if max_events is None else count(max_events, "max_events", least=1)
        return list(map(Event, self._consumer.read(most, wait_s=wait_s)))

    def confirm(self, position: int | None = None) -> None:
        """All that was read is done, or all up to the event with this id; durable when it returns.

        Raises StoreError where another has moved or removed the cursor, ValueError for a position not read yet.
        """
        self._consumer.confirm(position)

    def rewind(self) -> None:
        """Read again what was read and is not confirmed."""
        self._consumer.rewind()

    def stop(self) -> None:
        """Let whoever reads or waits find nothing more; from any thread, or out of a signal handler."""
        self._consumer.stop()

    @property
    def position(self) -> int:
        """All up to the event with this id is confirmed."""
        return self._consumer.position

    def lag(self) -> int:
        """How many messages of the log, whatever is asked for, lie behind that position."""
        return self._consumer.lag().messages
