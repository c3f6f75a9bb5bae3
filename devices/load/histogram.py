"""Durations by the million in a few kilobytes: counts in steps of under a hundredth. Keeps no single one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

_BITS = 7
"""Steps in each doubling, as a power of two: 128 make every step less than 1 % wide, two significant digits."""


class Histogram:
    """Counts of whole microseconds."""

    def __init__(self) -> None:
        self.count = 0
        self.longest_us = 0
        self._counts = [0] * (64 << _BITS)

    def note(self, durations_us: Sequence[int]) -> None:
        """Take durations in; what lies before its time, by a clock's grain, counts as none."""
        if not durations_us:
            return
        counts = self._counts
        for us in durations_us:
            shift = us.bit_length() - _BITS - 1
            if shift > 0:
                counts[(shift << _BITS) + (us >> shift)] += 1
            else:
                counts[max(0, us)] += 1
        self.count += len(durations_us)
        longest_us = max(durations_us)
        self.longest_us = max(self.longest_us, longest_us)

    def percentile_us(self, share: float) -> int:
        """What this share of them did not take longer than, right to two digits; 0 where there are none."""
        wanted, seen = share * self.count, 0
        for step, count in enumerate(self._counts):
            seen += count
            if count and seen >= wanted:
                return min(_end_us(step), self.longest_us)
        return 0

    def shares(self, bounds_us: Iterable[int]) -> list[float]:
        """Which share of them lies up to each bound and above the one before, to the width of a step."""
        found, steps, step, seen = [], len(self._counts), 0, 0
        for bound in bounds_us:
            while step < steps and _end_us(step) <= bound:
                seen += self._counts[step]
                step += 1
            found.append(seen / self.count if self.count else 0.0)
        return [share - before for share, before in zip(found, [0.0, *found], strict=False)]


def _end_us(step: int) -> int:
    """The longest duration that falls into a step."""
    shift = max(0, (step >> _BITS) - 1)
    return ((step - (shift << _BITS) + 1) << shift) - 1
