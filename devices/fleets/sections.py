"""The tables of a fleet's file and what each key may be. What they mean together is for the rules to say."""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BeforeValidator, Field, create_model, model_validator

from devices.clock import microseconds
from devices.faults import Faults, Spell
from devices.signals.written import Length, Positive, Share, Table, clock_s, length_s

FASTEST_S = 0.0001
MOST_DEVICES = 1_000_000
MOST_AT_ONCE = 10_000
LONGEST_NAME = 200


def seed_of(value: object) -> str:
    if isinstance(value, int | str) and not isinstance(value, bool) and value != "":
        return f"{value}"
    raise ValueError('a seed is any whole number, such as 7, or a text in quotes, such as "seven"')


def start_us(value: object) -> int:
    """Microseconds since the epoch; a time without an offset is UTC, a date alone its midnight."""
    written = value.isoformat() if isinstance(value, date) else value  # TOML has dates and times of its own
    try:
        moment = datetime.fromisoformat(written) if isinstance(written, str) else None
    except ValueError:
        moment = None
    if moment is not None and 1970 < moment.year <= 9000:
        return microseconds(moment)
    raise ValueError("a start looks like 2026-11-22T09:00:00Z, after 1970 and before the year 9000")


def span_s(value: object) -> tuple[int, int]:
    """From and to, in seconds after midnight."""
    begin, dash, end = value.partition("-") if isinstance(value, str) else ("", "", "")
    if not dash:
        raise ValueError('hours look like "06:00-22:00"')
    span = clock_s(begin), clock_s(end)
    if span[0] == span[1]:
        raise ValueError(f'{value} is no time at all, so these hours never open: write "00:00-24:00" for the whole day')
    return span


def known_zone(value: object) -> str:
    try:
        ZoneInfo(str(value))
    except (KeyError, ValueError, OSError):
        raise ValueError(f'{str(value)[:60]!r} is no zone: write one as in "Europe/Berlin" or "UTC"') from None
    return str(value)


def fit_name(value: str) -> str:
    """Of a group or a device: what a topic and a client id can hold."""
    if not value.strip() or len(value.encode("utf-8", "replace")) > LONGEST_NAME:
        raise ValueError(f"a name has a letter at least, and at most {LONGEST_NAME} bytes")
    if bad := next((letter for letter in value if letter in "+#{}" or not letter.isprintable()), None):
        raise ValueError(f"a name cannot hold {bad!r}: topics are made of it")
    return value


def zero_or_length_s(value: object) -> float:
    return 0.0 if value in (0, "0", "0s") and not isinstance(value, bool) else length_s(value)


Name = Annotated[str, AfterValidator(fit_name)]
Span = Annotated[tuple[int, int], BeforeValidator(span_s)]


class FleetSection(Table):
    """The top of the file. Its groups are read one by one, so that each fault in them is found."""

    seed: Annotated[str | None, BeforeValidator(seed_of)] = None
    start: Annotated[int | None, BeforeValidator(start_us)] = None
    duration: Length | None = None
    groups: list[Any] = Field([])


class BurstsSection(Table):
    every: Annotated[Length, Field(description="how often they come")]
    count: Annotated[int, Field(ge=2, le=MOST_AT_ONCE, description="how many samples come at once")]


class SpellSection(Table):
    """Something that lasts, and begins every so often on average or at set times after the start."""

    every: Length | None = None
    at: tuple[Annotated[float, BeforeValidator(zero_or_length_s)], ...] = Field((), strict=False)
    lasts: Annotated[float, BeforeValidator(zero_or_length_s)] = Field(0.0, alias="for")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        self.spell()
        return self

    def spell(self) -> Spell:
        """Raises ValueError."""
        return Spell(every_s=self.every, at_s=self.at, for_s=self.lasts)


def _fault(key: str) -> Any:
    """What a field of Faults may be in the file."""
    if "Spell" in str(Faults.__annotations__[key]):
        return SpellSection | None, None
    if key.endswith("_s"):
        return Annotated[float, BeforeValidator(zero_or_length_s)], 0.0
    return (Positive if key.endswith("_ppm") else Share), 0.0


FaultsSection: type[Table] = create_model(
    "FaultsSection", __base__=Table, **{key: _fault(key) for key in Faults.__struct_fields__}
)
"""All that there are faults for."""


def faults(section: Table) -> Faults:
    """Raises ValueError."""
    values: dict[str, Any] = {key: getattr(section, key) for key in section.model_fields_set}
    for key, value in values.items():
        if isinstance(value, SpellSection):
            values[key] = value.spell()
    return Faults(**values)


class GroupSection(Table):
    """One [[groups]]. Its signals and faults are read one by one."""

    name: Annotated[Name, Field(description="what the group is called")]
    prefix: Name | None = None
    count: Annotated[int | None, Field(ge=1, le=MOST_DEVICES)] = None
    names: Annotated[tuple[Name, ...] | None, Field(strict=False, min_length=1, max_length=MOST_DEVICES)] = None
    dialect: str = "json"
    every: Length | None = None
    rate: Annotated[float | None, Field(gt=0, le=1 / FASTEST_S, allow_inf_nan=False)] = None
    jitter: Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)] = 0.0
    hours: Annotated[tuple[Span, ...] | None, Field(strict=False)] = None
    zone: Annotated[str | None, BeforeValidator(known_zone)] = None
    bursts: BurstsSection | None = None
    qos: Annotated[int, Field(ge=0, le=2)] = 1
    retain: bool = False
    will: bool = True
    birth: bool = True
    session: Literal["clean", "persistent"] = "clean"
    receipts: bool = False
    topic: str | None = None
    model: str | None = None
    signals: dict[str, Any] | None = None
    faults: dict[str, Any] | None = None

    @property
    def every_s(self) -> float | None:
        return 1 / self.rate if self.rate else self.every
