"""Finds which of many topic filters take a topic by walking its levels: the cost does not grow with the filters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")


class _Node(Generic[T]):
    __slots__ = ("beginning", "below", "ends", "goes_on")

    def __init__(self) -> None:
        self.below: dict[str, _Node[T]] = {}
        self.beginning: dict[str, _Node[T]] = {}
        """What is below a level that begins like this."""
        self.ends: list[T] = []
        """What takes a topic that ends here."""
        self.goes_on: list[T] = []
        """What takes one that ends here or goes on."""


class TopicTree(Generic[T]):
    """Filters as `topics.takes` understands them, each with what it stands for."""

    def __init__(self) -> None:
        self._from_start: _Node[T] = _Node()
        self._from_end: _Node[T] = _Node()
        """Of filters that begin with `#/`, the levels backwards."""
        self._anywhere: _Node[T] = _Node()
        """Of those that end with `/#` as well."""

    def add(self, wanted: Sequence[str], what: T) -> None:
        """Add a filter, given as levels."""
        floats = wanted[0] == "#" and len(wanted) > 1
        goes_on = wanted[-1] == "#"
        levels = wanted[floats : len(wanted) - goes_on]
        if floats and not goes_on:
            _add(self._from_end, levels[::-1]).goes_on.append(what)
        else:
            node = _add(self._anywhere if floats else self._from_start, levels)
            (node.goes_on if goes_on else node.ends).append(what)

    def find(self, levels: Sequence[str]) -> Iterator[T]:
        """What the filters stand for that take a topic; in no order, and twice where two of them do."""
        yield from _walk(self._from_start, levels, 0)
        yield from _walk_back(self._from_end, levels, len(levels) - 1)
        for at in range(len(levels)):
            yield from _walk(self._anywhere, levels, at, at)


def _add(node: _Node[T], levels: Sequence[str]) -> _Node[T]:
    for level in levels:
        if level.endswith("*"):
            node = node.beginning.setdefault(level[:-1], _Node())
        else:
            node = node.below.setdefault(level, _Node())
    return node


def _next(node: _Node[T], level: str) -> Iterator[_Node[T]]:
    """Where a level of a topic leads to, but for `+`."""
    below = node.below.get(level)
    if below is not None and level != "+":
        yield below
    for prefix, below in node.beginning.items():
        if level.startswith(prefix):
            yield below


def _walk(node: _Node[T], levels: Sequence[str], at: int, start: int = 0) -> Iterator[T]:
    """The filters from a node on that take the levels from `at` on, where those of the filter began at `start`."""
    if at == len(levels):
        yield from node.ends
        yield from node.goes_on
        return
    # A wildcard that stands first does not take a level that begins with $ (MQTT 5.0, section 4.7.2).
    hidden = at == start and levels[at].startswith("$")
    if not hidden:
        yield from node.goes_on
        if (wild := node.below.get("+")) is not None:
            yield from _walk(wild, levels, at + 1, start)
    for below in _next(node, levels[at]):
        yield from _walk(below, levels, at + 1, start)


def _walk_back(node: _Node[T], levels: Sequence[str], at: int) -> Iterator[T]:
    """The filters whose levels, from the end, are the topic's; one whose first is `+` does not take a `$` there."""
    if at < 0:
        return
    for below in _next(node, levels[at]):
        yield from below.goes_on
        yield from _walk_back(below, levels, at - 1)
    if (wild := node.below.get("+")) is not None:
        if not levels[at].startswith("$"):
            yield from wild.goes_on
        yield from _walk_back(wild, levels, at - 1)
