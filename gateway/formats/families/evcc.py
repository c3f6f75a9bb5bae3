"""evcc, charging of electric vehicles with solar power: https://docs.evcc.io/en/integrations/mqtt-api."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.formats.body import Body
from gateway.formats.draft import Draft
from gateway.formats.format import Format, Unreadable
from gateway.formats.plain import scalar
from storage.event import Event, Kind, Message

NAME = "evcc"

_ROOT = "evcc"
_NUMBERED = frozenset({"loadpoints", "vehicles"})
_EMPTY = frozenset({"", "nil", "null", "none", "-"})
# Names that people and vehicles bear: 3 is no number there.
_NAMES = "title siteTitle name vehicleName vehicleTitle vehicleIdentity vehicle mode batteryMode currency version icon"
# By unit, the last level. Not here: chargeTotalImport, of which one page says Wh and another kWh; prices and CO₂.
_LEAVES = """
W    power homePower pvPower auxPower chargePower residualPower enableThreshold disableThreshold maxPower powers
Wh   chargedEnergy chargeRemainingEnergy sessionEnergy
kWh  limitEnergy planEnergy capacity chargedKWh
%    soc vehicleSoc vehicleLimitSoc minSoc limitSoc planSoc prioritySoc bufferSoc bufferStartSoc effectiveMinSoc
%    effectiveLimitSoc effectivePlanSoc batteryBoostLimit batterySoc sessionSolarPercentage solarPercentage
A    minCurrent maxCurrent offeredCurrent effectiveMinCurrent effectiveMaxCurrent
km   vehicleRange vehicleOdometer range odometer
1    greenShareHome greenShareLoadpoints
s    enableDelay disableDelay phaseRemaining pvRemaining planOverrun updated
"""
_PHASES = {"currents": "A", "chargeCurrents": "A", "voltages": "V", "chargeVoltages": "V", "powers": "W"}
_DURATIONS = frozenset({"chargeDuration", "chargeRemainingDuration", "connectedDuration"})
_CENTURY_S = 3_155_760_000


def read(message: Message, body: Body) -> Sequence[Event] | None:
    """One event of the site, a loadpoint, a vehicle, or of evcc itself; `/set` asks for a change."""
    levels = message.topic.split("/")
    at = _base(levels)
    if at is None:
        return None
    if body.document is None and body.json_fault:
        raise Unreadable(body.json_fault)
    if body.document is None and body.text is None:
        return None
    path = levels[at:]
    if body.document is not None and len(path) < 3:  # evcc gives each value of a thing a topic of its own
        return None
    order = path[-1] == "set" and len(path) > 1
    if order:
        path.pop()
    thing = 2 if path[0] in _NUMBERED and len(path) > 2 else int(path[0] == "site" and len(path) > 1)
    draft = Draft(NAME, message, body)
    kind = _fill(draft, path[thing:], body)
    return [draft.event("/".join(levels[: at + thing]), "command" if order else kind)]


def _base(levels: list[str]) -> int | None:
    """Where the base topic ends; under another one only what nobody else is likely to call so."""
    if _ROOT in levels[:-1]:
        return levels.index(_ROOT) + 1
    at = levels.index("loadpoints") if "loadpoints" in levels else 0
    leaf = levels[-2] if levels[-1] == "set" else levels[-1]
    telling = not leaf.islower() and (leaf in _UNITS or leaf in _DURATIONS)
    return at if at and len(levels) > at + 2 and telling else None


def _fill(draft: Draft, path: list[str], body: Body) -> Kind | None:
    name, leaf = ".".join(path) or "value", path[-1] if path else ""
    text = body.text or ""
    if body.document is not None:
        draft.put(name, body.document)
        draft.put_known_units(_unit_within)
        return None
    if text.lower() in _EMPTY:  # evcc writes nothing for nil, and takes all of these for it
        draft.put_missing(name, unit=None)
        return "state"
    value = text if leaf in _TEXTS else scalar(text)
    number = value if type(value) is int or type(value) is float else None
    draft.put_value(name, value, None if number is None else _unit(path, number), source="format")
    if path == ["status"]:
        return "availability"
    return "state" if number is None else "measurement"  # `connected` tells of a vehicle


def _unit(path: list[str], value: float) -> str | None:
    leaf = path[-1] if path else ""
    if leaf in _DURATIONS:  # the page says ns, evcc publishes seconds: no charging takes a century
        return "s" if value < _CENTURY_S else "ns"
    if len(path) > 1 and leaf in _LINES:
        return _PHASES.get(path[-2]) or _UNITS.get(path[-2])
    return _UNITS.get(leaf) or _PHASES.get(leaf)


def _unit_within(name: str) -> str | None:
    path = name.split(".")
    if path[-1] in ("value", "energy", "soc") and len(path) > 1:  # {"value": 50, "time": …} of planSoc and planEnergy
        path = path[:-1]
    return _UNITS.get(path[-1])


_TEXTS = frozenset(_NAMES.split())
_LINES = frozenset({"l1", "l2", "l3", "1", "2", "3"})
_UNITS = {leaf: line.split()[0] for line in _LEAVES.strip().splitlines() for leaf in line.split()[1:]}

FORMATS: tuple[Format, ...] = (
    Format(name=NAME, read=read, topics=("evcc/#", "+/evcc/#", "#/loadpoints/+/+", "#/loadpoints/+/+/set")),
)
