"""The door of delivery: `amber consume`. Parses, feeds, tells how it went."""

from __future__ import annotations

import contextlib
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from gateway.consumers_cli import parse_start
from gateway.replay_cli import DEFAULT_PREFIX, checked, parse_topics
from storage.cli import (
    DEFAULT_STORE,
    DeviceOption,
    KindOption,
    ReadingOption,
    StoreOption,
    TopicOption,
    duration_us,
    filters_from_options,
)

if TYPE_CHECKING:
    from gateway.deliver import Stop, Target, Watch
    from gateway.link.address import Address
    from storage.consumers import Consumer, Start
    from storage.filters import Filters

BATCH_EVENTS = 100
PRINTED_EVENTS = 2_000
"""At a time on standard output, which need not be told where a batch ends."""

ONCE_TRIES = 5
"""With --once somebody waits for the end, often a timer: what never succeeds is told, and not tried for ever."""

MOST_EVENTS = 100_000
LONGEST_US = 86_400_000_000
LOOK_AGAIN_S = 0.2
STATUS_S = 1.0

StartOption = Annotated[
    str,
    typer.Option(
        "--from",
        metavar="beginning|now|POSITION|TIME",
        help="Where a new consumer begins: with the oldest event, with what comes, after a position, or at a time.",
    ),
]


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command()(consume)


