"""Whether the cost stays flat: rounds of a million messages drained into one store, the last against the first."""

from __future__ import annotations

import tempfile
from pathlib import Path

from bench import rig
from storage.history import Reader

ROUND = 1_000_000


def main(rounds: int = 3) -> None:
    """Drain so many million messages into one store, end to end; ten rounds reach the ten-millionth event."""
    rows, rates = [], []
    with tempfile.TemporaryDirectory(prefix="amber-bench-") as name, rig.broker(Path(name)) as broker:
        folder = Path(name)
        store = folder / "growth.db"
        rig.subscribe_session(folder, broker)
        for number in range(1, rounds + 1):
            rig.publish(broker.port, (number - 1) * ROUND, ROUND)
            with rig.Gateway(broker, store) as gateway, Reader(store) as reader:
                first = rig.received_at(reader, (number - 1) * ROUND)
                ended = rig.wait_for(reader, number * ROUND)
                rates.append(ROUND / ((rig.wall_us_at(ended) - first) / 1e6))
                size_gb = reader.status().file_bytes / 1e9
                peak_mb = gateway.peak_mb()
            rows.append(
                (f"{number}", f"{rates[-1]:,.0f}", f"{rates[-1] / rates[0]:.2f}", f"{peak_mb:.0f}", f"{size_gb:.2f}")
            )
    rig.table("Rate as the store grows", rows, ("million", "drained /s", "of the first", "peak RSS MB", "store GB"))
