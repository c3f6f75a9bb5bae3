"""Commands that are killed at random moments and started again until they are done: exports and imports.

`python -m tests.storage.killing --kills 200 --seed 7` does with every sort of file what the tests do with few.
"""

from __future__ import annotations

import argparse
import gzip
import io
import random
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pyarrow.parquet as pq
import zstandard

from storage.event import Entry, Event, Message
from storage.history import Reader
from storage.store import Store, StoreOptions
from tests.storage.histories import NOON, ROOT

EXPORT = """
import signal, sys
from storage.export import parquet, text
from gateway.__main__ import run
text.CHECKPOINT_S, parquet.GROUP_ROWS, parquet.PART_ROWS = 0.001, 1_000, 3_000
import storage.export_cli, storage.render, storage.engine
if "parquet" in sys.argv[2]:
    import pyarrow.parquet
signal.setitimer(signal.ITIMER_REAL, float(sys.argv[1]))  # nobody hears it: the process is gone, as after kill -9
sys.exit(run(["export", "--payload", "--resume", "-o", *sys.argv[2:]]))
"""

IMPORT = """
import signal, sys
from gateway import importing
from gateway.__main__ import run
import gateway.config, storage.log, storage.replacing, storage.migrations
importing.BATCH_MESSAGES = 100
signal.setitimer(signal.ITIMER_REAL, float(sys.argv[1]))
sys.exit(run(["import", *sys.argv[2:]]))
"""


def run_killed(program: str, words: list[str], kills: int, rng: random.Random, longest_s: float) -> list[int]:
    """Run it so often, each time killed within `longest_s`, and then to its end; how each run ended."""
    ends: list[int] = []
    while not ends or ends[-1] == -signal.SIGALRM:
        moment = rng.uniform(0.005, longest_s) if len(ends) < kills else 60
        command = [sys.executable, "-c", program, str(moment), *words]
        ends.append(subprocess.run(command, cwd=ROOT, check=False, stderr=subprocess.DEVNULL).returncode)
    return ends


def export_killed(store: Path, file: Path, kills: int, rng: random.Random) -> None:
    """An export that is done in the end, whatever kills it before."""
    ends = run_killed(EXPORT, [str(file), "--store", str(store)], kills, rng, 0.15)
    assert ends[-1] == 0 or (ends[-1] == 1 and file.exists()), ends  # 1: it was done before the last kill
    assert [path.name for path in file.parent.iterdir() if path.name.startswith(f"{file.name}.part")] == []


def import_killed(file: Path, store: Path, kills: int, rng: random.Random) -> None:
    """An import that is done in the end."""
    ends = run_killed(IMPORT, [str(file), "--store", str(store)], kills, rng, 0.6)
    assert ends[-1] in (0, 1), ends  # 1: it was done before the last kill


def content(file: Path) -> object:
    """What is in an export, whatever pieces it was compressed in."""
    if file.suffix == ".parquet":
        return pq.read_table(file).to_pylist()
    data = file.read_bytes()
    if file.suffix == ".zst":
        return zstandard.ZstdDecompressor().stream_reader(io.BytesIO(data), read_across_frames=True).read()
    return gzip.decompress(data) if file.suffix == ".gz" else data


def long_store(path: Path, events: int) -> Path:
    """A store of several pages and segments."""
    store = Store(path, StoreOptions(free_floor_bytes=0, segment_events=2_500))
    entries: list[Entry] = []
    for n in range(events):
        message = Message("a/b", b"%d" % n, 0, retain=False, received_at=NOON + n)
        entries.append((message, [Event(f"thermo-{n % 7}", "measurement", "json", NOON + n, {"n": n, "on": True})]))
    store.append(entries, 1)
    store.close()
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=50, help="of each sort of file")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--events", type=int, default=20_000)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = long_store(Path(folder) / "amber.db", asked.events)
        for name in ("a.jsonl", "a.csv", "a.parquet", "a.jsonl.gz", "a.csv.zst"):
            rng = random.Random(f"{asked.seed} {name}")
            whole, file, again = (Path(folder) / f"{word}{name}" for word in ("whole-", "", "store-"))
            export_killed(store, whole, 0, rng)
            export_killed(store, file, asked.kills, rng)
            assert content(file) == content(whole)
            import_killed(file, again, asked.kills, rng)
            with Reader(store) as one, Reader(again) as other:
                assert one.count() == other.count() == asked.events
            sys.stdout.write(f"{name}: killed {asked.kills} times on its way out and in, and whole\n")


if __name__ == "__main__":
    main()
