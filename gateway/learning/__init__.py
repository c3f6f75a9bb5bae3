"""Makes a fleet of recorded history: the same devices, paces, ranges and dialects, to be simulated.

Stands above all rooms: it reads the store, and tries what it has learned with the devices. It never writes to a store.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from gateway.learning.grouping import LearnedGroup, group
from gateway.learning.observing import observe
from gateway.learning.writing import toml
from storage.errors import AmberError

if TYPE_CHECKING:
    from storage.filters import Filters
    from storage.history import Reader


class NothingToLearn(AmberError):
    """No event is there to learn from; the text says what to ask for instead."""


class Learned(msgspec.Struct, frozen=True):
    """The groups, and the text of the fleet's file."""

    groups: Sequence[LearnedGroup]
    text: str


def learn(reader: Reader, filters: Filters, seed: int) -> Learned:
    """The fleet that the events say. Raises NothingToLearn."""
    groups = group(observe(reader, filters))
    if not groups:
        raise NothingToLearn(
            "no device has two events with readings there: ask for more, with other filters or another --store"
        )
    return Learned(groups, toml(groups, seed))
