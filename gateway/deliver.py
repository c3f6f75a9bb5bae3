"""Hands what a consumer reads to whom it is for, and confirms what was taken. Never passes over what was not."""

from __future__ import annotations

import contextlib
import os
import random
import select
import signal
import time
from collections.abc import Callable, Iterator
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, NamedTuple, Protocol, Self

import msgspec

from gateway.link.backoff import delay_s
from gateway.sinks import SinkError

if TYPE_CHECKING:
    from gateway.link.address import Address
    from gateway.sinks import Sink
    from gateway.sinks.topics import TopicOf
    from storage.consumers import Consumer

FIRST_WAIT_S, LONGEST_WAIT_S = 0.25, 30.0
LONGEST_ASKED_WAIT_S = 3_600.0
"""Of what a server may ask for with Retry-After."""

SAID_AGAIN_S = 60.0
"""The same trouble is told once in this time."""

TURN_S = 1.0
"""So long it waits for events before it looks at what else there is to do."""

CONFIRM_S = 0.1
"""What costs little to hand on is confirmed this often: each time is a commit beside the gateway."""

SETTLE_S = 10.0
"""What is on its way to a broker when it is to end has this long to be acknowledged."""

POLL_S = 0.02


class Batch(NamedTuple):
    """Some events as lines of JSON, with the positions of the first and the last."""

    consumer: str
    lines: list[str]
    first: int
    last: int

    @property
    def body(self) -> bytes:
        return "\n".join([*self.lines, ""]).encode()


class NotTaken(Exception):
    """A batch was not taken, and may be tried again; the text says by whom and why."""

    def __init__(self, why: str, after_s: float = 0.0) -> None:
        super().__init__(why)
        self.after_s = after_s


class Target(Protocol):
    """Takes batches in the order of the log."""

    def take(self, batch: Batch) -> None:
        """Returns when it is taken. Raises NotTaken."""

    def settle(self) -> None:
        """Returns when all that was taken may be confirmed."""

    def close(self) -> None:
        """Nothing more comes."""


class Manner(msgspec.Struct, frozen=True):
    """How to deliver: how many events at a time, waiting how long for more, until when, and how often to try."""

    batch_events: int
    linger_s: float = 0.0
    once: bool = False
    tries: int | None = None
    confirm_s: float = 0.0


class Delivered(msgspec.Struct):
    """How it went so far."""

    events: int = 0
    started_s: float = msgspec.field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started_s

    def __str__(self) -> str:
        return (
            f"{self.events} event{'s' * (self.events != 1)} in {self.seconds:.1f} s"
            f" · {self.events / max(self.seconds, 1e-6):.1f} events/s"
        )


class Watch(NamedTuple):
    """Who watches over a delivery: asks it to end, tells of its trouble, counts, shows what it has done."""

    stop: Stop
    trouble: Trouble
    delivered: Delivered
    show: Callable[[object], None]

    def note(self, events: int) -> None:
        self.delivered.events += events
        self.show(self.delivered)


def deliver(consumer: Consumer, target: Target, manner: Manner, watch: Watch) -> None:
    """All that comes, or all that is there now. Raises SinkError when a batch was tried as often as was wanted."""
    end = consumer.end()
    waiting, confirmed_s = False, time.monotonic()
    while not watch.stop.asked and not (manner.once and consumer.read_to >= end):
        wait_s = 0.0 if manner.once else manner.confirm_s if waiting else TURN_S
        lines = consumer.read_lines(manner.batch_events, wait_s=wait_s, linger_s=manner.linger_s)
        if lines:
            batch = Batch(consumer.name, lines, _position(lines[0]).id, _position(lines[-1]).id)
            if not _taken(target, batch, manner, watch):
                consumer.rewind()
                break
            waiting = True
        if waiting and (not lines or time.monotonic() - confirmed_s >= manner.confirm_s):
            target.settle()
            consumer.confirm()
            waiting, confirmed_s = False, time.monotonic()
        watch.note(len(lines))
        if manner.once and not lines:
            break  # the log may end earlier than it did: what it ended with was read again, or dropped
    target.settle()
    consumer.confirm()


def _taken(target: Target, batch: Batch, manner: Manner, watch: Watch) -> bool:
    """Try until the batch is taken; False where it is to stop before."""
    failures = 0
    while True:
        try:
            target.take(batch)
        except NotTaken as error:
            failures += 1
            if failures == manner.tries:
                raise SinkError(f"{error}; given up after {_tries(failures)}, nothing is lost: start again") from error
            watch.trouble.note(str(error))
            if watch.stop.wait(max(_wait_s(failures), min(error.after_s, LONGEST_ASKED_WAIT_S))):
                return False
        else:
            watch.trouble.over(failures)
            return True


def _wait_s(failures: int) -> float:
    return delay_s(failures, first_s=FIRST_WAIT_S, cap_s=LONGEST_WAIT_S, chance=random.random())  # noqa: S311


def _tries(number: int) -> str:
    return "one try" if number == 1 else f"{number} tries"


