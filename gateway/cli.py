"""The gateway's door: `amber run`. Parses, delegates, prints; imports what is heavy when it is needed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the gateway's commands to `app`."""
    app.command("run")(run)


def run(
    broker: Annotated[
        str | None, typer.Option(help="The broker: mqtt[s]://[user:password@]host[:port].", show_default=False)
    ] = None,
    store: Annotated[str | None, typer.Option(help="The store: a file, or sqlite:///FILE.", show_default=False)] = None,
    subscribe: Annotated[
        list[str] | None,
        typer.Option(help="A topic filter with a maximum QoS, FILTER[:QOS]; as often as wanted.", show_default=False),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="The configuration; amber.toml, if there is one.", show_default=False)
    ] = None,
) -> None:
    """Run the gateway: subscribe, store every message, acknowledge what is stored."""
    import asyncio

    from gateway import daemon
    from gateway.config import load
    from gateway.logs import set_up

    given = {"broker": broker, "store": store, "subscribe": subscribe or None}
    settings = load(config, {key: value for key, value in given.items() if value is not None})
    set_up(settings.log.level)
    asyncio.run(daemon.run(settings))
