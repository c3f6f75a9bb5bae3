"""What simulated devices cost, and how much they can say: both clients beside a raw socket, on the same broker."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from bench import rig
from devices.broker import Mosquitto

LOOKS = 2
"""Plain lines of the simulation, one every five seconds, from the first that says that all are connected."""

CONNECTED_WITHIN_S = 60

FEWEST_WEIGHED = 1_000
"""Of fewer connections what each takes is lost in what the process takes."""


class Fleet(msgspec.Struct, frozen=True):
    """One row: so many connections, which together want to say so many messages a second."""

    connections: int
    rate: int
    client: str = "codec"
    workers: int = 1


FLEETS = (
    Fleet(100, 10_000),
    Fleet(100, 10_000, client="aiomqtt"),
    Fleet(1_000, 10_000),
    Fleet(1_000, 10_000, client="aiomqtt"),
    Fleet(1_000, 10_000, workers=2),
)


def main(connections: int = 3_000) -> None:
    """A hundred and a thousand connections by either client, then the number given; each alone with a Mosquitto."""
    with tempfile.TemporaryDirectory(prefix="amber-bench-") as name:
        folder = Path(name)
        ceiling = raw(folder / "raw")
        idle = memory_kb(folder / "idle", Fleet(1, 1))
        large = [Fleet(connections, 10_000), Fleet(connections, 10_000, workers=2)]
        rows = [row(folder, fleet, ceiling, idle) for fleet in (*FLEETS, *large)]
        rows += [row(folder, fleet, ceiling, idle, gateway=True) for fleet in (FLEETS[2], large[-1])]
    head = (
        *("connections", "client", "workers", "gateway", "wanted /s", "acknowledged /s"),
        *("devices' CPU µs/message", "KB/connection", "of the ceiling"),
    )
    rig.table("Simulated devices at QoS 1", rows, head)
    print(f"\nthe ceiling: one raw socket writes and is acknowledged {ceiling:,.0f} such messages a second")


def row(folder: Path, fleet: Fleet, ceiling: float, idle_kb: float, *, gateway: bool = False) -> list[str]:
    about = [f"{fleet.connections:,}", fleet.client, f"{fleet.workers}", "yes" if gateway else "no", f"{fleet.rate:,}"]
    try:
        place = folder / f"{'-'.join(map(str, msgspec.structs.astuple(fleet)))}-{gateway}"
        rate, cpu_us, kilobytes = simulated(place, fleet, gateway=gateway)
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:  # too few open files, say
        return [*about, f"– ({' '.join(str(error).split())[-100:]})", "–", "–", "–"]
    each_kb = (kilobytes - idle_kb * fleet.workers) / fleet.connections
    shown_kb = f"{each_kb:.0f}" if fleet.connections >= FEWEST_WEIGHED else "–"
    return [*about, f"{rate:,.0f}", f"{cpu_us:.0f}", shown_kb, f"{rate / ceiling:.2f}"]


def raw(folder: Path, count: int = 200_000) -> float:
    """Messages a second by one socket that only writes and counts."""
    with rig.broker(folder) as broker:
        rig.publish(broker.port, 0, count // 10)
        started = time.perf_counter()
        rig.publish(broker.port, 0, count)
        return count / (time.perf_counter() - started)


def memory_kb(folder: Path, fleet: Fleet) -> float:
    """What a simulation of next to nobody takes."""
    return simulated(folder, fleet)[2]


def simulated(folder: Path, fleet: Fleet, *, gateway: bool = False) -> tuple[float, float, float]:
    """Acknowledged messages a second once all have connected, the devices' CPU µs a message, and their memory in KB."""
    with rig.broker(folder) as broker:
        if not gateway:
            return _simulated(broker, fleet)
        with rig.Gateway(broker, folder / "devices.db"):
            return _simulated(broker, fleet)


def _simulated(broker: Mosquitto, fleet: Fleet) -> tuple[float, float, float]:
    options = {
        "--devices": fleet.connections,
        "--rate": fleet.rate / fleet.connections,
        "--client": fleet.client,
        "--workers": fleet.workers,
        "--broker": broker.url,
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "devices", "simulate", *(str(word) for pair in options.items() for word in pair)],
        cwd=rig.ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(rig.ROOT)},
    )
    try:
        seen = list(_looks(process, fleet))
        process.send_signal(signal.SIGINT)  # a --duration would make one that cannot keep up catch up first
        _, complained = process.communicate(timeout=60)
    finally:
        process.kill()
    if len(seen) < 2:
        raise RuntimeError(complained or "it had not connected all in time")
    first, last = seen[0], seen[-1]
    messages = max(1, last.acknowledged - first.acknowledged)
    return messages / (last.at_s - first.at_s), (last.cpu_s - first.cpu_s) / messages * 1e6, last.memory_kb


class Look(msgspec.Struct, frozen=True):
    """How a simulation is doing at one moment."""

    at_s: float
    acknowledged: int
    cpu_s: float
    memory_kb: float


def _looks(process: subprocess.Popen[str], fleet: Fleet) -> Iterator[Look]:
    looks, patience = 0, time.monotonic() + CONNECTED_WITHIN_S
    for line in process.stderr or ():
        found = re.search(r"connected (\d+)/\d+ .* acknowledged (\d+)", line)
        if found and int(found[1]) == fleet.connections:
            yield Look(time.monotonic(), int(found[2]), *_tree(process.pid))
            looks += 1
        if looks == LOOKS or time.monotonic() > patience:
            return


def _tree(pid: int) -> tuple[float, float]:
    """CPU seconds so far of a process and its workers, and what they have in memory for themselves, in KB."""
    cpu_s = memory_kb = 0.0
    for process in (pid, *Path(f"/proc/{pid}/task/{pid}/children").read_text().split()):
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        cpu_s += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        found = re.search(r"Pss:\s+(\d+)", Path(f"/proc/{process}/smaps_rollup").read_text())
        memory_kb += int(found[1]) if found else 0
    return cpu_s, memory_kb
