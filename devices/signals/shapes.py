"""Signals of a shape: constant, daily, walk and noise. Each value follows from the device's chance and the time."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from random import Random
from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator

from devices.clock import DAY_US, SECOND_US
from devices.models import Readings
from devices.signals.kind import Kind, Numeric, Step
from devices.signals.units import Unit
from devices.signals.written import Clock, Length, Number, Plain, Positive, written


class Constant(Kind):
    """Always the same."""

    word: ClassVar = "constant"

    value: Annotated[Plain, Field(description="a number, a text, true or false")]
    unit: Annotated[Unit | None, Field(description="UCUM code of the unit")] = None
    spread: Annotated[Positive, Field(description="how far devices differ, either way")] = 0.0
    decimals: Annotated[int, Field(description="digits after the point, where devices differ", ge=0, le=12)] = 2

    @model_validator(mode="after")
    def _is_number(self) -> Self:
        if isinstance(self.value, bool | str) and (self.unit or self.spread):
            raise ValueError("only a number has a unit or a spread: leave them out")
        return self

    def states_of(self) -> Iterable[str]:
        return [written(self.value)]

    def gives(self, name: str) -> Mapping[str, type]:
        return {name: float if self.spread else type(self.value)}

    def begin(self, name: str, chance: Random) -> Step:
        value = self.value
        if self.spread and not isinstance(value, str):
            value = round(value + chance.uniform(-self.spread, self.spread), self.decimals)

        def step(_time: int, readings: Readings) -> None:
            readings[name] = value

        return step


class Daily(Numeric):
    """Up and down once a day."""

    word: ClassVar = "daily"

    mean: Annotated[Number, Field(description="the middle of the day's values")]
    swing: Annotated[Number, Field(description="how far it goes from there, either way")]
    peak: Annotated[Clock, Field(description="when it is highest, UTC")] = 15 * 3600

    def begin(self, name: str, chance: Random) -> Step:
        mean, swing = self.mean + self.own(chance), self.swing
        finish, cos, peak_us, turn = self.finish(chance), math.cos, self.peak * SECOND_US, math.tau / DAY_US

        def step(time: int, readings: Readings) -> None:
            readings[name] = finish(mean + swing * cos((time - peak_us) % DAY_US * turn))

        return step


class Walk(Numeric):
    """Wanders about its mean, and is drawn back to it: the same in distribution, however often it is looked at."""

    word: ClassVar = "walk"

    mean: Annotated[Number, Field(description="what it wanders about")]
    swing: Annotated[Positive, Field(description="standard deviation from there")]
    over: Annotated[Length, Field(description="how long it takes to forget where it was")] = 600.0

    def begin(self, name: str, chance: Random) -> Step:
        mean, swing, over_us = self.mean + self.own(chance), self.swing, self.over * SECOND_US
        finish, gauss, exp, sqrt = self.finish(chance), chance.gauss, math.exp, math.sqrt
        departure, before = gauss(0.0, 1.0), 0
        passed, kept, fresh = -1, 0.0, 1.0  # most devices have one interval: what follows from it is kept

        def step(time: int, readings: Readings) -> None:
            nonlocal departure, before, passed, kept, fresh
            if before:
                if time - before != passed:
                    passed = time - before
                    kept = exp(-passed / over_us)
                    fresh = sqrt(1.0 - kept * kept)
                departure = departure * kept + fresh * gauss(0.0, 1.0)
            before = time
            readings[name] = finish(mean + swing * departure)

        return step


class Noise(Numeric):
    """Values that know nothing of each other."""

    word: ClassVar = "noise"

    mean: Annotated[Number, Field(description="the middle of the values")]
    noise: Annotated[Positive, Field(description="standard deviation from there")]

    def begin(self, name: str, chance: Random) -> Step:
        mean, finish = self.mean + self.own(chance), self.finish(chance)

        def step(_time: int, readings: Readings) -> None:
            readings[name] = finish(mean)

        return step
