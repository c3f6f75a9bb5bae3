"""The lines of a TOML text are found: for every key and every entry that the standard library reads out of it."""

from __future__ import annotations

import itertools
import json
import tomllib
from collections.abc import Iterator
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from devices.fleets.locate import line_of, locate

Way = tuple[str | int, ...]

TEXT = '''\
seed = 7
a.b."c d" = [1, # a comment with ] and "
  2,
  { z = "]}", "q.r" = [3,
   4] } ]
s = """
[groups]
x = 1 \\"""
y""""
raw = \'\'\'
it's\'\'\'
[[groups]]
name="x"
[groups.signals.temp]
kind = 'a#b'
[groups.signals]
h = {k = 1979-05-27 07:32:00, l.m = 2}
[[groups]]
[groups."o p".q]
'''


def test_each_kind_of_line_is_known() -> None:
    lines = locate(TEXT)
    assert {way for way in lines if way} == {*ways(tomllib.loads(TEXT))}
    assert [lines[way] for way in (("seed",), ("a", "b", "c d", 0), ("a", "b", "c d", 2, "q.r", 1))] == [1, 2, 5]
    assert [lines[way] for way in (("s",), ("raw",), ("groups",), ("groups", 1), ("groups", 0, "name"))] == [
        6,
        10,
        12,
        18,
        13,
    ]
    assert lines["groups", 0, "signals", "temp", "kind"] == 15
    assert lines["groups", 0, "signals", "h", "l", "m"] == 17
    assert lines["groups", 1, "o p", "q"] == 19


def test_what_is_missing_is_told_at_the_table_it_is_missing_from() -> None:
    assert line_of(("groups", 1, "every"), locate(TEXT)) == 18
    assert line_of(("nowhere",), locate(TEXT)) == 1


def test_line_ends_of_windows_count_once() -> None:
    assert locate("a = 1\r\n\r\n[b]\r\nc = 2\r\n")["b", "c"] == 4


def ways(value: Any, way: Way = ()) -> Iterator[Way]:
    """The way to each key and entry."""
    if way:
        yield way
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inner:
        yield from ways(one, (*way, key))


def leaves(value: Any, way: Way = ()) -> Iterator[tuple[Way, Any]]:
    if isinstance(value, dict | list):
        for key, one in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(one, (*way, key))
    else:
        yield way, value


class Writer:
    """Writes a document in which every value is a number of its own, so that its line can be looked up in the text."""

    def __init__(self, draw: Any) -> None:
        self.draw = draw
        self.numbers = itertools.count(100_000)

    def pick(self, *choices: Any) -> Any:
        return self.draw(st.sampled_from(choices))

    def key(self) -> str:
        name = self.draw(st.text("ab.\" '#[]é=\\", min_size=1, max_size=3) | st.sampled_from(["a", "b-1", "c_2"]))
        if all(letter.isascii() and (letter.isalnum() or letter in "-_") for letter in name):
            return str(name)
        return f"'{name}'" if "'" not in name and self.pick("yes", "") else json.dumps(name)

    def space(self) -> str:
        return str(self.pick("", " ", "\n", " # ] } \" ''' comment\n", "\n\n  "))

    def scalar(self) -> str:
        number = next(self.numbers)
        return str(
            self.pick(
                f"{number}",
                f"{number}.5",
                f'"{number} ]#}} \\" \\\\"',
                f"'{number} [# \\'",
                f'"""{number} "" [ \n """""',
                f"'''{number} ' [{{ \n x'''",
            )
        )

    def value(self, depth: int) -> str:
        shape = self.pick("scalar", "scalar", "array", "table") if depth else "scalar"
        if shape == "scalar":
            return self.scalar()
        if shape == "array":
            entries = [f"{self.space()}{self.value(depth - 1)}{self.space()}" for _ in range(self.pick(0, 1, 3))]
            return f"[{','.join(entries)}{self.space()}{',' if entries and self.pick('yes', '') else ''}{self.space()}]"
        keys = {json.dumps(self.key()): None for _ in range(self.pick(0, 1, 2))}
        # a key holds no line break, and neither does an inline table, but within its values
        return "{" + ", ".join(f"{json.loads(key)} = {self.value(depth - 1)}" for key in keys) + "}"

    def document(self) -> str:
        lines = []
        for _ in range(self.pick(1, 2, 4)):
            lines += [f"{self.dotted()} = {self.value(2)}" for _ in range(self.pick(0, 1, 3))]
            header = self.dotted()
            lines.append(self.pick(f"[{header}]", f"[[{header}]]", f"[[ {header} ]] # x", "", "# [x]"))
        return str(self.pick("\n", "\n\n")).join([*lines, f"{self.dotted()} = {self.value(2)}"])

    def dotted(self) -> str:
        return str(self.pick(".", " . ")).join(self.key() for _ in range(self.pick(1, 1, 2)))


@st.composite
def documents(draw: Any) -> str:
    return Writer(draw).document()


@given(documents())
@settings(max_examples=150, deadline=None)
def test_every_key_and_entry_of_any_document_is_found_on_its_line(text: str) -> None:
    try:
        read = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return  # keys that were drawn twice
    lines, rows = locate(text), text.split("\n")
    assert {*lines} == {*ways(read)}
    for way, value in leaves(read):
        number = str(value).strip()[:6]
        assert number in rows[lines[way] - 1]
