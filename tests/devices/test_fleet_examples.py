"""The fleets in examples/ are in order: they are templates, and what is copied from them must work."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest

from devices.clock import SECOND_US
from devices.dialects import DIALECTS, speak
from devices.faults import Faults
from devices.fleet import Device, Fleet, devices
from devices.fleets import load
from devices.fleets.preview import preview, sights
from devices.signals import KINDS, Signals
from devices.signals.kind import Numeric
from devices.telemetry import samples, telemetry

FOLDER = Path(__file__).parents[2] / "examples" / "fleets"
NAMES = ["chaos", "factory", "farm", "home", "lora", "vehicles"]
START_US = 1_795_338_000 * SECOND_US  # 2026-11-22T09:00:00Z


def fleet(name: str) -> Fleet:
    return load(FOLDER / f"{name}.toml", seed=7, start_us=START_US)


def used(name: str) -> set[str]:
    """The faults that some group has."""
    return {
        key
        for group in fleet(name).groups
        for key in Faults.__struct_fields__
        if getattr(group.faults, key) != getattr(Faults(), key)
    }


def firsts(one: Fleet) -> list[Device]:
    return [next(device for device in devices(one) if device.group is group) for group in one.groups]


def test_these_are_all_there_are() -> None:
    assert sorted(path.stem for path in FOLDER.glob("*.toml")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_an_example_speaks(name: str) -> None:
    one = fleet(name)
    for device in firsts(one):
        said = list(islice(telemetry(device, one, speak(device, one)), 30))
        assert len(said) == 30
        assert all(message.publication.topic for message in said)


def test_the_examples_give_the_same_bytes_in_another_process() -> None:
    program = "from tests.devices.test_fleet_examples import words; print(words())"
    there = subprocess.run(
        [sys.executable, "-c", program], cwd=FOLDER.parents[1], capture_output=True, text=True, check=True
    )
    assert there.stdout.strip() == words()


def words() -> str:
    digest = hashlib.blake2b(digest_size=8)
    for one in map(fleet, NAMES):
        for device in firsts(one):
            for message in islice(telemetry(device, one, speak(device, one)), 5):
                digest.update(repr((message.due_us, message.publication)).encode())
    return digest.hexdigest()


@pytest.mark.parametrize("name", NAMES)
def test_every_number_is_one_that_its_signal_allows(name: str) -> None:
    one = fleet(name)
    for device in firsts(one):
        assert isinstance(device.group.signal, Signals)
        bounds = {
            key: (kind.min, kind.max) for key, kind in device.group.signal.kinds.items() if isinstance(kind, Numeric)
        }
        for sample in islice(samples(device, one), 200):
            for reading, (least, most) in bounds.items():
                value = sample.readings[reading]
                assert not isinstance(value, str)
                assert least is None or value >= least
                assert most is None or value <= most


def test_the_examples_show_every_kind_of_signal_and_nearly_every_key() -> None:
    shown = {
        kind.word
        for name in NAMES
        for group in fleet(name).groups
        if isinstance(group.signal, Signals)
        for kind in group.signal.kinds.values()
    }
    assert {*KINDS} - shown == {"noise"}  # which shows itself in the others' noise


def test_chaos_has_every_dialect_and_every_fault() -> None:
    chaos = fleet("chaos")
    assert {group.dialect for group in chaos.groups} == {*DIALECTS}
    assert used("chaos") == {*Faults.__struct_fields__}
    assert {group.qos for group in chaos.groups} == {0, 1, 2}
    assert {group.receipts for group in chaos.groups} == {False, True}
    assert load(FOLDER / "chaos.toml").seed == "7"


def test_chaos_is_as_large_as_it_says() -> None:
    chaos = fleet("chaos")
    per_s = sum(sight.per_s for sight in sights(chaos))
    assert 55 <= chaos.devices <= 65
    assert 90 <= per_s <= 115


@pytest.mark.parametrize(
    ("name", "dialects"),
    [
        ("home", {"tasmota", "zigbee2mqtt", "shelly", "homie"}),
        ("factory", {"sparkplug", "json", "cbor"}),
        ("farm", {"senml", "influx"}),
        ("lora", {"tts"}),
    ],
)
def test_an_example_speaks_what_it_is_about(name: str, dialects: set[str]) -> None:
    assert {group.dialect for group in fleet(name).groups} == dialects


def test_the_preview_has_a_line_for_each_group_and_the_sum() -> None:
    for name in NAMES:
        one = fleet(name)
        lines = list(preview(one))
        assert [line.split()[0] for line in lines[1 : len(one.groups) + 2]] == [
            *(group.name for group in one.groups),
            "all",
        ]
        assert max(map(len, lines)) <= 170
