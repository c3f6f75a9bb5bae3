"""Claims about `amber --help`, where people begin."""

from __future__ import annotations

import pytest
from typer.main import get_command

from gateway.__main__ import app, run
from gateway.commands import COMMANDS


def test_every_command_stands_under_one_heading(capsys: pytest.CaptureFixture[str]) -> None:
    listed = [name for commands in COMMANDS.values() for name in commands]
    assert sorted(listed) == sorted(get_command(app).commands)  # type: ignore[attr-defined]
    assert run(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for commands in COMMANDS.values():
        for name, text in commands.items():
            assert f"  {name:<10}  {text}" in lines


def test_help_can_be_asked_for_shortly(capsys: pytest.CaptureFixture[str]) -> None:
    asked = []
    for option in ("-h", "--help"):
        assert run(["consumers", "reset", option]) == 0
        asked.append(capsys.readouterr().out)
    assert asked[0] == asked[1]
    assert "amber consumers reset" in asked[0]
