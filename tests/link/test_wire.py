"""The bytes on the wire, with a broker that does what it is told: what leaves when, and what a bad broker costs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator

import mqtt5
import pytest
from mqtt5 import (
    ConnAckPacket,
    ConnAckReasonCode,
    ConnectPacket,
    DisconnectPacket,
    DisconnectReasonCode,
    Packet,
    PingReqPacket,
    PubAckPacket,
    PubCompPacket,
    PublishPacket,
    PubRecPacket,
    PubRelPacket,
    QoS,
    RetainHandling,
    SubAckPacket,
    SubAckReasonCode,
    SubscribePacket,
)

from gateway.link import Receipt
from gateway.link.codec import CodecLink
from gateway.link.errors import LinkError
from gateway.link.packets import PacketStream
from gateway.link.wire import RECEIPTS_WAITING_BYTES, Wire
from storage.event import Message
from tests.link.fakes import FakeBroker, Peer, messages_from, options, until

GOODBYE = DisconnectPacket().write()


def publish(packet_id: int, qos: int = 1, *, again: bool = False) -> bytes:
    payload = str(packet_id).encode()
    return PublishPacket("a/b", payload, qos=QoS(qos), packet_id=packet_id if qos else None, duplicate=again).write()


# --- asking ---


async def test_it_asks_for_a_lasting_session_and_a_window() -> None:
    """And for each filter by itself, so that one refusal does not cost the others."""
    asked: asyncio.Future[tuple[ConnectPacket, SubscribePacket, bytes]]
    asked = asyncio.get_running_loop().create_future()

    async def broker(peer: Peer, _: int) -> None:
        connect = await peer.accept()
        asked.set_result((connect, await peer.grant(), peer.heard))
        await peer.read_all()

    async with FakeBroker(broker) as fake:
        wanted = options(fake.url, "a/#", "$share/g/b/+", window_messages=77, username="me", password="pässword")
        async with CodecLink(wanted) as link:
            await link.receive()
            connect, second, heard = await asked
    assert not connect.clean_start
    assert connect.receive_max == 77
    assert connect.session_expiry_interval == wanted.session_expiry_s >= 7 * 86_400
    assert connect.topic_alias_max == 0
    assert (connect.username, connect.password) == ("me", "pässword".encode())
    (topic_filter,) = second.topic_filters
    assert topic_filter.pattern == "$share/g/b/+"
    assert topic_filter.retain_as_published
    assert not topic_filter.no_local  # a protocol error on a shared subscription
    assert topic_filter.retain_handling == RetainHandling.SEND_IF_SUBSCRIPTION_NOT_EXISTS
    subscribe, _ = mqtt5.read(memoryview(heard)[len(connect.write()) :])
    assert isinstance(subscribe, SubscribePacket)
    assert [(one.pattern, one.no_local) for one in subscribe.topic_filters] == [("a/#", True)]


# --- acknowledging ---


async def test_nothing_is_acknowledged_until_the_batch_is_and_then_in_order() -> None:
    async def broker(peer: Peer, __: int) -> None:
        await peer.accept()
        await peer.send(publish(9), publish(3, 2), publish(0, 0), publish(0xABCD), b"\xd0\x00")
        before = len(peer.heard)
        for _ in range(3):
            await peer.read()
        heard.set_result(peer.heard[before:])
        await peer.read_all()

    heard: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
    async with FakeBroker(broker) as fake, CodecLink(options(fake.url)) as link:
        batch = await link.receive()
        batch.ack()
        while not batch.messages:
            batch = await link.receive()
        assert [message.packet_id for message in batch.messages] == [9, 3, 0, 0xABCD]
        batch.ack()
        batch.ack()
        assert await heard == b"\x40\x02\x00\x09\x50\x02\x00\x03\x40\x02\xab\xcd"


async def test_pubrel_is_answered_at_once_also_for_an_unknown_id() -> None:
    """Without an answer the broker's slot stays taken; enough of them stop all delivery."""
    answers: asyncio.Future[list[object]] = asyncio.get_running_loop().create_future()

    async def broker(peer: Peer, _: int) -> None:
        await peer.accept()
        await peer.send(PubRelPacket(5), PubRelPacket(65_535))
        answers.set_result([await peer.read(), await peer.read()])
        await peer.read_all()

    async with FakeBroker(broker) as fake, CodecLink(options(fake.url)):
        first, second = await answers
        assert isinstance(first, PubCompPacket)
        assert isinstance(second, PubCompPacket)
        assert (first.packet_id, second.packet_id) == (5, 65_535)


