"""The text of a fleet's file, table by table: what can be read of it, and all that cannot. Knows no rules."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pydantic import ValidationError

from devices.faults import Faults
from devices.fleets.errors import FleetError
from devices.fleets.remedies import Fault, line_of_opening, remedy
from devices.fleets.sections import FaultsSection, FleetSection, GroupSection, faults
from devices.fleets.words import Complaint, complaints, printable, shown
from devices.signals import KINDS
from devices.signals.kind import Kind
from devices.signals.words import meant
from devices.signals.written import Table

MOST_BYTES = 16 << 20

Way = tuple[str | int, ...]
T = TypeVar("T", bound=Table)

_PLACE = re.compile(r"(.*) \((?:at line (\d+), column (\d+)|at end of document)\)", re.DOTALL)


class Draft(NamedTuple):
    """A group, as far as it could be read. What could not has left a complaint, and stands in `bad`."""

    at: Way
    section: GroupSection
    kinds: Mapping[str, Kind]
    faults: Faults
    bad: frozenset[str]
    """Keys of the group whose values are not known."""
    unread: frozenset[str]
    """Signals, likewise."""


class Reading(NamedTuple):
    """All of a file."""

    fleet: FleetSection
    groups: list[Draft]
    complaints: list[Complaint]


def text_of(path: Path) -> str:
    """Raises FleetError."""
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise FleetError([f"{path}: cannot be read: {error.strerror}"]) from None
    if len(content) > MOST_BYTES:
        raise FleetError([f"{path}: is larger than {MOST_BYTES >> 20} MB, which no description of a fleet is"])
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise FleetError([f"{path}:{line}: is not UTF-8 text, as TOML is: save it as UTF-8"]) from None


def data_of(path: Path, text: str) -> dict[str, Any]:
    """What the TOML says. Raises FleetError with line and column."""
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise FleetError([f"{path}:1: is nested too deeply to be read"]) from None
    except tomllib.TOMLDecodeError as error:
        raise FleetError([f"{path}:{_told(str(error), text)}"]) from None
    except ValueError:  # Python reads no number of more than 4300 digits
        begin = found.start() if (found := re.search(r"\d{4000}", text)) else 0
        raise FleetError([f"{path}:{text.count(chr(10), 0, begin) + 1}: this number is too long to be read"]) from None


def _told(finding: str, text: str) -> str:
    """Line, column, key, what the reader of TOML found, and what to do about it."""
    found = _PLACE.fullmatch(finding)
    if found is None:
        return f"1: {printable(finding)}"
    words = f"{found[1][:1].lower()}{found[1][1:]}"
    line = int(found[2]) if found[2] else line_of_opening(text, words)
    key, cure = remedy(text, Fault(words, line, int(found[3] or 0)))
    place = f"{line}:{found[3]}" if found[2] else f"{line}"
    return f"{place}: {printable(': '.join(filter(None, (key, words, cure))))}"


def read(data: Mapping[str, Any], folder: Path) -> Reading:
    """Files that are named in it are looked for from `folder` on."""
    fleet, found, bad = _table(FleetSection, data, (), folder, {})
    drafts = []
    if not fleet.groups and "groups" not in bad:
        found.append(Complaint((), "there is no group: write one [[groups]] for each sort of device"))
    for place, raw in enumerate(fleet.groups):
        at: Way = ("groups", place)
        if isinstance(raw, dict):
            draft, more = _group(raw, at, folder)
            drafts.append(draft)
            found += more
        else:
            found.append(Complaint(at, f"is to be a table, not {shown(raw)}: write [[groups]]"))
    return Reading(fleet, drafts, found)


def _group(raw: Mapping[str, Any], at: Way, folder: Path) -> tuple[Draft, list[Complaint]]:
    section, found, bad = _table(GroupSection, raw, at, folder, {"name": "group"})
    kinds: dict[str, Kind] = {}
    for name, signal in (section.signals or {}).items():
        kind, more = _signal(signal, (*at, "signals", name), folder)
        found += more
        if kind is not None:
            kinds[name] = kind
    wrong, more, _ = _table(FaultsSection, section.faults or {}, (*at, "faults"), folder, {})
    found += more
    try:
        faulty = faults(wrong)
    except ValueError as error:
        found.append(Complaint((*at, "faults"), str(error)))
        faulty = Faults()
    unread = frozenset((section.signals or {}).keys() - kinds.keys())
    return Draft(at, section, kinds, faulty, bad, unread), found


def _signal(raw: object, at: Way, folder: Path) -> tuple[Kind | None, list[Complaint]]:
    if not isinstance(raw, dict):
        return None, [Complaint(at, f'is to be a table, not {shown(raw)}: write {{ kind = "constant", value = … }}')]
    if "kind" not in raw:
        return None, [Complaint(at, f"has no kind: write kind = one of {', '.join(KINDS)}")]
    word = raw["kind"]
    if not isinstance(word, str) or word not in KINDS:
        hint = meant(word, KINDS) if isinstance(word, str) else f", only {', '.join(KINDS)}"
        return None, [Complaint((*at, "kind"), f"there is no kind {shown(word)}{hint}")]
    try:
        return KINDS[word].model_validate(raw, context={"folder": folder}), []
    except ValidationError as error:
        return None, [*complaints(error, KINDS[word], at)]


def _table(
    table: type[T], raw: Mapping[str, Any], at: Way, folder: Path, stand_ins: Mapping[str, Any]
) -> tuple[T, list[Complaint], frozenset[str]]:
    """The table, as far as it can be read; what is wrong; and the keys that are left out for it."""
    try:
        return table.model_validate(raw, context={"folder": folder}), [], frozenset()
    except ValidationError as error:
        found = [*complaints(error, table, at)]
    bad = frozenset(str(complaint.path[len(at)]) for complaint in found)
    rest = {key: value for key, value in raw.items() if key not in bad}
    rest |= {key: value for key, value in stand_ins.items() if key in bad}
    return table.model_validate(rest, context={"folder": folder}), found, bad
