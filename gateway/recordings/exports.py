"""Exported events, one a line of JSON; the tables bring theirs here too. Never makes an event other than it was."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator

import msgspec

from gateway.formats.families import amber
from gateway.recordings.lines import TOO_LONG, Lines
from gateway.recordings.record import TOPIC_BYTES, Fault, Found, Record, checked_qos
from storage.event import Event, Message, Properties

FAULTS = (msgspec.MsgspecError, ValueError, OverflowError, RecursionError, TypeError)
"""What a line that is no event may raise."""


class EventLine(amber.EventLine, frozen=True, omit_defaults=True, kw_only=True):
    """An event as an export has it, with what it has of its message."""

    id: int
    message_id: int
    received_at: str
    topic: str
    qos: int
    retain: bool
    payload: str | None = None
    payload_b64: str | None = None
    properties: Properties | None = None


class Exported(msgspec.Struct, frozen=True):
    """An event with its number in the file, its message as far as the file has it, and the line of JSON that it is."""

    number: int
    message_id: int
    event: Event
    message: Message
    line: bytes | None
    """None where the message is whole."""


def events(lines: Lines, message_bytes: int) -> Found:
    """The records of an export in JSON lines."""
    return grouped(json_lines(lines), message_bytes)


def json_lines(lines: Lines) -> Iterator[Exported | Fault]:
    for number, text in lines:
        if text is None:
            yield Fault(number, TOO_LONG)
        elif text.strip():
            try:
                yield exported(number, _decode(text), text)
            except FAULTS as fault:
                yield Fault(number, str(fault))


_decode = msgspec.json.Decoder(EventLine).decode
_encode = msgspec.json.Encoder().encode


def exported(number: int, line: EventLine, text: bytes | None = None) -> Exported:
    """Raises ValueError."""
    payload = None
    if line.payload_b64 is not None:
        payload = base64.b64decode(line.payload_b64, validate=True)
    elif line.payload is not None:
        payload = line.payload.encode()
    if not line.topic or len(line.topic.encode()) > TOPIC_BYTES:
        raise ValueError(f"{line.topic[:40]!r} is no topic")
    at = amber.microseconds(line.received_at)
    if not -(2**63) <= at < 2**63:
        raise ValueError(f"received_at: {line.received_at} is no time that can be stored")
    event = amber.event_of(line)
    message = Message(line.topic, payload or b"", checked_qos(line.qos), line.retain, at, properties=line.properties)
    if payload is None:
        return Exported(number, line.message_id, event, message, _encode(line) if text is None else text)
    return Exported(number, line.message_id, event, message, None)


def grouped(found: Iterable[Exported | Fault], message_bytes: int) -> Found:
    """The events of one message, which stand together, as one record; its number is that of the last.

    Where they are its payload themselves and would be too long for one, they become several.
    """
    together: list[Exported] = []
    size = 0
    for one in found:
        if isinstance(one, Fault):
            yield one
            continue
        added = 0 if one.line is None else len(one.line) + 1
        if together and (not same_message(together[-1], one) or size + added > message_bytes + 1):
            yield one_record(together)
            together, size = [], 0
        # Of a payload that comes with each of a message's events, one is kept.
        together.append(one if not together else msgspec.structs.replace(one, message=together[0].message))
        size += added
    if together:
        yield one_record(together)


def same_message(one: Exported, other: Exported) -> bool:
    if (one.line is None) != (other.line is None):
        return False
    return one.message_id == other.message_id and one.message == other.message


def one_record(together: list[Exported]) -> Record:
    """With its events where the message is another; where it is they themselves, their format reads it."""
    first, last = together[0], together[-1]
    if first.line is None:
        return Record(last.number, first.message, [one.event for one in together])
    payload = b"\n".join(one.line for one in together if one.line is not None)
    return Record(last.number, msgspec.structs.replace(first.message, payload=payload, properties=OF_EVENTS))


OF_EVENTS = Properties(content_type=amber.CONTENT_TYPE)
"""Tells that a payload is events, now and when it is read again."""
