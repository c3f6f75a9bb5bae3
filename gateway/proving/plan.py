"""What a torture will do, and when. Follows from its seed and options alone; touches nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from random import Random
from typing import Literal

import msgspec

Kind = Literal["gateway", "broker", "devices", "link", "disk", "freeze"]
What = Literal["gateway", "broker", "devices", "link", "disk"]
How = Literal["kill", "cut", "stall", "slow", "fill", "freeze"]

KINDS: tuple[Kind, ...] = ("gateway", "broker", "devices", "link", "disk", "freeze")

EVERY_S = 6.0
"""How often something is done, if nobody says how often."""

FIRST_S = 1.0
"""Devices have come and begun to speak."""

QUIET = 0.1
"""The share of the time at the end in which nothing is done: who is still waiting to connect again then does."""

SHORTEST_S = 1.0
"""Between two deeds of a kind: in less, a process is hardly up before it is killed again, and nothing is stored."""

LONGEST_S: dict[How, float] = {"kill": 4.0, "stall": 12.0, "slow": 10.0, "fill": 6.0, "freeze": 9.0}
"""After how long it is undone at the latest. A gateway on trial finds a dead link within about eight seconds, and a
broker gives it up after about as long: so some of the stalls and freezes end before that, some after."""


class Disturbance(msgspec.Struct, frozen=True):
    """One deed: `at_s` after the start, undone `for_s` later (a cut is not: it lasts no time)."""

    at_s: float
    what: What
    how: How
    for_s: float

    def __str__(self) -> str:
        return f"{self.how} {self.what}"


class Plan(msgspec.Struct, frozen=True):
    """All of it, in the order of its beginnings."""

    seed: int
    seconds: float
    disturbances: tuple[Disturbance, ...]

    def summary(self) -> str:
        """`12 × kill gateway, 3 × cut link`."""
        counts = Counter(map(str, self.disturbances))
        return ", ".join(f"{count} × {deed}" for deed, count in sorted(counts.items())) or "nothing"


def make_plan(seed: int, kinds: Sequence[Kind], *, times: int | None, seconds: float) -> Plan:
    """Each kind has its share of `times`. Raises ValueError where there is not enough time for so many."""
    span_s = seconds * (1 - QUIET) - FIRST_S
    chosen = [kind for kind in KINDS if kind in kinds]  # the order in which they were named changes nothing
    if times is None:
        times = max(len(chosen), round(seconds / EVERY_S)) if chosen else 0
    elif times and not chosen:
        raise ValueError("nothing is to be disturbed, and that cannot be done more than never")
    deeds = list[Disturbance]()
    for place, kind in enumerate(chosen):
        count = (times - place + len(chosen) - 1) // len(chosen)
        if count and span_s / count < SHORTEST_S:
            most = max(0, int(span_s / SHORTEST_S)) * len(chosen)
            raise ValueError(f"there is no time for {times} in {seconds:g} s: at most {most}, or more --minutes")
        chance = Random(f"{seed}/{kind}")  # noqa: S311  # repeatable, not secret
        deeds += _of_one_kind(chance, kind, count, span_s)
    return Plan(seed, seconds, tuple(sorted(deeds, key=lambda deed: (deed.at_s, deed.what, deed.how))))


def _of_one_kind(chance: Random, kind: Kind, count: int, span_s: float) -> list[Disturbance]:
    """One in each of as many equal stretches of the time: at a random moment, and undone before the next."""
    deeds = []
    for n in range(count):
        stretch_s = span_s / count
        what, how = _deed(chance, kind)
        at_s = FIRST_S + n * stretch_s + chance.uniform(0, 0.5) * stretch_s
        longest_s = min(LONGEST_S.get(how, 0.0), 0.45 * stretch_s)
        deeds.append(Disturbance(round(at_s, 3), what, how, round(chance.uniform(0.05, 1) * longest_s, 3)))
    return deeds


def _deed(chance: Random, kind: Kind) -> tuple[What, How]:
    if kind == "link":
        return "link", chance.choice(("cut", "stall", "slow"))
    if kind == "freeze":
        return chance.choice(("gateway", "broker")), "freeze"
    return kind, "fill" if kind == "disk" else "kill"
