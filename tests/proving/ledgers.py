"""What the tests of `verify` build their cases of: lines of a ledger, and messages in a store, at chosen times."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from devices.clock import iso
from devices.ledger import Record, State, digest
from devices.outgoing import Expect
from storage.event import Detail, Event, Message, Outcome, Rejection
from storage.store import Store, StoreOptions

START = 1_795_000_000_000_000
"""A time of receipt, in microseconds; the cases count seconds from there."""

TOPIC = "devices/thermo-0001/telemetry"


def us(seconds: float) -> int:
    return START + round(seconds * 1_000_000)


def sent(
    seq: int = 0,
    *,
    at: float | None = None,
    payload: bytes | None = None,
    device: str = "thermo-0001",
    boot: str = "5f3a",
    part: int = 0,
    copy: int = 0,
    qos: int = 1,
    topic: str = TOPIC,
    identified: bool = False,
    expect: Expect = "event",
    faults: tuple[str, ...] = (),
) -> Record:
    """A message is sent in the second of its number, and says that number."""
    payload = b"%d" % seq if payload is None else payload
    return Record(
        *(device, boot, seq, "sent", iso(us(seq if at is None else at)), part, copy, qos),
        topic=topic,
        digest=digest(topic, payload),
        identified=identified,
        expect=expect,
        faults=faults,
    )


def answered(
    seq: int = 0,
    state: State = "acked",
    *,
    at: float | None = None,
    device: str = "thermo-0001",
    boot: str = "5f3a",
    part: int = 0,
    copy: int = 0,
) -> Record:
    return Record(device, boot, seq, state, iso(us(seq + 0.1 if at is None else at)), part, copy)


def stored(
    seq: int = 0,
    *,
    at: float | None = None,
    payload: bytes | None = None,
    topic: str = TOPIC,
    rejected: str | None = None,
    detail: Detail | None = None,
) -> tuple[Message, Outcome]:
    """What the gateway has of it, an event or a rejection."""
    payload = b"%d" % seq if payload is None else payload
    received_at = us(seq + 0.05 if at is None else at)
    message = Message(topic, payload, 1, retain=False, received_at=received_at, packet_id=1 + seq)
    if rejected is not None:
        return message, Rejection(rejected)
    return message, [Event("thermo-0001", "measurement", "json", received_at, {"n": seq}, detail=detail)]


def write_ledger(path: Path, records: Iterable[Record]) -> Path:
    path.write_bytes(msgspec.json.Encoder().encode_lines(list(records)))
    return path


def make_store(path: Path, entries: Sequence[tuple[Message, Outcome]]) -> Path:
    store = Store(path, StoreOptions(free_floor_bytes=0))
    store.append(entries, 1)
    store.close()
    return path
