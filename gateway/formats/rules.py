"""The user's rules: for some topics, which format reads them, and what is known of them that no message says."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from datetime import tzinfo
from typing import NamedTuple

import jmespath
import msgspec
from jmespath.exceptions import JMESPathError
from jmespath.parser import ParsedResult

from gateway.formats import texts, units
from gateway.formats.body import Body, Json
from gateway.formats.draft import Draft
from gateway.formats.format import Unreadable, named
from gateway.formats.topics import takes
from storage.event import Event, Kind, Message, UnitSource, Value

NAME = "rule"
"""The format of events that a rule's own paths read."""

RAW, IGNORE = "raw", "ignore"
"""Formats of rules only: keep the message and read nothing; do not even keep it."""

_LEVEL = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")


class Paths(NamedTuple):
    """Where in a JSON document to find what: JMESPath expressions (https://jmespath.org)."""

    readings: tuple[tuple[str, ParsedResult], ...] = ()
    device: ParsedResult | None = None
    time: ParsedResult | None = None


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """One rule. `levels` is its topic filter, in which `names` gives the name of a level by its place."""

    topic: str
    levels: tuple[str, ...]
    names: Mapping[str, int] = {}
    format: str | None = None
    zone: tzinfo | None = None
    device: str | None = None
    """The device, with `{name}` for levels of the topic."""
    kind: Kind | None = None
    units: Mapping[str, str] = {}
    """UCUM codes by reading name."""
    scale: Mapping[str, float] = {}
    """Factors by reading name."""
    paths: Paths | None = None

    def takes(self, levels: Sequence[str]) -> bool:
        return takes(self.levels, levels)

    def named_device(self, topic: str) -> str | None:
        """The device that the rule gives to a topic's messages, None where it gives none."""
        if self.device is None:
            return None
        levels = topic.split("/")
        return texts.storable(_LEVEL.sub(lambda found: levels[self.names[found[1]]], self.device))


def rule(
    topic: str,
    *,
    format: str | None = None,
    zone: tzinfo | None = None,
    device: str | None = None,
    kind: Kind | None = None,
    units_by_reading: Mapping[str, str] | None = None,
    scale: Mapping[str, float] | None = None,
    readings: Mapping[str, str] | None = None,
    device_path: str | None = None,
    time_path: str | None = None,
) -> Rule:
    """A rule out of what a user writes. Raises ValueError with what does not work and what to write."""
    levels, names = _filter(topic)
    if device is not None:
        _check_names(device, names)
    elif device_path is None and "device" in names:
        device = "{device}"
    if device is not None and device_path is not None:
        raise ValueError("device and device_path are both given: write one of them")
    for name, factor in (scale or {}).items():
        if not math.isfinite(factor):
            raise ValueError(f"scale.{name} = {factor} is no factor: write a number, as in 0.1")
    paths = _paths(readings or {}, device_path, time_path)
    if format in (RAW, IGNORE) and (units_by_reading or scale or kind):
        raise ValueError(f"format = {format!r} reads nothing: leave kind, units and scale out, or the format")
    if paths and format is not None:
        raise ValueError(f"paths read the JSON themselves: leave format = {format!r} out, or the paths")
    return Rule(
        topic=topic,
        levels=levels,
        names=names,
        format=format,
        zone=zone,
        device=device,
        kind=kind,
        units={name: _code(name, unit) for name, unit in (units_by_reading or {}).items()},
        scale=dict(scale or {}),
        paths=paths,
    )


def of_identity(wanted: Rule) -> Rule:
    """What a rule says of whose a message is, without what it says of how to read it: that is not done twice."""
    return Rule(topic=wanted.topic, levels=wanted.levels, names=wanted.names, device=wanted.device)


