"""How numbers, lengths of time and times of day are written in a fleet's file. Knows nothing of what they are for."""

from __future__ import annotations

import re
from datetime import time
from typing import Annotated, TypeGuard

import pytimeparse2
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from devices.outgoing import Value

LONGEST_S = 1e9
DAY_S = 86_400

_CLOCK = re.compile(r"([01]?\d|2[0-4]):([0-5]\d)(?::([0-5]\d))?")


class Table(BaseModel):
    """A table of the file: a key that is not known is refused, and nothing is taken for what it is not."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def length_s(value: object) -> float:
    """Seconds, of "1.5s", "10m" or a bare number. Raises ValueError."""
    seconds = _seconds(value) if isinstance(value, str) else value
    if not _is_number(seconds) or not 0 < seconds <= LONGEST_S:
        raise ValueError(f"{_quoted(value)} is no length of time: write 30s, 5m or 1h, in quotes")
    return float(seconds)


def clock_s(value: object) -> int:
    """Seconds after midnight, of "15:00". Raises ValueError."""
    if isinstance(value, time):  # TOML has times of day of its own: 15:00:00
        return value.hour * 3600 + value.minute * 60 + value.second
    found = _CLOCK.fullmatch(value.strip()) if isinstance(value, str) else None
    seconds = (
        sum(int(part or 0) * each for part, each in zip(found.groups(), (3600, 60, 1), strict=True)) if found else -1
    )
    if not 0 <= seconds <= DAY_S:
        raise ValueError(f'{_quoted(value)} is no time of day: write "15:00"')
    return seconds


def plain(value: object) -> Value:
    """A number, a text, true or false. Raises ValueError."""
    if isinstance(value, bool | str):
        return value
    if isinstance(value, int | float) and abs(value) <= LARGEST:
        return value
    raise ValueError(f"{_quoted(value)} is no value: write a number, a text in quotes, true or false")


def written(value: object) -> str:
    """As TOML has it, without quotes: true, not True."""
    return str(value).lower() if isinstance(value, bool) else str(value)


LARGEST = 1e15
"""Of the numbers in a file: so that nothing that is reckoned from them runs over."""

Number = Annotated[float, Field(ge=-LARGEST, le=LARGEST, allow_inf_nan=False)]
Positive = Annotated[float, Field(ge=0, le=LARGEST, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Length = Annotated[float, BeforeValidator(length_s)]
Clock = Annotated[int, BeforeValidator(clock_s)]
Plain = Annotated[Value, BeforeValidator(plain)]


def _seconds(text: str) -> object:
    try:
        return float(text.strip().removesuffix("s"))  # the parser knows no 1e+04s
    except ValueError:
        return pytimeparse2.parse(text)


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _quoted(value: object) -> str:
    shown = repr(value) if isinstance(value, str) else str(value)
    return shown if len(shown) <= 60 else f"{shown[:59]}…"
