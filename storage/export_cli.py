"""The door out: `amber export`. Parses, reads, writes a file."""

from __future__ import annotations

import typer


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
