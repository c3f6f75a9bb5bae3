"""Small stores with many segments, and beside each what is in it, told without asking it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from storage import segments
from storage.event import Entry, Event, Kind, Message, Outcome, Properties, Rejection, StoredEvent
from storage.history import StoredRejection
from storage.store import Store, StoreOptions
from storage.writer import Writer

ROOT = Path(__file__).resolve().parents[2]

NOON = 1_795_345_200_000_000

DEVICES = (
    *("thermo-1", "thermo-2", "thermo-10", "door*", "meter[3]", "meter[4]", "a?", "ab", 'quote"d', "ünïcödé", ""),
    *("nul\0one", "nul\0two"),
)
TOPICS = ("a", "a/b", "a/b/c", "a/", "/a", "a//c", "$SYS/a", "$SYS", "b/*", "b/x", "b/[x]", "b/?", "ü/b", "A/b")
KINDS: tuple[Kind, ...] = ("measurement", "state", "event")
READINGS = ("temperature", "a.b", "$", 'say "hi"', "back\\slash", "tab\t", "", "ü", 'x","temperature', "nul\0", "temp")
UNITS = {"temperature": "Cel", 'say "hi"': "1", "a.b": "%", "": "m"}


class History:
    """A store that is being written, and its events and rejections as they must come out again."""

    def __init__(self, path: Path, segment_events: int = 200) -> None:
        self.path = path
        self.events: list[StoredEvent] = []
        self.messages: list[Message] = []
        self.rejections: list[StoredRejection] = []
        self.writer = Writer(path, StoreOptions(segment_events=segment_events, free_floor_bytes=0))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.writer.stop()

    def append(self, entries: Sequence[Entry]) -> None:
        """Commit, and note what was committed."""
        self.writer.append(entries, 1).result()
        for message, outcome in entries:
            self._note(message, outcome)

    def index_now(self) -> None:
        """Bring the open segment's index up to its last event, as the writer does after many more."""

        def job(store: Store) -> None:
            store.segment = segments.index_run(store.connection, store.segment, store.event_id)
            store.connection.commit()

        self.writer.submit(job).result()

    def _note(self, message: Message, outcome: Outcome) -> None:
        self.messages.append(message)
        message_id = len(self.messages)
        if isinstance(outcome, Rejection):
            self.rejections.append(
                StoredRejection(
                    id=len(self.rejections) + 1,
                    message_id=message_id,
                    reason=outcome.reason,
                    format=outcome.format,
                    topic=message.topic,
                    received_at=message.received_at,
                    qos=message.qos,
                    retain=message.retain,
                    payload=message.payload,
                )
            )
            return
        for event in outcome:
            self.events.append(
                StoredEvent(
                    id=len(self.events) + 1,
                    message_id=message_id,
                    device=event.device,
                    kind=event.kind,
                    observed_at=event.observed_at,
                    received_at=message.received_at,
                    from_device=event.from_device,
                    topic=message.topic,
                    format=event.format,
                    qos=message.qos,
                    retain=message.retain,
                    seq=event.seq,
                    readings=msgspec.json.encode(event.readings).decode(),
                    units=dict(sorted((event.units or {}).items())),
                )
            )


def message(topic: str = "t", payload: bytes = b"", received_at: int = NOON) -> Message:
    return Message(topic, payload, qos=0, retain=False, received_at=received_at)


def entries(random: random.Random, count: int, first: int = 0) -> list[Entry]:
    """Messages of all sorts, about one a second; some devices speak often and some hardly ever."""
    return [_entry(random, number) for number in range(first, first + count)]


def _entry(random: random.Random, number: int) -> Entry:
    received_at = NOON + number * 1_000_000 + random.randrange(3_000_000)  # clocks step back, too
    properties = random.choice((None, Properties(content_type="x", correlation_data=b"\xff", user=(("a", "1"),))))
    message = Message(
        topic=random.choice(TOPICS),
        payload=random.choice((b"", b"{}", b"\xff\x00", b"caf\xc3\xa9")) + b"%d" % number,
        qos=random.randrange(3),
        retain=random.random() < 0.2,
        received_at=received_at,
        packet_id=random.randrange(65536),
        properties=properties,
    )
    if random.random() < 0.1:
        return message, Rejection(random.choice(("it is empty", 'not JSON: "x"')), random.choice(("", "json")))
    return message, [_event(random, received_at) for _ in range(random.choice((0, 1, 1, 1, 1, 3)))]


def _event(random: random.Random, received_at: int) -> Event:
    common = min(int(random.expovariate(0.6)), len(DEVICES) - 1)
    device = DEVICES[common] if random.random() < 0.8 else random.choice(DEVICES)
    names = random.sample(READINGS, random.randrange(4))
    observed_at = received_at - random.randrange(60_000_000)
    if random.random() < 0.03:
        observed_at = random.choice((0, -1, -62_135_596_800_000_001, 253_402_300_800_000_000, 2**63 - 1, -(2**63)))
    # The devices that have units have them always; the others never.
    units = {name: UNITS[name] for name in names if name in UNITS} if device.startswith(("thermo", "quote")) else None
    return Event(
        device=device,
        kind=random.choice(KINDS),
        format=random.choice(("json", "senml")),
        observed_at=observed_at,
        readings={
            name: random.choice((1.5, -3, True, None, "on", "temp", '{"temperature":1}', "\\")) for name in names
        },
        from_device=random.random() < 0.7,
        seq=random.choice((None, 0, 17, -(2**63))),
        units=units or None,
    )
