"""Reads earlier messages again when a later one taught how; exchanges what became of them, and appends nothing."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import Protocol

from gateway.formats import IGNORED
from gateway.metrics import Metrics
from storage.errors import StoreDamaged, StoreError, StoreReopened
from storage.event import Message, Outcome, PendingReread, Rejection, StoredEvent
from storage.history import Reader
from storage.log import Log
from storage.off_loop import off_loop
from storage.outcomes import StoredOutcome

logger = logging.getLogger("amber.formats")


class Formats(Protocol):
    """What reads messages again."""

    def read_again(self, message: Message) -> Outcome:
        """What an earlier message becomes with all that was learned since."""


async def reread(log: Log, formats: Formats, metrics: Metrics, wake: asyncio.Event) -> None:
    """Work off what is pending, what an earlier process left of it first; then whenever `wake` is set."""
    while True:
        wake.clear()
        try:
            for pending in await log.rereads():
                await work_off(log, formats, metrics, pending)
        except StoreDamaged:
            raise
        except StoreReopened:
            continue
        except StoreError as trouble:  # what is pending stays so, for the next time
            logger.warning("reading earlier messages again has to wait: %s", trouble)
        await wake.wait()


async def work_off(log: Log, formats: Formats, metrics: Metrics, pending: PendingReread) -> None:
    """Read the messages again that a reread means; after a crash, again from the beginning."""
    messages, opened = 0, await log.opened()
    reader = await asyncio.to_thread(Reader, log.path)
    try:
        pages = reader.to_reread(pending)
        while page := await off_loop(next, pages, None):
            if outcomes := changed(formats, page, provisional_only=pending.reread.provisional_only):
                messages += (await log.replace(outcomes, opened=opened)).messages
    finally:
        reader.close()
    await log.replace([], done=pending.id, opened=opened)
    metrics.read_again += messages
    if messages:
        logger.info("%s: read %d earlier messages again, with what is known now", pending.reread.format, messages)


def changed(
    formats: Formats, page: Iterable[StoredOutcome], *, provisional_only: bool = False
) -> list[tuple[int, Outcome]]:
    """The new outcomes, but for rejections that stay what they are, and those in the place of what has been read.

    A rejection knows nothing better, and it may be one of the moment: of a format that is set aside.
    """
    found = []
    for stored in page:
        if provisional_only and stored.rejection is None and not any(map(_provisional, stored.events)):
            continue
        outcome = formats.read_again(stored.message)
        if outcome is IGNORED or (isinstance(outcome, Rejection) and stored.rejection in (None, outcome)):
            continue
        found.append((stored.message_id, outcome))
    return found


def _provisional(event: StoredEvent) -> bool:
    return event.detail is not None and '"provisional":true' in event.detail
