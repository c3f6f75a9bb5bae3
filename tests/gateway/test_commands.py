"""Claims about `amber --help`, where people begin."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.main import get_command

from gateway.__main__ import app, run
from gateway.commands import COMMANDS

WITH_STORE = """\
run --config /dev/null
events
latest
chart press x
devices
series
status
rejections
replay
consume mine
consumers
consumers reset mine --to now
consumers remove mine
export
import FOLDER/ledger.jsonl
backup FOLDER/copy.db
check
prune --max-age 1d
explain --message 1
reprocess --dry-run
reprocess --yes
learn
verify FOLDER/ledger.jsonl
gaps"""


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


def test_a_folder_in_the_place_of_a_store_is_named_as_one(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """By every command that takes --store; what else they need is given."""
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "ledger.jsonl").touch()
    for words in WITH_STORE.split("\n"):
        arguments = words.replace("FOLDER", str(tmp_path)).split()
        status = run([*arguments, "--store", str(folder)])
        told = capfd.readouterr().err
        assert (words, status, told) == (words, 1, f"amber: {folder} is a folder: name a file\n")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["folder", "ledger.jsonl"]


def test_an_unknown_option_is_told_without_guesses(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["simulate", "--bogus"]) == 2
    assert capfd.readouterr().err == "amber: No such option: --bogus\n"
