"""Claims about `amber load`: what it sends, when, what it waits for, and that its figures say what was so."""

from __future__ import annotations

import asyncio
import json
import queue
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mqtt5
import paho.mqtt.client as paho
import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from mqtt5 import ConnAckPacket, DisconnectPacket, PubAckPacket, PublishPacket
from paho.mqtt.enums import CallbackAPIVersion
from typer.main import get_command
from typer.testing import CliRunner

from devices import load_cli
from devices.address import parse_address
from devices.broker import Mosquitto, _free_port
from devices.errors import DeviceError
from devices.load import report
from devices.load.histogram import Histogram
from devices.load.packets import MOST, PACKET_IDS, Packets, largest_packet, smallest_size
from devices.load.plan import Plan
from devices.load.run import Load
from devices.load.tally import Tally
from tests.crash.prove import Gateway, count
from tests.link.fakes import FakeBroker, Peer

ROOT = Path(__file__).resolve().parents[2]
TIME = b"2026-11-22T09:00:17.123456Z"


def plan(**changes: object) -> Plan:
    given: dict[str, Any] = {
        "rate": 1_000.0,
        "connections": 1,
        "duration_s": 1.0,
        "qos": 1,
        "size": 120,
        "receipts": False,
        "devices": 1,
        "topic": "devices/{device}/telemetry",
        "seed": 1,
    }
    return Plan(**(given | changes))


# --- what durations come to ---


@given(st.lists(st.integers(0, 10**12), min_size=1, max_size=200), st.sampled_from([0.001, 0.5, 0.9, 0.99, 0.999, 1.0]))
def test_a_percentile_is_right_to_two_digits(durations: list[int], share: float) -> None:
    histogram = Histogram()
    histogram.note(durations[:100])
    histogram.note(durations[100:])
    rank = next(n for n in range(1, len(durations) + 1) if n >= share * len(durations))
    exact = sorted(durations)[rank - 1]
    assert exact <= histogram.percentile_us(share) <= exact * 1.01
    assert (histogram.count, histogram.longest_us) == (len(durations), max(durations))
    assert sum(histogram.shares([10**13])) == pytest.approx(1)


def test_of_no_durations_there_is_no_percentile() -> None:
    histogram = Histogram()
    histogram.note([])
    assert (histogram.percentile_us(0.99), histogram.shares([10, 20])) == (0, [0.0, 0.0])


# --- what is due when ---


@given(st.floats(0.01, 1e6), st.integers(1, 60), st.integers(0, 10_000_000), st.integers(0, 100))
def test_every_message_is_due_once_and_at_its_time(rate: float, connections: int, at_us: int, first: int) -> None:
    """Dealt out in turn; what is due by now is what says so of itself, to a microsecond of rounding."""
    whole = plan(rate=rate, connections=connections, devices=connections, duration_s=None)
    due = whole.due_in_all(at_us)
    of = [whole.due_of(number, due) for number in range(connections)]
    assert sum(of) == due
    assert max(of) - min(of) <= 1
    for number in (0, connections - 1):
        times = whole.due_us(number, first, 3)
        assert times == sorted(times)
        assert whole.due_of(number, whole.due_in_all(times[0] + 1)) >= first + 1


def test_of_a_bounded_load_no_more_is_due_than_was_planned() -> None:
    assert (plan(rate=10.0, duration_s=2.0).planned, plan(rate=10.0, duration_s=2.0).due_in_all(10**9)) == (20, 20)
    assert plan(rate=None).planned is None


# --- what is sent ---


@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("receipts", [False, True])
@pytest.mark.parametrize("size", [1, 120, 1_000, 20_000])
@pytest.mark.parametrize("topic", ["devices/{device}/telemetry", "100%/{device}/ä%b"])
def test_a_packet_filled_in_is_what_the_codec_would_write(qos: int, receipts: bool, size: int, topic: str) -> None:  # noqa: FBT001
    """Whole packets, of the wanted size, that bear device, boot and seq: no two have the same."""
    size = max(size, smallest_size(7))
    whole = plan(qos=qos, receipts=receipts, size=size, topic=topic, devices=7, connections=2)
    packets = Packets(whole, 1, "0badcafe", "amber/receipts/x" if receipts else None)
    written = packets.next(0, 2, PACKET_IDS[1:3], TIME) + packets.next(2, MOST, PACKET_IDS[3 : 3 + MOST], TIME)
    view, at, found = memoryview(written), 0, []
    while at < len(view):
        packet, length = mqtt5.read(view[at:])
        assert isinstance(packet, PublishPacket)
        assert packet.write() == written[at : at + length]
        assert length <= largest_packet(whole) + 9  # the topic of another connection's receipts
        found.append(packet)
        at += length
    assert len(found) == 2 + MOST
    bodies = [json.loads(packet.payload) for packet in found]
    assert {len(packet.payload) for packet in found} == {size}
    assert [body["device"] for body in bodies[:4]] == ["load-0002", "load-0004", "load-0006", "load-0002"]
    assert [body["seq"] for body in bodies[:4]] == [0, 0, 0, 1]
    assert len({(body["device"], body["seq"]) for body in bodies}) == len(bodies)
    assert all((body["boot"], body["time"]) == ("0badcafe", TIME.decode()) for body in bodies)
    assert all(10 <= body["readings"]["x"] <= 30 for body in bodies)
    assert found[0].topic == topic.replace("{device}", "load-0002")
    assert [packet.packet_id for packet in found[:3]] == ([1, 2, 3] if qos else [None] * 3)
    numbers = [packet.correlation_data for packet in found]
    assert numbers == ([n.to_bytes(8) for n in range(2 + MOST)] if receipts else [None] * (2 + MOST))


