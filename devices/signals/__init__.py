"""What devices measure, as a fleet's file says: each kind of signal is a class, found by its word. Never asks a clock.

All values follow from the device's seed and the times alone, and each signal has chance of its own: adding one leaves
the others as they were.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from random import Random

import msgspec

from devices.models import Readings
from devices.signals.changes import States, Steps
from devices.signals.derived import Counter, Follows
from devices.signals.kind import Kind
from devices.signals.recorded import Csv, Quantiles
from devices.signals.shapes import Constant, Daily, Noise, Walk
from devices.signals.track import Track

KINDS: Mapping[str, type[Kind]] = {
    kind.word: kind for kind in (Constant, Daily, Walk, Noise, Steps, States, Counter, Track, Csv, Follows, Quantiles)
}
"""By what `kind` says in the file."""


class Signals(msgspec.Struct, frozen=True):
    """The signals of a group: gives one device's readings at each of the times given, as a model's signal does."""

    kinds: Mapping[str, Kind]
    """By name; none may need what needs it."""

    def __call__(self, chance: Random, times: Iterable[int]) -> Iterator[Readings]:
        seed = chance.getrandbits(64)
        steps = {name: kind.begin(name, Random(f"{seed}/{name}")) for name, kind in self.kinds.items()}
        order = in_order(self.kinds)
        reckon = [steps[name] for name in order]
        names = [reading for name, kind in self.kinds.items() for reading in kind.gives(name)]
        as_written = [*order] == [*self.kinds]
        for time in times:
            readings: Readings = {}
            for step in reckon:
                step(time, readings)
            yield readings if as_written else {name: readings[name] for name in names}


def in_order(kinds: Mapping[str, Kind]) -> list[str]:
    """The names, each after what it needs, else as they are. Raises ValueError with the names of a circle."""
    makers = {reading: name for name, kind in kinds.items() for reading in kind.gives(name)}
    ordered: list[str] = []
    for name in kinds:
        chain: list[str] = []
        needed: str | None = name
        while needed is not None and needed not in ordered:
            if needed in chain:
                raise ValueError(*chain[chain.index(needed) :])
            chain.append(needed)
            of = kinds[needed].needs()
            needed = None if of is None else makers.get(of)
        ordered += reversed(chain)
    return ordered
