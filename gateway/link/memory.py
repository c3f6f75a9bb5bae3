"""The link's double in memory: a test plays the broker, and sees what was acknowledged. No socket, no waiting."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from gateway.link import Batch, Connection, Receipt
from gateway.link.errors import LinkError
from gateway.link.state import LinkState
from storage.event import Message


class MemoryLink:
    """`connect`, `feed` and `disconnect` are the broker's side; `acked` and `receipts` are what it heard, in order."""

    def __init__(self, client_id: str = "amber", window_messages: int = 10_000) -> None:
        self.acked: list[Message] = []
        self.receipts: list[Receipt] = []
        self.connection: Connection | None = None
        self._client_id = client_id
        self._window_messages = window_messages
        self._connections = 0
        self._waiting: deque[MemoryBatch] = deque()
        self._arrived = asyncio.Event()
        self._open = False

    async def __aenter__(self) -> Self:
        self._open = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open = False
        self.disconnect()
        self._arrived.set()

    @property
    def state(self) -> LinkState:
        return LinkState(
            connected=self.connection is not None,
            broker="memory://",
            since=time.time_ns() // 1000,
            subscribed=self.connection is not None,
            connections=self._connections,
        )

    def connect(self, *, resumed: bool = False) -> Connection:
        """A new connection; the one before has ended."""
        self._connections += 1
        self.connection = Connection(
            number=self._connections,
            broker="memory://",
            client_id=self._client_id,
            resumed=resumed,
            window_messages=self._window_messages,
        )
        self._arrive(())
        return self.connection

    def feed(self, *messages: Message) -> None:
        """These have arrived, all at once. They join what waits of the same connection, as on a socket."""
        if self.connection is None:
            raise LinkError("nothing arrives without a connection: connect() first")
        last = self._waiting[-1] if self._waiting else None
        if last is not None and last.messages and last.connection is self.connection:
            last.messages = [*last.messages, *messages]
        else:
            self._arrive(messages)

    def disconnect(self) -> None:
        """The connection has ended: acknowledging its messages does nothing any more."""
        self.connection = None

    async def receive(self) -> Batch:
        """As the protocol says. Raises LinkError if the link is not open."""
        while True:
            if not self._open:
                raise LinkError("the link is closed: receive within its `async with`")
            batch = self.receive_now()
            if batch is not None:
                return batch
            self._arrived.clear()
            await self._arrived.wait()

    def receive_now(self) -> Batch | None:
        """As the protocol says."""
        return self._waiting.popleft() if self._waiting else None

    def _arrive(self, messages: Sequence[Message]) -> None:
        if self.connection is not None:
            self._waiting.append(MemoryBatch(self, self.connection, messages))
            self._arrived.set()


class MemoryBatch:
    """What was fed together on one connection."""

    def __init__(self, link: MemoryLink, connection: Connection, messages: Sequence[Message]) -> None:
        self.connection = connection
        self.messages = messages
        self._link: MemoryLink | None = link

    def ack(self, receipts: Sequence[Receipt] = ()) -> int:
        link, self._link = self._link, None
        if link is None or link.connection is not self.connection:
            return 0
        link.acked.extend(message for message in self.messages if message.qos)
        link.receipts.extend(receipts)
        return len(receipts)
