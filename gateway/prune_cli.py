"""The door of retention: `amber prune`. Parses, drops, tells what went."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.formats_cli import ConfigOption, UsageError
from storage.cli import Format, FormatOption, write

if TYPE_CHECKING:
    from storage.render import View
    from storage.retention import Report
    from storage.retention.forgetting import Counts

Line = tuple[str, int | None, int | None, int | None, int | None, int | None, str | None, str | None, int | None]
"""What it is; segments, messages, events, rejections, roll-ups; received from and to; bytes. None: none of that."""


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    app.command()(prune)


def prune(
    *,
    max_age: Annotated[
        str | None, typer.Option("--max-age", metavar="AGE", help="Drop what is older: 90d, 12h; forever.")
    ] = None,
    max_size: Annotated[
        str | None,
        typer.Option("--max-size", metavar="SIZE", help="Drop the oldest until the store takes no more: 10GB."),
    ] = None,
    past_consumers: Annotated[
        bool, typer.Option("--past-consumers", help="Also what consumers and replays have yet to read.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would go, and change nothing.")] = False,
    format: FormatOption = Format.table,
    store: Annotated[str | None, typer.Option(help="The store: a file, or sqlite:///FILE.", show_default=False)] = None,
    config: ConfigOption = None,
) -> None:
    """Drop now what the configuration's [retention], or the options in its place, let go.

    A gateway may go on writing meanwhile. The room is used again by what comes; the file does not become smaller.
    """
    from gateway.config import load
    from storage.retention import prune

    kept: dict[str, Any] = {"max_age": max_age, "max_size": max_size, "past_consumers": past_consumers or None}
    given = {"store": store, "retention": {key: value for key, value in kept.items() if value is not None}}
    settings = load(config, {key: value for key, value in given.items() if value})
    options = settings.retention_options
    if not options.drops:
        raise UsageError("nothing says what may go: give --max-age or --max-size, or set [retention] in amber.toml")
    report = prune(settings.store_path, options, dry_run=dry_run)
    write(prune_view(dry_run=dry_run), format, [list(lines(report))])
    if format is Format.table:
        for remark in remarks(report, dry_run=dry_run):
            typer.echo(remark, err=True)


def lines(report: Report) -> Iterator[Line]:
    """What went and what is held, each sort of it in a line."""
    yield line("whole segments", report.dropped, report.freed_bytes)
    removed = line("single messages", report.removed)
    yield removed[0], None, *removed[2:]
    for names, counts in sorted(report.held.items()):
        yield line(f"held by {', '.join(names)}", counts)
    for name, rows in (("roll-ups of minutes", report.minutes), ("roll-ups of hours", report.hours)):
        if rows:
            yield name, None, None, None, None, rows, None, None, None


def line(what: str, counts: Counts, freed_bytes: int | None = None) -> Line:
    from storage.times import iso

    begin, end = (None if at is None else iso(at) for at in (counts.received_from, counts.received_to))
    return what, counts.segments, counts.messages, counts.events, counts.rejections, None, begin, end, freed_bytes


def prune_view(*, dry_run: bool) -> View[Line]:
    import msgspec

    from storage.render import View, shown

    def cells(line: Line) -> tuple[str, ...]:
        return tuple(
            "-" if value is None else f"{value:,}" if isinstance(value, int) else shown(value) for value in line
        )

    what = "would go" if dry_run else "went"
    numbers = "segments", "messages", "events", "rejections", "rollups"
    fields = "what", *numbers, "received_from", "received_to", "bytes"
    return View(
        to_json=lambda lines: [msgspec.json.encode(dict(zip(fields, line, strict=True))).decode() for line in lines],
        fields=fields,
        record=lambda line: line,
        columns=(what, *fields[1:]),
        cells=cells,
    )


def remarks(report: Report, *, dry_run: bool) -> Iterator[str]:
    """What a person should know besides."""
    if report.held:
        yield (
            "what is held goes when its readers have passed it, or now with --past-consumers; what is yet to be summed "
            "up waits for the gateway's keeper"
        )
    if report.too_large_by:
        yield (
            f"the store takes {report.too_large_by >> 20:,} MB more than it may, and only the segment that is being "
            "written is left"
        )
    if dry_run:
        yield "nothing was changed; the bytes are an estimate"
    elif report.freed_bytes or report.removed.messages:
        yield "the room is used again by what comes; the file does not become smaller"
