"""What each topic leads to: the rows that its name calls for, and the place it gives; remembered within bounds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from gateway.formats.format import Format
from gateway.formats.options import Options
from gateway.formats.topics import Place, place, takes

MOST_TOPICS = 32_768
MOST_TOPIC_CHARS = 512


class Route(NamedTuple):
    rows: tuple[Format, ...]
    place: Place


class Routes(dict[str, Route]):
    """`routes[topic]`, worked out when first asked for; a full memory is emptied, a long topic not remembered."""

    def __init__(self, rows: Sequence[Format], options: Options) -> None:
        super().__init__()
        self._by_topic = [(topic_filter.split("/"), row) for row in rows for topic_filter in row.topics]
        self._name_chars = options.name_chars

    def __missing__(self, topic: str) -> Route:
        levels = topic.split("/")
        rows = tuple(dict.fromkeys(row for wanted, row in self._by_topic if takes(wanted, levels)))
        route = Route(rows, place(topic, self._name_chars))
        if len(topic) <= MOST_TOPIC_CHARS:
            if len(self) >= MOST_TOPICS:
                self.clear()
            self[topic] = route
        return route
