"""Ingest while everything else happens at once: roll-ups, retention, a follower and a backup, against ingest alone."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from bench import rig
from storage.event import EVENTS_PER_MESSAGE
from storage.history import Reader

RATE = 50_000
SEGMENT_EVENTS = 200_000
ALONE = {"AMBER_KEEPER__ENABLED": "false"}
TOGETHER = {"AMBER_KEEPER__ENABLED": "true"}
MAX_AGE, PRUNED_EVERY_S = "4s", 2.0
"""The keeper looks once a minute for what is to go: here `amber prune` does its work, again and again."""
ENVIRONMENT = {"AMBER_SEGMENTS__EVENTS": str(SEGMENT_EVENTS), "AMBER_LOG__STATUS_INTERVAL_S": "1"}


def main(seconds: int = 20) -> None:
    """Publish at 50 000/s for so long, twice: to a gateway alone, and to one with all the rest beside it."""
    with tempfile.TemporaryDirectory(prefix="amber-bench-") as name:
        alone = ingest(Path(name) / "alone", seconds, together=False)
        together = ingest(Path(name) / "together", seconds, together=True)
    rows = [
        (what, f"{one:,.1f}", f"{other:,.1f}", f"{other / one:.2f}" if one else "–")
        for what, one, other in zip(FIGURES, alone, together, strict=True)
    ]
    rig.table(f"Ingest of {RATE:,}/s for {seconds} s", rows, ("what", "alone", "with everything", "ratio"))


FIGURES = (
    "messages published",
    "messages stored",
    "positions that a follower saw",
    "commit p99 ms",
    "commit mean ms",
    "stored after the last publish, s",
    "peak RSS MB",
)


def ingest(folder: Path, seconds: int, *, together: bool) -> list[float]:
    folder.mkdir()
    store, count = folder / "amber.db", RATE * seconds
    with rig.broker(folder) as broker, environment(TOGETHER if together else ALONE):
        gateway = rig.Gateway(broker, store)
        with gateway, contextlib.ExitStack() as beside:
            rig.wait_until_subscribed(store.with_suffix(".log"))
            lines = folder / "followed.txt"
            if together:
                beside.enter_context(
                    running("follower", [sys.executable, "-P", "-m", "bench.together", str(store), str(lines)])
                )
                time.sleep(1)
                beside.enter_context(pruned(store))
            publisher = subprocess.Popen(
                [
                    sys.executable,
                    "-P",
                    "-c",
                    f"from bench import rig; rig.publish({broker.port}, 0, {count}, rate={RATE})",
                ],
                cwd=rig.ROOT,
                env={**os.environ, "PYTHONPATH": str(rig.ROOT)},
            )
            if together:
                time.sleep(seconds / 4)
                command = [
                    sys.executable,
                    "-P",
                    "-m",
                    "gateway",
                    "backup",
                    str(folder / "backup.db"),
                    "--store",
                    str(store),
                ]
                backup = subprocess.Popen(command, cwd=rig.ROOT, env={**os.environ, "PYTHONPATH": str(rig.ROOT)})
            if publisher.wait():
                raise RuntimeError("the publisher failed")
            published = time.monotonic()
            with Reader(store) as reader:
                behind = rig.wait_for(reader, count) - published
            if together:
                if backup.wait():
                    raise RuntimeError("the backup failed")
                with Reader(folder / "backup.db") as reader:
                    print(f"backup: {reader.status().events:,} events, up to {reader.position():,}")
                seen = followed(lines, count)
            peak = gateway.peak_mb()
            gateway.stop()
        said = re.findall(r"stopped: .*", store.with_suffix(".log").read_text())[-1]
        print(said)
        stored = int(re.search(r"stored ([\d,]+) messages", said)[1].replace(",", ""))  # type: ignore[index]
        mean, p99 = map(float, re.search(r"commit ([\d.]+) ms \(p99 ([\d.]+)\)", said).groups())  # type: ignore[union-attr]
        with Reader(store) as reader:
            print(f"left in the store: {reader.status().events:,} events in {reader.status().segments} segments")
    return [count, stored, seen if together else 0, p99, mean, behind, peak]


def followed(lines: Path, count: int) -> int:
    """How many positions the follower has seen once; it gets half a minute to catch up."""
    patience = time.monotonic() + 30
    while time.monotonic() < patience:
        found = lines.read_text().split()
        if found and int(found[-1]) >= count * EVENTS_PER_MESSAGE:
            break
        time.sleep(0.2)
    return int(lines.read_text().split()[-2])


@contextlib.contextmanager
def running(what: str, command: list[str]) -> Iterator[None]:
    process = subprocess.Popen(command, cwd=rig.ROOT, env={**os.environ, "PYTHONPATH": str(rig.ROOT)})
    try:
        yield
        if process.poll() is not None:
            raise RuntimeError(f"the {what} ended with status {process.returncode}")
    finally:
        process.terminate()
        process.wait()


@contextlib.contextmanager
def pruned(store: Path) -> Iterator[None]:
    """Retention at work, in a process of its own each time."""
    stop = threading.Event()

    def prune() -> None:
        command = [sys.executable, "-P", "-m", "gateway", "prune", "--max-age", MAX_AGE, "--store", str(store)]
        environment = {**os.environ, "PYTHONPATH": str(rig.ROOT)}
        while not stop.wait(PRUNED_EVERY_S):
            subprocess.run(command, cwd=rig.ROOT, env=environment, capture_output=True, check=True)

    thread = threading.Thread(target=prune)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@contextlib.contextmanager
def environment(more: dict[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update({**ENVIRONMENT, **more})
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def follow(store: Path, lines: Path) -> None:
    """Follow the log and write down how many positions came, each above the one before, and the last of them."""
    seen = last = 0
    with Reader(store) as reader:
        for page in reader.follow():
            for event in page:
                if event.id <= last:
                    raise AssertionError(f"position {event.id} came after {last}")
                seen, last = seen + 1, event.id
            lines.with_suffix(".new").write_text(f"{seen} {last}\n")
            lines.with_suffix(".new").replace(lines)


if __name__ == "__main__":
    follow(Path(sys.argv[1]), Path(sys.argv[2]))
