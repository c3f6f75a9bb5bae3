"""What options that several of the devices' commands have mean. Says what is wrong with them, and does nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from devices.errors import DeviceError

if TYPE_CHECKING:
    from pathlib import Path

    from devices.address import Address


def seconds_of(text: str, option: str) -> float:
    """The length of a time such as 30s, 5m, 1h; a bare number is seconds."""
    import pytimeparse2

    seconds = pytimeparse2.parse(text)
    if seconds is None or not 0 < seconds < 1e9:
        raise typer.BadParameter(f"{text!r} is no length of time, such as 30s, 5m or 1h", param_hint=option)
    return float(seconds)


def address_of(url: str, ca_file: Path | None) -> Address:
    """The broker's address; only one with TLS has certificates to check."""
    from devices.address import parse_address

    try:
        address = parse_address(url)
    except DeviceError as error:
        raise typer.BadParameter(str(error), param_hint="--broker") from None
    if ca_file is not None and not address.tls:
        raise typer.BadParameter("only mqtts:// has certificates to check", param_hint="--ca-file")
    return address
