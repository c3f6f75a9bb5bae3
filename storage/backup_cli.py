"""The door to the store as a file: `amber backup` and `amber check`. Parses, runs, prints."""

from __future__ import annotations

import typer


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
