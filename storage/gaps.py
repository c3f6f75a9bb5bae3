"""What is missing of each start of a device, by the numbers that it gave its events. Only reads.

What the table of sequences does not say yet is read from the end of the log: the answer holds all that is committed.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import msgspec

from storage.conditions import Row, as_json, devices_picked
from storage.filters import Filters
from storage.sequences import MARK, TAIL, Boot, Sequence, numbered
from storage.snapshot import OpenLog

DEVICES_A_READ = 1_000


class Gaps(msgspec.Struct, frozen=True):
    """One start of a device; what came before `first` or after `last` cannot be known.

    `events` counts numbers that were seen, from `first` to `last`, and `missing` those that were not. Where a counter
    began anew within one start, `restarts` times, they speak of what came since. `boot` is None, and with it the
    numbers, for the copies and conflicts of events that their sender gave an id instead.
    """

    device: str
    boot: str | None
    first: int | None
    last: int | None
    events: int
    missing: int
    missing_ranges: tuple[tuple[int, int], ...]
    duplicates: int
    conflicts: int
    restarts: int
    last_observed_at: int | None

    @property
    def is_whole(self) -> bool:
        """Whether there is nothing to say of it but that all came, once."""
        return not (self.missing or self.duplicates or self.conflicts)


def gaps(log: OpenLog, filters: Filters) -> Iterator[Gaps]:
    """Every start of every device that told of it, by the device's name and the time of its last event.

    Of the filters devices and `since` apply: that leaves out starts of which nothing was observed since then.
    """
    picked = devices_picked(log.rows, filters.devices)
    after: str | None = None
    while True:
        with log.snapshot():
            if picked is not None:
                picked.refresh()
            named = log.rows(
                _DEVICES, {"after": after, "devices": None if picked is None else picked.bytes, "limit": DEVICES_A_READ}
            )
            found = _of_devices(log, dict(named))
        yield from (one for one in found if _is_since(one, filters.since))
        if len(named) < DEVICES_A_READ:
            return
        after = named[-1][1]


def _of_devices(log: OpenLog, names: dict[int, str]) -> list[Gaps]:
    """Of some devices, by their names in order. Runs inside a snapshot."""
    ids = {"ids": as_json([*names])}
    sequences: dict[Boot, Sequence] = {(id, boot): Sequence.of_row(*row) for id, boot, *row in log.rows(_ROWS, ids)}
    for boot, number, at in numbered(_tail(log)):
        if boot[0] in names:
            sequences.setdefault(boot, Sequence()).take(number, at)
    counts = {(id, boot): (duplicates, conflicts) for id, boot, duplicates, conflicts in log.rows(_COUNTS, ids)}
    found: dict[int, list[Gaps]] = {id: [] for id in names}
    for boot in {**sequences, **counts}:
        sequence = sequences.get(boot, Sequence())
        found[boot[0]].append(_told(names[boot[0]], boot[1], sequence, *counts.get(boot, (0, 0))))
    return [one for of_device in found.values() for one in sorted(of_device, key=_age)]


def _age(one: Gaps) -> tuple[int, str]:
    return one.last_observed_at or 0, one.boot or ""


def _tail(log: OpenLog) -> Iterator[Row]:
    """The events with a number that the table does not know, in the order of the log."""
    marked = log.rows(MARK)
    mark = marked[0][0] if marked else 0
    for segment in log.segments:
        if segment.sealed_at is None or segment.indexed_to > mark:
            yield from log.rows(TAIL.format(n=segment.id), {"mark": mark})


def _told(device: str, boot: str, sequence: Sequence, duplicates: int, conflicts: int) -> Gaps:
    ranges = sequence.ranges
    missing = tuple((end + 1, start - 1) for (_, end), (start, _) in pairwise(ranges))
    return Gaps(
        device=device,
        boot=boot or None,
        first=ranges[0][0] if ranges else None,
        last=ranges[-1][1] if ranges else None,
        events=sum(last - first + 1 for first, last in ranges),
        missing=sum(last - first + 1 for first, last in missing),
        missing_ranges=missing,
        duplicates=duplicates,
        conflicts=conflicts,
        restarts=sequence.restarts,
        last_observed_at=sequence.at if ranges else None,
    )


def _is_since(one: Gaps, since: int | None) -> bool:
    return since is None or (one.last_observed_at is not None and one.last_observed_at >= since)


_DEVICES = (
    "SELECT id, device FROM devices WHERE (:after IS NULL OR device > :after)"
    " AND (:devices IS NULL OR substr(:devices, id, 1) = x'01') ORDER BY device LIMIT :limit"
)
_ROWS = (
    "SELECT device_id, boot, ranges, at, before, restarts FROM json_each(:ids) AS wanted"
    " CROSS JOIN sequences ON device_id = wanted.value"
)
_COUNTS = (
    "SELECT device_id, boot, duplicates, conflicts FROM json_each(:ids) AS wanted"
    " CROSS JOIN copy_counts ON device_id = wanted.value"
)