def test_the_same_seed_gives_the_same_readings() -> None:
    one, same, other = (
        Packets(plan(seed=seed), 0, "0" * 8, None).next(0, 9, PACKET_IDS[1:], TIME) for seed in (1, 1, 2)
    )
    assert one == same != other


# --- against brokers ---


class Listener:
    """What an independent client hears of a load."""

    def __init__(self, broker: Mosquitto) -> None:
        self.heard: queue.Queue[bytes] = queue.Queue()
        subscribed: queue.Queue[None] = queue.Queue()
        self.client = paho.Client(CallbackAPIVersion.VERSION2, "listener", protocol=paho.MQTTv5)
        self.client.on_subscribe = lambda *_: subscribed.put(None)
        self.client.on_message = lambda _, __, message: self.heard.put(bytes(message.payload))
        self.client.connect("127.0.0.1", broker.port)
        self.client.loop_start()
        self.client.subscribe("devices/#", 2)
        subscribed.get(timeout=10)

    def names(self, messages: int) -> Counter[tuple[str, str, int]]:
        bodies = [json.loads(self.heard.get(timeout=20)) for _ in range(messages)]
        return Counter((body["device"], body["boot"], body["seq"]) for body in bodies)

    def leave(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


@pytest.fixture
def listener(broker: Mosquitto) -> Iterator[Listener]:
    listener = Listener(broker)
    yield listener
    listener.leave()


def command(broker: Mosquitto, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "gateway", "load", "--broker", broker.url, *options],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def result(process: subprocess.Popen[str]) -> dict[str, Any]:
    out, err = process.communicate(timeout=60)
    assert (process.returncode, "Traceback" in err) == (0, False), err
    told: dict[str, Any] = json.loads(out)
    return told


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_every_message_of_the_plan_arrives_once_under_its_name(broker: Mosquitto, listener: Listener, qos: int) -> None:
    tally = asyncio.run(run(broker.url, rate=2_000.0, duration_s=0.5, connections=3, devices=7, qos=qos))
    assert (tally.sent.count, tally.acknowledged.count) == (1_000, 1_000 if qos else 0)
    assert tally.unsent == tally.unanswered == tally.reconnects == 0
    names = listener.names(1_000)
    assert set(names.values()) == {1}
    by_device = {device: {seq for name, _, seq in names if name == device} for device, _, _ in names}
    assert sorted(by_device) == [f"load-{n:04}" for n in range(1, 8)]
    assert all(seqs == set(range(len(seqs))) for seqs in by_device.values())


def test_as_fast_as_it_goes_every_message_is_acknowledged(broker: Mosquitto) -> None:
    tally = asyncio.run(run(broker.url, rate=None, duration_s=0.1, connections=4, devices=4))
    assert tally.acknowledged.count == tally.sent.count > 100
    assert tally.unanswered == 0


def test_with_a_gateway_every_message_is_receipted(broker: Mosquitto, tmp_path: Path) -> None:
    gateway = Gateway(broker.url, tmp_path / "amber.db")
    gateway.start()
    try:
        gateway.wait_until_said("subscribed")
        options = ("--rate", "500", "--duration", "1s", "--connections", "3", "--receipts", "--format", "json")
        told = result(command(broker, *options))
        assert told["receipted"]["messages"] == told["acknowledged"]["messages"] == 500
        assert (told["unreceipted"], told["rejected"]) == (0, 0)
        assert count(tmp_path / "amber.db") == 500
    finally:
        gateway.end(signal.SIGTERM)


def test_a_lost_connection_is_made_again_and_counted(broker: Mosquitto, listener: Listener) -> None:
    """What was on the way then is never answered, and said to be; what was due meanwhile is sent later."""
    process = command(broker, "--rate", "300", "--duration", "2s", "--connections", "2", "--format", "json")
    for _ in range(100):
        listener.heard.get(timeout=20)
    broker.kill()
    broker.start()
    told = result(process)
    assert told["reconnects"] >= 2
    assert told["acknowledged"]["messages"] + told["unanswered"] == told["sent"]["messages"]
    assert told["sent"]["messages"] + told["unsent"] == told["planned"]
    assert told["acknowledged"]["max_ms"] > told["acknowledged"]["p50_ms"]


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_it_in_good_order_with_the_table_of_what_was_done(
    broker: Mosquitto, listener: Listener, sign: signal.Signals
) -> None:
    process = command(broker, "--rate", "200", "--connections", "2")
    for _ in range(20):
        listener.heard.get(timeout=20)
    process.send_signal(sign)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert out.startswith("200 messages/s wanted for ")
    (row,) = [line.split() for line in out.splitlines() if line.startswith("acknowledged")]
    assert int(row[1]) >= 20
    assert "until it was acknowledged\n" in out


def test_what_the_broker_refuses_is_counted_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "acl").write_text("topic read #\n")
    with Mosquitto(tmp_path / "broker", extra=f"acl_file {tmp_path / 'acl'}\n") as broker:
        told = result(command(broker, "--rate", "100", "--duration", "1s", "--connections", "1", "--format", "json"))
    assert (told["refused"], told["acknowledged"]["messages"], told["trouble"]) == (100, 0, "not authorized")
    assert not told["reached"]


