"""What a format is: a row of the registry and the reader behind it. Every format file imports this one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import msgspec

from gateway.formats.body import Body, Json
from storage.event import Event, Message

Reader = Callable[[Message, Body], Sequence[Event] | None]
"""Gives the events of a message, or None where the message is not of its format; raises Unreadable."""


class Lesson(msgspec.Struct, frozen=True, kw_only=True):
    """What a message teaches its format for later ones, which find `value` under `key`; None is to be forgotten.

    `topics` are filters of earlier messages that can be read better now. They are read again when `value` is another
    than before: the rejections of this format among them, the latest of its provisional events, and when `key` is new,
    the latest others as well.
    """

    key: str
    value: Json
    topics: tuple[str, ...] = ()


Teacher = Callable[[Message, Body], Iterable[Lesson]]
"""Gives the lessons of a message that the format's reader has read."""


class Unreadable(Exception):
    """The message is of this format and broken; the text says how, in words for a person."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Format:
    """One row: a name, where the format may apply, and its reader, which confirms by the payload's shape.

    A message that fits any of the signatures is shown to the reader. A row without a signature is shown
    every message that is neither a JSON object nor a JSON array.
    """

    name: str
    read: Reader
    content_types: tuple[str, ...] = ()
    """MQTT 5 content types, in lower case and without parameters: `application/senml+json`."""
    user_properties: tuple[str, ...] = ()
    """Names of MQTT 5 user properties that mark the format: `ce_specversion`."""
    topics: tuple[str, ...] = ()
    """MQTT topic filters: `tele/+/SENSOR`; behind a leading `#/`, wherever in the topic: `#/tele/+/SENSOR`."""
    starts: tuple[bytes, ...] = ()
    """First bytes of the payload; never `{` or `[`, which name no format."""
    keys: tuple[frozenset[str], ...] = ()
    """Sets of keys; a JSON object, or the first of an array, that has all of one set may be of the format."""
    teach: Teacher | None = None
    """What the format's messages say of those to come."""
    learned_topics: bool = False
    """Whether a lesson's key may be a topic, whose messages are then shown to the reader."""
    read_before: bool = False
    """Whether its events were read out of other messages before, and what a rule says of reading was done then."""

    def __post_init__(self) -> None:
        if any(start[:1] in (b"", b"{", b"[") for start in self.starts):
            raise ValueError(f"format {self.name}: a JSON payload is told by keys, not by its first byte")

    @property
    def signed(self) -> bool:
        return bool(
            self.content_types or self.user_properties or self.topics or self.starts or self.keys or self.learned_topics
        )


def named(name: str | None, body: Body) -> str:
    """A name out of `body.place`; Unreadable where the topic's is over the limit."""
    if name is None:
        raise Unreadable(f"the topic's names are longer than {body.options.name_chars} characters (name_chars)")
    return name
