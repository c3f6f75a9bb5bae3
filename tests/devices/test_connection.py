"""A connection says what it is asked to, hears what comes of it, tells its end once, and leaves nothing behind."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from typing import Any

import pytest
from mqtt5 import (
    ConnAckPacket,
    ConnectPacket,
    DisconnectPacket,
    DisconnectReasonCode,
    PingReqPacket,
    PubAckPacket,
    PubAckReasonCode,
    PubCompPacket,
    PublishPacket,
    PubRecPacket,
    PubRelPacket,
    QoS,
    SubAckPacket,
    SubAckReasonCode,
    SubscribePacket,
)

from devices.address import Address
from devices.broker import Mosquitto
from devices.connection import CLIENTS, Client, Connection, Door, connect
from devices.connections import codec
from devices.errors import ConnectionLost
from devices.outgoing import Publication
from tests.devices.outside import listening
from tests.devices.scripted import Peer, scripted

WILL = Publication("devices/test/status", b"{}", retain=True)


TELEMETRY = Publication("devices/test/telemetry", b"21.5")

both = pytest.mark.parametrize("client", CLIENTS.values())


def door(port: int, client: Client = "codec") -> Door:
    return Door(Address("127.0.0.1", port), asyncio.Semaphore(1), client=client, sessions={})


@both
def test_a_message_sent_while_the_connection_breaks_disturbs_nobody(broker: Mosquitto, client: Client) -> None:
    """By itself aiomqtt registers the closed socket for writing, or another connection's that had taken its number."""
    complaints: list[dict[str, Any]] = []

    async def claim() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
        async with connect(door(broker.port, client), "test", WILL) as connection:
            broker.kill()
            await asyncio.sleep(0)  # in the step that follows, the loop reads the end right after what we do
            connection.send(Publication("devices/test/telemetry", b""), qos=1)
            await asyncio.Event().wait()

    with pytest.raises(ConnectionLost, match=r"^the connection was lost$"):
        asyncio.run(claim())
    assert not complaints


@both
def test_a_refusal_is_the_answer_and_not_an_error(broker: Mosquitto, client: Client) -> None:
    """Mosquitto lets nobody write below $SYS."""

    async def claim(qos: int) -> str | None:
        async with connect(door(broker.port, client), "test", WILL) as connection:
            assert await connection.send(Publication("devices/test/telemetry", b""), qos=qos) is None
            return await connection.send(Publication("$SYS/test", b""), qos=qos)

    assert [asyncio.run(claim(qos)) for qos in (1, 2)] == ["Not authorized"] * 2


@both
def test_a_connect_without_an_answer_leaves_no_socket_behind(client: Client) -> None:
    """A broker that was asleep would else find many of them, and take each for the device."""

    async def claim() -> None:
        came, went = asyncio.Event(), asyncio.Event()

        async def never_answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readexactly(1)
            came.set()
            await reader.read()  # until the end
            writer.close()
            went.set()

        server = await asyncio.start_server(never_answers, "127.0.0.1")
        connecting = asyncio.create_task(enter(door(server.sockets[0].getsockname()[1], client)))
        await came.wait()
        connecting.cancel()
        async with asyncio.timeout(5):
            await went.wait()
        server.close()
        await asyncio.wait({connecting})

    async def enter(where: Door) -> None:
        async with connect(where, "test", WILL):
            pytest.fail("nobody answered")

    asyncio.run(claim())


@both
def test_content_type_and_user_properties_arrive(broker: Mosquitto, client: Client) -> None:
    said = Publication("devices/test/telemetry", b"{}", content_type="application/json", user=(("a", "1"), ("a", "2")))

    async def claim() -> None:
        async with connect(door(broker.port, client), "test", None) as connection:
            assert await connection.send(said, qos=1) is None

    with listening(broker) as listener:
        asyncio.run(claim())
        listener.wait_for(lambda: len(listener.heard) == 1)
    (properties,) = listener.properties
    assert (properties.ContentType, properties.UserProperty) == ("application/json", [("a", "1"), ("a", "2")])


