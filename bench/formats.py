"""How many messages a second each format reads on one core, beside what merely decoding JSON takes."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from bench import rig
from gateway.formats import Formats
from storage.event import Message, Properties, Rejection

CASES = rig.ROOT / "tests" / "formats" / "cases"
RECEIVED_AT = 1_795_338_000_000_000
SPAN_S = 0.1
ROUNDS = 3
LEAST_PER_S = 10_000


class Sent(msgspec.Struct):
    """A message of a golden case."""

    topic: str | list[tuple[str, int]]
    payload: str | list[tuple[str, int]] = ""
    payload_hex: str = ""
    properties: Properties | None = None

    def message(self) -> Message:
        payload = bytes.fromhex(self.payload_hex) or _whole(self.payload).encode()
        return Message(
            _whole(self.topic), payload, 0, retain=False, received_at=RECEIVED_AT, properties=self.properties
        )


class Case(Sent):
    """A golden case, as far as it is a message to read."""

    before: list[Sent] = []


def main(rounds: int = ROUNDS) -> None:
    """Read the golden cases of each format again and again."""
    telemetry = [
        Message(f"devices/bench-{n:05}/telemetry", rig.payload(n), 1, retain=False, received_at=RECEIVED_AT)
        for n in range(1_000)
    ]
    payloads = [message.payload for message in telemetry]
    decode = msgspec.json.decode
    formats = Formats()
    ceiling = rate(lambda: [decode(payload) for payload in payloads], len(payloads), rounds)
    rows = [
        ("msgspec decodes it: the ceiling", ceiling),
        ("the standard library decodes it", rate(lambda: [json.loads(p) for p in payloads], len(payloads), rounds)),
        ("Amber reads it", rate(lambda: formats.read_all(telemetry), len(telemetry), rounds)),
    ]
    rig.table(
        f"Telemetry in JSON, {len(payloads[0])} bytes",
        [(what, f"{found:,.0f}", f"{found / ceiling:.2f}") for what, found in rows],
        ("what", "messages/s", "ratio"),
    )
    found = sorted(each(rounds), key=lambda row: row[2])
    rig.table(
        "Each format, over its golden cases",
        [(name, str(count), f"{speed:,.0f}", f"{speed / ceiling:.3f}") for name, count, speed in found],
        ("format", "messages", "messages/s", "ratio"),
    )
    slow = [name for name, _, speed in found if speed < LEAST_PER_S]
    print(f"under {LEAST_PER_S:,} messages/s: {', '.join(slow) or 'none'}")


def each(rounds: int) -> list[tuple[str, int, float]]:
    """Name, number of messages and messages a second of every format that has cases."""
    found: dict[str, list[tuple[Formats, Message]]] = {}
    for path in sorted(CASES.rglob("*.json")):
        if path.parent.name != "hostile":
            _sort_in(path, found)
    return [(name, len(pairs), _speed(pairs, rounds)) for name, pairs in found.items()]


def _sort_in(path: Path, found: dict[str, list[tuple[Formats, Message]]]) -> None:
    case = msgspec.json.decode(path.read_bytes(), type=Case)
    formats = Formats()
    for earlier in case.before:
        formats.read(earlier.message())
    outcome = formats.read(case.message())
    if not isinstance(outcome, Rejection) and outcome:
        found.setdefault(outcome[0].format, []).append((formats, case.message()))


def _speed(pairs: Sequence[tuple[Formats, Message]], rounds: int) -> float:
    def read() -> None:
        for formats, message in pairs:
            formats.read(message)

    return rate(read, len(pairs), rounds)


def rate(work: Callable[[], object], messages: int, rounds: int) -> float:
    """Messages a second: the median of some rounds."""
    work()
    speeds = []
    for _ in range(rounds):
        times, started = 0, time.perf_counter()
        while time.perf_counter() - started < SPAN_S:
            work()
            times += 1
        speeds.append(times * messages / (time.perf_counter() - started))
    return statistics.median(speeds)


def _whole(text: str | list[tuple[str, int]]) -> str:
    return text if isinstance(text, str) else "".join(part * times for part, times in text)
