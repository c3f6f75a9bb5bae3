"""What every kind of signal can do: tell what readings it gives, and reckon them one time after another."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from random import Random
from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator

from devices.models import Readings
from devices.signals.units import Unit
from devices.signals.written import Number, Positive, Table

Step = Callable[[int, Readings], None]
"""Adds its readings of a time (microseconds since the epoch) to those that are there already; times never fall."""


class Kind(Table):
    """One signal of a group, as its table in the file says; the same for all devices of the group.

    A kind is one subclass: its fields are the table's keys, `word` is what `kind` says.
    """

    word: ClassVar[str]

    kind: str

    def gives(self, name: str) -> Mapping[str, type]:
        """The readings that come of it under the name of its table, and what they are: float, int, bool or str."""
        return {name: float}

    def needs(self) -> str | None:
        """The reading it is reckoned from, if any."""
        return None

    def states_of(self) -> Iterable[str]:
        """The values that it may have, as they are written, where they are few."""
        return ()

    def units(self, name: str) -> Mapping[str, str]:
        """UCUM codes by reading name."""
        unit = getattr(self, "unit", None)
        return {name: unit} if unit else {}

    @abstractmethod
    def begin(self, name: str, chance: Random) -> Step:
        """One device's own; `chance` is what makes it differ from others of its group."""


class Numeric(Kind):
    """A signal of numbers: what can be said of each of them."""

    unit: Annotated[Unit | None, Field(description="UCUM code of the unit")] = None
    decimals: Annotated[int, Field(description="digits after the point", ge=0, le=12)] = 2
    integer: Annotated[bool, Field(description="whether only whole numbers come")] = False
    min: Annotated[Number | None, Field(description="no less than this")] = None
    max: Annotated[Number | None, Field(description="no more than this")] = None
    spread: Annotated[Positive, Field(description="how far devices differ, either way")] = 0.0
    noise: Annotated[Positive, Field(description="standard deviation of what is added to each value")] = 0.0

    @model_validator(mode="after")
    def _has_room(self) -> Self:
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min = {self.min:g} is above max = {self.max:g}: exchange them")
        return self

    def gives(self, name: str) -> Mapping[str, type]:
        return {name: int if self.integer else float}

    def own(self, chance: Random) -> float:
        """How far this device is from the others of its group."""
        return chance.uniform(-self.spread, self.spread) if self.spread else 0.0

    def finish(self, chance: Random) -> Callable[[float], float | int]:
        """What becomes of each value: noise, bounds, digits."""
        least, most, noise = self.min, self.max, self.noise
        gauss = chance.gauss if noise else None  # which holds 2.5 kB of chance
        digits = None if self.integer else self.decimals

        def finished(value: float) -> float | int:
            if gauss:
                value += gauss(0.0, noise)
            if least is not None and value < least:
                value = least
            if most is not None and value > most:
                value = most
            return round(value, digits) + 0  # which makes 0.0 of -0.0

        return finished