@both
@pytest.mark.parametrize(("leaves", "states"), [("closes", []), ("aborts", [b"{}"])])
def test_the_will_is_for_those_who_leave_without_a_word(
    broker: Mosquitto, client: Client, leaves: str, states: list[bytes]
) -> None:
    async def claim() -> None:
        with suppress(ConnectionLost):
            async with connect(door(broker.port, client), "test", WILL) as connection:
                if leaves == "aborts":
                    connection.abort()
                    await asyncio.Event().wait()
        async with connect(door(broker.port, client), "last", None) as connection:
            assert await connection.send(TELEMETRY, qos=1) is None

    with listening(broker) as listener:
        asyncio.run(claim())
        listener.wait_for(lambda: len(listener.heard) == 1 + len(states))
    assert [message.payload for message in listener.heard if message.topic == WILL.topic] == states


@both
def test_an_abort_is_told_as_what_it_is(broker: Mosquitto, client: Client) -> None:
    async def claim() -> None:
        async with connect(door(broker.port, client), "test", None) as connection:
            asyncio.get_running_loop().call_soon(connection.abort)
            await asyncio.Event().wait()

    with pytest.raises(ConnectionLost, match=r"^the connection was cut off$"):
        asyncio.run(claim())


@both
def test_who_cancels_a_block_is_not_told_of_a_lost_connection(broker: Mosquitto, client: Client) -> None:
    async def block() -> None:
        async with connect(door(broker.port, client), "test", None):
            await asyncio.Event().wait()

    async def claim() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await block()

    asyncio.run(claim())


@both
def test_a_takeover_ends_the_connection(broker: Mosquitto, client: Client) -> None:
    async def claim() -> None:
        there = asyncio.Event()

        async def first() -> None:
            async with connect(door(broker.port, client), "test", None):
                there.set()
                await asyncio.Event().wait()

        losing = asyncio.create_task(first())
        await there.wait()
        async with connect(door(broker.port, client), "test", None):
            await losing

    with pytest.raises(ConnectionLost):
        asyncio.run(asyncio.wait_for(claim(), 5))


# --- what only a scripted broker does ---


async def talk(port: int, say: Any, **options: Any) -> None:
    where = options.pop("where", None) or door(port)
    async with connect(where, "test", None, **options) as connection:
        await say(connection)


def test_no_more_is_on_its_way_than_the_broker_allows() -> None:
    async def broker(peer: Peer) -> None:
        await peer.welcome(ConnAckPacket(receive_max=2))
        first = [await peer.expect(PublishPacket) for _ in range(2)]
        peer.say(PubAckPacket(first[1].packet_id or 0))
        third = await peer.expect(PublishPacket)  # and not the fourth with it
        peer.say(PubAckPacket(first[0].packet_id or 0))
        fourth = await peer.expect(PublishPacket)
        assert [int(packet.payload) for packet in (*first, third, fourth)] == [0, 1, 2, 3]
        peer.say(*(PubAckPacket(packet.packet_id or 0) for packet in (third, fourth)))
        await peer.expect(DisconnectPacket)

    async def say(connection: Connection) -> None:
        assert (
            await asyncio.gather(*(connection.send(Publication("t", b"%d" % n), qos=1) for n in range(4))) == [None] * 4
        )

    async def claim() -> None:
        async with scripted(broker) as port:
            await talk(port, say)

    asyncio.run(claim())


