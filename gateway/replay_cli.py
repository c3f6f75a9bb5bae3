"""The door of replay: `amber replay`. Parses, plays, tells how it went; imports what is heavy when it is needed."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import sys
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple, NoReturn

import typer

from storage.cli import (
    DEFAULT_STORE,
    AfterOption,
    ClockName,
    DeviceOption,
    KindOption,
    ReadingOption,
    SinceOption,
    StoreOption,
    TopicOption,
    UntilOption,
    filters_from_options,
)

if TYPE_CHECKING:
    from gateway.link.address import Address
    from gateway.sinks import Sink
    from storage.event import Message, StoredEvent
    from storage.filters import Filters
    from storage.replay import Played

DEFAULT_PREFIX = "replay/"


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command()(replay)


def replay(
    *,
    device: DeviceOption = None,
    topic: TopicOption = None,
    kind: KindOption = None,
    reading: ReadingOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    clock: Annotated[
        ClockName, typer.Option("--clock", help="Whose times --since, --until and the pace go by: gateway or device.")
    ] = ClockName.received,
    after: AfterOption = 0,
    limit: Annotated[
        int | None, typer.Option("-n", "--limit", min=0, help="At most so many, from the beginning; 0 for all.")
    ] = None,
    speed: Annotated[
        str, typer.Option(metavar="NUMBER|max", help="1: as fast as it happened; 10: ten times; max: all it can.")
    ] = "1",
    max_gap: Annotated[
        str | None,
        typer.Option(metavar="DURATION", help="Play longer silences in the log as if they were this, as 10s."),
    ] = None,
    to: Annotated[
        str, typer.Option(metavar="-|URL", help="Standard output, or a broker: mqtt[s]://[user:password@]host[:port].")
    ] = "-",
    prefix: Annotated[
        str | None,
        typer.Option(metavar="TOPIC", help=f"What goes before each topic at the broker.  [default: {DEFAULT_PREFIX}]"),
    ] = None,
    same_topics: Annotated[
        bool, typer.Option("--same-topics", help="Nothing goes before the topics: devices may take it for the present.")
    ] = False,
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Play a stretch of the log again, in its order and at its pace: as JSON lines, or to a broker.

    A broker gets each message once, as it was received and marked as a replay, which no gateway stores again. For
    mqtts:// the certificates count that the system trusts, or those in the file that SSL_CERT_FILE names.
    """
    from storage.engine import store_path
    from storage.replay import Played

    request = Request(
        path=store_path(store),
        filters=filters_from_options(
            device=device,
            topic=topic,
            kind=kind,
            reading=reading,
            since=since,
            until=until,
            clock=clock,
            after=after,
        ),
        limit=limit or None,
        speed=parse_speed(speed),
        max_gap_us=parse_gap(max_gap),
        broker=parse_target(to),
        prefix=parse_prefix(prefix, same_topics=same_topics, to_broker=to != "-"),
    )
    played = Played()
    try:
        with progress(request, played) as tick:
            play(request, played, tick)
    except KeyboardInterrupt:
        tell(f"{summary(played, request.speed)} · stopped, go on with --after {played.position or after}")
        raise
    except BrokenPipeError:  # whoever read us has seen enough; keep Python from flushing into the pipe at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    else:
        tell(summary(played, request.speed))


class Request(NamedTuple):
    """What to play, how fast (None: as fast as possible), and to whom: a broker, or else standard output."""

    path: Path
    filters: Filters
    limit: int | None
    speed: float | None
    max_gap_us: int | None
    broker: Address | None
    prefix: str


def play(request: Request, played: Played, tick: Callable[[], None]) -> None:
    """Play to whom it was asked for; `tick` is called after each batch."""
    import asyncio

    if request.broker is not None:
        asyncio.run(publish(request, request.broker, played, tick))
    elif request.speed is None:
        print_at_once(request, played, tick)
    else:
        with interruptible():
            asyncio.run(print_in_time(request, played, tick))


def print_at_once(request: Request, played: Played, tick: Callable[[], None]) -> None:
    """JSON lines on standard output, a page to a write."""
    from storage.replay import replay_lines

    out = sys.stdout.buffer
    for lines in replay_lines(request.path, request.filters, limit=request.limit, played=played):
        out.write("\n".join([*lines, ""]).encode())
        out.flush()
        tick()


async def print_in_time(request: Request, played: Played, tick: Callable[[], None]) -> None:
    """JSON lines on standard output, each when it is due."""
    from storage.event_json import events_json
    from storage.replay import replay

    out = sys.stdout.buffer
    batches = replay(
        request.path,
        request.filters,
        speed=request.speed,
        clock=request.filters.clock,
        max_gap_us=request.max_gap_us,
        limit=request.limit,
        played=played,
    )
    async with aclosing(batches):
        async for batch in batches:
            out.write("\n".join([*events_json(batch), ""]).encode())
            out.flush()
            tick()


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Ctrl-C ends also a write that nobody reads; asyncio's own handler would wait for the end of that."""

    def interrupt(*_: object) -> NoReturn:  # Python's own, which does the same, asyncio would replace
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


