"""What holds a gateway back: the codec alone, SQLite alone with the same rows, other clients only receiving."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path

import aiomqtt
import mqtt5
import msgspec
import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from bench.rig import DEVICES, payload, publish, topic
from devices.broker import Mosquitto
from storage import schema, segments
from storage.event import EVENTS_PER_MESSAGE
from storage.rows import insert_rows
from storage.store import Store, StoreOptions

BATCH = 5_000


def codec(count: int = 200_000) -> float:
    """Messages a second that the codec alone reads."""
    packets = [
        mqtt5.PublishPacket(topic(n), payload(n), qos=mqtt5.QoS.AT_LEAST_ONCE, packet_id=n + 1).write()
        for n in range(1_000)
    ]
    view = memoryview(b"".join(packets))
    started = time.perf_counter()
    for _ in range(count // 1_000):
        offset = 0
        while offset < len(view):
            _, length = mqtt5.read(view[offset:])
            offset += length
    return count / (time.perf_counter() - started)


def sqlite(folder: Path, count: int, *, plain_index: bool = False) -> float:
    """Rows of messages and events a second that SQLite alone commits: the same tables, SQL and settings.

    `plain_index` keeps the events' index entry by entry instead of in runs.
    """
    store = Store(folder / f"sqlite-{plain_index}.db", StoreOptions(segment_events=1 << 40))
    connection, segment = store.connection, store.segment
    if plain_index:
        connection.exec_driver_sql("CREATE INDEX plain ON events_1 (device_id, observed_at)")
    rows = [_rows(start) for start in range(0, count, BATCH)]
    started = time.perf_counter()
    for number, (messages, events) in enumerate(rows, 1):
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        insert_rows(connection, schema.messages(1), messages)
        insert_rows(connection, schema.events(1), events)
        if not plain_index and number * BATCH - segment.events >= segments.INDEX_RUN_EVENTS:
            segment = segments.index_run(connection, segment, number * BATCH)
        connection.commit()
    taken = time.perf_counter() - started
    store.close()
    return count / taken


def _rows(start: int) -> tuple[list[object], list[object]]:
    messages: list[object] = []
    events: list[object] = []
    for n in range(start, start + BATCH):
        body = payload(n)
        fields = msgspec.json.decode(body)
        observed_at, seq = fields.pop("time"), fields.pop("seq")
        del fields["device"]
        device = n % DEVICES + 1
        messages += (n + 1, device, 1_763_802_000_000_000 + n, 1, 0, 1, n % 65_535 + 1, None, body)
        readings = msgspec.json.encode(fields).decode()
        events += ((n + 1) * EVENTS_PER_MESSAGE, device, 1, 2, observed_at, 1, seq, readings, None)
    return messages, events


def paho_receives(mosquitto: Mosquitto, count: int) -> float:
    """Messages a second that paho receives at QoS 1 from a backlog, doing nothing with them."""
    client = _session(mosquitto, "bench-paho")
    publish(mosquitto.port, 0, count)
    times: list[float] = []
    done = threading.Event()

    def on_message(*_: object) -> None:
        times.append(time.perf_counter())
        if len(times) == count:
            done.set()

    client.on_message = on_message
    _connect(client, mosquitto)
    client.loop_start()
    if not done.wait(120):
        raise TimeoutError(f"paho received {len(times)} of {count}")
    client.disconnect()
    client.loop_stop()
    return (count - 1) / (times[-1] - times[0])


def aiomqtt_receives(mosquitto: Mosquitto, count: int) -> float:
    """Messages a second that aiomqtt receives at QoS 1 from a backlog, doing nothing with them."""
    _session(mosquitto, "bench-aiomqtt")
    publish(mosquitto.port, 0, count)
    return asyncio.run(_receive(mosquitto, count))


async def _receive(mosquitto: Mosquitto, count: int) -> float:
    client = aiomqtt.Client(
        "127.0.0.1",
        mosquitto.port,
        identifier="bench-aiomqtt",
        protocol=aiomqtt.ProtocolVersion.V5,
        clean_start=False,
        properties=_properties(),
    )
    got, started = 0, 0.0
    async with client:
        async for _ in client.messages:
            started = started or time.perf_counter()
            got += 1
            if got == count:
                break
    return (count - 1) / (time.perf_counter() - started)


def _session(mosquitto: Mosquitto, client_id: str) -> paho.Client:
    """A session at the broker that is subscribed to everything, and the client that left it."""
    client = paho.Client(CallbackAPIVersion.VERSION2, client_id, protocol=paho.MQTTv5)
    subscribed = threading.Event()
    client.on_subscribe = lambda *_: subscribed.set()
    client.on_connect = lambda client, *_: client.subscribe("#", 1)
    _connect(client, mosquitto)
    client.loop_start()
    if not subscribed.wait(10):
        raise TimeoutError(f"{client_id} could not subscribe")
    client.disconnect()
    client.loop_stop()
    client.on_connect = None
    return client


def _connect(client: paho.Client, mosquitto: Mosquitto) -> None:
    client.connect("127.0.0.1", mosquitto.port, clean_start=False, properties=_properties())


def _properties() -> Properties:
    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    properties.SessionExpiryInterval, properties.ReceiveMaximum = 600, 1_000
    return properties
