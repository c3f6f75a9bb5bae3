"""Claims about a stream of every format at once: all of it is stored and read as in one sitting, through a kill -9."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from devices.broker import Mosquitto
from gateway.formats import Formats
from gateway.reprocess import Reading, same
from storage.event import Message, Rejection
from storage.history import Reader
from storage.identities import told_identity
from storage.outcomes import StoredOutcome
from tests.crash.prove import Gateway, settle
from tests.formats.fuzz import recorded
from tests.formats.mutations import seeds

OWN = "amber/"


class Verdict(NamedTuple):
    """The messages sent, those stored in their order and unchanged, and those that are not read as they should be."""

    sent: int
    stored: int
    events: int
    rejections: int
    strangers: list[str]

    @property
    def holds(self) -> bool:
        return self.sent == self.stored and not self.strangers


def stream(folder: Path, messages: Sequence[Message]) -> Verdict:
    """Publish all; kill the gateway when half of it has arrived, and hold the store against one sitting."""
    store, half = folder / "amber.db", len(messages) // 2
    (folder / "amber.toml").write_text('subscribe = ["#", "$aws/#", "$iothub/#", "$EDC/#"]\n')
    with Mosquitto(folder / "broker") as broker:
        gateway = Gateway(broker.url, store, config=folder / "amber.toml")
        with ended(gateway, signal.SIGKILL):
            gateway.wait_until_said("subscribed")
            publish(broker.port, messages[:half])
            settle(store, half)
        publish(broker.port, messages[half:])
        with ended(gateway, signal.SIGTERM):
            settle(store, len(messages))
        with ended(gateway, signal.SIGTERM):  # what is still to be read again may be, or not: both are right
            gateway.wait_until_said("subscribed")
    with Reader(store) as reader:
        return verdict(messages, [one for page in reader.outcomes() for one in page])


@contextmanager
def ended(gateway: Gateway, sign: signal.Signals) -> Iterator[None]:
    """A gateway that runs meanwhile, and is ended whatever happens."""
    gateway.start()
    try:
        yield
    finally:
        gateway.end(sign)


def verdict(sent: Sequence[Message], stored: Sequence[StoredOutcome]) -> Verdict:
    """Whether each message became what it becomes in one sitting, or what it becomes with all that was learned."""
    formats, strangers = Formats(), list[str]()
    alike = [(one.message.topic, one.message.payload) for one in stored] == [(m.topic, m.payload) for m in sent]
    firsts = [formats.read(one.message) for one in stored]
    for one, first in zip(stored, firsts, strict=True):
        again = formats.read_again(one.message)
        if not same(Reading(one, first)) and not same(Reading(one, again)):
            strangers.append(f"{one.message.topic} {one.message.payload[:80]!r}: {one.rejection or one.events}")
    return Verdict(
        sent=len(sent),
        stored=len(stored) if alike else -1,
        events=sum(len(one.events) for one in stored),
        rejections=sum(one.rejection is not None for one in stored),
        strangers=strangers,
    )


def publish(port: int, messages: Sequence[Message]) -> None:
    """Publish at QoS 1, one after the other, with the properties that the messages have."""
    client = paho.Client(CallbackAPIVersion.VERSION2, "mixed", protocol=paho.MQTTv5)
    client.connect("127.0.0.1", port)
    client.loop_start()
    for message in messages:
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        if message.properties is not None and message.properties.content_type:
            properties.ContentType = message.properties.content_type
        if message.properties is not None and message.properties.user:
            properties.UserProperty = list(message.properties.user)
        client.publish(message.topic, message.payload, qos=1, properties=properties).wait_for_publish(60)
    client.disconnect()
    client.loop_stop()


def sendable(messages: Sequence[Message]) -> list[Message]:
    """Those that a broker takes, and the gateway keeps; the first alone of those that bear one identity."""
    formats, known, found = Formats(), set[tuple[str, str]](), list[Message]()
    for message in messages:
        outcome = formats.read(message)
        events = () if isinstance(outcome, Rejection) else outcome
        names = {(event.device, name) for event in events if (name := told_identity(event)) is not None}
        if _is_topic(message.topic) and not message.topic.startswith(OWN) and known.isdisjoint(names):
            known |= names
            found.append(message)
    return found


def _is_topic(topic: str) -> bool:
    try:
        return (
            0 < len(topic.encode()) < 65_536
            and topic.count("/") < 200
            and topic.isprintable()
            and not {"+", "#"} & set(topic)
        )
    except UnicodeEncodeError:
        return False


@pytest.mark.timeout(300)
def test_every_format_at_once_is_stored_and_read_through_a_kill(tmp_path: Path) -> None:
    found = stream(tmp_path, sendable([message for _, message in seeds()]))
    assert found.strangers == []
    assert found.stored == found.sent
    assert found.events > found.sent // 2


def main() -> None:
    """`python -m tests.crash.test_mixed_stream FILE`: the same with recorded messages, lines of JSON."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("file", type=Path)
    messages = [message for _, message in recorded(parser.parse_args().file)]
    with tempfile.TemporaryDirectory(prefix="amber-mixed-") as folder:
        found = stream(Path(folder), sendable(messages))
    for stranger in found.strangers:
        print(stranger)
    print(
        f"{len(messages)} messages, {found.sent} sent · stored {found.stored} · events {found.events} · "
        f"rejections {found.rejections} · not as they should be {len(found.strangers)}"
    )
    sys.exit(not found.holds)


if __name__ == "__main__":
    main()
