"""Bytes into messages: any chunking gives the same, a refusal loses nothing, size costs no more than its bytes."""

from __future__ import annotations

import mqtt5
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mqtt5 import PingRespPacket, PublishPacket, PubRelPacket, QoS

from gateway.link.packets import MalformedPacket, PacketStream, salvage, size_of
from storage.event import Message, Properties

NOW = 1_700_000_000_000_000

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
topics = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="#+\0"), min_size=1, max_size=20)


@st.composite
def publishes(draw: st.DrawFn) -> PublishPacket:
    qos = draw(st.sampled_from([0, 1, 2]))
    return PublishPacket(
        draw(topics | st.sampled_from(["devices/thermo-0001/telemetry", "x" * 118, "x" * 300])),
        draw(st.binary(max_size=20) | st.sampled_from([b"x" * size for size in (119, 120, 121, 122, 400, 16_380)])),
        qos=QoS(qos),
        retain=draw(st.booleans()),
        packet_id=draw(st.integers(1, 65_535)) if qos else None,
        duplicate=draw(st.booleans()) if qos else False,
        payload_format_indicator=draw(st.sampled_from([0, 0, 1])),
        message_expiry_interval=draw(st.none() | st.integers(0, 2**32 - 1)),
        content_type=draw(st.none() | texts),
        response_topic=draw(st.none() | topics),
        correlation_data=draw(st.none() | st.binary(max_size=20)),
        subscription_ids=draw(st.lists(st.integers(1, 300), max_size=2)),
        user_properties=draw(st.lists(st.tuples(texts, texts), max_size=3)),
    )


def as_message(packet: PublishPacket) -> Message:
    """What a PUBLISH means, written down plainly: every field from the codec's own attribute."""
    properties = Properties(
        packet.payload_format_indicator == 1,
        packet.message_expiry_interval,
        packet.content_type,
        packet.response_topic,
        packet.correlation_data,
        tuple(packet.user_properties),
    )
    return Message(
        packet.topic,
        packet.payload,
        int(packet.qos),
        packet.retain,
        NOW,
        packet.packet_id or 0,
        packet.duplicate,
        None if properties == Properties() else properties,
    )


def plain(
    topic: str, payload: bytes, *, qos: int = 0, packet_id: int = 0, retain: bool = False, dup: bool = False
) -> Message:
    return Message(topic, payload, qos, retain, NOW, packet_id, dup)


def feed(stream: PacketStream, *chunks: bytes) -> tuple[list[Message], list[mqtt5.Packet]]:
    messages: list[Message] = []
    others: list[mqtt5.Packet] = []
    for chunk in chunks:
        others += stream.feed(chunk, messages, NOW)
    return messages, others


@given(st.lists(publishes() | st.builds(PubRelPacket, st.integers(1, 65_535)) | st.builds(PingRespPacket)), st.data())
def test_any_chunking_gives_the_same_messages(packets: list[mqtt5.Packet], data: st.DataObject) -> None:
    """Wherever the network cuts the stream, and whatever properties, sizes and alphabets the packets have."""
    stream = b"".join(packet.write() for packet in packets)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=10)))
    chunks = [stream[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(stream)], strict=True)]

    messages, others = feed(PacketStream(), *chunks)

    assert messages == [as_message(packet) for packet in packets if isinstance(packet, PublishPacket)]
    assert all(type(message.qos) is int for message in messages)
    assert [one.write() for one in others] == [one.write() for one in packets if not isinstance(one, PublishPacket)]


@given(st.lists(publishes(), min_size=1, max_size=3))
def test_a_byte_at_a_time_gives_the_same_messages(packets: list[PublishPacket]) -> None:
    stream = b"".join(packet.write() for packet in packets)
    messages, _ = feed(PacketStream(), *(stream[at : at + 1] for at in range(len(stream))))
    assert messages == [as_message(packet) for packet in packets]


def test_a_packet_of_50_mb_costs_no_more_than_its_bytes() -> None:
    """In 12 800 chunks. Copying or trying what there is at each of them would move 320 GB."""
    packet = PublishPacket("camera/1", bytes(50_000_000), qos=QoS.AT_LEAST_ONCE, packet_id=7).write()
    after = PublishPacket("camera/1", b"next").write()
    stream = packet + after
    messages, _ = feed(PacketStream(), *(stream[at : at + 4096] for at in range(0, len(stream), 4096)))
    assert [len(message.payload) for message in messages] == [50_000_000, 4]


def test_the_stream_tells_how_much_it_has_parsed() -> None:
    """It is the measure of what waits; the beginning of a packet is not among it."""
    whole = PublishPacket("a", b"12345").write()
    stream = PacketStream()
    feed(stream, whole + whole[:3])
    assert stream.parsed_bytes == len(whole)


# The codec's panic leaves an "unraisable" exception behind, a warning to pytest.
quietly = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

