"""Reads messages that stand in lines of JSON, one after the other with one memory, without broker or store."""

from __future__ import annotations

import base64
import binascii
import time
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from gateway import outcomes
from gateway.formats import Formats
from storage.errors import AmberError
from storage.event import Message, Properties
from storage.times import parse_time


class LineError(AmberError):
    """A line that is no message; the text names it and what it should be."""


class Mqtt5(msgspec.Struct, frozen=True):
    """The MQTT 5 properties of a line."""

    content_type: str | None = None
    user_properties: dict[str, str] | list[tuple[str, str]] = {}
    response_topic: str | None = None


class Line(msgspec.Struct, frozen=True):
    """A message as a line gives it. A payload that is no text is taken as JSON, as `mosquitto_sub -F %J` writes it."""

    topic: str
    payload: Any = ""
    payload_b64: str | None = None
    mqtt5: Mqtt5 = Mqtt5()
    retain: bool | int = False
    qos: int = 0
    received_at: str | float | None = None
    id: Any = None


_decode = msgspec.json.Decoder(Line).decode
_encode = msgspec.json.Encoder(enc_hook=str).encode


def normalized(lines: Iterable[bytes], formats: Formats) -> Iterator[bytes]:
    """One line of JSON for each that is not blank: its id, events and rejection. Raises LineError."""
    for number, text in enumerate(lines, start=1):
        if not text.strip():
            continue
        try:
            line = _decode(text)
            message = to_message(line)
        except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError) as fault:
            raise LineError(f'line {number}: {fault}; a line is as {{"topic": "a/b", "payload": "21.5"}}') from None
        yield _encode({"id": line.id, **outcomes.outcome(formats.read(message))})


def to_message(line: Line) -> Message:
    """Raises ValueError."""
    user = line.mqtt5.user_properties
    properties = Properties(
        content_type=line.mqtt5.content_type,
        response_topic=line.mqtt5.response_topic,
        user=tuple(user.items() if isinstance(user, dict) else user),
    )
    return Message(
        line.topic,
        _payload(line),
        line.qos,
        bool(line.retain),
        _received_at(line.received_at),
        properties=None if properties == Properties() else properties,
    )


def _payload(line: Line) -> bytes:
    if line.payload_b64 is not None:
        try:
            return base64.b64decode(line.payload_b64, validate=True)
        except binascii.Error as fault:
            raise ValueError(f"payload_b64: {fault}") from None
    if isinstance(line.payload, str):
        return line.payload.encode("utf-8", "surrogatepass")
    return _encode(line.payload)


def _received_at(stamp: str | float | None) -> int:
    if stamp is None:
        return time.time_ns() // 1_000
    return parse_time(stamp) if isinstance(stamp, str) else round(stamp * 1_000_000)
