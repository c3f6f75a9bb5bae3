"""A replay for Python programs that does as it is told meanwhile. Never touches what it plays."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import datetime
from typing import Literal

from storage.api.event import Event, moment
from storage.api.words import count, speed_of
from storage.event import StoredEvent
from storage.replay import player


class Player:
    """Gives events when they are due, one by one or in `batches`, once; the rest is for the same event loop."""

    def __init__(self, playing: player.Player[StoredEvent]) -> None:
        self._playing = playing

    async def __aiter__(self) -> AsyncGenerator[Event, None]:
        async with aclosing(self.batches()) as batches:
            async for batch in batches:
                for event in batch:
                    yield event

    async def batches(self) -> AsyncGenerator[list[Event], None]:
        """What is due, in lists. What the player is told takes effect behind the list that it has given."""
        async with aclosing(self._playing.batches()) as batches:
            async for batch in batches:
                yield list(map(Event, batch))

    def pause(self) -> None:
        """Stand still, until `resume`."""
        self._playing.pause()

    def resume(self) -> None:
        self._playing.resume()

    def step(self, events: int = 1) -> None:
        """Give out so many events, whenever they are due; only while it is paused."""
        self._playing.step(count(events, "events", least=1))

    def seek(self, seconds: float) -> None:
        """Go on so many seconds of the log later, by the gateway's clock, or earlier; never out of the range."""
        self._playing.seek(seconds)

    def stop(self) -> None:
        """Give out nothing more."""
        self._playing.stop()

    @property
    def paused(self) -> bool:
        return self._playing.paused

    @property
    def speed(self) -> float | None:
        """How many times as fast as it happened; None is as fast as possible. May be set, to "max" too."""
        return self._playing.speed

    @speed.setter
    def speed(self, speed: float | Literal["max"] | None) -> None:
        self._playing.speed = None if speed is None else speed_of(speed)

    @property
    def received_at(self) -> datetime | None:
        """The time of the log that is being played, by the gateway's clock; None before the first event."""
        at = self._playing.received_at()
        return None if at is None else moment(at)
