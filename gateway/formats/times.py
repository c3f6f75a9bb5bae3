"""Device times: from what a payload gives to microseconds since the epoch, believed only within a window."""

from __future__ import annotations

import re
from datetime import datetime, tzinfo

from gateway.formats.options import Options

_NUMBER = re.compile(r"[0-9]{1,20}(\.[0-9]{1,30})?")


def believed(stamp: object, received_at: int, options: Options) -> int | None:
    """The time a device gave, in microseconds; None where it is no time, or not within the plausible window."""
    observed = stamp if type(stamp) is int and 10**14 <= stamp < 10**17 else instant(stamp, options.zone)
    if observed is None or not options.earliest <= observed <= received_at + options.ahead_us:
        return None
    return observed


def instant(stamp: object, zone: tzinfo | None = None) -> int | None:
    """Microseconds since the epoch of a number, a numeric text or an ISO 8601 text with zone; None for all else."""
    if type(stamp) is int or type(stamp) is float:
        return _scaled(stamp)
    if type(stamp) is not str or not 9 <= len(stamp) <= 40:
        return None
    if stamp[4] != "-" and (numeric := _NUMBER.fullmatch(stamp)):
        return _scaled(float(stamp) if numeric[1] else int(stamp))
    return _from_iso(stamp, zone)


def _scaled(number: float) -> int | None:
    # The magnitude tells the unit: seconds reach 10^11 in the year 5138, milliseconds are 10^11 in 1973.
    size = abs(number)
    if size < 10**11:
        return round(number * 1_000_000)
    if size < 10**14:
        return round(number * 1_000)
    if size < 10**17:
        return round(number)
    if size < 10**20:
        return int(number // 1_000)  # nanoseconds do not fit a float: an int stays exact here
    return None


def _from_iso(text: str, zone: tzinfo | None) -> int | None:
    if len(text) <= 10:  # a date alone is not a time
        return None
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            if zone is None:
                return None
            moment = moment.replace(tzinfo=zone)
        return round(moment.timestamp() * 1_000_000)
    except (ValueError, OverflowError):
        return None
