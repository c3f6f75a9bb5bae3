"""Reads messages that are nearly right, by the million if asked: none may crash a reader, hang it, or fail to store.

`python -m tests.formats.fuzz --messages 1000000 --seed 7` prints what it found; the tests run it short.
`--corpus FILE` takes its seeds from messages in the lines that `amber normalize` reads, beside the golden cases.
`--coverage` lets atheris choose the bytes, where that is installed.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from pathlib import Path
from typing import NamedTuple

import msgspec

from gateway.formats import Formats
from gateway.normalize import Line, to_message
from storage.event import Message, Rejection
from tests.formats.mutations import mutant, seeds
from tests.formats.storable import assert_storable

MOST_MS = 50
"""What one message may take, of processor time: the wall clock of a busy machine proves nothing."""

FORGET_AFTER = 20_000
"""Messages after which a new instance begins, without lessons."""

Seeds = tuple[tuple[str, Message], ...]


class Report(NamedTuple):
    """What became of the messages, and each that became what it must not."""

    messages: int
    events: int
    rejections: int
    slowest_ms: float
    faults: list[str]


def fuzz(count: int, seed: int, among: Seeds | None = None) -> Report:
    """Read `count` mutants."""
    rng = random.Random(seed)
    among = among or seeds()
    formats = Formats()
    events = rejections = 0
    slowest, faults = 0.0, list[str]()
    for number in range(count):
        if number % FORGET_AFTER == 0:
            formats = Formats()
        sent = mutant(rng, rng.choice(among)[1], among)
        started = time.thread_time()
        outcome = formats.read(sent)
        spent_ms = 1_000 * (time.thread_time() - started)
        if spent_ms > MOST_MS:
            spent_ms = quickest_ms(formats, sent)
        slowest = max(slowest, spent_ms)
        if spent_ms > MOST_MS:
            faults.append(f"{spent_ms:.0f} ms: {shown(sent)}")
        try:
            assert_storable(outcome, sent)
        except AssertionError as fault:
            faults.append(f"{str(fault)[:300]}: {shown(sent)}")
        rejections += isinstance(outcome, Rejection)
        events += 0 if isinstance(outcome, Rejection) else len(outcome)
        formats.take_lessons()
    return Report(count, events, rejections, slowest, faults)


def quickest_ms(formats: Formats, sent: Message) -> float:
    """The best of three: what a message costs when nothing else gets in its way."""
    spent = []
    for _ in range(3):
        started = time.thread_time()
        formats.read_again(sent)
        spent.append(1_000 * (time.thread_time() - started))
    return min(spent)


def shown(sent: Message) -> str:
    return f"{sent.topic[:200]!r} {sent.payload[:400]!r} {sent.properties}"


def recorded(file: Path) -> Seeds:
    """Messages in lines of JSON, under the name of their format, as far as they have one."""
    lines = file.read_bytes().splitlines()
    return tuple(("", to_message(msgspec.json.decode(line, type=Line))) for line in lines)


def covered(among: Seeds) -> None:
    """Let atheris choose bytes by what they reach, until it is interrupted."""
    try:
        import atheris  # type: ignore[import-not-found,import-untyped,unused-ignore]
    except ImportError:
        sys.exit("fuzz: atheris is not installed: pip install atheris (it has wheels for some Pythons on Linux)")
    atheris.instrument_all()
    formats = Formats()

    def one(data: bytes) -> None:
        provider = atheris.FuzzedDataProvider(data)
        topic = among[provider.ConsumeIntInRange(0, len(among) - 1)][1].topic
        sent = Message(topic, provider.ConsumeBytes(len(data)), 0, retain=False, received_at=1_795_338_000_000_000)
        assert_storable(formats.read(sent), sent)

    atheris.Setup(sys.argv[:1], one)
    atheris.Fuzz()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--corpus", type=Path)
    parser.add_argument("--coverage", action="store_true")
    arguments = parser.parse_args()
    among = (*seeds(), *(recorded(arguments.corpus) if arguments.corpus else ()))
    if arguments.coverage:
        covered(among)
    started = time.perf_counter()
    report = fuzz(arguments.messages, arguments.seed, among)
    rate = report.messages / (time.perf_counter() - started)
    for fault in report.faults[:50]:
        print(fault)
    print(
        f"{report.messages:,} messages of {len(among)} seeds: {report.events:,} events, {report.rejections:,} "
        f"rejections, {len(report.faults)} faults; the slowest took {report.slowest_ms:.1f} ms; {rate:,.0f}/s"
    )
    sys.exit(1 if report.faults else 0)


if __name__ == "__main__":
    main()
