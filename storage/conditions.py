"""Filters as SQL. Knows the names that match by their ids, and never which segment is asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from storage.filters import Filters, device_pattern, is_wild_device, is_wild_topic, topic_matcher

Row = tuple[Any, ...]
"""A row as the driver gives it."""

Ask = Callable[[str, Mapping[str, object]], list[Row]]
"""Runs one question in SQL and gives all rows."""


MOST_GLOBS = 100
"""SQLite takes an expression of a thousand parts at most, and each costs time for every name."""


class Conditions:
    """Filters as conditions on `e`, the events of a segment, and `m`, their messages, with the values they name."""

    def __init__(self, ask: Ask, filters: Filters) -> None:
        self.filters = filters
        self.devices = devices_picked(ask, filters.devices)
        self._picked = {
            "devices": self.devices,
            "topics": topics_picked(ask, filters.topics),
            "kinds": kinds_picked(ask, filters.kinds),
        }
        self.of_messages = "".join(f" AND {clause}" for clause in self._of_messages())
        self.of_events = "".join(f" AND {clause}" for clause in self._of_events())
        self.clauses = self.of_messages + self.of_events
        self.values: dict[str, object] = {
            "since": filters.since,
            "until": filters.until,
            "readings": as_json(filters.readings),
        }
        self.values |= {f"reading_{n}": f"{quoted(name)}:" for n, name in enumerate(filters.readings)}

    def refresh(self) -> None:
        """Take in the names that have come to the catalog."""
        for name, picked in self._picked.items():
            if picked is not None:
                picked.refresh()
                self.values[name] = picked.bytes

    @property
    def impossible(self) -> bool:
        """Whether no event so far can match."""
        return any(picked is not None and not picked.ids for picked in self._picked.values())

    def _of_messages(self) -> Iterator[str]:
        if self.filters.clock == "received":
            yield from self._times("m.received_at")
        yield from self._named("topics", "m.topic_id")

    def _of_events(self) -> Iterator[str]:
        filters = self.filters
        if filters.clock == "observed":
            yield from self._times("e.observed_at")
        yield from self._named("devices", "e.device_id")
        yield from self._named("kinds", "e.kind_id")
        if filters.readings:
            # `"name":` tells, unless there are escaped quotes; parsing each event's JSON would cost ten times as much.
            marks = " OR ".join(f"instr(e.readings, :reading_{n})" for n in range(len(filters.readings)))
            yield f"({marks})"
            yield (
                "(NOT instr(e.readings, '\\') OR EXISTS (SELECT 1 FROM json_each(e.readings) AS reading"
                " WHERE reading.key IN (SELECT value FROM json_each(:readings))))"
            )

    def _times(self, column: str) -> Iterator[str]:
        if self.filters.since is not None:
            yield f"{column} >= :since"
        if self.filters.until is not None:
            yield f"{column} < :until"

    def _named(self, name: str, id: str) -> Iterator[str]:
        # One byte for each id costs 60 ns a row, however many names match; a list of 10 000 ids costs 10 ms a page.
        if self._picked[name] is not None:
            yield f"substr(:{name}, {id}, 1) = x'01'"


class Picked:
    """The names in one table of the catalog that match: their ids, and bytes with a 1 in the place of each id."""

    def __init__(
        self,
        ask: Ask,
        table: str,
        names: Sequence[str],
        globs: Sequence[str] = (),
        matches: Callable[[str], bool] | None = None,
    ) -> None:
        self.ids: list[int] = []
        self.bytes = b""
        self._ask = ask
        self._matches = matches
        self._seen = 0
        globs = globs if len(globs) <= MOST_GLOBS else ("*",)
        self._values: dict[str, object] = {f"glob_{n}": glob for n, glob in enumerate(globs)}
        self._values["names"] = as_json(names)
        column = {"devices": "device", "topics": "topic", "words": "word"}[table]
        self._last_id = f"SELECT ifnull(max(id), 0) FROM {table}"
        self._named = f"SELECT id FROM {table} WHERE {column} IN (SELECT value FROM json_each(:names))"
        # GLOB sees a name only up to a NUL: what has one is left to the pattern.
        ways = [f"instr({column}, char(0))", *(f"{column} GLOB :glob_{n}" for n in range(len(globs)))]
        self._matching = f"SELECT id, {column} FROM {table} WHERE id > :seen AND ({' OR '.join(ways)})"

    @property
    def of(self) -> int:
        """How many names there were to pick from."""
        return self._seen

    def refresh(self) -> None:
        """Look at what has been entered since the last time."""
        last = self._ask(self._last_id, {})[0][0]
        if last == self._seen:
            return
        ids = {*self.ids, *(id for (id,) in self._ask(self._named, self._values))}
        if self._matches is not None:
            names = self._ask(self._matching, {**self._values, "seen": self._seen})
            ids.update(id for id, name in names if self._matches(name))
        self._seen = last
        if len(ids) > len(self.ids):
            self.ids = sorted(ids)
            self.bytes = marked(self.ids)


def devices_picked(ask: Ask, devices: Sequence[str]) -> Picked | None:
    if not devices:
        return None
    wild = [device for device in devices if is_wild_device(device)]
    names = [device for device in devices if not is_wild_device(device)]
    globs = [device.replace("[", "[[]") for device in wild]
    patterns = [device_pattern(device) for device in wild]
    return Picked(ask, "devices", names, globs, lambda name: any(pattern.fullmatch(name) for pattern in patterns))


def topics_picked(ask: Ask, topics: Sequence[str]) -> Picked | None:
    if not topics:
        return None
    wild = [topic for topic in topics if is_wild_topic(topic)]
    names = [topic for topic in topics if not is_wild_topic(topic)]
    return Picked(ask, "topics", names, [topic_glob(topic) for topic in wild], topic_matcher(wild))


def kinds_picked(ask: Ask, kinds: Sequence[str]) -> Picked | None:
    return Picked(ask, "words", kinds) if kinds else None


def topic_glob(topic: str) -> str:
    """What GLOB can tell of a topic filter: it lets through all that match, and some others."""
    literal = "".join(f"[{character}]" if character in "*?[" else character for character in topic)
    if literal.endswith("/#"):
        literal = literal.removesuffix("/#") + "*"
    return literal.replace("#", "*").replace("+", "*")


def marked(ids: Sequence[int]) -> bytes:
    """Bytes with a 1 in the place of each id, counted from 1 as SQL's substr does."""
    marks = bytearray(max(ids))
    for id in ids:
        marks[id - 1] = 1
    return bytes(marks)


def as_json(values: Sequence[object]) -> str:
    """A list as one value to bind."""
    return msgspec.json.encode(values).decode()


def quoted(text: str) -> str:
    """A text as it stands in JSON."""
    return msgspec.json.encode(text).decode()
