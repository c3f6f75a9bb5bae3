"""How long answers take out of a large store, and how fast it plays back: whole commands and the reader alone."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench import rig
from storage.event import Event, Message
from storage.filters import Filters
from storage.history import Reader
from storage.store import Store, StoreOptions

BATCH = 5_000
START = 1_763_802_000_000_000


def main(events: int = 1_000_000) -> None:
    """Fill a store with events of 10 000 devices and ask it; 10 000 000 for the figures in the documentation."""
    with tempfile.TemporaryDirectory(prefix="amber-bench-") as name:
        store = Path(name) / "asking.db"
        fill(store, events)
        rig.table(
            f"Asking a store of {events:,} events, 10 000 devices", ask(store, events), ("what", "median", "worst")
        )
        rig.table("Replaying it", play(store, min(events, 2_000_000)), ("what", "events/s"))


def fill(path: Path, events: int) -> None:
    """A store as ingest would leave it, made without a broker."""
    store = Store(path, StoreOptions())
    session = store.open_session("bench", "mqtt://bench", resumed=False)
    for start in range(0, events, BATCH):
        store.append([_entry(n) for n in range(start, start + BATCH)], session)
    store.close()


def _entry(n: int) -> tuple[Message, list[Event]]:
    device = f"bench-{n * 7_919 % 10_000:05}"
    at = START + 1_000 * n
    readings = {"temperature": n % 977 / 100, "humidity": n % 311 / 10, "battery": 3.71, "ok": True}
    message = Message(
        f"devices/{device}/telemetry", rig.payload(n), 1, retain=False, received_at=at, packet_id=n % 65_535 + 1
    )
    return message, [Event(device, "measurement", "json", at, readings, from_device=True, seq=n)]


def ask(store: Path, events: int) -> list[tuple[str, str, str]]:
    middle = START + 500 * events
    span = 100 * 10_000 * 1_000 // 2
    one = Filters(devices=("bench-04242",), since=middle - span, until=middle + span, clock="observed")
    with Reader(store) as reader:
        rows = [
            ("100 events of one device in a range", *timed(lambda: read(reader, one, 100))),
            (
                "the newest 10 of one device",
                *timed(lambda: read(reader, Filters(devices=("bench-00007",)), 10, newest=True)),
            ),
            ("the newest 10", *timed(lambda: read(reader, Filters(), 10, newest=True))),
        ]
    command = [sys.executable, "-m", "gateway", "events", "-n", "10", "--store", str(store)]
    rows.append(("`amber events -n 10`, the whole process", *timed(lambda: run(command))))
    return rows


def read(reader: Reader, filters: Filters, limit: int, *, newest: bool = False) -> None:
    got = sum(len(page) for page in reader.pages(filters, limit=limit, newest_first=newest))
    if got != limit:
        raise AssertionError(f"{got} events instead of {limit}")


def run(command: list[str]) -> None:
    subprocess.run(command, cwd=rig.ROOT, stdout=subprocess.DEVNULL, check=True)


def timed(question: Callable[[], None], times: int = 11) -> tuple[str, str]:
    question()
    taken = []
    for _ in range(times):
        started = time.perf_counter()
        question()
        taken.append(1000 * (time.perf_counter() - started))
    return f"{rig.median(taken):.1f} ms", f"{max(taken):.1f} ms"


def play(store: Path, events: int) -> list[tuple[str, str]]:
    started = time.perf_counter()
    with Reader(store) as reader, Path(os.devnull).open("w") as sink:
        sink.writelines("\n".join(page) for page in reader.line_pages(limit=events))
    lines = events / (time.perf_counter() - started)
    command = [sys.executable, "-m", "gateway", "replay", "--speed", "max", "-n", str(events), "--store", str(store)]
    started = time.perf_counter()
    run(command)
    whole = events / (time.perf_counter() - started)
    return [
        ("reader to JSON lines", f"{lines:,.0f}"),
        ("`amber replay --speed max`, the whole process", f"{whole:,.0f}"),
    ]
