"""Claims about what a broker gets when the log is played to it, as an independent client sees it."""

from __future__ import annotations

import asyncio
import gc
import os
import queue
import re
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.subscribeoptions import SubscribeOptions

from devices.broker import Mosquitto
from gateway.ingest import is_own
from gateway.link.address import Address, parse_address
from gateway.sinks import REPLAY_MARK, SinkError, mqtt
from gateway.sinks.mqtt import Publisher, marked, publisher
from storage.event import EVENTS_PER_MESSAGE, Message, Properties
from storage.filters import Filters
from storage.replay import replay_messages
from tests.link.test_tls import make_certificate
from tests.replay.filled import entry, fill, position


class Received(NamedTuple):
    topic: str
    payload: bytes
    qos: int
    retain: bool
    properties: dict[str, Any]

    @property
    def user(self) -> list[tuple[str, str]]:
        return [(name, value) for name, value in self.properties["UserProperty"]]


class Subscriber:
    """An independent client: all that is published, as it was published."""

    def __init__(self, port: int) -> None:
        self._received: queue.SimpleQueue[Received] = queue.SimpleQueue()
        ready = threading.Event()
        self._client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        self._client.on_message = lambda *said: self._take_in(said[2])
        self._client.on_subscribe = lambda *_: ready.set()
        self._client.connect("127.0.0.1", port)
        self._client.subscribe("#", options=SubscribeOptions(qos=2, retainAsPublished=True))
        self._client.loop_start()
        assert ready.wait(10)

    def _take_in(self, message: paho.MQTTMessage) -> None:
        properties = {} if message.properties is None else message.properties.json()  # type: ignore[no-untyped-call]
        self._received.put(Received(message.topic, bytes(message.payload), message.qos, message.retain, properties))

    def take(self, count: int) -> list[Received]:
        return [self._received.get(timeout=10) for _ in range(count)]

    def empty(self) -> bool:
        return self._received.empty()

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@contextmanager
def subscriber(broker: Mosquitto) -> Iterator[Subscriber]:
    client = Subscriber(broker.port)
    try:
        yield client
    finally:
        client.close()


def play(path: Path, url: str, filters: Filters | None = None, prefix: str = "replay/") -> int:
    """The position that was confirmed in the end."""

    async def run() -> int:
        async with publisher(parse_address(url), prefix) as sink:
            async for batch in replay_messages(path, filters or Filters(), speed=None):
                await sink.send(batch)
            await sink.settle()
        return sink.confirmed

    return asyncio.run(run())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "amber.db"


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_messages_arrive_in_order_with_payload_qos_and_mark(path: Path, broker: Mosquitto, qos: int) -> None:
    """More than a window and a page of them, any bytes."""
    payloads = [b"\x00\xff%d" % n for n in range(2_500)]
    fill(path, (entry(n, payload=payload, qos=qos) for n, payload in enumerate(payloads)))
    with subscriber(broker) as client:
        assert play(path, broker.url) == position(2_500)
        received = client.take(2_500)
    assert [message.payload for message in received] == payloads
    assert {(message.topic, message.qos, message.retain) for message in received} == {
        ("replay/devices/thermo/telemetry", qos, False)
    }
    assert [message.user for message in received] == [[(REPLAY_MARK, str(position(1 + n)))] for n in range(2_500)]


def test_messages_of_different_qos_keep_their_order(path: Path, broker: Mosquitto) -> None:
    fill(path, (entry(n, qos=n % 3) for n in range(300)))
    with subscriber(broker) as client:
        play(path, broker.url)
        received = client.take(300)
    # A QoS 2 message is delivered two packets later, so order holds within a QoS (MQTT 5.0, section 4.6).
    for qos in (0, 1, 2):
        assert [m.payload for m in received if m.qos == qos] == [b"{%d}" % n for n in range(qos, 300, 3)]


def test_properties_and_the_retain_flag_are_those_received(path: Path, broker: Mosquitto) -> None:
    """But nobody is asked to answer."""
    properties = Properties(
        payload_is_text=True,
        expiry_s=3_600,
        content_type="text/plain",
        response_topic="answers/here",
        correlation_data=b"\x01",
        user=(("site", "north"), ("site", "süd"), (REPLAY_MARK, "7")),
    )
    fill(path, [entry(0, retain=True, properties=properties)])
    with subscriber(broker) as client:
        play(path, broker.url)
        (received,) = client.take(1)
    assert received.retain
    assert received.user == [("site", "north"), ("site", "süd"), (REPLAY_MARK, str(position(1)))]
    assert 3_590 < received.properties.pop("MessageExpiryInterval") <= 3_600
    del received.properties["UserProperty"]
    assert received.properties == {"PayloadFormatIndicator": 1, "ContentType": "text/plain"}
    with subscriber(broker) as later:
        assert later.take(1)[0].payload == b"{0}"


