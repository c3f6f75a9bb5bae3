"""Messages in JSON lines, as `mosquitto_sub -F %j` and `amber normalize` have them. Never parses a payload."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any

import msgspec

from gateway.recordings.moments import moment
from gateway.recordings.record import Options, checked_qos, checked_topic, now
from storage.event import Message, Properties


class Mosquitto(msgspec.Struct, frozen=True, rename="kebab"):
    """The properties as `mosquitto_sub -F %j` names them, and as `amber normalize` does."""

    payload_format_indicator: int = 0
    message_expiry_interval: int | None = None
    content_type: str | None = None
    response_topic: str | None = None
    correlation_data: str | None = None
    user_properties: msgspec.Raw = msgspec.Raw(b"{}")


TIMES = ("received_at", "tst", "timestamp", "time", "ts")


class JsonMessages:
    """Reads line after line; the earlier ones tell whether %j or %J wrote what may be of either."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._parsed = False
        """Whether the newest line that tells is one of %J, which writes a payload as the JSON that it is."""

    def message(self, text: bytes) -> Message:
        """Raises ValueError and its like."""
        options = self._options
        try:
            line = decode_object(text if is_utf8(text) else repaired(text))
        except msgspec.ValidationError:  # JSON, but no object
            if options.topic is None:
                raise
            line = {}
        has_payload = "payload" in line or "payload_b64" in line or "topic" in line
        topic = options.topic if "topic" not in line else decoded(line, "topic", str)
        if topic is None:
            raise ValueError("has no topic: give --topic for those")
        return Message(
            checked_topic(topic),
            self._payload(line) if has_payload else text,
            checked_qos(decoded(line, "qos", int) if "qos" in line else 0),
            bool(decoded(line, "retain", bool | int)) if "retain" in line else False,
            received_at(line, options.time_field),
            properties=properties_of(line),
        )

    def _payload(self, line: Mapping[str, msgspec.Raw]) -> bytes:
        """What stands as text, in base64 or hex, or else as JSON: of that each byte is kept, as a number says more so.

        Raises ValueError where it is shorter than it was.
        """
        size = decoded(line, "payloadlen", int) if "payloadlen" in line else None
        raw = bytes(line.get("payload", b"null"))
        binary = binary_of(line)
        if binary is not None or (raw == b"null" and (not size or "payload" not in line)):
            return whole(binary or b"", size)
        if not raw.startswith(b'"'):
            self._parsed = self._parsed or size is not None
            return raw  # %J writes JSON anew, in another length
        text: bytes = decoded(line, "payload", str).encode()
        # "payloadlen":3,"payload":"a" is what %J writes of "a" with its quotes, and %j of a, a zero byte and another.
        if self._parsed and size == len(raw):
            return raw
        self._parsed = self._parsed and size != len(text)
        return whole(text, size)


decode_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def is_utf8(text: bytes) -> bool:
    try:
        return text.isascii() or text.decode() is not None
    except UnicodeDecodeError:
        return False


def repaired(text: bytes) -> bytes:
    """The line with its payload in base64: `mosquitto_sub -F %j` writes as it is also what is no UTF-8."""
    found = json.loads(text.decode("utf-8", "surrogateescape"))
    payload = found.pop("payload", None) if isinstance(found, dict) else None
    if not isinstance(payload, str):
        raise ValueError("is no UTF-8")  # noqa: TRY004
    content = payload.encode("utf-8", "surrogateescape")
    return json.dumps({**found, "payload_b64": base64.b64encode(content).decode()}).encode()


def decoded(line: Mapping[str, msgspec.Raw], key: str, type: Any) -> Any:  # noqa: A002
    try:
        return msgspec.json.decode(line[key], type=type)
    except msgspec.ValidationError as fault:
        raise ValueError(f"{key}: {fault}") from None


def binary_of(line: Mapping[str, msgspec.Raw]) -> bytes | None:
    """A payload in base64 or hex; None where there is none."""
    if "payload_b64" in line:
        try:
            return base64.b64decode(decoded(line, "payload_b64", str), validate=True)
        except binascii.Error as fault:
            raise ValueError(f"payload_b64: {fault}") from None
    if "payload_hex" in line and "payload" not in line:
        try:
            return binascii.unhexlify(decoded(line, "payload_hex", str))
        except ValueError as fault:
            raise ValueError(f"payload_hex: {fault}") from None
    return None


def whole(payload: bytes, size: int | None) -> bytes:
    """The payload, if it is as long as it was. Raises ValueError."""
    if size is not None and size != len(payload):
        raise ValueError(
            f"its payload had {size} bytes and has {len(payload)}: mosquitto_sub cuts it at a zero byte; record it "
            'with -F and %x, as "payload_hex":"%x"'
        )
    return payload


def received_at(line: Mapping[str, msgspec.Raw], time_field: str | None) -> int:
    """When a message was recorded, in microseconds; now where it does not say."""
    key = time_field or next((key for key in TIMES if key in line), None)
    if key is None:
        return now()
    if key not in line:
        raise ValueError(f"has no time in {key}")
    stamp = decoded(line, key, str | int | float | None)
    if stamp is None and time_field is None:
        return now()
    found = moment(stamp)
    if found is None or not -(2**63) <= found < 2**63:
        raise ValueError(f"{key}: {str(stamp)[:40]!r} is no time")
    return found


def properties_of(line: Mapping[str, msgspec.Raw]) -> Properties | None:
    """Of what `mosquitto_sub` writes, `amber normalize` takes, or an export has."""
    raw = line.get("properties") or line.get("mqtt5")
    if raw is None or raw == b"null":
        return None
    names = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
    if not names.keys().isdisjoint(OURS):
        known = msgspec.json.decode(raw, type=Properties)
    else:
        named = {key.replace("_", "-"): value for key, value in names.items()}
        told = msgspec.json.decode(msgspec.json.encode(named), type=Mosquitto)
        data = told.correlation_data
        known = Properties(
            payload_is_text=told.payload_format_indicator == 1,
            expiry_s=told.message_expiry_interval,
            content_type=told.content_type,
            response_topic=told.response_topic,
            correlation_data=None if data is None else data.encode(),
            user=pairs(told.user_properties),
        )
    return None if known == Properties() else known


OURS = {"payload_is_text", "expiry_s", "user"}


def pairs(raw: msgspec.Raw) -> tuple[tuple[str, str], ...]:
    """Names and values: of an object, which may have a name twice, or of an array of them."""
    found = json.loads(bytes(raw), object_pairs_hook=lambda members: members)
    return msgspec.convert(found, tuple[tuple[str, str], ...])
