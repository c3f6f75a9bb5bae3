"""Cuts what a broker sends into MQTT 5 packets. Pure; never touches a socket."""

from __future__ import annotations

from collections.abc import Iterator

import mqtt5

_PUBLISH = 3


class MalformedPacket(Exception):
    """What no MQTT 5 broker may send. The connection that brought it cannot go on."""


class Illegible(Exception):
    """A PUBLISH that the codec cannot read, as with a property that is not UTF-8; `packet_id` wants an answer."""

    def __init__(self, packet_id: int | None) -> None:
        super().__init__("a PUBLISH that cannot be read")
        self.packet_id = packet_id


class Packets:
    """The bytes of one connection, in whatever chunks they arrive."""

    __slots__ = ("_needed_bytes", "_rest")

    def __init__(self) -> None:
        self._rest = bytearray()
        self._needed_bytes = 0

    def feed(self, chunk: memoryview) -> Iterator[mqtt5.Packet | Illegible]:
        """Each whole packet; the beginning of the next is kept. The chunk is not used after the last of them.

        Raises MalformedPacket on anything but a PUBLISH that the codec refuses.
        """
        view = chunk
        if self._rest:
            self._rest += chunk
            if len(self._rest) < self._needed_bytes:
                return
            view, self._rest = memoryview(bytes(self._rest)), bytearray()
        position, end = 0, len(view)
        while position < end:
            try:
                packet, size = mqtt5.read(view[position:])
            except BaseException as refusal:  # invalid UTF-8 makes a PanicException, which is no Exception
                if not _is_of_codec(refusal):
                    raise
                size = size_of(view[position:])
                if end - position < size:
                    self._rest, self._needed_bytes = bytearray(view[position:]), size
                    return
                yield _illegible(bytes(view[position : position + size]), refusal)
            else:
                yield packet
            position += size


def size_of(start: memoryview) -> int:
    """How many bytes the packet that begins here has, or at least so many (MQTT 5.0, section 2.1.4)."""
    length = 0
    for index in range(1, min(len(start), 5)):
        length |= (start[index] & 0x7F) << 7 * (index - 1)
        if start[index] < 0x80:
            return 1 + index + length
    if len(start) >= 5:
        raise MalformedPacket("a remaining length of more than four bytes")
    return len(start) + 1


def _illegible(packet: bytes, refusal: BaseException) -> Illegible:
    """What is known of a PUBLISH that the codec refuses (MQTT 5.0, section 3.3)."""
    qos = packet[0] >> 1 & 3
    if packet[0] >> 4 != _PUBLISH or qos > 1:  # nobody subscribes above QoS 1
        raise MalformedPacket(f"a packet that begins with {packet[0]:#04x}: {refusal}")
    if not qos:
        return Illegible(None)
    body = 2
    while packet[body - 1] & 0x80:
        body += 1
    topic_end = body + 2 + int.from_bytes(packet[body : body + 2])
    if topic_end + 2 > len(packet):
        raise MalformedPacket(f"a PUBLISH cut short: {refusal}")
    return Illegible(int.from_bytes(packet[topic_end : topic_end + 2]))


def _is_of_codec(error: BaseException) -> bool:
    """Whether `mqtt5.read` itself raised this. Its panic has no class that could be imported."""
    return isinstance(error, IndexError | ValueError) or type(error).__name__ == "PanicException"
