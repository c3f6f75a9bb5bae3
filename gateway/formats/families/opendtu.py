"""OpenDTU, a gateway to Hoymiles solar inverters: https://www.opendtu.solar/firmware/mqtt_topics/."""

from __future__ import annotations

import re
from collections.abc import Sequence

from gateway.formats.body import Body
from gateway.formats.draft import Draft
from gateway.formats.format import Format
from gateway.formats.plain import scalar
from storage.event import Event, Kind, Message

NAME = "opendtu"

_SERIAL = re.compile(r"1[0-9A-Fa-f]{11}")
_CHANNELS = range(7)
_AC = "current efficiency frequency power powerdc powerfactor reactivepower temperature voltage yieldday yieldtotal"
_DC = "current irradiation name power voltage yieldday yieldtotal"
_STATUS = "reachable producing last_update limit_relative limit_absolute"
_RADIO = "tx_request tx_re_request rx_success rx_fail_nothing rx_fail_partial rx_fail_corrupt rssi"
_DEVICE = "bootloaderversion fwbuildversion fwbuilddatetime hwpartnumber hwversion"
_CMD = (
    "limit_persistent_relative limit_persistent_absolute limit_nonpersistent_relative limit_nonpersistent_absolute "
    "power reset_rf_stats restart"
)
_DTU = "ip hostname bssid rssi status temperature uptime"
_HEAP = "size free minfree maxalloc"
_SUM_AC = "power yieldtotal yieldday is_valid"
_SUM_DC = "power irradiation is_valid"
_TEXTS = frozenset({"name", "ip", "hostname", "bssid", "fwbuilddatetime", "hwpartnumber", "hwversion"})
_STATES = frozenset({"producing", "last_update", "is_valid"})
_UNITS = {
    "current": "A",
    "voltage": "V",
    "frequency": "Hz",
    "power": "W",
    "powerdc": "W",
    "efficiency": "%",
    "irradiation": "%",
    "temperature": "°C",
    "yieldday": "Wh",
    "yieldtotal": "kWh",
    "limit_relative": "%",
    "limit_absolute": "W",
    "limit_persistent_relative": "%",
    "limit_persistent_absolute": "W",
    "limit_nonpersistent_relative": "%",
    "limit_nonpersistent_absolute": "W",
    "rssi": "dBm",
    "uptime": "s",
    "last_update": "s",
    **dict.fromkeys(_HEAP.split(), "B"),
}


def read(message: Message, body: Body) -> Sequence[Event] | None:
    """One event of one value: of an inverter by its serial number, of the gateway, or of the sum of all inverters."""
    text = body.text
    found = _split(message.topic)
    if found is None or text is None or body.document is not None:
        return None
    base, thing, path = found
    name, leaf = ".".join(path), path[-1]
    draft = Draft(NAME, message, body)
    value = (text if leaf in _TEXTS else scalar(text)) if text else None
    if leaf == "last_update" and value == 0:  # not one since the gateway started
        value = None
    number = type(value) is int or type(value) is float
    unit = _UNITS.get(leaf) if number and path != ["cmd", "power"] else None
    draft.put_value(name, value, unit, source="format")
    if _SERIAL.fullmatch(thing):
        return [draft.event(thing, _kind(path), via="/".join([*base, "dtu"]))]
    return [draft.event("/".join([*base, thing]), _kind(path))]


def _split(topic: str) -> tuple[list[str], str, list[str]] | None:
    """The base topic, the thing, and the path of its value."""
    levels = topic.split("/")
    for back in (3, 2):
        thing = levels[-back] if len(levels) >= back else ""
        paths = _OF_INVERTERS if _SERIAL.fullmatch(thing) else _OF_OTHERS.get(thing, frozenset())
        path = levels[1 - back :]
        # A later version may have more to tell of a part that is known.
        if "/".join(path) in paths or (back == 3 and path[0] in _PARTS and paths is _OF_INVERTERS):
            return levels[:-back], thing, path
    return None


def _kind(path: list[str]) -> Kind | None:
    if path[0] == "cmd":
        return "command"
    if path[-1] in ("reachable", "status"):
        return "availability"
    return "state" if path[-1] in _STATES or path[0] == "device" else None


def _paths(head: str, names: str) -> list[str]:
    return [f"{head}/{name}" for name in names.split()]


_OF_INVERTERS = frozenset(
    [
        "name",
        *_paths("0", _AC),
        *(path for channel in _CHANNELS for path in _paths(str(channel), _DC)),
        *_paths("status", _STATUS),
        *_paths("radio", _RADIO),
        *_paths("device", _DEVICE),
        *_paths("cmd", _CMD),
    ]
)
_PARTS = frozenset({*map(str, _CHANNELS), "status", "radio", "device", "cmd"})
_OF_OTHERS = {
    "dtu": frozenset([*_DTU.split(), *_paths("heap", _HEAP)]),
    "ac": frozenset(_SUM_AC.split()),
    "dc": frozenset(_SUM_DC.split()),
}

FORMATS: tuple[Format, ...] = (
    Format(
        name=NAME,
        read=read,
        # Behind any base topic what has a serial number; what `dtu` and `ac` are called, others are called as well.
        topics=(
            "solar/+/#",
            *(f"#/+/{path}" for path in sorted(_OF_INVERTERS - {"name"})),
            *_paths("#/dtu", "heap/free hostname"),
        ),
    ),
)
