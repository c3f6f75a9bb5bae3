"""How a load is doing, while it runs: one live line on a terminal, elsewhere a plain line now and then."""

from __future__ import annotations

import asyncio
from typing import TextIO

from devices.load.plan import Plan
from devices.load.tally import Tally

TERMINAL_EVERY_S = 0.5
PLAIN_EVERY_S = 10.0


async def show(tally: Tally, plan: Plan, stream: TextIO) -> None:
    """For ever."""
    terminal = stream.isatty()
    loop = asyncio.get_running_loop()
    before, before_s = 0, loop.time()
    try:
        while True:
            await asyncio.sleep(TERMINAL_EVERY_S if terminal else PLAIN_EVERY_S)
            count, now_s = tally.sent.count, loop.time()
            text = line(tally, plan, (count - before) / (now_s - before_s))
            before, before_s = count, now_s
            stream.write(f"\r{text}\x1b[K" if terminal else f"{text}\n")
            stream.flush()
    finally:
        if terminal:
            stream.write("\r\x1b[K")
            stream.flush()


def line(tally: Tally, plan: Plan, rate: float) -> str:
    """What was sent and answered so far, and at what rate."""
    parts = [f"{rate:,.0f}/s", f"sent {tally.sent.count:,}"]
    if plan.qos:
        parts.append(f"acknowledged {tally.acknowledged.count:,}")
    if plan.receipts:
        parts.append(f"receipted {tally.receipted.count:,}")
    parts.append(f"connected {tally.connected}/{plan.connections}")
    if tally.reconnects:
        parts.append(f"reconnects {tally.reconnects}")
    if tally.refused:
        parts.append(f"refused {tally.refused:,}")
    if tally.trouble and (tally.refused or tally.connected < plan.connections):
        parts.append(tally.trouble)
    return " · ".join(parts)
