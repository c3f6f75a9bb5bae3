"""The ledger: what the devices recorded as sent and as acknowledged, one JSON line each, to hold against the store.

What is sent is written before it is sent, what is answered within half a second: a simulation killed outright may have
been acknowledged a little more than its ledger says.
"""

from __future__ import annotations

import asyncio
import fcntl
import glob
import hashlib
import io
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
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

PAGE_BYTES = 1 << 20

FIRST_BYTES = 1 << 20
"""Longer than any line: a topic has 65,535 bytes at most, of which JSON makes six times as many at worst."""

BEGINNING = b'{"device":'
"""So begins each line that we write: all that half a line need show."""

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
            self._file = io.FileIO(path, "a+")
            if not _may_be_ledger(self._file):
                self._file.close()
                raise DeviceError(f"{path} is no ledger: name another file")
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
        """A message is about to be handed to a connection: not before the next `flush`, or a kill could hide it."""
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
        """Hand over to the operating system what has gathered. Raises DeviceError, and keeps what was not written."""
        self._unwritten += _encode(self._records)
        self._records = []
        if not self._unwritten:
            return
        try:
            with _alone(self._file):
                self._add()
        except OSError as error:
            raise DeviceError(f"cannot write the ledger {self._path}: {error.strerror}") from error

    def _add(self) -> None:
        """Write whole lines; half a line, as a crash or a full disk leaves it, is marked as cut off."""
        data = self._unwritten if _ends_whole(self._file) else CUT + self._unwritten
        written = 0
        try:
            while written < len(data):
                written += self._file.write(data[written:])
        finally:
            self._unwritten = data[data.rfind(b"\n", 0, written) + 1 :]

    async def keep(self) -> None:
        """Flush now and then, for ever."""
        while True:
            await asyncio.sleep(FLUSH_EVERY_S)
            self.flush()


_encode = msgspec.json.Encoder().encode_lines


def digest(topic: str, payload: bytes) -> str:
    """By which a message is known: 16 hexadecimal digits."""
    return fingerprint(b"%b\0" % topic.encode(), payload).hex()


def fingerprint(head: bytes, payload: bytes) -> bytes:
    """The bytes of a digest; `head` is the topic and a NUL."""
    return hashlib.blake2b(head + payload, digest_size=8).digest()


def read(path: Path) -> Iterator[Record]:
    """The lines of a ledger, also while it is being written: an unfinished last line is left out, and what was cut off.

    Raises DeviceError, with file and line, for a line that is none of a ledger.
    """
    for page in pages(path):
        yield from page


def pages(path: Path) -> Iterator[list[Record]]:
    """The same, many lines at a time."""
    decoder = msgspec.json.Decoder(Record)
    before = 0
    try:
        with path.open("rb") as file:
            while lines := file.readlines(PAGE_BYTES):  # whole lines, of about so many bytes in all
                yield _records(decoder, lines, path, before)
                if not lines[-1].endswith(b"\n"):
                    return  # its rest may be there by now, and would pass for a line
                before += len(lines)
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
    is_folder = os.path.isdir(place)  # noqa: PTH112 - a name that is too long is no folder, and no error yet
    if is_folder:
        found = sorted(place.glob(FOUND_IN_FOLDERS))
    elif os.path.exists(place) or not glob.has_magic(str(place)):  # noqa: PTH110 - the same
        return [place]  # that it cannot be read is told when it is read
    else:
        found = sorted(map(Path, glob.glob(str(place), recursive=True)))  # noqa: PTH207 - it may begin anywhere
    if not found:
        raise DeviceError(f"there is no ledger at {place}" + f": no file is called {FOUND_IN_FOLDERS}" * is_folder)
    return found


def _records(decoder: msgspec.json.Decoder[Record], lines: list[bytes], path: Path, before: int) -> list[Record]:
    """What the lines say, all at once. Where something is wrong with them, one by one, to tell with which."""
    text = b"".join(lines)
    if text.endswith(b"\n") and CUT not in text:
        with suppress(ValueError):
            records = decoder.decode_lines(text)
            flawed = [
                record
                for record in records
                if len(record.at) != TIME_LENGTH or (record.state == "sent" and _flaw(record))
            ]
            if len(records) == len(lines) and not flawed:
                return records
    whole = [(n, line) for n, line in enumerate(lines, before + 1) if line.endswith(b"\n") and not line.endswith(CUT)]
    return [_record(decoder, line, path, number) for number, line in whole]


def _record(decoder: msgspec.json.Decoder[Record], line: bytes, path: Path, number: int) -> Record:
    try:
        record = decoder.decode(line)
    except ValueError as error:
        raise DeviceError(f"{path}, line {number}, is not a line of a ledger: {error}") from error
    if flaw := _flaw(record):
        raise DeviceError(f"{path}, line {number}, is not a line of a ledger: {flaw}")
    return record


def _flaw(record: Record) -> str:
    """What a line lacks that is well-formed; nothing where it is whole."""
    if record.state == "sent" and not (record.topic and len(record.digest) == DIGEST_LENGTH):
        return "it has no topic or no digest"
    return "" if len(record.at) == TIME_LENGTH else f"{record.at!r} is no time"


@contextmanager
def _alone(file: io.FileIO) -> Iterator[None]:
    """While no other process writes to it: workers share one, and those of a killed simulation end a moment late."""
    fcntl.lockf(file, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.lockf(file, fcntl.LOCK_UN)


def _may_be_ledger(file: io.FileIO) -> bool:
    """Whether a ledger could begin so; what is empty, or no file that keeps anything, may become one."""
    status = os.fstat(file.fileno())
    if not stat.S_ISREG(status.st_mode) or not status.st_size:
        return True
    line, end, _ = os.pread(file.fileno(), FIRST_BYTES, 0).partition(b"\n")
    try:
        return not _flaw(msgspec.json.decode(line, type=Record))
    except msgspec.ValidationError:  # it is whole, and of another sort
        return False
    except ValueError:
        half = line.partition(CUT[:2])[0].rstrip()  # the mark may be cut off too
        cut = not end or (line + end).endswith(CUT)
        return cut and half != b"" and half[: len(BEGINNING)] == BEGINNING[: len(half)]


def _ends_whole(file: io.FileIO) -> bool:
    size = os.fstat(file.fileno()).st_size
    return not size or os.pread(file.fileno(), 1, size - 1) == b"\n"
