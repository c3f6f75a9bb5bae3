"""The door to what is known now: `amber latest`, `series` and `devices`. Parses, asks, prints."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable
from itertools import islice
from typing import TYPE_CHECKING, Annotated

import typer

from storage.cli import (
    DEFAULT_STORE,
    ClockName,
    DeviceOption,
    Format,
    FormatOption,
    SinceOption,
    StoreOption,
    duration_us,
    filters_from_options,
    open_store,
    paged,
    write,
)

if TYPE_CHECKING:
    from storage.filters import Filters
    from storage.history import Reader

ReadingOption = Annotated[
    list[str] | None, typer.Option("--reading", metavar="NAME", help="Only readings of this name. Repeatable.")
]

REPAINT_S = 1.0
FRAME_LINES = 2
"""The heading, and a line that says that there is more."""


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    app.command()(latest)
    app.command()(series)
    app.command()(devices)


def latest(
    *,
    device: DeviceOption = None,
    reading: ReadingOption = None,
    since: SinceOption = None,
    stale: Annotated[
        str | None, typer.Option("--stale", metavar="DURATION", help="Only values that are older than that: 10m, 2h.")
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Repaint the screen each second, until Ctrl-C.")] = False,
    format: FormatOption = Format.table,
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Show the newest value of every reading of every device.

    The newest is the one that was observed last. --since and --stale mean that time.
    """
    older_us = None if stale is None else duration_us(stale, "--stale")
    chosen = latest_filters(device, reading, since, older_us)
    if watch and (format is not Format.table or not sys.stdout.isatty()):
        raise typer.BadParameter("it repaints a table on a terminal: leave it out, or --format and the pipe")
    with open_store(store) as reader:
        if watch:
            with contextlib.suppress(KeyboardInterrupt):
                repaint(reader, lambda: latest_filters(device, reading, since, older_us))
            return
        from storage.render import latest_view

        write(latest_view(now_us()), format, paged(reader.latest(chosen)))


def series(
    *,
    device: DeviceOption = None,
    reading: ReadingOption = None,
    format: FormatOption = Format.table,
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Show every reading of every device, with its unit and where that is from."""
    chosen = filters_from_options(device=device, reading=reading)
    from storage.render import series_view

    with open_store(store) as reader:
        write(series_view(), format, paged(reader.series(chosen)))


def devices(
    *,
    device: DeviceOption = None,
    offline: Annotated[bool, typer.Option("--offline", help="Only those that are known to be offline.")] = False,
    format: FormatOption = Format.table,
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Show every device: whether it is online, and its newest event."""
    chosen = filters_from_options(device=device)
    from storage.render import devices_view

    with open_store(store) as reader:
        found = (one for one in reader.devices(chosen) if not offline or one.online is False)
        write(devices_view(), format, paged(found))


def latest_filters(
    device: list[str] | None, reading: list[str] | None, since: str | None, older_us: int | None
) -> Filters:
    """What is to be shown, as of now. Raises BadParameter."""
    import msgspec

    chosen = filters_from_options(device=device, reading=reading, since=since, clock=ClockName.observed)
    if older_us is None:
        return chosen
    until = now_us() - older_us
    if chosen.since is not None and chosen.since >= until:
        raise typer.BadParameter("nothing is as old as that and as new as --since", param_hint="--stale")
    return msgspec.structs.replace(chosen, until=until)


def repaint(reader: Reader, filters: Callable[[], Filters]) -> None:
    """Show as many of the values as the screen has lines, each second anew."""
    from rich.console import Console, Group
    from rich.live import Live

    from storage.render import fitted, latest_view

    console = Console()
    with Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            room = max(console.height - FRAME_LINES, 1)
            values = list(islice(reader.latest(filters()), room + 1))
            table = fitted(latest_view(now_us()), [values[:room]])
            live.update(Group(table, "…") if len(values) > room else table, refresh=True)
            time.sleep(REPAINT_S)


def now_us() -> int:
    return time.time_ns() // 1000