async def run(url: str, **changes: object) -> Tally:
    load = Load(plan(**changes), parse_address(url), None)
    await load.connect()
    await load.send()
    await load.close()
    return load.tally


async def test_no_more_is_on_the_way_than_the_broker_allows() -> None:
    """Receive Maximum (MQTT 5.0, section 3.2.2.3.3), however much is due; packet ids are used again once free."""

    async def script(peer: Peer, _: int) -> None:
        await peer.read()
        await peer.send(ConnAckPacket(receive_max=5))
        waiting = [await peer.read() for _ in range(5)]
        for _ in range(35):
            assert [kind for kind in all_of(peer.heard) if kind is PublishPacket][5 + len(settled) :] == []
            first = waiting.pop(0)
            assert isinstance(first, PublishPacket)
            assert first.packet_id is not None
            settled.append(first.packet_id)
            await peer.send(PubAckPacket(first.packet_id))
            waiting.append(await peer.read())
        for packet in waiting:
            assert isinstance(packet, PublishPacket)
            await peer.send(PubAckPacket(packet.packet_id or 0))
        assert isinstance(await peer.read(), DisconnectPacket)

    settled: list[int] = []
    async with FakeBroker(script) as broker:
        tally = await run(broker.url, rate=40_000.0, duration_s=0.001)
    assert settled == [1, 2, 3, 4, 5] * 7
    assert (tally.sent.count, tally.acknowledged.count) == (40, 40)


def all_of(heard: bytes) -> list[type]:
    view, at, kinds = memoryview(heard), 0, list[type]()
    while at < len(view):
        packet, size = mqtt5.read(view[at:])
        kinds.append(type(packet))
        at += size
    return kinds


async def test_durations_count_from_the_moment_a_message_was_due() -> None:
    """A broker that stands still for 0.3 s costs all that were due meanwhile, not only the one on the way."""

    async def script(peer: Peer, _: int) -> None:
        await peer.read()
        await peer.send(ConnAckPacket(receive_max=1))
        for number in range(20):
            assert isinstance(await peer.read(), PublishPacket)
            if number == 0:
                await asyncio.sleep(0.3)
            await peer.send(PubAckPacket(1))
        await peer.read_all()

    async with FakeBroker(script) as broker:
        tally = await run(broker.url, rate=200.0, duration_s=0.1)
    assert tally.acknowledged.count == 20
    assert tally.acknowledged.durations.percentile_us(0.05) >= 200_000
    assert tally.sent.durations.longest_us >= 290_000


async def test_a_broker_that_cannot_take_the_load_is_told_before_it_begins() -> None:
    async def script(peer: Peer, _: int) -> None:
        await peer.read()
        await peer.send(ConnAckPacket(max_packet_size=100))
        await peer.read()

    async with FakeBroker(script) as broker:
        with pytest.raises(DeviceError, match="it takes packets of 100 bytes at most"):
            await run(broker.url)


# --- what it says ---