def consume(
    name: Annotated[
        str, typer.Argument(metavar="NAME", show_default=False, help="Whose position it is: it goes on there.")
    ],
    *,
    device: DeviceOption = None,
    topic: TopicOption = None,
    kind: KindOption = None,
    reading: ReadingOption = None,
    change_filters: Annotated[
        bool, typer.Option("--change-filters", help="From now on these, or none, in place of those it had so far.")
    ] = False,
    start: StartOption = "beginning",
    command: Annotated[
        str | None,
        typer.Option("--exec", metavar="COMMAND", help="Run it for each batch, the events on its standard input."),
    ] = None,
    to: Annotated[
        str,
        typer.Option(
            metavar="-|URL", help="Standard output; a server to post to, http[s]://…; or a broker, mqtt[s]://…"
        ),
    ] = "-",
    header: Annotated[
        list[str] | None,
        typer.Option(metavar="'NAME: VALUE'", help="A header of each request, with --to http[s]://. Repeatable."),
    ] = None,
    prefix: Annotated[
        str | None,
        typer.Option(metavar="TOPIC", help=f"What goes before each topic at the broker.  [default: {DEFAULT_PREFIX}]"),
    ] = None,
    same_topics: Annotated[
        bool, typer.Option("--same-topics", help="Nothing goes before the topics: for another broker than Amber's.")
    ] = False,
    topic_template: Annotated[
        str | None,
        typer.Option(
            metavar="TOPIC",
            show_default=False,
            help="The whole topic at the broker, as copy/{device}/{kind}; {1}: a level.",
        ),
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=MOST_EVENTS,
            show_default=False,
            help=f"So many events at a time at most; {BATCH_EVENTS}, or {PRINTED_EVENTS} on standard output.",
        ),
    ] = None,
    linger: Annotated[
        str, typer.Option(metavar="DURATION", help="Wait so long for more before a batch goes that is not full, as 1s.")
    ] = "0s",
    timeout: Annotated[
        str | None,
        typer.Option(
            metavar="DURATION",
            show_default=False,
            help="How long a command or a server may take for a batch; as long as it likes, or 30s.",
        ),
    ] = None,
    tries: Annotated[
        int | None,
        typer.Option(
            min=1,
            show_default=False,
            help=f"Give up when a batch has failed so often; if not given, never, or with --once after {ONCE_TRIES}.",
        ),
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="End when all is done that is there now.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait while another process reads under the name.")] = False,
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Hand on every event at least once, and go on where it was confirmed, whatever happened meanwhile.

    An event counts as done when it is written out, when the command ends with status 0, when the server answers 2xx, or
    when the broker has acknowledged it. What fails is tried again, later and later, at most 30 s apart.
    """
    from gateway.deliver import CONFIRM_S, Manner
    from gateway.link.address import Address
    from storage.engine import store_path

    if command is not None and to != "-":
        raise typer.BadParameter("only one of the two can be: leave the other out", param_hint="--exec, --to")
    timeout_s = None if timeout is None else parse_seconds(timeout, "--timeout", least_us=1_000)
    target = parse_to(to, header or [], timeout_s) if command is None else parse_exec(command, timeout_s)
    to_output, to_broker = command is None and to == "-", isinstance(target, Address)
    manner = Manner(
        batch_events=batch or (PRINTED_EVENTS if to_output else BATCH_EVENTS),
        linger_s=parse_seconds(linger, "--linger"),
        once=once,
        tries=ONCE_TRIES if tries is None and once and not to_output else tries,
        confirm_s=CONFIRM_S if to_output else 0.0,
    )
    refuse(
        ("--header", header, to.startswith("http")),
        ("--timeout", timeout, command is not None or to.startswith("http")),
        ("--tries", tries, not to_output),
        ("--linger", manner.linger_s, not to_broker),
    )
    topics = parse_topics(prefix, topic_template, same_topics=same_topics, to_broker=to_broker)
    filters = filters_from_options(device=device, topic=topic, kind=kind, reading=reading)
    request = Request(
        store_path(store), checked(name, "NAME"), filters, parse_start(start, "--from"), change_filters, wait, to_output
    )
    with session(request) as (consumer, watch):
        if isinstance(target, Address):
            import asyncio

            from gateway.deliver import publish

            asyncio.run(publish(consumer, target, topics, manner, watch))
        else:
            from gateway.deliver import deliver

            with contextlib.closing(target):
                deliver(consumer, target, manner, watch)


class Request(NamedTuple):
    """Whose events, which, from where on, and what to do where another process reads them."""

    path: Path
    name: str
    filters: Filters
    start: Start
    change_filters: bool
    wait: bool
    to_output: bool


@contextlib.contextmanager
def session(request: Request) -> Iterator[tuple[Consumer, Watch]]:
    """The consumer, who watches over it, and in the end a line that says how it went."""
    from gateway import streams
    from gateway.deliver import Delivered, Stop, Trouble, Watch

    line = StatusLine(shown=sys.stderr.isatty() and not (request.to_output and sys.stdout.isatty()))
    with Stop() as stop, warnings_told(line.tell):
        consumer = opened(request, stop, line.tell)
        if consumer is None:
            raise typer.Exit
        with consumer:
            stop.then = consumer.stop
            if not consumer.is_new:
                line.tell(f"consumer {consumer.name} goes on after position {consumer.position}")
            delivered, trouble, begun_at = Delivered(), Trouble(line.tell), consumer.position
            ended = False
            try:
                yield consumer, Watch(stop, trouble, delivered, line.show)
                ended = not trouble.lasts
            except BrokenPipeError:  # whoever read us has seen enough
                streams.silence()
            finally:
                line.clear()
                stays = consumer.is_new and consumer.position == begun_at and not ended
                line.tell(f"consumed {delivered} · {place_of(consumer, stays=stays)}")


def place_of(consumer: Consumer, *, stays: bool) -> str:
    """Where it is; of one that was only tried, how to be rid of it."""
    if not stays:
        return f"confirmed up to position {consumer.position}"
    return (
        f"consumer {consumer.name} stays at position {consumer.position} and holds retention:"
        f" amber consumers remove {consumer.name}"
    )


def opened(request: Request, stop: Stop, tell: Callable[[str], None]) -> Consumer | None:
    """The consumer, as soon as no other process reads under its name; None where it was to stop before."""
    from storage.consumers import Consumer, OtherFilters
    from storage.cursors import CursorBusy, CursorError
    from storage.engine import STOP_IT

    waits = False
    while True:
        try:
            return Consumer(
                request.path,
                request.name,
                request.filters,
                start=request.start,
                change_filters=request.change_filters,
            )
        except CursorBusy as error:
            if not request.wait:
                raise
            if not waits:
                tell(f"waiting: {str(error).removesuffix(STOP_IT)}")
                waits = True
        except OtherFilters as error:
            raise CursorError(f"{error}, or change them for good with --change-filters") from error
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint="--from") from error
        if stop.wait(LOOK_AGAIN_S):
            return None


@contextlib.contextmanager
def warnings_told(tell: Callable[[str], None]) -> Iterator[None]:
    """What the log has to say of a consumer, on a line each."""
    import logging

    class Told(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            tell(record.getMessage())

    logger, told = logging.getLogger("amber.consumer"), Told()
    logger.addHandler(told)
    try:
        yield
    finally:
        logger.removeHandler(told)


class StatusLine:
    """A line on the terminal that changes now and then, and those that stay above it."""

    def __init__(self, *, shown: bool) -> None:
        self._shown = shown
        self._at_s = time.monotonic()

    def show(self, text: object) -> None:
        if self._shown and time.monotonic() - self._at_s >= STATUS_S:
            self._at_s = time.monotonic()
            self._write(f"\r\x1b[K{text}")

    def tell(self, text: str) -> None:
        self.clear()
        self._write(f"{' '.join(text.split())}\n")

    def clear(self) -> None:
        if self._shown:
            self._write("\r\x1b[K")

    def _write(self, text: str) -> None:
        sys.stderr.write(text)
        sys.stderr.flush()


# --- options ---


def parse_seconds(text: str, option: str, *, least_us: int = 0) -> float:
    return duration_us(text, option, least_us=least_us, most_us=LONGEST_US) / 1e6


def parse_exec(text: str, timeout_s: float | None) -> Target:
    """A command that is there."""
    import shlex
    import shutil

    from gateway.sinks.command import Command

    try:
        words = shlex.split(text)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} cannot be split into words ({error})", param_hint="--exec") from None
    if not words:
        raise typer.BadParameter("there is no command in it", param_hint="--exec")
    if (word := shell_word(text)) is not None:
        raise typer.BadParameter(
            f"{word} is a shell's own, and there is no shell between: write sh -c '…'", param_hint="--exec"
        )
    if "\0" in text or shutil.which(words[0]) is None:
        raise typer.BadParameter(
            f"there is no command {words[0]!r}: name a program, or write sh -c '…' for a shell's own words",
            param_hint="--exec",
        )
    return Command(words, timeout_s)


def shell_word(text: str) -> str | None:
    """What stands in a command by itself, not quoted, and would mean something to a shell alone: `|`, `2>`, `&&`."""
    unquoted = QUOTED.sub("_", text)
    return next((word for word in unquoted.split() if SHELL_WORD.fullmatch(word)), None)


QUOTED = re.compile(r"""\\.|'[^']*'|"(?:\\.|[^"\\])*\"""", re.DOTALL)
SHELL_WORD = re.compile(r"[0-9]*[|&;<>]+(&[0-9-])?|[|&;<>]+[0-9]*")


