"""Messages as tests need them: a topic, a payload, and one time of arrival."""

from __future__ import annotations

import msgspec

from storage.event import Message, Outcome, Properties

NOW = 1_795_338_000_000_000
"""2026-11-22T09:00:00Z"""


def message(payload: bytes, topic: str = "devices/d1/telemetry", properties: Properties | None = None) -> Message:
    return Message(topic, payload, qos=1, retain=False, received_at=NOW, properties=properties)


def written(outcome: Outcome) -> str:
    """An outcome to compare: Python takes 1, 1.0 and True for equal, JSON does not."""
    return msgspec.json.encode(outcome, order="sorted").decode()