def tally_of(sent: int, acknowledged: int, *, span_s: float, busy_s: float = 0.0) -> Tally:
    """Even progress over the span."""
    tally = Tally(span_s=span_s, processor_s=busy_s)
    for stage, messages in ((tally.sent, sent), (tally.acknowledged, acknowledged)):
        for at_us in (1, int(span_s * 1e6)):
            stage.note(at_us, [1_000] * (messages // 2))
    return tally


@pytest.mark.parametrize(
    ("tally", "says"),
    [
        (tally_of(10_000, 10_000, span_s=10.0), r"wanted for 10\.0 s at QoS 1 over 1 connection: reached$"),
        (tally_of(10_000, 7_500, span_s=10.0), r"NOT reached, 750/s acknowledged, 25\.0 % short; it was not this"),
        (tally_of(5_000, 5_000, span_s=10.0, busy_s=9.5), r"NOT reached, 500/s .*50\.0 % short; this process was the"),
        (tally_of(0, 0, span_s=10.0), r"NOT reached, 0/s acknowledged, 100\.0 % short"),
        (Tally(), r"wanted for 0\.0 s at QoS 1 over 1 connection: NOT"),
    ],
)
def test_it_says_whether_the_rate_was_reached_and_by_how_much_not(tally: Tally, says: str) -> None:
    assert re.search(says, report.verdict(tally, plan(duration_s=10.0)))
    assert json.loads(report.as_json(tally, plan(duration_s=10.0)))["reached"] == ("NOT" not in says)
    assert report.as_text(tally, plan(duration_s=10.0))


@pytest.mark.parametrize(("taken_s", "rate"), [(10.1, 1_000), (20.25, 500)])
def test_at_qos_0_the_rate_is_that_at_which_the_broker_read(taken_s: float, rate: int) -> None:
    """Sockets take megabytes that no broker has seen: written to them says little."""
    tally = tally_of(10_000, 0, span_s=10.0)
    tally.taken_s = taken_s
    told = json.loads(report.as_json(tally, plan(qos=0, duration_s=10.0)))
    assert (told["reached_rate"], told["measured_by"]) == (rate, "read by the broker")
    assert told["reached"] == (rate == 1_000)
    assert f"the broker had read all after {taken_s:.1f} s" in report.as_text(tally, plan(qos=0, duration_s=10.0))


@pytest.mark.parametrize(
    ("us", "text"),
    [(0, "0 µs"), (999, "999 µs"), (1_000, "1 ms"), (12_345, "12 ms"), (345_678, "346 ms"), (1_234_567, "1.2 s")],
)
def test_a_duration_has_two_digits_and_a_unit(us: int, text: str) -> None:
    assert report.duration(us) == text


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--rate", "-1"], "--rate"),
        (["--rate", "nan"], "--rate"),
        (["--rate", "fast"], "or max"),
        (["--rate", "1e9"], "10000000"),
        (["--connections", "0"], "--connections"),
        (["--duration", "soon"], "30s, 5m or 1h"),
        (["--qos", "3"], "--qos"),
        (["--size", "0"], "--size"),
        (["--size", "1"], "at least 119"),
        (["--size", "121", "--devices", "1000000"], "at least 122"),
        (["--size", "99999999"], "--size"),
        (["--devices", "3", "--connections", "4"], "at least 4"),
        (["--topic", "a/#"], "wildcards"),
        (["--topic", ""], "wildcards"),
        (["--topic", "a/{name}"], "{device}"),
        (["--topic", "a" * 2_000], "1024"),
        (["--broker", "http://x"], "mqtt://"),
        (["--ca-file", "ca.pem"], "mqtts://"),
        (["--format", "xml"], "--format"),
    ],
)
def test_bad_input_is_refused_in_words(options: list[str], words: str) -> None:
    app = typer.Typer(rich_markup_mode=None)
    load_cli.register(app)
    done = CliRunner().invoke(app, options)
    assert (done.exit_code, done.stdout) == (2, "")
    assert words in done.stderr


def test_a_broker_out_of_reach_is_one_line_and_exit_code_1() -> None:
    options = ["--broker", f"mqtt://127.0.0.1:{_free_port()}"]
    done = subprocess.run(
        [sys.executable, "-m", "gateway", "load", *options], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("amber: cannot connect to mqtt://127.0.0.1:")
    assert done.stderr.count("\n") == 1


def test_the_options_stand_in_its_page() -> None:
    text = (ROOT / "docs/load.md").read_text("utf-8")
    app = typer.Typer(add_completion=False)
    load_cli.register(app)
    names = [option for parameter in get_command(app).params for option in parameter.opts]
    assert len(names) > 8
    assert [name for name in names if f"`{name}`" not in text] == []
