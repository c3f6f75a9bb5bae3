"""Brings files into the log: exports of events, recordings of messages. Never listens to a broker."""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Protocol

import msgspec

from gateway.formats import IGNORED
from gateway.ingest import Formats as Ingested
from gateway.ingest import is_own
from gateway.metrics import Metrics
from gateway.recordings import Fault, Options, Record, Unfit, Unpacked, packing_of, records
from gateway.reread import Formats as Again
from gateway.reread import work_off
from storage import imports
from storage.errors import AmberError, StoreBusy
from storage.event import Entry, Lessons, Message, Rejection
from storage.log import Log
from storage.times import iso

BATCH_MESSAGES = 4_000
BATCH_BYTES = 4 << 20

TOLD_FAULTS = 5
COUNTED_REASONS = 1_000
"""A reason may quote what the message holds: of so many different ones each is counted for itself."""


class ImportFault(AmberError):
    """A file that cannot be brought in."""


class Formats(Ingested, Again, Protocol):
    """What reads messages, and reads them again."""


class Tally(msgspec.Struct):
    """What became of a file so far."""

    records: int = 0
    """Messages, or messages' worth of events, that were read now."""
    messages: int = 0
    events: int = 0
    rejections: int = 0
    ignored: int = 0
    unreadable: int = 0
    reasons: Counter[str] = msgspec.field(default_factory=Counter)
    faults: list[Fault] = []
    done_bytes: int = 0

    def count(self, entries: Sequence[Entry]) -> None:
        self.messages += len(entries)
        for _, outcome in entries:
            if isinstance(outcome, Rejection):
                self.rejections += 1
                known = outcome.reason in self.reasons or len(self.reasons) < COUNTED_REASONS
                self.reasons[outcome.reason if known else "other reasons"] += 1
            else:
                self.events += len(outcome)

    def note(self, fault: Fault) -> None:
        self.unreadable += 1
        if len(self.faults) < TOLD_FAULTS:
            self.faults.append(fault)


