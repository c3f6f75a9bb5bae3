"""The text of a fleet's file. Knows what such a file looks like, and nothing of how it came about."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from gateway.learning.grouping import LearnedGroup
from gateway.learning.signals import Spec

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_NUMBERED = re.compile(r"(.*?)-(\d{4,})")


def toml(groups: Sequence[LearnedGroup], seed: int) -> str:
    """The whole file."""
    devices = sum(len(one.members) for one in groups)
    head = [
        f"# Learned from recorded history: {counted(devices, 'device')} in {counted(len(groups), 'group')}.",
        "# amber simulate FILE runs it; docs/fleets.md tells what may be changed.",
        f"seed = {seed}",
    ]
    return "\n".join([*head, *(line for one in groups for line in _group(one))]) + "\n"


def _group(one: LearnedGroup) -> Iterator[str]:
    yield from ("", "[[groups]]", f"name = {literal(one.name)}")
    yield from _names(one)
    if one.recorded_as is not None:
        yield f"# They were recorded as {one.recorded_as}: no dialect can say that as they did."
    if one.left_out:
        yield f"# Left out, as {one.dialect} says it by itself or cannot: {_shown(one.left_out)}."
    yield f"dialect = {literal(one.dialect)}"
    yield f"every = {literal(length(one.every_s))}"
    if one.at_once > 1:
        yield f"bursts = {{ every = {literal(length(one.every_s))}, count = {one.at_once} }}"
    elif one.jitter:
        yield f"jitter = {literal(one.jitter)}"
    if one.hours is not None:
        yield f"hours = {literal([one.hours])}"
    yield f"qos = {one.first.qos}"
    if one.first.retain:
        yield "retain = true"
    if one.topic is not None:
        yield f"topic = {literal(one.topic)}"
    for name, spec in one.signals.items():
        yield from _signal(name, spec, one.first.units.get(name))


def counted(number: int, thing: str) -> str:
    """1 device, 2 devices."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def length(seconds: float) -> str:
    """As people say it, where it is as good as that."""
    for unit, of_unit in (("h", 3600), ("m", 60), ("s", 1), ("ms", 0.001)):
        count = round(seconds / of_unit)
        if count and abs(seconds - count * of_unit) < seconds / 200:
            return f"{count}{unit}"
    return f"{seconds:.6g}s"


def _names(one: LearnedGroup) -> Iterator[str]:
    """A prefix and a count where the names are numbered as a group's are, else each of them."""
    names = one.names
    first = _NUMBERED.fullmatch(names[0])
    if first and names == [f"{first[1]}-{n:04d}" for n in range(1, len(names) + 1)]:
        if first[1] != one.name:
            yield f"prefix = {literal(first[1])}"
        yield f"count = {len(names)}"
    else:
        yield f"names = {literal(names)}"


def _signal(name: str, spec: Spec, unit: str | None) -> Iterator[str]:
    yield from ("", f"[groups.signals.{_key(name)}]")
    for key, value in spec.items():
        yield f"{key} = {literal(value)}"
    if unit is not None and spec["kind"] != "track":
        yield f"unit = {literal(unit)}"


def _shown(names: Sequence[str]) -> str:
    return ", ".join("".join(letter if letter.isprintable() else "?" for letter in name) for name in names)


def literal(value: object) -> str:
    """A value as TOML has it."""
    if isinstance(value, str):
        # TOML's basic strings are JSON's, but for the escape of a slash, which is not made here, and for DEL.
        return msgspec.json.encode(value).decode().replace("\x7f", "\\u007f")
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_key(str(key))} = {literal(inner)}" for key, inner in value.items()) + " }"
    if isinstance(value, Sequence):
        return "[" + ", ".join(map(literal, value)) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value)


def _key(name: str) -> str:
    return name if _BARE.fullmatch(name) else literal(name)
