"""The ledger: what the devices recorded as sent and as acknowledged, one JSON line each, to hold against the store.

What is sent is written at once, what is answered within half a second: a simulation killed outright may have been
acknowledged a little more than its ledger says.
"""

from __future__ import annotations

import asyncio
import glob
import hashlib
import io
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Annotated, Literal, Self

import msgspec

from devices.clock import iso, wall_us
from devices.errors import DeviceError
from devices.outgoing import Expect, Outgoing

FLUSH_EVERY_S = 0.5

CUT = b" #cut off\n"
"""Ends a line that a crash had left half written: whoever goes on with the ledger marks it so, and readers skip it."""

State = Literal["sent", "acked", "receipted"]

FOUND_IN_FOLDERS = "*ledger*.jsonl"
"""Several workers write several; other lines of JSON may lie beside them."""

TIME_LENGTH, DIGEST_LENGTH = 27, 16

Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class Record(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """One line. `observed_at` is the event's own time, `at` the machine's when this happened; both ISO 8601, UTC.

    `device`, `boot`, `seq`, `part` and `copy` name the message. One that had to be sent again has more than one `sent`.
    At QoS 0 nothing is ever `acked`. What only `sent` tells: `topic` and `digest`, by which a store's message is known,
    `identified`, `expect` and `faults` as an `Outgoing` has them.
    """

    device: str
    boot: str
    seq: Count
    state: State
    at: str
    part: Count = 0
    copy: Count = 0
    qos: Annotated[int, msgspec.Meta(ge=0, le=2)] = 0
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
    """Adds to the ledger at `path`; what an earlier run wrote there stays."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._records: list[Record] = []
        self._unwritten = b""
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
            self._file.close()

    def sent(self, device: str, message: Outgoing, qos: int) -> None:
        """A message is about to be handed to a connection."""
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
        # A system call for each message, 3 µs: else each kill of the simulation would leave messages in the store that
        # the ledger does not know. An error is kept for the next `flush`: a callback has nobody to tell it to.
        with suppress(DeviceError):
            self.flush()

    def answered(self, device: str, message: Outgoing, state: Literal["acked", "receipted"]) -> None:
        """The broker, or the gateway, has said yes."""
        self._records.append(
            Record(device, message.boot, message.seq, state, iso(wall_us()), message.part, message.copy)
        )

    def flush(self) -> None:
        """Hand over to the operating system what has gathered. Raises DeviceError, and keeps what was not written."""
        self._unwritten += _encode(self._records)
        self._records = []
        try:
            while self._unwritten:
                self._unwritten = self._unwritten[self._file.write(self._unwritten) :]
        except OSError as error:
            raise DeviceError(f"cannot write the ledger {self._path}: {error.strerror}") from error

    async def keep(self) -> None:
        """Flush now and then, for ever."""
        while True:
            await asyncio.sleep(FLUSH_EVERY_S)
            self.flush()


_encode = msgspec.json.Encoder().encode_lines


def digest(topic: str, payload: bytes) -> str:
    """By which a message is known: 16 hexadecimal digits."""
    return hashlib.blake2b(b"%b\0%b" % (topic.encode(), payload), digest_size=8).hexdigest()


def read(path: Path) -> Iterator[Record]:
    """The lines of a ledger, also while it is being written: an unfinished last line is left out, and what was cut off.

    Raises DeviceError, with file and line, for a line that is none of a ledger.
    """
    decoder = msgspec.json.Decoder(Record)
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if line.endswith(b"\n") and not line.endswith(CUT):
                    yield _record(decoder, line, path, number)
    except OSError as error:
        raise DeviceError(f"cannot read the ledger {path}: {error.strerror}") from error


def files(places: Iterable[Path]) -> list[Path]:
    """The ledgers that are meant: files, those in a folder that are called so, or what matches a pattern; each once.

    Raises DeviceError for a place where there is none.
    """
    return list({found.resolve(): found for place in places for found in _at(place)}.values())


def accounts(path: Path) -> dict[tuple[str, str], Account]:
    """What was sent and what was acknowledged, by device and boot."""
    found: dict[tuple[str, str], Account] = {}
    for record in read(path):
        account = found.setdefault((record.device, record.boot), Account(set(), set()))
        if record.state != "receipted":
            (account.sent if record.state == "sent" else account.acked).add(record.seq)
    return found


def _at(place: Path) -> list[Path]:
    if place.is_dir():
        found = sorted(place.glob(FOUND_IN_FOLDERS))
    elif place.exists() or not glob.has_magic(str(place)):
        return [place]  # that it cannot be read is told when it is read
    else:
        found = sorted(map(Path, glob.glob(str(place), recursive=True)))  # noqa: PTH207 - it may begin anywhere
    if not found:
        raise DeviceError(f"there is no ledger at {place}" + f": no file is called {FOUND_IN_FOLDERS}" * place.is_dir())
    return found


def _record(decoder: msgspec.json.Decoder[Record], line: bytes, path: Path, number: int) -> Record:
    try:
        record = decoder.decode(line)
    except ValueError as error:
        raise DeviceError(f"{path}, line {number}, is not a line of a ledger: {error}") from error
    if record.state == "sent" and not (record.topic and len(record.digest) == DIGEST_LENGTH):
        raise DeviceError(f"{path}, line {number}, is not a line of a ledger: it has no topic or no digest")
    if len(record.at) != TIME_LENGTH:
        raise DeviceError(f"{path}, line {number}, is not a line of a ledger: {record.at!r} is no time")
    return record


def _open(path: Path) -> io.FileIO:
    """Open for adding whole lines: half a line, as a crash leaves it, is marked as cut off."""
    file = io.FileIO(path, "a+")
    try:
        if file.seek(0, os.SEEK_END):
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(CUT)
    except BaseException:
        file.close()
        raise
    return file
