"""Small stores with many segments, and beside each what is in it, told without asking it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from storage import segments
from storage.engine import sqlite
from storage.event import (
    EVENTS_PER_MESSAGE,
    Detail,
    Entry,
    Event,
    Kind,
    Location,
    Message,
    Outcome,
    Properties,
    Rejection,
    StoredEvent,
)
from storage.history import StoredRejection
from storage.replacing import Replaced
from storage.segment import Segment
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
DETAILS = (
    Detail(via="gateway-1", boot="7"),
    Detail(vendor_type='say "STATE"', source_id="ü", historical=True),
    Detail(quality={"temperature": "bad", "": "stale"}, location=Location(46.95, 7.44, accuracy_m=5.0)),
)


class History:
    """A store that is being written, and its events and rejections as they must come out again."""

    def __init__(self, path: Path, segment_events: int = 200) -> None:
        self.path = path
        self.events: list[StoredEvent] = []
        self.messages: list[Message] = []
        self.rejections: list[StoredRejection] = []
        self.outcomes: dict[int, Outcome] = {}
        self._options = StoreOptions(segment_events=segment_events, free_floor_bytes=0)
        self.writer = Writer(path, self._options)

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

    @property
    def position(self) -> int:
        """The id of the last event."""
        return self.events[-1].id if self.events else 0

    def index_now(self) -> None:
        """Bring the open segment's index up to its last event, as the writer does after many more."""

        def job(store: Store) -> None:
            with store._transaction():
                store.segment = segments.index_run(store.connection, store.segment, store.message_id)

        self.writer.submit(job).result()

    def replace(self, outcomes: Sequence[tuple[int, Outcome]]) -> Replaced:
        """Exchange outcomes as the gateway does, and note them."""
        replaced = self.writer.submit(lambda store: store.replace(outcomes)).result()
        self.note_replaced(outcomes)
        return replaced

    def note_replaced(self, outcomes: Sequence[tuple[int, Outcome]]) -> None:
        """Note what somebody else has exchanged. The ids of rejections are as if each had been one from the start."""
        self.outcomes.update(outcomes)
        self.events.clear()
        self.rejections.clear()
        for message_id, outcome in self.outcomes.items():
            self._note_outcome(message_id, outcome)

    def reopen(self) -> None:
        self.writer.stop()
        self.writer = Writer(self.path, self._options)

    def _note(self, message: Message, outcome: Outcome) -> None:
        self.messages.append(message)
        self.outcomes[len(self.messages)] = outcome
        self._note_outcome(len(self.messages), outcome)

    def _note_outcome(self, message_id: int, outcome: Outcome) -> None:
        message = self.messages[message_id - 1]
        if isinstance(outcome, Rejection):
            self.rejections.append(stored_rejection(len(self.rejections) + 1, message_id, message, outcome))
            return
        for place, event in enumerate(outcome):
            self.events.append(stored_event(message_id * EVENTS_PER_MESSAGE + place, message_id, message, event))


def stored_rejection(id: int, message_id: int, message: Message, rejection: Rejection) -> StoredRejection:
    return StoredRejection(
        id=id,
        message_id=message_id,
        reason=rejection.reason,
        format=rejection.format,
        topic=message.topic,
        received_at=message.received_at,
        qos=message.qos,
        retain=message.retain,
        payload=message.payload,
    )


def stored_event(id: int, message_id: int, message: Message, event: Event) -> StoredEvent:
    return StoredEvent(
        id=id,
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
        units={
            name: unit for name, unit in sorted((event.units or {}).items()) if type(event.readings[name]) is not str
        },
        detail=None if event.detail is None else msgspec.json.encode(event.detail).decode(),
    )


def check(path: Path) -> None:
    """What the catalog and the indexes say of the segments is what is in them."""
    connection = sqlite.connect(path)
    segments = [Segment(*row) for row in connection.execute(f"SELECT {COLUMNS} FROM segments ORDER BY id")]
    for segment in segments:
        n, indexed_to = segment.id, segment.indexed_to
        index = connection.execute(f"SELECT * FROM event_index_{n}").fetchall()
        wanted = "SELECT device_id, observed_at, id FROM events_{} WHERE id <= {} ORDER BY 1, 2, 3"
        assert index == connection.execute(wanted.format(n, indexed_to)).fetchall()
        assert segment.events == len(index)
        rejected = f"SELECT count(*) FROM rejections JOIN messages_{n} AS m ON m.id = message_id WHERE m.id <= ?"
        assert segment.rejections == connection.execute(rejected, (indexed_to // EVENTS_PER_MESSAGE,)).fetchone()[0]
        times = (
            f"SELECT observed_at, received_at FROM events_{n} AS e JOIN messages_{n} AS m ON m.id = e.id / ?"
            " WHERE e.id <= ?"
        )
        for observed_at, received_at in connection.execute(times, (EVENTS_PER_MESSAGE, indexed_to)):
            assert segment.observed_from is not None
            assert segment.observed_to is not None
            assert segment.received_from is not None
            assert segment.received_to is not None
            assert segment.observed_from <= observed_at <= segment.observed_to
            assert segment.received_from <= received_at <= segment.received_to
        stray = f"SELECT count(*) FROM events_{n} WHERE id / ? NOT IN (SELECT id FROM messages_{n})"
        assert connection.execute(stray, (EVENTS_PER_MESSAGE,)).fetchone() == (0,)
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()


COLUMNS = ", ".join(Segment.__struct_fields__)


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
    return message, outcome(random, received_at)


def outcome(random: random.Random, received_at: int) -> Outcome:
    if random.random() < 0.1:
        return Rejection(random.choice(("it is empty", 'not JSON: "x"')), random.choice(("", "json")))
    return [_event(random, received_at) for _ in range(random.choice((0, 1, 1, 1, 1, 3)))]


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
        detail=_detail(random) if random.random() < 0.2 else None,
    )


def _detail(random: random.Random) -> Detail:
    """What identifies an event is another in each: what comes again has tests of its own."""
    detail = random.choice(DETAILS)
    if detail.boot:
        return msgspec.structs.replace(detail, boot=f"{random.getrandbits(64):x}")
    return msgspec.structs.replace(detail, source_id=f"ü{random.getrandbits(64):x}") if detail.source_id else detail
