"""With receipts a message is settled by the gateway's word alone, and asked for again until that comes."""

from __future__ import annotations

import asyncio
import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from devices import courier
from devices.address import Address, parse_address
from devices.broker import Mosquitto
from devices.clock import Clock
from devices.connection import CLIENTS, Door
from devices.connection import Client as ClientName
from devices.connections.codec import CodecConnection
from devices.counts import Counts
from devices.courier import FIRST_REMINDER_S, LONGEST_REMINDER_S, reminder_s
from devices.device import World, live
from devices.fleet import Fleet, asking_for_receipts, devices, of_models
from devices.ledger import read
from devices.outbox import Outbox
from devices.outgoing import Outgoing, Publication
from devices.simulation import Run
from devices.simulation import simulate as play
from tests.devices.outside import numbers, simulate


def world(port: int, client: ClientName = "codec") -> World:
    """One door that asks for receipts, twenty times a second for half a second."""
    groups = of_models(("door",), devices=1, rate=20.0, qos=1)
    return World(
        fleet=asking_for_receipts(Fleet(groups=groups, start_us=0, seed="1", duration_s=0.5)),
        clock=Clock.starting_now(0),
        door=Door(Address("127.0.0.1", port), asyncio.Semaphore(1), client=client),
        counts=Counts(devices=1),
        ledger=None,
        stopping=asyncio.Event(),
        reached=asyncio.Event(),
    )


class Responder:
    """Stands in for the gateway: answers each request on its Response Topic, but for those it is told to pass over."""

    def __init__(self, pass_over: int, payload: bytes) -> None:
        self.asked: Counter[bytes] = Counter()
        self._pass_over = pass_over
        self._payload = payload

    def on_message(self, client: Client, _userdata: object, message: MQTTMessage) -> None:
        correlation = getattr(message.properties, "CorrelationData", None)
        topic = getattr(message.properties, "ResponseTopic", None)
        if correlation is None or topic is None:
            return
        self.asked[correlation] += 1
        if self.asked[correlation] > self._pass_over:
            properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
            properties.CorrelationData = correlation
            client.publish(topic, self._payload, 0, properties=properties)


@contextmanager
def responding(broker: Mosquitto, *, pass_over: int = 0, payload: bytes = b"") -> Iterator[Responder]:
    responder, subscribed = Responder(pass_over, payload), threading.Event()
    client = Client(CallbackAPIVersion.VERSION2, client_id="gateway", protocol=MQTTProtocolVersion.MQTTv5)
    client.on_message = responder.on_message
    client.on_subscribe = lambda *_: subscribed.set()
    client.reconnect_delay_set(1, 1)
    session = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    session.SessionExpiryInterval = 3600
    client.connect("127.0.0.1", broker.port, clean_start=False, properties=session)
    client.loop_start()
    client.subscribe("devices/+/telemetry", 2)
    try:
        assert subscribed.wait(10)
        yield responder
    finally:
        client.disconnect()
        client.loop_stop()


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_every_message_gets_its_receipt(broker: Mosquitto, tmp_path: Path, qos: int, client: str) -> None:
    path = tmp_path / "ledger.jsonl"
    with responding(broker) as responder:
        ended = simulate(
            "--broker", broker.url, "--devices", 5, "--rate", 20, "--duration", "0.5s", "--qos", qos,
            "--receipts", "--client", client, "--ledger", path,
        )  # fmt: skip
    assert (ended.code, ended.err) == (0, "")
    told = numbers(ended)
    assert told.items() >= {"published": 50, "receipted": 50, "failed": 0}.items()
    assert len(responder.asked) == 50
    states = Counter(record.state for record in read(path))
    assert states == {"sent": 50, "receipted": 50} | ({"acked": 50} if qos else {})


def test_a_rejection_is_a_receipt_too(broker: Mosquitto) -> None:
    """What the gateway could not read it has stored all the same."""
    payload = json.dumps({"rejected": "no format reads it"}).encode()
    with responding(broker, payload=payload):
        ended = simulate("--broker", broker.url, "--devices", 1, "--rate", 20, "--duration", "0.5s", "--receipts")
    assert numbers(ended).items() >= {"published": 10, "receipted": 10, "failed": 0}.items()


