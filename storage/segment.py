"""What the catalog says of a segment. Apart from the rest, so that readers have it without SQLAlchemy."""

from __future__ import annotations

import msgspec


class Segment(msgspec.Struct, frozen=True):
    """A segment as its row in the catalog has it; `sealed_at` is None while it is written to.

    The bounds and the counts speak of its events and rejections up to `indexed_to`, the end of a message; the bounds
    are None while there is none. `rewritten` counts how often what became of its messages was exchanged;
    `removed` how many of the messages before the next segment's retention has taken out.
    """

    id: int
    first_message_id: int
    first_event_id: int
    indexed_to: int
    received_from: int | None = None
    received_to: int | None = None
    observed_from: int | None = None
    observed_to: int | None = None
    sealed_at: int | None = None
    events: int = 0
    rejections: int = 0
    rewritten: int = 0
    removed: int = 0
