"""What devices say in each dialect is read by the gateway's formats for what was measured, whatever that was."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from random import Random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devices.clock import SECOND_US
from devices.dialects import DIALECTS, FREE_TOPICS, Dialect, check, speak
from devices.faults import Faults, Spell
from devices.fleet import Device, Fleet, Group, boot_id, devices
from devices.models import MODELS, Readings, Signal
from devices.outgoing import Publication, Sample, Value
from devices.pace import Pace
from devices.telemetry import samples
from gateway.formats import Formats
from storage.event import Detail, Event, Message, Properties, Rejection
from tests.devices.heard import TELLS_PRESENCE, heard_at, heard_device, misheard

START_US = 1_795_338_000 * SECOND_US  # 2026-11-22T09:00:00Z
NOW = START_US + 60 * SECOND_US
UNITS = {name: unit for model in MODELS.values() for name, unit in model.units.items()} | {"pressure": "hPa"}


def everything(chance: Random, times: Iterable[int]) -> Iterator[Readings]:
    """All that the models measure, and a switch and a mode."""
    times = list(islice(times, 20))
    for parts in zip(*(model.signal(chance, times) for model in MODELS.values()), strict=True):
        readings = {name: value for part in parts for name, value in part.items()}
        yield {**readings, "running": chance.random() < 0.5, "mode": chance.choice(("eco mode", "boost"))}


def fleet(dialect: str, signal: Signal = everything, *, count: int = 1, topic: str | None = None) -> Fleet:
    group = Group(
        name=dialect,
        prefix=dialect,
        signal=signal,
        pace=Pace(1.0),
        units=UNITS,
        count=count,
        dialect=dialect,
        topic=topic,
    )
    return Fleet(groups=(group,), start_us=START_US, seed="7")


def message(publication: Publication) -> Message:
    properties = Properties(content_type=publication.content_type) if publication.content_type else None
    return Message(publication.topic, publication.payload, 1, publication.retain, NOW, properties=properties)


def read(formats: Formats, publications: Iterable[Publication]) -> list[Event]:
    """The events of messages, none of which may be rejected."""
    events: list[Event] = []
    for publication in publications:
        outcome = formats.read(message(publication))
        assert not isinstance(outcome, Rejection), (publication, outcome)
        events += outcome
    return events


def born(device: Device, here: Fleet) -> tuple[Dialect, Formats]:
    """A device that has introduced itself to a gateway."""
    dialect, formats = speak(device, here), Formats()
    dialect.will(START_US)
    read(formats, dialect.birth(START_US))
    return dialect, formats


def readings_of(events: Sequence[Event]) -> dict[str, Value | None]:
    found: dict[str, Value | None] = {}
    for event in events:
        assert found.keys().isdisjoint(event.readings), "said twice"
        found |= event.readings
    return found


def assert_heard(events: Sequence[Event], sample: Sample, device: Device) -> None:
    """Device, time and all readings are right, and no others are there but the dialect's own."""
    dialect = device.group.dialect
    told = [event for event in events if event.kind not in ("discovery", "availability")]
    assert misheard(dialect, sample, device.group.units, readings_of(told)) == []
    assert {event.device for event in told} == {heard_device(device)}
    at = heard_at(dialect, sample)
    assert {(event.observed_at, event.from_device) for event in told} == {(NOW, False) if at is None else (at, True)}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_what_is_said_is_heard(dialect: str) -> None:
    for device in devices(here := fleet(dialect, count=2)):
        spoken, formats = born(device, here)
        for sample in islice(samples(device, here), 5):
            assert_heard(read(formats, spoken.telemetry(sample)), sample, device)


NUMBERS = st.floats(-1e300, 1e300).filter(lambda number: abs(number) != 999)  # which is no number to a Shelly
TEXTS = st.from_regex(r"[a-z]{1,9} [A-Za-zäß°\"\\,=]{1,9}", fullmatch=True)
MEASURED = st.fixed_dictionaries(
    {},
    optional={
        "temperature": NUMBERS,
        "energy": st.floats(0, 1e9),
        "power": NUMBERS,
        "pressure": st.floats(800, 1_200),
        "state": st.sampled_from(("open", "closed")),
        "open_count": st.integers(-(2**53), 2**53),
        "running": st.booleans(),
        "mode": TEXTS,
        "level": NUMBERS,
    },
).filter(bool)


