"""An outcome as JSON for people and programs: what `amber normalize` and `amber explain` print."""

from __future__ import annotations

from typing import Any

import msgspec

from storage.event import Event, Outcome, Rejection
from storage.times import iso


def outcome(outcome: Outcome) -> dict[str, Any]:
    """`events` and `rejection`; the keys of an event are those of the log's events, without what storing adds."""
    if isinstance(outcome, Rejection):
        return {"events": [], "rejection": {"reason": outcome.reason, "format": outcome.format}}
    return {"events": [event(one) for one in outcome], "rejection": None}


def event(event: Event) -> dict[str, Any]:
    return {
        "device": event.device,
        "kind": event.kind,
        "observed_at": iso(event.observed_at),
        "time_source": "device" if event.from_device else "gateway",
        "format": event.format,
        "seq": event.seq,
        "readings": event.readings,
        "units": event.units or {},
        **({} if event.detail is None else msgspec.to_builtins(event.detail)),
    }