INVALID_UTF8_TOPIC = b"\x3b\x0b\x00\x04a/\xff\xfe\x00\x07\x00" + b"hi"
INVALID_UTF8_PROPERTY = b"\x32\x0f\x00\x01a\x00\x07\x07\x26\x00\x01\xff\x00\x01zhi"
UNKNOWN_PROPERTY = b"\x32\x0b\x00\x01a\x00\x07\x03\x7f\x00\x00hi"
PROPERTIES_THAT_CLAIM_TOO_MUCH = b"\x32\x08\x00\x01a\x00\x07\x70hi"


@quietly
@pytest.mark.parametrize(
    ("packet", "message"),
    [
        (INVALID_UTF8_TOPIC, plain("a/��", b"hi", qos=1, packet_id=7, retain=True, dup=True)),
        (INVALID_UTF8_PROPERTY, plain("a", b"hi", qos=1, packet_id=7)),
        (UNKNOWN_PROPERTY, plain("a", b"hi", qos=1, packet_id=7)),
        (PROPERTIES_THAT_CLAIM_TOO_MUCH, plain("a", b"\x70hi", qos=1, packet_id=7)),
        (b"\x30\x07\x00\x01a\x02\x26\x00z", plain("a", b"z")),
        (b"\x32\x05\x00\x01a\x00\x07", plain("a", b"", qos=1, packet_id=7)),
    ],
)
def test_a_publish_that_the_codec_refuses_goes_on_as_a_message(packet: bytes, message: Message) -> None:
    """With its neighbours, and also when it comes in pieces: refused, it would come back for ever."""
    good = PublishPacket("good", b"!").write()
    expected = [plain("good", b"!"), message, plain("good", b"!")]
    stream = good + packet + good
    with pytest.raises(BaseException):  # noqa: B017, PT011 (a panic has no class to name)
        mqtt5.read(memoryview(packet))
    assert feed(PacketStream(), stream)[0] == expected
    assert feed(PacketStream(), *(stream[at : at + 1] for at in range(len(stream))))[0] == expected


@quietly
@pytest.mark.parametrize(
    "stream",
    [
        b"\x00\x00",  # no such packet type
        b"\x36\x07\x00\x01a\x00\x07\x00b",  # QoS 3
        b"\x60\x02\x00\x05",  # PUBREL with wrong flags
        b"\xe0\x01\x77",  # DISCONNECT with a reason code that does not exist
        b"\x20\x02\x00\x01",  # CONNACK of MQTT 3.1.1: wrong protocol version
        b"\x30\x80\x80\x80\x80\x01",  # a remaining length of five bytes
        b"\x30\x01\x00",  # PUBLISH without a topic
        b"\x32\x04\x00\x01a\x00",  # PUBLISH cut short in its packet id
        b"\x90\x07\x00\x01\x04\x1f\x00\x01\xff",  # SUBACK with a reason that is not UTF-8
    ],
)
def test_anything_else_that_the_codec_refuses_is_malformed(stream: bytes) -> None:
    """And what came before it is not lost."""
    good = PublishPacket("good", b"!").write()
    messages: list[Message] = []
    with pytest.raises(MalformedPacket):
        list(PacketStream().feed(good + stream, messages, NOW))
    assert len(messages) == 1


@quietly
def test_only_the_first_topic_that_is_not_utf8_makes_the_codec_panic(capfd: pytest.CaptureFixture[str]) -> None:
    """A panic writes to stderr, past all logging: a device must not be able to flood it."""
    messages, _ = feed(PacketStream(), INVALID_UTF8_TOPIC * 3, INVALID_UTF8_TOPIC[:6], INVALID_UTF8_TOPIC[6:])
    assert len(messages) == 4
    assert capfd.readouterr().err.count("panicked") == 1


@quietly
@given(st.binary(max_size=40))
def test_any_bytes_are_messages_packets_or_malformed(stream: bytes) -> None:
    """Nothing else is ever raised, and nothing is read twice."""
    whole = PacketStream()
    pieces = PacketStream()
    at_once: list[Message] = []
    bit_by_bit: list[Message] = []
    outcomes = []
    for parser, found, chunks in ((whole, at_once, [stream]), (pieces, bit_by_bit, [bytes([one]) for one in stream])):
        try:
            outcomes.append(sum(len(list(parser.feed(chunk, found, NOW))) for chunk in chunks))
        except MalformedPacket:
            outcomes.append(-1)
    assert outcomes[0] == outcomes[1]
    assert at_once == bit_by_bit


@given(publishes())
def test_salvage_reads_what_the_codec_reads(packet: PublishPacket) -> None:
    """Held against a good PUBLISH: topic, payload, packet id and flags are the same."""
    expected = msgspec.structs.replace(as_message(packet), properties=None)
    assert salvage(memoryview(packet.write()), NOW, "") == expected


@given(publishes())
def test_the_size_of_a_packet_is_known_from_its_first_bytes(packet: PublishPacket) -> None:
    written = packet.write()
    assert size_of(memoryview(written)[:5]) == len(written)
    assert size_of(memoryview(written)[:1]) == 2