@pytest.mark.parametrize("dialect", DIALECTS)
@settings(max_examples=25, deadline=None)
@given(measured=st.lists(MEASURED, min_size=1, max_size=3))
def test_whatever_is_measured_is_heard(dialect: str, measured: list[Readings]) -> None:
    """Also readings that were not there when the device introduced itself."""
    here = fleet(dialect, lambda _, times: (measured[0] for _ in times))
    device = next(devices(here))
    spoken, formats = born(device, here)
    for seq, readings in enumerate(measured):
        sample = Sample("b", seq, START_US, START_US + seq * 1_234_567, readings)
        events = read(formats, spoken.telemetry(sample))
        if dialect == "shelly" and seq:  # the ids of what has no component go by what was there first
            assert len(readings_of(events)) >= len(readings)
        else:
            assert_heard(events, sample, device)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_same_seed_gives_the_same_bytes(dialect: str) -> None:
    """Whether or not the device was ever connected."""
    here = fleet(dialect)
    device = next(devices(here))
    alone, connected = speak(device, here), speak(device, here)
    said: list[Publication] = []
    for at, sample in enumerate(islice(samples(device, here), 10)):
        if at in (0, 4, 5):
            connected.will(sample.due_us)
            connected.birth(sample.due_us)
        said += connected.telemetry(sample)
    assert said == [one for sample in islice(samples(device, here), 10) for one in alone.telemetry(sample)]


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_sample_without_readings_is_said_all_the_same(dialect: str) -> None:
    """As when the only reading of a device is missing."""
    device = next(devices(here := fleet(dialect)))
    spoken, formats = born(device, here)
    said = spoken.telemetry(Sample("b", 0, START_US, START_US, {}))
    assert read(formats, said)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_presence_is_told_in_the_words_of_the_dialect(dialect: str) -> None:
    device = next(devices(here := fleet(dialect)))
    spoken, formats = speak(device, here), Formats()
    will = spoken.will(START_US)
    told = [read(formats, said) for said in (spoken.birth(START_US), spoken.death(START_US), [will] if will else [])]
    words = tuple(presence(events, heard_device(device)) for events in told)
    assert words == TELLS_PRESENCE.get(dialect, (None, None, None))


def presence(events: Sequence[Event], device: str) -> Value | None:
    """The last word on it: the kind of a birth or a death, else the reading."""
    word: Value | None = None
    for event in events:
        if event.device != device:
            continue
        if event.kind in ("birth", "death") and event.format == "sparkplug_b":
            word = event.kind
        elif event.kind == "availability":
            (word,) = event.readings.values()
    return word


@pytest.mark.parametrize("dialect", DIALECTS)
def test_who_is_identified_is_known_again(dialect: str) -> None:
    """By boot and seq, or by an id: the same in each copy, and another for each sample of each boot."""
    device = next(devices(here := fleet(dialect)))
    spoken, formats = born(device, here)
    first = next(samples(device, here))
    others = [msgspec.structs.replace(first, boot=boot, seq=seq) for boot in ("a", "b") for seq in (0, 1, 256)]
    told = [{identity(event) for event in read(formats, spoken.telemetry(one))} for one in (*others, *others)]
    if spoken.identified:
        assert told[:6] == told[6:]
        assert all(len(names) == 1 for names in told)
        assert len(set.union(*told)) == 6
        assert None not in set.union(*told)
    else:
        assert set.union(*told) == {None}


def identity(event: Event) -> tuple[str, str | None, int | None] | None:
    """What an event calls itself; None where it does not."""
    detail = event.detail or Detail()
    if detail.boot and event.seq is not None:
        return event.device, detail.boot, event.seq
    return (event.device, detail.source_id, None) if detail.source_id else None


# ---------------------------------------------------------------- one by one


def test_a_sparkplug_birth_its_will_and_its_death_share_a_number_that_rises() -> None:
    device = next(devices(here := fleet("sparkplug")))
    spoken, formats = speak(device, here), Formats()
    for connection in range(3):
        will = spoken.will(START_US)
        assert will is not None
        said = [*spoken.birth(START_US), *spoken.death(START_US), will]
        events = read(formats, said)
        assert [event.kind for event in events] == ["birth", "death", "death"]
        assert [event.readings["bdSeq"] for event in events] == [connection] * 3


