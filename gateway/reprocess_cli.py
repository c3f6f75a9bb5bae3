"""The door of `amber reprocess`: parses, shows the difference, asks, replaces."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.formats_cli import ConfigOption, UsageError
from storage.cli import (
    ClockName,
    DeviceOption,
    KindOption,
    ReadingOption,
    SinceOption,
    TopicOption,
    UntilOption,
    filters_from_options,
)

if TYPE_CHECKING:
    from gateway.reprocess import Difference


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command()(reprocess)


def reprocess(
    *,
    device: DeviceOption = None,
    topic: TopicOption = None,
    kind: KindOption = None,
    reading: ReadingOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    format_name: Annotated[
        list[str] | None,
        typer.Option("--format", metavar="NAME", help="Only messages that this format read or rejected. Repeatable."),
    ] = None,
    rejected: Annotated[bool, typer.Option("--rejected", help="Only messages that no format could read.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would differ, and change nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Replace without asking.")] = False,
    samples: Annotated[int, typer.Option(min=0, help="Messages to show of each sort of difference.")] = 3,
    store: Annotated[str | None, typer.Option(help="The store: a file, or sqlite:///FILE.", show_default=False)] = None,
    config: ConfigOption = None,
) -> None:
    """Read stored messages again with the rules and formats of now; show the difference, then replace their events.

    A gateway may go on writing meanwhile. It needs a new start to read new messages by new rules.
    """
    from gateway.config import load
    from gateway.reprocess import Choice, Difference, readings, replace

    settings = load(config, {} if store is None else {"store": store})
    filters = filters_from_options(
        device=device,
        topic=topic,
        kind=kind,
        reading=reading,
        since=since,
        until=until,
        clock=ClockName.received,
        after=0,
    )
    if format_name:
        known = {*settings.make_formats().names, "rule", ""}
        if unknown := [name for name in format_name if name not in known]:
            raise UsageError(f"{unknown[0]!r} is no format: docs/formats.md has them all")
    choice = Choice(filters, tuple(format_name or ()), rejected)
    interactive = sys.stdin.isatty()
    if not (dry_run or yes or interactive):
        raise UsageError("nobody is there to be asked: give --dry-run to see the difference, or --yes to replace")
    difference, tick = Difference(samples), ticker()
    for one in readings(settings.store_path, choice, settings.make_formats):
        difference.note(one)
        tick(difference.messages)
    tick(0)
    print("\n".join(told(difference)))
    if dry_run or not difference.changed:
        return
    if not yes and not typer.confirm(f"Replace what became of {difference.changed:,} messages?", err=True):
        raise typer.Abort
    replaced, facts = replace(settings.store_path, choice, settings.make_formats, tick)
    tick(0)
    print(
        f"replaced: {replaced.messages:,} messages · events {replaced.events_added:,} added, "
        f"{replaced.events_changed:,} changed, {replaced.events_removed:,} removed · "
        f"rejections {replaced.rejections_added:,} added, {replaced.rejections_removed:,} removed · "
        f"{replaced.series:,} series new or of another unit"
    )
    if facts:
        print(f"learned {facts:,} facts that the store did not have: a gateway knows them after its next start")


def told(difference: Difference) -> Iterator[str]:
    """The difference in lines: counts by what became and what becomes of messages, then samples."""
    from gateway.reprocess import sample_lines

    yield f"{difference.messages:,} messages read again: {difference.changed:,} would become something else"
    for change, count in difference.changes.most_common():
        old, new = change
        yield f"{count:>10,}  {f'{old} → {new}' if old != new else f'{old}, with other events'}"
    for readings in difference.samples.values():
        for one in readings:
            yield from sample_lines(one)


def ticker() -> Callable[[int], None]:
    """Says on a terminal how far it is, once a second; 0 ends the line."""
    if not sys.stderr.isatty():
        return lambda _: None
    spoke = time.monotonic()

    def tick(messages: int) -> None:
        nonlocal spoke
        if messages == 0:
            print("\r\033[K", end="", file=sys.stderr, flush=True)
        elif time.monotonic() - spoke > 1:
            spoke = time.monotonic()
            print(f"\r{messages:,} messages …", end="", file=sys.stderr, flush=True)

    return tick
