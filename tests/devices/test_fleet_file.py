"""A fleet's file is read as it is meant, and each thing that is wrong with it is told in a line of its own."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devices import cli
from devices.clock import SECOND_US
from devices.dialects import DIALECTS, speak
from devices.faults import Faults, Spell
from devices.fleet import Fleet, devices
from devices.fleets import FleetError, load
from devices.fleets.preview import preview
from devices.models import MODELS
from devices.pace import Bursts, Hours, Pace
from devices.signals import KINDS
from devices.telemetry import telemetry
from tests.devices.outside import Finished

START_US = 1_795_338_000 * SECOND_US  # 2026-11-22T09:00:00Z

WHOLE = """\
seed = 7
start = 2026-11-22T09:00:00Z
duration = "10m"

[[groups]]
name = "press"
count = 3
prefix = "p"
dialect = "json"
every = "1s"
jitter = 0.1
hours = ["06:00-22:00"]
zone = "Europe/Berlin"
bursts = { every = "1m", count = 20 }
qos = 2
retain = true
will = false
birth = false
session = "persistent"
receipts = true
topic = "plant/{group}/{device}/telemetry"

[groups.signals.temperature]
kind = "daily"
mean = 21
swing = 5
unit = "Cel"

[groups.faults]
duplicate = 0.01
clock_skew_s = "1m"
offline = { every = "2m", for = "20s" }
death = { at = [0, "30s"], for = "5s" }

[[groups]]
name = "hall"
names = ["north", "south"]
rate = 4
model = "thermometer"
"""

GROUP = '[[groups]]\nname = "a"\nevery = "1s"\nmodel = "meter"\n'
SIGNALS = '[[groups]]\nname = "a"\nevery = "1s"\n[groups.signals]\n'


def read(folder: Path, text: str, **given: Any) -> Fleet:
    path = folder / "fleet.toml"
    path.write_text(text, "utf-8")
    return load(path, **given)


def complaints(folder: Path, text: str) -> list[str]:
    """Without the path of the file."""
    with pytest.raises(FleetError) as raised:
        read(folder, text)
    assert raised.value.exit_status == 2
    assert "\n".join(raised.value.lines) == str(raised.value)
    return [line.removeprefix(f"{folder / 'fleet.toml'}:") for line in raised.value.lines]


def test_every_key_becomes_what_it_says(tmp_path: Path) -> None:
    fleet = read(tmp_path, WHOLE)
    assert (fleet.seed, fleet.start_us, fleet.duration_s) == ("7", START_US, 600)
    press, hall = fleet.groups
    assert press.pace == Pace(1.0, 0.1, Hours(((6 * 3600, 22 * 3600),), "Europe/Berlin"), Bursts(60.0, 20))
    assert (press.name, press.prefix, press.count, press.dialect) == ("press", "p", 3, "json")
    assert (press.qos, press.retain, press.will, press.birth) == (2, True, False, False)
    assert (press.session, press.receipts, press.topic) == ("persistent", True, "plant/{group}/{device}/telemetry")
    assert press.units == {"temperature": "Cel"}
    assert press.faults == Faults(
        duplicate=0.01,
        clock_skew_s=60,
        offline=Spell(every_s=120, for_s=20),
        death=Spell(at_s=(0, 30), for_s=5),
    )
    assert (hall.pace, hall.units, hall.qos) == (Pace(0.25), MODELS["thermometer"].units, 1)
    assert [device.name for device in devices(fleet)] == ["p-0001", "north", "p-0002", "south", "p-0003"]


def test_what_is_given_stands_over_what_the_file_says(tmp_path: Path) -> None:
    fleet = read(tmp_path, WHOLE, seed=8, start_us=0, duration_s=3.0)
    assert (fleet.seed, fleet.start_us, fleet.duration_s) == ("8", 0, 3.0)


def test_without_seed_start_and_duration_it_is_another_fleet_each_time(tmp_path: Path) -> None:
    one, other = read(tmp_path, GROUP), read(tmp_path, GROUP)
    assert one.seed != other.seed
    assert one.duration_s is None
    assert one.start_us > START_US - 366 * 86_400 * SECOND_US


@pytest.mark.parametrize("seed", ["-1", '"-1"', '"seven"', "0"])
def test_a_seed_is_any_whole_number_or_text(seed: str, tmp_path: Path) -> None:
    assert read(tmp_path, f"seed = {seed}\n{GROUP}").seed == seed.strip('"')


@pytest.mark.parametrize("start", ["2026-11-22", "2026-11-22T00:00:00", "2026-11-22T01:00:00+01:00"])
def test_a_start_means_the_same_with_and_without_quotes(start: str, tmp_path: Path) -> None:
    midnight_us = START_US - 9 * 3600 * SECOND_US
    assert read(tmp_path, f"start = {start}\n{GROUP}").start_us == midnight_us
    assert read(tmp_path, f'start = "{start}"\n{GROUP}').start_us == midnight_us


@pytest.mark.parametrize(("length", "seconds"), [("10 min", 600), ("1h30m", 5400)])
def test_lengths_may_be_written_as_people_do(length: str, seconds: int, tmp_path: Path) -> None:
    assert read(tmp_path, f'duration = "{length}"\n{GROUP}').duration_s == seconds


def test_the_same_file_gives_the_same_bytes(tmp_path: Path) -> None:
    def said() -> list[bytes]:
        fleet = read(tmp_path, WHOLE)
        return [
            message.publication.payload
            for device in devices(fleet)
            for message in islice(telemetry(device, fleet, speak(device, fleet)), 50)
        ]

    assert said() == said()


def test_signals_become_readings_in_their_order(tmp_path: Path) -> None:
    fleet = read(tmp_path, SIGNALS + 'b = { kind = "constant", value = 1 }\na = { kind = "constant", value = true }\n')
    device = next(devices(fleet))
    message = next(telemetry(device, fleet, speak(device, fleet)))
    assert [*json.loads(message.publication.payload)["readings"].items()] == [("b", 1), ("a", True)]


def test_all_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    text = """\
sped = 3

