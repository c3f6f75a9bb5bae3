"""Claims about receipts: who gets one, what it says, and that none leaves for what is not stored."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import queue
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import paho.mqtt.client as paho
import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties as PahoProperties

from devices.broker import Mosquitto
from gateway.config import ConfigError, load
from gateway.formats import Formats, rule
from gateway.ingest import ingest
from gateway.link import Receipt
from gateway.link.memory import MemoryLink
from gateway.metrics import Metrics, Summary
from gateway.receipts import PREFIX, Receipts, checked_prefix, refusal
from storage.engine import sqlite
from storage.event import Event, Message, Outcome, Properties
from storage.log import Log
from storage.store import StoreOptions
from tests.crash.prove import Gateway, count

ROOT = Path(__file__).resolve().parents[2]
OPTIONS = StoreOptions(segment_events=1_000, free_floor_bytes=0)


def asking(n: int, topic: str | None = f"{PREFIX}d", **changes: object) -> Message:
    """A message that asks for a receipt, by its number."""
    fields: dict[str, object] = {
        "topic": "d/telemetry",
        "payload": b'{"n":%d}' % n,
        "qos": 1,
        "retain": False,
        "received_at": n,
        "packet_id": n + 1,
        "properties": Properties(response_topic=topic, correlation_data=b"%d" % n),
    }
    return msgspec.convert(fields | changes, Message)


def on(topic: str, n: int) -> Message:
    return msgspec.structs.replace(asking(n), topic=topic)


def numbers(receipts: Sequence[Receipt]) -> list[int]:
    return [int(receipt.correlation_data or b"-1") for receipt in receipts]


@asynccontextmanager
async def corridor(
    path: Path,
    link: MemoryLink,
    metrics: Metrics | None = None,
    receipts: Receipts | None = None,
    formats: Formats | None = None,
) -> AsyncIterator[None]:
    async with Log(path, OPTIONS) as log, link:
        task = asyncio.create_task(ingest(link, formats or Formats(), log, metrics or Metrics(), receipts=receipts))
        try:
            yield
        finally:
            task.cancel()
            await task


async def acked(link: MemoryLink, messages: int) -> None:
    async with asyncio.timeout(10):
        while len(link.acked) < messages:
            await asyncio.sleep(0)


async def test_each_message_that_asks_gets_one_receipt_with_its_correlation_data(tmp_path: Path) -> None:
    """In their order, empty, and those that do not ask get none."""
    link, metrics = MemoryLink(), Metrics()
    async with corridor(tmp_path / "amber.db", link, metrics):
        link.connect()
        link.feed(asking(0), asking(1, properties=None), asking(2, qos=2), asking(3, qos=0, packet_id=0))
        link.feed(asking(4, properties=Properties(response_topic=f"{PREFIX}other")))
        await acked(link, 4)
    assert link.receipts[:3] == [Receipt(f"{PREFIX}d", b"%d" % n) for n in (0, 2, 3)]
    assert link.receipts[3:] == [Receipt(f"{PREFIX}other")]
    assert metrics.receipts == 4
    assert "receipts 4" in Summary(metrics).line()


async def test_no_receipt_leaves_before_the_commit(tmp_path: Path) -> None:
    link, path = MemoryLink(), tmp_path / "amber.db"
    async with corridor(path, link):
        link.connect()
        link.feed(asking(0))
        await acked(link, 1)
        holder = sqlite.connect(path, isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        link.feed(asking(1))
        for _ in range(200):
            await asyncio.sleep(0.001)
        assert numbers(link.receipts) == [0]
        holder.execute("ROLLBACK")
        holder.close()
        await acked(link, 2)
        assert numbers(link.receipts) == [0, 1]


async def test_a_rejection_has_its_reason_in_the_receipt(tmp_path: Path) -> None:
    link, path = MemoryLink(), tmp_path / "amber.db"
    async with corridor(path, link):
        link.connect()
        link.feed(asking(0, payload=b"\xff\x00"), asking(1))
        await acked(link, 2)
    (reason,) = rejections(path)
    rejected, read = (receipt.payload for receipt in link.receipts)
    assert (json.loads(rejected), read) == ({"rejected": reason}, b"")


def rejections(path: Path) -> list[str]:
    connection = sqlite.connect(path)
    try:
        return [row[0] for row in connection.execute("SELECT reason FROM rejections ORDER BY message_id")]
    finally:
        connection.close()


async def test_what_the_log_itself_rejects_is_told_as_a_rejection(tmp_path: Path) -> None:
    """A format gave what no column can hold: the store kept a rejection, and the receipt must not say otherwise."""

    class Immense(Formats):
        def read(self, message: Message) -> Outcome:
            found = super().read(message)
            return [Event("d", "measurement", "json", 1 << 70, {"n": 1})] if message.payload == b'{"n":1}' else found

        def read_all(self, messages: Sequence[Message]) -> list[Outcome]:  # type: ignore[override]
            return [self.read(message) for message in messages]

    link, path = MemoryLink(), tmp_path / "amber.db"
    async with corridor(path, link, formats=Immense()):
        link.connect()
        link.feed(asking(0), asking(1), asking(2))
        await acked(link, 3)
    (reason,) = rejections(path)
    first, second, third = (receipt.payload for receipt in link.receipts)
    assert (first, json.loads(second), third) == (b"", {"rejected": reason}, b"")


async def test_a_redelivery_gets_its_receipt_again(tmp_path: Path) -> None:
    """The one before may have been lost with the connection. It says what the first said, and nothing is stored."""
    link, path, metrics = MemoryLink(), tmp_path / "amber.db", Metrics()
    both = asking(0), asking(1, payload=b"\xff")
    async with corridor(path, link, metrics):
        link.connect()
        link.feed(*both)
        await acked(link, 2)
        link.connect(resumed=True)
        link.feed(*(msgspec.structs.replace(one, dup=True) for one in both))
        await acked(link, 4)
    assert link.receipts[2:] == link.receipts[:2]
    assert (metrics.messages, metrics.redelivered, metrics.receipts) == (2, 2, 4)


async def test_a_copy_that_the_log_drops_gets_its_receipt(tmp_path: Path) -> None:
    """The device has asked again under the same name: what it says is stored, once."""
    link, path = MemoryLink(), tmp_path / "amber.db"
    payload = b'{"device":"d","boot":"b","seq":1,"time":"2026-11-22T09:00:00Z","readings":{"x":1}}'
    async with corridor(path, link):
        link.connect()
        link.feed(asking(0, payload=payload), asking(1, payload=payload))
        await acked(link, 2)
        link.feed(asking(2, payload=payload))
        await acked(link, 3)
    assert link.receipts == [Receipt(f"{PREFIX}d", b"%d" % n) for n in range(3)]
    assert count(path) == 1


async def test_what_is_not_stored_gets_no_receipt(tmp_path: Path) -> None:
    """What a rule ignores, what the gateway or a replay said: also as a redelivery."""
    link, metrics = MemoryLink(), Metrics()
    marked = Properties(response_topic=f"{PREFIX}d", user=(("amber-replay", "12"),))
    nothing = [on("debug/x", 0), asking(1, properties=marked), on("amber/receipts/d", 2)]
    async with corridor(
        tmp_path / "amber.db", link, metrics, formats=Formats(rules=[rule("debug/#", format="ignore")])
    ):
        for resumed in (False, True):
            link.connect(resumed=resumed)
            link.feed(*(msgspec.structs.replace(one, dup=resumed) for one in nothing))
            await acked(link, 6 if resumed else 3)
    assert (link.receipts, metrics.receipts, metrics.receipts_refused) == ([], 0, 0)


async def test_elsewhere_is_refused_counted_and_told_once_for_each_reason(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The message is stored and acknowledged all the same."""
    caplog.set_level(logging.INFO, "amber")
    link, metrics = MemoryLink(), Metrics()
    elsewhere = ["x/y", "amber/alarm", PREFIX, f"{PREFIX}#", f"{PREFIX}+/a", f"{PREFIX}a\0"]
    elsewhere += [f"{PREFIX}{'x' * 1_024}", PREFIX + "/" * 100, ""]
    async with corridor(tmp_path / "amber.db", link, metrics):
        link.connect()
        link.feed(*(asking(n, topic) for n, topic in enumerate(elsewhere)))
        await acked(link, len(elsewhere))
    assert link.receipts == []
    assert (metrics.messages, metrics.receipts_refused) == (len(elsewhere), len(elsewhere))
    assert f"receipts refused {len(elsewhere)}" in Summary(metrics).line()
    told = [line for line in caplog.messages if line.startswith("no receipt for a message on 'd/telemetry'")]
    assert len(told) == 4
    assert "its Response Topic 'x/y' is not under 'amber/receipts/' (receipts.prefix)" in told[0]


