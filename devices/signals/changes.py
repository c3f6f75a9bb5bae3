"""Signals that stay, and change: steps at set times, states for as long as chance will have it."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from random import Random
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from devices.clock import SECOND_US
from devices.models import Readings
from devices.outgoing import Value
from devices.signals.kind import Kind, Step
from devices.signals.units import Unit
from devices.signals.written import Length, Plain, Share, written

LONG_AGO = 1_000
"""After so many mean rounds through all states nothing is known of the last one: a state is drawn anew."""


class Steps(Kind):
    """One value after the other, each for as long, at the same times for all devices."""

    word: ClassVar = "steps"

    values: Annotated[
        tuple[Plain, ...], Field(description="the values, one after the other", min_length=1, strict=False)
    ]
    every: Annotated[Length, Field(description="how long each of them stands")]
    order: Annotated[Literal["cycle", "random"], Field(description="cycle, or random: any of them each time")] = "cycle"
    unit: Annotated[Unit | None, Field(description="UCUM code of the unit")] = None

    @model_validator(mode="after")
    def _one_type(self) -> Self:
        if len({_family(value) for value in self.values}) > 1:
            raise ValueError("the values are to be all numbers, all texts, or all true and false")
        if self.unit and _family(self.values[0]) is not float:
            raise ValueError("only numbers have a unit: leave it out")
        return self

    def states_of(self) -> Iterable[str]:
        return map(written, self.values)

    def gives(self, name: str) -> Mapping[str, type]:
        whole = all(type(value) is int for value in self.values)
        return {name: int if whole else _family(self.values[0])}

    def begin(self, name: str, chance: Random) -> Step:
        values, every_us = self.values, max(1, int(self.every * SECOND_US))
        number, drawn = -1, values[0]

        def cycle(time: int, readings: Readings) -> None:
            readings[name] = values[time // every_us % len(values)]

        def random(time: int, readings: Readings) -> None:
            nonlocal number, drawn
            if time // every_us != number:
                number, drawn = time // every_us, chance.choice(values)
            readings[name] = drawn

        return random if self.order == "random" else cycle


class States(Kind):
    """Texts that take turns. How long each stays knows no past: the length given is the mean.

    Two states named true and false are booleans.
    """

    word: ClassVar = "states"

    states: Annotated[dict[str, Length], Field(description='mean stay of each: { idle = "5m", run = "20m" }')]
    transitions: dict[str, dict[str, Share]] = Field(
        {}, description="shares of what follows: { run = { idle = 0.9, fault = 0.1 } }; else any other alike"
    )

    @model_validator(mode="after")
    def _known(self) -> Self:
        if not self.states:
            raise ValueError('there is no state: write states = { idle = "5m", run = "20m" }')
        for before, shares in self.transitions.items():
            for state in (before, *shares):
                if state not in self.states:
                    raise ValueError(f"transitions speak of {state!r}, and states do not: add it there")
            if before in shares:
                raise ValueError(f"{before!r} follows itself in transitions: let it stay longer instead")
            if not sum(shares.values()):
                raise ValueError(f"nothing follows {before!r} in transitions: give a share above 0")
        return self

    def states_of(self) -> Iterable[str]:
        return self.states

    def gives(self, name: str) -> Mapping[str, type]:
        return {name: bool if {*self.states} == {"true", "false"} else str}

    def begin(self, name: str, chance: Random) -> Step:
        shown: Mapping[str, Value] = {state: state for state in self.states}
        if {*self.states} == {"true", "false"}:
            shown = {"true": True, "false": False}
        names, stays_us = list(self.states), {state: stay * SECOND_US for state, stay in self.states.items()}
        next_ones = {state: self._followers(state) for state in names}
        long_us = LONG_AGO * sum(stays_us.values())
        state, until = names[0], -long_us

        def step(time: int, readings: Readings) -> None:
            nonlocal state, until
            if time - until >= long_us:
                (state,) = chance.choices(names, [*stays_us.values()])
                until = time + chance.expovariate(1.0) * stays_us[state]
            while time >= until:
                followers, shares = next_ones[state]
                if followers:
                    (state,) = chance.choices(followers, cum_weights=shares)
                until += chance.expovariate(1.0) * stays_us[state]
            readings[name] = shown[state]

        return step

    def _followers(self, state: str) -> tuple[list[str], list[float]]:
        """What may follow, with the running sums of the shares."""
        others = dict.fromkeys((other for other in self.states if other != state), 1.0)
        shares = {after: share for after, share in self.transitions.get(state, others).items() if share}
        return list(shares), list(itertools.accumulate(shares.values()))


def _family(value: object) -> type:
    return float if isinstance(value, int | float) and not isinstance(value, bool) else type(value)
