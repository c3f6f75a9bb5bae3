"""What the tests see the devices with: the command as a user starts it, and a listener that shares no code with it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from devices.broker import Mosquitto


class Finished(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


class Heard(NamedTuple):
    """One message, as the listener got it."""

    topic: str
    payload: bytes
    qos: int
    retain: bool

    @property
    def content(self) -> Any:  # JSON
        return json.loads(self.payload)


def command(*options: object) -> list[str]:
    return [sys.executable, "-W", "error", "-m", "devices", *map(str, options)]


def start(*options: object) -> subprocess.Popen[str]:
    return subprocess.Popen(command(*options), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str], *, within_s: float = 30) -> Finished:
    try:
        out, err = process.communicate(timeout=within_s)
    finally:
        process.kill()
    return Finished(process.returncode, out, err)


def simulate(*options: object) -> Finished:
    return finish(start(*options))


class Listener:
    """Keeps all it hears, in one long session: what is sent while it is away it hears afterwards."""

    def __init__(self) -> None:
        self.heard: list[Heard] = []
        self.properties: list[Any] = []
        self._news = threading.Condition()

    def on_message(self, _client: Client, _userdata: object, message: MQTTMessage) -> None:
        with self._news:
            self.properties.append(message.properties)
            self.heard.append(Heard(message.topic, bytes(message.payload), message.qos, message.retain))
            self._news.notify_all()

    def telemetry(self) -> list[Heard]:
        return [message for message in self.heard if message.topic.endswith("/telemetry")]

    def states(self) -> dict[str, str]:
        """The last state told of each device."""
        told = [message.content for message in self.heard if message.topic.endswith("/status")]
        return {status["device"]: status["state"] for status in told}

    def events(self) -> set[tuple[str, str, int]]:
        """Device, boot and sequence number of all telemetry, each once."""
        told = [message.content for message in self.telemetry()]
        return {(event["device"], event["boot"], event["seq"]) for event in told}

    def wait_for(self, claim: Callable[[], bool], *, within_s: float = 15) -> None:
        """Return as soon as what was heard makes the claim true."""
        with self._news:
            assert self._news.wait_for(claim, within_s), f"not true of {len(self.heard)} messages in {within_s} s"


@contextmanager
def listening(
    broker: Mosquitto, *, name: str = "listener", also_retained: bool = False, also: str | None = None
) -> Iterator[Listener]:
    """A listener that hears all that devices publish from here on, and what was retained before if it is asked to.

    `also` is what it hears beside the topics of `devices/`.
    """
    listener = Listener()
    subscribed = threading.Event()
    client = Client(CallbackAPIVersion.VERSION2, client_id=name, protocol=MQTTProtocolVersion.MQTTv5)
    client.on_message = listener.on_message
    client.on_subscribe = lambda *_: subscribed.set()
    client.reconnect_delay_set(1, 1)
    session = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    session.SessionExpiryInterval = 3600
    client.connect("127.0.0.1", broker.port, clean_start=False, properties=session)
    client.loop_start()
    handling = SubscribeOptions.RETAIN_SEND_ON_SUBSCRIBE if also_retained else SubscribeOptions.RETAIN_DO_NOT_SEND
    options = SubscribeOptions(qos=2, retainHandling=handling)
    client.subscribe([(topic, options) for topic in ("devices/#", also) if topic])
    try:
        assert subscribed.wait(10)
        yield listener
    finally:
        client.disconnect()
        client.loop_stop()


def numbers(finished: Finished) -> dict[str, int]:
    """What the summary says: published, acknowledged, failed, statuses, devices."""
    return {name: int(number) for name, number in re.findall(r"(\w+) (\d+)", finished.out)}
