"""The door to torture: `amber torture`. Parses, has it done, tells what came of it."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from storage.errors import AmberError

if TYPE_CHECKING:
    from gateway.proving.plan import Kind, Plan
    from gateway.proving.stage import Crowd
    from gateway.proving.torture import Outcome

DEFAULT_KILL = "gateway,devices,link"
DEVICES, RATE, LEVELS = 20, 200.0, "1,2"

START_US = 1_767_225_600_000_000
"""2026-01-01: what the devices' clocks show at the start, whenever that is, so that they say the same each time."""


class NoFleet(AmberError):
    """The file that was named is not there."""

    exit_status = 2


class TortureFormat(StrEnum):
    table = "table"
    json = "json"


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command()(torture)


def torture(
    *,
    fleet: Annotated[
        Path | None,
        typer.Argument(
            metavar="FLEET.toml", show_default=False, dir_okay=False, help="The devices; else simple ones, as below."
        ),
    ] = None,
    minutes: Annotated[float, typer.Option(min=0.1, max=10_000, help="How long.")] = 5.0,
    kill: Annotated[
        str,
        typer.Option(metavar="KIND,...", help="What is disturbed: gateway, broker, devices, link, disk, freeze; none."),
    ] = DEFAULT_KILL,
    kills: Annotated[int | None, typer.Option(min=0, help="How often, all in all.", show_default="once in 6 s")] = None,
    qos: Annotated[
        str | None, typer.Option(metavar="QOS,...", help="Levels that the devices share.", show_default=LEVELS)
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="The same plan and the same bytes again.", show_default="any")
    ] = None,
    devices: Annotated[
        int | None, typer.Option(min=1, max=10_000, help="How many devices.", show_default=str(DEVICES))
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(min=0.01, max=100_000, help="Messages a second from all of them.", show_default=f"{RATE:g}"),
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option(
            file_okay=False,
            help="Keep store, ledger, logs, plan and marks there: new, empty, or an earlier torture's.",
            show_default="a temporary one, kept after a failure",
        ),
    ] = None,
    receipts: Annotated[
        bool | None,
        typer.Option(
            "--receipts/--no-receipts",
            help="Whether devices keep each message until the gateway's own word.",
            show_default="--receipts",
        ),
    ] = None,
    show_plan: Annotated[bool, typer.Option("--plan", help="Show what would be done, and end.")] = False,
    format: Annotated[TortureFormat, typer.Option("--format", help="How to show what came of it.")] = (
        TortureFormat.table
    ),
) -> None:
    """Kill the gateway, its devices and their links at random, and prove that nothing promised was lost.

    It runs a broker, a gateway and devices of its own, and touches no others. Status 1: a promise was broken.
    """
    kinds = _kinds(kill)
    plan = _plan(kinds, seed, kills, minutes)
    if fleet is not None and any(option is not None for option in (qos, devices, rate, receipts)):
        raise typer.BadParameter("a fleet says itself what its devices do: leave --qos, --devices, --rate, --receipts")
    if receipts is False and "broker" in kinds:
        raise typer.BadParameter(
            "a broker that is killed loses what it had acknowledged, and only receipts can tell: leave it out",
            param_hint="--no-receipts",
        )
    text = None
    if fleet is None:
        text = _fleet_text(devices or DEVICES, rate or RATE, qos or LEVELS, receipts=receipts is not False)
    else:
        _check_fleet(fleet, receipts_needed="broker" in kinds)
        if folder is not None and folder.resolve() in fleet.resolve().parents:
            raise typer.BadParameter("what is in it is replaced, and the fleet is in it", param_hint="--folder")
    if show_plan:
        return _show_plan(plan, format)
    raise typer.Exit(_torture(plan, fleet, text, folder, format))


def _torture(plan: Plan, fleet: Path | None, text: str | None, folder: Path | None, format: TortureFormat) -> int:
    from gateway.proving.folder import make_ready
    from gateway.proving.progress import Progress
    from gateway.proving.torture import PARTS, torture

    place = folder or Path(tempfile.mkdtemp(prefix="amber-torture-"))
    make_ready(place, "torture", PARTS)
    crowd = _crowd(plan, fleet, text, place)
    print(f"seed {plan.seed}: {plan.summary()} in {plan.seconds:g} s", file=sys.stderr)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends everything in good order too
    with Progress(plan, place / "ledger.jsonl") as progress:
        outcome = torture(plan, crowd, place, progress.show)
    keep = folder is not None or not outcome.holds
    if not keep:
        shutil.rmtree(place, ignore_errors=True)
    _tell(outcome, place if keep else None, format)
    return 0 if outcome.holds else 1