class Source:
    """A file, or standard input where there is no path, open from its beginning."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.name = "standard input" if path is None else str(path)
        self.size = 0
        try:
            self.raw: IO[bytes] = sys.stdin.buffer if path is None else path.open("rb", buffering=1 << 20)
            if path is not None:
                self.size = os.fstat(self.raw.fileno()).st_size
        except OSError as error:
            raise ImportFault(f"cannot read {path}: {error.strerror}") from None

    def close(self) -> None:
        if self.path is not None:
            self.raw.close()

    def records(self, options: Options) -> Iterator[Record | Fault]:
        """What is in it, from its first record on. Raises ImportFault, and so for what is no such file."""
        if self.path is not None:
            self.raw.seek(0)
        with faults(self.name):
            yield from records(self.raw, options, at_hand=self.path is not None)

    def digest(self) -> str:
        """What the content is known by. What is compressed is looked through: if it is broken nothing is begun."""
        found = hashlib.sha256()
        with faults(self.name):
            while chunk := self.raw.read(1 << 20):
                found.update(chunk)
            self.raw.seek(0)
            packing = packing_of(self.raw)
            if packing:
                unpacked = io.BufferedReader(Unpacked(self.raw, packing), 1 << 20)
                while unpacked.read(1 << 20):
                    pass
        return found.hexdigest()

    def progress(self) -> int:
        with suppress(OSError, ValueError):
            return self.raw.tell() if self.path is not None else 0
        return 0


@contextmanager
def faults(name: str) -> Iterator[None]:
    """Raise what a file has wrong as an ImportFault that names it."""
    try:
        yield
    except OSError as error:
        raise ImportFault(f"cannot read {name}: {error.strerror or error}") from error
    except Unfit as error:
        raise ImportFault(f"{name} {error}") from error


@contextmanager
def source(path: Path | None) -> Iterator[Source]:
    opened = Source(path)
    try:
        yield opened
    finally:
        opened.close()


def read(source: Source, options: Options, formats: Ingested, tally: Tally, tick: Callable[[], None]) -> None:
    """Read a file into nothing but the tally."""
    for batch in batches(source.records(options), tally):
        entries = kept(batch, formats, tally)
        formats.take_lessons([message for message, _ in entries])
        tally.count(entries)
        tally.done_bytes = source.progress()
        tick()


@contextmanager
def told_plainly(store: Path) -> Iterator[None]:
    """A store that a gateway writes is nothing for us."""
    try:
        yield
    except StoreBusy as error:
        raise ImportFault(
            f"{' '.join(str(error).split()).removesuffix(': stop it first')}: stop that first, or import into another "
            f"store than {store} with --store"
        ) from error


class Importer:
    """Brings files into an open log, one after the other."""

    def __init__(self, log: Log, formats: Formats) -> None:
        self._log = log
        self._formats = formats

    async def bring_in(
        self,
        source: Source,
        options: Options,
        tally: Tally,
        tick: Callable[[], None],
        *,
        digest: str | None,
        again: bool = False,
    ) -> bool:
        """Append what the log does not have of a file; False where it has all.

        Raises ImportFault, StoreError; what is committed by then is known, but for what had no `digest`.
        """
        session, after = await self._session(source, digest, again=again)
        if session is None:
            return False
        appending: asyncio.Task[None] | None = None
        for batch in batches(source.records(options), tally, after):
            entries = kept(batch, self._formats, tally)
            lessons = self._formats.take_lessons([message for message, _ in entries])
            if appending is not None:
                await appending
            appending = asyncio.create_task(self._append(entries, session, lessons, tally), name="append")
            tally.done_bytes = source.progress()
            tick()
            await asyncio.sleep(0)  # the append goes to its thread, and Ctrl-C is heard
        if appending is not None:
            await appending
        if digest is not None:
            await self._log.open_session(imports.ends(digest), source.name, resumed=False, window_messages=0)
        return after == 0 or tally.messages > 0

    async def read_again(self) -> None:
        """What the messages have taught of how to read earlier ones, as the gateway does it."""
        for pending in await self._log.rereads():
            await work_off(self._log, self._formats, Metrics(), pending)

    async def _session(self, source: Source, digest: str | None, *, again: bool) -> tuple[int | None, int]:
        """The session to go on with and the record that it came to; None where the file is in the log already."""
        name = imports.begins(digest or f"standard input at {iso(time.time_ns() // 1_000)}")
        known = None if digest is None else await asyncio.to_thread(imports.earlier, self._log.path, digest)
        if known is not None and known.complete and not again:
            return None, 0
        if known is not None and not known.complete:
            return known.session_id, known.record
        session = await self._log.open_session(name, source.name, resumed=False, window_messages=0)
        return session.id, 0

    async def _append(self, entries: Sequence[Entry], session: int, lessons: Lessons, tally: Tally) -> None:
        if entries:
            await self._log.append(entries, session, lessons)
        tally.count(entries)


def batches(found: Iterator[Record | Fault], tally: Tally, after: int = 0) -> Iterator[list[Record]]:
    """Records behind a number, bounded in their count and in bytes; the tally has the faults between them."""
    batch: list[Record] = []
    size = 0
    for record in found:
        if record.number <= after:
            continue
        if isinstance(record, Fault):
            tally.note(record)
            continue
        batch.append(record)
        size += len(record.message.payload)
        if len(batch) >= BATCH_MESSAGES or size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    yield batch


def kept(batch: Sequence[Record], formats: Ingested, tally: Tally) -> list[Entry]:
    """The entries of a batch: read by the formats where they are not events yet, as the gateway reads what arrives."""
    tally.records += len(batch)
    foreign = [record for record in batch if record.events is not None or not is_own(record.message)]
    outcomes = iter(formats.read_all([record.message for record in foreign if record.events is None]))
    found = [(record, next(outcomes) if record.events is None else record.events) for record in foreign]
    entries = [(numbered(record), outcome) for record, outcome in found if outcome is not IGNORED]
    tally.ignored += len(batch) - len(entries)
    return entries


def numbered(record: Record) -> Message:
    """The message with its record's number where a packet id would be: it tells how far an import came."""
    return msgspec.structs.replace(record.message, packet_id=record.number)
