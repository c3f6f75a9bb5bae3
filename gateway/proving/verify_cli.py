"""The door to the proof: `amber verify`. Parses, asks, prints."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from storage.cli import DEFAULT_STORE, StoreOption, duration_us

DAY_US = 86_400_000_000


class VerdictFormat(StrEnum):
    table = "table"
    json = "json"


class PromiseName(StrEnum):
    puback = "puback"
    receipt = "receipt"
    both = "both"


class ByName(StrEnum):
    qos = "qos"
    device = "device"
    fault = "fault"
    none = "none"


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command()(verify)


def verify(
    *,
    ledgers: Annotated[
        list[str],
        typer.Argument(
            metavar="LEDGER...", show_default=False, help="What devices recorded: files, patterns, or a folder of them."
        ),
    ],
    store: StoreOption = DEFAULT_STORE,
    promise: Annotated[
        PromiseName, typer.Option("--promise", help="Whose word must be kept: the broker's, the gateway's, or both's.")
    ] = PromiseName.both,
    by: Annotated[ByName, typer.Option("--by", help="A row of the table for each; none: only the sum.")] = ByName.qos,
    wait: Annotated[
        str, typer.Option("--wait", metavar="DURATION", help="Wait so long at most for what is still missing.")
    ] = "0s",
    format: Annotated[VerdictFormat, typer.Option("--format", help="How to print.")] = VerdictFormat.table,
    picture: Annotated[
        Path | None,
        typer.Option("--picture", metavar="FILE", help="Also draw what was sent and lost over time: .png or .html."),
    ] = None,
    marks: Annotated[
        Path | None,
        typer.Option("--marks", metavar="FILE", help="What was done meanwhile, for the picture: see docs/verify.md."),
    ] = None,
) -> None:
    """Hold what simulated devices sent, and were promised, against what the store holds.

    Status 0: everything promised is stored, once. Status 1: a promise is broken, and the table names which.
    """
    wait_s = duration_us(wait, "--wait", most_us=DAY_US) / 1e6
    places = [path_of(text) for text in ledgers]
    if picture is not None and picture.suffix.lower() not in (".png", ".html"):
        raise typer.BadParameter(f"{str(picture)!r} must end in .png or .html", param_hint="--picture")
    if marks is not None and picture is None:
        raise typer.BadParameter("marks stand in a picture: give --picture FILE too", param_hint="--marks")
    import gateway.proving.picture as drawing
    from gateway.proving.showing import verdict_json
    from gateway.proving.verify import print_verdict
    from gateway.proving.verify import verify as hold
    from storage.engine import store_path
    from storage.errors import AmberError

    made = drawing.read_marks(marks) if marks else ()  # what is wrong with it is told before the work
    verdict = hold(places, store_path(store), promise=promise.value, by=by.value, wait_s=wait_s)
    if not verdict.totals.sent:
        raise AmberError(f"nothing was sent by what {', '.join(verdict.ledgers)} says: there is nothing to verify")
    if format is VerdictFormat.json:
        sys.stdout.write(verdict_json(verdict, promise.value))
        sys.stdout.flush()
    else:
        print_verdict(verdict, promise.value)
    if picture is not None:
        drawing.draw(verdict, promise.value, made, picture)
    raise typer.Exit(0 if verdict.holds(promise.value) else 1)


def path_of(text: str) -> Path:
    """Raises BadParameter for what the shell was given and no file can be called."""
    if not text or "\0" in text:
        raise typer.BadParameter("a ledger has a name", param_hint="LEDGER")
    return Path(text)