class Trouble:
    """Tells when things begin to go wrong and when they are right again; not each time, however often that is."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._told_s: dict[str, float] = {}
        self._open = False

    def note(self, why: str) -> None:
        now_s = time.monotonic()
        if now_s - self._told_s.get(why, -SAID_AGAIN_S) < SAID_AGAIN_S or (self._open and why in self._told_s):
            return
        if len(self._told_s) > 100:  # a server may put anything into its reasons
            self._told_s.clear()
        self._told_s[why] = now_s
        self._open = True
        self._tell(f"{why}; trying again, nothing is passed over")

    @property
    def lasts(self) -> bool:
        """Whether something has gone wrong and not come right since."""
        return self._open

    def over(self, failures: int) -> None:
        if self._open:
            self._open = False
            self._tell(f"taken after {_tries(failures + 1)}: going on")


class Stop:
    """The wish of a signal that it ends in good order; the next one ends it at once, with KeyboardInterrupt."""

    def __init__(self) -> None:
        self.asked = False
        self.then: Callable[[], None] = lambda: None
        """What else to do when it is asked for; runs in the signal handler."""

    def __enter__(self) -> Self:
        self._out, self._in = os.pipe()
        self._before = [(number, signal.signal(number, self._ask)) for number in (signal.SIGINT, signal.SIGTERM)]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._before:
            signal.signal(number, handler)
        os.close(self._in)
        os.close(self._out)

    @contextlib.contextmanager
    def also(self, then: Callable[[], object]) -> Iterator[None]:
        """What else to do for the time of the block."""
        before = self.then

        def both() -> None:
            before()
            then()

        self.then = both
        try:
            yield
        finally:
            self.then = before

    def wait(self, seconds: float) -> bool:
        """Whether it was asked for within that time."""
        if not self.asked:
            select.select([self._out], [], [], seconds)
        return self.asked

    async def wait_async(self, seconds: float) -> bool:
        """`wait` for an event loop."""
        import asyncio

        from storage.off_loop import off_loop

        patience_s = time.monotonic() + seconds
        while not self.asked and (left_s := patience_s - time.monotonic()) > 0:
            await off_loop(self.wait, min(left_s, TURN_S))
            await asyncio.sleep(0)
        return self.asked

    def _ask(self, _number: int, _frame: FrameType | None) -> None:
        if self.asked:
            for number, _ in self._before:
                signal.signal(number, signal.SIG_DFL)  # a third one need not ask Python
            raise KeyboardInterrupt
        self.asked = True
        os.write(self._in, b".")
        self.then()


# --- to a broker ---


async def publish(consumer: Consumer, broker: Address, topic: str | TopicOf, manner: Manner, watch: Watch) -> None:
    """The messages of the events to a broker, confirmed as it acknowledges them; connects again when it must.

    `topic` is a prefix, or makes whole topics.
    """
    from gateway.sinks.mqtt import publisher

    feed = Feed(consumer, manner, watch)
    failures = 0
    while not feed.done and not watch.stop.asked:
        before = consumer.position
        try:
            async with publisher(broker, topic, resumes=True) as sink:
                watch.trouble.over(failures)
                await feed.run(sink)
        except (SinkError, ExceptionGroup) as error:
            why = _sink_error(error)
            await feed.give_up()
            if await watch.stop.wait_async(0):
                return
            failures = 1 if consumer.position > before else failures + 1
            if failures == manner.tries:
                raise SinkError(f"{why}; given up after {_tries(failures)}, nothing is lost: start again") from error
            watch.trouble.note(why)
            await watch.stop.wait_async(_wait_s(failures))


class Feed:
    """What goes on from one connection to the next."""

    def __init__(self, consumer: Consumer, manner: Manner, watch: Watch) -> None:
        self.done = False
        self._consumer = consumer
        self._manner = manner
        self._watch = watch
        self._end = consumer.end()
        self._sink: Sink | None = None

    async def run(self, sink: Sink) -> None:
        """Feed one connection until it is to end. Raises TimeoutError where it then does not acknowledge."""
        import asyncio

        loop, stop = asyncio.get_running_loop(), self._watch.stop
        async with asyncio.timeout(None) as patience:

            def hurry() -> None:
                with contextlib.suppress(RuntimeError):  # it has ended meanwhile
                    patience.reschedule(loop.time() + SETTLE_S)

            with stop.also(lambda: loop.call_soon_threadsafe(hurry)):
                if stop.asked:
                    hurry()
                await self._run(sink)

    async def _run(self, sink: Sink) -> None:
        import asyncio

        from storage.off_loop import off_loop

        consumer, manner, watch = self._consumer, self._manner, self._watch
        self._sink = sink
        confirmed_s = time.monotonic()
        while not watch.stop.asked and not (manner.once and consumer.read_to >= self._end):
            batch = await off_loop(consumer.read_messages, manner.batch_events)
            if batch:
                await sink.send(batch)
            else:
                await asyncio.sleep(POLL_S)
            if sink.confirmed > consumer.position and time.monotonic() - confirmed_s >= CONFIRM_S:
                await consumer.confirm_async(sink.confirmed)
                confirmed_s = time.monotonic()
            watch.note(len(batch))
            if manner.once and not batch:
                break
        await sink.settle()
        await consumer.confirm_async()
        self.done = True

    async def give_up(self) -> None:
        """Confirm what the last connection did, and begin with the rest again."""
        if self._sink is not None and self._sink.confirmed > self._consumer.position:
            await self._consumer.confirm_async(self._sink.confirmed)
        self._sink = None
        self._consumer.rewind()


def _sink_error(error: SinkError | ExceptionGroup[Exception]) -> str:
    """What is wrong with the connection; raises what is wrong with anything else."""
    if isinstance(error, ExceptionGroup):
        found, other = error.split((SinkError, TimeoutError))
        if other is not None:
            raise error
        return _sink_error(SinkError(str(found.exceptions[0]) or "the broker does not acknowledge")) if found else ""
    return str(error).partition("; acknowledged up to")[0].removesuffix("; start again")  # we go on by ourselves


class _Position(msgspec.Struct, frozen=True):
    """What tells of a line of JSON where it stands."""

    id: int


_position = msgspec.json.Decoder(_Position).decode