@pytest.mark.parametrize(("dialect", "births"), [("sparkplug", 1), ("sparkplug-device", 2)])
def test_sparkplug_data_are_numbered_from_the_birth_and_begin_anew_after_255(dialect: str, births: int) -> None:
    device = next(devices(here := fleet(dialect)))
    spoken, formats = speak(device, here), Formats()
    spoken.will(START_US)
    said = [*spoken.birth(START_US)]
    assert len(said) == births
    said += [one for seq in range(300) for one in spoken.telemetry(Sample("b", seq, 0, START_US, {"mode": "eco"}))]
    assert [event.seq for event in read(formats, said)] == [number % 256 for number in range(300 + births)]


def test_a_sparkplug_birth_tells_aliases_units_and_the_latest_values() -> None:
    device = next(devices(here := fleet("sparkplug")))
    spoken, formats = born(device, here)
    sample = next(samples(device, here))
    (said,) = spoken.telemetry(sample)
    assert b"temperature" not in said.payload, "by its alias only"
    (event,) = read(formats, [said])
    assert event.units == {name: unit for name, unit in UNITS.items() if name in sample.readings}
    spoken.will(START_US)
    births = read(formats, spoken.birth(START_US))
    assert sample.readings.items() <= {name: value for one in births for name, value in one.readings.items()}.items()


@pytest.mark.parametrize("value", [2**63 - 1, -(2**63), 2**64 - 1, 2**70, True, 0.5, "half"])
def test_sparkplug_tells_what_it_had_not_announced_with_its_type(value: Value) -> None:
    here = fleet("sparkplug", lambda _, times: ({"level": 1} for _ in times))
    device = next(devices(here))
    spoken, formats = born(device, here)
    (event,) = read(formats, spoken.telemetry(Sample("b", 0, 0, START_US, {"level": value, "other": value})))
    assert event.readings == {"level": value, "other": value}
    assert type(event.readings["level"]) is (float if value == 2**70 else type(value))


def test_a_homie_device_is_described_before_it_is_ready() -> None:
    device = next(devices(here := fleet("homie", MODELS["door"].signal)))
    said = {one.topic.removeprefix("homie/homie-0001/"): one for one in speak(device, here).birth(START_US)}
    assert list(said)[-1] == "sensors/open-count/$unit"  # $state was there first, and is said again last
    assert [one.payload for one in speak(device, here).birth(START_US)][:: len(said)] == [b"init", b"ready"]
    assert {name: said[name].payload.decode() for name in ("$homie", "$nodes", "sensors/$properties")} == {
        "$homie": "4.0.0",
        "$nodes": "sensors",
        "sensors/$properties": "state,open-count",
    }
    assert said["sensors/open-count/$datatype"].payload == b"integer"
    assert all(one.retain for one in said.values())


def test_a_homie_property_of_another_datatype_is_described_anew() -> None:
    here = fleet("homie", lambda _, times: ({"level": 1} for _ in times))
    device = next(devices(here))
    spoken, formats = born(device, here)
    said = spoken.telemetry(Sample("b", 0, 0, START_US, {"level": "half"}))
    assert read(formats, said)[-1].readings == {"sensors.level": "half"}
    assert len(said) > 1
    assert len(spoken.telemetry(Sample("b", 1, 0, START_US, {"level": "full"}))) == 1


def test_tasmota_gives_what_it_does_not_count_in_this_unit_to_a_script() -> None:
    """Else a temperature in °F would be read in °C."""
    here = fleet("tasmota")
    device = next(devices(here))
    group = msgspec.structs.replace(device.group, units={"temperature": "[degF]"})
    cold = msgspec.structs.replace(device, group=group)
    (said,) = speak(cold, here).telemetry(Sample("b", 0, 0, START_US, {"temperature": 70.5, "humidity": 40}))
    assert json.loads(said.payload) == {
        "Time": "2026-11-22T09:00:00",
        "Epoch": 1_795_338_000,
        "Script": {"temperature": 70.5},
        "AM2301": {"Humidity": 40},
    }


