"""The door of replay: `amber replay`. Parses, plays, tells how it went; imports what is heavy when it is needed."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

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
    duration_us,
    filters_from_options,
)

if TYPE_CHECKING:
    from gateway.link.address import Address
    from gateway.replay_run import Account, Request
    from gateway.sinks.topics import TopicOf
    from storage.replay.bookmark import Bookmark

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
    rate: Annotated[
        str | None, typer.Option(metavar="NUMBER", help="At most so many events a second, evenly, whatever the speed.")
    ] = None,
    max_gap: Annotated[
        str | None,
        typer.Option(metavar="DURATION", help="Play longer silences in the log as if they were this, as 10s."),
    ] = None,
    loop: Annotated[bool, typer.Option("--loop", help="Begin again at the end, until it is stopped.")] = False,
    times: Annotated[int | None, typer.Option("--times", min=1, metavar="N", help="Play it so many times.")] = None,
    start_paused: Annotated[
        bool, typer.Option("--start-paused", help="Wait for a key before the first event.")
    ] = False,
    no_keys: Annotated[
        bool, typer.Option("--no-keys", help="Leave the terminal's keys to others, as to less.")
    ] = False,
    state_first: Annotated[
        bool, typer.Option("--state-first", help="Before the start, the events with the last value of each series.")
    ] = False,
    retime: Annotated[
        bool, typer.Option("--retime", help="Move all times so that the first event is now. Brokers then get JSON.")
    ] = False,
    digest: Annotated[
        bool, typer.Option("--digest", help="At the end tell the SHA-256 of what was played, as --speed max prints it.")
    ] = False,
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
    topic_template: Annotated[
        str | None,
        typer.Option(metavar="TEMPLATE", help="The whole topic, as 'test/{device}/{kind}'; {1} is its first level."),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(
            "--as", metavar="NAME", help="Keep under this name how far it is, and go on from there next time."
        ),
    ] = None,
    restart: Annotated[bool, typer.Option("--restart", help="With --as: begin anew.")] = False,
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Play a stretch of the log again, in its order and at its pace: as JSON lines, or to a broker.

    A broker gets each message once, as it was received and marked as a replay, which no gateway stores again. For
    mqtts:// the certificates count that the system trusts, or those in the file that SSL_CERT_FILE names.
    """
    filters = filters_from_options(
        device=device, topic=topic, kind=kind, reading=reading, since=since, until=until, clock=clock, after=after
    )
    pace, most = parse_speed(speed), parse_rate(rate)
    gap_us = None if max_gap is None else duration_us(max_gap, "--max-gap")
    rounds = parse_rounds(times, loop=loop)
    broker = parse_target(to)
    topics = parse_topics(prefix, topic_template, same_topics=same_topics, to_broker=to != "-")
    refuse_beside_name(name, restart=restart, again=loop or times is not None)
    if name is not None:
        checked(name, "--as")
    keys = terminal(no_keys=no_keys)
    refuse_to_wait_for_ever(start_paused=start_paused, keys=keys)

    from gateway.replay_run import Request
    from storage.engine import store_path
    from storage.replay.player import Manner

    request = Request(
        path=store_path(store),
        filters=filters,
        limit=limit or None,
        manner=Manner(speed=pace, clock=clock.value, max_gap_us=gap_us, rate=most, rounds=rounds, paused=start_paused),
        broker=broker,
        topic=topics,
        state_first=state_first,
        retime=retime,
        keys=keys,
    )
    with bookmarked(request, name, since, until, restart=restart) as (request, bookmark):
        run(request, bookmark, digest=digest)


def run(request: Request, bookmark: Bookmark | None, *, digest: bool) -> None:
    """Play, and tell how it went."""
    from gateway import streams
    from gateway.replay_run import Account, Digest, Terminated, play
    from gateway.replay_screen import Screen
    from storage.replay import Played

    after = request.filters.after
    account = Account(played=Played(), confirmed=after, digest=Digest() if digest else None)
    if request.keys is not None and not request.at_once:
        from gateway.replay_keys import KEYS_HELP

        tell(KEYS_HELP)
    screen = Screen(*(ends(request) if sys.stderr.isatty() else (0, 0)), request.limit)
    try:
        play(request, account, screen, bookmark)
    except KeyboardInterrupt as interrupt:
        streams.silence()
        position = account.confirmed if request.broker is not None else account.played.position
        tell(summary(request, account, bookmark, stopped_at=position or after))
        if isinstance(interrupt, Terminated):
            raise typer.Exit(128 + signal.SIGTERM) from None
        raise
    except BrokenPipeError:  # whoever read us has seen enough
        streams.silence()
    else:
        position = account.confirmed if request.broker is not None else account.played.position
        tell(summary(request, account, bookmark, stopped_at=(position or after) if account.stopped else None))
        if account.digest is not None:
            tell(f"sha256 {account.digest.hex()}")


