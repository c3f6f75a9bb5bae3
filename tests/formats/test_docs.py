"""The examples of docs/formats.md run, and its lists are complete."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from gateway.formats import Format, Formats, Options, fields, registry
from gateway.formats.families import SPECIFIC
from storage.event import Event, Rejection, UnitSource, Value
from tests.formats.messages import NOW, message
from tests.formats.test_cases import Case, check

DOCS = (Path(__file__).resolve().parents[2] / "docs" / "formats.md").read_text("utf-8")
BLOCKS = re.findall(r"^```(json|python) example\n(.*?)^```$", DOCS, re.MULTILINE | re.DOTALL)
CASES = [text for language, text in BLOCKS if language == "json"]
((PROGRAM),) = [text for language, text in BLOCKS if language == "python"]


@pytest.mark.parametrize("text", CASES, ids=range(len(CASES)))
def test_an_example_gives_what_it_says(text: str) -> None:
    check(msgspec.json.decode(text, type=Case), "")


def test_the_worked_example_is_a_format() -> None:
    room: dict[str, object] = {}
    exec(PROGRAM, room)
    row = room["FORMAT"]
    assert isinstance(row, Format)
    formats = Formats(specific=[row])
    outcome = formats.read(message(b"level=1.25;battery=--\n", "garden/pond/lily/report"))
    assert outcome == [lily({"level": 1.25, "battery": None}, {"level": "m", "battery": "%"}, "format")]
    formats.read(message(b"2.5", "garden/pond/lily/depth"))
    outcome = formats.read(message(b"level=1", "garden/pond/lily/report"))
    assert not isinstance(outcome, Rejection)
    assert outcome[0].readings == {"level": 1.0, "depth": 2.5}
    assert outcome[0].unit_sources == {"level": "format", "depth": "learned"}
    assert formats.take_lessons().rereads[0].topics == ("garden/pond/lily/report",)
    assert formats.read(message(b"level=1.25;x", "pond/lily/report")) == Rejection(
        "not name=number;…: level=1.25;x", "pond"
    )
    passed_on = formats.read(message(b"21.5", "pond/lily/report"))
    assert not isinstance(passed_on, Rejection)
    assert [event.format for event in passed_on] == ["plain"]


TABLE = DOCS[DOCS.index("\n## The formats\n") :]
ROWS = re.findall(r"^\| `(\w+)` \|.* \| (.*) \|$", TABLE, re.MULTILINE)
EXAMPLES = [
    (name, *(text.replace("\\|", "|").replace(" ⏎ ", "\n") for text in found.groups()))
    for name, cell in ROWS
    if (found := re.match(r"`([^`]*)`:? `([^`…]*)`", cell))
]


def test_every_format_has_its_row_in_the_table() -> None:
    names = dict.fromkeys(row.name for row in (*SPECIFIC, *registry.GENERIC))
    assert [name for name, _ in ROWS] == list(names)


@pytest.mark.parametrize(("name", "topic", "payload"), EXAMPLES, ids=[name for name, *_ in EXAMPLES])
def test_the_example_of_a_format_is_read_by_it(name: str, topic: str, payload: str) -> None:
    formats = Formats()
    row = next(cell for known, cell in ROWS if known == name)
    for earlier in re.findall(r"after `([^`]*)`:? `([^`]*)`", row):
        formats.read(message(earlier[1].encode(), earlier[0]))
    outcome = formats.read(message(payload.encode(), topic))
    assert not isinstance(outcome, Rejection)
    assert {event.format for event in outcome} == {name}


def test_most_formats_have_an_example_that_runs() -> None:
    assert len(EXAMPLES) > 50


def lily(readings: dict[str, Value], units: dict[str, str], source: UnitSource) -> Event:
    sources = dict.fromkeys(units, source)
    return Event("lily", "measurement", "pond", NOW, readings, units=units, unit_sources=sources)


def test_every_limit_is_named_with_its_default() -> None:
    rows = re.findall(r"^\| `(\w+)` \| ([\d ]+) \|", DOCS, re.MULTILINE)
    limits = {name: int(number.replace(" ", "")) for name, number in rows}
    assert {name: getattr(Options(), name) for name in limits} == limits
    assert {"payload_bytes", "depth", "entries", "readings", "unpacked_bytes", "message_ms"} <= set(limits)
    assert {"array_items", "text_chars", "name_chars"} <= set(limits)


@pytest.mark.parametrize(
    ("heading", "keys"), [("Device", fields.DEVICE), ("Time", fields.TIME), ("Sequence", fields.SEQ), ("Batches", "")]
)
def test_every_key_is_listed_in_its_order(heading: str, keys: str) -> None:
    (paragraph,) = re.findall(rf"^\*\*{heading}\*\*:(.*?)\n\n", DOCS, re.MULTILINE | re.DOTALL)
    listed = " ".join(fields.squeezed(name) for name in re.findall(r"`(\w+)`", paragraph))
    assert listed.startswith(keys)
    if heading == "Batches":
        assert all(f"`{key}`" in DOCS for key in fields.BATCHES)
