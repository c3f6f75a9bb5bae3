"""The door to charts: `amber chart`. Parses, asks, draws."""

from __future__ import annotations

import os
import shutil
import sys
import time
from contextlib import closing
from enum import Enum, StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from storage.cli import DEFAULT_STORE, SinceOption, StoreOption, UntilOption, duration_us, moment

if TYPE_CHECKING:
    from storage.chart import Chart, Newest
    from storage.snapshot import OpenLog
    from storage.summaries.buckets import Series

DEFAULT_SPAN_US = 86_400_000_000
SHORTEST_STEP_US = 1_000


class ChartFormat(StrEnum):
    plot = "plot"
    csv = "csv"
    json = "json"
    png = "png"


class ShownName(Enum):
    count = "count"
    min = "min"
    max = "max"
    mean = "mean"
    sum = "sum"
    last = "last"


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    app.command()(chart)


def chart(
    *,
    device: Annotated[str, typer.Argument(metavar="DEVICE", show_default=False, help="Whose readings.")],
    readings: Annotated[
        list[str], typer.Argument(metavar="READING...", show_default=False, help="Which; several share one chart.")
    ],
    since: SinceOption = None,
    until: UntilOption = None,
    every: Annotated[
        str | None,
        typer.Option("--every", metavar="DURATION", help="A point for each step of so long: 10s, 5m, 1h; else chosen."),
    ] = None,
    shown: Annotated[ShownName, typer.Option("--as", help="What of the readings in a step.")] = ShownName.mean,
    format: Annotated[
        ChartFormat | None,
        typer.Option(
            "--format", help="How to show it; else what the file is called: .png, .csv, .json.", show_default="plot"
        ),
    ] = None,
    output: Annotated[
        str | None, typer.Option("--output", "-o", metavar="FILE", help="Write there; - is standard output.")
    ] = None,
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Draw the numbers of a device over time, by its own clock: of the last 24 hours, or what --since says.

    Charts of whole minutes and hours come from sums that are kept, however long ago the events were.
    """
    to_stdout = output in (None, "-")
    format = format or format_of(output)
    if format is ChartFormat.png and (output is None or (to_stdout and sys.stdout.isatty())):
        raise typer.BadParameter("a picture needs a file: -o FILE", param_hint="--output")
    check_names(device, *readings)
    begin, end = moment(since, "--since"), moment(until, "--until")
    every_us = None if every is None else duration_us(every, "--every", least_us=SHORTEST_STEP_US)
    if begin is not None and end is not None and begin >= end:
        raise typer.BadParameter("must be later than --since", param_hint="--until")
    from storage import chart as drawing
    from storage.engine import store_path
    from storage.snapshot import OpenLog

    with closing(OpenLog(store_path(store))) as log:
        asked = ask(log, device, list(dict.fromkeys(readings)), (begin, end), every_us=every_us, shown=shown)
        remark = remark_on(log, asked)
    if format is ChartFormat.png:
        content = drawing.png_bytes(asked)
    elif format is ChartFormat.json:
        content = drawing.json_text(asked).encode()
    elif format is ChartFormat.csv:
        content = drawing.csv_text(asked).encode()
    else:
        columns, rows = shutil.get_terminal_size()
        coloured = to_stdout and sys.stdout.isatty() and not os.environ.get("NO_COLOR")
        content = drawing.plot_text(asked, columns, rows, coloured=coloured).encode()
    write(content, None if to_stdout else output)
    if remark:
        typer.echo(remark, err=True)


def ask(
    log: OpenLog,
    device: str,
    readings: list[str],
    span: tuple[int | None, int | None],
    *,
    every_us: int | None,
    shown: ShownName,
) -> Chart:
    """The chart that these options mean. Raises NoSuchSeries and TooManyBuckets."""
    from storage.chart import Chart, Line, step_for
    from storage.summaries.buckets import beginning, buckets, find_series

    series = [find_series(log, device, reading) for reading in readings]
    since, until = span
    until = time.time_ns() // 1_000 if until is None else until
    if since is None:
        # What has begun only now fills its chart all the same.
        since = min(beginning(log, one, until - DEFAULT_SPAN_US, until) for one in series)
    if since >= until:
        raise typer.BadParameter("lies in the future", param_hint="--since")
    every_us = every_us or step_for(until - since)
    lines = []
    for one in series:
        found = buckets(log, device, one.reading, since=since, until=until, every_us=every_us)
        lines.append(Line(one, found, None if found else newest(log, one)))
    return Chart(device, lines, since - since % every_us, until + -until % every_us, every_us, shown.value)


def newest(log: OpenLog, series: Series) -> Newest | None:
    """What is to be said of a series in the place of its numbers."""
    from storage.chart import Newest
    from storage.filters import Filters
    from storage.summaries.latest import latest

    for value in latest(log, Filters(devices=(series.device,), readings=(series.reading,))):
        if value.device == series.device and value.value != "null":  # the name of a device may have a star
            return Newest(value.at, is_text=value.value.startswith('"'))
    return None


def remark_on(log: OpenLog, asked: Chart) -> str | None:
    """What its reader has to know of the numbers."""
    from storage.render import shown
    from storage.summaries.buckets import as_they_were
    from storage.times import iso

    end = as_they_were(log, asked.lines[0].series, since=asked.since, every_us=asked.every_us)
    if end is None or asked.empty:
        return None
    return (
        f"amber: sums of {shown(asked.device)} before {iso(end)[:16]}Z are as they were before its messages were read "
        "again: events of that time are gone, so numbers and units may be the old ones"
    )


def format_of(output: str | None) -> ChartFormat:
    """What the name of a file says; a drawing where it says nothing."""
    ending = Path(output or "").suffix.lower().removeprefix(".")
    return ChartFormat(ending) if ending in ("png", "csv", "json") else ChartFormat.plot


def check_names(*names: str) -> None:
    """Raises BadParameter for what the shell was given and no device can be called."""
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise typer.BadParameter(f"{name!r} is not valid UTF-8") from error


def write(content: bytes, output: str | None) -> None:
    """To a file, or to standard output. Raises ChartError."""
    from storage.chart import ChartError

    if output is None:
        sys.stdout.buffer.write(content)
        sys.stdout.flush()
        return
    try:
        Path(output).write_bytes(content)
    except OSError as error:
        raise ChartError(f"cannot write {output} ({error.strerror}): see that its folder is there") from error
