"""docs/devices.md says what is."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path

import pytest

from devices import cli
from devices.device import FIRST_PAUSE_S, GRACE_S, HELD_EVENTS, HELD_EVENTS_OF_ALL, LONGEST_PAUSE_S
from devices.ledger import Record
from devices.models import MODELS
from devices.plan import Plan, events, fleet, status

DOCS = (Path(__file__).parents[2] / "docs" / "devices.md").read_text("utf-8")
EXAMPLES = [json.loads(example) for block in re.findall(r"```json\n(.*?)```", DOCS, re.DOTALL)
            for example in re.split(r"(?<=\})\n(?=\{)", block.strip())]  # fmt: skip
PLAN = Plan(devices=4, rate=1.0, qos=1, models=tuple(MODELS), start_us=0, seed=1)


def test_every_option_is_documented_and_nothing_else() -> None:
    options = {f"--{name.replace('_', '-')}" for name in inspect.signature(cli.simulate).parameters}
    assert set(re.findall(r"^\| `(--[a-z-]+)` \|", DOCS, re.MULTILINE)) == options


def test_the_examples_have_the_form_of_the_real_thing() -> None:
    device = fleet(PLAN)[0]
    telemetry, online, sent, acked = EXAMPLES
    real = json.loads(next(events(device, PLAN)).payload)
    assert list(telemetry) == list(real)
    assert telemetry["units"] == real["units"]
    assert telemetry["readings"].keys() == real["readings"].keys()
    assert list(online) == list(json.loads(status(device, "online", 0)))
    assert list(sent) == list(acked) == [*Record.__struct_fields__]


@pytest.mark.parametrize("name", MODELS)
def test_every_reading_is_documented(name: str) -> None:
    row = next(line for line in DOCS.splitlines() if line.startswith(f"| `{name}` |"))
    device = next(device for device in fleet(PLAN) if device.model is MODELS[name])
    assert f"`{device.name}`" in row
    for reading in json.loads(next(events(device, PLAN)).payload)["readings"]:
        assert f"`{reading}`" in row
    for unit in device.model.units.values():
        assert f"({unit})" in row


def test_the_bounds_are_the_real_ones() -> None:
    words = " ".join(DOCS.split())
    assert f"after {FIRST_PAUSE_S} to {LONGEST_PAUSE_S:.0f} seconds" in words
    assert f"at most {HELD_EVENTS} for each device and {HELD_EVENTS_OF_ALL} in all" in words
    assert GRACE_S == 5
    assert "up to five seconds for the last acknowledgements" in words