async def test_acknowledging_after_the_connection_has_ended_does_nothing() -> None:
    """The next connection may use the same packet ids for other messages: acknowledging those would lose them."""
    heard: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def broker(peer: Peer, number: int) -> None:
        await peer.accept()
        if number <= 2:
            await peer.send(publish(number))
            if number == 2:
                heard.set_result(await peer.read_all())

    async with FakeBroker(broker) as fake, CodecLink(options(fake.url)) as link:
        (announced, old) = (await link.receive(), await link.receive())
        assert (announced.connection.number, old.connection.number) == (1, 1)
        new = await link.receive()
        assert (new.connection.number, list(new.messages)) == (2, [])
        old.ack()
        await link.__aexit__(None, None, None)
        assert await heard == GOODBYE


async def test_what_had_arrived_before_the_end_is_handed_out_before_the_next_connection() -> None:
    """QoS 0 would else be lost. The next connection waits until then, so that what waits stays bounded."""

    async def broker(peer: Peer, number: int) -> None:
        await peer.accept()
        if number == 1:
            await peer.send(publish(0, 0), publish(1), publish(2, 2))
        else:
            await peer.read_all()

    async with FakeBroker(broker) as fake, CodecLink(options(fake.url)) as link:
        assert not (await link.receive()).messages
        await until(lambda: link.state.last_error)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await until(lambda: fake.connections > 1)
        left = await link.receive()
        assert (left.connection.number, [message.packet_id for message in left.messages]) == (1, [0, 1, 2])
        left.ack()
        assert (await link.receive()).connection.number == 2


# --- ending ---


async def test_the_end_writes_what_was_acknowledged_and_keeps_the_session() -> None:
    """DISCONNECT comes after the acknowledgements, without a session expiry of 0 and without UNSUBSCRIBE.

    Also to a broker that reads late and has 20 MB on the way to us: closing on them would send RST, and the kernel
    would throw away what the broker has not read yet.
    """
    closing = asyncio.Event()
    heard: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def broker(peer: Peer, _: int) -> None:
        await peer.accept()
        flood = [PublishPacket("flood", bytes(100_000)).write()] * 200
        sending = asyncio.create_task(peer.send(*(publish(number) for number in range(1, 11)), *flood))
        await closing.wait()
        heard.set_result(await peer.read_all())
        await sending

    async with FakeBroker(broker) as fake:
        async with CodecLink(options(fake.url, window_messages=10)) as link:
            acked = 0
            while acked < 10:
                batch = await link.receive()
                batch.ack()
                acked += sum(message.qos for message in batch.messages)
            wire = link._wire
            assert wire is not None
            await until(lambda: wire._paused)
            asyncio.get_running_loop().call_later(0.05, closing.set)
        assert await heard == b"".join(PubAckPacket(number).write() for number in range(1, 11)) + GOODBYE


async def test_the_end_is_bounded_when_the_broker_does_not_close() -> None:
    async def broker(peer: Peer, _: int) -> None:
        await peer.accept()
        await asyncio.Event().wait()

    async with FakeBroker(broker) as fake:
        async with CodecLink(options(fake.url, close_timeout_s=0.1)) as link:
            await link.receive()
        assert not link.state.connected


async def test_the_end_does_not_wait_for_a_broker_that_never_answered() -> None:
    connected = asyncio.Event()

    async def broker(_: Peer, __: int) -> None:
        connected.set()
        await asyncio.Event().wait()

    async with FakeBroker(broker) as fake, CodecLink(options(fake.url)):
        await connected.wait()


async def test_receiving_outside_the_link_is_an_error() -> None:
    """Also for whoever waits when it closes: nobody hangs."""
    link = CodecLink(options("mqtt://127.0.0.1:9"))
    with pytest.raises(LinkError, match="closed"):
        await link.receive()
    async with link:
        waiting = asyncio.create_task(link.receive())
        await until(lambda: link.state.last_error)
    with pytest.raises(LinkError, match="closed"):
        await waiting


# --- liveness ---


