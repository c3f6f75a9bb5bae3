"""What is found in a file: records, and faults where there is none. Plain data, and the checks that all share."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Literal

import msgspec

from storage.event import Event, Message

FormatName = Literal["auto", "events", "messages", "mosquitto"]

TOPIC_BYTES = 65_535


class Unfit(Exception):
    """A file that is none of those that can be read; the text goes on from its name."""


class Options(msgspec.Struct, frozen=True):
    """How to read a file: `topic` is that of messages that give none, `time_field` the key with their time.

    `message_bytes` is the longest payload that is made of the events of one message.
    """

    format: FormatName = "auto"
    topic: str | None = None
    time_field: str | None = None
    message_bytes: int = 1_048_576


class Record(msgspec.Struct, frozen=True):
    """A message with its number in the file; `events` where they were read from it before, None else."""

    number: int
    message: Message
    events: list[Event] | None = None


class Fault(msgspec.Struct, frozen=True):
    """What cannot be read: the number of its line or row, and why."""

    number: int
    reason: str


Found = Iterator[Record | Fault]


def checked_topic(topic: str) -> str:
    if not topic or "+" in topic or "#" in topic or "\0" in topic or len(topic.encode()) > TOPIC_BYTES:
        raise ValueError(f"{topic[:40]!r} is no topic")
    return topic


def checked_qos(qos: int) -> int:
    if not 0 <= qos <= 2:
        raise ValueError(f"{qos} is no QoS")
    return qos


def now() -> int:
    return time.time_ns() // 1_000
