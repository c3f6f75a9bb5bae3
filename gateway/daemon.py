"""Wiring only: opens the rooms, runs their tasks in one group, stops them in order. Does none of their work."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal

from gateway.config import Config
from gateway.ingest import ingest
from gateway.keeper import Task, keep
from gateway.link.codec import CodecLink
from gateway.link.state import LinkState
from gateway.metrics import Metrics, Summary
from gateway.reread import reread
from storage.log import Log

logger = logging.getLogger("amber")

PATIENCE_S = 5.0
"""How long a stop waits for commits that the disk holds up; what is not committed then, the broker sends again."""


async def run(config: Config) -> None:
    """Run the gateway until SIGTERM or SIGINT. Raises AmberError or LinkError when it cannot go on."""
    metrics = Metrics()
    formats, wake = config.make_formats(), asyncio.Event()  # rules that cannot work are refused before there is a store
    async with Log(config.store_path, config.store_options) as log:
        logger.info("storing in %s", config.store_path)
        formats.remember(await log.facts())
        async with CodecLink(config.link_options) as link, asyncio.TaskGroup() as group:
            ingesting = group.create_task(
                ingest(link, formats, log, metrics, wake, receipts=config.make_receipts()), name="ingest"
            )
            rereading = group.create_task(reread(log, formats, metrics, wake), name="reread")
            keeping = group.create_task(keep_if_wanted(config), name="keeper")
            speaking = group.create_task(speak(link, log, metrics, config.log.status_interval_s), name="status")
            await stop_requested(ingesting)
            logger.info("stopping: storing what has arrived")
            asyncio.get_running_loop().call_later(PATIENCE_S, log.stop_waiting)
            ingesting.cancel()
            await asyncio.wait([ingesting])
            rereading.cancel()
            keeping.cancel()
            speaking.cancel()
    logger.info("stopped: %s", Summary(metrics).line().partition(" · ")[2])


async def keep_if_wanted(config: Config) -> None:
    """The keeper, beside us."""
    if config.keeper.enabled:
        floor = config.store_options.free_floor_bytes // 2  # so that a keeper can still write what retention waits for
        await keep(Task(str(config.store_path.absolute()), config.retention_options, config.log.level, floor))


async def stop_requested(ingesting: asyncio.Task[None]) -> None:
    """Wait for SIGTERM or SIGINT, or for the end of the ingest, which only a fault brings."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    ingesting.add_done_callback(lambda _: stop.set())
    await stop.wait()


async def speak(link: CodecLink, log: Log, metrics: Metrics, interval_s: float) -> None:
    """One line each interval, with what the link or the store waits for."""
    summary = Summary(metrics)
    with contextlib.suppress(asyncio.CancelledError):
        while True:
            await asyncio.sleep(interval_s)
            parts = [summary.line(), broker_state(link.state)]
            if log.trouble:
                parts.append(str(log.trouble))
            logger.info(" · ".join(parts))


def broker_state(state: LinkState) -> str:
    """How the link is doing, in the words of the status line."""
    if not state.connected:
        return f"broker away: {state.last_error}" if state.last_error else "broker away"
    if state.refused:
        return f"broker refuses {', '.join(state.refused)}"
    return "broker connected" if state.reconnects == 0 else f"broker connected, {state.reconnects} reconnects"