@pytest.mark.parametrize(
    ("connack", "publication", "qos", "words"),
    [
        (ConnAckPacket(max_packet_size=100), Publication("t", b"x" * 100), 0, "and the broker takes 100 at most"),
        (ConnAckPacket(max_packet_size=100), Publication("t", b"x" * 100), 1, "and the broker takes 100 at most"),
        (ConnAckPacket(max_qos=QoS.AT_LEAST_ONCE), TELEMETRY, 2, "the broker takes QoS 1 at most"),
        (ConnAckPacket(retain_available=False), WILL, 1, "the broker retains nothing"),
    ],
)
def test_what_the_broker_would_end_the_connection_for_is_refused(
    connack: ConnAckPacket, publication: Publication, qos: int, words: str
) -> None:
    async def broker(peer: Peer) -> None:
        await peer.welcome(connack)
        packet = await peer.expect(PublishPacket)
        assert packet.payload == TELEMETRY.payload
        peer.say(PubAckPacket(packet.packet_id or 0))
        await peer.expect(DisconnectPacket)

    async def say(connection: Connection) -> None:
        refusal = await connection.send(publication, qos=qos)
        assert refusal is not None
        assert words in refusal
        assert await connection.send(TELEMETRY, qos=1) is None

    async def claim() -> None:
        async with scripted(broker) as port:
            await talk(port, say)

    asyncio.run(claim())


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # the panic leaves one behind
def test_receipts_come_at_either_qos_and_what_cannot_be_read_is_passed_over(capfd: pytest.CaptureFixture[str]) -> None:
    """A property that is not UTF-8 makes the codec panic; refused for it, the broker would send it for ever."""
    topic, heard = "amber/receipts/test", list[tuple[bytes, bytes]]()

    async def broker(peer: Peer) -> None:
        await peer.welcome()
        subscribe = await peer.expect(SubscribePacket)
        assert [wanted.pattern for wanted in subscribe.topic_filters] == [topic]
        peer.say(SubAckPacket(subscribe.packet_id, [SubAckReasonCode.GRANTED_QOS_AT_LEAST_ONCE]))
        request = await peer.expect(PublishPacket)
        assert (request.response_topic, request.correlation_data) == (topic, b"5f3a/0/0/0")
        peer.say(PublishPacket(topic, b"", correlation_data=b"a"))
        peer.say(PublishPacket(topic, b"x", qos=QoS.AT_LEAST_ONCE, packet_id=7, correlation_data=b"b"))
        assert (await peer.expect(PubAckPacket)).packet_id == 7
        bad = PublishPacket(topic, b"", qos=QoS.AT_LEAST_ONCE, packet_id=8, user_properties=[("QQ", "ZZ")]).write()
        peer.writer.write(bad.replace(b"QQ", b"\xff\xfe"))
        assert (await peer.expect(PubAckPacket)).packet_id == 8
        peer.say(PublishPacket("another/topic", b"", correlation_data=b"c"))
        peer.say(PublishPacket(topic, b"y" * 200_000))  # comes in pieces
        await peer.expect(DisconnectPacket)

    async def say(connection: Connection) -> None:
        last = asyncio.Event()

        def receipted(correlation: bytes, payload: bytes) -> None:
            heard.append((correlation, payload[:1]))
            if len(payload) > 1:
                last.set()

        await connection.listen(topic, receipted)
        connection.send(TELEMETRY, qos=0, correlation=b"5f3a/0/0/0")
        await last.wait()

    async def claim() -> None:
        async with scripted(broker) as port:
            await talk(port, say)

    asyncio.run(claim())
    capfd.readouterr()  # the panic's own words
    assert heard == [(b"a", b""), (b"b", b"x"), (b"", b"y")]


def test_a_refused_subscription_is_told() -> None:
    async def broker(peer: Peer) -> None:
        await peer.welcome()
        subscribe = await peer.expect(SubscribePacket)
        peer.say(SubAckPacket(subscribe.packet_id, [SubAckReasonCode.NOT_AUTHORIZED]))
        await peer.silence()

    async def claim() -> None:
        async with scripted(broker) as port:
            await talk(port, lambda connection: connection.listen("amber/receipts/test", lambda *_: None))

    with pytest.raises(ConnectionLost, match=r"^no subscription to amber/receipts/test: Not authorized$"):
        asyncio.run(claim())


@pytest.mark.parametrize(
    ("first", "words"),
    [(SubAckPacket(1, [SubAckReasonCode.GRANTED_QOS_AT_MOST_ONCE]), "a SubAckPacket, and no ConnAckPacket")],
)
def test_another_word_than_the_welcome_is_no_welcome(first: SubAckPacket, words: str) -> None:
    async def broker(peer: Peer) -> None:
        await peer.expect(ConnectPacket)
        peer.say(first)
        await peer.silence()

    async def claim() -> None:
        async with scripted(broker) as port:
            await talk(port, for_ever)

    with pytest.raises(ConnectionLost, match=words):
        asyncio.run(claim())


