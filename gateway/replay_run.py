"""Plays what was asked for to whom it was asked for. Never parses options and never says how it went."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Generic, NoReturn, Protocol, TypeVar

import msgspec
from msgspec.structs import replace

from gateway.streams import ends_within_a_line, sync
from storage.event import Message, Properties, StoredEvent
from storage.event_json import events_json
from storage.filters import Filters
from storage.off_loop import off_loop
from storage.replay import events_player, messages_player, moved, replay_lines, stamp
from storage.replay.bookmark import Bookmark
from storage.replay.player import Ahead, Manner, Played, Player
from storage.replay.state import State, start_of

if TYPE_CHECKING:
    from gateway.link.address import Address
    from gateway.replay_screen import Screen
    from gateway.sinks.mqtt import Publisher
    from gateway.sinks.topics import TopicOf

T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)

DRAW_EVERY_S = 0.25

SWITCH_S = 0.001
"""After so long the thread that reads pages lets the one that plays have the interpreter: 5 ms would be seen."""

BEFORE_START = ',"before_start":true}'
"""How a line ends that tells how things stood before the start."""

Pair = tuple[StoredEvent, Message]


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What to play, how, and to whom: a broker with the topics to take there, or else standard output.

    `keys` is the terminal whose keys steer it.
    """

    path: Path
    filters: Filters
    limit: int | None
    manner: Manner
    broker: Address | None
    topic: str | TopicOf
    state_first: bool = False
    retime: bool = False
    keys: int | None = None

    @property
    def at_once(self) -> bool:
        """Whether nothing is asked for but all there is, as fast as it goes."""
        manner = self.manner
        plain = manner.speed is None and manner.rate is None and manner.rounds == 1 and not manner.paused
        return plain and self.broker is None and not self.retime


class Account(msgspec.Struct, kw_only=True):
    """What has become of a replay so far: what was played, and up to which position it has surely arrived."""

    played: Played
    confirmed: int
    state_events: int = 0
    stopped: bool = False
    digest: Digest | None = None


