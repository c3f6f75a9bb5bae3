"""What is no TOML is told with its key and what to write instead; what is written so is read."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devices.fleets import FleetError
from devices.fleets.reading import data_of
from devices.signals.units import CODES, known_unit
from gateway.formats.units import code
from tests.devices.test_fleet_file import WHOLE

GROUP = "[[groups]]\n"


def told(text: str) -> str:
    with pytest.raises(FleetError) as raised:
        data_of(Path("f"), text)
    (line,) = raised.value.lines
    assert line.isprintable()
    return line.removeprefix("f:")


@pytest.mark.parametrize(
    ("line", "key", "right"),
    [
        ("name = press", "name", 'name = "press"'),
        ("name = press # the first", "name", 'name = "press"'),
        ('name = "press', "name", 'name = "press"'),
        ("name = 'press", "name", "name = 'press'"),
        ("name = “press”", "name", 'name = "press"'),
        ("every = 1s", "every", 'every = "1s"'),
        ("every = 10 min", "every", 'every = "10 min"'),
        ("hours.a = 06:00-22:00", "hours.a", 'hours.a = "06:00-22:00"'),
        ("x = { kind = daily, mean = 1 }", "x.kind", 'kind = "daily"'),
        ("x = { every = 1s, mean = 1 }", "x.every", 'every = "1s"'),
        ("rate = 1,5", "rate", "rate = 1.5"),
        ("rate = .5", "rate", "rate = 0.5"),
        ("rate = 007", "rate", "rate = 7"),
        ("duplicate = 50%", "duplicate", "duplicate = 0.5"),
        ("retain = True", "retain", "retain = true"),
    ],
)
@pytest.mark.parametrize("after", ["", "\n", "\nlater = 1\n"])
def test_a_value_that_is_none_is_told_as_it_is_to_be_written(line: str, key: str, right: str, after: str) -> None:
    words = told(GROUP + line + after)
    assert words.startswith("2:")
    assert f": groups[0].{key}: " in words
    assert words.endswith(right)
    assert data_of(Path("f"), GROUP + right)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("seed = 7\nseed = 8\n", "2:9: seed: cannot overwrite a value: stands here twice, first in line 1"),
        (GROUP + "a = 1\nb = 2\na = 3", "4: groups[0].a: cannot overwrite a value: stands here twice, first in line 2"),
        ("a = 1\na.b = 2\n", "2:8: a.b: cannot overwrite a value: what it is part of has a value in line 1"),
        ("x = { a = 1, a = 2 }", "stands twice on this line: leave one out"),
        ("[groups]\n[[groups]]", "write [[groups]], in double brackets, each time: it is there already in line 1"),
        (GROUP + "[groups]", "write [[groups]], in double brackets, each time: it is there already in line 1"),
        (
            GROUP + "x = { a = 1,\n b = 2 }",
            "stands on one line: join its lines, or write a table of its own: [groups.x]",
        ),
        (
            GROUP + "x = {\n b = 2 }",
            "2:6: groups[0].x: invalid initial character for a key part: an inline table stands",
        ),
        ("x = { a = 1", "an inline table stands on one line"),
        ("x = { a = 1, }", "leave out the comma before the }"),
        ("x = [1 2]", "write commas between the values"),
        ("a = 1\nx = [\n1,\n", "2: x: invalid value: write commas between the values, and a ] at the end"),
        ("x = [a, b]", 'x: invalid value: texts stand in quotes: "a"'),
        ("x = [6:00]", 'x: unclosed array: write it in quotes: "6:00"'),
        ("x =\n", "x: invalid value: write a value behind the ="),
        ('x = "a" "b"', "a key has one value"),
        ("x = 1 y = 2", "each key has a line of its own"),
        ("name press", 'write name = "press"'),
        ('name : "press"', 'write name = "press"'),
        ("a b = 3", 'of more than one word, stands in quotes: "a b" = …'),
        ("= 3", "write a key before the ="),
        ("größe = 3", 'stands in quotes: "größe" = …'),
        ("[[groups]\n", "write [[groups]]"),
        ('file = "c:\\users"', "write \\\\ for a backslash, or put the text in single quotes"),
        ('x = """abc', 'close the text with """'),
        (f"x = {'y' * 100_000}", "1:5: invalid value"),
    ],
)
def test_what_is_no_toml_is_told_with_what_to_do(text: str, words: str) -> None:
    assert words in told(text)


@given(st.integers(0, len(WHOLE)), st.integers(0, 12), st.text(" \n\r\t\"'[]{}=,.#\\a1é\x00", max_size=4))
@settings(max_examples=300, deadline=None)
def test_a_text_that_is_broken_anywhere_is_read_or_told_in_a_line(at: int, without: int, instead: str) -> None:
    text = WHOLE[:at] + instead + WHOLE[at + without :]
    try:
        data_of(Path("f"), text)
    except FleetError as error:
        (line,) = error.lines
        assert line.isprintable()


@pytest.mark.parametrize(
    ("unit", "meant"),
    [
        ("Celsius", "Cel"),
        ("degC", "Cel"),
        ("°C", "Cel"),
        ("° C", "Cel"),
        ("degrees Celsius", "Cel"),
        ("Fahrenheit", "[degF]"),
        ("°F", "[degF]"),
        ("percent", "%"),
        ("kWh", "kW.h"),
        ("KWH", "kW.h"),
        ("MWh", "MW.h"),
        ("Wh", "W.h"),
        ("Watt", "W"),
        ("kWatt", "kW"),
        ("Volt", "V"),
        ("Ampere", "A"),
        ("ppm", "[ppm]"),
        ("lux", "lx"),
        ("rpm", "/min"),
        ("mph", "[mi_i]/h"),
        ("°", "deg"),
        ("DB", "dB"),
        ("μg/m³", "ug/m3"),
    ],
)
def test_a_common_name_of_a_unit_is_refused_with_its_code(unit: str, meant: str) -> None:
    with pytest.raises(ValueError, match="is no UCUM code") as raised:
        known_unit(unit)
    assert str(raised.value).endswith(f", did you mean {meant!r}?")


def test_codes_and_what_nobody_knows_pass() -> None:
    known = (
        "Cel [degF] K C F % W kW MW mW V A Hz hPa mbar [ppm] lx km/h {rpm}/min 1/min deg dB dBm 1 l/min m/s {presses}"
    )
    assert [known_unit(unit) for unit in known.split()] == known.split()


def test_each_code_that_is_named_is_one_that_passes_and_that_the_gateway_knows() -> None:
    for meant in {*CODES.values()}:
        assert known_unit(meant) == meant
        assert code(meant) == meant
