"""Lines of topic and payload, as `mosquitto_sub -v` writes them, behind a time or without."""

from __future__ import annotations

import re

from gateway.recordings.messages import is_utf8
from gateway.recordings.moments import moment
from gateway.recordings.record import checked_topic, now
from storage.event import Message


def mosquitto_message(text: bytes, *, timed: bool) -> Message:
    """`topic payload`, behind a time where all lines have one. Raises ValueError."""
    at = None
    if timed:
        found = leading_time(text)
        if found is None:
            raise ValueError(f"does not begin with a time as the first lines do: {BROKEN}")
        at, text = found
    topic, space, payload = text.partition(b" ")
    if not space:
        raise ValueError(f"is no topic with a payload behind a space: {BROKEN}")
    if payload == b"(null)" and not timed:  # what -v writes for an empty one
        payload = b""
    return plain_message(checked_topic(topic.decode()), payload, now() if at is None else at)


BROKEN = "if it goes on with a payload that had a line break, the message before it is cut"


def plain_message(topic: str, payload: bytes, at: int) -> Message:
    return Message(topic, payload, 0, retain=False, received_at=at)


def is_spoken(text: bytes) -> bool:
    """Whether a line may be a topic and its payload, after a time or without."""
    rest = text if (found := leading_time(text)) is None else found[1]
    topic, space, _ = rest.partition(b" ")
    return bool(space and topic) and not any(mark < 32 or mark in b'+#"{}' for mark in topic) and is_utf8(topic)


def leading_time(text: bytes) -> tuple[int, bytes] | None:
    """The time that a line begins with, as %U and %I write it, and what is behind it."""
    stamp, space, rest = text.partition(b" ")
    if not space or not 10 <= len(stamp) <= 40 or not _STAMP.match(stamp):
        return None
    at = moment(stamp.decode("ascii", "replace"))
    return None if at is None else (at, rest)


_STAMP = re.compile(rb"\d{10}(\.\d+)?$|\d{4}-\d{2}-\d{2}T\d{2}:\d{2}")
