"""The door to the devices: `amber simulate`. It reads the options, has the simulation run, and prints its summary.

Importing it costs no more than Typer: all that does the work is imported when it is asked for.
"""

from __future__ import annotations

import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from devices.errors import DeviceError
from devices.options import address_of, seconds_of

if TYPE_CHECKING:
    from devices.connection import Client
    from devices.counts import Counts
    from devices.fleet import Fleet


def main() -> int:
    """`python -m devices [simulate]`: the same command by itself. Returns the exit code."""
    app = typer.Typer(add_completion=False)
    register(app)
    try:
        # Typer takes no name where there is but one command, and people who know `amber simulate` will give it.
        arguments = sys.argv[2:] if sys.argv[1:2] == ["simulate"] else sys.argv[1:]
        return app(arguments, standalone_mode=False, prog_name="python -m devices") or 0
    except typer.TyperException as error:
        print(f"amber: {error.format_message()}", file=sys.stderr)
        return error.exit_code
    except typer.Abort:
        return 130


def register(app: typer.Typer) -> None:
    """Add the devices' command to `app`."""
    app.command()(simulate)


def simulate(
    context: typer.Context,
    fleet: Annotated[
        Path | None,
        typer.Argument(exists=True, dir_okay=False, help="A file that describes the devices.", metavar="FLEET.toml"),
    ] = None,
    *,
    check: Annotated[
        bool, typer.Option("--check", help="Only read the fleet's file, and show what it would do.")
    ] = False,
    devices: Annotated[int, typer.Option(min=1, help="How many devices, each with a connection of its own.")] = 10,
    rate: Annotated[float, typer.Option(help="Messages a second from each device.")] = 1.0,
    qos: Annotated[int, typer.Option(min=0, max=2, help="MQTT quality of service of the telemetry.")] = 1,
    models: Annotated[
        str, typer.Option(help="What kinds of devices, taking turns.", metavar="NAME,…")
    ] = "thermometer,meter,door,tracker",
    seed: Annotated[
        int | None, typer.Option(help="Makes the signals repeatable: with --start too, to the byte.")
    ] = None,
    start: Annotated[
        str | None, typer.Option(help="The time the devices' clocks start from; now, if not given.", metavar="TIME")
    ] = None,
    duration: Annotated[
        str | None, typer.Option(help="How long: 30s, 5m, 1h. Until Ctrl-C, if not given.", metavar="TIME")
    ] = None,
    broker: Annotated[
        str, typer.Option(envvar="AMBER_BROKER", help="mqtt:// or mqtts:// and user:password@host:port.", metavar="URL")
    ] = "mqtt://127.0.0.1:1883",
    ca_file: Annotated[
        Path | None, typer.Option(help="Whom to trust with mqtts, instead of the system's authorities.")
    ] = None,
    connect_timeout: Annotated[
        str, typer.Option(help="Give up if no device has connected by then.", metavar="TIME")
    ] = "10s",
    ledger: Annotated[
        Path | None, typer.Option(help="Add to this file what was sent and what was acknowledged.")
    ] = None,
    receipts: Annotated[
        bool, typer.Option("--receipts", help="Ask the gateway for a receipt of each message.")
    ] = False,
    outbox: Annotated[
        Path | None, typer.Option(help="Keep in this file what is not settled: it outlives a crash, and is sent later.")
    ] = None,
    outbox_limit: Annotated[
        int, typer.Option(min=1, help="How many messages the outbox holds in all.", metavar="N")
    ] = 1_000_000,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Share the devices out to so many processes.")] = 1,
    client: Annotated[str, typer.Option(help="codec, the fast one, or aiomqtt.", metavar="NAME")] = "codec",
) -> None:
    """Simulate devices that publish to the broker, until --duration is over or Ctrl-C."""
    from devices import simulation
    from devices.counts import summary
    from devices.fleet import Fleet, any_seed, asking_for_receipts, of_models

    lasts_s = None if duration is None else seconds_of(duration, "--duration")
    if fleet is not None:
        _refuse_beside_a_file(context)
        wanted = _of_file(fleet, seed, None if start is None else _start(start), lasts_s)
    else:
        wanted = Fleet(
            groups=of_models(_models(models), devices=devices, rate=_rate(rate), qos=qos),
            start_us=_start(start),
            seed=any_seed() if seed is None else f"{seed}",
            duration_s=lasts_s,
        )
    if receipts:
        wanted = asking_for_receipts(wanted)
    if check:
        _show(wanted, fleet)
        return
    address = address_of(broker, ca_file)
    within_s = seconds_of(connect_timeout, "--connect-timeout")
    run = simulation.Run(
        address=address,
        ca_file=ca_file,
        ledger=ledger,
        outbox=outbox,
        outbox_limit=outbox_limit,
        client=_client(client),
        connect_within_s=within_s,
        workers=workers,
    )
    try:
        counts = simulation.simulate(wanted, run)
    except DeviceError as error:
        print(f"amber: {error}", file=sys.stderr)
        raise typer.Exit(1) from None
    print(summary(counts))
    _tell_what_is_open(counts, outbox)


