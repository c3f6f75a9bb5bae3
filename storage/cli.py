"""The door to the log: `amber events`, `rejections` and `status`. Parses, asks, prints; does nothing itself.

Importing it costs no more than Typer; what the commands need is imported when they run.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum
from itertools import islice
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

if TYPE_CHECKING:
    from storage.filters import Filters
    from storage.history import Reader
    from storage.render import View

T = TypeVar("T")

SHOWN_EVENTS = 20
PAGE = 500
LONGEST_US = 10**17
"""Three thousand years: times have no room for much more."""

RICH_ROWS = 1_000
"""A table that fits its columns to the terminal needs all rows in memory: longer ones are printed plain."""


class Format(StrEnum):
    table = "table"
    json = "json"
    jsonl = "jsonl"
    csv = "csv"


class ClockName(StrEnum):
    received = "received"
    observed = "observed"


StoreOption = Annotated[
    str, typer.Option("--store", envvar="AMBER_STORE", metavar="PATH|URL", help="The store's file, or sqlite:///FILE.")
]
DeviceOption = Annotated[
    list[str] | None,
    typer.Option("--device", metavar="NAME", help="Only this device; * and ? stand for any characters. Repeatable."),
]
TopicOption = Annotated[
    list[str] | None, typer.Option("--topic", metavar="FILTER", help="Only topics that match, as devices/+/telemetry.")
]
KindOption = Annotated[
    list[str] | None, typer.Option("--kind", metavar="KIND", help="Only events of this kind, as measurement or state.")
]
ReadingOption = Annotated[
    list[str] | None, typer.Option("--reading", metavar="NAME", help="Only events that have this reading.")
]
SinceOption = Annotated[
    str | None, typer.Option("--since", metavar="TIME", help="From then on: 2026-11-22T09:00:00Z, 2h (ago), yesterday.")
]
UntilOption = Annotated[str | None, typer.Option("--until", metavar="TIME", help="Before then, in the same words.")]
ClockOption = Annotated[
    ClockName, typer.Option("--clock", help="Whose times --since and --until mean: the gateway's or the device's.")
]
AfterOption = Annotated[int, typer.Option("--after", metavar="POSITION", min=0, help="Only what has a higher id.")]
LimitOption = Annotated[
    int | None, typer.Option("-n", "--limit", min=0, help=f"At most so many ({SHOWN_EVENTS} if not given); 0 for all.")
]
OldestFirstOption = Annotated[bool, typer.Option("--oldest-first", help="Begin with the oldest, not the newest.")]
FormatOption = Annotated[Format, typer.Option("--format", help="How to print.")]

DEFAULT_STORE = "amber.db"


def register(app: typer.Typer) -> None:
    """Add the log's commands to `app`."""
    app.command()(events)
    app.command()(rejections)
    app.command()(status)


def events(
    *,
    device: DeviceOption = None,
    topic: TopicOption = None,
    kind: KindOption = None,
    reading: ReadingOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    clock: ClockOption = ClockName.received,
    after: AfterOption = 0,
    limit: LimitOption = None,
    oldest_first: OldestFirstOption = False,
    format: FormatOption = Format.table,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with what comes, oldest first, until Ctrl-C.")
    ] = False,
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Show events, the newest first.

    With --follow the last ones come in order, and then the new ones as they are stored; with --follow --after POSITION
    all that came after it.
    """
    filters = filters_from_options(
        device=device, topic=topic, kind=kind, reading=reading, since=since, until=until, clock=clock, after=after
    )
    if follow:
        refuse_beside_follow(oldest_first=oldest_first, until=until, format=format)
    limit = SHOWN_EVENTS if limit is None and not (follow and after) else limit or None
    with open_store(store) as reader:
        if follow:
            follow_events(reader, filters, format, limit)
        else:
            list_events(reader, filters, format, limit, newest_first=not oldest_first)


def list_events(reader: Reader, filters: Filters, format: Format, limit: int | None, *, newest_first: bool) -> None:
    if format in (Format.json, Format.jsonl):
        write_json(format, reader.line_pages(filters, newest_first=newest_first, limit=limit))
        return
    from storage.render import events_view

    pages = reader.pages(filters, newest_first=newest_first, limit=limit)
    write(events_view(filters.clock), format, pages, fit=limit is not None and limit <= RICH_ROWS)


def follow_events(reader: Reader, filters: Filters, format: Format, last: int | None) -> None:
    """The last events and then what comes; Ctrl-C is the way it is meant to end."""
    with contextlib.suppress(KeyboardInterrupt):
        if format is Format.jsonl:
            write_json(format, reader.line_follower(filters, last=last).pages())
            return
        from storage.render import events_view

        write(events_view(filters.clock), format, reader.follower(filters, last=last).pages())


def rejections(
    *,
    topic: TopicOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    after: Annotated[int, typer.Option("--after", metavar="ID", min=0, help="Only rejections with a higher id.")] = 0,
    limit: LimitOption = None,
    oldest_first: OldestFirstOption = False,
    format: FormatOption = Format.table,
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Show the messages that no format could read, and why; the newest first."""
    filters = filters_from_options(topic=topic, since=since, until=until, after=after)
    from storage.render import rejections_view

    limit = SHOWN_EVENTS if limit is None else limit or None
    with open_store(store) as reader:
        found = reader.rejections(filters, newest_first=not oldest_first, limit=limit)
        write(rejections_view(), format, paged(found), fit=limit is not None and limit <= RICH_ROWS)


