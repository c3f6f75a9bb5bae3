"""What people ask of a large store, and what it costs them: time and memory of whole commands, and of the reader alone.

The store: ten thousand devices over a month, four readings an event, summed up by a keeper.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from bench import rig
from storage.event import Event, Message
from storage.filters import Filters
from storage.history import Reader
from storage.store import Store, StoreOptions
from storage.summaries.keeping import Keeper
from storage.summaries.latest import Latest
from storage.summaries.presence import Presence
from storage.summaries.rollups import Rollups
from storage.times import iso

DEVICES = 10_000
BATCH = 5_000
DAY_US = 86_400_000_000
MONTH_US = 30 * DAY_US
START = 1_763_424_000_000_000
FOLLOWED = 5_000


def main(events: int = 1_000_000) -> None:
    """Make a store with so many events and ask it; 10 000 000 for the figures in the documentation.

    A store that `AMBER_BENCH_STORE` names is used as it is where it is there, and else made there and kept.
    """
    with contextlib.ExitStack() as stack:
        kept = os.environ.get("AMBER_BENCH_STORE")
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="amber-bench-"))
        store = Path(kept) if kept else Path(folder) / "history.db"
        if not store.exists():
            rig.table("Making the store", make(store, events), ("what", "events/s"))
        with Reader(store) as reader:
            status = reader.status()
        title = f"A store of {status.events:,} events, {status.devices:,} devices, {status.series:,} series, a month"
        rig.table(title, ask(store, status.events, Path(folder)), ("what", "median", "worst", "peak RSS MB"))
        rig.table("Following it from another process", [follow(store)], ("events", "p50 ms", "p99 ms", "worst ms"))


def make(path: Path, events: int) -> list[tuple[str, str]]:
    """A store as ingest would leave it, made without a broker, and then all that is summed up from it."""
    started = time.perf_counter()
    store = Store(path, StoreOptions())
    session = store.open_session("bench", "mqtt://bench", resumed=False)
    for start in range(0, events, BATCH):
        store.append([entry(n, START + MONTH_US * n // events) for n in range(start, start + BATCH)], session)
    store.close()
    filled = time.perf_counter()
    with Keeper(path, [Latest, Presence, Rollups]) as keeper:
        keeper.catch_up()
    kept = time.perf_counter()
    return [
        ("appended", f"{events / (filled - started):,.0f}"),
        ("summed up by the keeper", f"{events / (kept - filled):,.0f}"),
    ]


def entry(n: int, at: int) -> tuple[Message, list[Event]]:
    device = f"bench-{n * 7_919 % DEVICES:05}"
    readings = {"temperature": n % 977 / 100, "humidity": n % 311 / 10, "battery": 3.71, "ok": True}
    message = Message(
        f"devices/{device}/telemetry", rig.payload(n), 1, retain=False, received_at=at, packet_id=n % 65_535 + 1
    )
    return message, [Event(device, "measurement", "json", at, readings, from_device=True, seq=n)]


def ask(store: Path, events: int, folder: Path) -> list[tuple[str, str, str, str]]:
    middle = START + MONTH_US // 2
    span = 100 * MONTH_US * DEVICES // events // 2 + 1
    since, until = middle - span, min(middle + span, START + MONTH_US)
    one = Filters(devices=("bench-04242",), since=since, until=until, clock="observed")
    month = {"since": START, "until": START + MONTH_US}
    times = ("--since", iso(START), "--until", iso(START + MONTH_US))
    with Reader(store) as reader:
        rows = [
            in_process("100 events of one device in a range", lambda: page(reader, one, min(100, events // DEVICES))),
            in_process(
                "a month's hourly buckets of one series",
                lambda: reader.buckets("bench-00042", "temperature", every_us=3_600_000_000, **month),
            ),
        ]
    rows += [
        command(store, "`amber events` of one device in that range", "events", "-n", "100", "--device", "bench-04242",
                "--clock", "observed", "--since", iso(since), "--until", iso(until)),
        command(store, "`amber latest` of everything, from a cold disk", "latest", "--format", "jsonl", cold=True),
        command(store, "`amber devices`", "devices", "--format", "jsonl"),
        command(store, "`amber chart` of a month, hourly", "chart", "bench-00042", "temperature", "--every", "1h",
                *times, "--format", "csv"),
        command(store, "`amber consume --once` of 100 000", "consume", "bench", "--once", "--batch", "1000",
                "--from", str(position_before(store, 100_000)), undo=("consumers", "remove", "bench")),
    ]  # fmt: skip
    rows += [
        rate(store, events, "`amber replay --speed max`", "replay", "--speed", "max"),
        rate(
            store, events, "`amber export` to JSON lines", "export", "--format", "jsonl", "-o", str(folder / "a.jsonl")
        ),
        rate(
            store, events, "`amber export` to Parquet", "export", "--format", "parquet", "-o", str(folder / "a.parquet")
        ),
        rate(store, events, "`amber backup`, verified", "backup", str(folder / "backup.db")),
        rate(store, events, "`amber check`", "check"),
    ]
    return rows


def page(reader: Reader, filters: Filters, wanted: int) -> None:
    got = sum(map(len, reader.pages(filters, limit=100)))
    if got < wanted - 2:
        raise AssertionError(f"{got} events instead of {wanted}")


def position_before(store: Path, count: int) -> int:
    with Reader(store) as reader:
        return reader.position() - count * 10_000


Row = tuple[str, str, str, str]


def in_process(what: str, question: Callable[[], object]) -> Row:
    question()
    taken = [timed(question) for _ in range(21)]
    return what, f"{1000 * rig.median(taken):.1f} ms", f"{1000 * max(taken):.1f} ms", "–"


def timed(question: Callable[[], object]) -> float:
    started = time.perf_counter()
    question()
    return time.perf_counter() - started


class Ran(NamedTuple):
    seconds: float
    peak_mb: float


def command(store: Path, what: str, *words: str, cold: bool = False, undo: Sequence[str] = ()) -> Row:
    ran = []
    for _ in range(5):
        if cold:
            forget(store)
        ran.append(run(store, *words))
        if undo:
            run(store, *undo)
    seconds = [one.seconds for one in ran]
    return what, f"{rig.median(seconds):.2f} s", f"{max(seconds):.2f} s", f"{max(one.peak_mb for one in ran):.0f}"


def rate(store: Path, events: int, what: str, *words: str) -> Row:
    ran = run(store, *words)
    return what, f"{events / ran.seconds:,.0f} /s", f"{ran.seconds:.1f} s", f"{ran.peak_mb:.0f}"


def run(store: Path, *words: str) -> Ran:
    """A whole command with its output thrown away: how long it took, and the most memory that it had."""
    with tempfile.NamedTemporaryFile("r") as said:
        started = time.perf_counter()
        process = subprocess.run(
            [sys.executable, "-P", "-c", AMBER, said.name, *words],
            stdout=subprocess.DEVNULL,
            cwd=rig.ROOT,
            env={**os.environ, "PYTHONPATH": str(rig.ROOT), "AMBER_STORE": str(store)},
            check=False,
        )
        seconds = time.perf_counter() - started
        if process.returncode:
            raise RuntimeError(f"amber {' '.join(words)} ended with status {process.returncode}")
        return Ran(seconds, int(re.search(r"VmHWM:\s+(\d+)", said.read())[1]) / 1000)  # type: ignore[index]


# The system's own figure for a child begins with that of its parent, which is a large one here.
AMBER = """
import atexit, pathlib, sys
said = pathlib.Path(sys.argv.pop(1))
atexit.register(lambda: said.write_text(pathlib.Path("/proc/self/status").read_text()))
from gateway.__main__ import main
main()
"""


def forget(store: Path) -> None:
    """Have the operating system read the file from the disk again."""
    with store.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def follow(path: Path) -> tuple[str, ...]:
    """How long after its commit `follow` gives an event out, while a thousand a second come, each its own commit."""
    stop, seen = threading.Event(), dict[int, float]()
    with Reader(path) as reader:
        pages = reader.follow(Filters(after=reader.position()), stop=stop)
        writer = subprocess.Popen(
            [sys.executable, "-P", "-m", "bench.history", str(path)],
            stdout=subprocess.PIPE,
            cwd=rig.ROOT,
            env={**os.environ, "PYTHONPATH": str(rig.ROOT)},
            text=True,
        )
        for found in pages:
            now = time.monotonic()
            seen.update((event.id, now) for event in found)
            if len(seen) >= FOLLOWED:
                stop.set()
    committed = [line.split() for line in writer.communicate()[0].splitlines()]
    delays = sorted(1000 * (seen[int(id)] - float(at)) for id, at in committed)
    figures = delays[len(delays) // 2], delays[-len(delays) // 100], delays[-1]
    return f"{len(delays):,}", *(f"{value:.1f}" for value in figures)


def append_slowly(path: Path) -> Iterator[tuple[int, float]]:
    """Append at a thousand a second, each in a transaction of its own: the position and the moment of each commit."""
    store = Store(path, StoreOptions())
    session = store.open_session("bench", "mqtt://bench", resumed=False)
    started = time.monotonic()
    for n in range(FOLLOWED):
        time.sleep(max(0.0, started + n / 1_000 - time.monotonic()))
        committed = store.append([entry(n, START + MONTH_US + 1_000 * n)], session)
        yield committed.position, time.monotonic()
    store.close()


if __name__ == "__main__":
    print("\n".join([f"{position} {moment}" for position, moment in append_slowly(Path(sys.argv[1]))]))
