"""The door to charts: `amber chart`. Parses, asks, draws."""

from __future__ import annotations

import typer


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
