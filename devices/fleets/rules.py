"""What the keys of a fleet's file must be to each other. Reads no file; each rule tells all that breaks it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from random import Random
from typing import Any

from devices.clock import SECOND_US
from devices.dialects import DIALECTS, FREE_TOPICS, check
from devices.faults import Spell
from devices.fleets.reading import Draft, Reading
from devices.fleets.sections import FASTEST_S, MOST_DEVICES, FleetSection
from devices.fleets.words import Complaint
from devices.models import MODELS
from devices.pace import Hours, openings
from devices.signals import in_order
from devices.signals.derived import Follows
from devices.signals.kind import Kind
from devices.signals.track import Track
from devices.signals.words import meant

_NUMBERED = re.compile(r"(.+)-(\d{4,})", re.DOTALL)
_IN_BRACES = re.compile(r"\{([^{}]*)\}")
_LASTING = frozenset({"clock_reset", "stuck", "schema_change", "offline", "flapping"})
"""Spells that are nothing if they take no time."""


def broken(reading: Reading) -> Iterator[Complaint]:
    """All that is wrong beyond the single keys; nothing about keys that are known to be wrong already."""
    for draft in reading.groups:
        for rule in (_pace, _devices, _delivery, _what, _signals, _dialect, _faults):
            for path, words in rule(draft):
                if len(path) < 3 or path[2] not in draft.bad:
                    yield Complaint(path, words)
        yield from _opening(draft, reading.fleet)
    yield from _unique(reading.groups)


def hours_of(draft: Draft) -> Hours | None:
    """When the group is awake, if not always."""
    spans = draft.section.hours
    return Hours(spans, draft.section.zone or "UTC") if spans else None


def _pace(draft: Draft) -> Iterator[Complaint]:
    group, at = draft.section, draft.at
    every_s, hours = group.every_s, hours_of(draft)
    if group.every is None and group.rate is None and not {"every", "rate"} & draft.bad:
        yield Complaint((*at, "every"), 'is missing: write every = "10s", or rate = 2.0 for so many a second')
    if group.every is not None and group.rate is not None:
        yield Complaint((*at, "rate"), "is said twice, as every and as rate: leave one out")
    if group.every is not None and group.every < FASTEST_S:
        yield Complaint((*at, "every"), f"is to be at least {FASTEST_S:g}s: have more devices instead")
    if group.hours == ():
        yield Complaint((*at, "hours"), 'never open: write ["06:00-22:00"], or leave them out')
    if group.zone is not None and group.hours is None:
        yield Complaint((*at, "zone"), "is the zone of hours, and there are none: leave it out")
    if hours and every_s and every_s > hours.shortest_s:
        yield Complaint(
            (*at, "hours"), f"a device that measures every {every_s:g}s may never meet them: make every shorter"
        )
    if group.bursts and every_s and group.bursts.every < every_s:
        yield Complaint((*at, "bursts", "every"), f"is to be at least every, which is {every_s:g}s")


def _opening(draft: Draft, fleet: FleetSection) -> Iterator[Complaint]:
    hours = hours_of(draft)
    if hours and fleet.start is not None and fleet.duration is not None:
        opens_us, _ = next(openings(hours, fleet.start), (1 << 63, 0))
        if opens_us >= fleet.start + fleet.duration * SECOND_US:
            yield Complaint((*draft.at, "hours"), "never open between start and the end of duration: move start")


def _devices(draft: Draft) -> Iterator[Complaint]:
    group, at = draft.section, draft.at
    if group.names is not None:
        for key in ("count", "prefix"):
            if getattr(group, key) is not None:
                yield Complaint((*at, key), "says what names say already: leave one of them out")
        for place in _again(group.names):
            yield Complaint((*at, "names", place), f"{group.names[place]!r} stands here twice: leave one out")
    if group.dialect in DIALECTS and group.dialect not in FREE_TOPICS | {"zigbee2mqtt"}:
        for key, names in (("name", [group.name]), ("prefix", [group.prefix or ""]), ("names", group.names or ())):
            if slashed := next((name for name in names if "/" in name), None):
                words = f"{slashed!r} has a slash: in {group.dialect} a name is one level of a topic"
                yield Complaint((*at, key), words)


def _delivery(draft: Draft) -> Iterator[Complaint]:
    group, at = draft.section, draft.at
    if group.receipts and group.qos == 0:
        yield Complaint((*at, "receipts"), "need qos 1 or 2: what is sent at 0 is never sent again")
    if group.topic is not None:
        yield from (Complaint((*at, "topic"), words) for words in _of_topic(group.topic))


def _of_topic(topic: str) -> Iterator[str]:
    for name in _IN_BRACES.findall(topic):
        if name not in ("device", "group"):
            yield f"{{{name}}} stands for nothing{meant(name, ('device', 'group'))}"
    if {"{", "}"} & {*_IN_BRACES.sub("", topic)}:
        yield "has a brace without its other half: only {device} and {group} stand for something"
    if bad := next((letter for letter in topic if letter in "+#" or ord(letter) < 32), None):
        yield f"cannot hold {bad!r}: it is one topic, not a filter"
    if not topic or topic.startswith("$") or len(topic.encode()) > 60_000:
        yield "is no topic that a device can publish to: empty, endless, or one of the broker's own, which begin with $"


def _what(draft: Draft) -> Iterator[Complaint]:
    """What is measured."""
    group, at = draft.section, draft.at
    if group.model is not None and group.signals is not None:
        yield Complaint((*at, "model"), "a group has a model or signals of its own: leave one out")
    if group.model is None and not group.signals and not {"model", "signals"} & draft.bad:
        yield Complaint(at, f"measures nothing: write [groups.signals.NAME], or model = one of {', '.join(MODELS)}")
    if group.model is not None and group.model not in MODELS:
        yield Complaint((*at, "model"), f"there is no model {group.model!r}{meant(group.model, MODELS)}")


def _signals(draft: Draft) -> Iterator[Complaint]:
    at, kinds = (*draft.at, "signals"), draft.kinds
    makers: dict[str, str] = {}
    for name, kind in kinds.items():
        for reading in kind.gives(name):
            if reading in makers:
                yield Complaint((*at, name), f"gives {reading!r}, as {makers[reading]!r} does: leave one out")
            makers.setdefault(reading, name)
    types = {reading: gives for name in kinds for reading, gives in kinds[name].gives(name).items()}
    unread = draft.unread | {*(Track.READINGS if _may_be_track(draft) else ())}
    for name, kind in kinds.items():
        of = kind.needs()
        if of is not None and of not in types:
            if of not in unread:
                yield Complaint((*at, name, "of"), f"there is no signal {of!r}{meant(of, [*types, *draft.unread])}")
        elif of is not None:
            yield from (Complaint((*at, name, key), words) for key, words in _of(kind, of, types[of], kinds))
    for name in draft.unread:  # which could not be read for other reasons
        of = _raw(draft, name).get("of")
        if isinstance(of, str) and of not in types and of not in unread:
            yield Complaint((*at, name, "of"), f"there is no signal {of!r}{meant(of, [*types, *draft.unread])}")
    for circle in _circles(kinds):
        chain = " → ".join(map(repr, (*circle, circle[0])))
        yield Complaint((*at, circle[0], "of"), f"goes round in a circle, {chain}: let one of them stand alone")


def _circles(kinds: Mapping[str, Kind]) -> Iterator[Sequence[str]]:
    """Signals that need each other, each circle once."""
    while True:
        try:
            in_order(kinds)
        except ValueError as error:
            yield error.args
            kinds = {name: kind for name, kind in kinds.items() if name not in error.args}
        else:
            return


def _may_be_track(draft: Draft) -> bool:
    return any(_raw(draft, name).get("kind") == Track.word for name in draft.unread)


def _raw(draft: Draft, name: str) -> Mapping[str, Any]:
    signal = (draft.section.signals or {})[name]
    return signal if isinstance(signal, dict) else {}


def _of(kind: Kind, of: str, type_: type, kinds: Mapping[str, Kind]) -> Iterator[tuple[str, str]]:
    """What is wrong with reckoning from such a reading: key and words."""
    values = kind.values if isinstance(kind, Follows) else {}
    if type_ in (str, bool) and not values:
        what = "a text" if type_ is str else "true or false"
        cure = "write values = { … } with a number for each" if isinstance(kind, Follows) else "sum up a number"
        yield "of", f"{of!r} is {what}, which cannot be reckoned with: {cure}"
    elif type_ not in (str, bool) and values:
        yield "values", f"{of!r} is a number: write factor and offset instead"
    elif values and of in kinds:
        for state in kinds[of].states_of():
            if state not in values:
                yield "values", f"says nothing of {state!r}, which {of!r} may be: add it"


def _dialect(draft: Draft) -> Iterator[Complaint]:
    group, at = draft.section, draft.at
    if group.dialect not in DIALECTS:
        yield Complaint((*at, "dialect"), f"there is no dialect {group.dialect!r}{meant(group.dialect, DIALECTS)}")
        return
    readings = [reading for name, kind in draft.kinds.items() for reading in kind.gives(name)]
    if model := MODELS.get(group.model or ""):
        readings = [*next(model.signal(Random(0), [0]))]
    if words := check(group.dialect, readings):
        yield Complaint((*at, "signals"), words)
    if group.topic is not None and group.dialect not in FREE_TOPICS:
        yield Complaint((*at, "topic"), f"{check(group.dialect, readings, group.topic)}")


def _faults(draft: Draft) -> Iterator[Complaint]:
    at = (*draft.at, "faults")
    for key in draft.faults.__struct_fields__:
        spell = getattr(draft.faults, key)
        if not isinstance(spell, Spell):
            continue
        if spell.every_s is None and not spell.at_s:
            yield Complaint((*at, key), 'never comes: write { every = "2m", for = "20s" }, or at = ["30s"]')
        if not spell.for_s and key in _LASTING:
            yield Complaint((*at, key), 'takes no time: add for = "20s"')
    dialect = DIALECTS.get(draft.section.dialect)
    if draft.faults.conflict and dialect is not None and not getattr(dialect, "identified", True):
        known = ", ".join(name for name in DIALECTS if getattr(DIALECTS[name], "identified", False))
        yield Complaint((*at, "conflict"), f"needs a dialect whose messages bear an identity: {known}")


def _unique(groups: Sequence[Draft]) -> Iterator[Complaint]:
    """Names of groups, and of devices in all of the fleet."""
    first: dict[str, Draft] = {}
    counted: dict[str, Draft] = {}
    named: dict[str, Draft] = {}
    for draft in groups:
        group = draft.section
        if "name" not in draft.bad and first.setdefault(group.name, draft) is not draft:
            yield Complaint((*draft.at, "name"), f"{group.name!r} is the name of another group: choose another")
        elif group.names is None and "names" not in draft.bad:
            prefix = group.prefix or group.name
            if counted.setdefault(prefix, draft) is not draft:
                other = counted[prefix].section.name
                yield Complaint((*draft.at, "prefix"), f"{prefix!r} begins the names of group {other!r} already")
        for place, name in enumerate(dict.fromkeys(group.names or ())):
            if named.setdefault(name, draft) is not draft:
                other = named[name].section.name
                yield Complaint((*draft.at, "names", place), f"{name!r} is in group {other!r} already")
    for name, draft in named.items():
        found = _NUMBERED.fullmatch(name)
        maker = counted.get(found[1]) if found else None
        if found and maker and name == f"{found[1]}-{int(found[2]):04d}" and 1 <= int(found[2]) <= _count(maker):
            yield Complaint((*draft.at, "names"), f"{name!r} is in group {maker.section.name!r} already")
    if sum(map(_count, groups)) > MOST_DEVICES:
        yield Complaint(("groups",), f"are {sum(map(_count, groups))} devices in all: at most {MOST_DEVICES}")


def _count(draft: Draft) -> int:
    return len(draft.section.names or ()) or draft.section.count or 1


def _again(names: Iterable[str]) -> Iterator[int]:
    seen = set[str]()
    for place, name in enumerate(names):
        if name in seen:
            yield place
        seen.add(name)
