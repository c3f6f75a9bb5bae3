"""Runs the keeper as a process beside the gateway: starts it, and again when it ends. Does none of its work.

`python -m gateway.keeper TASK` is that process; it ends when its standard input does, and so with the gateway.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import threading
import time
from pathlib import Path

import msgspec

from gateway.logs import set_up
from storage.errors import AmberError
from storage.retention.ages import RetentionOptions

logger = logging.getLogger("amber.keeper")

ROOT = Path(__file__).resolve().parent.parent

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 600.0
"""What ends the process is a fault of ours, or of the machine; it may end each that comes after."""

TROUBLE_PAUSE_S = 5.0
"""The store may be well again by then."""

WELL_S = 60.0
"""A keeper that ran for so long was well: the next pause is a short one again."""

PATIENCE_S = 10.0
"""How long a stop waits for what is yet to be written; killed, the keeper takes it up at its next start."""

NICE = 5
"""The ingest goes first where there is too little processor for both."""


class Task(msgspec.Struct, frozen=True):
    """What a keeper is told at its start, as JSON."""

    store: str
    retention: RetentionOptions = RetentionOptions()
    log_level: str = "info"
    free_floor_bytes: int = 0


async def keep(task: Task) -> None:
    """Have a keeper run on the store until cancelled; then let it write what it has noted, and end."""
    loop, pause_s = asyncio.get_running_loop(), FIRST_PAUSE_S
    while True:
        started = loop.time()
        process = await start(task)
        try:
            status = await process.wait()
        except asyncio.CancelledError:
            await stop(process)
            raise
        if loop.time() - started > WELL_S:
            pause_s = FIRST_PAUSE_S
        logger.warning("the keeper ended with status %d: starting it again in %.0f s", status, pause_s)
        await asyncio.sleep(pause_s)
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


async def start(task: Task) -> asyncio.subprocess.Process:
    places = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "gateway.keeper", msgspec.json.encode(task).decode()),
        stdin=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(places)},
    )


async def stop(process: asyncio.subprocess.Process) -> None:
    """Close its standard input, which tells it to end."""
    if process.stdin is not None:
        process.stdin.close()
    try:
        async with asyncio.timeout(PATIENCE_S):
            await process.wait()
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def main() -> None:
    """Be the keeper."""
    for number in (signal.SIGINT, signal.SIGTERM):  # Ctrl-C reaches the whole group; the gateway says when to end
        signal.signal(number, signal.SIG_IGN)
    os.nice(NICE)
    task = msgspec.json.decode(sys.argv[1], type=Task)
    set_up(task.log_level)
    stopping = threading.Event()
    threading.Thread(target=wait_for_end, args=(stopping,), daemon=True).start()
    persist(task, stopping)


def persist(task: Task, stopping: threading.Event) -> None:
    """Be the keeper until told to stop, and again after each trouble with the store; a trouble is told once."""
    told = ""
    while not stopping.is_set():  # a gateway may live shorter than an import takes
        started = time.monotonic()
        try:
            be_keeper(task, stopping)
        except AmberError as error:
            if str(error) != told or time.monotonic() - started > WELL_S:
                logger.error("the keeper: %s", error)  # noqa: TRY400 - it is no fault of ours
            told = str(error)
            stopping.wait(TROUBLE_PAUSE_S)


def be_keeper(task: Task, stopping: threading.Event) -> None:
    from storage.retention import Retention
    from storage.summaries.keeping import Keeper
    from storage.summaries.latest import Latest
    from storage.summaries.presence import Presence
    from storage.summaries.rollups import Rollups

    with Keeper(
        Path(task.store),
        [Latest, Presence, Rollups],
        [Retention(task.retention)],
        free_floor_bytes=task.free_floor_bytes,
    ) as keeper:
        keeper.run(stopping)


def wait_for_end(stopping: threading.Event) -> None:
    """Nothing is ever written to our standard input: it ends with the gateway, however that ends."""
    while os.read(0, 1):
        pass
    stopping.set()


if __name__ == "__main__":
    main()