def test_a_message_with_several_events_is_published_once(path: Path, broker: Mosquitto) -> None:
    fill(path, [entry(0, events=3), entry(1, events=0), entry(2, events=2)])
    with subscriber(broker) as client:
        assert play(path, broker.url) == position(3, 1)
        received = client.take(2)
        assert client.empty()
    assert [(m.payload, m.user[0][1]) for m in received] == [(b"{0}", str(position(1))), (b"{2}", str(position(3)))]


def test_a_gateway_takes_what_is_replayed_for_its_own(path: Path, broker: Mosquitto) -> None:
    """Also under its old topic."""
    fill(path, [entry(0)])
    with subscriber(broker) as client:
        play(path, broker.url, prefix="")
        (received,) = client.take(1)
    assert received.topic == "devices/thermo/telemetry"
    properties = Properties(user=tuple(received.user))
    assert is_own(Message(received.topic, received.payload, 1, retain=False, received_at=0, properties=properties))


def test_the_brokers_limits_are_kept(path: Path, tmp_path: Path) -> None:
    """A small window; a QoS and retained messages that it does not take."""
    limits = "max_inflight_messages 3\nmax_qos 1\nretain_available false\n"
    fill(path, (entry(n, payload=b"x", qos=2, retain=True) for n in range(100)))
    with Mosquitto(tmp_path / "limited", extra=limits) as broker, subscriber(broker) as client:
        assert most_bytes_underway(path, broker) == 3
        assert {(m.qos, m.retain) for m in client.take(100)} == {(1, False)}


def most_bytes_underway(path: Path, broker: Mosquitto) -> int:
    async def run() -> int:
        most = 0
        async with publisher(parse_address(broker.url), "replay/") as sink:
            async for batch in replay_messages(path, Filters(), speed=None):
                for pair in batch:
                    await sink.send([pair])
                    most = max(most, sink.payload_bytes_underway)
            await sink.settle()
        return most

    return asyncio.run(run())


@pytest.mark.parametrize("qos", [1, 2])
def test_a_refused_message_ends_it_with_the_position_to_go_on_after(path: Path, tmp_path: Path, qos: int) -> None:
    (tmp_path / "acl").write_text("topic readwrite replay/open/#\n")
    topics = ["open/a", "open/b", "closed/c", "open/d"]
    fill(path, (entry(n, topic=topic, qos=qos) for n, topic in enumerate(topics)))
    with Mosquitto(tmp_path / "closed", extra=f"acl_file {tmp_path / 'acl'}") as broker:
        with pytest.raises(ExceptionGroup) as raised:
            play(path, broker.url)
        (error,) = raised.value.exceptions
        assert isinstance(error, SinkError)
        assert f"refused the message at position {position(3)} (Not authorized)" in str(error)
        assert str(error).endswith(f"; acknowledged up to position {position(2)}, go on with --after {position(2)}")
        assert play(path, broker.url, Filters(after=position(3))) == position(4)