[[groups]]
name = "press"
every = "soon"
session = "cleen"
receipts = true
qos = 0

[groups.signals.temperature]
kind = "dayly"

[groups.signals.humidity]
kind = "follows"
of = "temprature"
offset = "80"

[[groups]]
name = "press"
rate = 1
dialect = "sparkplag"
model = "termometer"
"""
    assert complaints(tmp_path, text) == [
        "1: sped: there is no such key here, did you mean 'seed'?",
        "5: groups[0].every: 'soon' is no length of time: write 30s, 5m or 1h, in quotes",
        "6: groups[0].session: there is no 'cleen': write 'clean' or 'persistent'",
        "7: groups[0].receipts: need qos 1 or 2: what is sent at 0 is never sent again",
        "11: groups[0].signals.temperature.kind: there is no kind 'dayly', did you mean 'daily'?",
        "15: groups[0].signals.humidity.of: there is no signal 'temprature', did you mean 'temperature'?",
        "16: groups[0].signals.humidity.offset: is to be a number, not '80'",
        "19: groups[1].name: 'press' is the name of another group: choose another",
        "21: groups[1].dialect: there is no dialect 'sparkplag', did you mean 'sparkplug'?",
        "22: groups[1].model: there is no model 'termometer', did you mean 'thermometer'?",
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "1: there is no group: write one [[groups]] for each sort of device"),
        ("groups = 5", "1: groups: is to be an array: [ … ], not 5"),
        ("groups = [5]", "1: groups[0]: is to be a table, not 5: write [[groups]]"),
        ("groups = { a = 1 }", "1: groups: may be many: write [[groups]], in double brackets"),
        ("[groups]\nname = 'a'", "1: groups: may be many: write [[groups]], in double brackets"),
        (GROUP + "[[groups.faults]]", "5: groups[0].faults: is one table: write its header in single brackets"),
        ("seed = true\n" + GROUP, "1: seed: a seed is any whole number, such as 7, or a text in quotes"),
        ("seed = 1.5\n" + GROUP, "1: seed: a seed is any whole number, such as 7, or a text in quotes"),
        ('seed = ""\n' + GROUP, "1: seed: a seed is any whole number, such as 7, or a text in quotes"),
        ("start = 09:00:00\n" + GROUP, "1: start: a start looks like 2026-11-22T09:00:00Z"),
        ("start = 1969-11-22\n" + GROUP, "1: start: a start looks like 2026-11-22T09:00:00Z"),
        (
            SIGNALS + 'x = { kind = "daily", mean = 3, swing = 1, unit = "Celsius" }',
            "5: groups[0].signals.x.unit: 'Celsius' is no UCUM code, did you mean 'Cel'?",
        ),
        ('duration = "0s"\n' + GROUP, "1: duration: '0s' is no length of time"),
        ("duration = nan\n" + GROUP, "1: duration: nan is no length of time"),
        ('[[groups]]\nevery = "1s"\nmodel = "meter"', "1: groups[0].name: is missing: what the group is called"),
        ('[[groups]]\nname = "a"\nmodel = "meter"', '1: groups[0].every: is missing: write every = "10s"'),
        ('[[groups]]\nname = "a"\nevery = "1s"', "1: groups[0]: measures nothing: write [groups.signals.NAME]"),
        (GROUP + "rate = 2", "5: groups[0].rate: is said twice, as every and as rate"),
        (GROUP + "rate = 0", "5: groups[0].rate: is to be more than 0, not 0"),
        (GROUP + "rate = 1e9", "5: groups[0].rate: is to be at most 10000"),
        (GROUP + "count = 0", "5: groups[0].count: is to be at least 1, not 0"),
        (GROUP + "count = 99999999999999", "5: groups[0].count: is to be at most 1e+06"),
        (GROUP + "count = true", "5: groups[0].count: is to be a whole number, not true"),
        (GROUP + "qos = 3", "5: groups[0].qos: is to be at most 2, not 3"),
        (GROUP + "jitter = 1.0", "5: groups[0].jitter: is to be less than 1, not 1.0"),
        (GROUP + "jitter = inf", "5: groups[0].jitter: is to be "),
        (GROUP + 'retain = "yes"', "5: groups[0].retain: is to be true or false, not 'yes'"),
        (GROUP + "names = []", "5: groups[0].names: needs 1 of them at least"),
        (GROUP + 'names = ["x"]\ncount = 3', "6: groups[0].count: says what names say already"),
        (GROUP + 'names = ["x",\n "y",\n "x"]', "7: groups[0].names[2]: 'x' stands here twice"),
        (GROUP + 'prefix = "a+b"', "5: groups[0].prefix: a name cannot hold '+'"),
        (GROUP + 'prefix = "a\\u0000b"', "5: groups[0].prefix: a name cannot hold '\\x00'"),
        (GROUP + 'prefix = " "', "5: groups[0].prefix: a name has a letter at least"),
        (GROUP + 'hours = ["8-10"]', "5: groups[0].hours[0]: '8' is no time of day"),
        (GROUP + 'hours = ["25:00-26:00"]', "5: groups[0].hours[0]: '25:00' is no time of day"),
        (GROUP + 'hours = ["08:00-08:00"]', "5: groups[0].hours[0]: 08:00-08:00 is no time at all"),
        (GROUP + "hours = []", '5: groups[0].hours: never open: write ["06:00-22:00"]'),
        (GROUP + 'zone = "UTC"', "5: groups[0].zone: is the zone of hours, and there are none"),
        (GROUP + 'hours = ["08:00-10:00"]\nzone = "Mars/Base"', "6: groups[0].zone: 'Mars/Base' is no zone"),
        (
            GROUP.replace("1s", "1d") + 'hours = ["08:00-10:00"]',
            "5: groups[0].hours: a device that measures every 86400s may never meet them",
        ),
        (
            'start = 2026-11-22T09:00:00Z\nduration = "1m"\n' + GROUP + 'hours = ["10:00-12:00"]',
            "7: groups[0].hours: never open between start and the end of duration",
        ),
        (GROUP + 'bursts = { every = "1ms", count = 3 }', "5: groups[0].bursts.every: is to be at least every"),
        (GROUP + 'bursts = { every = "1m" }', "5: groups[0].bursts.count: is missing: how many samples come at once"),
        (GROUP + 'topic = "x/{grup}"', "5: groups[0].topic: {grup} stands for nothing, did you mean 'group'?"),
        (GROUP + 'topic = "x/{device"', "5: groups[0].topic: has a brace without its other half"),
        (GROUP + 'topic = "x/{}"', "5: groups[0].topic: {} stands for nothing"),
        (GROUP + 'topic = "x/{device:3}"', "5: groups[0].topic: {device:3} stands for nothing"),
        (GROUP + 'topic = "x/{{device}}"', "5: groups[0].topic: has a brace without its other half"),
        (GROUP + 'faults.death = { every = "1us" }', "5: groups[0].faults.death"),
        (GROUP.replace('"a"', '"a/b"') + 'dialect = "tts"\nnames = ["x"]', "2: groups[0].name: 'a/b' has a slash"),
        (GROUP + 'topic = "x/+/{device}"', "5: groups[0].topic: cannot hold '+'"),
        (GROUP + 'topic = "$SYS/{device}"', "5: groups[0].topic: is no topic that a device can publish to"),
        (GROUP + 'topic = ""', "5: groups[0].topic: is no topic that a device can publish to"),
        (GROUP + 'dialect = "tasmota"\ntopic = "x"', "6: groups[0].topic: tasmota has topics of its own"),
        (GROUP + 'dialect = "tasmota"\nprefix = "a/b"', "6: groups[0].prefix: 'a/b' has a slash"),
        (GROUP + "signals = 3", "5: groups[0].signals: is to be a table: { … }, not 3"),
        (GROUP + 'signals.x = { kind = "constant", value = 1 }', "4: groups[0].model: a group has a model or signals"),
        (GROUP + "faults = { duplicate = 2 }", "5: groups[0].faults.duplicate: is to be at most 1, not 2"),
        (
            GROUP + "[groups.faults]\ndublicate = 0.1",
            "6: groups[0].faults.dublicate: there is no such key here, did you",
        ),
        (GROUP + 'faults.offline = { every = "1m" }', "5: groups[0].faults.offline: takes no time"),
        (GROUP + 'faults.offline = { for = "1m" }', "5: groups[0].faults.offline: never comes"),
        (
            GROUP + 'faults.offline = { evry = "1m" }',
            "5: groups[0].faults.offline.evry: there is no such key here, did",
        ),
        (GROUP + "faults.clock_skew_s = 1e10", "5: groups[0].faults.clock_skew_s: "),
        (
            GROUP + 'dialect = "influx"\nfaults.conflict = 0.1',
            "6: groups[0].faults.conflict: needs a dialect whose messages bear an identity: json, ",
        ),
        (SIGNALS + "x = 3", "5: groups[0].signals.x: is to be a table, not 3"),
        (SIGNALS + "x = { mean = 3 }", "5: groups[0].signals.x: has no kind: write kind = one of constant, daily"),
        (SIGNALS + "x = { kind = 3 }", "5: groups[0].signals.x.kind: there is no kind 3, only constant"),
        (SIGNALS + 'x = { kind = "daily", mean = 3 }', "5: groups[0].signals.x.swing: is missing: how far it goes"),
        (SIGNALS + 'x = { kind = "daily", mean = nan, swing = 1 }', "5: groups[0].signals.x.mean: is to be a number"),
        (
            SIGNALS + 'x = { kind = "daily", mean = 1e300, swing = 1 }',
            "5: groups[0].signals.x.mean: is to be at most 1e+15",
        ),
        (
            SIGNALS + 'x = { kind = "noise", mean = 1, noise = 1, min = 3, max = 2 }',
            "5: groups[0].signals.x: min = 3 is",
        ),
        (
            SIGNALS + 'x = { kind = "constant", value = "a", unit = "m" }',
            "5: groups[0].signals.x: only a number has a unit",
        ),
        (SIGNALS + 'x = { kind = "constant", value = [1] }', "5: groups[0].signals.x.value: [1] is no value"),
        (
            SIGNALS + 'x = { kind = "steps", values = [1, "a"], every = "1s" }',
            "5: groups[0].signals.x: the values are to be",
        ),
        (SIGNALS + 'x = { kind = "states", states = {} }', "5: groups[0].signals.x: there is no state"),
        (
            SIGNALS + 'x = { kind = "states", states = { a = "1s" }, transitions = { a = { b = 1.0 } } }',
            "5: groups[0].signals.x: transitions speak of 'b', and states do not",
        ),
        (SIGNALS + 'x = { kind = "counter" }', "5: groups[0].signals.x: a counter has either rate"),
        (
            SIGNALS + 'x = { kind = "track", points = [[1, 2]], speed_km_h = 1 }',
            "5: groups[0].signals.x.points: needs 2",
        ),
        (
            SIGNALS + 'x = { kind = "track", points = [[1, 2], [1, 2]], speed_km_h = 1 }',
            "5: groups[0].signals.x: all points",
        ),
        (
            SIGNALS + 'x = { kind = "quantiles", quantiles = [2, 1] }',
            "5: groups[0].signals.x: the quantiles are to rise",
        ),
        (
            SIGNALS + 'x = { kind = "csv", file = "no.csv", column = "a" }',
            "5: groups[0].signals.x: cannot read no.csv: No such",
        ),
        (SIGNALS + 'x = { kind = "csv", file = ".", column = "a" }', "5: groups[0].signals.x: cannot read .: Is a dir"),
        (
            SIGNALS + 'x = { kind = "follows", of = "x" }',
            "5: groups[0].signals.x.of: goes round in a circle, 'x' → 'x'",
        ),
        (
            SIGNALS + 'a = { kind = "follows", of = "c" }\nb = { kind = "follows", of = "a" }\n'
            'c = { kind = "follows", of = "b" }',
            "5: groups[0].signals.a.of: goes round in a circle, 'a' → 'c' → 'b' → 'a'",
        ),
        (
            SIGNALS + 'm = { kind = "constant", value = "on" }\nx = { kind = "follows", of = "m" }',
            "6: groups[0].signals.x.of: 'm' is a text, which cannot be reckoned with: write values = { … }",
        ),
        (
            SIGNALS + 'm = { kind = "constant", value = "on" }\nx = { kind = "counter", of = "m" }',
            "6: groups[0].signals.x.of: 'm' is a text, which cannot be reckoned with: sum up a number",
        ),
        (
            SIGNALS + 'm = { kind = "states", states = { a = "1s", b = "1s" } }\n'
            'x = { kind = "follows", of = "m", values = { a = 1 } }',
            "6: groups[0].signals.x.values: says nothing of 'b', which 'm' may be",
        ),
        (
            SIGNALS + 'm = { kind = "constant", value = 1 }\nx = { kind = "follows", of = "m", values = { a = 1 } }',
            "6: groups[0].signals.x.values: 'm' is a number: write factor and offset instead",
        ),
        (
            SIGNALS + 'speed = { kind = "constant", value = 1 }\n'
            "way = { kind = 'track', points = [[1, 2], [2, 3]], speed_km_h = 1 }",
            "6: groups[0].signals.way: gives 'speed', as 'speed' does",
        ),
        (
            SIGNALS.replace("[groups.s", 'dialect = "zigbee2mqtt"\n[groups.s')
            + 'linkquality = { kind = "constant", value = 1 }',
            "5: groups[0].signals: zigbee2mqtt says 'linkquality' itself",
        ),
        (SIGNALS + '"a\\u001bb" = 3', '5: groups[0].signals."a\\x1bb": is to be a table, not 3'),
        (
            GROUP + GROUP.replace('"a"', '"b"') + 'prefix = "a"',
            "9: groups[1].prefix: 'a' begins the names of group 'a' already",
        ),
        (
            GROUP + 'count = 3\n[[groups]]\nname = "b"\nmodel = "door"\nrate = 1\nnames = ["x", "a-0003"]',
            "10: groups[1].names: 'a-0003' is in group 'a' already",
        ),
        (
            GROUP + 'names = ["x"]\n[[groups]]\nname = "b"\nmodel = "door"\nrate = 1\nnames = ["x"]',
            "10: groups[1].names[0]: 'x' is in group 'a' already",
        ),
    ],
)
def test_a_fault_is_told_where_it_stands_and_what_to_do(text: str, words: str, tmp_path: Path) -> None:
    (line,) = complaints(tmp_path, text)
    assert line.startswith(words)
    assert line.isprintable()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("seed = 7\nstart = = 3\n", "2:9: start: invalid value"),
        ("seed = 7\nseed = 8\n", "2:9: seed: cannot overwrite a value"),
        ("a = [", "1: a: invalid value"),
        ('a = "', "1: a: unterminated string"),
        (f"a = 1\nb = {'9' * 5000}", "2: this number is too long"),
        ("a = " + "[" * 5_000, "1: is nested too deeply"),
    ],
)
def test_what_is_no_toml_is_told_with_line_and_column(text: str, words: str, tmp_path: Path) -> None:
    (line,) = complaints(tmp_path, text)
    assert words in line


def test_what_is_no_text_is_told(tmp_path: Path) -> None:
    path = tmp_path / "fleet.toml"
    path.write_bytes(b"seed = 7\nstart = \xff\n")
    with pytest.raises(FleetError, match=r"fleet\.toml:2: is not UTF-8 text"):
        load(path)
    with pytest.raises(FleetError, match="cannot be read: No such file or directory"):
        load(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("content", "more", "words"),
    [
        ("a,b\n", "", "day.csv has no rows below its header"),
        ("a,b\n1,2\n", 'column = "c"', "day.csv has no column 'c', only a, b"),
        ("a,b\n1,x\n", 'column = "b", interpolate = true', "the column 'b' is not all numbers"),
        ("a,b\n1,x\n", 'column = "b", unit = "m"', "the column 'b' is not all numbers"),
        ("a,b\n1,nan\n", 'column = "b"', "row 2: nan is out of bounds"),
        ("a,b\n2,1\n1,2\n", 'column = "b", time = "a"', "row 3: the times are to rise"),
        ("a,b\nx,1\n", 'column = "b", time = "a"', "row 2: 'x' is no time"),
        ('a,b\n"', 'column = "b", time = "b"', "row 2: '' is no time"),
    ],
)
def test_a_recording_that_cannot_be_played_is_told(content: str, more: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "day.csv").write_text(content)
    column = more or 'column = "a"'
    (line,) = complaints(tmp_path, SIGNALS + f'x = {{ kind = "csv", file = "day.csv", {column} }}')
    assert line.startswith(f"5: groups[0].signals.x: {words}")


def test_a_recording_is_looked_for_beside_the_file_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "day.csv").write_text("\ufeffa\n5\n", "utf-8")
    fleet = read(tmp_path, SIGNALS + 'x = { kind = "csv", file = "day.csv", column = "a" }')
    assert any('"x":5' in line for line in preview(fleet))


TOML = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 10**20)
    | st.floats()
    | st.sampled_from(["1s", "a", "x-y", "{device}", ""]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["every", "count", "kind", "of", "values", "for", "at", "mean"]), inner, max_size=3
        )
    ),
    max_leaves=6,
)
KEYS = sorted(
    {"name", "names", "every", "rate", "hours", "zone", "bursts", "topic", "dialect", "signals", "faults", "qos"}
)


@given(st.dictionaries(st.sampled_from(KEYS), TOML, max_size=6), st.sampled_from([*KINDS]), TOML)
@settings(max_examples=100, deadline=None)
def test_whatever_stands_in_a_file_it_is_read_or_refused_in_lines(
    tmp_path_factory: pytest.TempPathFactory, group: dict[str, Any], kind: str, value: Any
) -> None:
    """No traceback, whatever somebody writes."""
    lines = ["[[groups]]", *(f"{key} = {toml(one)}" for key, one in group.items() if one is not None)]
    if "signals" not in group:
        lines += ["[groups.signals.x]", f'kind = "{kind}"', f"mean = {toml(value)}", f"points = {toml(value)}"]
    path = tmp_path_factory.getbasetemp() / "any.toml"
    path.write_text("\n".join(lines), "utf-8")
    told: list[str] = []
    try:
        load(path)
    except FleetError as error:
        told = error.lines
    assert all(re.match(r".*any\.toml:\d+(:\d+)?: .+", line) and line.isprintable() for line in told)


def toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {toml(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return json.dumps(value).replace("NaN", "nan").replace("Infinity", "inf").replace("null", '""')


Amber = Callable[..., Finished]


@pytest.fixture
def amber(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Amber:
    """`amber simulate` with these arguments."""

    def run(*arguments: object) -> Finished:
        monkeypatch.setattr(sys, "argv", ["devices", "simulate", *map(str, arguments)])
        return Finished(cli.main(), *capsys.readouterr())

    return run


def test_check_shows_groups_rates_and_first_messages(tmp_path: Path, amber: Amber) -> None:
    path = tmp_path / "fleet.toml"
    path.write_text(WHOLE)
    ended = amber(path, "--check")
    assert (ended.code, ended.err) == (0, "")
    lines = ended.out.splitlines()
    assert lines[0].split() == ["group", "devices", "dialect", "qos", "messages/s", "hours", "faults"]
    assert lines[1].split()[:6] == ["press", "3", "json", "2", "+receipts", "3.99"]
    assert lines[3].split() == ["all", "5", "12"]
    assert "press: plant/press/p-0001/telemetry" in lines
    assert '  {"device":"p-0001","boot":"' in ended.out


def test_check_says_when_a_fleet_has_no_end(tmp_path: Path, amber: Amber) -> None:
    path = tmp_path / "fleet.toml"
    path.write_text(GROUP)
    assert amber(path, "--check").out.splitlines()[2].split() == ["all", "1", "1", "until", "stopped"]
    assert "until stopped" not in amber(path, "--check", "--duration", "5m").out


def test_options_that_the_file_answers_are_refused_beside_it(tmp_path: Path, amber: Amber) -> None:
    path = tmp_path / "fleet.toml"
    path.write_text(WHOLE)
    for option, value in (("--devices", 10), ("--rate", 1), ("--qos", 1), ("--models", "door")):
        ended = amber(path, option, value, "--check")
        assert ended.code == 2
        assert ended.out == ""
        assert (
            ended.err == f"amber: Invalid value for {option}: the fleet's file says that for each group: say it there\n"
        )


def test_options_that_stand_over_the_file_do(tmp_path: Path, amber: Amber) -> None:
    path = tmp_path / "fleet.toml"
    path.write_text(WHOLE)
    usual, seeded = amber(path, "--check"), amber(path, "--check", "--seed", 8)
    later = amber(path, "--check", "--start", "2026-11-22T10:00:00Z")
    assert usual.out == amber(path, "--check", "--seed", 7).out != seeded.out
    assert "2026-11-22T10:00:" in later.out


def test_a_bad_file_is_told_in_lines_and_exit_code_2(tmp_path: Path, amber: Amber) -> None:
    path = tmp_path / "fleet.toml"
    path.write_text("seed = []\n" + GROUP + "qos = 7\n")
    ended = amber(path)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.splitlines() == [
        f'{path}:1: seed: a seed is any whole number, such as 7, or a text in quotes, such as "seven"',
        f"{path}:6: groups[0].qos: is to be at most 2, not 7",
    ]


def test_there_is_nothing_to_check_without_a_file(amber: Amber) -> None:
    ended = amber("--check")
    assert ended.code == 2
    assert "amber simulate FLEET.toml --check" in ended.err


def test_the_preview_cannot_steer_a_terminal(tmp_path: Path) -> None:
    fleet = read(tmp_path, SIGNALS + '"x\\u001b[31m" = { kind = "constant", value = "\\u009b2J" }')
    assert all(line.isprintable() for line in preview(fleet))


def test_the_docs_name_every_key_kind_and_dialect() -> None:
    docs = (Path(__file__).parents[2] / "docs" / "fleets.md").read_text("utf-8")
    for word, kind in KINDS.items():
        row = next(line for line in docs.splitlines() if line.startswith(f"| `{word}` |"))
        own = {*kind.model_fields} - {"kind", "unit", "decimals", "integer", "min", "max", "spread", "noise"}
        assert {name for name in own if f"`{name}`" not in row} == set()
    for key in ("unit", "decimals", "integer", "min", "max", "spread", "noise"):
        assert f"| `{key}` |" in docs
    from devices.fleets.sections import FleetSection, GroupSection

    for section in (FleetSection, GroupSection):
        assert [key for key in section.model_fields if f"`{key}`" not in docs] == []
    assert [name for name in DIALECTS if f"`{name}`" not in docs] == []


def test_the_files_in_the_docs_work(tmp_path: Path) -> None:
    docs = (Path(__file__).parents[2] / "docs" / "fleets.md").read_text("utf-8")
    (tmp_path / "day.csv").write_text("time,level\n0,1\n60,2\n")
    texts = re.findall(r"```toml\n(.*?)```", docs, re.DOTALL)
    assert len(texts) >= 2
    for text in texts:
        read(tmp_path, text if "[[groups]]" in text else GROUP.replace('model = "meter"\n', "") + text)


def test_each_circle_is_told(tmp_path: Path) -> None:
    lines = [f'{one} = {{ kind = "follows", of = "{other}" }}' for one, other in ("ab", "ba", "cd", "dc", "ea")]
    told = complaints(tmp_path, SIGNALS + "\n".join(lines))
    assert [line.split(",")[1] for line in told] == [" 'a' → 'b' → 'a': let one of them stand alone",
                                                     " 'c' → 'd' → 'c': let one of them stand alone"]  # fmt: skip


def test_an_unnamed_signal_is_told_as_what_it_is(tmp_path: Path) -> None:
    (line,) = complaints(tmp_path, SIGNALS + '"" = { kind = "constant", value = 1 }')
    assert "the name of a reading cannot be empty" in line
