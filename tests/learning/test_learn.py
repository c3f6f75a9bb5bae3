"""A learned fleet says what was recorded: the same devices, readings, paces and distributions."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from itertools import islice
from pathlib import Path

import pytest

from devices.dialects import DIALECTS, speak
from devices.fleet import Fleet, devices
from devices.fleets import load
from devices.telemetry import telemetry
from gateway.formats import Formats
from gateway.learning import Learned, NothingToLearn, learn
from gateway.learning.dialects import SPOKEN
from gateway.learning.trial import of_all, try_out
from storage.event import Message
from storage.filters import Filters
from storage.history import Reader
from storage.store import Store, StoreOptions

START_US = 1_795_338_000_000_000  # 2026-11-22T09:00:00Z

FLEET = """
[[groups]]
name = "hall"
count = 3
dialect = "json"
every = "2s"
jitter = 0.1
qos = 2
topic = "plant/{device}/climate"

[groups.signals.temperature]
kind = "daily"
mean = 21
swing = 4
noise = 0.5
unit = "Cel"

[groups.signals.running]
kind = "states"
states = { true = "40s", false = "2m" }

[groups.signals.energy]
kind = "counter"
rate = 0.5
unit = "kW.h"
"""


def record(fleet: Fleet, path: Path, samples: int = 400) -> None:
    """What the devices of a fleet say, as a gateway would keep it."""
    formats, store = Formats(), Store(path, StoreOptions())
    messages = [
        Message(one.publication.topic, one.publication.payload, device.group.qos, one.publication.retain, one.due_us)
        for device in devices(fleet)
        for one in islice(telemetry(device, fleet, speak(device, fleet)), samples)
    ]
    messages.sort(key=lambda message: message.received_at)
    store.append(list(zip(messages, formats.read_all(messages), strict=True)), 0)
    store.close()


def learned(path: Path, *devices: str) -> Learned:
    with Reader(path) as reader:
        return learn(reader, Filters(devices=devices), 7)


def fleet(tmp_path: Path, text: str) -> Fleet:
    path = tmp_path / "fleet.toml"
    path.write_text(text, "utf-8")
    return load(path, seed="5", start_us=START_US)


def test_devices_pace_topic_and_units_are_those_recorded(tmp_path: Path) -> None:
    record(fleet(tmp_path, FLEET), tmp_path / "amber.db")
    found = tomllib.loads(learned(tmp_path / "amber.db").text)
    assert found["seed"] == 7
    (hall,) = found["groups"]
    assert (hall["name"], hall["count"], hall["dialect"], hall["every"], hall["qos"]) == ("hall", 3, "json", "2s", 2)
    assert hall["topic"] == "plant/{device}/climate"
    assert hall["jitter"] == pytest.approx(0.1, abs=0.03)
    assert hall["signals"]["temperature"]["unit"] == "Cel"
    assert hall["signals"]["energy"]["kind"] == "counter"
    assert hall["signals"]["energy"]["rate"] == pytest.approx(0.5, rel=0.05)
    assert hall["signals"]["running"]["states"].keys() == {"true", "false"}


def test_a_learned_fleet_is_alike(tmp_path: Path) -> None:
    record(fleet(tmp_path, FLEET), tmp_path / "amber.db")
    tried = try_out(learned(tmp_path / "amber.db"))
    assert of_all(tried) > 0.85
    assert tried[0].pace > 0.99


def test_another_fleet_is_not_alike(tmp_path: Path) -> None:
    record(fleet(tmp_path, FLEET), tmp_path / "amber.db")
    found = learned(tmp_path / "amber.db")
    slower = Learned(found.groups, found.text.replace('every = "2s"', 'every = "4s"'))
    assert try_out(slower)[0].pace == pytest.approx(0.5, rel=0.02)
    warmer = Learned(found.groups, re.sub(r"quantiles = \[.*\]", "quantiles = [100, 110]", found.text))
    assert try_out(warmer)[0].readings["temperature"] == 0


@pytest.mark.parametrize("dialect", SPOKEN.values())
def test_a_dialect_is_known_again(dialect: str, tmp_path: Path) -> None:
    """What the learned fleet says is read into the same devices and readings, in the same format."""
    assert dialect in DIALECTS
    text = f"""
        [[groups]]
        name = "probe"
        count = 2
        dialect = "{dialect}"
        every = "10s"
        [groups.signals]
        temperature = {{ kind = "noise", mean = 20, noise = 2, unit = "Cel" }}
        humidity = {{ kind = "walk", mean = 50, swing = 10, unit = "%" }}
    """
    record(fleet(tmp_path, text), tmp_path / "one.db", 100)
    found = learned(tmp_path / "one.db")
    record(fleet(tmp_path, found.text), tmp_path / "other.db", 100)
    assert [one.dialect for one in found.groups] == [dialect] * len(found.groups)
    assert heard(tmp_path / "one.db") == heard(tmp_path / "other.db")


def heard(path: Path) -> set[tuple[str, str, str | None]]:
    with Reader(path) as reader:
        formats = {event.format for page in reader.pages() for event in page}
        return {(one.device, one.reading, one.unit) for one in reader.series()} | {("", name, None) for name in formats}


def test_many_devices_that_differ_in_their_level_are_one_group(tmp_path: Path) -> None:
    many = """
        [[groups]]
        name = "tank"
        count = 60
        every = "10s"
        [groups.signals]
        level = { kind = "noise", mean = 50, noise = 1, spread = 30, unit = "%" }
    """
    record(fleet(tmp_path, many), tmp_path / "amber.db", 60)
    found = learned(tmp_path / "amber.db")
    assert len(found.groups) < 20
    assert found.groups[0].signals["level"]["spread"] > 10  # type: ignore[operator]
    assert sum(len(one.members) for one in found.groups) == 60
    assert of_all(try_out(found)) > 0.7


def test_many_devices_with_another_whole_number_each_are_one_group_that_a_fleet_can_have(tmp_path: Path) -> None:
    formats, store = Formats(), Store(tmp_path / "amber.db", StoreOptions())
    for n in range(3):
        messages = [
            Message(
                "t",
                b'{"device":"tank-%d","level":%d}' % (i, 40 + i),
                qos=1,
                retain=False,
                received_at=START_US + n * 1_000_000,
            )
            for i in range(30)
        ]
        store.append(list(zip(messages, formats.read_all(messages), strict=True)), 0)
    store.close()
    found = learned(tmp_path / "amber.db")
    assert any(one.signals["level"].get("spread") for one in found.groups)
    assert fleet(tmp_path, found.text).devices == 30


def test_nights_are_learned(tmp_path: Path) -> None:
    sleepers = """
        [[groups]]
        name = "bin"
        every = "30m"
        hours = ["06:00-20:00"]
        [groups.signals]
        level = { kind = "noise", mean = 50, noise = 5 }
    """
    record(fleet(tmp_path, sleepers), tmp_path / "amber.db", 200)
    (found,) = tomllib.loads(learned(tmp_path / "amber.db").text)["groups"]
    assert found["hours"] == ["06:15-20:00"]  # a quarter past is when the first comes
    assert found["every"] == "30m"


@pytest.mark.parametrize("dialect", ["json", "homie"])
def test_bursts_are_learned(dialect: str, tmp_path: Path) -> None:
    """Of devices that say when they measured, and of those that do not."""
    gathering = f"""
        [[groups]]
        name = "vibration"
        dialect = "{dialect}"
        every = "30s"
        bursts = {{ every = "30s", count = 15 }}
        [groups.signals]
        energy = {{ kind = "counter", rate = 0.5 }}
    """
    record(fleet(tmp_path, gathering), tmp_path / "amber.db")
    found = learned(tmp_path / "amber.db")
    (group,) = tomllib.loads(found.text)["groups"]
    assert (group["every"], group["bursts"]) == ("30s", {"every": "30s", "count": 15})
    (tried,) = try_out(found)
    assert tried.pace > 0.9
    assert tried.values > 0.9


def test_a_store_without_telemetry_teaches_nothing(tmp_path: Path) -> None:
    Store(tmp_path / "amber.db", StoreOptions()).close()
    with pytest.raises(NothingToLearn, match="no device has two events"):
        learned(tmp_path / "amber.db")


def test_hostile_names_make_a_file_that_can_be_read(tmp_path: Path) -> None:
    """Names come from devices: quotes, line ends, topic wildcards."""
    names = ['say "hi"', "back\\slash", "two\nlines", "wild/+/#", "{device}", "ünï", "x" * 300, "\x7f", "*", "?", "[a]"]
    formats, store = Formats(), Store(tmp_path / "amber.db", StoreOptions())
    for n in range(4):
        messages = [
            Message(f"t/{i}", _json(name, n), qos=1, retain=False, received_at=START_US + n * 1_000_000)
            for i, name in enumerate(names)
        ]
        store.append(list(zip(messages, formats.read_all(messages), strict=True)), 0)
    store.close()
    found = learned(tmp_path / "amber.db")
    again = fleet(tmp_path, found.text)
    assert again.devices == len(names)
    assert all(0 <= one.all <= 1 for one in try_out(found))


def _json(name: str, n: int) -> bytes:
    return json.dumps({"device": name, name: n * 1.5, "plain": n}).encode()


def test_the_command_writes_the_file_and_says_how_alike_it_is(tmp_path: Path) -> None:
    record(fleet(tmp_path, FLEET), tmp_path / "amber.db")
    ask = [sys.executable, "-m", "gateway", "learn", "--store", str(tmp_path / "amber.db"), "--seed", "3"]
    ended = subprocess.run(ask, capture_output=True, text=True, check=True, timeout=60)
    assert tomllib.loads(ended.stdout)["seed"] == 3
    assert re.search(r"^3 devices, \d+ % alike in pace and values$", ended.stderr, re.MULTILINE)
    wrong = subprocess.run([*ask, "--device", "nobody"], capture_output=True, text=True, check=False, timeout=60)
    assert (wrong.returncode, wrong.stdout) == (1, "")
    assert wrong.stderr.startswith("amber: no device has two events with readings")
    assert len(wrong.stderr.splitlines()) == 1
