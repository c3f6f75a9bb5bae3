"""The demo's door: `amber demo`. Parses and delegates."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from gateway.proving.torture import Outcome

SHORTEST_CHAOS_S = 15.0
"""In less, the gateway is hardly up before it is killed again."""


def register(app: typer.Typer) -> None:
    """Add the demo to `app`."""
    app.command("demo")(demo)


def demo(
    *,
    seconds: Annotated[
        float | None,
        typer.Option(min=1, max=3600, help="How long the devices publish.", show_default="30; 45 with --chaos"),
    ] = None,
    devices: Annotated[int | None, typer.Option(min=1, max=10_000, help="How many devices.", show_default="50")] = None,
    rate: Annotated[
        float | None, typer.Option(min=0.01, max=1000, help="Messages a second from each device.", show_default="2")
    ] = None,
    chaos: Annotated[
        bool, typer.Option("--chaos", help="Devices that misbehave, a gateway that is killed, and the proof.")
    ] = False,
    folder: Annotated[
        Path, typer.Option(file_okay=False, help="A new folder, an empty one, or an earlier demo's, which is replaced.")
    ] = Path("amber-demo"),
) -> None:
    """Show everything at once: devices, a broker of their own, the gateway, a replay, and the count of it all."""
    if chaos:
        if devices is not None or rate is not None:
            raise typer.BadParameter("--chaos has devices of its own: leave --devices and --rate out")
        raise typer.Exit(_chaos(folder, 45.0 if seconds is None else seconds))
    from gateway.demo import Demo

    raise typer.Exit(Demo(folder, seconds=seconds or 30.0, devices=devices or 50, rate=rate or 2.0).run())


def _chaos(folder: Path, seconds: float) -> int:
    """The exit status: 1 if the promise is broken."""
    from gateway.demo import make_ready
    from gateway.proving.chaos import chaos, chaos_plan

    if seconds < SHORTEST_CHAOS_S:
        raise typer.BadParameter(f"chaos takes at least {SHORTEST_CHAOS_S:g} s", param_hint="--seconds")
    make_ready(folder)
    plan = chaos_plan(seconds)
    print(
        f"Starting a broker, the gateway and devices that misbehave for {seconds:g} s: {plan.summary()} …", flush=True
    )
    outcome = chaos(folder, plan)
    _tell(outcome, folder)
    return 0 if outcome.holds else 1


def _tell(outcome: Outcome, folder: Path) -> None:
    from gateway.proving.verify import print_verdict

    print_verdict(outcome.verdict, outcome.promise)
    for failure in outcome.failures:
        print(f"FAILED: {failure}")
    if outcome.interrupted:
        print("interrupted: this holds for what there was until then")
    store = folder / "amber.db"
    print(f"\nThe store is {store}. Look further:")
    print(f"  ./run rejections --store {store}")
    print(f"  ./run gaps --store {store}")
    print(f"  ./run verify {folder / 'ledger.jsonl'} --by fault --store {store}")
