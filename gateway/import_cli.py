"""The door in: `amber import`. Parses, reads files into the log, tells how it went."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.formats_cli import ConfigOption
from storage.export_cli import bar, counted, tell

if TYPE_CHECKING:
    from gateway.config import Config
    from gateway.importing import Source, Tally
    from gateway.recordings import Options

TOLD_REASONS = 10


class ImportFormat(StrEnum):
    auto = "auto"
    events = "events"
    messages = "messages"
    mosquitto = "mosquitto"


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    app.command("import")(import_)


def import_(
    files: Annotated[
        list[str], typer.Argument(metavar="FILE…", help="Exports or recordings, .gz and .zst too; - is standard input.")
    ],
    *,
    format: Annotated[
        ImportFormat, typer.Option("--format", help="What the files hold; auto looks at their first lines.")
    ] = ImportFormat.auto,
    topic: Annotated[
        str | None, typer.Option("--topic", metavar="TOPIC", help="The topic of messages that give none.")
    ] = None,
    time_field: Annotated[
        str | None, typer.Option("--time-field", metavar="KEY", help="Where JSON messages have the time of receipt.")
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="Also a file that the store has already.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Tell what would be read, and store nothing.")] = False,
    store: Annotated[str | None, typer.Option(help="The store: a file, or sqlite:///FILE.", show_default=False)] = None,
    config: ConfigOption = None,
) -> None:
    """Bring into the store what `amber export` or mosquitto_sub has written, or JSON lines of messages.

    Messages are read as the gateway reads what arrives, with the time at which they were recorded. An import that was
    stopped goes on where it was, and a file that is in the store already is refused.
    """
    from gateway.config import load
    from gateway.recordings import Options

    if topic is not None:
        check_topic(topic)
    if files.count("-") > 1:
        raise typer.BadParameter("standard input can be read once: give - once")
    paths = [None if name == "-" else Path(name) for name in files]
    check_files(paths)
    settings = load(config, {} if store is None else {"store": store})
    options = Options(format.value, topic, time_field, settings.format_options.payload_bytes)
    if dry_run:
        read_only(settings, paths, options)
        return
    import asyncio

    try:
        done = asyncio.run(bring_in(settings, paths, options, again=again))
    except KeyboardInterrupt:
        known = "" if None in paths else ", and the same command goes on from there"
        tell(f"stopped: what was committed stays{known}")
        raise
    if not done:
        raise typer.Exit(1)


def check_topic(topic: str) -> None:
    """Raises BadParameter."""
    from gateway.recordings import checked_topic

    try:
        checked_topic(topic)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--topic") from None


def check_files(paths: Sequence[Path | None]) -> None:
    """See before anything is stored that all can be opened. Raises ImportFault."""
    from gateway.importing import source

    for path in paths:
        with source(path):
            pass


async def bring_in(settings: Config, paths: Sequence[Path | None], options: Options, *, again: bool) -> bool:
    """One file after the other; whether any had something new."""
    from gateway.importing import Importer, Tally, source, told_plainly
    from storage.log import Log

    formats, something = settings.make_formats(), False
    with told_plainly(settings.store_path):
        log = await Log(settings.store_path, settings.store_options).__aenter__()
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_exit(log)
        log.stop_waiting()  # here is somebody to tell that the disk is full
        formats.remember(await log.facts())
        importer = Importer(log, formats)
        for path in paths:
            with source(path) as opened:
                tally, started = Tally(), time.perf_counter()
                digest = None if path is None else opened.digest()
                if path is None:
                    tell("standard input is not known again: if this is stopped, what is stored comes twice next time")
                try:
                    with progress(opened, tally, "messages") as tick:
                        new = await importer.bring_in(opened, options, tally, tick, digest=digest, again=again)
                finally:
                    tell_faults(opened, tally)
                something = something or new
                tell_end(opened, tally, settings, time.perf_counter() - started, new=new)
        if something:
            await importer.read_again()
    return something


def read_only(settings: Config, paths: Sequence[Path | None], options: Options) -> None:
    """Tell what would be read."""
    from gateway.formats_cli import remembering
    from gateway.importing import Tally, read, source

    for path in paths:
        formats, tally, started = remembering(settings), Tally(), time.perf_counter()
        with source(path) as opened, progress(opened, tally, "messages") as tick:
            read(opened, options, formats, tally, tick)
        tell_faults(opened, tally)
        print(f"{opened.name}: {said(tally)}, in {time.perf_counter() - started:.1f} s; nothing was stored")
        for reason, count in tally.reasons.most_common(TOLD_REASONS):
            print(f"{count:>10,}  {shown(reason)}")


def said(tally: Tally) -> str:
    """The counts of a tally, in words."""
    parts = [counted(tally.messages, "message"), counted(tally.events, "event")]
    parts += [counted(tally.rejections, "rejection")] * (tally.rejections > 0)
    parts += [f"{tally.ignored:,} left out by a rule or as the gateway's own"] * (tally.ignored > 0)
    parts += [f"{tally.unreadable:,} that could not be read"] * (tally.unreadable > 0)
    return ", ".join(parts)


def tell_end(source: Source, tally: Tally, settings: Config, seconds: float, *, new: bool) -> None:
    """How it went, on one line."""
    if not new:
        tell(f"amber: {source.name} is in {settings.store_path} already: --again brings it in once more")
        return
    rate = f"{tally.messages / seconds:,.0f} messages/s · {tally.events / seconds:,.0f} events/s"
    tell(f"imported {source.name}: {said(tally)}, in {seconds:.1f} s · {rate}")


def tell_faults(source: Source, tally: Tally) -> None:
    """The first lines that could not be read, and why."""
    for fault in tally.faults:
        tell(f"{source.name}, line {fault.number}: {shown(fault.reason)}")
    if tally.unreadable > len(tally.faults):
        tell(f"{source.name}: and {tally.unreadable - len(tally.faults):,} more")


def shown(text: str) -> str:
    from storage.render import shown

    return shown(text)


@contextlib.contextmanager
def progress(source: Source, tally: Tally, things: str) -> Iterator[Callable[[], None]]:
    """A bar on the terminal, if standard error is one and the end is known. What it yields moves it."""
    if not sys.stderr.isatty() or not source.size:
        yield lambda: None
        return
    with bar(source.size, things) as move:
        yield lambda: move(tally.done_bytes, tally.messages)
