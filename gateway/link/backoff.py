"""How long to wait before the next try: longer each time, never the same, up to a cap."""

from __future__ import annotations


def delay_s(failures: int, *, first_s: float, cap_s: float, chance: float) -> float:
    """The wait after so many failures in a row (1, 2, …): half of it certain, half by `chance` (0 to 1).

    The chance keeps a thousand clients from coming back in the same moment.
    """
    ceiling_s = min(cap_s, first_s * 2.0 ** min(failures - 1, 30))
    return ceiling_s * (1 + chance) / 2
