"""The door of retention: `amber prune`. Parses, drops, tells what went."""

from __future__ import annotations

import typer


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
