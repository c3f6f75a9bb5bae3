"""The door out: `amber export`. Parses, writes a file, tells how it went; imports what is heavy when it is needed."""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from collections.abc import Callable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from storage.cli import (
    DEFAULT_STORE,
    AfterOption,
    ClockName,
    ClockOption,
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
    from storage.export import Compression, Done, Request


class ExportFormat(StrEnum):
    jsonl = "jsonl"
    csv = "csv"
    parquet = "parquet"


class Rows(StrEnum):
    events = "events"
    readings = "readings"


ENDINGS = {"csv": ExportFormat.csv, "parquet": ExportFormat.parquet, "pq": ExportFormat.parquet}
"""What the name of a file says of its format; JSON lines it is otherwise."""


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    app.command()(export)


def export(
    *,
    device: DeviceOption = None,
    topic: TopicOption = None,
    kind: KindOption = None,
    reading: ReadingOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    clock: ClockOption = ClockName.received,
    after: AfterOption = 0,
    limit: Annotated[
        int | None, typer.Option("-n", "--limit", min=0, help="At most so many events, from the oldest on; 0 for all.")
    ] = None,
    format: Annotated[
        ExportFormat | None,
        typer.Option("--format", help="What to write; if not given, what FILE's name says, or jsonl."),
    ] = None,
    output: Annotated[
        str,
        typer.Option("-o", "--output", metavar="FILE", help="The file; .gz and .zst are compressed. - is the output."),
    ] = "-",
    rows: Annotated[Rows, typer.Option("--rows", help="A row for each event, or for each reading.")] = Rows.events,
    payload: Annotated[
        bool, typer.Option("--payload", help="With each event its message's payload and properties.")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a file whose export was stopped, if there is one.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace FILE, and begin anew what was left unfinished.")
    ] = False,
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Write events, the oldest first, to a file: JSON lines, CSV or Parquet.

    What is committed after the start is left out; the line at the end names the position for the next time. The file
    is FILE.part until it is whole.
    """
    from storage.engine import store_path
    from storage.export import Request, begun

    filters = filters_from_options(
        device=device, topic=topic, kind=kind, reading=reading, since=since, until=until, clock=clock, after=after
    )
    named, compression = told_by_name(output)
    chosen = format or named or ExportFormat.jsonl
    refuse_nonsense(chosen, compression, rows, output, payload=payload, resume=resume, overwrite=overwrite)
    path = store_path(store)
    request = Request(
        store=str(path.absolute()),
        filters=filters,
        format=chosen.value,
        rows=rows.value,
        payload=payload,
        compression=compression,
        limit=limit or None,
    )
    asked = {
        "device": device,
        "topic": topic,
        "kind": kind,
        "reading": reading,
        "since": since,
        "until": until,
        "clock": clock.value,
        "after": after,
        "limit": request.limit,
        "format": chosen.value,
        "rows": rows.value,
        "payload": payload,
        "store": request.store,
    }
    if output == "-":
        to_standard_output(path, begun(path, request))
    else:
        to_file(Path(output), path, request, asked, resume=resume, overwrite=overwrite)


def told_by_name(output: str) -> tuple[ExportFormat | None, Compression]:
    """The format and the compression that a file's name speaks of."""
    name, compression = output.lower(), ""
    for ending in ("gz", "zst"):
        if name.endswith(f".{ending}"):
            name, compression = name.removesuffix(f".{ending}"), ending
    return ENDINGS.get(name.rpartition(".")[2]), compression  # type: ignore[return-value]


def refuse_nonsense(
    format: ExportFormat,
    compression: Compression,
    rows: Rows,
    output: str,
    *,
    payload: bool,
    resume: bool,
    overwrite: bool,
) -> None:
    """Raises BadParameter for what does not go together."""
    if format is ExportFormat.parquet and compression:
        raise typer.BadParameter(f"Parquet is compressed inside: leave .{compression} out of the name")
    if format is ExportFormat.parquet and output == "-" and sys.stdout.isatty():
        raise typer.BadParameter("Parquet is nothing for a terminal: name a file with -o")
    if rows is Rows.readings and payload:
        raise typer.BadParameter("a payload belongs to an event, not to a reading: leave --payload or --rows out")
    if output == "-" and (resume or overwrite):
        raise typer.BadParameter("--resume and --overwrite are for files: name one with -o")
    if resume and overwrite:
        raise typer.BadParameter("only one of --resume and --overwrite can be: leave the other out")


def to_standard_output(store: Path, request: Request) -> None:
    """Write it all at once; who is killed has to begin anew."""
    from storage.export import Done, write_stream

    done, started = Done(), time.perf_counter()
    with progress(request, done, quiet=sys.stdout.isatty()) as tick:
        write_stream(store, request, sys.stdout.buffer, done, tick)
    tell(summary(request, done, done.events, time.perf_counter() - started))


def to_file(file: Path, store: Path, request: Request, asked: dict[str, Any], *, resume: bool, overwrite: bool) -> None:
    """Write a new file, or what is missing of one. Raises ExportError, KeyboardInterrupt."""
    from storage.export import Checkpoint, Done, ExportError, Unfinished, begun, write_file

    if file.exists() and not file.is_file():
        raise ExportError(f"{file} is no file: name one, or leave -o out for standard output")
    if file.exists() and not overwrite:
        raise ExportError(f"{file} is there already: give another name, or --overwrite")
    if not file.parent.is_dir():
        raise ExportError(f"there is no folder {file.parent}: make it, or give another name")
    known = file.with_name(f"{file.name}.part.json").exists()
    if known and not (resume or overwrite):
        raise ExportError(f"{file} was left unfinished: go on with --resume, or begin anew with --overwrite")
    fresh = None if known and resume else begun(store, request)  # before there is a file: the store may not be
    with contextlib.closing(Unfinished(file)) as unfinished:
        checkpoint = unfinished.checkpoint() if resume else None
        if checkpoint is None:
            unfinished.clear()
            checkpoint = Checkpoint(asked, fresh or begun(store, request), Done())
        else:
            refuse_another(file, checkpoint.asked, asked)
        done, started = checkpoint.done, time.perf_counter()
        before = done.events
        with progress(checkpoint.request, done) as tick, stoppable() as stopped:
            finished = write_file(store, unfinished, checkpoint, tick, stopped)
    if not finished:
        tell(f"stopped after {counted(done.events, 'event')}: go on with --resume")
        raise KeyboardInterrupt
    tell(summary(checkpoint.request, done, done.events - before, time.perf_counter() - started, file))


def refuse_another(file: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    """Raises BadParameter where an export would go on as another than it was begun."""
    differing = [name for name in now if before.get(name) != now[name]]
    if differing:
        raise typer.BadParameter(
            f"the export to {file} was begun with another --{differing[0]}: give the same, or begin anew with "
            "--overwrite",
            param_hint="--resume",
        )


@contextlib.contextmanager
def stoppable() -> Iterator[Callable[[], bool]]:
    """Whether Ctrl-C or SIGTERM has come: the page that is being written is still finished."""
    came = False

    def stop(*_: object) -> None:
        nonlocal came
        came = True

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def progress(request: Request, done: Done, *, quiet: bool = False) -> Iterator[Callable[[], None]]:
    """A bar on the terminal, if standard error is one. What it yields moves it."""
    if quiet or not sys.stderr.isatty():
        yield lambda: None
        return
    if request.limit is not None:
        with bar(request.limit, "events") as move:
            yield lambda: move(done.events, done.events)
        return
    first, last = ends(request)
    with bar(last - first, "events") as move:
        yield lambda: move(done.position - first, done.events)


@contextlib.contextmanager
def bar(total: int, things: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on standard error. What it yields takes how far it is of the total, and how many things that were."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn(f"{{task.fields[count]:,}} {things}"), BarColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True, refresh_per_second=4) as shown:
        task = shown.add_task("", total=max(total, 1), count=0)
        yield lambda completed, count: shown.update(task, completed=max(completed, 0), count=count)


def ends(request: Request) -> tuple[int, int]:
    """The positions before the first event and of the last one."""
    from storage.history import Reader

    with Reader(Path(request.store)) as reader:
        first = next(reader.pages(request.filters, limit=1), [])
        last = next(reader.pages(request.filters, limit=1, newest_first=True), [])
    return (first[0].id - 1, last[0].id) if first and last else (0, 0)


def summary(request: Request, done: Done, now: int, seconds: float, file: Path | None = None) -> str:
    """How it went, on one line; `now` counts the events of this run."""
    said = f"exported {counted(done.events, 'event')}"
    if request.rows == "readings":
        said += f", {counted(done.rows, 'reading')},"
    if file is not None:
        said += f" to {file} ({done.bytes / 1e6:,.1f} MB)"
    rate = f"{now / seconds:,.0f} events/s" if seconds else ""
    return f"{said} in {seconds:.1f} s · {rate} · what comes later: --after {next_after(request, done)}"


def next_after(request: Request, done: Done) -> int:
    """Where the next export begins: behind what this one saw of the log, or where its limit ended it."""
    cut = request.limit is not None and done.events >= request.limit
    return done.position if cut else request.filters.until_position or 0


def counted(count: int, thing: str) -> str:
    return f"{count:,} {thing}{'s' * (count != 1)}"


def tell(text: str) -> None:
    sys.stderr.write(f"{text}\n")
