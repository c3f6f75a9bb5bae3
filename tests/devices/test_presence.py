"""Devices that leave, die, flap and are impersonated lose nothing that was acknowledged, and tell of their coming."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
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
from devices.fleet import Fleet, Session, boot_id, devices
from devices.ledger import Ledger, digest, read
from devices.outgoing import Outgoing
from devices.presence import Absences
from tests.devices.faulty import START_US, fleet_of, one_of, sent
from tests.devices.outside import Heard, Listener, listening

BORN, LEFT, DIED = "born", "left", "died"

VARIANTS: Sequence[tuple[int, Client, Session]] = (
    (1, "codec", "clean"),
    (2, "codec", "clean"),
    (2, "codec", "persistent"),
    (1, "aiomqtt", "clean"),
)
DISTURBED = {
    "offline": Faults(offline=Spell(at_s=(0.5,), for_s=0.6)),
    "death": Faults(death=Spell(at_s=(0.5,), for_s=0.6)),
    "clash": Faults(clash=Spell(at_s=(0.5,), for_s=0.5)),
    "flapping": Faults(flapping=Spell(at_s=(0.5,), for_s=1.6)),
    "reboot": Faults(reboot=Spell(at_s=(0.51,), for_s=0.58)),
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


async def play(fleet: Fleet, broker: Mosquitto) -> None:
    await lived(world(fleet, broker.port))


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


def has_heard(listener: Listener, said: set[str]) -> bool:
    return said <= heard(listener)


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


def test_whatever_disturbs_a_device_all_that_was_acknowledged_is_heard(broker: Mosquitto, tmp_path: Path) -> None:
    """By somebody who listens in a session of their own; and nothing was refused or left behind."""

    async def play_one(place: int, qos: int, client: Client, session: Session) -> Counts:
        with kept(tmp_path / f"{place}.jsonl") as ledger:
            here = world(disturbed(place, qos, session), broker.port, ledger, client)
            await lived(here)
            return here.counts

    async def play_all() -> list[Counts]:
        return await asyncio.gather(*(play_one(place, *variant) for place, variant in enumerate(VARIANTS)))

    with listening(broker) as listener:
        for place, counts in enumerate(asyncio.run(play_all())):
            acknowledged = all_acknowledged(tmp_path / f"{place}.jsonl")
            listener.wait_for(partial(has_heard, listener, acknowledged))
            assert counts.published in (288, 289)  # fifty of each, but for those that the reboot has cost
            assert (counts.acknowledged, counts.failed, counts.connected) == (counts.published, 0, 0)
        names = [f"{name}-{place}" for name in DISTURBED for place in range(len(VARIANTS))]
        listener.wait_for(lambda: all(presence(listener, name)[-1] == LEFT for name in names))
    for place in range(len(VARIANTS)):
        assert presence(listener, f"offline-{place}") == [BORN, LEFT, BORN, LEFT]
        assert presence(listener, f"death-{place}") == [BORN, DIED, BORN, LEFT]
        assert presence(listener, f"clash-{place}") == [BORN, DIED, BORN, LEFT]
        assert presence(listener, f"reboot-{place}") == [BORN, DIED, BORN, LEFT]
        flapping = presence(listener, f"flapping-{place}")
        assert flapping in [[BORN, *[DIED, BORN] * cuts, LEFT] for cuts in (1, 2)]
        assert presence(listener, f"sound-{place}") == [BORN, LEFT]
        assert_rebooted(listener, f"reboot-{place}")


def disturbed(place: int, qos: int, session: Session) -> Fleet:
    """A device for each disturbance, which measures fifty times in two and a half seconds."""
    one = fleet_of(every_s=0.05, duration_s=2.5, qos=qos, session=session)
    groups = (
        replace(one.groups[0], name=f"{name}-{place}", names=(f"{name}-{place}",), faults=faults)
        for name, faults in DISTURBED.items()
    )
    return replace(one, groups=tuple(groups))


def assert_rebooted(listener: Listener, device: str) -> None:
    """Birth and will tell the boot that they are of, and what is told between them is of the same one."""
    statuses = [one.content for one in listener.heard if one.topic == f"devices/{device}/status"]
    before, after = dict.fromkeys(status["boot"] for status in statuses)
    assert [(status["boot"], status["state"]) for status in statuses] == [
        (before, "online"),
        (before, "offline"),
        (after, "online"),
        (after, "offline"),
    ]
    told = {(boot, seq) for name, boot, seq in listener.events() if name == device}
    firsts = {seq for boot, seq in told if boot == before}
    lasts = {seq for boot, seq in told if boot == after}
    assert {boot for boot, _ in told} == {before, after}
    assert (firsts, lasts) == (set(range(len(firsts))), set(range(len(lasts))))


@pytest.mark.parametrize("stopped", [False, True])
def test_who_is_away_at_the_end_comes_back_to_hand_over_what_it_has(
    broker: Mosquitto, tmp_path: Path, *, stopped: bool
) -> None:
    """Whether the fleet's time is over or somebody stops the world."""
    fleet = fleet_of(
        Faults(offline=Spell(at_s=(0.2,), for_s=3_600.0), clash=Spell(at_s=(0.1,), for_s=3_600.0)),
        every_s=0.02,
        duration_s=None if stopped else 0.5,
    )

    async def play_until(listener: Listener) -> Counts:
        with kept(tmp_path / "ledger.jsonl") as ledger:
            here = world(fleet, broker.port, ledger)
            lives = asyncio.create_task(lived(here))
            if stopped:
                await asyncio.to_thread(listener.wait_for, lambda: DIED in presence(listener, "faulty-0001"))
                here.stopping.set()
            await lives
            return here.counts

    with listening(broker) as listener:
        counts = asyncio.run(play_until(listener))
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

    for name, faults in DISTURBED.items():
        if name != "reboot":  # after which another boot counts from 0
            assert bytes_of(sent(fleet_of(faults), 50)) == bytes_of(sent(fleet_of(), 50))


