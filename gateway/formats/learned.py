"""What earlier messages taught the formats, by format and key. Bounded: what was learned longest ago is forgotten."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import msgspec

from gateway.formats.body import Json
from gateway.formats.format import Lesson
from gateway.formats.options import Options
from gateway.formats.topics import is_filter
from storage.event import Fact, Lessons, Message, Reread

RECENT_MESSAGES = 10_000
"""How far back a first lesson reaches: what arrives at the same connect as a retained birth, in whatever order."""

NOTHING = Lessons()

_encode = msgspec.json.encode


class Learned:
    """Facts in memory, and those of them that the log has yet to keep."""

    def __init__(self, options: Options, facts: Iterable[Fact] = ()) -> None:
        self._options = options
        self._values: dict[tuple[str, str], Json] = {}
        self._texts: dict[tuple[str, str], str] = {}
        self._keys: Counter[str] = Counter()
        self._chars = 0
        self._facts: list[Fact] = []
        self._rereads: list[tuple[Message | None, str, Reread]] = []
        self.remember(facts)

    def remember(self, facts: Iterable[Fact]) -> None:
        """Take in what is known already."""
        for fact in facts:
            if fact.value is not None:
                self._forget((fact.format, fact.key))
                self._keep((fact.format, fact.key), fact.value)

    def get(self, format: str, key: str) -> Json:
        """What a format was taught under a key, None where nothing; to be read, not changed."""
        return self._values.get((format, key))

    def has(self, format: str, key: str) -> bool:
        return (format, key) in self._values

    def speaks_of(self, key: str) -> bool:
        """Whether any format was taught something under a key."""
        return key in self._keys

    def learn(self, format: str, lesson: Lesson, teacher: Message | None = None) -> bool:
        """Take a lesson in; False where it is known already."""
        at = (format, lesson.key)
        before = self._texts.get(at)
        text = None if lesson.value is None else _encode(lesson.value).decode()
        if text is not None and len(text) > self._options.fact_bytes // 4:
            text = None  # one birth must not push out all the others; what the one before it said holds no more
        if text == before or len(lesson.key) > self._options.name_chars:
            return False
        self._forget(at)
        if text is not None:
            self._keep(at, text)
        self._facts.append(Fact(format, lesson.key, text))
        if text is not None and lesson.topics:
            topics = tuple(filter(is_filter, lesson.topics))
            self._rereads.append((teacher, lesson.key, Reread(format, topics, RECENT_MESSAGES, before is not None)))
        self._make_room()
        return True

    def take(self, batch: Sequence[Message] = ()) -> Lessons:
        """What was learned since the last call, when the messages of `batch` were read."""
        if not self._facts:
            return NOTHING
        lessons = Lessons(tuple(self._facts), _joined(self._rereads, batch))
        self._facts.clear()
        self._rereads.clear()
        return lessons

    def _keep(self, at: tuple[str, str], text: str) -> None:
        self._values[at] = msgspec.json.decode(text)
        self._texts[at] = text
        self._keys[at[1]] += 1
        self._chars += len(text) + len(at[1])

    def _forget(self, at: tuple[str, str]) -> None:
        text = self._texts.pop(at, None)
        if text is not None:
            del self._values[at]
            self._keys[at[1]] -= 1
            if not self._keys[at[1]]:
                del self._keys[at[1]]
            self._chars -= len(text) + len(at[1])

    def _make_room(self) -> None:
        while self._texts and (len(self._texts) > self._options.facts or self._chars > self._options.fact_bytes):
            oldest = next(iter(self._texts))
            self._forget(oldest)
            self._facts.append(Fact(*oldest, None))


def _joined(taught: Sequence[tuple[Message | None, str, Reread]], batch: Sequence[Message]) -> tuple[Reread, ...]:
    """One reread for all that a batch taught a format: a thousand discovery messages are one walk over the log.

    What was read between two lessons of one batch stays as it is read again, unless both are about the same thing.
    """
    times = Counter((one.format, key) for _, key, one in taught)
    places = {id(message): at for at, message in enumerate(batch)} if taught else {}
    groups: dict[tuple[str, bool, int | None], tuple[int, dict[str, None]]] = {}
    for teacher, key, one in taught:
        place = places.get(id(teacher), len(batch))
        group = one.format, one.provisional_only, None if times[one.format, key] == 1 else place
        before, topics = groups.get(group, (0, {}))
        topics.update(dict.fromkeys(one.topics))
        groups[group] = max(before, place), topics
    return tuple(
        Reread(format, tuple(topics), RECENT_MESSAGES, provisional_only, before)
        for (format, provisional_only, _), (before, topics) in groups.items()
        if topics
    )
