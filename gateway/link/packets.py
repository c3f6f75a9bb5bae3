"""Bytes into messages: cuts what arrives on one connection into MQTT 5 packets. Pure; never touches a socket."""

from __future__ import annotations

from collections.abc import Iterator

import mqtt5
from mqtt5 import PublishPacket

from storage.event import Message, Properties

PUBLISH = 3

_WITHOUT_PROPERTIES = (5, 7, 7, 7)
"""Bytes of a PUBLISH beside topic and payload, by QoS, while its remaining length takes one byte (below 128):
header, remaining length, topic length, packet id, and the 0 that says there are no properties."""


class MalformedPacket(Exception):
    """What no MQTT 5 broker may send. The connection that brought it cannot go on."""


class PacketStream:
    """The bytes of one connection, in whatever chunks they arrive. `salvaged` is the first message that had to be."""

    def __init__(self) -> None:
        self.parsed_bytes = 0
        self.salvaged: Message | None = None
        self._rest = bytearray()
        self._needed_bytes = 0
        self._wary = False

    def feed(self, chunk: bytes, messages: list[Message], received_at: int) -> Iterator[mqtt5.Packet]:
        """Append each whole PUBLISH to `messages`, yield every other whole packet, and keep the beginning of the next.

        A PUBLISH that the codec refuses is read by `salvage`. Raises MalformedPacket on anything else it refuses.
        """
        data: bytes | bytearray = chunk
        if self._rest:
            self._rest += chunk
            # A packet of 50 MB comes in hundreds of chunks; trying each time would copy it hundreds of times.
            if len(self._rest) < self._needed_bytes:
                return
            data, self._rest = self._rest, bytearray()
        view = memoryview(data)
        read, add = mqtt5.read, messages.append
        position, end = 0, len(view)
        while position < end:
            try:
                if self._wary:
                    check_topic(view[position:])
                packet, size = read(view[position:])
            except BaseException as refusal:  # invalid UTF-8 makes a PanicException, which is no Exception
                if not _is_of_codec(refusal):
                    raise
                # Each panic writes ten lines to stderr: one per connection is enough.
                self._wary = self._wary or not isinstance(refusal, Exception)
                start = view[position:]
                size = size_of(start)
                if len(start) < size:
                    self._rest, self._needed_bytes = bytearray(start), size
                    break
                add(salvage(start[:size], received_at, str(refusal)))
                self.salvaged = self.salvaged or messages[-1]
            else:
                if type(packet) is PublishPacket:
                    head, topic, payload = view[position], packet.topic, packet.payload
                    qos = head >> 1 & 3
                    # Seven attributes at 15 ns each, only to learn that there is nothing: the size tells it for any
                    # packet below 16 KB with an ASCII topic; all others are asked.
                    bare = size - len(topic) - len(payload) - (size > 129) <= _WITHOUT_PROPERTIES[qos]
                    add(
                        Message(
                            topic,
                            payload,
                            qos,
                            head & 1 == 1,
                            received_at,
                            packet.packet_id or 0,
                            head & 8 == 8,
                            None if bare else properties_of(packet),
                        )
                    )
                else:
                    yield packet
            position += size
        self.parsed_bytes += position


def check_topic(start: memoryview) -> None:
    """Raise UnicodeDecodeError, as the codec should, if here begins a PUBLISH whose topic is not UTF-8."""
    if start[0] >> 4 == PUBLISH:
        topic_start = _end_of_number(start, 1) + 2
        str(start[topic_start : topic_start + int.from_bytes(start[topic_start - 2 : topic_start])], "utf-8")


def properties_of(packet: PublishPacket) -> Properties | None:
    """The properties of one PUBLISH; None if it has none that anybody needs."""
    properties = Properties(
        payload_is_text=packet.payload_format_indicator == 1,
        expiry_s=packet.message_expiry_interval,
        content_type=packet.content_type,
        response_topic=packet.response_topic,
        correlation_data=packet.correlation_data,
        user=tuple(packet.user_properties),
    )
    return None if properties == _NO_PROPERTIES else properties


def size_of(start: memoryview) -> int:
    """How many bytes the packet that begins here has (MQTT 5.0, section 2.1.4).

    At least so many, while the remaining length itself is incomplete. Raises MalformedPacket if that has more than
    four bytes.
    """
    length = 0
    for index in range(1, min(len(start), 5)):
        length |= (start[index] & 0x7F) << 7 * (index - 1)
        if start[index] < 0x80:
            return 1 + index + length
    if len(start) >= 5:
        raise MalformedPacket("a remaining length of more than four bytes")
    return len(start) + 1


def salvage(packet: memoryview, received_at: int, refusal: str) -> Message:
    """A PUBLISH that the codec refuses: its topic as far as it is UTF-8, its payload whole, without its properties.

    So it is kept and acknowledged like any other: refused, it would come back for ever. Read after MQTT 5.0,
    section 3.3. Raises MalformedPacket for any other packet, and for a PUBLISH without a packet id to acknowledge.
    """
    head = packet[0]
    qos = head >> 1 & 3
    if head >> 4 != PUBLISH or qos == 3:
        raise MalformedPacket(f"a packet that begins with {head:#04x}: {refusal}")
    body = bytes(packet[_end_of_number(packet, 1) :])
    topic_end = 2 + int.from_bytes(body[:2])
    properties_start = topic_end + (2 if qos else 0)
    if properties_start > len(body):
        raise MalformedPacket(f"a PUBLISH cut short: {refusal}")
    return Message(
        topic=body[2:topic_end].decode(errors="replace"),
        payload=body[_end_of_properties(body, properties_start) :],
        qos=qos,
        retain=head & 1 == 1,
        received_at=received_at,
        packet_id=int.from_bytes(body[topic_end:properties_start]),
        dup=head & 8 == 8,
    )


def _end_of_properties(body: bytes, start: int) -> int:
    """Where the payload begins. Properties that claim more than there is are taken as payload: better too much."""
    length_end = _end_of_number(body, start)
    length = sum((byte & 0x7F) << 7 * index for index, byte in enumerate(body[start:length_end]))
    return length_end + length if length_end + length <= len(body) else start


def _end_of_number(data: bytes | memoryview, start: int) -> int:
    """Where a variable byte integer ends (MQTT 5.0, section 1.5.5)."""
    end = start
    while end < len(data) - 1 and end < start + 3 and data[end] & 0x80:
        end += 1
    return min(end + 1, len(data))


def _is_of_codec(error: BaseException) -> bool:
    """Whether `mqtt5.read` itself raised this. Its panic has no class that could be imported."""
    return isinstance(error, IndexError | ValueError) or type(error).__name__ == "PanicException"


_NO_PROPERTIES = Properties()
