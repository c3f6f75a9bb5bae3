"""Claims about the whole gateway under faults: nothing acknowledged is lost, memory stays flat, it carries on."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from devices.broker import Mosquitto
from storage.engine import sqlite
from tests.crash.prove import Gateway, ask
from tests.formats.hostile import hostile_payloads

GOOD = '{"device":"good","seq":%d,"value":1}'


@contextmanager
def running(broker: Mosquitto, store: Path) -> Iterator[Gateway]:
    gateway = Gateway(broker.url, store, log=broker.folder / "gateway.log")
    gateway.start()
    gateway.wait_until_said("subscribed")
    try:
        yield gateway
    finally:
        gateway.end(signal.SIGTERM)


@contextmanager
def publisher(broker: Mosquitto) -> Iterator[paho.Client]:
    client = paho.Client(CallbackAPIVersion.VERSION2, "publisher", protocol=paho.MQTTv5)
    client.max_inflight_messages_set(1_000)
    client.connect("127.0.0.1", broker.port)
    client.loop_start()
    try:
        yield client
    finally:
        client.disconnect()
        client.loop_stop()


def publish(client: paho.Client, payloads: list[str | bytes], topic: str = "faults/good/telemetry") -> None:
    """Publish at QoS 1; return when all are acknowledged to the device."""
    for info in [client.publish(topic, payload, qos=1) for payload in payloads]:
        info.wait_for_publish(60)


def good(start: int, end: int) -> list[str | bytes]:
    return [GOOD % n for n in range(start, end)]


def seqs(store: Path) -> list[int]:
    """The sequence numbers of the good events, in the order of the log."""

    def question(db: Any) -> list[int]:
        return [row[0] for row in db.execute("SELECT seq FROM events WHERE device = 'good' ORDER BY id")]

    return ask(store, question)


def until(true: Callable[[], bool], within_s: float = 60.0) -> None:
    patience = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < patience
        time.sleep(0.05)


def test_a_thousand_hostile_payloads_between_good_ones(broker: Mosquitto, tmp_path: Path) -> None:
    store = tmp_path / "amber.db"
    hostile = hostile_payloads(1_000, seed=5)
    with running(broker, store) as gateway, publisher(broker) as client:
        for n, payload in enumerate(hostile):
            client.publish(f"hostile/{n % 10}", payload, qos=n % 3)
            client.publish("faults/good/telemetry", GOOD % n, qos=1 + n % 2)
        until(lambda: len(seqs(store)) == len(hostile))
        gateway.wait_until_said("subscribed")
    assert sorted(seqs(store)) == list(range(len(hostile)))
    kept = ask(store, lambda db: db.execute("SELECT count(*) FROM messages WHERE topic LIKE 'hostile/%'").fetchone()[0])
    told = ask(
        store,
        lambda db: db.execute(
            "SELECT count(DISTINCT m.id) FROM messages m LEFT JOIN events e ON e.message_id = m.id "
            "LEFT JOIN rejections r ON r.message_id = m.id "
            "WHERE m.topic LIKE 'hostile/%' AND (e.id IS NOT NULL OR r.id IS NOT NULL)"
        ).fetchone()[0],
    )
    assert kept == told == len(hostile)


def test_a_broker_that_goes_away_is_waited_for(broker: Mosquitto, tmp_path: Path) -> None:
    store = tmp_path / "amber.db"
    with running(broker, store) as gateway:
        with publisher(broker) as client:
            publish(client, good(0, 100))
        until(lambda: len(seqs(store)) == 100)
        broker.stop()
        gateway.wait_until_said("trying again until it works")
        broker.start()
        with publisher(broker) as client:
            publish(client, good(100, 200))
        until(lambda: len(seqs(store)) == 200)
        assert gateway.said().count("trying again until it works") == 1
    assert seqs(store) == list(range(200))


def test_a_locked_store_holds_acknowledgements_back_and_then_goes_on(broker: Mosquitto, tmp_path: Path) -> None:
    store = tmp_path / "amber.db"
    with running(broker, store) as gateway, publisher(broker) as client:
        publish(client, good(0, 10))
        until(lambda: len(seqs(store)) == 10)
        holder = sqlite.connect(store, isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        publish(client, good(10, 3_000))
        gateway.wait_until_said("locked by another program")
        assert len(seqs(store)) == 10
        holder.execute("ROLLBACK")
        holder.close()
        until(lambda: len(seqs(store)) == 3_000)
        gateway.wait_until_said("the store is well again")
    assert seqs(store) == list(range(3_000))


def test_a_deleted_store_is_begun_anew_with_what_was_not_acknowledged(broker: Mosquitto, tmp_path: Path) -> None:
    store = tmp_path / "amber.db"
    with running(broker, store) as gateway, publisher(broker) as client:
        publish(client, good(0, 10))
        until(lambda: len(seqs(store)) == 10)
        for file in (store, *store.parent.glob("amber.db-*")):
            file.unlink()
        publish(client, good(10, 20))
        gateway.wait_until_said("was deleted or replaced")
        gateway.wait_until_said("the store is well again")
        until(lambda: len(seqs(store)) == 10)
    assert seqs(store) == list(range(10, 20))


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk takes root")
def test_on_a_full_disk_memory_stays_flat_and_nothing_is_lost(broker: Mosquitto, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], check=True)
    store = disk / "amber.db"
    try:
        with running(broker, store) as gateway, publisher(broker) as client:
            publish(client, good(0, 12_000))
            gateway.wait_until_said("is full")
            before = gateway.resident_mb()
            publish(client, good(12_000, 30_000))
            assert gateway.resident_mb() < before + 20
            subprocess.run(["mount", "-o", "remount,size=256m", disk], check=True)
            until(lambda: len(seqs(store)) == 30_000)
        assert seqs(store) == list(range(30_000))
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk takes root")
def test_it_stops_within_ten_seconds_though_the_disk_is_full(broker: Mosquitto, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], check=True)
    try:
        gateway = Gateway(broker.url, disk / "amber.db", log=tmp_path / "gateway.log")
        gateway.start()
        gateway.wait_until_said("subscribed")
        with publisher(broker) as client:
            publish(client, good(0, 10_000))
        gateway.wait_until_said("is full")
        started = time.monotonic()
        assert gateway.end(signal.SIGTERM) == 1
        assert time.monotonic() - started < 10
        assert re.search(
            r"^amber: the disk under .* is full: make room, or move the store$", gateway.said(), re.MULTILINE
        )
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


def test_a_second_gateway_on_one_store_is_refused(broker: Mosquitto, tmp_path: Path) -> None:
    store = tmp_path / "amber.db"
    with running(broker, store):
        second = Gateway(broker.url, store, log=tmp_path / "second.log")
        second.start()
        assert second.wait() == 1
        assert re.fullmatch(r"amber: .* is in use by another gateway \(process \d+\): stop it first\n", second.said())
