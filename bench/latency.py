"""How long from a publish to the commit that holds it, at a steady rate."""

from __future__ import annotations

import json
import tempfile
import threading
import time
from pathlib import Path

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from bench import rig
from storage.filters import Filters
from storage.history import Reader


def main(rate: int = 1_000, seconds: int = 20) -> None:
    """Publish at a steady rate, each payload with the moment of its publish, and read off when it was acknowledged.

    The gateway acknowledges after its COMMIT. A follower that polls the store sees a commit a little later: its
    figures bound those of the commit from above.
    """
    with tempfile.TemporaryDirectory(prefix="amber-bench-") as name, rig.broker(Path(name)) as broker:
        store = Path(name) / "latency.db"
        count = rate * seconds
        with rig.Gateway(broker, store), Reader(store) as reader:
            rig.wait_until_subscribed(store.with_suffix(".log"))
            publisher = threading.Thread(target=publish, args=(broker.port, count, rate))
            publisher.start()
            seen: list[float] = []
            position = 0
            while len(seen) < count:
                for page in reader.pages(Filters(after=position)):
                    now = time.time_ns()
                    seen += [(now - json.loads(event.readings)["sent_ns"]) / 1e6 for event in page]
                    position = page[-1].id
                time.sleep(0.0005)
            publisher.join()
    seen = sorted(seen[rate:])
    rows = [(f"p{p:g}", f"{seen[int(len(seen) * p / 100)]:.1f}") for p in (50, 90, 99, 99.9)]
    rig.table(f"Published → committed and seen by a reader, at {rate:,}/s, QoS 1", rows, ("of the messages", "ms"))


def publish(port: int, count: int, rate: int) -> None:
    client = paho.Client(CallbackAPIVersion.VERSION2, "bench-latency", protocol=paho.MQTTv5)
    client.connect("127.0.0.1", port)
    client.loop_start()
    started = time.monotonic()
    for n in range(count):
        time.sleep(max(0.0, started + n / rate - time.monotonic()))
        body = f'{{"device":"bench-{n % 100:03}","seq":{n},"sent_ns":{time.time_ns()}}}'
        client.publish(f"devices/bench-{n % 100:03}/telemetry", body, qos=1)
    client.loop_stop()
    client.disconnect()