async def publish(request: Request, broker: Address, played: Played, tick: Callable[[], None]) -> None:
    """The messages of the events to a broker; returns when it has acknowledged them all."""
    from gateway.sinks.mqtt import publisher
    from storage.replay import replay_messages

    async with publisher(broker, request.prefix) as sink:
        batches = replay_messages(
            request.path,
            request.filters,
            speed=request.speed,
            clock=request.filters.clock,
            max_gap_us=request.max_gap_us,
            limit=request.limit,
            played=played,
        )
        try:
            await feed(sink, batches, tick)
        finally:
            played.position = sink.confirmed


async def feed(
    sink: Sink, batches: AsyncGenerator[list[tuple[StoredEvent, Message]], None], tick: Callable[[], None]
) -> None:
    """All of it to a sink; returns when that has confirmed it."""
    async with aclosing(batches):
        async for batch in batches:
            await sink.send(batch)
            tick()
    await sink.settle()


@contextlib.contextmanager
def progress(request: Request, played: Played) -> Iterator[Callable[[], None]]:
    """A bar on the terminal, if standard error is one and nothing else is written there. What it yields moves it."""
    if not sys.stderr.isatty() or (request.broker is None and sys.stdout.isatty()):
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.fields[events]} events"), BarColumn(), TimeRemainingColumn()
    first, last = ends(request)
    with Progress(*columns, console=Console(stderr=True), transient=True, refresh_per_second=4) as bar:
        task = bar.add_task("", total=request.limit or last - first, events=0)

        def tick() -> None:
            done = played.events if request.limit else played.position - first
            bar.update(task, completed=max(done, 0), events=played.events)

        yield tick


def ends(request: Request) -> tuple[int, int]:
    """The positions before the first event and of the last one."""
    from storage.history import Reader

    with Reader(request.path) as reader:
        first = next(reader.pages(request.filters, limit=1), [])
        last = next(reader.pages(request.filters, limit=1, newest_first=True), [])
    return (first[0].id - 1, last[0].id) if first and last else (0, 0)


def summary(played: Played, speed: float | None) -> str:
    """How it went, on one line."""
    said = [
        f"replayed {played.events} event{'s' * (played.events != 1)} in {played.seconds:.1f} s",
        f"{played.events_per_s:.1f} events/s",
        f"{played.speed:.1f}×",
    ]
    if speed is not None:
        said.append(f"latest {1_000 * played.worst_lateness_s:.1f} ms behind")
    return " · ".join(said)


def tell(text: str) -> None:
    sys.stderr.write(f"{text}\n")


# --- options ---


def parse_speed(text: str) -> float | None:
    """A number above 0; None is as fast as possible."""
    if text == "max":
        return None
    try:
        speed = float(text)
    except ValueError:
        speed = 0.0
    if not 0 < speed < math.inf:
        raise typer.BadParameter(f"{text!r} is no speed: write 1, 10, 0.5 or max", param_hint="--speed")
    return speed


def parse_gap(text: str | None) -> int | None:
    """Microseconds."""
    from storage.times import SECOND, parse_duration

    if text is None:
        return None
    seconds = parse_duration(text)
    if seconds is None:
        raise typer.BadParameter(f"{text!r} is no duration: write 500ms, 10s or 5m", param_hint="--max-gap")
    return int(seconds * SECOND)


def parse_target(text: str) -> Address | None:
    """The broker; None is standard output."""
    if text == "-":
        return None
    from gateway.link.address import parse_address
    from gateway.link.errors import LinkError

    try:
        return parse_address(text)
    except LinkError as error:
        raise typer.BadParameter(str(error).removeprefix("broker_url "), param_hint="--to") from None


def parse_prefix(text: str | None, *, same_topics: bool, to_broker: bool) -> str:
    """What to put before each topic: whole levels, or nothing where that was asked for in as many words."""
    if not to_broker and (same_topics or text is not None):
        raise typer.BadParameter(
            "standard output has no topics: add --to mqtt://HOST, or leave it out", param_hint=HINT
        )
    if same_topics and text is not None:
        raise typer.BadParameter("only one of the two can be: leave the other out", param_hint=HINT)
    if same_topics:
        return ""
    levels = DEFAULT_PREFIX if text is None else text
    if not levels.strip("/"):
        raise typer.BadParameter(
            "an empty one would publish under the topics as they were: if that is meant, write --same-topics",
            param_hint="--prefix",
        )
    if not levels.isprintable() or "+" in levels or "#" in levels:
        raise typer.BadParameter(f"{levels!r} cannot be part of a topic: leave out + and #", param_hint="--prefix")
    return f"{levels.rstrip('/')}/"


HINT = "--prefix, --same-topics"
