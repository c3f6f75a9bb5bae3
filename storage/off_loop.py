"""Runs a reading on another thread, for an event loop. Never leaves it running behind a task that was cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


async def off_loop(read: Callable[..., T], *arguments: object) -> T:
    """What `read` gives, or raises."""
    reading = asyncio.get_running_loop().run_in_executor(None, read, *arguments)
    try:
        await asyncio.wait([reading])
    finally:  # cancelled or not, nobody may close the store while the other thread reads from it
        await asyncio.wait([reading])
    return reading.result()