def _refuse_beside_a_file(context: typer.Context) -> None:
    """What the file says of each group cannot be said of all of them beside it."""
    for name in ("devices", "rate", "qos", "models"):
        source = context.get_parameter_source(name)
        if source is not None and source.name != "DEFAULT":
            raise typer.BadParameter("the fleet's file says that for each group: say it there", param_hint=f"--{name}")


def _of_file(path: Path, seed: int | None, start_us: int | None, duration_s: float | None) -> Fleet:
    """Says all that is wrong with the file, a line for each, and exits with 2."""
    from devices.fleets import FleetError, load

    try:
        return load(path, seed=seed, start_us=start_us, duration_s=duration_s)
    except FleetError as error:
        print(error, file=sys.stderr)
        raise typer.Exit(2) from None


def _show(fleet: Fleet, path: Path | None) -> None:
    from devices.fleets.preview import preview

    if path is None:
        raise typer.BadParameter("there is no file to check: amber simulate FLEET.toml --check", param_hint="--check")
    for line in preview(fleet):
        print(line)


def _tell_what_is_open(counts: Counts, outbox: Path | None) -> None:
    """What a summary does not say aloud; exit code 1 if a part of the simulation is dead."""
    if counts.failed:
        why = counts.failure or counts.trouble or "no answer in time"
        print(f"amber: {counts.failed} messages failed: {why}", file=sys.stderr)
    if counts.left:
        print(f"amber: {counts.left} messages wait in the outbox {outbox} for the next run", file=sys.stderr)
    if counts.dead:
        print(f"amber: {counts.dead}: what it had not reported is not counted", file=sys.stderr)
        raise typer.Exit(1)


def _client(name: str) -> Client:
    from devices.connection import CLIENTS

    if name not in CLIENTS:
        raise typer.BadParameter(f"there is no {name!r}, only {' and '.join(CLIENTS)}", param_hint="--client")
    return CLIENTS[name]


def _rate(rate: float) -> float:
    if not 0 < rate <= 10_000:
        raise typer.BadParameter("a rate is more than 0 and at most 10000 messages a second", param_hint="--rate")
    return rate


def _models(names: str) -> tuple[str, ...]:
    from devices.models import MODELS

    chosen = tuple(name.strip() for name in names.split(","))
    for name in chosen:
        if name not in MODELS:
            raise typer.BadParameter(f"there is no {name!r}, only {', '.join(MODELS)}", param_hint="--models")
    return tuple(dict.fromkeys(chosen))  # each takes its turn once, or two devices would share a name


def _start(text: str | None) -> int:
    """Microseconds since the epoch."""
    from devices.clock import microseconds, wall_us

    if text is None:
        return wall_us()
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter("a time looks like 2026-11-22T09:00:00Z", param_hint="--start") from None
    if moment.year > 9000:
        raise typer.BadParameter("no time after the year 9000 can be told", param_hint="--start")
    return microseconds(moment)
