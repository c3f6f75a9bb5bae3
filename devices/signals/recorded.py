"""Signals after what was once measured: the rows of a CSV file, or the distribution of values."""

from __future__ import annotations

import csv
import itertools
import math
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Annotated, ClassVar, Self

from pydantic import Field, PrivateAttr, ValidationInfo, model_validator

from devices.clock import SECOND_US
from devices.models import Readings
from devices.outgoing import Value
from devices.signals.kind import Numeric, Step
from devices.signals.words import meant
from devices.signals.written import Length, Number, Share, written

MOST_ROWS = 1_000_000


class Csv(Numeric):
    """A column of a file, over and over, from the start of the device on."""

    word: ClassVar = "csv"

    file: Annotated[str, Field(description="path of the file, from where this one is")]
    column: Annotated[str, Field(description="name of the column")]
    time: Annotated[
        str | None, Field(description="name of the column with the times: seconds, or 2026-11-22T09:00:00")
    ] = None
    every: Annotated[Length, Field(description="time from row to row, where there is no column of times")] = 1.0
    interpolate: Annotated[
        bool, Field(description="on a line from value to value; else a value holds till the next")
    ] = False
    decimals: Annotated[int, Field(description="digits after the point", ge=0, le=12)] = 6

    _times_us: list[int] = PrivateAttr(default_factory=list)
    _values: list[Value] = PrivateAttr(default_factory=list)

    @model_validator(mode="after")
    def _readable(self, info: ValidationInfo) -> Self:
        folder = info.context["folder"] if info.context else Path()
        times, texts = _columns(Path(folder) / self.file, self.file, self.column, self.time)
        self._values.extend(_values(texts))
        self._times_us.extend(
            _times_us(times) if self.time else (int(n * self.every * SECOND_US) for n in range(len(texts)))
        )
        if not self._has_numbers() and (self.interpolate or self.noise or self.spread or self.unit or self.integer):
            raise ValueError(f"the column {self.column!r} is not all numbers: no unit, noise, spread or interpolation")
        return self

    def states_of(self) -> Iterable[str]:
        return map(written, dict.fromkeys(self._values))

    def gives(self, name: str) -> Mapping[str, type]:
        return super().gives(name) if self._has_numbers() else {name: type(self._values[0])}

    def begin(self, name: str, chance: Random) -> Step:
        times, values = self._times_us, self._values
        # the last value stands as long as the one before it
        lasts = times[-1] - times[0] + (times[-1] - times[-2] if len(times) > 1 else SECOND_US)
        own, finish, interpolate, start = self.own(chance), self.finish(chance), self.interpolate, 0
        numbers = self._has_numbers()

        def step(time: int, readings: Readings) -> None:
            nonlocal start
            start = start or time
            passed = (time - start) % lasts + times[0]
            place = bisect_right(times, passed) - 1
            value = values[place]
            if not numbers:
                readings[name] = value
                return
            if interpolate and place + 1 < len(times):
                share = (passed - times[place]) / (times[place + 1] - times[place])
                value += (values[place + 1] - value) * share  # type: ignore[operator]  # checked: numbers
            readings[name] = finish(value + own)  # type: ignore[operator]

        return step

    def _has_numbers(self) -> bool:
        return not isinstance(self._values[0], bool | str)