def status(*, format: FormatOption = Format.table, store: StoreOption = DEFAULT_STORE) -> None:
    """Show how much the store holds, from when to when."""
    from storage.render import status_items, status_view

    with open_store(store) as reader:
        items = status_items(reader.status())
    # One thing, so one JSON object, not an array of it.
    write(status_view(), Format.jsonl if format is Format.json else format, [items])


def filters_from_options(
    *,
    device: Sequence[str] | None = None,
    topic: Sequence[str] | None = None,
    kind: Sequence[str] | None = None,
    reading: Sequence[str] | None = None,
    since: str | None = None,
    until: str | None = None,
    clock: ClockName = ClockName.received,
    after: int = 0,
) -> Filters:
    """Filters as people give them. Raises BadParameter."""
    from storage.filters import Filters
    from storage.kinds import check_kinds

    begin, end = moment(since, "--since"), moment(until, "--until")
    if begin is not None and end is not None and begin >= end:
        raise typer.BadParameter("must be later than --since", param_hint="--until")
    try:
        check_kinds(kind or ())
        return Filters(
            devices=tuple(device or ()),
            topics=tuple(topic or ()),
            kinds=tuple(kind or ()),
            readings=tuple(reading or ()),
            since=begin,
            until=end,
            clock=clock.value,
            after=after,
        )
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def moment(text: str | None, option: str) -> int | None:
    """Microseconds of what a person gave as a time. Raises BadParameter."""
    if text is None:
        return None
    from storage.times import parse_time

    try:
        return parse_time(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from error


def duration_us(text: str, option: str, *, least_us: int = 0, most_us: int = LONGEST_US) -> int:
    """Microseconds of `10m`. Raises BadParameter."""
    from storage.times import SECOND, parse_duration

    seconds = parse_duration(text)
    if seconds is None or not least_us <= seconds * SECOND <= most_us:
        within = "" if seconds is None else f" from {least_us / 1e6:g} s to {most_us / 1e6:g} s"
        raise typer.BadParameter(f"{text!r} is no duration{within}: write 500ms, 10s, 5m, 2h or 1d", param_hint=option)
    return round(seconds * SECOND)


def open_store(store: str) -> Reader:
    """The store that --store names, open for reading. Raises StoreError."""
    from storage.engine import store_path
    from storage.history import Reader

    return Reader(store_path(store))


def refuse_beside_follow(*, oldest_first: bool, until: str | None, format: Format) -> None:
    """Raises BadParameter for what makes no sense with --follow."""
    if oldest_first:
        raise typer.BadParameter("--follow is in that order already: give -n 0 to begin with the oldest")
    if until is not None:
        raise typer.BadParameter("--follow has no end: leave --until or --follow out")
    if format is Format.json:
        raise typer.BadParameter("an array that --follow never ends is no JSON: take --format jsonl")


def write(view: View[T], format: Format, pages: Iterable[Sequence[T]], *, fit: bool = False) -> None:
    """Print what a view makes of the pages; with `fit` a table may be fitted to the terminal."""
    from storage import render

    if format in (Format.json, Format.jsonl):
        write_json(format, map(view.to_json, pages))
    elif format is Format.csv:
        put(render.csv_rows(view, pages))
    elif fit and sys.stdout.isatty():
        render.rich_table(view, pages)
    else:
        put(render.plain_table(view, pages))


def write_json(format: Format, pages: Iterable[Sequence[str]]) -> None:
    from storage import render

    put(render.json_array(pages) if format is Format.json else render.json_lines(pages))


def put(texts: Iterable[str]) -> None:
    """Write to standard output; whoever reads it may stop when he has seen enough."""
    out = sys.stdout.buffer
    try:
        for text in texts:
            out.write(text.encode())
            out.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains as it ends


def paged(things: Iterator[T]) -> Iterator[list[T]]:
    while page := list(islice(things, PAGE)):
        yield page
