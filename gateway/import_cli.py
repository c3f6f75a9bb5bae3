"""The door in: `amber import`. Parses, reads a recording, appends."""

from __future__ import annotations

import typer


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