def test_a_broker_that_dies_ends_it_and_nothing_confirmed_is_missing_after_the_resumption(
    path: Path, broker: Mosquitto
) -> None:
    fill(path, (entry(n) for n in range(1_000)))
    seen: list[bytes] = []

    async def run() -> None:
        async with publisher(parse_address(broker.url), "replay/") as sink:
            sinks.append(sink)
            async for batch in replay_messages(path, Filters(), speed=None):
                await sink.send(batch)
                await sink.settle()
                # What the broker has acknowledged, it has not yet delivered: wait for that before it is killed.
                seen.extend(m.payload for m in await asyncio.to_thread(client.take, len(batch)))
                broker.kill()

    sinks: list[Publisher] = []
    with subscriber(broker) as client, pytest.raises(ExceptionGroup) as raised:
        asyncio.run(run())
    confirmed = sinks[0].confirmed
    assert position(len(seen)) <= confirmed < position(1_000)
    (error,) = raised.value.exceptions
    assert re.search(f"closed the connection.*; acknowledged up to position {confirmed}, go on with", str(error))
    broker.start()
    with subscriber(broker) as client:
        play(path, broker.url, Filters(after=confirmed))
        seen += [m.payload for m in client.take(1_000 - confirmed // EVENTS_PER_MESSAGE)]
    assert seen == [b"{%d}" % n for n in range(1_000)]


def test_a_connection_that_ends_during_a_silence_is_noticed_at_once(broker: Mosquitto) -> None:
    async def run() -> None:
        async with publisher(parse_address(broker.url), "replay/"):
            await asyncio.to_thread(broker.stop)
            await asyncio.Event().wait()

    with pytest.raises(ExceptionGroup) as raised:
        asyncio.run(run())
    assert "start again" in str(raised.value.exceptions[0])


@pytest.fixture
def tls_broker(tmp_path: Path) -> Iterator[tuple[Mosquitto, str]]:
    """A broker, its second address, which speaks TLS; its authority's certificate lies in tmp_path."""
    make_certificate(tmp_path, "authority")
    make_certificate(tmp_path, "server", ca="authority")
    with Mosquitto(tmp_path / "unused") as unused:
        port = unused.port
    tls = [f"listener {port} 127.0.0.1", f"certfile {tmp_path}/server.pem", f"keyfile {tmp_path}/server.key"]
    with Mosquitto(tmp_path / "broker", extra="\n".join(tls)) as broker:
        yield broker, f"mqtts://127.0.0.1:{port}"


def test_a_broker_may_speak_tls(
    path: Path, tls_broker: tuple[Mosquitto, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Acknowledgements that TLS has read ahead are not left lying."""
    broker, url = tls_broker
    fill(path, (entry(n, qos=1 + n % 2) for n in range(2_000)))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    with subscriber(broker) as client:
        assert play(path, url) == position(2_000)
        assert len(client.take(2_000)) == 2_000


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_certificate_that_nobody_vouches_for_is_named(path: Path, tls_broker: tuple[Mosquitto, str]) -> None:
    with pytest.raises(SinkError, match=r"cannot be reached .*certificate verify failed"):
        play(path, tls_broker[1])
    gc.collect()  # paho leaves its socket open after a failed handshake: let Python complain here and now


def test_large_messages_wait_for_one_another(path: Path, broker: Mosquitto) -> None:
    """Memory is bounded in bytes too."""
    payloads = [bytes([n]) * (5 << 20) for n in range(6)]
    fill(path, (entry(n, payload=payload) for n, payload in enumerate(payloads)))
    with subscriber(broker) as client:
        assert most_bytes_underway(path, broker) == 10 << 20
        assert [message.payload for message in client.take(6)] == payloads


def test_a_broker_that_falls_silent_is_given_up(path: Path, broker: Mosquitto, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection stands, and nobody answers."""
    monkeypatch.setattr(mqtt, "KEEP_ALIVE_S", 1)
    fill(path, [entry(0)])

    async def run() -> None:
        async with publisher(parse_address(broker.url), "replay/") as sink:
            os.kill(broker.pid, signal.SIGSTOP)
            async for batch in replay_messages(path, Filters(), speed=None):
                await sink.send(batch)
            await sink.settle()

    try:
        with pytest.raises(ExceptionGroup) as raised:
            asyncio.run(run())
    finally:
        os.kill(broker.pid, signal.SIGCONT)
    assert "has been silent" in str(raised.value.exceptions[0])


def test_a_message_that_is_too_large_for_the_broker_is_told(path: Path, tmp_path: Path) -> None:
    fill(path, [entry(0), entry(1, payload=bytes(2_000))])
    small = Mosquitto(tmp_path / "small", extra="max_packet_size 1000")
    with small as broker, pytest.raises(ExceptionGroup) as raised:
        play(path, broker.url)
    assert "a packet is too large" in str(raised.value.exceptions[0])


def test_wrong_passwords_are_told_from_a_broker_that_is_not_there(tmp_path: Path) -> None:
    async def run(address: Address) -> None:
        async with publisher(address, "replay/"):
            pass

    passwords = "allow_anonymous false\n"
    with Mosquitto(tmp_path / "private", extra=passwords) as broker:
        with pytest.raises(SinkError, match="refused the connection"):
            asyncio.run(run(parse_address(f"mqtt://me:secret@127.0.0.1:{broker.port}")))
        port = broker.port
    with pytest.raises(SinkError, match=f"127.0.0.1:{port} cannot be reached"):
        asyncio.run(run(parse_address(f"mqtt://127.0.0.1:{port}")))


def test_a_server_that_speaks_no_mqtt_is_named() -> None:
    async def run(port: int) -> None:
        async with publisher(parse_address(f"mqtt://127.0.0.1:{port}"), ""):
            pass

    with socket.create_server(("127.0.0.1", 0)) as server:

        def hang_up() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1_000)

        answering = threading.Thread(target=hang_up)
        answering.start()
        with pytest.raises(SinkError, match="closed the connection without a word"):
            asyncio.run(run(server.getsockname()[1]))
        answering.join()


def test_a_topic_that_grows_too_long_is_named(path: Path, broker: Mosquitto) -> None:
    fill(path, [entry(0), entry(1, topic="x" * 65_530)])
    with pytest.raises(ExceptionGroup) as raised:
        play(path, broker.url)
    assert f"the message at position {position(2)} cannot be published" in str(raised.value.exceptions[0])


def test_a_message_without_properties_gets_the_mark_alone() -> None:
    assert marked(None, 5).json() == {"UserProperty": [(REPLAY_MARK, "5")]}  # type: ignore[no-untyped-call]
