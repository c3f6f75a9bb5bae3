"""The oracle of order: among a gateway's system calls, no acknowledgement or receipt precedes its message's sync."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from devices.broker import Mosquitto
from tests.crash.prove import count

MESSAGES = 60
CALL = re.compile(r"^(\d+) +(?:<\.\.\. )?(\w+)(?: resumed>|\()(.*)$")


def test_no_acknowledgement_leaves_before_the_sync_of_its_commit(broker: Mosquitto, tmp_path: Path) -> None:
    if shutil.which("strace") is None:
        pytest.skip("strace is the oracle")
    trace, store, log = tmp_path / "trace", tmp_path / "amber.db", tmp_path / "gateway.log"
    calls = "trace=recvfrom,sendto,write,pwrite64,fsync,fdatasync"
    traced: list[str | Path] = [
        "strace",
        "-f",
        "-yy",
        "-xx",
        "-s",
        "1000000",
        "-o",
        trace,
        "-e",
        calls,
        "--",
        sys.executable,
    ]
    with log.open("wb") as file:
        gateway = subprocess.Popen(
            [*traced, "-m", "gateway", "run", "--broker", broker.url, "--store", store], stdout=file, stderr=file
        )
    try:
        patience = time.monotonic() + 60
        while "subscribed" not in log.read_text():
            assert time.monotonic() < patience, log.read_text()
            time.sleep(0.05)
        publish(broker.port)
        while count(store) < MESSAGES:
            assert time.monotonic() < patience, log.read_text()
            time.sleep(0.05)
    finally:
        for child in Path(f"/proc/{gateway.pid}/task/{gateway.pid}/children").read_text().split():
            os.kill(int(child), signal.SIGTERM)
        gateway.wait(30)
    check(trace.read_text().splitlines())


def publish(port: int) -> None:
    client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
    client.connect("127.0.0.1", port)
    client.loop_start()
    sent = [
        client.publish("order/probe", f"marker-{n:05}", qos=1 + n % 2, properties=asking(n)) for n in range(MESSAGES)
    ]
    for info in sent:
        info.wait_for_publish(30)
    client.disconnect()
    client.loop_stop()


def asking(n: int) -> Properties:
    """For a receipt."""
    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    properties.ResponseTopic, properties.CorrelationData = "amber/receipts/order", b"receipt-%05d" % n
    return properties


def check(lines: list[str]) -> None:
    """For each message: received, written to the write-ahead log, synced, acknowledged and receipted, in this order."""
    packet_ids: dict[int, int] = {}
    written: dict[int, int] = {}
    acknowledged: dict[int, int] = {}
    receipted: dict[int, int] = {}
    syncs: list[int] = []
    begun: dict[tuple[str, str], str] = {}
    for at, line in enumerate(lines):
        found = CALL.match(line)
        if not found:
            continue
        process, call, rest = found.groups()
        if rest.endswith("<unfinished ...>"):
            begun[process, call] = rest
            continue
        rest = begun.pop((process, call), "") + rest
        data = b"".join(bytes.fromhex(text.replace("\\x", "")) for text in re.findall(r'"((?:\\x[0-9a-f]{2})*)"', rest))
        if call == "recvfrom":
            for marker in re.finditer(rb"order/probe(..).*?marker-(\d{5})", data, re.DOTALL):
                packet_ids[int(marker[2])] = int.from_bytes(marker[1])
        elif call == "pwrite64" and "amber.db-wal" in path_of(rest):
            for marker in re.finditer(rb"marker-(\d{5})", data):
                written.setdefault(int(marker[1]), at)
        elif call in ("fsync", "fdatasync") and "amber.db-wal" in path_of(rest) and rest.endswith("= 0"):
            syncs.append(at)
        elif call in ("sendto", "write") and "TCP" in rest:
            for packet in re.finditer(rb"[\x40\x50]\x02(..)", data, re.DOTALL):
                acknowledged.setdefault(int.from_bytes(packet[1]), at)
            for receipt in re.finditer(
                rb"\x30.\0\x14amber/receipts/order\x10\x09\0\x0dreceipt-(\d{5})", data, re.DOTALL
            ):
                receipted.setdefault(int(receipt[1]), at)
    assert sorted(packet_ids) == list(range(MESSAGES))
    for n, packet_id in packet_ids.items():
        assert any(written[n] < sync < acknowledged[packet_id] for sync in syncs), (n, packet_id)
        assert acknowledged[packet_id] == receipted[n], (n, packet_id)


def path_of(rest: str) -> str:
    """The path that strace shows behind a descriptor; in hexadecimal like every text."""
    found = re.search(r"<([^>]*)>", rest)
    text = found[1] if found else ""
    return re.sub(r"\\x([0-9a-f]{2})", lambda code: chr(int(code[1], 16)), text)
