"""The sequence numbers seen of one start of a device, as ranges. Never asks the log, and never judges an event."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator

import msgspec

from storage.event import EVENTS_PER_MESSAGE, Location

MOST_RANGES = 1_000
"""Of one start of a device; beyond them the lowest is forgotten, and what comes of it is taken for new."""

FIRST = 0
"""What a counter begins with: seen again, and observed later than all others, it tells of a new round."""

WIDTHS = 8, 16, 32, 64
"""Of counters, in bits."""


class Sequence:
    """Numbers in ranges, of which the highest grows by nearly every event.

    `next` follows the highest number seen. A counter may begin anew without a new start of its device (16 bits are
    soon through): `before` is the highest number of the earlier rounds, -1 where there were none, and `restarts` counts
    these. `at` is when what brought the highest number was observed.
    """

    __slots__ = ("at", "before", "changed", "ends", "next", "restarts", "starts")

    def __init__(self) -> None:
        self.starts: list[int] = []
        self.ends: list[int] = []  # of all ranges but the highest, which ends before `next`
        self.next = -1
        self.at = 0
        self.before = -1
        self.restarts = 0
        self.changed = False

    def __contains__(self, number: int) -> bool:
        n = bisect_right(self.starts, number) - 1
        return n >= 0 and number <= (self.ends[n] if n < len(self.ends) else self.next - 1)

    def is_new(self, number: int, at: int, *, by_device: bool) -> bool:
        """Whether nothing of this number can have come before: not in this round, nor in one before it.

        Where no device's time tells one round from another, earlier rounds do not count.
        """
        if number in self:
            return False
        return number > self.before or not by_device or (number == self.next and at > self.at)

    def add(self, number: int, at: int) -> None:
        """Take a number in; one that is there changes nothing."""
        if number >= self.next:
            self._add_highest(number, at)
        else:
            self._add_between(number)
        if len(self.starts) > MOST_RANGES:
            del self.starts[0], self.ends[0]

    def begin_anew(self, number: int, at: int) -> None:
        """A new round of the counter, with this number."""
        self.before = max(self.before, self.next - 1)
        self.starts, self.ends = [number], []
        self.next, self.at = number + 1, at
        self.restarts += 1

    def take(self, number: int, at: int) -> None:
        """Take in what the log has, in its order: what stands there unmarked was no copy when it came."""
        if number in self:
            if at > self.at and (number == FIRST or is_far_behind(number, self.next)):
                self.begin_anew(number, at)
        else:
            self.add(number, at)

    @property
    def ranges(self) -> list[tuple[int, int]]:
        """First and last of each, the lowest first."""
        return list(zip(self.starts, [*self.ends, self.next - 1], strict=True)) if self.starts else []

    def row(self) -> tuple[str, int, int, int]:
        """As the table has it: ranges, at, before, restarts."""
        return msgspec.json.encode(self.ranges).decode(), self.at, self.before, self.restarts

    @classmethod
    def of_row(cls, ranges: str, at: int, before: int, restarts: int) -> Sequence:
        found = cls()
        pairs = decode_ranges(ranges)
        found.starts = [first for first, _ in pairs]
        found.ends = [last for _, last in pairs[:-1]]
        found.next = pairs[-1][1] + 1 if pairs else -1
        found.at, found.before, found.restarts = at, before, restarts
        return found

    def _add_highest(self, number: int, at: int) -> None:
        if not self.starts:
            self.starts.append(number)
        elif number > self.next:
            self.ends.append(self.next - 1)
            self.starts.append(number)
        self.next, self.at = number + 1, at

    def _add_between(self, number: int) -> None:
        starts, ends = self.starts, self.ends
        n = bisect_right(starts, number)  # of the range behind it
        if number in self:
            return
        follows, precedes = n > 0 and ends[n - 1] == number - 1, starts[n] == number + 1
        if follows and precedes:
            del ends[n - 1], starts[n]
        elif follows:
            ends[n - 1] = number
        elif precedes:
            starts[n] = number
        else:
            starts.insert(n, number)
            ends.insert(n, number)


def is_far_behind(number: int, following: int) -> bool:
    """Whether a counter has more likely begun anew than gone back so far: by half of what the narrowest can count.

    So RFC 1982 compares serial numbers; neither the last of one round nor the first of the other need have come.
    """
    half = min(1 << bits - 1 for bits in WIDTHS if following <= 1 << bits)
    return following - 1 - number >= half


Boot = tuple[int, str]
"""A device's id and which of its starts."""

Row = tuple[int, int, int, int, str]
"""Of an event with a number: id, device, number, time of observation, detail."""


class Stated(msgspec.Struct, frozen=True):
    """What a detail, as it is stored, says of the identity and the content of its event."""

    boot: str | None = None
    source_id: str | None = None
    vendor_type: str | None = None
    via: str | None = None
    units: dict[str, str] = {}
    quality: dict[str, str] = {}
    location: Location | None = None
    conflict: bool = False


def numbered(rows: Iterable[Row]) -> Iterator[tuple[Boot, int, int]]:
    """The numbers that events of the log brought, in its order, and when they were observed.

    Those of one message that share a number are parts of one; a conflict has the number of another.
    """
    last: dict[Boot, tuple[int, int]] = {}
    for id, device_id, number, at, detail in rows:
        stated = decode_stated(detail)
        if not stated.boot or stated.conflict:
            continue
        boot, part = (device_id, stated.boot), (id // EVENTS_PER_MESSAGE, number)
        if last.get(boot) != part:
            yield boot, number, at
        last[boot] = part


MARK = "SELECT value FROM marks WHERE name = 'sequences'"
"""Up to where the table of sequences speaks of the log."""

TAIL = (
    "SELECT id, device_id, seq, observed_at, detail FROM events_{n}"
    " WHERE id > :mark AND seq >= 0 AND instr(detail, '\"boot\":') ORDER BY id"
)
"""What stands behind that."""

decode_stated = msgspec.json.Decoder(Stated).decode
decode_ranges = msgspec.json.Decoder(list[tuple[int, int]]).decode