def parse_to(text: str, headers: Sequence[str], timeout_s: float | None) -> Target | Address:
    """Standard output, a server to post to, or a broker. Raises BadParameter."""
    if text == "-":
        from gateway.sinks.output import Output

        return Output(sys.stdout.fileno())
    if not text.startswith(("http:", "https:")):
        return parse_broker(text)
    from gateway.sinks.http import TIMEOUT_S, Post, parse_header, parse_url

    try:
        url = parse_url(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--to") from None
    try:
        named = [parse_header(header) for header in headers]
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--header") from None
    return Post(url, named, timeout_s or TIMEOUT_S)


def parse_broker(text: str) -> Address:
    from gateway.link.address import parse_address
    from gateway.link.errors import LinkError

    if not text.startswith(("mqtt://", "mqtts://")):
        raise typer.BadParameter(
            f"{text!r} is no target: write -, http://…, https://…, mqtt://… or mqtts://…", param_hint="--to"
        )
    try:
        return parse_address(text)
    except LinkError as error:
        raise typer.BadParameter(str(error).removeprefix("broker "), param_hint="--to") from None


def refuse(*options: tuple[str, object, bool]) -> None:
    """Raises BadParameter for an option that was given and does not fit the rest."""
    for option, given, fits in options:
        if given and not fits:
            raise typer.BadParameter("it means nothing for where the events go: leave it out", param_hint=option)