class Digest:
    """The SHA-256 of what was played, as `--speed max` prints it: the same at whatever speed, and for whomever."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def add(self, text: bytes) -> None:
        """Whole lines."""
        self._hash.update(text)

    def hex(self) -> str:
        return self._hash.hexdigest()


class Terminated(KeyboardInterrupt):
    """The process was asked to end."""


def play(request: Request, account: Account, screen: Screen, bookmark: Bookmark | None) -> None:
    """Play it all, or until the player is told to stop."""
    try:
        if request.at_once:
            with interruptible(signal.SIGTERM):
                print_at_once(request, account, screen, bookmark)
        elif request.broker is None:
            with interruptible(signal.SIGINT, signal.SIGTERM), switching():
                asyncio.run(print_in_time(request, account, screen, bookmark))
        else:
            with interruptible(signal.SIGTERM), switching():
                asyncio.run(publish(request, request.broker, account, screen, bookmark))
        if bookmark is not None and not account.stopped:
            account.confirmed = bookmark.end
    finally:
        screen.clear()
        if bookmark is not None:
            save(bookmark, account)


def print_at_once(request: Request, account: Account, screen: Screen, bookmark: Bookmark | None) -> None:
    """JSON lines on standard output, a page to a write."""
    out = StandardOutput(bookmark)
    if request.state_first:
        start = start_of(request.path, request.filters, request.manner.clock)
        with State(request.path, request.filters, start.position) as state:
            for batch in state.events():
                account.state_events += len(batch)
                out.write(state_lines(batch))
    for lines in replay_lines(request.path, request.filters, limit=request.limit, played=account.played):
        text = "\n".join([*lines, ""]).encode()
        screen.make_way()
        out.write(text)
        if account.digest is not None:
            account.digest.add(text)
        if bookmark is not None:
            # What is counted as played is a page behind: this one has just been written.
            account.confirmed = stamp(lines[-1]).id
            if bookmark.due(account.played.events):
                save(bookmark, account)
        screen.draw(account.played)


class StandardOutput:
    """Where lines go, whole ones also after an end in the middle of one."""

    def __init__(self, bookmark: Bookmark | None) -> None:
        self._out = sys.stdout.buffer
        if bookmark is not None and bookmark.resumed and ends_within_a_line(self._out.fileno()):
            self.write(b"\n")

    def write(self, text: bytes) -> None:
        self._out.write(text)
        self._out.flush()


def save(bookmark: Bookmark, account: Account) -> None:
    """Let the bookmark say how far it is; what it says has been written is on the disk by then, if it is a file."""
    sync(sys.stdout.fileno())
    bookmark.confirm(account.confirmed, account.played.events)


# --- in time ---


class Target(Protocol[T_contra]):
    """Who is played to."""

    def event_of(self, item: T_contra) -> StoredEvent: ...

    async def send(self, batch: Sequence[T_contra], moved_us: int | None) -> None:
        """Send events, their times moved by so much."""

    async def send_state(self, batch: Sequence[T_contra], moved_us: int | None) -> None:
        """Send what stood before the start."""

    async def settle(self) -> None:
        """Wait until all of it has arrived."""

    @property
    def confirmed(self) -> int:
        """The position up to which all has arrived; 0 where nothing has."""


class Show(Generic[T]):
    """One replay to one target, from the beginning to the end."""

    def __init__(
        self, request: Request, account: Account, screen: Screen, bookmark: Bookmark | None, target: Target[T]
    ) -> None:
        self._request = request
        self._account = account
        self._screen = screen
        self._bookmark = bookmark
        self._target = target
        self._event_of = target.event_of
        self._moved_us: int | None = None

    async def run(self, player: Player[T], state: Callable[[State], Iterator[list[T]]]) -> None:
        """Play it; returns when all has arrived."""
        account, target, screen = self._account, self._target, self._screen
        screen.player = player
        drawing = asyncio.create_task(self._draw(), name="draw the status line")
        try:
            with self._steered(player):
                async with contextlib.AsyncExitStack() as stack:
                    before = await self._before(stack) if self._request.state_first else None
                    if before is not None:
                        await self._send_state(state(before))
                    batches = await stack.enter_async_context(aclosing(player.batches()))
                    played_round = player.played.round
                    async for batch in batches:
                        if player.played.round != played_round:
                            played_round = player.played.round
                            self._moved_us = None
                            if before is not None:
                                self._retime(self._event_of(batch[0]))
                                await self._send_state(state(before))
                        self._retime(self._event_of(batch[0]))
                        await target.send(batch, self._moved_us)
                        self._note(batch)
                        await self._confirm()
                        screen.draw(account.played)
                    await target.settle()
        finally:
            drawing.cancel()
            account.stopped = account.stopped or player.stopped
            account.confirmed = target.confirmed or account.confirmed

    async def _before(self, stack: contextlib.AsyncExitStack) -> State:
        """How things stood before the first event."""
        request = self._request
        start = await off_loop(start_of, request.path, request.filters, request.manner.clock)
        if start.first_at is not None and request.retime:
            self._moved_us = now_us() - start.first_at
        return stack.enter_context(await off_loop(State, request.path, request.filters, start.position))

    async def _send_state(self, pages: Iterator[list[T]]) -> None:
        async with aclosing(Ahead(pages)) as ahead:
            while page := await ahead.next():
                self._retime(self._event_of(page[-1]))
                await self._target.send_state(page, self._moved_us)
                self._account.state_events += len(page)

    def _retime(self, event: StoredEvent) -> None:
        """Let this event be now, unless another has been."""
        if self._request.retime and self._moved_us is None:
            from storage.replay.pace import time_of

            self._moved_us = now_us() - time_of(event, self._request.manner.clock)

    def _note(self, batch: Sequence[T]) -> None:
        if self._account.digest is not None:
            lines = events_json([self._event_of(item) for item in batch])
            self._account.digest.add("\n".join([*lines, ""]).encode())

    async def _confirm(self) -> None:
        account, bookmark = self._account, self._bookmark
        if bookmark is not None and bookmark.due(account.played.events) and (position := self._target.confirmed):
            account.confirmed = position
            await off_loop(save, bookmark, account)

    @contextlib.contextmanager
    def _steered(self, player: Player[T]) -> Iterator[None]:
        if self._request.keys is None:
            yield
            return
        from gateway.replay_keys import keys

        def then() -> None:
            self._screen.draw(self._account.played, now=True)

        with keys(player, self._request.keys, then):
            yield

    async def _draw(self) -> None:
        while True:
            self._screen.draw(self._account.played, now=True)
            await asyncio.sleep(DRAW_EVERY_S)


def now_us() -> int:
    return time.time_ns() // 1_000


async def print_in_time(request: Request, account: Account, screen: Screen, bookmark: Bookmark | None) -> None:
    """JSON lines on standard output, each when it is due."""
    target = Lines(StandardOutput(bookmark), screen)
    show = Show(request, account, screen, bookmark, target)
    players = events_player(request.path, request.filters, request.manner, limit=request.limit, played=account.played)
    async with players as player:
        await show.run(player, lambda state: state.events())


class Lines:
    """Standard output as a target: what is written has arrived."""

    def __init__(self, out: StandardOutput, screen: Screen) -> None:
        self.confirmed = 0
        self._out = out
        self._screen = screen

    def event_of(self, item: StoredEvent) -> StoredEvent:
        return item

    async def send(self, batch: Sequence[StoredEvent], moved_us: int | None) -> None:
        events = batch if moved_us is None else [moved(event, moved_us) for event in batch]
        self._screen.make_way()
        self._out.write("\n".join([*events_json(events), ""]).encode())
        self.confirmed = batch[-1].id

    async def send_state(self, batch: Sequence[StoredEvent], moved_us: int | None) -> None:
        self._screen.make_way()
        self._out.write(state_lines(batch if moved_us is None else [moved(event, moved_us) for event in batch]))

    async def settle(self) -> None:
        pass


def state_lines(events: Sequence[StoredEvent]) -> bytes:
    return "".join(f"{line[:-1]}{BEFORE_START}\n" for line in events_json(events)).encode()


async def publish(
    request: Request, broker: Address, account: Account, screen: Screen, bookmark: Bookmark | None
) -> None:
    """The messages of the events to a broker; returns when it has acknowledged them all."""
    from gateway.sinks.mqtt import publisher

    async with publisher(broker, request.topic, resumes=bookmark is not None) as sink:
        show = Show(request, account, screen, bookmark, Messages(sink))
        players = messages_player(
            request.path, request.filters, request.manner, limit=request.limit, played=account.played
        )
        async with players as player:
            await show.run(player, lambda state: state.messages())


class Messages:
    """A broker as a target: messages as they were, or, where times are moved, each event as JSON."""

    def __init__(self, sink: Publisher) -> None:
        self._sink = sink

    @property
    def confirmed(self) -> int:
        return self._sink.confirmed

    def event_of(self, item: Pair) -> StoredEvent:
        return item[0]

    async def send(self, batch: Sequence[Pair], moved_us: int | None) -> None:
        await self._sink.send(batch if moved_us is None else [as_json(pair, moved_us) for pair in batch])

    async def send_state(self, batch: Sequence[Pair], moved_us: int | None) -> None:
        pairs = batch if moved_us is None else [as_json(pair, moved_us) for pair in batch]
        await self._sink.send(pairs, as_state=True)

    async def settle(self) -> None:
        await self._sink.settle()


def as_json(pair: Pair, moved_us: int) -> Pair:
    """An event at another time as a message of its own: nobody can move the times in any payload."""
    event, message = pair
    event = moved(event, moved_us)
    payload = events_json([event])[0].encode()
    known = message.properties or Properties()
    properties = Properties(
        payload_is_text=True, content_type="application/json", expiry_s=known.expiry_s, user=known.user
    )
    return replace(event, message_id=event.id), replace(message, payload=payload, properties=properties)


@contextlib.contextmanager
def switching() -> Iterator[None]:
    """Threads that take turns more often."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_S)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


@contextlib.contextmanager
def interruptible(*signals: signal.Signals) -> Iterator[None]:
    """Signals end also a write that nobody reads; asyncio's own handler would wait for the end of that."""

    def interrupt(number: int, _: object) -> NoReturn:  # Python's own for Ctrl-C, which is the same, asyncio replaces
        raise Terminated if number == signal.SIGTERM else KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in signals}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
