"""Times as people write them into microseconds and back. Keeps no time zone but the machine's own."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from datetime import time as clock

SECOND = 1_000_000
"""Microseconds: the unit of every time inside."""

REMEMBERED_SECONDS = 20_000

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_CALENDAR_CYCLE_S = 146_097 * 86_400
"""The calendar repeats itself after 400 years."""

_UNITS = {
    **dict.fromkeys(("ms", "msec", "millisecond", "milliseconds"), 0.001),
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), 1),
    **dict.fromkeys(("m", "min", "mins", "minute", "minutes"), 60),
    **dict.fromkeys(("h", "hr", "hrs", "hour", "hours"), 3_600),
    **dict.fromkeys(("d", "day", "days"), 86_400),
    **dict.fromkeys(("w", "wk", "week", "weeks"), 604_800),
}
_CLOCK = re.compile(r"\d{2}:\d{2}(:\d{2})?")
_WORD = re.compile(r"[^\W\d_]{3}")
_ISO_DATE = re.compile(r"\d{4}-\d")
_TERM = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]+)[\s,]*")


def parse_time(text: str, now: datetime | None = None) -> int:
    """Microseconds UTC of ISO 8601, `2h`, `now`, `yesterday`, `08:15` or English words. Raises ValueError.

    A time without an offset is the machine's local time; a day without a time begins at midnight.
    """
    now = now or datetime.now(UTC)
    text = text.strip()
    moment = _iso(text) or _ago(text.lower(), now) or _named(text.lower(), now) or _free(text, now)
    if moment is None:
        raise ValueError(f"{text!r} is no time: write 2026-11-22T09:00:00Z, 2h (two hours ago), now or yesterday")
    return micros(moment)


def parse_duration(text: str) -> float | None:
    """Seconds of `2h`, `1h30m`, `15 minutes`; None where the text is no duration."""
    text = text.strip().lower()
    seconds, end = 0.0, 0
    while end < len(text):
        term = _TERM.match(text, end)
        if term is None or term[2] not in _UNITS:
            return None
        seconds += float(term[1]) * _UNITS[term[2]]
        end = term.end()
    return seconds if text else None


def micros(moment: datetime) -> int:
    """Microseconds of an aware datetime, exactly: its own timestamp() is a float."""
    return (moment - _EPOCH) // timedelta(microseconds=1)


def iso(at: int) -> str:
    """ISO 8601 with microseconds and Z, for any integer."""
    second, micro = divmod(at, SECOND)
    return f"{seconds[second]}{micro:06}Z"


class Seconds(dict[int, str]):
    """The text of a time down to the point, by second: neighbouring events share it."""

    def __missing__(self, second: int) -> str:
        if len(self) >= REMEMBERED_SECONDS:
            self.clear()
        text = self[second] = _second(second)
        return text


seconds = Seconds()


def _second(second: int) -> str:
    try:
        return (_EPOCH + timedelta(seconds=second)).strftime("%Y-%m-%dT%H:%M:%S.").zfill(20)
    except OverflowError:  # a device's clock may say anything: ISO 8601 writes such years with a sign
        cycles, rest = divmod(second, _CALENDAR_CYCLE_S)
        within = _EPOCH + timedelta(seconds=rest)
        return f"{within.year + 400 * cycles:+06d}{within:-%m-%dT%H:%M:%S.}"


def _iso(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except ValueError:
        return None
    except OverflowError:  # year 1 or 9999, and an offset beyond it
        return None


def _ago(text: str, now: datetime) -> datetime | None:
    duration = parse_duration(text.removesuffix("ago"))
    if duration is None:
        return None
    try:
        return now - timedelta(seconds=duration)
    except OverflowError:
        return None


def _named(text: str, now: datetime) -> datetime | None:
    local = now.astimezone()
    if text == "now":
        return now
    if text in ("today", "yesterday"):
        return _local(local.date() - timedelta(days=text == "yesterday"), clock())
    if not _CLOCK.fullmatch(text):
        return None
    try:
        hour = clock.fromisoformat(text)
    except ValueError:
        return None
    return _local(local.date() - timedelta(days=hour > local.time()), hour)  # the last time it was so late


def _local(day: date, hour: clock) -> datetime:
    return datetime.combine(day, hour).astimezone(UTC)


def _free(text: str, now: datetime) -> datetime | None:
    # Of bare numbers it makes something in any case: 13 January of 2026-13-01.
    if not _WORD.search(text) or _ISO_DATE.match(text):
        return None
    import dateparser  # a quarter of a second, which only free text costs

    settings = {
        # It reckons with local times without a zone, and is told that they are UTC: its own search for the machine's
        # zone fails on a TZ like CET-1CEST.
        "RELATIVE_BASE": now.astimezone().replace(tzinfo=None),
        "TIMEZONE": "UTC",
        "PREFER_DATES_FROM": "past",
        "PARSERS": ["relative-time", "absolute-time"],
    }
    moment: datetime | None = dateparser.parse(text, languages=["en"], settings=settings)
    return moment and moment.astimezone(UTC)
