"""The arguments of the Python API: the command line's words, and Python's own, as filters. Asks no store."""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Literal

from storage.api.event import moment
from storage.filters import Clock, Filters
from storage.kinds import check_kinds
from storage.times import SECOND, micros, parse_duration, parse_time

Names = str | Iterable[str]
"""One name or several."""

Moment = str | datetime | int
"""A time: the command line's words, a datetime (the machine's local time where it has no zone), or microseconds."""

Span = str | timedelta
"""A duration: `10s`, `5m`, `1h30m`, or a timedelta."""


def filters_of(
    *,
    device: Names | None = None,
    topic: Names | None = None,
    kind: Names | None = None,
    reading: Names | None = None,
    since: Moment | None = None,
    until: Moment | None = None,
    clock: Clock = "received",
    after: int = 0,
) -> Filters:
    """Raises ValueError or TypeError, with a sentence that says what to write."""
    begin, end = moment_us(since, "since"), moment_us(until, "until")
    if begin is not None and end is not None and begin >= end:
        raise ValueError("until must be later than since")
    kinds = names(kind, "kind")
    check_kinds(kinds)
    return Filters(
        devices=names(device, "device"),
        topics=names(topic, "topic"),
        kinds=kinds,
        readings=names(reading, "reading"),
        since=begin,
        until=end,
        clock=clock,
        after=count(after, "after", least=0),
    )


def names(given: Names | None, argument: str) -> tuple[str, ...]:
    if given is None:
        return ()
    found = (given,) if isinstance(given, str) or not isinstance(given, Iterable) else tuple(given)
    for name in found:
        if not isinstance(name, str):
            raise TypeError(f"{argument} is a name or several, not {name!r}")
    if not found:  # filters admit all where they name none, which is hardly what an empty list means
        raise ValueError(f"{argument} names none: leave it out for all")
    return found


def moment_us(given: Moment | None, argument: str) -> int | None:
    """Microseconds UTC."""
    if isinstance(given, datetime):
        try:
            return micros(given.astimezone(UTC))
        except (OverflowError, ValueError) as error:  # the first and the last day there is; pandas' NaT
            raise ValueError(f"{argument} is {given}: that is no time in UTC") from error
    if isinstance(given, str):
        try:
            return parse_time(given)
        except ValueError as error:
            raise ValueError(f"{argument}: {error}") from error
    if given is None or type(given) is int:
        return given
    raise TypeError(f"{argument} is {given!r}: write '2h', '2026-11-22T09:00Z', a datetime, or integer microseconds")


def span_us(given: Span, argument: str) -> int:
    """Microseconds, above 0."""
    if isinstance(given, timedelta):
        span = given // timedelta(microseconds=1)
    elif isinstance(given, str):
        seconds = parse_duration(given)
        if seconds is None:
            raise ValueError(f"{argument}: {given!r} is no duration: write 500ms, 10s or 5m")
        span = round(min(seconds * SECOND, 2.0**63))
    else:
        raise TypeError(f"{argument} is {given!r}: write '10s', '5m', or a timedelta")
    if not 0 < span < 2**63:
        raise ValueError(f"{argument} is {given}: it must be above 0, and shorter than 290 000 years")
    return span


def speed_of(given: float | Literal["max"]) -> float:
    """How many times as fast as it happened; `inf` for as fast as possible."""
    if given == "max":
        return math.inf
    if isinstance(given, bool) or not isinstance(given, int | float):
        raise TypeError(f"speed is {given!r}: write 1, 10, 0.5 or 'max'")
    if not given > 0:
        raise ValueError(f"speed is {given}: write 1, 10, 0.5 or 'max'")
    return float(given)


def start_of(given: Moment | Literal["beginning", "now"]) -> Literal["beginning", "now"] | int | datetime:
    """Where a consumer begins; an integer is a position, not a time."""
    if given == "beginning":
        return "beginning"
    if given == "now":
        return "now"
    if isinstance(given, str):
        try:
            return moment(parse_time(given))
        except ValueError:
            raise ValueError(f"start: {given!r} is {NO_START}") from None
    if isinstance(given, bool) or not isinstance(given, int | datetime):
        raise TypeError(f"start is {given!r}, {NO_START}")
    return given


NO_START = "no place in the log: write 'beginning', 'now', a position, or a time as '2h' or '2026-11-22T09:00Z'"


def limit_of(given: int | None) -> int | None:
    return None if given is None else count(given, "limit", least=1, remedy=", or leave it out for all")


def count(given: int, argument: str, *, least: int, remedy: str = "") -> int:
    if isinstance(given, bool) or not isinstance(given, int):
        raise TypeError(f"{argument} is {given!r}: give a whole number{remedy}")
    if given < least:
        raise ValueError(f"{argument} is {given}: give {least} or more{remedy}")
    return given
