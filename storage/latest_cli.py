"""The door to what is known now: `amber latest`, `series` and `devices`. Parses, asks, prints."""

from __future__ import annotations

import typer


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
