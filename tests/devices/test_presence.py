"""Devices that leave, die, flap and are impersonated lose nothing that was acknowledged, and tell of their coming."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from msgspec.structs import replace

from devices.address import Address
from devices.broker import Mosquitto
from devices.clock import SECOND_US, Clock
from devices.connection import Client, Door
from devices.counts import Counts
from devices.device import World, live
from devices.faults import Faults, Spell
from devices.fleet import Fleet, Session, devices
from devices.ledger import Ledger, digest, read
from devices.outgoing import Outgoing
from devices.presence import Absences
from tests.devices.faulty import START_US, fleet_of, one_of, sent
from tests.devices.outside import Listener, listening

BORN, LEFT, DIED = "born", "left", "died"

DISTURBED = {
    "offline": Faults(offline=Spell(at_s=(0.5,), for_s=0.6)),
    "death": Faults(death=Spell(at_s=(0.5,), for_s=0.6)),
    "clash": Faults(clash=Spell(at_s=(0.5,), for_s=0.5)),
    "flapping": Faults(flapping=Spell(at_s=(0.5,), for_s=1.6)),
    "sound": Faults(),
}


def world(fleet: Fleet, port: int = 1, ledger: Ledger | None = None, client: Client = "codec") -> World:
    return World(
        fleet=fleet,
        clock=Clock.starting_now(fleet.start_us),
        door=Door(Address("127.0.0.1", port), asyncio.Semaphore(8), client=client),
        counts=Counts(devices=fleet.devices),
        ledger=ledger,
        stopping=asyncio.Event(),
        reached=asyncio.Event(),
    )


@contextmanager
def kept(path: Path) -> Iterator[Ledger]:
    with Ledger(path) as ledger:
        yield ledger


async def lived(here: World) -> None:
    async with asyncio.TaskGroup() as lives:
        for device in devices(here.fleet):
            lives.create_task(live(device, here))


def all_acknowledged(ledger: Path) -> set[str]:
    """The digests of what was acknowledged: all that was sent."""
    digests = {}
    acked = set()
    for record in read(ledger):
        key = (record.device, record.boot, record.seq, record.part, record.copy)
        if record.state == "sent":
            digests[key] = record.digest
        else:
            acked.add(key)
    assert acked == digests.keys()
    return {digests[key] for key in acked}


def heard(listener: Listener) -> set[str]:
    return {digest(message.topic, message.payload) for message in listener.heard}


def presence(listener: Listener, device: str) -> list[str]:
    """A will tells when the connection was begun, a farewell when it was said."""
    told, since = [], ""
    for message in listener.heard:
        if message.topic == f"devices/{device}/status":
            status = message.content
            if status["state"] == "online":
                told.append(BORN)
                since = status["time"]
            else:
                told.append(LEFT if status["time"] > since else DIED)
    return told


@pytest.mark.parametrize(
    ("qos", "client", "session"),
    [(1, "codec", "clean"), (2, "codec", "clean"), (2, "codec", "persistent"), (1, "aiomqtt", "clean")],
)
def test_whatever_disturbs_a_device_all_that_was_acknowledged_is_heard(
    broker: Mosquitto, tmp_path: Path, qos: int, client: Client, session: Session
) -> None:
    """By somebody who listens in a session of their own; and nothing was refused or left behind."""
    one = fleet_of(every_s=0.02, duration_s=2.5, qos=qos, session=session)
    groups = tuple(replace(one.groups[0], name=name, prefix=name, faults=faults) for name, faults in DISTURBED.items())
    fleet = replace(one, groups=groups)

    async def play() -> Counts:
        with kept(tmp_path / "ledger.jsonl") as ledger:
            here = world(fleet, broker.port, ledger, client)
            await lived(here)
            return here.counts

    with listening(broker) as listener:
        counts = asyncio.run(play())
        acknowledged = all_acknowledged(tmp_path / "ledger.jsonl")
        listener.wait_for(lambda: acknowledged <= heard(listener))
        listener.wait_for(lambda: all(presence(listener, f"{name}-0001")[-1] == LEFT for name in DISTURBED))
    assert (counts.published, counts.acknowledged, counts.failed) == (625, 625, 0)
    assert counts.connected == 0
    assert presence(listener, "offline-0001") == [BORN, LEFT, BORN, LEFT]
    assert presence(listener, "death-0001") == [BORN, DIED, BORN, LEFT]
    assert presence(listener, "clash-0001") == [BORN, DIED, BORN, LEFT]
    flapping = presence(listener, "flapping-0001")
    assert flapping in [[BORN, *[DIED, BORN] * cuts, LEFT] for cuts in (1, 2)]
    assert presence(listener, "sound-0001") == [BORN, LEFT]


@pytest.mark.parametrize("stopped", [False, True])
def test_who_is_away_at_the_end_comes_back_to_hand_over_what_it_has(
    broker: Mosquitto, tmp_path: Path, *, stopped: bool
) -> None:
    """Whether the fleet's time is over or somebody stops the world."""
    fleet = fleet_of(
        Faults(offline=Spell(at_s=(0.2,), for_s=3_600.0), clash=Spell(at_s=(0.1,), for_s=3_600.0)),
        every_s=0.02,
        duration_s=None if stopped else 1.0,
    )

    async def play(listener: Listener) -> Counts:
        with kept(tmp_path / "ledger.jsonl") as ledger:
            here = world(fleet, broker.port, ledger)
            lives = asyncio.create_task(lived(here))
            if stopped:
                await asyncio.to_thread(listener.wait_for, lambda: DIED in presence(listener, "faulty-0001"))
                here.stopping.set()
            await lives
            return here.counts

    with listening(broker) as listener:
        counts = asyncio.run(play(listener))
        listener.wait_for(lambda: all_acknowledged(tmp_path / "ledger.jsonl") <= heard(listener))
        listener.wait_for(lambda: presence(listener, "faulty-0001")[-1:] == [LEFT])
    assert counts.failed == 0
    assert counts.published == counts.acknowledged > 0