@pytest.mark.parametrize(
    ("said", "words"),
    [([ConnAckPacket()], "a ConnAckPacket, and no SubAckPacket"), ([], r"^no answer in time to the subscription")],
)
def test_a_subscription_that_gets_no_proper_answer_ends_the_connection(
    monkeypatch: pytest.MonkeyPatch, said: list[ConnAckPacket], words: str
) -> None:
    """The device would else be there, and say nothing for ever."""
    monkeypatch.setattr(codec, "CONNECT_WITHIN_S", 0.5)

    async def broker(peer: Peer) -> None:
        await peer.welcome()
        await peer.expect(SubscribePacket)
        peer.say(*said)
        await peer.silence()

    async def claim() -> None:
        async with scripted(broker) as port:
            await talk(port, lambda connection: connection.listen("amber/receipts/test", lambda *_: None))

    with pytest.raises(ConnectionLost, match=words):
        asyncio.run(claim())


def test_only_the_answer_that_belongs_to_a_message_is_its_answer() -> None:
    """Strange packet ids, answers of the other quality of service, and each answer twice."""

    async def broker(peer: Peer) -> None:
        await peer.welcome()
        once, exactly = await peer.expect(PublishPacket), await peer.expect(PublishPacket)
        one, two = once.packet_id or 0, exactly.packet_id or 0
        peer.say(PubAckPacket(999), PubCompPacket(998), PubRecPacket(997))
        peer.say(PubAckPacket(two), PubCompPacket(two), PubRecPacket(one), PubCompPacket(one))
        peer.say(PubAckPacket(one, reason_code=PubAckReasonCode.NOT_AUTHORIZED), PubAckPacket(one))
        peer.say(PubRecPacket(two))
        assert (await peer.expect(PubRelPacket)).packet_id == two
        peer.say(PubCompPacket(two), PubCompPacket(two))
        await peer.expect(DisconnectPacket)

    answers = list[tuple[int, str | None]]()

    async def say(connection: Connection) -> None:
        last = asyncio.Event()

        def answered(qos: int, refusal: str | None) -> None:
            answers.append((qos, refusal))
            if qos == 2:
                last.set()

        for qos in (1, 2):
            connection.publish(TELEMETRY, qos, partial(answered, qos))
        connection.flush()
        await last.wait()

    async def claim() -> None:
        async with scripted(broker) as port:
            await talk(port, say)

    asyncio.run(claim())
    assert answers == [(1, "Not authorized"), (2, None)]


@both
@pytest.mark.parametrize("qos", [0, 1])
def test_what_no_packet_can_say_is_refused_and_the_rest_goes_on(broker: Mosquitto, client: Client, qos: int) -> None:
    async def claim() -> None:
        async with connect(door(broker.port, client), "test", None) as connection:
            for topic in ("t" * 70_000, "a/#"):
                refusal = await connection.send(Publication(topic, b""), qos=qos)
                assert refusal is not None
                assert "no MQTT 5 packet can say that" in refusal
            assert await connection.send(TELEMETRY, qos=qos) is None

    asyncio.run(asyncio.wait_for(claim(), 5))


@both
def test_messages_of_no_byte_and_of_a_million_arrive(broker: Mosquitto, client: Client) -> None:
    said = [b"", b"x" * 1_000_000]

    async def claim() -> None:
        async with connect(door(broker.port, client), "test", None) as connection:
            for payload in said:
                assert await connection.send(Publication("devices/test/telemetry", payload), qos=1) is None

    with listening(broker) as listener:
        asyncio.run(claim())
        listener.wait_for(lambda: len(listener.heard) == 2)
    assert [message.payload for message in listener.heard] == said


