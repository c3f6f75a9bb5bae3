"""The log as the gateway uses it: append, read on from a position, cursors. Never decides what an event is."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from storage.errors import StoreError, StoreReopened
from storage.event import Entry, Fact, Lessons, Outcome, PendingReread
from storage.replacing import Replaced
from storage.store import NOTHING_LEARNED, Committed, Store, StoreOptions
from storage.writer import Writer


class Session(msgspec.Struct, frozen=True):
    """A broker's session as the log knows it.

    `unsettled` gives the content hash by packet id of the last messages committed in it, as many as the broker may
    still hold unacknowledged: one of them that comes again is no new message.
    """

    id: int
    unsettled: Mapping[int, int]


class Log:
    """A store open for writing; one at a time has it. Used from one event loop."""

    def __init__(self, path: Path, options: StoreOptions | None = None) -> None:
        self.path = path
        self._options = options or StoreOptions()

    async def __aenter__(self) -> Self:
        self._writer = await asyncio.to_thread(Writer, self.path, self._options)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self._writer.stop)

    @property
    def trouble(self) -> StoreError | None:
        """What storing waits for, None when all is well."""
        return self._writer.trouble

    def stop_waiting(self) -> None:
        """From now on an append that the disk will not take raises at once."""
        self._writer.stop_waiting()

    async def append(self, entries: Sequence[Entry], session_id: int, lessons: Lessons = NOTHING_LEARNED) -> Committed:
        """Commit messages, what became of them and what they taught, in this order; returns after the COMMIT.

        A full disk, a lock or a failing disk makes it wait. Raises StoreDamaged when waiting would not help.
        """
        return await asyncio.wrap_future(self._writer.append(entries, session_id, lessons))

    async def facts(self) -> list[Fact]:
        """What messages have taught the formats so far, in the order in which it was learned."""
        return await asyncio.wrap_future(self._writer.submit(lambda store: store.facts()))

    async def rereads(self) -> list[PendingReread]:
        """What is yet to be read again, oldest first."""
        return await asyncio.wrap_future(self._writer.submit(lambda store: store.rereads()))

    async def opened(self) -> object:
        """Stands for the store as it is open now, for `replace`."""
        return await asyncio.wrap_future(self._writer.submit(lambda store: store))

    async def replace(
        self, outcomes: Sequence[tuple[int, Outcome]], *, done: int | None = None, opened: object = None
    ) -> Replaced:
        """Commit new outcomes of messages, by message id, in place of what became of them before; all or none.

        `done` is the pending reread that needs no more. What is appended waits meanwhile: some thousand at a time.
        Raises StoreReopened where the store is not the one that was `opened`: the ids may be other messages' now.
        """

        def job(store: Store) -> Replaced:
            if opened not in (None, store):
                raise StoreReopened(f"{self.path} was opened anew")
            return store.replace(outcomes, done)

        return await asyncio.wrap_future(self._writer.submit(job))

    async def open_session(self, client_id: str, broker: str, *, resumed: bool, window_messages: int) -> Session:
        """The session that messages are about to arrive in; what was appended before is committed when it returns."""

        def job(store: Store) -> Session:
            session_id = store.open_session(client_id, broker, resumed=resumed)
            return Session(session_id, store.recent(session_id, window_messages) if resumed else {})

        return await asyncio.wrap_future(self._writer.submit(job))

    async def cursor(self, name: str) -> int:
        """The position that a consumer has confirmed, 0 where it has confirmed nothing."""
        return await asyncio.wrap_future(self._writer.submit(lambda store: store.cursor(name)))

    async def move_cursor(self, name: str, position: int) -> None:
        """Remember durably that a consumer is done with everything up to `position`."""
        await asyncio.wrap_future(self._writer.submit(lambda store: store.move_cursor(name, position)))
