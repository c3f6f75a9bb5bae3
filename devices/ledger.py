"""The ledger: what the devices recorded as sent and as acknowledged, one JSON line each, to hold against the store.

It is written behind the events, within half a second: a simulation killed outright may have sent a little more
than its ledger says, and have been acknowledged a little more.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Literal, Self

import msgspec

from devices.clock import iso, wall_us
from devices.errors import DeviceError
from devices.outgoing import Expect, Outgoing

FLUSH_EVERY_S = 0.5


State = Literal["sent", "acked", "receipted"]


class Record(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """One line. `observed_at` is the event's own time, `at` the machine's when this happened; both ISO 8601, UTC.

    `device`, `boot`, `seq`, `part` and `copy` name the message. One that had to be sent again has more than one `sent`.
    At QoS 0 nothing is ever `acked`. What only `sent` tells: `topic` and `digest`, by which a store's message is known,
    `identified`, `expect` and `faults` as an `Outgoing` has them.
    """

    device: str
    boot: str
    seq: int
    state: State
    at: str
    part: int = 0
    copy: int = 0
    qos: int = 0
    observed_at: str = ""
    topic: str = ""
    digest: str = ""
    identified: bool = False
    expect: Expect = "event"
    faults: tuple[str, ...] = ()


class Account(msgspec.Struct):
    """One boot of one device: the sequence numbers it sent, and those acknowledged to it."""

    sent: set[int]
    acked: set[int]


class Ledger:
    """Adds to the ledger at `path`, buffered; what an earlier run wrote there stays."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._records: list[Record] = []
        try:
            self._file = _open(path)
        except OSError as error:
            raise DeviceError(f"cannot write the ledger {path}: {error.strerror}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.flush()
        finally:
            with suppress(OSError):  # it tries to write again what flush has just complained of
                self._file.close()

    def sent(self, device: str, message: Outgoing, qos: int) -> None:
        """A message is handed to a connection."""
        publication = message.publication
        self._records.append(
            Record(
                device,
                *(message.boot, message.seq, "sent", iso(wall_us()), message.part, message.copy),
                qos=qos,
                observed_at=iso(message.observed_at),
                topic=publication.topic,
                digest=digest(publication.topic, publication.payload),
                identified=message.identified,
                expect=message.expect,
                faults=message.faults,
            )
        )

    def answered(self, device: str, message: Outgoing, state: Literal["acked", "receipted"]) -> None:
        """The broker, or the gateway, has said yes."""
        self._records.append(
            Record(device, message.boot, message.seq, state, iso(wall_us()), message.part, message.copy)
        )

    def flush(self) -> None:
        """Hand over to the operating system what has gathered."""
        lines, self._records = msgspec.json.Encoder().encode_lines(self._records), []
        try:
            self._file.write(lines)
            self._file.flush()
        except OSError as error:
            raise DeviceError(f"cannot write the ledger {self._path}: {error.strerror}") from error

    async def keep(self) -> None:
        """Flush now and then, for ever."""
        while True:
            await asyncio.sleep(FLUSH_EVERY_S)
            self.flush()


def digest(topic: str, payload: bytes) -> str:
    """By which a message is known: 16 hexadecimal digits."""
    return hashlib.blake2b(b"%b\0%b" % (topic.encode(), payload), digest_size=8).hexdigest()


def read(path: Path) -> Iterator[Record]:
    """The lines of a ledger, also while it is being written: an unfinished last line is left out."""
    decoder = msgspec.json.Decoder(Record)
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if line.endswith(b"\n"):
                    yield _record(decoder, line, path, number)
    except OSError as error:
        raise DeviceError(f"cannot read the ledger {path}: {error.strerror}") from error


def accounts(path: Path) -> dict[tuple[str, str], Account]:
    """What was sent and what was acknowledged, by device and boot."""
    found: dict[tuple[str, str], Account] = {}
    for record in read(path):
        account = found.setdefault((record.device, record.boot), Account(set(), set()))
        if record.state != "receipted":
            (account.sent if record.state == "sent" else account.acked).add(record.seq)
    return found


def _record(decoder: msgspec.json.Decoder[Record], line: bytes, path: Path, number: int) -> Record:
    try:
        return decoder.decode(line)
    except ValueError as error:
        raise DeviceError(f"{path}, line {number}, is not a line of a ledger: {error}") from error


def _open(path: Path) -> IO[bytes]:
    """Open for adding whole lines."""
    file = path.open("a+b")
    if file.tell():
        file.seek(-1, os.SEEK_END)
        if file.read() != b"\n":
            file.close()
            raise DeviceError(f"the ledger {path} ends in half a line, as after a crash: name another file")
    return file
