"""docs/dialects.md says what is: its table is complete, and its examples are what devices say and a gateway reads."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from devices.clock import iso
from devices.dialects import DIALECTS, FREE_TOPICS, Dialect, speak
from devices.fleet import Fleet, Group, devices
from devices.models import Readings
from devices.outgoing import Publication, Sample
from devices.pace import Pace
from gateway.formats import Formats
from storage.event import Rejection
from tests.devices.heard import TELLS_PRESENCE
from tests.devices.test_dialects import START_US, message

DOCS = (Path(__file__).parents[2] / "docs" / "dialects.md").read_text("utf-8")
ROWS = {
    row[0]: row[1:] for row in re.findall(r"^\| `([\w-]+)` \| (.*) \| (.*) \| (.*) \| (.*) \|$", DOCS, re.MULTILINE)
}
BLOCKS = dict(re.findall(r"^```text ([\w-]+)\n(.*?)^```$", DOCS, re.MULTILINE | re.DOTALL))

READINGS: Readings = {"temperature": 21.5, "humidity": 41.2, "open_count": 3}
UNITS = {"temperature": "Cel", "humidity": "%", "open_count": "1"}
SAMPLE = Sample("5f3a0c1b9e7d2468", 17, START_US, START_US + 17_123_456, READINGS)


def spoken(dialect: str) -> Dialect:
    group = Group(
        name="hall", prefix="thermo", signal=lambda _, times: (READINGS for _ in times), pace=Pace(1.0), units=UNITS,
        dialect=dialect,
    )  # fmt: skip
    here = Fleet(groups=(group,), start_us=START_US, seed="7")
    return speak(next(devices(here)), here)


def example(dialect: str) -> str:
    """What a device says of one sample, and what becomes of it."""
    device, formats = spoken(dialect), Formats()
    device.will(START_US)
    for publication in device.birth(START_US):
        formats.read(message(publication))
    return "".join(f"{said(one)}\n{heard(formats, one)}\n" for one in device.telemetry(SAMPLE))


def said(publication: Publication) -> str:
    """Topic and payload; bytes that are no text in hexadecimal."""
    try:
        return f"{publication.topic}\n  {publication.payload.decode()}"
    except UnicodeDecodeError:
        lines = re.findall(".{1,104}", publication.payload.hex())
        return "\n  ".join([publication.topic, *lines])


def heard(formats: Formats, publication: Publication) -> str:
    """The event, with the time that it states."""
    outcome = formats.read(message(publication))
    assert not isinstance(outcome, Rejection)
    (event,) = outcome
    units = event.units or {}
    readings = [f"{name} {value} {units.get(name, '')}".strip() for name, value in event.readings.items()]
    detail = event.detail
    return "  = " + " · ".join(
        [
            event.device,
            *([iso(event.observed_at)] if event.from_device else []),
            *([f"boot {detail.boot}"] if detail and detail.boot else []),
            *([f"id {detail.source_id}"] if detail and detail.source_id else []),
            *([f"seq {event.seq}"] if event.seq is not None else []),
            *readings,
        ]
    )


def test_every_dialect_has_its_row_and_its_example() -> None:
    assert list(ROWS) == list(BLOCKS) == list(DIALECTS)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_examples_are_what_is_said_and_heard(dialect: str) -> None:
    assert BLOCKS[dialect] == example(dialect)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_table_tells_the_truth(dialect: str) -> None:
    topic, time, presence, identified = ROWS[dialect]
    here = example(dialect)
    (named,) = re.findall(r"^`([^`]+)`", topic)
    pattern = re.escape(named).replace("<device>", "thermo-0001").replace("<group>", "hall").replace("…", ".*")
    assert re.match(pattern, here)
    assert ("or your own" in topic) == (dialect in FREE_TOPICS)
    assert (time == "none") == ("2026-11-22T09:00:17" not in here.split("= ")[1])
    assert (presence == "none") == (dialect not in TELLS_PRESENCE)
    assert identified == ("yes" if spoken(dialect).identified else "no")
