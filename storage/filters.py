"""What people ask the log for, and when a name matches. Knows nothing of SQL."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cache
from typing import Literal

import msgspec

Clock = Literal["received", "observed"]


class Filters(msgspec.Struct, frozen=True, kw_only=True):
    """Which events: what is empty admits all. Raises ValueError for what can never be asked.

    `devices` are names, `*` and `?` stand for any characters; `topics` are MQTT topic filters. `since` (included) and
    `until` (excluded) are microseconds on the `clock`. Positions are event ids: above `after`, up to `until_position`.
    """

    devices: tuple[str, ...] = ()
    topics: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    readings: tuple[str, ...] = ()
    since: int | None = None
    until: int | None = None
    clock: Clock = "received"
    after: int = 0
    until_position: int | None = None

    def __post_init__(self) -> None:
        for text in (*self.devices, *self.topics, *self.kinds, *self.readings):
            try:
                text.encode()
            except UnicodeEncodeError as error:
                raise ValueError(f"{text!r} is not valid UTF-8") from error
        for topic in self.topics:
            check_topic_filter(topic)
        for number in (self.since, self.until, self.after, self.until_position):
            if number is not None and not -(2**63) <= number < 2**63:
                raise ValueError(f"{number} is no time and no position: it does not fit 64 bits")
        if self.clock not in ("received", "observed"):
            raise ValueError(f"there is no clock {self.clock!r}: take received or observed")


def check_topic_filter(topic: str) -> None:
    """Raises ValueError where MQTT 5.0, section 4.7.1, does not allow the filter."""
    levels = topic.split("/")
    if not topic:
        raise ValueError("a topic filter cannot be empty: write # for all topics")
    if any("#" in level and level != "#" for level in levels) or "#" in levels[:-1]:
        raise ValueError(f"{topic!r} is no topic filter: # stands alone and last, as in devices/#")
    if any("+" in level and level != "+" for level in levels):
        raise ValueError(f"{topic!r} is no topic filter: + stands alone between slashes, as in devices/+/telemetry")


def topic_pattern(topic: str) -> re.Pattern[str]:
    """What the topics that a filter matches match in full; a wildcard that stands first spares `$SYS` (4.7.2)."""
    pattern = "(?![$])" if topic[0] in "+#" else ""
    for number, level in enumerate(topic.split("/")):
        if level == "#":
            pattern += "(?:/.*)?" if number else ".*"
        else:
            pattern += ("/" if number else "") + ("[^/]*" if level == "+" else re.escape(level))
    return re.compile(pattern, re.DOTALL)


def topic_matcher(filters: Sequence[str]) -> Callable[[str], bool]:
    """Whether any of the filters matches a topic; of thousands, those are tried that begin as the topic does."""
    by_beginning: dict[str, list[str]] = {}
    for topic_filter in filters:
        beginning = re.split("[+#]", topic_filter, maxsplit=1)[0].rpartition("/")[0]
        by_beginning.setdefault(beginning, []).append(topic_filter)
    pattern = cache(topic_pattern)

    def matches(topic: str) -> bool:
        ends = [0, *(slash.start() for slash in re.finditer("/", topic)), len(topic)]
        near = (topic_filter for end in ends for topic_filter in by_beginning.get(topic[:end], ()))
        return any(pattern(topic_filter).fullmatch(topic) for topic_filter in near)

    return matches


def device_pattern(device: str) -> re.Pattern[str]:
    """What the names match in full for which `*` and `?` may stand."""
    wild = {"*": ".*", "?": "."}
    return re.compile("".join(wild.get(character) or re.escape(character) for character in device), re.DOTALL)


def is_wild_topic(topic: str) -> bool:
    return "+" in topic or "#" in topic


def is_wild_device(device: str) -> bool:
    return "*" in device or "?" in device
