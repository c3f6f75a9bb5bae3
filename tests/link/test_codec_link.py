"""The fast link against a real Mosquitto: what is acknowledged is settled, and what is not comes back."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import aiomqtt
import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties as PahoProperties

from devices.broker import Mosquitto
from gateway.link.codec import CodecLink
from storage.event import Message, Properties
from tests.link.fakes import messages_from, options, until


def client(broker: Mosquitto) -> aiomqtt.Client:
    return aiomqtt.Client("127.0.0.1", broker.port, protocol=aiomqtt.ProtocolVersion.V5)


async def publish(broker: Mosquitto, count: int, *, topic: str = "n/{}", qos: int = 1) -> None:
    """So many messages by another client; on return the broker has them."""
    async with client(broker) as device:
        for number in range(count):
            await device.publish(topic.format(number), str(number), qos=qos)


def numbers(messages: Sequence[Message]) -> list[int]:
    return [int(message.payload) for message in messages]


async def test_the_first_batch_of_each_connection_is_empty_and_announces_it(broker: Mosquitto) -> None:
    """Also over a restart of the broker, which keeps the session."""
    async with CodecLink(options(broker.url, window_messages=50)) as link:
        first = await link.receive()
        assert list(first.messages) == []
        assert (first.connection.number, first.connection.resumed) == (1, False)
        assert (first.connection.broker, first.connection.client_id) == (broker.url, "amber-test")
        assert first.connection.window_messages == 50
        await publish(broker, 1)
        assert numbers(await messages_from(link, 1, ack=True)) == [0]

        broker.stop()
        await until(lambda: not link.state.connected)
        assert link.state.last_error
        broker.start()

        second = await link.receive()
        assert list(second.messages) == []
        assert (second.connection.number, second.connection.resumed) == (2, True)
        await publish(broker, 1)
        assert numbers(await messages_from(link, 1, ack=True)) == [0]
        assert (link.state.connections, link.state.reconnects) == (2, 1)


@pytest.mark.parametrize("qos", [1, 2])
async def test_unacked_messages_return_in_the_next_connection(broker: Mosquitto, qos: int) -> None:
    """Marked DUP, with the same packet ids: that is what tells a redelivery from a new message."""
    async with CodecLink(options(broker.url)) as link:
        await until(lambda: link.state.subscribed)
        await publish(broker, 20, qos=qos)
        once = await messages_from(link, 20)
    async with CodecLink(options(broker.url)) as link:
        announced = await link.receive()
        assert announced.connection.resumed
        again = await messages_from(link, 20)
    assert [(one.topic, one.payload, one.packet_id, one.qos) for one in again] == [
        (one.topic, one.payload, one.packet_id, qos) for one in once
    ]
    assert not any(message.dup for message in once)
    assert all(message.dup for message in again)


@pytest.mark.parametrize("qos", [1, 2])
async def test_acked_messages_do_not_return(broker: Mosquitto, qos: int) -> None:
    """Not even those acknowledged in the last moment before the link closes."""
    async with CodecLink(options(broker.url)) as link:
        await until(lambda: link.state.subscribed)
        await publish(broker, 20, qos=qos)
        assert numbers(await messages_from(link, 20, ack=True)) == list(range(20))
    await publish(broker, 1, topic="after", qos=qos)
    async with CodecLink(options(broker.url)) as link:
        assert (await link.receive()).connection.resumed
        (message,) = await messages_from(link, 1)
        assert (message.topic, message.dup) == ("after", False)


async def test_the_qos_2_handshake_frees_its_slot(broker: Mosquitto) -> None:
    """A hundred messages through a window of three: each needs PUBREC, PUBREL and PUBCOMP, or the flow stops."""
    async with CodecLink(options(broker.url, window_messages=3)) as link:
        await until(lambda: link.state.subscribed)
        await publish(broker, 100, qos=2)
        assert numbers(await messages_from(link, 100, ack=True)) == list(range(100))


async def test_no_more_than_the_window_is_on_the_way(broker: Mosquitto) -> None:
    """Exactly the window comes while nothing is acknowledged; the rest waits in the broker."""
    async with CodecLink(options(broker.url, window_messages=7)) as link:
        await until(lambda: link.state.subscribed)
        await publish(broker, 20)
        await publish(broker, 1, topic="marker", qos=0)  # which no window holds up
        batches = [await link.receive()]
        while not any(message.topic == "marker" for batch in batches for message in batch.messages):
            batches.append(await link.receive())
        arrived = [message for batch in batches for message in batch.messages if message.qos]
        assert numbers(arrived) == list(range(7))
        for batch in batches:
            batch.ack()
        assert numbers(await messages_from(link, 13, ack=True)) == list(range(7, 20))


async def test_each_message_comes_at_the_qos_at_which_it_was_published(broker: Mosquitto) -> None:
    async with CodecLink(options(broker.url)) as link:
        await until(lambda: link.state.subscribed)
        for qos in (0, 1, 2):
            await publish(broker, 1, topic=f"q/{qos}", qos=qos)
        messages = await messages_from(link, 3, ack=True)
    assert [(message.topic, message.qos) for message in messages] == [("q/0", 0), ("q/1", 1), ("q/2", 2)]
    assert [message.packet_id > 0 for message in messages] == [False, True, True]


async def test_properties_arrive_as_they_were_sent(broker: Mosquitto) -> None:
    sent = PahoProperties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    sent.PayloadFormatIndicator = 1
    sent.ContentType = "application/json"
    sent.ResponseTopic = "receipts/é"
    sent.CorrelationData = b"\x00\xff"
    sent.UserProperty = [("unit", "°C"), ("unit", "twice"), ("", "")]
    sent.MessageExpiryInterval = 3600
    async with CodecLink(options(broker.url)) as link:
        await until(lambda: link.state.subscribed)
        async with client(broker) as device:
            await device.publish("p", "{}", qos=1, properties=sent)
            await device.publish("p", "{}", qos=1)
        with_properties, without = await messages_from(link, 2)
    assert with_properties.properties == Properties(
        payload_is_text=True,
        expiry_s=3600,
        content_type="application/json",
        response_topic="receipts/é",
        correlation_data=b"\x00\xff",
        user=(("unit", "°C"), ("unit", "twice"), ("", "")),
    )
    assert without.properties is None


async def test_retained_messages_come_once_per_filter_and_session(broker: Mosquitto) -> None:
    """Not again at each reconnect, but yes for a filter that is new in an old session."""
    async with client(broker) as device:
        for topic in ("a/1", "b/1"):
            await device.publish(topic, topic, qos=1, retain=True)
    async with CodecLink(options(broker.url, "a/#")) as link:
        (message,) = await messages_from(link, 1, ack=True)
        assert (message.topic, message.retain) == ("a/1", True)
    async with CodecLink(options(broker.url, "a/#", "b/#")) as link:
        (message,) = await messages_from(link, 1, ack=True)
        assert (message.topic, message.retain) == ("b/1", True)
        async with client(broker) as device:
            await device.publish("a/2", "live", qos=1, retain=True)
        (message,) = await messages_from(link, 1, ack=True)
        assert (message.topic, message.retain) == ("a/2", True)  # as published


async def test_a_packet_of_50_mb_arrives_whole(broker: Mosquitto) -> None:
    payload = os.urandom(1_000_000) * 50
    async with CodecLink(options(broker.url)) as link:
        await until(lambda: link.state.subscribed)
        async with client(broker) as device:
            await device.publish("camera", payload, qos=1, timeout=20)
        (message,) = await messages_from(link, 1, ack=True)
    assert message.payload == payload


async def test_a_shared_subscription_delivers(broker: Mosquitto) -> None:
    async with CodecLink(options(broker.url, "$share/gateways/#")) as link:
        await until(lambda: link.state.subscribed)
        await publish(broker, 3)
        assert numbers(await messages_from(link, 3, ack=True)) == [0, 1, 2]


async def test_it_waits_for_a_broker_that_is_not_there_yet(broker: Mosquitto, caplog: pytest.LogCaptureFixture) -> None:
    """And says so once, however often it tries."""
    caplog.set_level(logging.INFO, "amber.link")
    broker.stop()
    async with CodecLink(options(broker.url)) as link:
        tries = set()

        def tried_often() -> bool:
            tries.add(link._wire)
            return len(tries) > 5

        await until(tried_often)
        assert "nothing listens there: start the broker" in link.state.last_error
        assert len(caplog.messages) == 1
        broker.start()
        assert not (await link.receive()).messages
        assert link.state.last_error == ""


async def test_two_links_that_fight_for_one_client_id_say_so(broker: Mosquitto) -> None:
    """Though this Mosquitto closes without a word."""
    async with CodecLink(options(broker.url)) as one, CodecLink(options(broker.url)) as other:
        await until(lambda: one.state.takeovers and other.state.takeovers)
        for link in (one, other):
            assert "another client used the client id 'amber-test'" in link.state.last_error
            assert "give each a client_id of its own" in link.state.last_error


async def test_a_broker_that_stands_still_is_found_and_returned_to(broker: Mosquitto) -> None:
    """Stopped by a signal, it holds the connection open and answers nothing, as after a cut cable."""
    async with CodecLink(options(broker.url, keep_alive_s=1, connect_timeout_s=0.5)) as link:
        await until(lambda: link.state.subscribed)
        os.kill(broker.pid, signal.SIGSTOP)
        try:
            await until(lambda: link.state.last_error)
            assert "has been silent" in link.state.last_error
        finally:
            os.kill(broker.pid, signal.SIGCONT)
        await until(lambda: link.state.connected)
        assert link.state.reconnects >= 1
        await until(lambda: link.state.subscribed)


@pytest.fixture
def guarded_broker(tmp_path: Path) -> Iterator[Mosquitto]:
    """One that grants a/# and no other filter.

    By Mosquitto's own plugin for access control: with an acl_file it grants every filter, and then delivers nothing.
    """
    plugins = [*Path("/usr/lib").glob("*/mosquitto_dynamic_security.so"), *Path("/usr/lib").glob("mosquitto_dyn*.so")]
    if not plugins:
        pytest.skip("this Mosquitto comes without its dynamic security plugin")
    access = {
        "defaultACLAccess": {"publishClientSend": True, "publishClientReceive": True, "subscribe": False},
        "roles": [{"rolename": "some", "acls": [{"acltype": "subscribePattern", "topic": "a/#", "allow": True}]}],
        "groups": [{"groupname": "all", "roles": [{"rolename": "some"}]}],
        "anonymousGroup": "all",
    }
    (tmp_path / "access.json").write_text(json.dumps(access))
    extra = f"plugin {plugins[0]}\nplugin_opt_config_file {tmp_path / 'access.json'}\n"
    with Mosquitto(tmp_path / "broker", extra=extra) as broker:
        yield broker


async def test_a_filter_that_the_broker_refuses_is_named(guarded_broker: Mosquitto) -> None:
    """The others deliver."""
    async with CodecLink(options(guarded_broker.url, "a/#", "secret/#")) as link:
        await until(lambda: link.state.refused)
        assert "the subscription to 'secret/#' as not authorized" in link.state.last_error
        await publish(guarded_broker, 1, topic="a/1")
        assert len(await messages_from(link, 1)) == 1


@pytest.fixture
def strict_broker(tmp_path: Path) -> Iterator[Mosquitto]:
    """One that lets in `gateway` with the password `right`, and nobody else."""
    subprocess.run(["mosquitto_passwd", "-b", "-c", tmp_path / "passwords", "gateway", "right"], check=True)
    extra = f"allow_anonymous false\npassword_file {tmp_path / 'passwords'}\n"
    with Mosquitto(tmp_path / "broker", extra=extra) as broker:
        yield broker


async def test_the_right_password_opens(strict_broker: Mosquitto) -> None:
    async with CodecLink(options(strict_broker.url, username="gateway", password="right")) as link:
        assert not (await link.receive()).messages


@pytest.mark.parametrize("credentials", [{}, {"username": "gateway", "password": "wrong"}])
async def test_a_wrong_password_says_what_to_check(strict_broker: Mosquitto, credentials: dict[str, str]) -> None:
    async with CodecLink(options(strict_broker.url, **credentials)) as link:
        await until(lambda: link.state.last_error)
        assert "refused the connection as not authorized: check username and password" in link.state.last_error
        assert not link.state.connected