@contextlib.contextmanager
def bookmarked(
    request: Request, name: str | None, since: str | None, until: str | None, *, restart: bool
) -> Iterator[tuple[Request, Bookmark | None]]:
    """The request as far as it has not been played under its name."""
    if name is None:
        yield request, None
        return
    from msgspec.structs import replace

    from storage.replay.bookmark import Asked, Bookmark

    asked = Asked(request.filters, since, until, request.limit)
    with Bookmark(request.path, name, asked, restart=restart) as bookmark:
        yield replace(request, filters=bookmark.filters, limit=None), bookmark


def ends(request: Request) -> tuple[int, int]:
    """The positions before the first event and of the last one."""
    from storage.history import Reader

    with Reader(request.path) as reader:
        first = next(reader.pages(request.filters, limit=1), [])
        last = next(reader.pages(request.filters, limit=1, newest_first=True), [])
    return (first[0].id - 1, last[0].id) if first and last else (0, 0)


def summary(request: Request, account: Account, bookmark: Bookmark | None, *, stopped_at: int | None) -> str:
    """How it went, on one line; where it was stopped, how to go on."""
    played = account.played
    if bookmark is not None and bookmark.resumed and not played.events and stopped_at is None:
        return f"nothing is left to replay as {bookmark.name}: --restart begins anew"
    said = [
        f"replayed {played.events} event{'s' * (played.events != 1)} in {played.seconds:.1f} s",
        f"{played.events_per_s:.1f} events/s",
        f"{played.speed:.1f}×",
    ]
    if request.manner.speed is not None:
        said.append(f"latest {1_000 * played.worst_lateness_s:.1f} ms behind")
    if request.state_first:
        said.append(f"{account.state_events} before the start")
    if played.round > 1:
        said.append(f"{played.round} rounds")
    if bookmark is not None:
        begun = f"went on after {bookmark.begun_at}, " if bookmark.resumed else ""
        said.append(f"{begun}confirmed up to {bookmark.position}")
    if stopped_at is not None:
        said.append(f"stopped, go on with --{f'as {bookmark.name}' if bookmark else f'after {stopped_at}'}")
    return " · ".join(said)


def tell(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def terminal(*, no_keys: bool) -> int | None:
    """Standard input, if it is a terminal whose keys may steer us."""
    return 0 if not no_keys and os.isatty(0) else None


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


def parse_rate(text: str | None) -> float | None:
    """Events a second, above 0."""
    if text is None:
        return None
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not 0 < rate < math.inf:
        raise typer.BadParameter(f"{text!r} is no rate: write events a second, as 100 or 0.5", param_hint="--rate")
    return rate


def parse_rounds(times: int | None, *, loop: bool) -> int | None:
    """How many times to play it; None is without end."""
    if loop and times is not None:
        raise typer.BadParameter("only one of the two can be: leave the other out", param_hint="--loop, --times")
    return None if loop else times or 1


def parse_target(text: str) -> Address | None:
    """The broker; None is standard output."""
    if text == "-":
        return None
    from gateway.link.address import parse_address
    from gateway.link.errors import LinkError

    try:
        return parse_address(text)
    except LinkError as error:
        raise typer.BadParameter(str(error).removeprefix("broker "), param_hint="--to") from None


def parse_topics(prefix: str | None, template: str | None, *, same_topics: bool, to_broker: bool) -> str | TopicOf:
    """A prefix, or what makes the whole topics."""
    if template is None:
        return parse_prefix(prefix, same_topics=same_topics, to_broker=to_broker)
    if not to_broker or same_topics or prefix is not None:
        why = "says the whole topic: leave --prefix and --same-topics out" if to_broker else NO_TOPICS
        raise typer.BadParameter(why, param_hint="--topic-template")
    from gateway.sinks.topics import TopicError, templated

    try:
        return templated(template)
    except TopicError as error:
        raise typer.BadParameter(str(error), param_hint="--topic-template") from error


def refuse_beside_name(name: str | None, *, restart: bool, again: bool) -> None:
    """Raises BadParameter for what makes no sense with --as, or without it."""
    if name is None and restart:
        raise typer.BadParameter("only a replay with a name can begin anew: add --as NAME", param_hint="--restart")
    if name is not None and again:
        raise typer.BadParameter(
            "a replay that begins again stands nowhere: leave --loop and --times out", param_hint="--as"
        )


def checked(name: str, option: str) -> str:
    """A name that a cursor can have. Raises BadParameter."""
    from storage.cursors import CursorError, check_name

    try:
        return check_name(name)
    except CursorError as error:
        raise typer.BadParameter(str(error), param_hint=option) from None


def refuse_to_wait_for_ever(*, start_paused: bool, keys: int | None) -> None:
    """Raises BadParameter where a paused replay could not be resumed."""
    if start_paused and keys is None:
        raise typer.BadParameter("standard input is no terminal, so no key could start it", param_hint="--start-paused")


def parse_prefix(text: str | None, *, same_topics: bool, to_broker: bool) -> str:
    """What to put before each topic: whole levels, or nothing where that was asked for in as many words."""
    if not to_broker and (same_topics or text is not None):
        raise typer.BadParameter(NO_TOPICS, param_hint=HINT)
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


NO_TOPICS = "standard output has no topics: add --to mqtt://HOST, or leave it out"
HINT = "--prefix, --same-topics"
