"""Takes out of a JSON object what says who measured and when; what is not believed stays where it was."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from gateway.formats import fields, texts, times
from gateway.formats.body import Json
from gateway.formats.options import Options

MOST_SEQ = 2**63 - 1
# A longer `id` (UUID, ULID, hash) names the message: taken for a device, each message would found a new one.
MOST_ID_CHARS = 23


class Identity(msgspec.Struct, frozen=True):
    """Whose event it is: None where the object does not say, or says what cannot be believed."""

    device: str | None
    observed_at: int | None
    seq: int | None
    boot: str | None
    units: dict[str, Json]


NOBODY = Identity(None, None, None, None, {})


def take(node: dict[str, Json], received_at: int, options: Options) -> Identity:
    """Remove the keys that are believed from `node`."""
    found = fields.roles(node)
    return Identity(
        _device(node, found.device, options),
        _time(node, found.time, received_at, options),
        _seq(node, found.seq),
        _boot(node, found.boot, options),
        _units(node, found.units),
    )


def take_source(node: dict[str, Json], options: Options) -> str | None:
    """Remove the key that names the origin of one record of many."""
    for key in fields.SOURCES:
        source = node.get(key)
        if isinstance(source, str) and 0 < len(name := texts.storable(source.strip())) <= options.name_chars:
            del node[key]
            return name
    return None


def stamped(node: dict[str, Json], received_at: int, options: Options) -> bool:
    """Whether an object bears a time that is believed."""
    keys = fields.roles(node).time
    return any(times.believed(node[key], received_at, options) is not None for key in keys)


def _device(node: dict[str, Json], keys: Sequence[str], options: Options) -> str | None:
    for key in keys:
        device = node[key]
        lone_id = fields.squeezed(key) == "id"
        if type(device) is int and not lone_id:
            device = str(device) if abs(device) <= MOST_SEQ else None
        if not isinstance(device, str):
            continue
        name = texts.storable(device.strip())
        if 0 < len(name) <= (MOST_ID_CHARS if lone_id else options.name_chars):
            del node[key]
            return name
    return None


def _time(node: dict[str, Json], keys: Sequence[str], received_at: int, options: Options) -> int | None:
    for key in keys:
        observed = times.believed(node[key], received_at, options)
        if observed is not None:
            del node[key]
            return observed
    date, time = node.get("date"), node.get("time")
    if isinstance(date, str) and isinstance(time, str):
        observed = times.believed(f"{date[:20]}T{time[:20]}", received_at, options)
        if observed is not None:
            del node["date"], node["time"]
            return observed
    return None


def _seq(node: dict[str, Json], keys: Sequence[str]) -> int | None:
    for key in keys:
        seq = node[key]
        if type(seq) is int and 0 <= seq <= MOST_SEQ:
            del node[key]
            return seq
    return None


def _boot(node: dict[str, Json], keys: Sequence[str], options: Options) -> str | None:
    """Which start of the device; a number is how often it has started, and a reading."""
    words = [node.pop(key) for key in keys if isinstance(node[key], str)]
    found = (texts.storable(word) for word in words if isinstance(word, str) and 0 < len(word) <= options.name_chars)
    return next(found, None)


def _units(node: dict[str, Json], keys: Sequence[str]) -> dict[str, Json]:
    for key in keys:
        units = node[key]
        if isinstance(units, dict) and all(isinstance(unit, str) for unit in units.values()):
            del node[key]
            return units
    return {}
