"""The door to the store as a file: `amber backup` and `amber check`. Parses, runs, prints."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from storage.cli import DEFAULT_STORE, Format, FormatOption, StoreOption, write

if TYPE_CHECKING:
    from storage.checking import Finding
    from storage.render import View

POLITE = 5
"""The gateway goes first where both want the processor; but a read that starves holds up its write-ahead log."""


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    app.command()(backup)
    app.command()(check)


def backup(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where the copy goes.", show_default=False)],
    *,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that is there.")] = False,
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Copy the store to FILE, as it is at one moment; a gateway may go on writing meanwhile.

    The copy is checked before it takes its name: FILE is there whole and sound, or not at all.
    """
    from storage import backup as backing_up
    from storage.engine import store_path

    os.nice(POLITE)
    with bar() as tell:
        done = backing_up.backup(store_path(store), file, overwrite=overwrite, tell=tell)
    print(
        f"{file}: {done.events:,} events of {done.messages:,} messages, up to position {done.position}, "
        f"{done.bytes / 1e6:,.1f} MB in {done.seconds:.1f} s, verified"
    )


def check(
    *,
    quick: Annotated[bool, typer.Option("--quick", help="Counts only, not each entry.")] = False,
    format: FormatOption = Format.table,
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """See whether the store is sound; a gateway may go on writing meanwhile. Ends with status 1 where it is not."""
    from storage import checking
    from storage.engine import store_path

    os.nice(POLITE)
    with status("checking") as say:
        findings = []
        for finding in checking.check(store_path(store), quick=quick):
            findings.append(finding)
            say(f"checked: {finding.check}")
    write(findings_view(), format, [findings], fit=True)
    if any(finding.result == "broken" for finding in findings):
        raise typer.Exit(1)


def findings_view() -> View[Finding]:
    import msgspec

    from storage.render import View, shown

    def record(finding: Finding) -> tuple[str, ...]:
        return finding.check, finding.result, finding.found, finding.remedy

    return View(
        to_json=lambda findings: [msgspec.json.encode(finding).decode() for finding in findings],
        fields=("check", "result", "found", "remedy"),
        record=record,
        columns=("check", "result", "found", "what to do"),
        cells=lambda finding: tuple(map(shown, record(finding))),
    )


@contextlib.contextmanager
def bar() -> Iterator[Callable[[str, int, int], None]]:
    """Tells what is being done on a terminal."""
    if not sys.stderr.isatty():
        yield lambda step, size, expected: None  # noqa: ARG005
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True, refresh_per_second=4) as progress:
        task = progress.add_task("copying", total=None)
        yield lambda step, size, expected: progress.update(task, description=step, completed=size, total=expected)


@contextlib.contextmanager
def status(text: str) -> Iterator[Callable[[str], None]]:
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console

    with Console(stderr=True).status(text) as shown:
        yield shown.update
