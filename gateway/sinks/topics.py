"""Under which topic a message of the log is published: a prefix, or a template. Never publishes."""

from __future__ import annotations

import re
from collections.abc import Callable
from string import Formatter

from storage.event import Message, StoredEvent

TopicOf = Callable[[StoredEvent, Message], str]
"""The topic of a message, published for one of its events."""

NAMES = ("topic", "device", "kind", "format")

UNSAFE = re.compile(r"[/+#\x00-\x1f\x7f-\x9f\ufdd0-\ufdef\ufffe\uffff]")
"""What would make other levels of a name, a wildcard, or a topic that brokers refuse (MQTT 5.0, section 1.5.4)."""


class TopicError(ValueError):
    """A template that makes no topics; the text says why."""


def prefixed(prefix: str) -> TopicOf:
    """The topic as it was, after a prefix."""
    return lambda _, message: prefix + message.topic


def templated(template: str) -> TopicOf:
    """A topic with the names of an event in it, as `test/{device}/{kind}`. Raises TopicError.

    `{topic}` is the whole topic, `{1}` its first level; `{device}`, `{kind}` and `{format}` are the event's. Names are
    made fit for one level, and where there is nothing to put, `_` stands.
    """
    parts = parsed(template)
    if [name for _, name in parts] == ["topic"] and not parts[0][0]:
        raise TopicError("would publish under the topics as they were: if that is meant, write --same-topics")

    def topic_of(event: StoredEvent, message: Message) -> str:
        return "".join(literal + ("" if name is None else value(name, event, message)) for literal, name in parts)

    return topic_of


def parsed(template: str) -> list[tuple[str, str | None]]:
    """Literal text, each with the name of what follows it."""
    try:
        fields = list(Formatter().parse(template))
    except ValueError as error:
        raise TopicError(f"{template!r} is no template ({error}): write {{{{ and }}}} for braces") from error
    for literal, name, form, conversion in fields:
        if UNSAFE.sub("", literal) != literal.replace("/", ""):
            raise TopicError(f"{template!r} cannot be a topic: leave out +, # and control characters")
        if name is not None and (form or conversion or not (name in NAMES or re.fullmatch("[1-9][0-9]?", name))):
            raise TopicError(
                f"{{{name}}} is no placeholder: there are {{topic}}, {{device}}, {{kind}}, {{format}}, {{1}}, {{2}} …"
            )
    if not template.strip("/"):
        raise TopicError("an empty template names no topic: write test/{topic}")
    if template[0] == "$":
        raise TopicError(f"{template!r} begins with $: brokers keep such topics to themselves")
    return [(literal, name) for literal, name, _, _ in fields]


def value(name: str, event: StoredEvent, message: Message) -> str:
    if name == "topic":
        return message.topic
    if name.isdecimal():
        levels = message.topic.split("/")
        text = levels[int(name) - 1] if int(name) <= len(levels) else ""
    else:
        text = getattr(event, name)
    return level(text)


def level(text: str) -> str:
    """A name as one level of a topic."""
    return UNSAFE.sub("_", text) or "_"