async def test_a_broker_that_falls_silent_is_found() -> None:
    """Half-open: no FIN and no RST ever comes. Found within 0.75 + 1.5 keep-alives and a tick, then connected anew."""

    async def broker(peer: Peer, number: int) -> None:
        await peer.accept()
        if number == 1:
            began.set_result(asyncio.get_running_loop().time())
            await asyncio.Event().wait()
        await peer.read_all()

    began: asyncio.Future[float] = asyncio.get_running_loop().create_future()
    async with FakeBroker(broker) as fake, CodecLink(options(fake.url, keep_alive_s=1)) as link:
        await link.receive()
        await until(lambda: link.state.last_error)
        assert asyncio.get_running_loop().time() - await began < 4
        assert "silent for 1.5 s though asked" in link.state.last_error
        assert (await link.receive()).connection.number == 2


async def test_the_brokers_keep_alive_wins() -> None:
    async def broker(peer: Peer, _: int) -> None:
        await peer.accept(ConnAckPacket(server_keep_alive=1))
        asked.set_result(await peer.read())
        await peer.read_all()

    asked: asyncio.Future[object] = asyncio.get_running_loop().create_future()
    async with FakeBroker(broker) as fake, CodecLink(options(fake.url, keep_alive_s=3600)):
        assert isinstance(await asked, PingReqPacket)


async def test_while_nothing_is_read_it_still_asks_but_silence_is_not_death() -> None:
    """A store that stands still for minutes must not cost the connection."""
    done = asyncio.Event()

    async def broker(peer: Peer, _: int) -> None:
        await peer.accept()
        await peer.send(*(publish(0, 0) for _ in range(3)))
        for _ in range(4):
            assert isinstance(await peer.read(), PingReqPacket)
        done.set()
        await peer.read_all()

    async with FakeBroker(broker) as fake, CodecLink(options(fake.url, keep_alive_s=1, window_messages=2)) as link:
        await done.wait()  # four keep-alives, and not one answer
        assert link.state.connected
        assert len(await messages_from(link, 3)) == 3


# --- backpressure ---


async def test_a_flood_of_qos_0_waits_in_the_socket() -> None:
    """And nothing of it is lost: 60 MB sent, never more than the window and one chunk in memory."""
    payload = bytes(6_000)
    count = 10_000
    chunk = 256 * 1024 // len(payload) + 1
    sent: list[int] = []

    async def broker(peer: Peer, _: int) -> None:
        await peer.accept()
        for number in range(count):
            await peer.send(PublishPacket(f"n/{number}", payload))
            sent.append(number)
        await peer.read_all()

    async with FakeBroker(broker) as fake, CodecLink(options(fake.url, window_messages=100)) as link:
        await link.receive()
        wire = link._wire
        assert wire is not None
        await until(lambda: wire._paused)
        stalled_at = -1
        while stalled_at != len(sent):  # until the sockets between us are full too
            stalled_at = len(sent)
            await asyncio.sleep(0.1)
        assert 100 < len(wire.messages) <= 100 + chunk
        assert stalled_at < count
        found: list[str] = []
        while len(found) < count:
            messages = (await link.receive()).messages
            assert len(messages) <= 100 + chunk
            found += [message.topic for message in messages]
        assert found == [f"n/{number}" for number in range(count)]


async def test_few_but_large_messages_wait_in_the_socket_too() -> None:
    async def broker(peer: Peer, _: int) -> None:
        await peer.accept()
        for _ in range(100):
            await peer.send(PublishPacket("camera", bytes(500_000)))
        await peer.read_all()

    async with FakeBroker(broker) as fake, CodecLink(options(fake.url, window_bytes=2_000_000)) as link:
        await link.receive()
        wire = link._wire
        assert wire is not None
        await until(lambda: wire._paused)
        assert len(wire.messages) <= 5
        assert len(await messages_from(link, 100)) == 100


