"""The proof of at least once: consumers are killed at random, and their targets fail, while the log grows.

`python -m tests.crash.test_consumers 100` is the long form of what the tests run short.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

import msgspec
import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from devices.broker import Mosquitto
from tests.storage.histories import History, entries

ROOT = Path(__file__).resolve().parents[2]
WITHIN_S = 60.0

RECORDER = """
import os, sys, time
time.sleep(0.005)  # work, in the midst of which it may be killed
lines = [line for line in sys.stdin.buffer if line.endswith(b"\\n")]  # the last is torn where the sender was killed
file = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
os.write(file, b"".join(lines))
os.fsync(file)
"""


class Verdict(NamedTuple):
    """What was delivered, held against the log."""

    events: int
    delivered: int
    missing: int
    strangers: int
    in_order: bool
    kills: int

    @property
    def holds(self) -> bool:
        return self.events > 0 and not self.missing and not self.strangers and self.in_order

    def __str__(self) -> str:
        return " · ".join(f"{name} {value}" for name, value in self._asdict().items())


def prove_by_command(folder: Path, kills: int, seed: int = 1) -> Verdict:
    """Each batch goes to a command that notes it in a file, which is synced."""
    file = folder / "delivered"
    script = folder / "recorder.py"
    script.write_text(RECORDER)
    options = ["--exec", f"{sys.executable} -I -S {script} {file}", "--batch", "20"]

    def delivered() -> list[int]:
        return [json.loads(line)["id"] for line in file.read_bytes().splitlines()] if file.exists() else []

    return prove(folder, options, delivered, kills, random.Random(seed))


def prove_by_http(folder: Path, kills: int, seed: int = 2) -> Verdict:
    """Each batch is posted to a server that answers as it likes, or does not."""
    received: list[int] = []
    with moody_server(received, random.Random(seed)) as url:
        options = ["--to", url, "--batch", "50", "--timeout", "5s"]
        return prove(folder, options, lambda: list(received), kills, random.Random(seed))


def prove_by_broker(folder: Path, kills: int, seed: int = 3) -> Verdict:
    """Each message goes to a broker, which acknowledges it; what counts are messages, by the number at their end."""
    received: list[int] = []
    with Mosquitto(folder / "broker") as broker, listening(broker, received):
        options = ["--to", broker.url, "--same-topics", "--batch", "20"]
        return prove(folder, options, lambda: list(received), kills, random.Random(seed), per_message=True)


def prove(
    folder: Path,
    options: Sequence[str],
    delivered: Callable[[], list[int]],
    kills: int,
    random: random.Random,
    *,
    per_message: bool = False,
) -> Verdict:
    """Kill a consumer at random moments while somebody writes, then let it come to the end of the log."""
    with History(folder / "amber.db", segment_events=500) as history:
        done = threading.Event()
        writer = threading.Thread(target=write, args=(history, done, random.randrange(1 << 30)))
        writer.start()
        try:
            for _ in range(kills):
                kill_after(history.path, options, delivered, len(delivered()) + random.randrange(1, 400), random)
        finally:
            done.set()
            writer.join()
        subprocess.run(consume(history.path, *options, "--once"), cwd=ROOT, timeout=WITHIN_S, check=True)
        wanted = [event.message_id if per_message else event.id for event in history.events]
    wanted = list(dict.fromkeys(wanted))
    patience = time.monotonic() + WITHIN_S
    while not set(wanted) <= set(came := delivered()) and time.monotonic() < patience and per_message:
        time.sleep(0.01)  # the broker has them, and hands them on
    firsts = list(dict.fromkeys(came))
    return Verdict(
        events=len(wanted),
        delivered=len(came),
        missing=len(set(wanted) - set(came)),
        strangers=len(set(came) - set(wanted)),
        in_order=firsts == sorted(firsts),
        kills=kills,
    )


def write(history: History, done: threading.Event, seed: int) -> None:
    """Some messages now and then, in small commits."""
    noise, number = random.Random(seed), 0
    while not done.wait(0.01):
        count = noise.randrange(1, 8)
        history.append(
            [
                (msgspec.structs.replace(message, topic=f"t/{n}", qos=1, packet_id=1), outcome)
                for n, (message, outcome) in enumerate(entries(noise, count, number))
            ]
        )
        number += count


def kill_after(
    path: Path, options: Sequence[str], delivered: Callable[[], list[int]], count: int, random: random.Random
) -> None:
    """Start a consumer, and kill it some milliseconds after so many events were delivered in all."""
    process = subprocess.Popen(consume(path, *options), cwd=ROOT, stderr=subprocess.DEVNULL)
    try:
        patience = time.monotonic() + WITHIN_S
        while len(delivered()) < count:
            assert process.poll() is None, "the consumer has ended by itself"
            assert time.monotonic() < patience, "nothing is delivered"
            time.sleep(0.002)
        time.sleep(random.random() * 0.02)
    finally:
        end(process, with_command=random.random() < 0.7)


def end(process: subprocess.Popen[bytes], *, with_command: bool) -> None:
    """Kill a consumer; together with the command that it runs, as when the machine goes down, or without."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split() if with_command else []
    process.send_signal(signal.SIGKILL)
    for child in children:
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(child), signal.SIGKILL)
    process.wait(WITHIN_S)


