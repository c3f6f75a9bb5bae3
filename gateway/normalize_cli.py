"""The door of `amber normalize`: parses, delegates, prints."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("normalize")(normalize)


def normalize(
    file: Annotated[
        Path | None, typer.Argument(help="Messages, one JSON object a line; standard input if left out.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="The configuration; amber.toml, if there is one.", show_default=False)
    ] = None,
) -> None:
    """Read messages into events without broker or store: a line of JSON in, a line of JSON out."""
    from gateway.config import load
    from gateway.normalize import LineError, normalized

    formats = load(config, {}).make_formats()
    try:
        lines = sys.stdin.buffer if file is None else file.open("rb")
    except OSError as fault:
        raise LineError(f"cannot read {file}: {fault.strerror}") from None
    with lines:
        for line in normalized(lines, formats):
            sys.stdout.buffer.write(line + b"\n")
            sys.stdout.buffer.flush()