# --- bad brokers ---


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_a_publish_that_the_codec_refuses_is_handed_out_and_acknowledged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The log says so, once per connection."""
    answer: asyncio.Future[object] = asyncio.get_running_loop().create_future()

    async def broker(peer: Peer, _: int) -> None:
        await peer.accept()
        await peer.send(b"\x34\x0b\x00\x04a/\xff\xfe\x00\x07\x00hi")
        answer.set_result(await peer.read())
        await peer.send(b"\x30\x09\x00\x04b/\xff\xfe\x00hi")
        await peer.read_all()

    async with FakeBroker(broker) as fake, CodecLink(options(fake.url)) as link:
        (message,) = await messages_from(link, 1, ack=True)
        assert (message.topic, message.payload, message.qos) == ("a/��", b"hi", 2)
        packet = await answer
        assert isinstance(packet, PubRecPacket)
        assert packet.packet_id == 7
        await messages_from(link, 1)
    (line,) = [line for line in caplog.messages if "not valid MQTT 5" in line]
    assert "on the topic 'a/��'" in line


@pytest.mark.parametrize(
    ("packet", "code"),
    [
        (b"\x36\x07\x00\x01a\x00\x07\x00b", DisconnectReasonCode.MALFORMED_PACKET),  # QoS 3
        (b"\xe0\x01\x77", DisconnectReasonCode.MALFORMED_PACKET),
        (PingReqPacket().write(), DisconnectReasonCode.PROTOCOL_ERROR),
        (ConnAckPacket().write(), DisconnectReasonCode.PROTOCOL_ERROR),
        (SubAckPacket(9, [SubAckReasonCode.GRANTED_QOS_AT_MOST_ONCE]).write(), DisconnectReasonCode.PROTOCOL_ERROR),
    ],
)
async def test_what_mqtt_does_not_allow_ends_the_connection_with_its_reason(
    packet: bytes, code: DisconnectReasonCode
) -> None:
    """What came before it is kept, and the next connection goes on."""
    last: asyncio.Future[object] = asyncio.get_running_loop().create_future()

    async def broker(peer: Peer, number: int) -> None:
        await peer.accept()
        if number == 1:
            await peer.send(publish(1), packet)
            last.set_result(await peer.read())
        await peer.read_all()

    async with FakeBroker(broker) as fake, CodecLink(options(fake.url)) as link:
        assert len(await messages_from(link, 1)) == 1
        farewell = await last
        assert isinstance(farewell, DisconnectPacket)
        assert farewell.reason_code == code
        assert (await link.receive()).connection.number == 2


def answers(*packets: bytes) -> Callable[[Peer, int], Awaitable[None]]:
    """A script: these in answer to CONNECT, then the end."""

    async def broker(peer: Peer, _: int) -> None:
        await peer.read()
        await peer.send(*packets)

    return broker


def refused(code: ConnAckReasonCode, said: str | None = None, server: str | None = None) -> bytes:
    return ConnAckPacket(reason_code=code, reason_str=said, server_reference=server).write()


def closed(code: DisconnectReasonCode) -> bytes:
    return ConnAckPacket().write() + DisconnectPacket(reason_code=code).write()


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (refused(ConnAckReasonCode.BAD_USER_NAME_OR_PASSWORD), "bad user name or password: check username and"),
        (refused(ConnAckReasonCode.NOT_AUTHORIZED), "as not authorized: check username and password"),
        (refused(ConnAckReasonCode.CLIENT_ID_NOT_VALID), "choose another client_id"),
        (refused(ConnAckReasonCode.UNSPECIFIED_ERROR, said="no luck"), "(it said 'no luck')"),
        (refused(ConnAckReasonCode.SERVER_MOVED, server="b:1"), "(it named the server 'b:1')"),
        (refused(ConnAckReasonCode.UNSUPPORTED_PROTOCOL_VERSION), "does not speak MQTT 5: use a broker that does"),
        (closed(DisconnectReasonCode.SERVER_SHUTTING_DOWN), "because it is shutting down: start it again"),
        (closed(DisconnectReasonCode.PACKET_TOO_LARGE), "a packet is too large for it: raise its limit"),
        (closed(DisconnectReasonCode.NOT_AUTHORIZED), "what the broker's ACL allows this user"),
        (closed(DisconnectReasonCode.NORMAL_DISCONNECTION), "in good order"),
        (closed(DisconnectReasonCode.SESSION_TAKEN_OVER), "with the same client id, 'amber-test': stop one of them"),
        (b"\x20\x02\x00\x01", "MQTT 5 broker does: check that its address names an MQTT port"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "MQTT 5 broker does: check that its address names an MQTT port"),
        (publish(1), "MQTT 5 broker does: check that its address names an MQTT port"),
        (b"", "MQTT 5 broker does: check that its address names an MQTT port"),
        (ConnAckPacket().write(), "another client took the client id; its log knows"),
    ],
)
async def test_a_refusal_says_what_to_do(answer: bytes, sentence: str) -> None:
    async with FakeBroker(answers(answer)) as fake, CodecLink(options(fake.url)) as link:
        await until(lambda: link.state.last_error)
        assert link.state.last_error.startswith(fake.url)
        assert sentence in link.state.last_error
        assert not link.state.connected
        await until(lambda: fake.connections >= 2)  # it goes on trying


async def test_a_broker_that_never_answers_is_given_up_in_time() -> None:
    async def broker(peer: Peer, _: int) -> None:
        await peer.read_all()

    async with FakeBroker(broker) as fake, CodecLink(options(fake.url, connect_timeout_s=0.1)) as link:
        await until(lambda: link.state.last_error)
        assert "did not answer within 0.1 s" in link.state.last_error
        await until(lambda: fake.connections >= 2)


async def test_a_reset_is_survived() -> None:
    async def broker(peer: Peer, number: int) -> None:
        await peer.accept()
        if number == 1:
            peer.reset()
        await peer.read_all()

    async with FakeBroker(broker) as fake, CodecLink(options(fake.url)) as link:
        await until(lambda: link.state.connections == 2)
        assert link.state.reconnects == 1


async def test_connections_that_are_closed_again_and_again_mean_a_second_client() -> None:
    """Not every broker says SESSION_TAKEN_OVER."""
    broker = answers(ConnAckPacket().write())
    async with FakeBroker(broker) as fake, CodecLink(options(fake.url)) as link:
        await until(lambda: "another client used the client id 'amber-test'" in link.state.last_error)
        assert fake.connections >= 3


# --- subscriptions ---


async def test_a_refused_filter_is_named_and_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    """The other filters go on meanwhile."""
    caplog.set_level(logging.INFO, "amber.link")
    mended = asyncio.Event()

    async def broker(peer: Peer, _: int) -> None:
        await peer.accept()
        await peer.grant(SubAckReasonCode.NOT_AUTHORIZED)
        await peer.send(publish(1))
        assert (await peer.grant(SubAckReasonCode.NOT_AUTHORIZED)).topic_filters[0].pattern == "b/#"
        await mended.wait()
        await peer.grant()
        await peer.read_all()

    async with FakeBroker(broker) as fake, CodecLink(options(fake.url, "a/#", "b/#")) as link:
        assert len(await messages_from(link, 1)) == 1
        await until(lambda: link.state.refused)
        sentence = "the broker refused the subscription to 'b/#' as not authorized: allow it in the broker's ACL"
        assert link.state.connected
        assert (link.state.refused, link.state.last_error) == (("b/#",), sentence)
        mended.set()
        await until(lambda: not link.state.refused)
        assert link.state.last_error == ""
    assert caplog.messages.count(sentence) == 1
    assert caplog.messages[-3:] == [
        "the broker now grants 'b/#'",
        "subscribed to a/#, b/#",
        f"closed the connection to {fake.url}, which keeps what comes meanwhile",
    ]


async def test_a_broker_that_gives_less_than_asked_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    async def broker(peer: Peer, _: int) -> None:
        connack = ConnAckPacket(session_expiry_interval=60)
        await peer.read()
        await peer.send(connack)
        await peer.grant(SubAckReasonCode.GRANTED_QOS_AT_LEAST_ONCE)
        await peer.read_all()

    caplog.set_level(logging.WARNING, "amber.link")
    async with FakeBroker(broker) as fake, CodecLink(options(fake.url, "a/#")):
        await until(lambda: len(caplog.messages) == 2)
    assert "for 60 s only" in caplog.messages[0]
    assert caplog.messages[1] == "the broker delivers 'a/#' at QoS 1 at most, though QoS 2 was asked for"


# --- the log ---


async def test_what_repeats_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """A client that takes over again and again: told three times, then silence, and one line when it is over."""
    caplog.set_level(logging.INFO, "amber.link")

    async def broker(peer: Peer, number: int) -> None:
        await peer.accept(ConnAckPacket(session_present=number > 1))
        if number < 12:
            await peer.send(DisconnectPacket(reason_code=DisconnectReasonCode.SESSION_TAKEN_OVER))
        await peer.read_all()

    async with FakeBroker(broker) as fake:
        wanted = options(fake.url, settled_after_s=0.3, first_backoff_s=0.005, max_backoff_s=0.01)
        async with CodecLink(wanted) as link:
            await until(lambda: link.state.takeovers == 11)
            assert "with the same client id" in link.state.last_error
            await until(lambda: link.state.connected and not link.state.last_error)
            assert link.state.reconnects == 11
    first, *told, last, _ = [line for line in caplog.messages if not line.startswith("subscribed")]
    assert first.endswith("as 'amber-test', in a new session")
    assert last.endswith("as 'amber-test', goes on with its session")
    assert ["with the same client id" in sentence for sentence in told] == [True, False, True, False, True]


# --- the inside ---


class RecordingTransport(asyncio.Transport):
    """Keeps each write by itself, which a socket does not."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self.waiting_bytes = 0

    def get_write_buffer_size(self) -> int:
        return self.waiting_bytes

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.writes.append(bytes(data))

    def is_closing(self) -> bool:
        return False


