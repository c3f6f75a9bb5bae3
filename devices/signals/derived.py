"""Signals that are reckoned from others of the same device: what follows one, what counts one up."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from random import Random
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, model_validator

from devices.clock import SECOND_US
from devices.models import Readings
from devices.signals.kind import Numeric, Step
from devices.signals.written import Length, Number, Plain, Positive, written


class Follows(Numeric):
    """`factor` times another, plus `offset`; or a value for each value of a text."""

    word: ClassVar = "follows"

    of: Annotated[str, Field(description="the signal that it follows")]
    factor: Annotated[Number, Field(description="what that is multiplied by")] = 1.0
    offset: Annotated[Number, Field(description="what is added")] = 0.0
    values: dict[str, Plain] = Field(
        {}, description="values for those of a text, or of true and false: { idle = 40, run = 900 }"
    )

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        families = {
            str if isinstance(value, str) else bool if isinstance(value, bool) else float
            for value in self.values.values()
        }
        if len(families) > 1:
            raise ValueError("values are to be all numbers, all texts, or all true and false")
        if self.values and float not in families and (self.spread or self.noise or self.unit):
            raise ValueError("only numbers have a unit, noise or spread: leave them out")
        return self

    def needs(self) -> str:
        return self.of

    def states_of(self) -> Iterable[str]:
        return map(written, self.values.values())

    def gives(self, name: str) -> Mapping[str, type]:
        first = next(iter(self.values.values()), 0.0)
        return {name: type(first)} if isinstance(first, bool | str) else super().gives(name)

    def begin(self, name: str, chance: Random) -> Step:
        of, factor, offset, finish = self.of, self.factor, self.offset + self.own(chance), self.finish(chance)
        values = self.values

        def follow(_time: int, readings: Readings) -> None:
            readings[name] = finish(factor * readings[of] + offset)  # type: ignore[operator]  # checked: not a text

        def look_up(_time: int, readings: Readings) -> None:
            value = values[written(readings[of])]
            readings[name] = value if isinstance(value, bool | str) else finish(factor * value + offset)

        return look_up if values else follow


class Counter(Numeric):
    """Rises and never falls: at a rate, or by what another signal is, summed up over time."""

    word: ClassVar = "counter"

    rate: Annotated[Positive | None, Field(description="how much it rises")] = None
    of: Annotated[str | None, Field(description="the signal that is summed up instead: power for energy")] = None
    per: Annotated[Length, Field(description="in what time: 1h makes watt-hours of watts")] = 1.0
    factor: Annotated[Positive, Field(description="what is added is multiplied by this: 0.001 makes kilo of it")] = 1.0
    start: Annotated[Number, Field(description="what it begins with")] = 0.0
    spread: Annotated[Positive, Field(description="how much further on a device may be at the start")] = 0.0
    modulus: Annotated[float | None, Field(description="where it begins again at 0: 65536", gt=0, le=1e15)] = None
    decimals: Annotated[int, Field(description="digits after the point", ge=0, le=12)] = 3

    @model_validator(mode="after")
    def _rises(self) -> Self:
        if (self.rate is None) == (self.of is None):
            raise ValueError('a counter has either rate = 2.0 or of = "power"')
        if self.noise:
            raise ValueError("a counter has no noise, or it would fall: leave it out")
        return self

    def needs(self) -> str | None:
        return self.of

    def begin(self, name: str, chance: Random) -> Step:
        total, before = self.start + (chance.uniform(0, self.spread) if self.spread else 0.0), 0
        each, rate, of = self.factor / (self.per * SECOND_US), self.rate or 0.0, self.of
        finish, modulus = self.finish(chance), self.modulus
        digits = 0 if self.integer else self.decimals

        def step(time: int, readings: Readings) -> None:
            nonlocal total, before
            if before:
                rise: Any = rate if of is None else readings[of]  # checked: a number
                total += max(0.0, rise) * each * (time - before)
            before = time
            if modulus:
                total %= modulus
                # rounding must not show the modulus itself, which stands for 0
                readings[name] = finish(total) if round(total, digits) < modulus else finish(0.0)
            else:
                readings[name] = finish(total)

        return step