def consume(path: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "gateway", "consume", "proof", "--store", str(path), *options]


@contextlib.contextmanager
def listening(broker: Mosquitto, received: list[int]) -> Iterator[None]:
    """Notes the number at the end of each payload that comes at a broker."""

    def note(_client: paho.Client, _data: object, message: paho.MQTTMessage) -> None:
        found = re.search(rb"\d+$", message.payload)
        assert found is not None
        received.append(int(found[0]) + 1)

    ready = threading.Event()
    client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
    client.on_subscribe = lambda *_: ready.set()
    client.on_message = note
    client.connect("127.0.0.1", broker.port)
    client.subscribe("t/#", qos=1)
    client.loop_start()
    assert ready.wait(WITHIN_S)
    try:
        yield
    finally:
        client.disconnect()
        client.loop_stop()


@contextlib.contextmanager
def moody_server(received: list[int], random: random.Random) -> Iterator[str]:
    """Takes one batch of three not, in one of several ways; of some it takes only says that it did not."""

    class Moody(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            lines = self.rfile.read(int(self.headers["Content-Length"])).splitlines()
            mood = random.choice(("error", "later", "silence", "lost", *("well",) * 8))
            if mood in ("well", "lost"):
                received.extend(json.loads(line)["id"] for line in lines)
            if mood in ("silence", "lost"):
                self.close_connection = True
                return
            self.send_response({"well": 204, "error": 500, "later": 429}[mood])
            if mood == "later":
                self.send_header("Retry-After", "0")
            if mood != "well":
                self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *values: object) -> None:
            """Nothing."""

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            """Nothing: clients get killed."""

    server = Quiet(("127.0.0.1", 0), Moody)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/events"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize("proof", [prove_by_command, prove_by_http, prove_by_broker])
def test_every_event_is_delivered_in_order_however_often_the_consumer_is_killed(
    proof: Callable[[Path, int], Verdict], tmp_path: Path
) -> None:
    verdict = proof(tmp_path, 4)
    assert verdict.holds, verdict


def main() -> None:
    kills = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    for proof in (prove_by_command, prove_by_http, prove_by_broker):
        with tempfile.TemporaryDirectory() as folder:
            seed = int.from_bytes(os.urandom(4), "big")
            verdict = proof(Path(folder), kills, seed)
            print(f"{proof.__name__} seed {seed}: {'holds' if verdict.holds else 'FAILS'} · {verdict}", flush=True)
        if not verdict.holds:
            sys.exit(1)


if __name__ == "__main__":
    main()