async def for_ever(_: Connection) -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize(
    ("last", "words"),
    [
        (DisconnectPacket(reason_code=DisconnectReasonCode.SERVER_SHUTTING_DOWN).write(), "Server shutting down"),
        (DisconnectPacket(reason_code=DisconnectReasonCode.SESSION_TAKEN_OVER).write(), "Session taken over"),
        (b"\xf1\x00", "what MQTT 5 does not allow"),
        (b"\x40\xff\xff\xff\xff\x01", "what MQTT 5 does not allow"),
        (b"", "the connection was lost"),
    ],
)
def test_the_end_that_a_broker_makes_is_told(last: bytes, words: str) -> None:
    async def broker(peer: Peer) -> None:
        await peer.welcome()
        peer.writer.write(last)

    async def claim() -> None:
        async with scripted(broker) as port:
            await talk(port, for_ever)

    with pytest.raises(ConnectionLost, match=words):
        asyncio.run(claim())


def test_a_silent_connection_is_asked_and_then_given_up() -> None:
    async def broker(peer: Peer) -> None:
        await peer.welcome(ConnAckPacket(server_keep_alive=1))
        await peer.expect(PingReqPacket)
        await peer.expect(PingReqPacket)
        with suppress(AssertionError):
            while True:
                await peer.expect(PingReqPacket)

    async def claim() -> None:
        async with scripted(broker) as port:
            await talk(port, for_ever)

    with pytest.raises(ConnectionLost, match=r"^the broker does not answer any more$"):
        asyncio.run(asyncio.wait_for(claim(), 20))


def test_a_persistent_session_ends_its_handshakes_under_the_old_packet_ids() -> None:
    """At QoS 2 that is what makes it once and no more; a first connection trusts no session, for it knows nothing."""
    one, two = Publication("t", b"1"), Publication("t", b"2")

    async def before(peer: Peer) -> None:
        connect = await peer.welcome()
        assert connect.clean_start
        assert connect.session_expiry_interval == 3600
        assert [(await peer.expect(PublishPacket)).packet_id for _ in range(2)] == [1, 2]
        peer.say(PubRecPacket(1))
        assert (await peer.expect(PubRelPacket)).packet_id == 1

    async def after(peer: Peer) -> None:
        connect = await peer.welcome(ConnAckPacket(session_present=True))
        assert not connect.clean_start
        assert (await peer.expect(PubRelPacket)).packet_id == 1
        again = await peer.expect(PublishPacket)
        assert (again.packet_id, again.duplicate, again.payload) == (2, True, b"2")
        new = await peer.expect(PublishPacket)
        assert (new.packet_id, new.duplicate) == (3, False)
        peer.say(PubCompPacket(1), PubRecPacket(2), PubRecPacket(3))
        assert [(await peer.expect(PubRelPacket)).packet_id for _ in range(2)] == [2, 3]
        peer.say(PubCompPacket(2), PubCompPacket(3))
        await peer.expect(DisconnectPacket)

    async def lost(peer: Peer) -> None:
        await peer.welcome()
        assert (await peer.expect(PublishPacket)).packet_id == 4
        peer.writer.close()

    async def forgotten(peer: Peer) -> None:
        await peer.welcome(ConnAckPacket(session_present=False))
        packet = await peer.expect(PublishPacket)
        assert (packet.packet_id, packet.duplicate) == (5, False)
        peer.say(PubRecPacket(5), PubCompPacket(5))
        await peer.expect(PubRelPacket)
        await peer.expect(DisconnectPacket)

    async def send(connection: Connection, *publications: Publication) -> None:
        answers = [connection.send(publication, qos=2) for publication in publications]
        assert await asyncio.gather(*answers) == [None] * len(publications)

    async def claim() -> None:
        async with scripted(before, after, lost, forgotten) as port:
            where = door(port)
            for publications, is_lost in (
                ((one, two), True),
                ((one, two, one), False),
                ((two,), True),
                ((two,), False),
            ):
                told = False
                try:
                    await talk(
                        port,
                        lambda connection: send(connection, *publications),  # noqa: B023
                        where=where,
                        session="persistent",
                    )
                except ConnectionLost:
                    told = True
                assert told == is_lost

    asyncio.run(claim())