def test_what_would_have_happened_meanwhile_is_past() -> None:
    """After an outage of the broker a device does not make up for the absences that it missed."""

    async def claim() -> None:
        faults = Faults(death=Spell(at_s=(10.0, 20.0, 500.0), for_s=1.0), flapping=Spell(at_s=(30.0,), for_s=60.0))
        here = world(fleet_of(faults))
        here.clock = Clock(START_US, here.clock.loop_start_s - 100)
        absences = Absences(one_of(here.fleet), here)
        async with asyncio.timeout(5):
            await absences.pass_by()
        assert not absences.on_purpose
        assert absences.begin_s == pytest.approx(here.clock.loop_start_s + 500)

    asyncio.run(claim())


def test_absences_that_overlap_are_one() -> None:
    async def claim() -> None:
        faults = Faults(offline=Spell(at_s=(50.0,), for_s=60.0), death=Spell(at_s=(90.0,), for_s=10.2))
        here = world(fleet_of(faults, duration_s=100.3))
        here.clock = Clock(START_US, here.clock.loop_start_s - 100)
        absences = Absences(one_of(here.fleet), here)
        await absences.pass_by()
        assert here.clock.now_us() >= START_US + 100.3 * SECOND_US
        assert absences.begin_s is None

    asyncio.run(claim())


def test_a_stop_ends_an_absence() -> None:
    async def claim() -> None:
        here = world(fleet_of(Faults(offline=Spell(at_s=(0.0,), for_s=3_600.0))))
        absences = Absences(one_of(here.fleet), here)
        away = asyncio.create_task(absences.pass_by())
        here.stopping.set()
        async with asyncio.timeout(5):
            await away

    asyncio.run(claim())


def test_connections_change_nothing_in_what_is_said() -> None:
    """The bytes follow from the fleet, and only the names of the spells are added."""

    def bytes_of(messages: list[Outgoing]) -> list[bytes]:
        return [message.publication.payload for message in messages]

    for faults in DISTURBED.values():
        assert bytes_of(sent(fleet_of(faults), 50)) == bytes_of(sent(fleet_of(), 50))
