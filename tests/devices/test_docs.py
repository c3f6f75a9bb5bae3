"""docs/devices.md says what is."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import typer
from typer.main import get_command

from devices import cli
from devices.device import GRACE_S, HELD_MESSAGES, HELD_MESSAGES_OF_ALL
from devices.dialects import speak
from devices.fleet import Device, Fleet, devices, of_models
from devices.ledger import Ledger
from devices.models import MODELS
from devices.outgoing import Outgoing
from devices.presence import FIRST_PAUSE_S, LONGEST_PAUSE_S
from devices.telemetry import telemetry

DOCS = (Path(__file__).parents[2] / "docs" / "devices.md").read_text("utf-8")
EXAMPLES = [json.loads(example) for block in re.findall(r"```json\n(.*?)```", DOCS, re.DOTALL)
            for example in re.split(r"(?<=\})\n(?=\{)", block.strip())]  # fmt: skip
FLEET = Fleet(groups=of_models(tuple(MODELS), devices=4, rate=1.0, qos=1), start_us=0, seed="1")


def message(device: Device) -> Outgoing:
    return next(telemetry(device, FLEET, speak(device, FLEET)))


def test_every_option_is_documented_and_nothing_else() -> None:
    app = typer.Typer(add_completion=False)
    cli.register(app)
    options = {option for one in get_command(app).params for option in one.opts if option.startswith("--")}
    assert set(re.findall(r"^\| `(--[a-z-]+)` \|", DOCS, re.MULTILINE)) == options


def test_the_examples_have_the_form_of_the_real_thing(tmp_path: Path) -> None:
    device = next(devices(FLEET))
    said, online, sent, acked = EXAMPLES
    real = json.loads(message(device).publication.payload)
    assert list(said) == list(real)
    assert said["units"] == real["units"]
    assert said["readings"].keys() == real["readings"].keys()
    assert list(online) == list(json.loads(speak(device, FLEET).birth(0)[0].payload))
    with Ledger(tmp_path / "ledger.jsonl") as ledger:
        ledger.sent(device.name, message(device), 1)
        ledger.answered(device.name, message(device), "acked")
    lines = [json.loads(line) for line in (tmp_path / "ledger.jsonl").read_text().splitlines()]
    assert [list(sent), list(acked)] == [list(line) for line in lines]


@pytest.mark.parametrize("name", MODELS)
def test_every_reading_is_documented(name: str) -> None:
    row = next(line for line in DOCS.splitlines() if line.startswith(f"| `{name}` |"))
    device = next(device for device in devices(FLEET) if device.group.name == name)
    assert f"`{device.name}`" in row
    for reading in json.loads(message(device).publication.payload)["readings"]:
        assert f"`{reading}`" in row
    for unit in device.group.units.values():
        assert f"({unit})" in row


def test_the_bounds_are_the_real_ones() -> None:
    words = " ".join(DOCS.split())
    assert f"after {FIRST_PAUSE_S} to {LONGEST_PAUSE_S:.0f} seconds" in words
    assert f"at most {HELD_MESSAGES} for each device and {HELD_MESSAGES_OF_ALL} in all" in words
    assert GRACE_S == 5
    assert "up to five seconds for the last acknowledgements" in words
