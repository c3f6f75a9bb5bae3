"""The door to the load: `amber load`. It reads the options, has the load run, and prints what it came to."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from devices.errors import DeviceError
from devices.options import address_of, seconds_of

MOST_CONNECTIONS = 100_000
MOST_BYTES = 1_000_000
USUAL_BYTES = 120


class Format(StrEnum):
    """How the result is printed."""

    text = "text"
    json = "json"


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command()(load)


def load(
    *,
    rate: Annotated[
        str, typer.Option(help="Messages a second, of all connections together; 0 or max: all that goes.")
    ] = "1000",
    connections: Annotated[int, typer.Option(min=1, max=MOST_CONNECTIONS, help="How many connections.")] = 50,
    duration: Annotated[
        str | None, typer.Option(help="How long: 30s, 5m, 1h. Until Ctrl-C, if not given.", metavar="TIME")
    ] = None,
    qos: Annotated[int, typer.Option(min=0, max=2, help="MQTT quality of service.")] = 1,
    size: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=MOST_BYTES,
            help="Bytes of each payload, from about 120 on.",
            show_default="120, or what many devices need",
        ),
    ] = None,
    receipts: Annotated[
        bool, typer.Option("--receipts", help="Ask the gateway for receipts, below amber/receipts/, and time them.")
    ] = False,
    devices: Annotated[
        int | None, typer.Option(min=1, max=1_000_000, help="How many devices; one for each connection, if not given.")
    ] = None,
    topic: Annotated[
        str, typer.Option(help="Where to publish; {device} stands for the device.", metavar="TEMPLATE")
    ] = "devices/{device}/telemetry",
    seed: Annotated[int, typer.Option(help="Makes the readings repeatable.")] = 1,
    broker: Annotated[
        str, typer.Option(envvar="AMBER_BROKER", help="mqtt:// or mqtts:// and user:password@host:port.", metavar="URL")
    ] = "mqtt://127.0.0.1:1883",
    ca_file: Annotated[
        Path | None, typer.Option(help="Whom to trust with mqtts, instead of the system's authorities.")
    ] = None,
    format: Annotated[Format, typer.Option(help="For people, or for programs.")] = Format.text,
) -> None:
    """Publish at a rate, and tell how long each message took to be acknowledged, and to be receipted."""
    from devices.load import report
    from devices.load.plan import Plan

    plan = Plan(
        rate=_rate(rate),
        connections=connections,
        duration_s=None if duration is None else seconds_of(duration, "--duration"),
        qos=qos,
        size=_size(size, devices or connections),
        receipts=receipts,
        devices=_devices(devices, connections),
        topic=_topic(topic),
        seed=seed,
    )
    address = address_of(broker, ca_file)
    from devices.load.run import load as run
    from devices.simulation import allow_open_files, trust

    try:
        allow_open_files(connections + 64)
        tally = run(plan, address, trust(ca_file) if address.tls else None)
    except DeviceError as error:
        print(f"amber: {error}", file=sys.stderr)
        raise typer.Exit(1) from None
    print(report.as_json(tally, plan) if format is Format.json else report.as_text(tally, plan))


def _rate(text: str) -> float | None:
    if text == "max":
        return None
    try:
        rate = float(text)
    except ValueError:
        rate = -1.0
    if not 0 <= rate <= 10_000_000:
        raise typer.BadParameter("a rate is a number of messages a second up to 10000000, or max", param_hint="--rate")
    return rate or None


def _size(size: int | None, devices: int) -> int:
    from devices.load.packets import smallest_size

    least = smallest_size(devices)
    if size is not None and size < least:
        raise typer.BadParameter(
            f"names, time and a reading need {least} bytes: give at least {least}", param_hint="--size"
        )
    return max(USUAL_BYTES, least) if size is None else size


def _devices(devices: int | None, connections: int) -> int:
    if devices is not None and devices < connections:
        raise typer.BadParameter(
            f"each connection speaks for devices of its own: give at least {connections}, or fewer connections",
            param_hint="--devices",
        )
    return devices or connections


def _topic(topic: str) -> str:
    plain = topic.replace("{device}", "")
    if not topic or any(mark in plain for mark in "+#{}\0") or topic.startswith("$"):
        raise typer.BadParameter(
            "a topic has no wildcards, and {device} as its only placeholder, as in devices/{device}/telemetry",
            param_hint="--topic",
        )
    if len(topic.encode("utf-8", "replace")) > 1_024 or not topic.isprintable():
        raise typer.BadParameter("a topic has at most 1024 bytes, and no control characters", param_hint="--topic")
    return topic
