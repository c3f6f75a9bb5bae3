"""Reads stored messages again after a rule or a format changed: shows what would differ, and puts it in place."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from gateway import outcomes
from gateway.formats import IGNORED, Formats
from gateway.formats.patience import is_impatient
from storage.event import Event, Fact, Outcome, Rejection, StoredEvent
from storage.filters import Filters
from storage.history import Reader
from storage.outcomes import StoredOutcome
from storage.replacing import Replaced
from storage.rereading import Rewriter
from storage.times import iso

TEACHING = Filters(kinds=("birth", "discovery"))
"""Messages that are read on the way, whatever the filters say: they teach how to read those that follow."""

STAGED_MESSAGES = 500

Make = Callable[[Iterable[Fact]], Formats]

Taught = dict[tuple[str, str], Fact]
"""The newest facts, by format and key."""


class Choice(NamedTuple):
    """Which stored messages to read again."""

    filters: Filters
    formats: tuple[str, ...] = ()
    rejected_only: bool = False


class Reading(NamedTuple):
    """A stored message and what it becomes now."""

    stored: StoredOutcome
    outcome: Outcome


class Difference:
    """How what messages become differs from what became of them: counts, and the first few of each sort."""

    def __init__(self, samples: int) -> None:
        self.messages = 0
        self.changes: Counter[tuple[str, str]] = Counter()
        self.samples: dict[tuple[str, str], list[Reading]] = {}
        self._most = samples

    def note(self, reading: Reading) -> bool:
        """Count a reading; whether it differs."""
        self.messages += 1
        if same(reading) or is_impatient(reading.outcome):
            return False
        stored, outcome = reading
        now = ((), outcome) if isinstance(outcome, Rejection) else (outcome, None)
        change = said(stored.events, stored.rejection), said(*now)
        self.changes[change] += 1
        shown = self.samples.setdefault(change, [])
        if len(shown) < self._most:
            shown.append(reading)
        return True

    @property
    def changed(self) -> int:
        return self.changes.total()


def readings(path: Path, choice: Choice, make: Make, learned: Taught | None = None) -> Iterator[Reading]:
    """Read the chosen messages again in their order, knowing at each what the log had taught by then.

    What they teach goes to `learned`.
    """
    with Reader(path) as reader, Reader(path) as beside:
        formats = make(reader.facts())
        for stored, wanted in _walk(reader, beside, choice):
            outcome = formats.read_in_full(stored.message)
            facts = formats.take_lessons().facts
            if learned is not None:
                learned.update(((fact.format, fact.key), fact) for fact in facts)
            if wanted:
                yield Reading(stored, () if outcome is IGNORED else outcome)


def replace(path: Path, choice: Choice, make: Make, tick: Callable[[int], None]) -> tuple[Replaced, int]:
    """Put what differs in place, beside a running gateway or without one; and how many facts are new.

    Raises StoreError.
    """
    staged: list[tuple[int, Outcome]] = []
    learned: Taught = {}
    difference = Difference(0)
    with Rewriter(path) as rewriter:
        for reading in readings(path, choice, make, learned):
            if difference.note(reading):
                staged.append((reading.stored.message_id, reading.outcome))
            if len(staged) >= STAGED_MESSAGES:
                rewriter.stage(staged)
                staged.clear()
            tick(difference.messages)
        rewriter.stage(staged)
        rewriter.exchange()
        return rewriter.replaced, rewriter.learn(learned.values())


def same(reading: Reading) -> bool:
    """Whether a message becomes what it became."""
    stored, outcome = reading
    if isinstance(outcome, Rejection):
        return stored.rejection == outcome
    if stored.rejection is not None or len(stored.events) != len(outcome):
        return False
    return all(_same_event(old, new) for old, new in zip(stored.events, outcome, strict=True))


def said(events: Sequence[Event | StoredEvent], rejection: Rejection | None) -> str:
    """What becomes of a message, in a word: its format, or that it is rejected."""
    if rejection is not None:
        return f"rejected by {rejection.format}" if rejection.format else "rejected"
    return ", ".join(sorted({event.format for event in events})) or "nothing"


def sample_lines(reading: Reading) -> Iterator[str]:
    """A message with what became of it and what it becomes, a line each."""
    stored, outcome = reading
    yield f"message {stored.message_id} · {stored.message.topic} · {iso(stored.message.received_at)}"
    if stored.rejection is not None:
        yield f"  old  rejected: {stored.rejection.reason}"
    for old in stored.events[:3]:
        yield f"  old  {old.kind} of {old.device} at {iso(old.observed_at)} {old.readings} {_units(old.units)}"
    if isinstance(outcome, Rejection):
        yield f"  new  rejected: {outcome.reason}"
        return
    for new in outcome[:3]:
        text = outcomes.event(new)
        encoded = msgspec.json.encode(new.readings).decode()
        yield f"  new  {new.kind} of {new.device} at {text['observed_at']} {encoded} {_units(new.units or {})}"


def _walk(reader: Reader, beside: Reader, choice: Choice) -> Iterator[tuple[StoredOutcome, bool]]:
    """The chosen messages, and between them those that only teach."""
    chosen = reader.outcomes(choice.filters, formats=choice.formats, rejected_only=choice.rejected_only)
    wanted = ((one.message_id, 0, one) for page in chosen for one in page)
    if choice == Choice(Filters()):
        yield from ((one, True) for _, _, one in wanted)
        return
    teaching = ((one.message_id, 1, one) for page in beside.outcomes(TEACHING) for one in page)
    last = 0
    for message_id, only_teaches, one in heapq.merge(wanted, teaching, key=lambda entry: entry[:2]):
        if message_id != last:
            yield one, not only_teaches
        last = message_id


def _same_event(old: StoredEvent, new: Event) -> bool:
    detail = None if new.detail is None else msgspec.json.encode(new.detail).decode()
    return (
        (old.device, old.kind, old.format) == (new.device, new.kind, new.format)
        and (old.observed_at, old.from_device, old.seq) == (new.observed_at, new.from_device, new.seq)
        and old.readings == msgspec.json.encode(new.readings).decode()
        and (old.detail or "{}") == (detail or "{}")
        and all(_same_unit(old, new, name, code) for name, code in (new.units or {}).items())
    )


def _same_unit(old: StoredEvent, new: Event, name: str, code: str) -> bool:
    """A better source's unit stands: a difference is only what a message or a rule states."""
    source = (new.unit_sources or {}).get(name, "message")
    is_text = type(new.readings[name]) is str  # which is shown without one
    return old.units.get(name) == code or is_text or (name in old.units and source in ("format", "learned"))


def _units(units: object) -> str:
    return msgspec.json.encode(units, order="sorted").decode() if units else ""
