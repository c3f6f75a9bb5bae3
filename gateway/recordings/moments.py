"""The times of recordings, by their size and form. Never believes or doubts one."""

from __future__ import annotations

import re
from datetime import datetime

from gateway.formats.times import instant
from storage.times import SECOND, micros


def moment(stamp: object) -> int | None:
    """Microseconds; a text without a zone is the machine's time."""
    if type(stamp) is str:
        stamp = stamp.strip()
        if stamp[-6:-4] in ("Z+", "Z-"):  # mosquitto_sub 2.0 writes 2026-11-22T17:00:12.915212Z+0000
            stamp = f"{stamp[:-6]}{stamp[-5:]}"
        if found := _UNIX.fullmatch(stamp):
            return int(found[1]) * SECOND + int((found[2] or "").ljust(6, "0")[:6])
    if (known := instant(stamp)) is not None:
        return known
    try:
        return micros(datetime.fromisoformat(stamp).astimezone()) if type(stamp) is str else None
    except (ValueError, OverflowError):
        return None


_UNIX = re.compile(r"(\d{9,10})(?:\.(\d{1,9}))?")
