"""What each topic leads to: a rule, the rows that its name calls for, its place; remembered within bounds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from gateway.formats.format import Format
from gateway.formats.options import Options
from gateway.formats.rules import Rule
from gateway.formats.topic_tree import TopicTree
from gateway.formats.topics import Place, place

MOST_TOPICS = 32_768
MOST_TOPIC_CHARS = 512
MOST_LEVELS = 200
"""As many as Mosquitto lets through; a topic of more is no format's."""


class Route(NamedTuple):
    rule: Rule | None
    rows: tuple[Format, ...]
    place: Place
    plain: bool
    """Whether nothing is known of the topic beyond its name."""


class Routes(dict[str, Route]):
    """`routes[topic]`, worked out when first asked for; a full memory is emptied, a long topic not remembered."""

    def __init__(self, rows: Sequence[Format], options: Options, rules: Sequence[Rule] = ()) -> None:
        super().__init__()
        self._rows = rows
        self._by_topic = TopicTree[int]()
        for number, row in enumerate(rows):
            for topic_filter in row.topics:
                self._by_topic.add(topic_filter.split("/"), number)
        self._name_chars = options.name_chars
        self._rules = rules

    def __missing__(self, topic: str) -> Route:
        levels = topic.split("/")
        rule = next((rule for rule in self._rules if rule.takes(levels)), None)
        found = set(self._by_topic.find(levels)) if len(levels) <= MOST_LEVELS else ()
        rows = tuple(self._rows[number] for number in sorted(found))
        route = Route(rule, rows, place(topic, self._name_chars), plain=not rule and not rows)
        if len(topic) <= MOST_TOPIC_CHARS:
            if len(self) >= MOST_TOPICS:
                self.clear()
            self[topic] = route
        return route
