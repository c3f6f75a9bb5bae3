"""Which formats a message's properties and content speak for: the rows by their signatures, but for topics."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from gateway.formats.body import Body
from gateway.formats.format import Format
from storage.event import Properties


class Signatures:
    """The rows of all formats, found by what a message shows."""

    def __init__(self, rows: Sequence[Format]) -> None:
        self._by_property = tuple(row for row in rows if row.content_types or row.user_properties)
        self._by_start = tuple(row for row in rows if row.starts)
        self._starts = tuple(start for row in self._by_start for start in row.starts)
        self._by_key = _by_key(rows)
        self._unsigned = tuple(row for row in rows if not row.signed)
        self.key_sets = [keys for row in rows for keys in row.keys]

    def named_by(self, properties: Properties) -> list[Format]:
        """The rows that a message's MQTT 5 properties call for."""
        if not self._by_property or not (properties.content_type or properties.user):
            return []
        content_type = (properties.content_type or "").partition(";")[0].strip().lower()
        user = {name for name, _ in properties.user}
        return [
            row
            for row in self._by_property
            if content_type in row.content_types or not user.isdisjoint(row.user_properties)
        ]

    def in_content(self, body: Body) -> Iterator[tuple[Format, str]]:
        """The rows that first bytes and JSON keys name, and those that look at all that is no JSON; with the sign."""
        if body.payload.startswith(self._starts):
            yield from ((row, "the first bytes") for row in self._by_start if body.payload.startswith(row.starts))
        if self._by_key:
            yield from ((row, "the keys") for row in self._named_by_keys(_top_keys(body)))
        if self._unsigned and body.document is None:
            yield from ((row, "the content") for row in self._unsigned)

    def _named_by_keys(self, keys: Collection[str]) -> list[Format]:
        found = [entry for key in keys if key in self._by_key for entry in self._by_key[key]]
        fitting = {place: row for named, place, row in found if named.issubset(keys)}
        return [fitting[place] for place in sorted(fitting)]


def _by_key(rows: Sequence[Format]) -> dict[str, list[tuple[frozenset[str], int, Format]]]:
    """Each set of keys under one of its own: of all sets, those are looked at that a document can have at all."""
    found: dict[str, list[tuple[frozenset[str], int, Format]]] = {}
    for place, row in enumerate(rows):
        for named in row.keys:
            found.setdefault(max(sorted(named), key=len), []).append((named, place, row))
    return found


def _top_keys(body: Body) -> Collection[str]:
    """The keys of an object, or of the first object of an array."""
    document = body.document
    first = document[0] if isinstance(document, list) and document else document
    return first.keys() if isinstance(first, dict) else ()
