"""The door to what is missing: `amber gaps`. Parses, asks, prints."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from storage.cli import (
    DEFAULT_STORE,
    ClockName,
    DeviceOption,
    Format,
    FormatOption,
    StoreOption,
    filters_from_options,
    open_store,
    paged,
    write,
)

if TYPE_CHECKING:
    from storage.gaps import Gaps

UNKNOWN = "what came before the first number of a start, or after the last, cannot be known"


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command()(gaps)


def gaps(
    *,
    device: DeviceOption = None,
    since: Annotated[
        str | None,
        typer.Option("--since", metavar="TIME", help="Only starts of which something was observed since: 2h, …"),
    ] = None,
    whole: Annotated[bool, typer.Option("--all", help="Also the starts of which nothing is missing.")] = False,
    format: FormatOption = Format.table,
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Show which events of each device never came, which came twice, and which contradict each other.

    By the sequence numbers of each start of a device (boot), where it tells them. What came before the first number of
    a start or after the last cannot be known.
    """
    chosen = filters_from_options(device=device, since=since, clock=ClockName.observed)
    from storage.render import gaps_view

    with open_store(store) as reader:
        tally = Tally()
        write(gaps_view(), format, paged(tally.told(reader.gaps(chosen), whole=whole)))
    if format is Format.table:
        sys.stdout.flush()
        typer.echo(tally.line(whole=whole), err=True)


class Tally:
    """Counts the starts of devices on their way."""

    def __init__(self) -> None:
        self.starts = 0
        self.shown = 0

    def told(self, found: Iterable[Gaps], *, whole: bool) -> Iterator[Gaps]:
        """Those that there is something to say of, and with `whole` the others."""
        for one in found:
            self.starts += one.boot is not None
            if whole or not one.is_whole:
                self.shown += one.boot is not None
                yield one

    def line(self, *, whole: bool) -> str:
        if not self.starts:
            return "no device tells which start its numbers count from"
        if whole:
            return f"{self.shown:,} starts of devices; {UNKNOWN}"
        return f"{self.shown:,} of {self.starts:,} starts of devices (--all shows all); {UNKNOWN}"
