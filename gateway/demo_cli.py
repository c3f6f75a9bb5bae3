"""The demo's door: `amber demo`. Parses and delegates."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the demo to `app`."""
    app.command("demo")(demo)


def demo(
    *,
    seconds: Annotated[float, typer.Option(min=1, max=3600, help="How long the devices publish.")] = 30.0,
    devices: Annotated[int, typer.Option(min=1, max=10_000, help="How many devices.")] = 50,
    rate: Annotated[float, typer.Option(min=0.01, max=1000, help="Messages a second from each device.")] = 2.0,
    folder: Annotated[
        Path, typer.Option(file_okay=False, help="A new folder, an empty one, or an earlier demo's, which is replaced.")
    ] = Path("amber-demo"),
) -> None:
    """Show everything at once: devices, a broker of their own, the gateway, a replay, and the count of it all."""
    from gateway.demo import Demo

    raise typer.Exit(Demo(folder, seconds=seconds, devices=devices, rate=rate).run())
