"""What to subscribe to: topic filters (MQTT 5.0, section 4.7) with a maximum QoS, as people write them."""

from __future__ import annotations

import re
from typing import NamedTuple

from gateway.link.errors import LinkError

MAX_BYTES = 65_535


class Subscription(NamedTuple):
    """A topic filter and the highest QoS at which its messages may come; 2 takes each as it was published."""

    filter: str
    qos: int = 2

    def __str__(self) -> str:
        return f"{self.filter}:{self.qos}"


def parse_subscription(text: str) -> Subscription:
    """Read `FILTER[:QOS]`, as in `devices/#` or `meters/+/state:1`. Raises LinkError."""
    written = re.fullmatch(r"(.*):([0-9])", text, re.DOTALL)
    subscription = Subscription(written[1], int(written[2])) if written else Subscription(text)
    check_subscription(subscription)
    return subscription


def check_subscription(subscription: tuple[str, int]) -> None:
    """Raise LinkError, in words that say what to write instead, unless a broker may take this subscription."""
    pattern, qos = subscription
    if qos not in (0, 1, 2):
        raise LinkError(f"subscription {pattern!r}: QoS {qos} does not exist; write {pattern}:0, :1 or :2")
    problem = _problem_of_filter(pattern)
    if problem:
        raise LinkError(f"subscription {pattern!r}: {problem}")


def _problem_of_filter(pattern: str) -> str:
    """What is wrong with a topic filter, and what to write instead; empty if nothing is."""
    try:
        size_bytes = len(pattern.encode())
    except UnicodeEncodeError:
        return "it is not valid UTF-8; write the topic as the devices publish it"
    if "\0" in pattern:
        return "it contains the character NUL, which no topic may contain; leave it out"
    if size_bytes > MAX_BYTES:
        return f"it has {size_bytes} bytes of at most {MAX_BYTES}; subscribe to a shorter one with + or #"
    if pattern.startswith("$share/"):
        return _problem_of_shared_filter(pattern)
    return _problem_of_levels(pattern)


def _problem_of_shared_filter(pattern: str) -> str:
    """The same for a shared subscription (MQTT 5.0, section 4.8.2)."""
    _, _, rest = pattern.partition("/")
    group, slash, shared = rest.partition("/")
    if not group or not slash or "+" in group or "#" in group:
        return "a shared subscription is written $share/GROUP/FILTER, with no + or # in GROUP"
    return _problem_of_levels(shared)


def _problem_of_levels(pattern: str) -> str:
    if not pattern:
        return "it is empty; write # for every topic"
    *before, last = pattern.split("/")
    if any("#" in level for level in before) or ("#" in last and last != "#"):
        return "# must be the whole last level, as in devices/#"
    if any("+" in level and level != "+" for level in (*before, last)):
        return "+ must be a whole level, as in devices/+/state"
    return ""