async def test_a_whole_batch_is_acknowledged_in_one_write() -> None:
    wire = Wire(options("mqtt://127.0.0.1"), 1, lambda: None)
    transport = RecordingTransport()
    wire.connection_made(transport)
    wire.data_received(ConnAckPacket().write() + b"".join(publish(number) for number in range(1, 10_001)))
    messages = wire.take()
    transport.writes.clear()
    wire.acknowledge(messages)
    assert [len(write) for write in transport.writes] == [40_000]
    wire.acknowledge([message for message in messages if not message.qos])
    assert len(transport.writes) == 1
    wire.connection_lost(None)
    wire.acknowledge(messages)
    assert len(transport.writes) == 1


async def opened(connack: ConnAckPacket) -> tuple[Wire, RecordingTransport]:
    wire, transport = Wire(options("mqtt://127.0.0.1"), 1, lambda: None), RecordingTransport()
    wire.connection_made(transport)
    wire.data_received(connack.write())
    transport.writes.clear()
    return wire, transport


async def test_receipts_leave_behind_the_acknowledgements_in_the_same_write() -> None:
    """As an MQTT 5 response at QoS 0, not retained, with the correlation data of its request."""
    wire, transport = await opened(ConnAckPacket())
    wire.data_received(publish(1) + publish(2, 2) + publish(0, 0))
    said = [Receipt("r/1", b"\0\xff"), Receipt("r/2", None, b"why")]
    assert wire.acknowledge(wire.take(), said) == 2
    answers = PublishPacket("r/1", b"", correlation_data=b"\0\xff"), PublishPacket("r/2", b"why")
    acknowledged = PubAckPacket(1).write() + PubRecPacket(2).write()
    assert transport.writes == [acknowledged + b"".join(one.write() for one in answers)]
    wire.connection_lost(None)
    assert wire.acknowledge([], said) == 0
    assert len(transport.writes) == 1