def read_by_paths(wanted: Rule, paths: Paths, message: Message, body: Body) -> list[Event]:
    """What a rule's paths find in a JSON message. Raises Unreadable."""
    document = body.document
    if document is None:
        raise Unreadable(body.json_fault or "the rule has paths into JSON, and the message is no JSON object or array")
    draft = Draft(NAME, message, body)
    for name, path in paths.readings:
        found = _search(path, document)
        if found is not None:
            draft.put(name, found)
    stamp = _search(paths.time, document) if paths.time else None
    device = wanted.named_device(message.topic) or _device(paths, document) or named(body.place.device, body)
    return [draft.event(device, stamp=stamp)]


def applied(wanted: Rule, topic: str, events: Sequence[Event]) -> Sequence[Event]:
    """The events with what the rule says over what the format says."""
    device = wanted.named_device(topic)
    if device is None and wanted.kind is None and not wanted.units and not wanted.scale:
        return events
    return [_applied(wanted, device, event) for event in events]


def _applied(wanted: Rule, device: str | None, event: Event) -> Event:
    readings = {name: _scaled(value, wanted.scale.get(name)) for name, value in event.readings.items()}
    stated = {name: code for name, code in wanted.units.items() if name in readings}
    sources: dict[str, UnitSource] = {**(event.unit_sources or {}), **dict.fromkeys(stated, "rule")}
    return msgspec.structs.replace(
        event,
        device=device or event.device,
        kind=wanted.kind or event.kind,
        readings=readings,
        units={**(event.units or {}), **stated} or None,
        unit_sources=sources or None,
    )


def _scaled(value: Value, factor: float | None) -> Value:
    if factor is None or value is None or type(value) is bool or type(value) is str:
        return value
    try:
        # 0.1 * 3 is 0.3 to everyone but a float; a double holds any 15 digits.
        scaled = float(f"{float(value) * factor:.15g}")
    except OverflowError:
        return None
    return scaled if math.isfinite(scaled) else None


def _filter(topic: str) -> tuple[tuple[str, ...], dict[str, int]]:
    levels: list[str] = []
    names: dict[str, int] = {}
    for at, level in enumerate(topic.split("/")):
        found = _LEVEL.fullmatch(level)
        if found and found[1] in names:
            raise ValueError(f"two levels of {topic} are named {level}")
        if found:
            names[found[1]] = at
        elif level != "+" and ("+" in level or "{" in level or "}" in level):
            raise ValueError(f"{level!r} is no level of a topic filter: write + or {{name}} for a whole level")
        levels.append("+" if found else level)
    if not topic or any("#" in level for level in levels[:-1]) or ("#" in levels[-1] and levels[-1] != "#"):
        raise ValueError(f"{topic!r} is no topic filter: # may only be the last level")
    return tuple(levels), names


def _check_names(device: str, names: Mapping[str, int]) -> None:
    for name in _LEVEL.findall(device):
        if name not in names:
            raise ValueError(f"device names {{{name}}}, which is no level of the topic: write {{{name}}} there as well")


def _paths(readings: Mapping[str, str], device: str | None, time: str | None) -> Paths | None:
    if not readings:
        if device or time:
            raise ValueError("device_path and time_path need readings: name what to read, as in readings.t = 'data.t'")
        return None
    return Paths(
        tuple((name, _compiled(path)) for name, path in readings.items()),
        _compiled(device) if device else None,
        _compiled(time) if time else None,
    )


def _compiled(path: str) -> ParsedResult:
    try:
        return jmespath.compile(path)
    except JMESPathError as fault:
        raise ValueError(f"{path!r} is no JMESPath expression: {texts.shortened(str(fault))}") from None


def _search(path: ParsedResult, document: Json) -> Json:
    try:
        return path.search(document)  # type: ignore[no-any-return]
    except JMESPathError as fault:
        raise Unreadable(f"the path {path.expression} fails here: {texts.shortened(str(fault))}") from None


def _device(paths: Paths, document: Json) -> str | None:
    found = _search(paths.device, document) if paths.device else None
    return str(found) if isinstance(found, (str, int)) and not isinstance(found, bool) else None


def _code(name: str, unit: str) -> str:
    code = units.code(unit)
    if code is None:
        raise ValueError(f"units.{name} = {unit!r} is no unit that Amber knows: write a UCUM code, as in Cel or kW.h")
    return code