@given(st.text(st.characters(exclude_categories=[]), max_size=30), st.integers(0, 300))
def test_what_may_be_published_to_is_a_topic_that_every_broker_takes(rest: str, levels: int) -> None:
    topic = PREFIX + rest + "/" * levels
    if not refusal(topic, PREFIX):
        assert 1 < len(topic.encode()) <= 1_024
        assert topic.count("/") < 100
        assert not set(topic) & {*"+#\0\x1f\x7f\x9f\ufffe\uffff\U0010ffff"}
    elif re.fullmatch(r"[\w/ .-]+", rest, re.ASCII) and levels < 60:
        raise AssertionError(refusal(topic, PREFIX))


async def test_a_configured_prefix_is_where_receipts_go_and_whose_messages_are_its_own(tmp_path: Path) -> None:
    link, metrics, path = MemoryLink(), Metrics(), tmp_path / "amber.db"
    async with corridor(path, link, metrics, Receipts("plant/receipts/")):
        link.connect()
        link.feed(asking(0, "plant/receipts/d"), asking(1))
        link.feed(on("plant/receipts/d", 2))
        await acked(link, 3)
    assert numbers(link.receipts) == [0]
    assert (metrics.own, metrics.messages, metrics.receipts_refused) == (1, 2, 1)


async def test_switched_off_nobody_gets_one_and_nobody_is_refused(tmp_path: Path) -> None:
    link, metrics = MemoryLink(), Metrics()
    async with corridor(tmp_path / "amber.db", link, metrics, Receipts(enabled=False)):
        link.connect()
        link.feed(asking(0), asking(1, "x/y"))
        await acked(link, 2)
    assert (link.receipts, metrics.receipts_refused) == ([], 0)


