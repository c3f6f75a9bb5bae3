"""Which of two clocks tells when something was observed. Never asks what time it is now."""

from __future__ import annotations

CLOCKS_SET_SINCE_US = 978_307_200_000_000
"""2001: a device's clock that nobody has set starts in 1970, in 1980 (GPS) or in 2000."""


def believed(observed_at: int, received_at: int) -> int:
    """Microseconds on the device's clock; where that cannot be right, on the gateway's.

    Nothing is observed after it was received: one device in the year 2100 would hold up a replay, and stand as the
    newest, until then.
    """
    if observed_at >= CLOCKS_SET_SINCE_US:
        return min(observed_at, received_at)
    return received_at