def _kinds(text: str) -> list[Kind]:
    from gateway.proving.plan import KINDS

    names = [] if text.strip() == "none" else [name.strip() for name in text.split(",")]
    for name in names:
        if name not in KINDS:
            raise typer.BadParameter(f"there is no {name!r}, only {', '.join(KINDS)}; or none", param_hint="--kill")
    return [kind for kind in KINDS if kind in names]


def _plan(kinds: list[Kind], seed: int | None, kills: int | None, minutes: float) -> Plan:
    import secrets

    from gateway.proving.plan import make_plan

    try:
        chosen = secrets.randbelow(1_000_000) if seed is None else seed
        return make_plan(chosen, kinds, times=kills, seconds=minutes * 60)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--kills") from None


def _show_plan(plan: Plan, format: TortureFormat) -> None:
    import msgspec

    if format is TortureFormat.json:
        print(msgspec.json.encode(plan).decode())
        return
    print(f"seed {plan.seed}: {plan.summary()} in {plan.seconds:g} s\n\n{'at':>9}  {'what':<15}  {'for':>7}")
    for deed in plan.disturbances:
        lasts = "" if deed.how == "cut" else f"{deed.for_s:.2f} s"
        print(f"{deed.at_s:>7.2f} s  {deed!s:<15}  {lasts:>7}".rstrip())


def _fleet_text(devices: int, rate: float, qos: str, *, receipts: bool) -> str:
    from gateway.proving.torture import fleet_text

    levels = [level.strip() for level in qos.split(",")]
    if not set(levels) <= {"0", "1", "2"}:
        raise typer.BadParameter(f"{qos!r} names no levels such as 1 or 1,2", param_hint="--qos")
    if rate / devices > 10_000:
        raise typer.BadParameter("a device sends at most 10000 messages a second", param_hint="--rate")
    return fleet_text(devices=devices, rate=rate, levels=sorted({int(level) for level in levels}), receipts=receipts)


def _check_fleet(fleet: Path, *, receipts_needed: bool) -> None:
    """Says all that is wrong with the file, a line for each, and exits with 2."""
    from devices.fleets import FleetError, load

    if not os.path.exists(fleet):  # noqa: PTH110 - never raises
        raise NoFleet(f"there is no file {fleet}: name a fleet's file, or leave it out")
    try:
        groups = load(fleet).groups
    except FleetError as error:
        print(error, file=sys.stderr)
        raise typer.Exit(2) from None
    if receipts_needed and not any(group.receipts for group in groups):
        raise typer.BadParameter(
            "a broker that is killed loses what it had acknowledged, and only receipts can tell: "
            f"give a group of {fleet} receipts = true",
            param_hint="--kill",
        )


def _crowd(plan: Plan, fleet: Path | None, text: str | None, folder: Path) -> Crowd:
    from gateway.proving.stage import Crowd

    if fleet is None:
        fleet = folder / "fleet.toml"
        fleet.write_text(text or "", "utf-8")
    outbox = text is None or "receipts = true" in text
    return Crowd(fleet.absolute(), plan.seed, START_US, plan.seconds, outbox)


def _tell(outcome: Outcome, folder: Path | None, format: TortureFormat) -> None:
    if format is TortureFormat.json:
        _tell_json(outcome, folder)
        return
    from gateway.proving.verify import print_verdict

    plan = outcome.plan
    print_verdict(outcome.verdict, outcome.promise)
    print(f"\n{outcome.done} of {len(plan.disturbances)} disturbances in {outcome.elapsed_s:.0f} s, seed {plan.seed}")
    if outcome.memory:
        print(f"the gateway's memory: {outcome.memory}")
    if outcome.interrupted:
        print("interrupted: this holds for what there was until then")
    for failure in outcome.failures:
        print(f"FAILED: {failure}")
    if folder is not None:
        print(f"store, ledger, logs, plan and marks: {folder}")


def _tell_json(outcome: Outcome, folder: Path | None) -> None:
    import msgspec

    found = {
        "seed": outcome.plan.seed,
        "seconds": outcome.plan.seconds,
        "elapsed_s": round(outcome.elapsed_s, 3),
        "interrupted": outcome.interrupted,
        "disturbances": outcome.done,
        "planned": outcome.plan.summary(),
        "failures": outcome.failures,
        "memory_mb": outcome.memory,
        "holds": outcome.holds,
        "promise": outcome.promise,
        "folder": None if folder is None else str(folder),
        "verdict": outcome.verdict,
    }
    print(msgspec.json.encode(found).decode())