@pytest.mark.parametrize("dialect", sorted(FREE_TOPICS))
def test_telemetry_goes_to_the_topic_of_the_group(dialect: str) -> None:
    device = next(devices(here := fleet(dialect, topic="plant/{group}/{device}/raw")))
    spoken, formats = born(device, here)
    sample = next(samples(device, here))
    said = spoken.telemetry(sample)
    assert [one.topic for one in said] == [f"plant/{dialect}/{dialect}-0001/raw"]
    assert_heard(read(formats, said), sample, device)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_models_can_speak_every_dialect(dialect: str) -> None:
    for model in MODELS:
        names = next(MODELS[model].signal(Random(1), [START_US])).keys()
        assert check(dialect, names) is None


@pytest.mark.parametrize(
    ("dialect", "readings", "topic", "words"),
    [
        ("jsn", ["a"], None, "no dialect"),
        ("tasmota", ["a"], "a/b", "topics of its own"),
        ("influx", ["a"], "a/+", "cannot hold + or #"),
        ("influx", ["a"], "", "cannot be empty"),
        ("json", [""], None, "cannot be empty"),
        ("json", ["x" * 201], None, "at most 200 characters"),
        ("senml", ["Größe"], None, "'Größe' is not"),
        ("senml-cbor", ["a", "_a"], "a/b", "'_a' is not"),
        ("influx", ["a\n"], None, "line protocol cannot hold"),
        ("influx", ["a\\"], None, "line protocol cannot hold"),
        ("sparkplug", ["bdSeq"], None, "already"),
        ("homie", ["a_b", "a-b"], None, "'a_b' and 'a-b' have one id"),
        ("homie", ["température"], None, "cannot be one"),
        ("zigbee2mqtt", ["last_seen"], None, "itself"),
        ("zigbee2mqtt", ["contact", "state"], None, "both are there"),
        ("shelly1", ["a/b"], None, "level of a topic"),
        ("shelly1", ["set"], None, "level of a topic"),
    ],
)
def test_what_cannot_be_said_is_told_in_words(dialect: str, readings: list[str], topic: str | None, words: str) -> None:
    assert words in (check(dialect, readings, topic) or "")


def test_a_name_that_a_dialect_takes_is_no_fault() -> None:
    assert check("homie", ["Open Count", "a.b"]) is None
    assert check("senml", ["a:b/c"], "x/{device}") is None


def test_boots_are_those_of_the_samples() -> None:
    """After a restart within the run it is another one than the fleet's first."""
    device = next(devices(here := fleet("json")))
    (said,) = speak(device, here).telemetry(Sample(boot_id(device, here, 1), 0, 0, START_US, {"a": 1}))
    assert json.loads(said.payload)["boot"] == boot_id(device, here, 1) != boot_id(device, here)


def rebooting(dialect: str) -> tuple[Device, Fleet]:
    """In the tenth to twelfth second, and in the twentieth."""
    one = fleet(dialect)
    faults = Faults(reboot=Spell(at_s=(10.0, 20.0), for_s=2.0))
    one = msgspec.structs.replace(one, groups=(msgspec.structs.replace(one.groups[0], faults=faults),))
    return next(devices(one)), one


@pytest.mark.parametrize("dialect", ["json", "cbor"])
def test_presence_tells_the_boot_of_its_time(dialect: str) -> None:
    """That of a reboot from its beginning on, as the device has been off since; a will speaks of the connection."""
    device, here = rebooting(dialect)
    spoken, formats = speak(device, here), Formats()
    for after_s, restarts in ((0, 0), (9.9, 0), (10, 1), (12, 1), (19, 1), (22, 2)):
        at_us = START_US + int(after_s * SECOND_US)
        will = spoken.will(at_us)
        assert will is not None
        told = read(formats, [will, *spoken.birth(at_us), *spoken.death(at_us)])
        assert [event.detail and event.detail.boot for event in told] == [boot_id(device, here, restarts)] * 3


def test_a_tasmota_counts_anew_after_a_reboot() -> None:
    device, here = rebooting("tasmota")
    spoken = speak(device, here)
    states = [json.loads(spoken.birth(START_US + after_s * SECOND_US)[1].payload) for after_s in (5, 9, 12, 15, 29)]
    assert [(state["UptimeSec"], state["MqttCount"]) for state in states] == [(5, 1), (9, 2), (0, 1), (3, 2), (7, 1)]
