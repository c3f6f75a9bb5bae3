"""Which messages get a receipt, and what it says. Decides only: a receipt leaves with its batch's acknowledgement."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence

import msgspec

from gateway.link import Receipt
from storage.event import Message, Outcome, Rejection

logger = logging.getLogger("amber")

PREFIX = "amber/receipts/"

TOPIC_BYTES = 1_024

TOPIC_LEVELS = 100
"""Mosquitto 2.0 ends the connection of whoever publishes to a topic of more than 200 levels, and that would be us."""

_LAST_OF_PLANES = "".join(chr(plane << 16 | last) for plane in range(17) for last in (0xFFFE, 0xFFFF))
NO_TOPIC = re.compile(f"[+#\0-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef{_LAST_OF_PLANES}]")
"""What no topic may hold (MQTT 5.0, section 4.7), and what a broker may end a connection for (section 1.5.4)."""


class Receipts:
    """The receipts that one gateway gives; what it refuses it counts, and tells once for each reason."""

    def __init__(self, prefix: str = PREFIX, *, enabled: bool = True) -> None:
        self.prefix = prefix
        self.refused = 0
        self._enabled = enabled
        self._told: set[str] = set()

    def asked(self, messages: Sequence[Message]) -> list[Message]:
        """Those of the messages that ask for a receipt."""
        if not self._enabled:
            return []
        return [one for one in messages if one.properties is not None and one.properties.response_topic is not None]

    def answers(self, asked: Sequence[Message], outcome_of: Callable[[Message], Outcome | None]) -> list[Receipt]:
        """The receipts of messages that are stored, in their order; none where `outcome_of` knows no outcome."""
        found = []
        faults: dict[str, str] = {}  # most topics of a batch are few
        for message in asked:
            outcome, properties = outcome_of(message), message.properties
            if outcome is None or properties is None or properties.response_topic is None:
                continue
            topic = properties.response_topic
            if topic not in faults:
                faults[topic] = refusal(topic, self.prefix)
            if faults[topic]:
                self._refuse(message, topic, faults[topic])
            else:
                found.append(Receipt(topic, properties.correlation_data, said(outcome)))
        return found

    def _refuse(self, message: Message, topic: str, fault: str) -> None:
        self.refused += 1
        if fault not in self._told:
            self._told.add(fault)
            logger.warning(
                "no receipt for a message on %r: its Response Topic %r %s; see docs/receipts.md, if it asked for one",
                message.topic[:100],
                topic[:100],
                fault,
            )


def said(outcome: Outcome) -> bytes:
    """A receipt's payload: nothing where the message was read, else why it was not."""
    return msgspec.json.encode({"rejected": outcome.reason}) if isinstance(outcome, Rejection) else b""


def refusal(topic: str, prefix: str) -> str:
    """Why no receipt may go to a topic, as the end of a sentence; empty if one may.

    The gateway publishes what it is asked to: nowhere but under the prefix, and nothing that would cost its connection.
    """
    if not topic.startswith(prefix):
        return f"is not under {prefix!r} (receipts.prefix)"
    if topic == prefix:
        return f"has nothing after {prefix!r}"
    if NO_TOPIC.search(topic):
        return "holds a wildcard or a character that no topic may hold"
    if len(topic.encode()) > TOPIC_BYTES or topic.count("/") >= TOPIC_LEVELS:
        return f"has more than {TOPIC_BYTES} bytes or {TOPIC_LEVELS} levels"
    return ""


def checked_prefix(prefix: str) -> str:
    """The prefix itself. Raises ValueError for one that cannot work."""
    if not prefix.endswith("/") or not prefix.strip("/"):
        raise ValueError("write the beginning of a topic, up to and with a slash, as amber/receipts/")
    if NO_TOPIC.search(prefix) or prefix.startswith("$"):
        raise ValueError("write it without wildcards and control characters, and not beginning with $")
    if len(prefix.encode()) > TOPIC_BYTES // 2 or prefix.count("/") > TOPIC_LEVELS // 2:
        raise ValueError(f"write one of at most {TOPIC_BYTES // 2} bytes and {TOPIC_LEVELS // 2} levels")
    return prefix
