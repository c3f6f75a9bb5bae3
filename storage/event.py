"""The data that crosses the rooms: messages, events and rejections. Plain facts, no behaviour.

Times are integers of microseconds since the epoch, UTC.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

EVENTS_PER_MESSAGE = 10_000
"""An event's id is its message's id times this, plus its place in the message: read again, a message may give more
events than it did, and no other event moves for it."""

Value = bool | int | float | str | None
"""What a reading may be. `None`: the device named the reading and gave no usable value."""

Kind = Literal[
    "measurement",
    "state",
    "availability",
    "command",
    "discovery",
    "location",
    "event",
    "birth",
    "death",
    "other",
]


class Properties(msgspec.Struct, frozen=True, omit_defaults=True):
    """The MQTT 5 properties of one PUBLISH, as far as it had any (MQTT 5.0, section 3.3.2.3)."""

    payload_is_text: bool = False
    expiry_s: int | None = None
    content_type: str | None = None
    response_topic: str | None = None
    correlation_data: bytes | None = None
    user: tuple[tuple[str, str], ...] = ()


class Message(msgspec.Struct, frozen=True, gc=False):
    """One MQTT PUBLISH as received. `packet_id` is 0 at QoS 0."""

    topic: str
    payload: bytes
    qos: int
    retain: bool
    received_at: int
    packet_id: int = 0
    dup: bool = False
    properties: Properties | None = None


Quality = Literal["bad", "uncertain", "stale"]
"""What is wrong with a reading: its sender calls it bad (a sentinel, NaN, an error), does not vouch for it, or had it
from before. A reading of None that is not called bad is missing."""

UnitSource = Literal["message", "format", "learned", "rule"]
"""Where a unit is from: stated by the message, defined by its format, announced by an earlier message, or a rule."""


class Location(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where the device was: degrees of WGS 84, metres."""

    latitude: float
    longitude: float
    altitude_m: float | None = None
    accuracy_m: float | None = None


class Detail(msgspec.Struct, frozen=True, omit_defaults=True):
    """What only some messages say of an event."""

    via: str | None = None
    """The gateway or bridge through which the device was heard."""
    vendor_type: str | None = None
    """What the sender calls this sort of message."""
    boot: str | None = None
    """Which start of the device `seq` counts from."""
    source_id: str | None = None
    """The identity that the sender gave to this one event: the id of a CloudEvent."""
    historical: bool = False
    """Sent later than observed, out of a buffer."""
    provisional: bool = False
    """Read without the birth or description that says what it means; is read again when that comes."""
    quality: Mapping[str, Quality] = {}
    """By reading name, of those that are not simply good or missing."""
    location: Location | None = None
    conflict: bool = False
    """Another event of the same identity, and of other content, is in the log; the log itself says so."""


class Event(msgspec.Struct, frozen=True, gc=False):
    """One normalized fact. `from_device` says whose clock gave `observed_at`; units are UCUM codes by reading name.

    `unit_sources` says where the units are from that the message itself does not state.
    """

    device: str
    kind: Kind
    format: str
    observed_at: int
    readings: Mapping[str, Value]
    from_device: bool = False
    seq: int | None = None
    units: Mapping[str, str] | None = None
    detail: Detail | None = None
    unit_sources: Mapping[str, UnitSource] | None = None


class Rejection(msgspec.Struct, frozen=True, gc=False):
    """Why no format could read a message; `format` names the one that recognized it and failed, if any did."""

    reason: str
    format: str = ""


Outcome = Sequence[Event] | Rejection
"""What the formats made of one message."""

Entry = tuple[Message, Outcome]
"""What the log keeps of one message."""


class Fact(msgspec.Struct, frozen=True):
    """What a message taught a format, for the messages to come; `value` is JSON, None where it is to be forgotten."""

    format: str
    key: str
    value: str | None


class Reread(msgspec.Struct, frozen=True):
    """Earlier messages that can be read better now, by topic filter.

    Of them the rejections of `format`, however old, and the latest `recent_messages` of the log, whatever they became.
    With `provisional_only`, of these only what was read provisionally: what was learned before it stands. `before`
    counts the messages of the batch that came before the one which taught it: later ones are not meant.
    """

    format: str
    topics: tuple[str, ...]
    recent_messages: int = 0
    provisional_only: bool = False
    before: int = 0


class PendingReread(msgspec.Struct, frozen=True):
    """A reread that is yet to be done, of messages up to the last before the one that taught it."""

    id: int
    reread: Reread
    up_to_message_id: int


class Lessons(msgspec.Struct, frozen=True):
    """What a batch of messages taught, committed with it."""

    facts: Sequence[Fact] = ()
    rereads: Sequence[Reread] = ()


class StoredEvent(msgspec.Struct, frozen=True, gc=False):
    """An event as the log gives it back, with what its message says of it.

    `readings` is the JSON object as stored, and so is `detail`, that of a `Detail`.
    """

    id: int
    message_id: int
    device: str
    kind: str
    observed_at: int
    received_at: int
    from_device: bool
    topic: str
    format: str
    qos: int
    retain: bool
    seq: int | None
    readings: str
    units: Mapping[str, str]
    detail: str | None = None
