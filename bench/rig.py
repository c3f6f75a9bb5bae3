"""What every benchmark stands on: a broker, a backlog in it, a gateway process, and a table at the end."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

from devices.broker import Mosquitto
from storage.event import EVENTS_PER_MESSAGE
from storage.filters import Filters
from storage.history import Reader

ROOT = Path(__file__).resolve().parent.parent
CLIENT_ID = "amber-bench"
DEVICES = 1_000
QUIET = "autosave_interval 3600\n"
"""A save of a large queue stops Mosquitto for seconds; what is measured here is not its disk."""


def payload(n: int) -> bytes:
    """The n-th message's payload: 120 bytes of JSON."""
    text = (
        f'{{"device":"bench-{n % DEVICES:04}","seq":{n},"time":{1_763_802_000_000_000 + 100 * n},'
        f'"temperature":{20 + n % 977 / 100:.2f},"humidity":{40 + n % 311 / 10:.1f},"battery":3.71,"ok":true'
    )
    return f"{text:<119}}}".encode()


def topic(n: int) -> str:
    return f"devices/bench-{n % DEVICES:04}/telemetry"


@contextlib.contextmanager
def broker(folder: Path) -> Iterator[Mosquitto]:
    with Mosquitto(folder / "broker", extra=QUIET) as mosquitto:
        yield mosquitto


def publish(port: int, first: int, count: int, *, qos: int = 1, rate: float | None = None) -> None:
    """Publish messages first … first + count - 1 in MQTT 3.1.1 by hand: at full rate, or on absolute deadlines."""
    with socket.create_connection(("127.0.0.1", port)) as link:
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        link.sendall(b"\x10\x11\x00\x04MQTT\x04\x02\x00\x00\x00\x05bench")
        _read(link, 4)
        started, sent, unacknowledged = time.monotonic(), 0, 0
        while sent < count:
            step = min(500 if rate is None else max(1, int(rate / 500)), count - sent)
            if rate is not None:
                time.sleep(max(0.0, started + sent / rate - time.monotonic()))
            link.sendall(b"".join(_publish(first + sent + i, qos) for i in range(step)))
            sent += step
            if qos:
                unacknowledged += step
                over = unacknowledged - 2_000 if sent < count else unacknowledged
                if over > 0:
                    _read(link, 4 * over)
                    unacknowledged -= over
        link.sendall(b"\xe0\x00")


def _publish(n: int, qos: int) -> bytes:
    name, body = topic(n).encode(), payload(n)
    packet_id = (n % 65_535 + 1).to_bytes(2) if qos else b""
    rest = len(name).to_bytes(2) + name + packet_id + body
    return bytes((0x30 | qos << 1, len(rest) & 127 | 128, len(rest) >> 7)) + rest


def _read(link: socket.socket, count: int) -> None:
    while count:
        got = len(link.recv(min(count, 1 << 16)))
        if not got:
            raise ConnectionError("the broker closed the connection")
        count -= got


class Gateway:
    """A gateway process on a broker and a store."""

    def __init__(self, broker: Mosquitto, store: Path, *, log: Path | None = None) -> None:
        self.store = store
        self._log = log or store.with_suffix(".log")
        options = ["--broker", broker.url, "--store", str(store)]
        with self._log.open("ab") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "gateway", "run", *options],
                cwd=ROOT,
                stdout=file,
                stderr=file,
                env={**os.environ, "AMBER_LINK__CLIENT_ID": CLIENT_ID, "AMBER_LOG__STATUS_INTERVAL_S": "2"},
            )

    def __enter__(self) -> Self:
        patience = time.monotonic() + 20
        while "connected to" not in self._log.read_text():
            if self._process.poll() is not None or time.monotonic() > patience:
                raise RuntimeError(f"the gateway did not start:\n{self._log.read_text()}")
            time.sleep(0.01)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """SIGTERM, and what it says about its end."""
        self._process.terminate()
        self._process.wait(30)

    def peak_mb(self) -> float:
        """The most resident memory it had so far."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1000  # type: ignore[index]

    def cpu_s(self) -> float:
        """Processor time so far, in user and system mode."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def wait_for(reader: Reader, messages: int, within_s: float = 300) -> float:
    """The moment (monotonic) at which the log has so many messages; the last of them gives an event."""
    patience = time.monotonic() + within_s
    while (reached := reader.position() // EVENTS_PER_MESSAGE) < messages:
        if time.monotonic() > patience:
            raise TimeoutError(f"the log has {reached:,} messages after {within_s:.0f} s, not {messages:,}")
        time.sleep(0.05)
    return time.monotonic()


def received_at(reader: Reader, messages: int, within_s: float = 60) -> int:
    """When the first message after so many was received, in microseconds since the epoch."""
    wait_for(reader, messages + 1, within_s)
    after = (messages + 1) * EVENTS_PER_MESSAGE - 1
    return next(iter(reader.pages(Filters(after=after), limit=1)))[0].received_at


def subscribe_session(folder: Path, mosquitto: Mosquitto) -> None:
    """Let the gateway subscribe once, so that the broker keeps what comes while it is away."""
    with Gateway(mosquitto, folder / "session.db") as gateway:
        wait_until_subscribed(folder / "session.log")
        gateway.stop()


def wait_until_subscribed(log: Path) -> None:
    """Until the broker has granted the gateway's filters, as its log tells."""
    patience = time.monotonic() + 10
    while "subscribed" not in log.read_text():
        if time.monotonic() > patience:
            raise TimeoutError(f"the gateway could not subscribe:\n{log.read_text()}")
        time.sleep(0.02)


def table(title: str, rows: Sequence[Sequence[object]], head: Sequence[str]) -> None:
    """Print a Markdown table, so that it can stand in a document as it is."""
    print(f"\n### {title}\n")
    print("| " + " | ".join(head) + " |")
    print("|" + "---|" * len(head))
    for row in rows:
        print("| " + " | ".join(map(str, row)) + " |", flush=True)


def machine() -> str:
    """The machine in one line."""
    model = (
        re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text()) if Path("/proc/cpuinfo").exists() else None
    )
    name = model[1] if model else platform.processor()
    return f"{os.cpu_count()} × {name}, {platform.system()} {platform.release()}, Python {platform.python_version()}"


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def wall_us_at(moment: float) -> int:
    """A monotonic moment as microseconds since the epoch."""
    return time.time_ns() // 1000 - round((time.monotonic() - moment) * 1e6)