async def test_a_receipt_whose_connection_has_ended_counts_as_left_out(tmp_path: Path) -> None:
    link, path, metrics = MemoryLink(), tmp_path / "amber.db", Metrics()
    async with corridor(path, link, metrics):
        link.connect()
        link.feed(asking(0))
        link.disconnect()
        async with asyncio.timeout(10):
            while not metrics.receipts_left_out:
                await asyncio.sleep(0)
    assert (link.receipts, metrics.receipts, metrics.receipts_left_out) == ([], 0, 1)
    assert "receipts left out 1" in Summary(metrics).line()


@pytest.mark.parametrize(
    "prefix", ["", "/", "a", "a/+/", "#/", "a\0/", "$SYS/", "é" * 300 + "/", "a/" * 60, "amber/receipts/\ud800/"]
)
def test_a_prefix_that_cannot_work_is_refused_in_words(
    prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"^write "):
        checked_prefix(prefix)
    with pytest.raises(ConfigError, match=r"^receipts\.prefix = .* does not work: write "):
        load(None, {"receipts": {"prefix": prefix}})


def test_the_settings_reach_the_gateway(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AMBER_RECEIPTS__PREFIX", "ä/r/")
    assert load(None, {}).make_receipts().prefix == "ä/r/"
    assert load(None, {}).make_receipts().asked([asking(0)]) == [asking(0)]
    assert load(None, {"receipts": {"enabled": False}}).make_receipts().asked([asking(0)]) == []


# --- with a broker, and paho as the device ---


class Device:
    """A device that asks for receipts, through paho; `receipts` is what it gets."""

    def __init__(self, broker: Mosquitto, name: str = "probe", *, keeps_session: bool = False) -> None:
        session = PahoProperties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        session.SessionExpiryInterval = 600 if keeps_session else 0
        self.topic = f"{PREFIX}{name}"
        self.receipts: queue.Queue[paho.MQTTMessage] = queue.Queue()
        subscribed: queue.Queue[None] = queue.Queue()
        self.client = paho.Client(CallbackAPIVersion.VERSION2, name, protocol=paho.MQTTv5)
        self.client.on_subscribe = lambda *_: subscribed.put(None)
        self.client.on_message = lambda _, __, receipt: self.receipts.put(receipt)
        self.client.connect("127.0.0.1", broker.port, clean_start=not keeps_session, properties=session)
        self.client.loop_start()
        self.client.subscribe(self.topic, 1)
        subscribed.get(timeout=10)

    def ask(self, number: int, payload: str = '{"n": 1}', *, topic: str | None = None, qos: int = 1) -> None:
        wanted = PahoProperties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        wanted.ResponseTopic, wanted.CorrelationData = topic or self.topic, b"%d" % number
        self.client.publish("probes/telemetry", payload, qos, properties=wanted).wait_for_publish(10)

    def leave(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()

    def next(self) -> tuple[int, bytes]:
        receipt = self.receipts.get(timeout=20)
        assert (receipt.topic, receipt.qos, receipt.retain) == (self.topic, 0, False)
        return int(receipt.properties.CorrelationData), bytes(receipt.payload)  # type: ignore[union-attr]


@pytest.fixture
def device(broker: Mosquitto) -> Iterator[Device]:
    device = Device(broker)
    yield device
    device.leave()


@pytest.fixture
def gateway(broker: Mosquitto, tmp_path: Path) -> Iterator[Gateway]:
    gateway = Gateway(broker.url, tmp_path / "amber.db")
    gateway.start()
    gateway.wait_until_said("subscribed")
    yield gateway
    gateway.end(signal.SIGTERM)


def test_a_device_gets_its_receipts_from_a_gateway_whose_store_has_the_messages(
    device: Device, gateway: Gateway, tmp_path: Path
) -> None:
    """At every QoS, with the reason of a rejection; and the gateway, subscribed to #, does not hear itself."""
    assert "subscribed to #" in gateway.said()
    for qos in (0, 1, 2):
        device.ask(qos, qos=qos)
        assert device.next() == (qos, b"")
        assert count(tmp_path / "amber.db") == qos + 1
    device.ask(3, "\x00\x01")
    number, payload = device.next()
    assert number == 3
    assert "no format fits" in json.loads(payload)["rejected"]
    device.ask(4, topic="elsewhere/probe")
    device.ask(5)
    assert device.next() == (5, b"")
    gateway.wait_until_said("its Response Topic 'elsewhere/probe' is not under 'amber/receipts/'")
    assert gateway.end(signal.SIGTERM) == 0
    (last,) = [line for line in gateway.said().splitlines() if "stopped: " in line]
    assert "receipts 5 · receipts refused 1" in last
    assert "own" not in last
    gateway.start()


DYING = """
import asyncio, os, signal, sys
from pathlib import Path
from gateway.config import load
from gateway.formats import Formats
from gateway.ingest import ingest
from gateway.link.codec import CodecLink, WireBatch
from gateway.metrics import Metrics
from storage.log import Log

class Dying:
    "The real link; the first acknowledgement of a message ends the process by kill -9."
    def __init__(self, link): self.link = link
    async def receive(self): return self.dying(await self.link.receive())
    def receive_now(self): return None
    def dying(self, batch):
        if batch.messages:
            ack = type("Batch", (), {"connection": batch.connection, "messages": batch.messages})()
            ack.ack = lambda receipts=(): os.kill(os.getpid(), signal.SIGKILL)
            return ack
        return batch

async def main():
    config = load(None, {"broker": sys.argv[1], "store": sys.argv[2]})
    async with Log(Path(sys.argv[2]), config.store_options) as log, CodecLink(config.link_options) as link:
        await ingest(Dying(link), Formats(), log, Metrics())
asyncio.run(main())
"""


def test_killed_between_commit_and_acknowledgement_the_receipt_comes_from_the_next_start(
    broker: Mosquitto, device: Device, tmp_path: Path
) -> None:
    """The broker delivers the message again; the log has it already; the device gets its word, once."""
    store = tmp_path / "amber.db"
    gateway = Gateway(broker.url, store)
    gateway.start()
    gateway.wait_until_said("subscribed")
    gateway.end(signal.SIGTERM)
    device.ask(7)
    env = {**os.environ, "AMBER_LINK__CLIENT_ID": "amber-proof", "AMBER_SEGMENTS__FREE_FLOOR_MB": "0"}
    dying = subprocess.run(
        [sys.executable, "-c", DYING, broker.url, str(store)], cwd=ROOT, env=env, timeout=60, check=False
    )
    assert dying.returncode == -signal.SIGKILL
    assert (count(store), device.receipts.qsize()) == (1, 0)
    gateway.start()
    try:
        assert device.next() == (7, b"")
        assert count(store) == 1
    finally:
        gateway.end(signal.SIGTERM)
    assert "redelivered 1 · receipts 1" in gateway.said()


def test_the_example_for_firmware_runs(broker: Mosquitto, gateway: Gateway, tmp_path: Path) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/receipts.md").read_text("utf-8"), re.DOTALL)
    assert gateway.said()
    done = subprocess.run(
        [sys.executable, "-c", example.replace("1883", str(broker.port))],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == "stored\n"
    assert count(tmp_path / "amber.db") == 1


@pytest.mark.parametrize("keeps", [True, False])
def test_a_receipt_for_a_device_that_is_away_waits_only_where_the_broker_keeps_qos_0(
    tmp_path: Path,
    keeps: bool,  # noqa: FBT001
) -> None:
    """What docs/receipts.md says of Mosquitto: with the setting of our mosquitto.conf, and without."""
    extra = "" if keeps else "queue_qos0_messages false\n"
    with Mosquitto(tmp_path / "broker", extra=extra) as broker:
        sender = Device(broker, "sender")
        Device(broker, "away", keeps_session=True).leave()
        gateway = Gateway(broker.url, tmp_path / "amber.db")
        gateway.start()
        gateway.wait_until_said("subscribed")
        sender.ask(1, topic=f"{PREFIX}away")
        sender.ask(2)
        assert sender.next() == (2, b"")
        gateway.end(signal.SIGTERM)
        away = Device(broker, "away", keeps_session=True)
        sender.client.publish(f"{PREFIX}away", b"marker", 1)
        assert away.receipts.get(timeout=10).payload == (b"" if keeps else b"marker")
        away.leave()
        sender.leave()
