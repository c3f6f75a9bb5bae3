"""Claims about times: what people may write, and that microseconds come back as they were."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.times import SECOND, Seconds, iso, micros, parse_duration, parse_time

NOW = datetime(2026, 11, 22, 9, 30, tzinfo=UTC)
MIDNIGHT = datetime(2026, 11, 22, tzinfo=UTC)


@pytest.fixture(autouse=True)
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine one hour east of Greenwich in winter, and two in summer."""
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-11-22T09:00:00Z", MIDNIGHT + timedelta(hours=9)),
        ("2026-11-22T09:00:00.123456Z", MIDNIGHT + timedelta(hours=9, microseconds=123456)),
        ("2026-11-22T09:00:00+02:00", MIDNIGHT + timedelta(hours=7)),
        ("2026-11-22 09:00", MIDNIGHT + timedelta(hours=8)),
        ("2026-11-22", MIDNIGHT - timedelta(hours=1)),
        ("2026-07-22", datetime(2026, 7, 21, 22, tzinfo=UTC)),
        ("1969-12-31T23:59:59Z", datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC)),
        ("2h", NOW - timedelta(hours=2)),
        ("2H ago", NOW - timedelta(hours=2)),
        ("1h30m", NOW - timedelta(minutes=90)),
        ("15m", NOW - timedelta(minutes=15)),
        ("30s", NOW - timedelta(seconds=30)),
        ("3d", NOW - timedelta(days=3)),
        ("2 weeks, 1 day ago", NOW - timedelta(days=15)),
        ("0.5s", NOW - timedelta(milliseconds=500)),
        (" now ", NOW),
        ("today", MIDNIGHT - timedelta(hours=1)),
        ("Yesterday", MIDNIGHT - timedelta(hours=25)),
        ("08:15", NOW - timedelta(hours=2, minutes=15)),
        ("23:00", MIDNIGHT - timedelta(hours=2)),
        ("yesterday at 8:15", MIDNIGHT - timedelta(hours=16, minutes=45)),
        ("an hour ago", NOW - timedelta(hours=1)),
        ("20 Nov 2026 10:00 UTC", MIDNIGHT - timedelta(hours=38)),
    ],
)
def test_a_time_may_be_written_in_many_ways(text: str, moment: datetime) -> None:
    assert parse_time(text, NOW) == micros(moment)


@pytest.mark.parametrize(
    "text",
    ["", "garbage", "2 parsecs", "2026-13-01", "25:99", "99999999999999 weeks", "-2h", "h", "12", "1795345200", "8:99"],
)
def test_what_is_no_time_is_refused_with_examples(text: str) -> None:
    with pytest.raises(ValueError, match="2026-11-22T09:00:00Z, 2h"):
        parse_time(text, NOW)


def test_now_is_the_time_when_asked() -> None:
    assert abs(parse_time("now") - time.time_ns() // 1000) < 10 * SECOND


def test_a_duration_is_told_from_other_text() -> None:
    assert parse_duration("1h 30m") == 5400
    assert parse_duration("250ms") == 0.25
    assert parse_duration("yesterday") is None
    assert parse_duration("") is None


@given(st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31)))  # noqa: DTZ001  # hypothesis wants naive bounds
def test_iso_gives_back_every_microsecond(moment: datetime) -> None:
    moment = moment.replace(tzinfo=UTC)
    assert iso(micros(moment)) == moment.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def test_years_that_no_calendar_has_are_written_with_a_sign() -> None:
    assert iso(micros(datetime(9999, 12, 31, tzinfo=UTC)) + 86_400 * SECOND) == "+10000-01-01T00:00:00.000000Z"
    assert iso(micros(datetime(1, 1, 1, tzinfo=UTC)) - 1) == "+00000-12-31T23:59:59.999999Z"
    assert iso(-(2**63)) == "-290308-12-21T19:59:05.224192Z"
    assert iso(2**63 - 1) == "+294247-01-10T04:00:54.775807Z"


def test_remembered_seconds_are_bounded() -> None:
    seconds = Seconds()
    for second in range(50_000):
        assert seconds[second].endswith(".")
    assert len(seconds) <= 20_000
