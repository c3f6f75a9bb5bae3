"""What holds of every outcome, whatever the message was: it can be stored, and a person can read why not."""

from __future__ import annotations

import msgspec

from storage.event import Message, Outcome, Rejection

LEAST, MOST = -(2**63), 2**63 - 1


def assert_storable(outcome: Outcome, sent: Message) -> None:
    if isinstance(outcome, Rejection):
        assert 10 < len(outcome.reason) < 300
        assert "\n" not in outcome.reason
        assert "failed on this message" not in outcome.reason, f"a fault of ours: {outcome} {sent.payload[:200]!r}"
        outcome.reason.encode()
        return
    for event in outcome:
        assert event.device
        assert "\0" not in event.device
        assert LEAST <= event.observed_at <= MOST
        assert event.seq is None or 0 <= event.seq <= MOST
        assert event.from_device or event.observed_at == sent.received_at
        assert all("\0" not in word for word in (*event.readings, *event.readings.values()) if isinstance(word, str))
        assert set(event.units or {}) <= set(event.readings)
        assert {type(value) for value in event.readings.values()} <= {bool, int, float, str, type(None)}
        assert msgspec.json.decode(msgspec.json.encode(event))["readings"] == event.readings
        [float(value) for value in event.readings.values() if type(value) is int]  # or OverflowError
