"""Stores for the replay tests to play from, and a watch that nobody has to wait for."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from storage.event import EVENTS_PER_MESSAGE, Entry, Event, Message, Properties, StoredEvent
from storage.store import Store, StoreOptions

T0 = 1_763_802_000_000_000
SECOND = 1_000_000


def fill(path: Path, entries: Iterable[Entry]) -> Path:
    """A store that holds these entries."""
    store = Store(path, StoreOptions(free_floor_bytes=0))
    store.append(list(entries), 1)
    store.close()
    return path


def entry(
    n: int,
    *,
    at: int | None = None,
    events: int = 1,
    topic: str = "devices/thermo/telemetry",
    payload: bytes | None = None,
    qos: int = 1,
    retain: bool = False,
    properties: Properties | None = None,
) -> Entry:
    """The n-th message, a millisecond after the one before."""
    at = T0 + n * 1_000 if at is None else at
    payload = b"{%d}" % n if payload is None else payload
    packet_id = n + 1 if qos else 0
    message = Message(topic, payload, qos, retain, at, packet_id, properties=properties)
    return message, [Event("thermo", "measurement", "json", at, {"n": n}, seq=k) for k in range(events)]


def position(number: int, place: int = 0) -> int:
    """The id of an event of the number-th message, counted from 1."""
    return number * EVENTS_PER_MESSAGE + place


def positions(last: int, *, first: int = 1) -> list[int]:
    """The ids of the events of messages that give one each."""
    return [position(number) for number in range(first, last + 1)]


def event(id: int, received_at: int, observed_at: int | None = None) -> StoredEvent:
    return StoredEvent(
        id=id,
        message_id=id,
        device="thermo",
        kind="measurement",
        observed_at=received_at if observed_at is None else observed_at,
        received_at=received_at,
        from_device=observed_at is not None,
        topic="devices/thermo/telemetry",
        format="json",
        qos=0,
        retain=False,
        seq=None,
        readings="{}",
        units={},
    )


class FakeWatch:
    """A watch that only goes on when someone waits by it, and as much too long or too short as it is told."""

    def __init__(self, *, slack: float = 1.0) -> None:
        self.at_s = 1_000.0
        self.waits = 0
        self.rests = False
        self._slack = slack

    def now_s(self) -> float:
        return self.at_s

    async def wait(self, seconds: float, bell: asyncio.Event) -> None:
        assert seconds > 0
        self.waits += 1
        if seconds == math.inf:
            self.rests = True
            await bell.wait()
            self.rests = False
        elif not bell.is_set():
            self.at_s += max(seconds * self._slack, 1e-6)


class Events:
    """Events to play, as a store would give them."""

    def __init__(self, events: Sequence[StoredEvent], page_events: int = 7) -> None:
        self.start = 0
        self._events = events
        self._page_events = page_events

    def pages(self, after: int, page_events: int) -> Iterator[list[StoredEvent]]:
        left = [event for event in self._events if event.id > after]
        most = min(page_events, self._page_events)
        return (left[begin : begin + most] for begin in range(0, len(left), most))

    def event_of(self, item: StoredEvent) -> StoredEvent:
        return item

    def back_to(self, at: int, position: int) -> tuple[int, int]:
        before = [event.id for event in self._events if event.id <= position and event.received_at < at]
        return (max(before), at) if before else (0, max(at, self._events[0].received_at))

    def on_to(self, at: int, position: int) -> tuple[int, int]:
        later = [event.id for event in self._events if event.id > position and event.received_at >= at]
        return (min(later) - 1, at) if later else (self._events[-1].id, min(at, self._events[-1].received_at))
