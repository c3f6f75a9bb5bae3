"""The door of consumers: `amber consume` and `amber consumers`. Parses, feeds, tells how it went."""

from __future__ import annotations

import typer


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
