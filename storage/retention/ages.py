"""For how long what is kept: ages by topic and kind, and a size for all. Never looks whether anything is due."""

from __future__ import annotations

import re

import msgspec

from storage.filters import topic_pattern
from storage.names import REMEMBERED_NAMES, Names
from storage.snapshot import OpenLog
from storage.times import parse_duration

DAY_US = 86_400_000_000

FOREVER = 1 << 62
"""Microseconds that nothing outlives."""


class RetentionRule(msgspec.Struct, frozen=True):
    """How long events on some topics, of some kind, are kept; None is any topic, any kind, for ever."""

    topic: str | None = None
    kind: str | None = None
    max_age_us: int | None = None


class RetentionOptions(msgspec.Struct, frozen=True):
    """What is kept for how long: of the rules the first that takes an event counts, else the general age.

    Ages are of the time of receipt; None is for ever. `max_bytes` bounds the store whatever the rules say.
    """

    max_age_us: int | None = None
    max_bytes: int | None = None
    rules: tuple[RetentionRule, ...] = ()
    past_consumers: bool = False
    minutes_age_us: int | None = 400 * DAY_US
    hours_age_us: int | None = None

    @property
    def drops(self) -> bool:
        """Whether anything of the log ever goes."""
        ages = self.max_age_us, *(rule.max_age_us for rule in self.rules)
        return self.max_bytes is not None or any(age is not None for age in ages)


def age_us(text: str) -> int | None:
    """Microseconds of `90d`; None for `forever`, and for what is as good as that. Raises ValueError."""
    seconds = None if text == "forever" else parse_duration(text)
    if seconds is None and text != "forever":
        raise ValueError(f"{text!r} is no age: write it as in 90d or 12h, or forever")
    return None if seconds is None or seconds * 1e6 >= FOREVER else int(seconds * 1e6)


def parse_size(text: str) -> int | None:
    """Bytes of `10GB`, `1.5 TiB`, `500 MB`, each a power of 1024; None where the text is no size."""
    found = _SIZE.fullmatch(text.strip().lower())
    return found and min(int(float(found[1]) * 1024 ** _PREFIXES.index(found[2])), FOREVER)


class Ages:
    """How long a message is kept, by its topic and the kinds of its events: as long as any of them is."""

    def __init__(self, log: OpenLog, options: RetentionOptions) -> None:
        self.general = _age(options.max_age_us)
        self.longest = max([self.general, *(_age(rule.max_age_us) for rule in options.rules)])
        ages = {self.general, *(_age(rule.max_age_us) for rule in options.rules)}
        self.finite = sorted(age for age in ages if age < FOREVER)
        self.by_kind = any(rule.kind is not None for rule in options.rules)
        self._rules = [
            (None if rule.topic is None else topic_pattern(rule.topic), rule.kind, _age(rule.max_age_us))
            for rule in options.rules
        ]
        self._topics = Names(log, "topics", "topic", str)
        self._words = Names(log, "words", "word", str)
        self._known: dict[tuple[int, str | None], int] = {}

    def of(self, topic_id: int, kinds: str | None) -> int:
        """`kinds` are the ids of the kinds of its events, with commas between; None where it has none."""
        key = topic_id, kinds
        age = self._known.get(key)
        if age is None:
            if len(self._known) >= REMEMBERED_NAMES:
                self._known.clear()
            words = [None] if kinds is None else [self._words[int(id)] for id in kinds.split(",")]
            topic = self._topics[topic_id] if self._rules else ""
            age = self._known[key] = max(self._of(topic, word) for word in words)
        return age

    def _of(self, topic: str, kind: str | None) -> int:
        for pattern, wanted, age in self._rules:
            if wanted in (None, kind) and (pattern is None or pattern.fullmatch(topic)):
                return age
        return self.general


def _age(max_age_us: int | None) -> int:
    return FOREVER if max_age_us is None else max_age_us


_SIZE = re.compile(r"(\d{1,12}(?:\.\d{1,12})?)\s*([kmgt])i?b?")
_PREFIXES = " kmgt"