class Quantiles(Numeric):
    """Values whose distribution has these quantiles, on a line between them."""

    word: ClassVar = "quantiles"

    quantiles: Annotated[
        tuple[Number, ...],
        Field(
            description="from the least to the greatest, evenly spaced unless `at` says otherwise",
            min_length=2,
            strict=False,
        ),
    ]
    at: Annotated[
        tuple[Share, ...] | None,
        Field(description="the share of values below each: [0, 0.01, 0.5, 0.99, 1]", strict=False),
    ] = None
    memory: Annotated[
        Share, Field(description="0: each by itself, 1: always the same; neighbours are alike between")
    ] = 0.0
    decimals: Annotated[int, Field(description="digits after the point", ge=0, le=12)] = 6

    @model_validator(mode="after")
    def _rising(self) -> Self:
        if any(before > after for before, after in itertools.pairwise(self.quantiles)):
            raise ValueError("the quantiles are to rise: sort them")
        at = self.at
        if at is not None and (len(at) != len(self.quantiles) or at[0] != 0 or at[-1] != 1):
            raise ValueError(
                f"`at` is to go from 0 to 1 and to have as many entries as quantiles: {len(self.quantiles)}"
            )
        if at is not None and any(before >= after for before, after in itertools.pairwise(at)):
            raise ValueError("`at` is to rise with each entry")
        return self

    def begin(self, name: str, chance: Random) -> Step:
        quantile = _quantile(self.quantiles, self.at)
        own, finish, gauss, erf = self.own(chance), self.finish(chance), chance.gauss, math.erf
        memory, fresh, root = self.memory, math.sqrt(1 - self.memory**2), math.sqrt(0.5)
        hidden = gauss(0.0, 1.0)

        def step(_time: int, readings: Readings) -> None:
            # a Gaussian copula: the hidden value is normal and remembers, and is shown through its distribution
            nonlocal hidden
            readings[name] = finish(quantile(0.5 + 0.5 * erf(hidden * root)) + own)
            hidden = memory * hidden + fresh * gauss(0.0, 1.0)

        return step


def _quantile(values: Sequence[float], at: Sequence[float] | None) -> Callable[[float], float]:
    """The inverse of the distribution."""
    shares = at or [n / (len(values) - 1) for n in range(len(values))]

    def quantile(share: float) -> float:
        place = min(bisect_right(shares, share), len(values) - 1)
        low, high = shares[place - 1], shares[place]
        return values[place - 1] + (values[place] - values[place - 1]) * (share - low) / (high - low)

    return quantile


def _columns(path: Path, name: str, column: str, time: str | None) -> tuple[list[str], list[str]]:
    """The texts of the two columns. Raises ValueError."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file, restval="")
            for wanted in filter(None, (column, time)):
                if wanted not in (rows.fieldnames or ()):
                    raise ValueError(f"{name} has no column {wanted!r}{meant(wanted, rows.fieldnames or ())}")
            found = [(row[time] if time else "", row[column]) for row in itertools.islice(rows, MOST_ROWS + 1)]
    except UnicodeDecodeError:
        raise ValueError(f"{name} is not UTF-8 text") from None
    except OSError as error:
        raise ValueError(f"cannot read {name}: {error.strerror}") from None
    except csv.Error as error:
        raise ValueError(f"{name} is no CSV file: {error}") from None
    if not found:
        raise ValueError(f"{name} has no rows below its header")
    if len(found) > MOST_ROWS:
        raise ValueError(f"{name} has more than {MOST_ROWS} rows: cut it")
    return [time for time, _ in found], [value for _, value in found]


def _values(texts: Sequence[str]) -> list[Value]:
    """All numbers, or all true and false, or texts."""
    try:
        numbers = [float(text) for text in texts]
    except ValueError:
        words = [text.strip().lower() for text in texts]
        return [word == "true" for word in words] if {*words} <= {"true", "false"} else [*texts]
    for row, number in enumerate(numbers, start=2):
        if not math.isfinite(number) or abs(number) > 1e15:
            raise ValueError(f"row {row}: {number:g} is out of bounds")
    return [*numbers]


def _times_us(texts: Sequence[str]) -> list[int]:
    """Microseconds after the first. Raises ValueError."""
    times = [_time_s(text, row) for row, text in enumerate(texts, start=2)]
    for row, (before, after) in enumerate(itertools.pairwise(times), start=3):
        if after <= before:
            raise ValueError(f"row {row}: the times are to rise, and this one does not")
    return [int((time - times[0]) * SECOND_US) for time in times]


def _time_s(text: str, row: int) -> float:
    try:
        return float(text)
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        raise ValueError(f"row {row}: {text[:40]!r} is no time: seconds, or 2026-11-22T09:00:00") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