async def test_for_a_broker_that_does_not_read_receipts_are_left_out_and_acknowledgements_are_not() -> None:
    wire, transport = await opened(ConnAckPacket())
    wire.data_received(publish(1))
    transport.waiting_bytes = RECEIPTS_WAITING_BYTES - 10
    assert wire.acknowledge(wire.take(), [Receipt("r/too/long", b"x" * 100), Receipt("r")]) == 1
    assert transport.writes == [PubAckPacket(1).write() + PublishPacket("r", b"").write()]


async def test_a_receipt_larger_than_the_broker_takes_is_left_out() -> None:
    """The broker would end the connection for it (MQTT 5.0, section 3.2.2.3.6)."""
    wire, transport = await opened(ConnAckPacket(max_packet_size=50))
    sizes = [Receipt("r", b"x" * size) for size in (41, 42, 60_000, 1)]
    assert wire.acknowledge([], sizes) == 2
    assert len(transport.writes[0]) == 50 + 10


async def test_a_fault_of_the_link_itself_reaches_whoever_receives(caplog: pytest.LogCaptureFixture) -> None:
    """Nobody waits for ever on a link that has died."""

    async def broker(peer: Peer, _: int) -> None:
        await peer.accept()
        await peer.send(publish(1))
        await peer.read_all()

    class Broken(PacketStream):
        def feed(self, chunk: bytes, messages: list[Message], received_at: int) -> Iterator[Packet]:
            raise ZeroDivisionError(len(chunk), len(messages), received_at)

    async with FakeBroker(broker) as fake:

        async def receive() -> None:
            async with CodecLink(options(fake.url)) as link:
                await link.receive()
                wire = link._wire
                assert wire is not None
                wire._stream = Broken()
                while True:
                    await link.receive()

        with pytest.raises(ExceptionGroup) as raised:
            await receive()
        assert raised.group_contains(ZeroDivisionError)
    assert "data_received" in caplog.text  # asyncio's own word on it
