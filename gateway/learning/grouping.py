"""Which devices are alike enough to be one group of a fleet. Pure; never looks at the store."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from itertools import islice
from statistics import fmean, median
from typing import cast

import msgspec

from devices.dialects import FREE_TOPICS, check
from gateway.learning.dialects import SPOKEN, measured_as
from gateway.learning.likeness import distance
from gateway.learning.observing import Observed
from gateway.learning.signals import Spec, hours_of, independent, interval_of, precision, quantiles, signal, signals
from storage.event import Value

ALIKE = 0.15
"""Up to this distance between their distributions, readings of two devices are taken for the same."""

SAME_PACE = 1.25

LOOKED_BACK = 50
"""With so many of the newest groups a device is compared: all would be quadratic."""

POOLED = 20
"""So many devices give a group its values: more would hardly change what it is like."""

MOST_NAME_BYTES = 100

NAMED_AFTER_GROUPS = frozenset({"sparkplug", "influx"})
"""The dialects in which devices, or readings, bear the name of the group."""

FEW_GROUPS = 20
"""From more groups of one sort on, devices that differ in their level alone become one, with a spread."""


class LearnedGroup(msgspec.Struct):
    """Devices that one description fits. `recorded_as` is their format, if no dialect can say what they said."""

    name: str
    members: list[Observed]
    dialect: str
    topic: str | None
    every_s: float
    jitter: float
    at_once: int
    hours: str | None
    signals: dict[str, Spec]
    recorded_as: str | None = None
    left_out: list[str] = []
    names: list[str] = []

    @property
    def first(self) -> Observed:
        """By which the group was made."""
        return self.members[0]


def group(devices: Iterable[Observed]) -> list[LearnedGroup]:
    """The groups, each described by the values of its first members together."""
    of_sorts: dict[tuple[object, ...], list[LearnedGroup]] = {}
    for device in devices:
        begun = _begun(device)
        of_its_sort = of_sorts.setdefault(_sort(begun), [])
        near = (one for one in islice(reversed(of_its_sort), LOOKED_BACK) if _alike(one, begun))
        joined = next(near, None)
        if joined is None:
            of_its_sort.append(begun)
        else:
            joined.members.append(begun.first)
    groups = [one for of_its_sort in of_sorts.values() for one in _few(of_its_sort)]
    _name(groups)
    return groups


def _few(groups: list[LearnedGroup]) -> list[LearnedGroup]:
    """The groups of one sort, described; where they are many, those become one that a spread makes alike."""
    found: list[LearnedGroup] = []
    for one in groups:
        near = None
        if len(groups) > FEW_GROUPS:
            near = next((other for other in found[-LOOKED_BACK:] if _alike(other, one, centred=True)), None)
        if near is None:
            found.append(one)
        else:
            near.members += one.members
    for one in found:
        if len(one.members) > 1:
            one.signals = _together(one, spread=len(groups) > FEW_GROUPS)
    return found


def _together(one: LearnedGroup, *, spread: bool) -> dict[str, Spec]:
    """The signals of the first of several devices, with what the others say of them."""
    found: dict[str, Spec] = {}
    values = pooled(one.members[:POOLED])
    for name, spec in one.signals.items():
        found[name] = spec
        if spec["kind"] == "states":
            found[name] = signal(values[name])
        elif spec["kind"] == "counter":
            rates = [cast("float", signal(member.values[name]).get("rate", 0.0)) for member in one.members[:POOLED]]
            found[name] = {**spec, "rate": float(f"{fmean(rates):.6g}")}
        elif spec["kind"] == "constant":
            found[name] = _constants(one, name, spec)
        elif spec["kind"] == "quantiles":
            found[name] = _spread(one, name, spec) if spread else {**spec, **_quantiles(values[name])}
    return found


def _constants(one: LearnedGroup, name: str, spec: Spec) -> Spec:
    """The constant in the middle of those that the devices have, and how far they are from there."""
    values = [member.values[name][-1][1] for member in one.members if name in member.values]
    numbers = [float(value) for value in values if type(value) in (int, float)]  # type: ignore[arg-type]  # as asked
    if len(numbers) < len(values) or min(numbers) == max(numbers):
        return spec
    middle, spread = (max(numbers) + min(numbers)) / 2, (max(numbers) - min(numbers)) / 2
    return {"kind": "constant", "value": middle, "spread": spread, "decimals": precision(values).get("decimals", 0)}


def _quantiles(series: Sequence[tuple[int, Value]]) -> Spec:
    return {"quantiles": quantiles([float(value) for _, value in series])}  # type: ignore[arg-type]  # all are numbers


def _spread(one: LearnedGroup, name: str, spec: Spec) -> Spec:
    """The quantiles of the first device around the middle of all, and how far the devices are from there."""
    levels = [_level(member.values[name]) for member in one.members if name in member.values]
    middle, own = (min(levels) + max(levels)) / 2, _level(one.first.values[name])
    shifted = [float(f"{value + middle - own:.9g}") for value in cast("list[float]", spec["quantiles"])]
    return {**spec, "quantiles": shifted, "spread": float(f"{(max(levels) - min(levels)) / 2:.6g}")}


def _level(series: Sequence[tuple[int, Value]]) -> float:
    return median(float(value) for _, value in series if type(value) in (int, float))  # type: ignore[arg-type]


def pooled(members: Sequence[Observed]) -> dict[str, list[tuple[int, Value]]]:
    """The values of several devices, one after the other in time, as if they were one that went on for so long."""
    values: dict[str, list[tuple[int, Value]]] = {}
    end = 0
    for member in members:
        first = min(series[0][0] for series in member.values.values())
        last = max(series[-1][0] for series in member.values.values())
        for name, series in member.values.items():
            values.setdefault(name, []).extend((time - first + end, value) for time, value in series)
        end += last - first + round(interval_of(member.times)[0] * 1_000_000)
    return values


def _begun(device: Observed) -> LearnedGroup:
    """A group of one."""
    spoken = device.formats.most_common(1)[0][0]
    dialect, names = _spoken(device, spoken)
    said = msgspec.structs.replace(
        device,
        values={name: device.values[reading] for reading, name in names.items()},
        units={name: device.units[reading] for reading, name in names.items() if reading in device.units},
    )
    topic = device.topics.most_common(1)[0][0].replace(device.device, "{device}")
    hours = hours_of(said.times)
    every_s, jitter, at_once = interval_of(said.times, device.arrivals, breaks=hours is not None)
    return LearnedGroup(
        name=_node(device) or device.device,
        members=[said],
        dialect=dialect,
        topic=topic if check(dialect, [], topic) is None else None,
        every_s=every_s,
        jitter=jitter,
        at_once=at_once,
        hours=hours,
        signals=signals(said.values),
        recorded_as=None if SPOKEN.get(spoken) == dialect else spoken,
        left_out=[name for name in device.values if name not in names],
    )


def _spoken(device: Observed, spoken: str) -> tuple[str, dict[str, str]]:
    """The dialect of a device, and what it measures by the readings that were recorded."""
    node = _node(device)
    for dialect in dict.fromkeys((SPOKEN.get(spoken, "json"), "json")):
        found = {name: measured_as(dialect, name, _kind(series), node) for name, series in device.values.items()}
        names = {reading: name for reading, name in found.items() if name is not None}
        if names and len(set(names.values())) == len(names) and check(dialect, names.values()) is None:
            return dialect, names
    return "json", {name: name for name in device.values if name}


def _kind(series: Sequence[tuple[int, Value]]) -> str:
    """The name of the type of the newest value."""
    return type(series[-1][1]).__name__


def _sort(one: LearnedGroup) -> tuple[object, ...]:
    """What must be the same for two devices to be of one group."""
    kinds = tuple(sorted((name, str(spec["kind"])) for name, spec in one.signals.items()))
    units = tuple(sorted(one.first.units.items()))
    base = one.name if one.dialect in NAMED_AFTER_GROUPS else ""
    return one.dialect, one.topic, one.first.qos, one.first.retain, one.at_once, one.hours, base, kinds, units


def _alike(one: LearnedGroup, other: LearnedGroup, *, centred: bool = False) -> bool:
    """Whether two devices of one sort are alike in pace and values as well; `centred`: but for their levels."""
    if max(one.every_s, other.every_s) > SAME_PACE * min(one.every_s, other.every_s):
        return False
    mine, yours = one.first.values, other.first.values
    compared = [name for name, spec in one.signals.items() if spec["kind"] in ("quantiles", "constant", "states")]
    return all(
        distance(_compared(mine[name], centred=centred), _compared(yours[name], centred=centred))
        <= ALIKE + chance_of(mine[name], yours[name])
        for name in compared
        if name in mine and name in yours
    )


def chance_of(*both: Sequence[tuple[int, Value]]) -> float:
    """How far apart the distributions of two devices of one sort may be by chance alone."""
    return sum(0.5 / math.sqrt(independent(series)) for series in both)


def _compared(series: Sequence[tuple[int, Value]], *, centred: bool) -> list[Value]:
    values = [value for _, value in series]
    if not centred or not all(type(value) in (int, float) for value in values):
        return values
    level = _level(series)
    return [round(float(value) - level, 9) for value in values]  # type: ignore[arg-type]  # all are numbers


def _node(device: Observed) -> str:
    """What a dialect has of the group: Sparkplug in the device's name, line protocol in that of a reading."""
    spoken = device.formats.most_common(1)[0][0]
    if spoken == "sparkplug_b":
        return device.device.rpartition("/")[0]
    measurements = {name.partition(".")[0] for name in device.values} if spoken == "influx_lp" else set()
    return measurements.pop() if len(measurements) == 1 else ""


def _name(groups: Sequence[LearnedGroup]) -> None:
    """Give the groups and their devices names that a fleet can have: each its own, without what topics forbid."""
    of_groups: set[str] = set()
    of_devices: set[str] = set()
    for one in groups:
        begin = re.match(r"[A-Za-z][A-Za-z_-]*", one.name)
        base = one.name if one.dialect in NAMED_AFTER_GROUPS else (begin[0] if begin else "").strip("-_")
        one.name = _untaken(_allowed(base, "json") or "group", of_groups)
        one.names = [_untaken(_allowed(member.device, one.dialect) or "device", of_devices) for member in one.members]


def _allowed(name: str, dialect: str) -> str:
    """A name without what topics forbid; where a dialect has it as one level of a topic, its last part."""
    name = re.sub(r"[+#{}]", "_", name)
    if dialect not in FREE_TOPICS:
        name = name.rpartition("/")[2]
    name = "".join(letter if letter.isprintable() else "_" for letter in name)
    return name.encode()[:MOST_NAME_BYTES].decode(errors="ignore").strip()


def _untaken(name: str, taken: set[str]) -> str:
    found, number = name, 2
    while found in taken:
        found, number = f"{name}-{number}", number + 1
    taken.add(found)
    return found
