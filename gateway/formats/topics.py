"""What a topic says by itself: the device, the name of a scalar, and whether it carries commands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from gateway.formats.texts import storable
from storage.event import Kind

COMMAND_WORDS = frozenset({"set", "get", "cmd", "cmnd", "command", "commands"})
"""Levels at the end that mark an order to a device, which a wildcard subscription sees as well."""

_NAMELESS = """
attributes attrs binary_sensor cbor csv data device devices iot json me measurement measurements message messages
metrics mqtt msgpack notify payload properties raw reading readings report reported rx sensor sensors tele telemetry
tx up update uplink v1 v2 v3 val value values xml
"""
_TELLING = "availability available event events heartbeat info lwt online stat state states status"
NAMELESS_WORDS = frozenset(_NAMELESS.split())
"""Levels that name neither a device nor a reading."""
GENERIC_WORDS = NAMELESS_WORDS.union(_TELLING.split())
"""Levels that name no device."""

_VALUE_WORDS = frozenset({"val", "value"})
_SENSORS = frozenset({"binary_sensor", "sensor", "sensors"})
"""Levels behind which a reading is named, whose `state` comes last."""


class Place(NamedTuple):
    """Where a topic puts its messages. A device of None: the topic's name for it is over the limit."""

    device: str | None
    """The device of an object: the last level that is not generic."""
    scalar_device: str | None
    scalar_name: str
    """The reading of a scalar: the last level; its device is the one before."""
    last: str
    """The last level in lower case."""
    kind: Kind | None
    """`command`, or None where the payload decides."""


def place(topic: str, name_chars: int) -> Place:
    """Read a topic; what is longer than `name_chars` is not a name."""
    topic = storable(topic)
    levels = [level for level in topic.split("/") if level]
    last = levels[-1].lower() if levels else ""
    command = len(levels) > 1 and (last in COMMAND_WORDS or levels[0].lower() in ("cmd", "cmnd"))
    if command and last in COMMAND_WORDS:
        levels.pop()
    scalar_device, name = _scalar(levels)
    device = _device(levels) or topic.strip("/") or "unknown"
    scalar_device = scalar_device or device
    return Place(
        device if len(device) <= name_chars else None,
        scalar_device if len(scalar_device) <= name_chars and len(name) <= name_chars else None,
        name if len(name) <= name_chars else "",
        last if len(last) <= name_chars else "",
        "command" if command else None,
    )


def takes(wanted: Sequence[str], levels: Sequence[str]) -> bool:
    """Whether the levels of a topic filter take those of a topic (MQTT 5.0, section 4.7).

    A filter that begins with `#` and goes on takes what ends, or anywhere goes on, like its rest. A level of a filter
    that ends in `*` takes all that begin like it: `openevse-*`.
    """
    if wanted[0] == "#" and len(wanted) > 1:
        return _takes_within(wanted[1:], levels)
    if levels[0].startswith("$") and wanted[0] in ("+", "#"):
        return False
    if wanted[-1] == "#":
        wanted = wanted[:-1]
        if len(levels) < len(wanted):
            return False
    elif len(levels) != len(wanted):
        return False
    return all(want in ("+", level) or _begins(want, level) for want, level in zip(wanted, levels, strict=False))


def _begins(want: str, level: str) -> bool:
    return want.endswith("*") and level.startswith(want[:-1])


def is_filter(text: str) -> bool:
    """Whether a text is a topic filter as MQTT allows it (MQTT 5.0, section 4.7.1)."""
    *before, last = text.split("/")
    alone = all(level in ("+", "#") or not {"+", "#"}.intersection(level) for level in (*before, last))
    return bool(text) and "\0" not in text and "#" not in before and alone and text.isprintable()


def _takes_within(wanted: Sequence[str], levels: Sequence[str]) -> bool:
    if wanted[-1] != "#":
        return len(wanted) <= len(levels) and takes(wanted, levels[len(levels) - len(wanted) :])
    size = len(wanted) - 1
    # Only where its first word stands can it begin: a topic may have 30 000 levels.
    before, word = next(((at, level) for at, level in enumerate(wanted) if level[-1:] not in ("+", "*")), (0, "#"))
    starts = range(len(levels) - size + 1)
    return any((word == "#" or levels[at + before] == word) and takes(wanted, levels[at : at + size]) for at in starts)


def _device(levels: list[str]) -> str | None:
    for at in range(len(levels) - 1, -1, -1):
        level = levels[at]
        if level.lower() in GENERIC_WORDS:
            continue
        # A short number names nothing by itself: loadpoints/1 and vehicles/1 are two devices.
        return f"{levels[at - 1]}/{level}" if at and _numbering(level) else level
    return None


def _scalar(levels: list[str]) -> tuple[str | None, str]:
    last = levels[-1].lower() if levels else ""
    if len(levels) >= 4 and (last in _VALUE_WORDS or (last == "state" and levels[-3].lower() in _SENSORS)):
        levels = levels[:-1]  # livingroom/binary_sensor/motion/state
    if len(levels) < 2:
        return None, "value"
    *before, name = levels
    if len(before) >= 2 and _numbering(name):  # shellies/plug/relay/0
        name = f"{before.pop()}.{name}"
    device = _device(before)
    nameless = name.lower() in NAMELESS_WORDS or (device is None and name.lower() not in GENERIC_WORDS)
    return device, "value" if nameless else name


def _numbering(level: str) -> bool:
    return len(level) <= 3 and level.isdecimal()