def test_without_a_receipt_nothing_leaves_the_outbox(broker: Mosquitto, tmp_path: Path) -> None:
    """PUBACK only says that the broker has it; the next run sends the same again, and then it is settled."""
    path = tmp_path / "outbox.db"
    fleet = asking_for_receipts(
        Fleet(groups=of_models(("door",), devices=1, rate=20.0, qos=1), start_us=0, seed="1", duration_s=0.5)
    )
    alone = play(fleet, Run(parse_address(broker.url), outbox=path, grace_s=0.2))
    assert (alone.published, alone.acknowledged, alone.failed, alone.left) == (10, 10, 0, 10)
    options = ["--broker", broker.url, "--devices", 1, "--models", "door", "--rate", 20, "--receipts", "--outbox", path]
    with responding(broker) as responder:
        heard = simulate(*options, "--duration", "0.5s")
    assert numbers(heard).items() >= {"published": 20, "receipted": 20, "failed": 0}.items()
    assert heard.err == ""
    assert [key.split(b"/")[1] for key in responder.asked] == [b"%d" % n for n in [*range(10), *range(10)]]


@pytest.mark.parametrize("client", CLIENTS.values())
def test_a_missing_receipt_is_asked_for_again_on_the_same_connection(
    broker: Mosquitto, monkeypatch: pytest.MonkeyPatch, client: ClientName
) -> None:
    monkeypatch.setattr(courier, "FIRST_REMINDER_S", 0.1)
    monkeypatch.setattr(courier, "_LOOK_EVERY_S", 0.05)

    async def claim() -> Counts:
        here = world(broker.port, client)
        await live(next(devices(here.fleet)), here)
        return here.counts

    with responding(broker, pass_over=2) as responder:
        counts = asyncio.run(claim())
    assert (counts.published, counts.acknowledged, counts.receipted, counts.failed) == (10, 10, 10, 0)
    assert counts.repeated >= 20
    assert len(responder.asked) == 10
    assert broker.log().count(" as amber-device-door-0001") == 1


def test_messages_without_a_receipt_are_sent_again_at_once_after_a_reconnect(broker: Mosquitto) -> None:
    """Each first request is passed over, and then the broker is away: the device does not wait for its reminder."""

    async def claim() -> Counts:
        here = world(broker.port)
        living = asyncio.create_task(live(next(devices(here.fleet)), here))
        async with asyncio.timeout(10):
            while here.counts.acknowledged < 10:
                await asyncio.sleep(0.01)
        broker.stop()
        broker.start()
        await living
        return here.counts

    with responding(broker, pass_over=1):
        counts = asyncio.run(claim())
    assert (counts.published, counts.receipted, counts.repeated) == (10, 10, 10)


def test_reminders_come_ever_later_up_to_a_limit() -> None:
    assert FIRST_REMINDER_S * 0.75 <= reminder_s(0) <= FIRST_REMINDER_S
    for reminders in range(1, 2_000, 7):
        assert FIRST_REMINDER_S <= reminder_s(reminders) <= LONGEST_REMINDER_S


def test_nothing_leaves_by_a_connection_that_is_saying_goodbye() -> None:
    """A late answer makes room for the next message, which behind a DISCONNECT would be lost."""

    async def claim() -> None:
        here, outbox = world(1), Outbox(10, 10)
        last = courier.Courier(next(devices(here.fleet)), outbox, here, CodecConnection(here.door, "test", None))
        for seq in range(2):
            outbox.put(Outgoing("5f3a", seq, 0, 0, Publication("t", b"")))
            if not seq:
                assert len(last.load()) == 1
                here.post.dismiss(last)
        assert last.load() == []

    asyncio.run(claim())


@pytest.mark.parametrize("correlation", [b"", b"\xff/1/0/0", b"5f3a/x/0/0", b"5f3a/1/0", b"5f3a/1/0/0/0/0"])
def test_a_receipt_for_nothing_we_sent_is_nobodys(correlation: bytes) -> None:
    async def claim() -> None:
        here = world(1)
        connection = CodecConnection(here.door, "test", None)
        courier.Courier(next(devices(here.fleet)), Outbox(10, 10), here, connection).receipted(correlation, b"")
        assert here.counts == Counts(devices=1)

    asyncio.run(claim())
