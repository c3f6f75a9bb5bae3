"""The examples of docs/formats.md run, and its lists are complete."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from gateway.formats import Format, Formats, Options, fields, registry
from gateway.formats.families import SPECIFIC
from storage.event import Event, Rejection
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
    assert formats.read(message(b"level=1.25;battery=87\n", "pond/lily/report")) == [
        Event(
            "lily", "measurement", "pond", NOW, {"level": 1.25, "battery": 87.0}, units={"level": "m", "battery": "%"}
        )
    ]
    assert formats.read(message(b"level=1.25;x", "pond/lily/report")) == Rejection(
        "not name=number;…: level=1.25;x", "pond"
    )
    passed_on = formats.read(message(b"21.5", "pond/lily/report"))
    assert not isinstance(passed_on, Rejection)
    assert [event.format for event in passed_on] == ["plain"]


def test_every_format_has_its_row_in_the_table() -> None:
    table = DOCS[: DOCS.index("\n## ")]
    named = re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)
    assert named == [row.name for row in (*SPECIFIC, *registry.GENERIC)]


def test_every_limit_is_named_with_its_default() -> None:
    rows = re.findall(r"^\| `(\w+)` \| ([\d ]+) \|", DOCS, re.MULTILINE)
    limits = {name: int(number.replace(" ", "")) for name, number in rows}
    assert {name: getattr(Options(), name) for name in limits} == limits
    assert {"payload_bytes", "depth", "entries", "array_items", "text_chars", "name_chars"} == set(limits)


@pytest.mark.parametrize(
    ("heading", "keys"), [("Device", fields.DEVICE), ("Time", fields.TIME), ("Sequence", fields.SEQ), ("Batches", "")]
)
def test_every_key_is_listed_in_its_order(heading: str, keys: str) -> None:
    (paragraph,) = re.findall(rf"^\*\*{heading}\*\*:(.*?)\n\n", DOCS, re.MULTILINE | re.DOTALL)
    listed = " ".join(fields.squeezed(name) for name in re.findall(r"`(\w+)`", paragraph))
    assert listed.startswith(keys)
    if heading == "Batches":
        assert all(f"`{key}`" in DOCS for key in fields.BATCHES)
