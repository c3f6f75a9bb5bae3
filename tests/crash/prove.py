"""The proof of exactly once: an independent client publishes while the gateway is killed, stopped or cut off.

`python -m tests.crash.prove --by kill --times 30 --messages 100000` is the long form of what the tests run short.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from devices.broker import Mosquitto
from devices.proxy import Proxy
from storage.engine import sqlite

SETTLED_WITHIN_S = 120.0

T = TypeVar("T")


class Verdict(NamedTuple):
    """What the client knows was acknowledged to it, held against the store."""

    acknowledged: int
    stored: int
    lost: int
    repeated: int
    strangers: int
    disturbances: int

    @property
    def holds(self) -> bool:
        return not (self.lost or self.repeated or self.strangers) and self.stored == self.acknowledged

    def __str__(self) -> str:
        return " · ".join(f"{name} {value}" for name, value in self._asdict().items())


class Gateway:
    """A gateway process that can be ended in any way, and started again."""

    def __init__(self, url: str, store: Path, log: Path | None = None, config: Path | None = None) -> None:
        self._arguments = [sys.executable, "-m", "gateway", "run", "--broker", url, "--store", str(store)]
        self._arguments += ["--config", str(config)] if config else []
        self._log = log or store.with_suffix(".log")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("ab") as log:
            env = {**os.environ, "AMBER_LINK__CLIENT_ID": "amber-proof", "AMBER_SEGMENTS__FREE_FLOOR_MB": "0"}
            self._process = subprocess.Popen(self._arguments, stdout=log, stderr=log, env=env)

    def end(self, sign: signal.Signals) -> int:
        assert self._process
        self._process.send_signal(sign)
        return self._process.wait(30)

    def wait(self) -> int:
        """Its status, when it ends by itself."""
        assert self._process
        return self._process.wait(30)

    def resident_mb(self) -> float:
        assert self._process
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) / 1000

    def wait_until_said(self, words: str, within_s: float = 30.0) -> None:
        patience = time.monotonic() + within_s
        while words not in self.said():
            assert self._process
            if self._process.poll() is not None or time.monotonic() > patience:
                raise AssertionError(f"the gateway never said {words!r}:\n{self.said()[-2000:]}")
            time.sleep(0.02)

    def said(self) -> str:
        return self._log.read_text()


def prove(folder: Path, *, by: str, times: int, messages: int, seed: int, rate: float | None = None) -> Verdict:
    """Publish while disturbing `times` times, let everything settle, and count."""
    chance = random.Random(seed)
    store = folder / "amber.db"
    with Mosquitto(folder / "broker") as broker, Proxy(broker.port) as proxy:
        gateway = Gateway(f"mqtt://127.0.0.1:{proxy.port}", store)
        gateway.start()
        gateway.wait_until_said("subscribed")
        acknowledged: set[str] = set()
        publisher = threading.Thread(target=publish, args=(broker.port, messages, rate, acknowledged))
        publisher.start()
        for _ in range(times):
            disturb(gateway, proxy, by, chance)
        publisher.join()
        settle(store, len(acknowledged))
        gateway.end(signal.SIGTERM)
    return verdict(store, acknowledged, times)


def disturb(gateway: Gateway, proxy: Proxy, by: str, chance: random.Random) -> None:
    """One disturbance at a random moment; `cut` leaves the process alone."""
    time.sleep(chance.uniform(0.05, 2.5))
    if by == "cut":
        proxy.cut()
        return
    status = gateway.end(signal.SIGKILL if by == "kill" else signal.SIGTERM)
    assert by == "kill" or status in (0, -signal.SIGTERM), f"SIGTERM gave {status}"
    gateway.start()


def publish(port: int, messages: int, rate: float | None, acknowledged: set[str]) -> None:
    """Publish at QoS 1 and 2 by turns through paho, with at most 200 on the way; note what was acknowledged."""
    client = paho.Client(CallbackAPIVersion.VERSION2, "proof-publisher", protocol=paho.MQTTv5)
    client.max_inflight_messages_set(200)
    room = threading.Semaphore(200)
    client.on_publish = lambda *_: room.release()
    client.connect("127.0.0.1", port)
    client.loop_start()
    started, sent = time.monotonic(), []
    for n in range(messages):
        room.acquire()
        if rate is not None:
            time.sleep(max(0.0, started + n / rate - time.monotonic()))
        payload = f'{{"device":"probe-{n % 50}","seq":{n},"value":{n % 7}}}'
        sent.append((client.publish(f"probes/{n % 50}/telemetry", payload, qos=1 + n % 2), payload))
    for _ in range(200):
        room.acquire()
    acknowledged.update(payload for info, payload in sent if info.is_published())
    client.disconnect()
    client.loop_stop()


def settle(store: Path, wanted: int) -> None:
    """Wait until the store has so many messages, or it is plain that they do not come."""
    patience = time.monotonic() + SETTLED_WITHIN_S
    while count(store) < wanted and time.monotonic() < patience:
        time.sleep(0.1)


def count(store: Path) -> int:
    return ask(store, lambda db: int(db.execute("SELECT count(*) FROM messages").fetchone()[0]))


def verdict(store: Path, acknowledged: set[str], disturbances: int) -> Verdict:
    payloads = ask(store, lambda db: [row[0] for row in db.execute("SELECT CAST(payload AS TEXT) FROM messages")])
    seqs = ask(store, lambda db: [row[0] for row in db.execute("SELECT seq FROM events")])
    assert sorted(seqs) == sorted(int(payload.split('"seq":')[1].split(",")[0]) for payload in payloads)
    stored = Counter(payloads)
    return Verdict(
        acknowledged=len(acknowledged),
        stored=len(stored),
        lost=len(acknowledged - stored.keys()),
        repeated=sum(stored.values()) - len(stored),
        strangers=len(stored.keys() - acknowledged),
        disturbances=disturbances,
    )


def ask(store: Path, question: Callable[[Any], T]) -> T:
    connection = sqlite.connect(f"{store.as_uri()}?mode=ro", uri=True)
    try:
        return question(connection)
    finally:
        connection.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--by", choices=("kill", "term", "cut"), default="kill")
    parser.add_argument("--times", type=int, default=30)
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--rate", type=float, default=None, help="messages a second; default spreads them evenly")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    rate = options.rate or options.messages / (options.times * 1.3)
    with tempfile.TemporaryDirectory(prefix="amber-proof-") as folder:
        found = prove(
            Path(folder), by=options.by, times=options.times, messages=options.messages, seed=options.seed, rate=rate
        )
    print(f"{options.by}: {found}")
    sys.exit(not found.holds)


if __name__ == "__main__":
    main()