def test_who_is_stopped_within_a_reboot_comes_back_with_its_new_boot(broker: Mosquitto) -> None:
    """To say goodbye: it has been off all the same."""
    fleet = fleet_of(Faults(reboot=Spell(at_s=(0.1,), for_s=30.0)), every_s=0.02, duration_s=0.3)
    with listening(broker) as listener:
        asyncio.run(play(fleet, broker))
        listener.wait_for(lambda: presence(listener, "faulty-0001") == [BORN, DIED, BORN, LEFT])
    boots = [one.content["boot"] for one in listener.heard if one.topic.endswith("/status")]
    before, after = (boot_id(one_of(fleet), fleet, restarts) for restarts in (0, 1))
    assert boots == [before, before, after, after]
    assert {boot for _, boot, _ in listener.events()} == {before}


def test_births_of_sparkplug_are_at_qos_0_whatever_that_of_the_data(broker: Mosquitto) -> None:
    """And a birth of another dialect at QoS 1; wills and farewells of a node are at QoS 1 in any case."""
    fleet = fleet_of(Faults(death=Spell(at_s=(0.2,))), every_s=0.1, duration_s=0.4, qos=1)
    fleet = replace(
        fleet, groups=tuple(replace(fleet.groups[0], name=name, prefix=name, dialect=name) for name in SPOKEN)
    )
    with listening(broker, also="spBv1.0/#") as listener:
        asyncio.run(play(fleet, broker))
        ends = {"spBv1.0/sparkplug-device/NDEATH/sparkplug-device-0001": 2, "devices/json-0001/status": 4}
        listener.wait_for(lambda: all(len(of_topic(listener, topic)) == number for topic, number in ends.items()))
    found = {(one.topic.split("/")[2], one.qos) for one in listener.heard}
    assert found == {
        *((word, 0) for word in ("NBIRTH", "DBIRTH", "DDEATH")),
        *((word, 1) for word in ("NDEATH", "DDATA", "status", "telemetry")),
    }


SPOKEN = ("sparkplug-device", "json")


def of_topic(listener: Listener, topic: str) -> list[Heard]:
    return [one for one in listener.heard if one.topic == topic]


@pytest.mark.parametrize("faults", [Faults(offline=Spell(every_s=30)), Faults(clash=Spell(every_s=30)), Faults()])
def test_a_fleet_without_an_end_is_not_sought_through_for_what_never_comes(faults: Faults) -> None:
    """Of absences without end none is a clash, and of clashes without end none is an absence."""

    async def claim() -> None:
        fleet = fleet_of(faults)
        here = world(fleet)
        here.stopping.set()
        absences = Absences(one_of(fleet), here)
        assert (absences.begin_s is not None) == (faults.offline is not None)
        await absences.clash()

    asyncio.run(claim())
