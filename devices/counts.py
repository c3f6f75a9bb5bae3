"""How a simulation is doing: numbers, and the lines that show them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TextIO

import msgspec

TERMINAL_EVERY_S = 0.25
PLAIN_EVERY_S = 5.0

_SUMS = (
    *("published", "unanswerable", "acknowledged", "failed", "receipted"),
    *("left", "repeated", "statuses", "connected"),
)


class Counts(msgspec.Struct):
    """Counted in messages of telemetry, each once, unless it says otherwise.

    `published`: handed to a connection; `unanswerable`: of these, at QoS 0; `acknowledged`: the broker has answered
    yes; `receipted`: the gateway has;
    `failed`: will never be either, as the outbox was full, the broker refused it, or the run ended before an answer.
    `left`: in the durable outbox when the run ended.
    `repeated`: publications beyond the first of a message; `statuses`: status messages acknowledged, at QoS 0 written.
    `elapsed_s` ends with the last answer; saying goodbye is not counted.
    """

    devices: int
    published: int = 0
    unanswerable: int = 0
    acknowledged: int = 0
    failed: int = 0
    receipted: int = 0
    left: int = 0
    repeated: int = 0
    statuses: int = 0
    connected: int = 0
    elapsed_s: float = 0.0
    trouble: str = ""
    failure: str = ""
    """Why the last of the failed has failed, if that is known."""
    dead: str = ""
    """Which part of the simulation ended by itself, if one did."""

    @property
    def done(self) -> int:
        """Messages through, as far as their QoS can tell."""
        return self.acknowledged + self.unanswerable


def sum_up(total: Counts, parts: Sequence[Counts]) -> None:
    """Make `total` the sum of its parts; devices, and what it says of dead ones, stay as they are."""
    for field in _SUMS:
        setattr(total, field, sum(getattr(part, field) for part in parts))
    total.elapsed_s = max((part.elapsed_s for part in parts), default=0.0)
    total.trouble = next((part.trouble for part in parts if part.trouble), "")
    total.failure = next((part.failure for part in parts if part.failure), "")


def summary(counts: Counts) -> str:
    """The last word on a run, in one line."""
    rate = counts.done / counts.elapsed_s if counts.elapsed_s else 0.0
    return " · ".join(
        [
            *_numbers(counts),
            f"statuses {counts.statuses}",
            f"devices {counts.devices}",
            f"{counts.elapsed_s:.1f} s",
            f"{rate:.1f} msg/s",
        ]
    )


async def show(counts: Counts, stream: TextIO) -> None:
    """For ever: one live line on a terminal, elsewhere a plain line every few seconds."""
    terminal = stream.isatty()
    loop = asyncio.get_running_loop()
    before, before_s = 0, loop.time()
    try:
        while True:
            await asyncio.sleep(TERMINAL_EVERY_S if terminal else PLAIN_EVERY_S)
            now_s = loop.time()
            line = _progress(counts, (counts.done - before) / (now_s - before_s))
            before, before_s = counts.done, now_s
            if terminal:
                stream.write(f"\r{line}\x1b[K")
            elif counts.statuses:  # before that there is nothing to tell but the error, should it come to one
                stream.write(f"{line}\n")
            stream.flush()
    finally:
        if terminal:
            stream.write("\r\x1b[K")
            stream.flush()


def _progress(counts: Counts, rate: float) -> str:
    parts = [f"connected {counts.connected}/{counts.devices}", *_numbers(counts), f"{rate:.1f} msg/s"]
    if counts.trouble and (counts.failed or counts.connected < counts.devices):
        parts.append(counts.trouble)
    return " · ".join(parts)


def _numbers(counts: Counts) -> list[str]:
    none = " (QoS 0 has none)" if counts.published and counts.unanswerable == counts.published else ""
    numbers = [
        f"published {counts.published}",
        f"acknowledged {counts.acknowledged}{none}",
        f"failed {counts.failed}",
    ]
    if counts.receipted:
        numbers.insert(2, f"receipted {counts.receipted}")
    if counts.repeated:
        numbers.append(f"repeated {counts.repeated}")
    return numbers
