"""Devices of every dialect publish through a real broker, and a real gateway stores what was measured, and no more."""

from __future__ import annotations

import signal
import socket
from collections import defaultdict
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from devices.broker import Mosquitto
from devices.dialects import DIALECTS, speak
from devices.fleet import Device, Fleet, devices
from devices.outgoing import Publication, Sample
from devices.telemetry import samples
from storage import open_log
from tests.crash.prove import Gateway, ask, settle
from tests.devices.heard import TELLS_PRESENCE, heard_at, heard_device, misheard
from tests.devices.test_dialects import START_US, fleet

FLEETS = {dialect: fleet(dialect, count=2) for dialect in DIALECTS}
"""Of each the first device takes its leave, and the second dies."""

SAMPLES = 5


class Said(NamedTuple):
    """What one device said of one sample."""

    device: Device
    sample: Sample
    publications: Sequence[Publication]


class Stored(NamedTuple):
    store: Path
    said: Sequence[Said]


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Stored:
    """A store that has heard all of the fleets, and what they said."""
    folder = tmp_path_factory.mktemp("dialects")
    store = folder / "amber.db"
    with Mosquitto(folder / "broker") as broker:
        gateway = Gateway(broker.url, store)
        gateway.start()
        gateway.wait_until_said("subscribed")
        said: list[Said] = []
        messages = 0
        for here in FLEETS.values():
            for number, device in enumerate(devices(here)):
                messages += live(device, here, broker, said, dies=number == 1)
        settle(store, messages)
        assert gateway.end(signal.SIGTERM) in (0, -signal.SIGTERM)
    return Stored(store, said)


def live(device: Device, here: Fleet, broker: Mosquitto, said: list[Said], *, dies: bool) -> int:
    """One connection of one device; how many messages a gateway is to have of it."""
    dialect = speak(device, here)
    will = dialect.will(START_US)
    birth = dialect.birth(START_US)
    told = [Said(device, one, dialect.telemetry(one)) for one in islice(samples(device, here), SAMPLES)]
    said += told
    death = dialect.death(START_US)
    client = connected(device, will, broker)
    publications = [*birth, *(one for sample in told for one in sample.publications), *(() if dies else death)]
    answers = [
        client.publish(one.topic, one.payload, 1, one.retain, typed(one, PacketTypes.PUBLISH)) for one in publications
    ]
    for answer in answers:
        answer.wait_for_publish(10)
    if dies:
        wire = client.socket()
        assert isinstance(wire, socket.socket)
        wire.shutdown(socket.SHUT_RDWR)
    else:
        client.disconnect()
    client.loop_stop()
    return len(publications) + (dies and will is not None)


def connected(device: Device, will: Publication | None, broker: Mosquitto) -> paho.Client:
    client = paho.Client(CallbackAPIVersion.VERSION2, f"amber-device-{device.name}", protocol=paho.MQTTv5)
    if will is not None:
        client.will_set(will.topic, will.payload, 1, will.retain, typed(will, PacketTypes.WILLMESSAGE))
    client.connect("127.0.0.1", broker.port)
    client.loop_start()
    return client


def typed(publication: Publication, packet: int) -> Properties:
    properties = Properties(packet)  # type: ignore[no-untyped-call]
    if publication.content_type:
        properties.ContentType = publication.content_type
    return properties


def test_nothing_that_devices_say_is_rejected(stored: Stored) -> None:
    assert ask(stored.store, lambda db: db.execute("SELECT reason FROM rejections").fetchall()) == []


@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_store_holds_what_was_measured(dialect: str, stored: Stored) -> None:
    log = open_log(stored.store)
    for device in devices(FLEETS[dialect]):
        events = defaultdict(list)
        for event in log.events(device=heard_device(device)):
            events[event.topic, log.payload(event.message_id)].append(event)
        mine = [one for one in stored.said if one.device == device]
        assert len(mine) == SAMPLES
        for _, sample, publications in mine:
            told = [events[one.topic, one.payload].pop(0) for one in publications]
            found = {name: value for event in told for name, value in event.readings.items()}
            assert misheard(dialect, sample, device.group.units, found) == []
            at = heard_at(dialect, sample)
            assert {event.time_source for event in told} == {"gateway" if at is None else "device"}
            assert at is None or {event.observed_us for event in told} == {at}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_store_knows_who_has_gone(dialect: str, stored: Stored) -> None:
    """By their farewell, and by their will, as far as that speaks of them."""
    known = {one.device: one.online for one in open_log(stored.store).devices()}
    gone = [known[heard_device(device)] for device in devices(FLEETS[dialect])]
    _, farewell, will = TELLS_PRESENCE.get(dialect, (None, None, None))
    assert gone[0] is (None if farewell is None else False)
    assert gone[1] is False or will is None
