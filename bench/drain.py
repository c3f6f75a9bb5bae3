"""How fast a backlog gets into the log, beside what the codec, SQLite and other clients do alone in the same run."""

from __future__ import annotations

import tempfile
from pathlib import Path

from bench import ceilings, rig
from devices.broker import Mosquitto
from storage.history import Reader


def main(messages: int = 300_000, rounds: int = 3) -> None:
    """Drain a backlog at QoS 1, several times, each beside SQLite alone."""
    rows, ratios = [], []
    for number in range(1, rounds + 1):
        with tempfile.TemporaryDirectory(prefix="amber-bench-") as name, rig.broker(Path(name)) as broker:
            folder = Path(name)
            sqlite = ceilings.sqlite(folder, messages)
            drained, peak_mb, cpu_us = drain(folder, broker, messages)
            ratios.append(drained / sqlite)
            rows.append(
                (number, f"{drained:,.0f}", f"{sqlite:,.0f}", f"{ratios[-1]:.2f}", f"{peak_mb:.0f}", f"{cpu_us:.1f}")
            )
    head = ("run", "drained /s", "SQLite alone /s", "ratio", "peak RSS MB", "gateway CPU µs/message")
    rig.table(f"Drain of {messages:,} messages, QoS 1, committed before acknowledged", rows, head)
    with tempfile.TemporaryDirectory(prefix="amber-bench-") as name, rig.broker(Path(name)) as broker:
        folder = Path(name)
        others = [
            ("codec alone, reading", f"{ceilings.codec():,.0f}"),
            (
                "SQLite alone, same rows, index kept entry by entry",
                f"{ceilings.sqlite(folder, messages, plain_index=True):,.0f}",
            ),
            ("paho, only receiving", f"{ceilings.paho_receives(broker, 30_000):,.0f}"),
            ("aiomqtt, only receiving", f"{ceilings.aiomqtt_receives(broker, 30_000):,.0f}"),
        ]
    rig.table("Beside it, on the same machine in the same run", others, ("what", "messages/s"))
    print(f"\nmedian ratio to SQLite alone: {rig.median(ratios):.2f}")


def drain(folder: Path, broker: Mosquitto, messages: int) -> tuple[float, float, float]:
    """Messages a second from the first received to the last committed, peak memory in MB, processor µs a message."""
    rig.subscribe_session(folder, broker)
    rig.publish(broker.port, 0, messages)
    with rig.Gateway(broker, folder / "drain.db") as gateway, Reader(folder / "drain.db") as reader:
        cpu_before = gateway.cpu_s()
        ended = rig.wait_for(reader, messages)
        cpu_us = (gateway.cpu_s() - cpu_before) / messages * 1e6
        taken = rig.wall_us_at(ended) - rig.received_at(reader, 0)
        return messages / (taken / 1e6), gateway.peak_mb(), cpu_us
