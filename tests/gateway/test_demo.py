"""The demo's folder: only what an earlier demo left is deleted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gateway.__main__ import run
from gateway.demo import PARTS, make_ready
from gateway.proving.chaos import FLEET, chaos_plan, example
from storage.engine import Lock
from storage.errors import StoreBusy


def files(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def put(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("precious")


@pytest.mark.parametrize("name", ["amber.db", "gateway.log", "broker/mosquitto.db", ".hidden"])
def test_a_folder_that_no_demo_made_is_refused_in_a_line_and_left_as_it_is(
    tmp_path: Path, capsys: Any, name: str
) -> None:
    put(tmp_path, name)
    assert run(["demo", "--folder", str(tmp_path)]) == 1
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "is not empty, and no demo made it" in told
    assert files(tmp_path) == {name: "precious"}


def test_the_next_demo_deletes_what_the_last_one_left_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "demo"
    make_ready(folder)
    mark = files(folder)
    put(folder, *PARTS, "broker/passwords", "amber.toml", "export.jsonl")
    make_ready(folder)
    kept = files(folder)
    kept.pop("amber.db.lock", None)
    assert kept == mark | dict.fromkeys(("broker/passwords", "amber.toml", "export.jsonl"), "precious")


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    make_ready(tmp_path)
    make_ready(tmp_path)


def test_a_demo_that_runs_keeps_its_folder(tmp_path: Path) -> None:
    make_ready(tmp_path)
    put(tmp_path, "gateway.log")
    lock = Lock(tmp_path / "amber.db")
    with pytest.raises(StoreBusy, match="in use"):
        make_ready(tmp_path)
    lock.release()
    assert "gateway.log" in files(tmp_path)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--devices", "3"], "has devices of its own"),
        (["--rate", "3"], "has devices"),
        (["--seconds", "5"], "at least 15 s"),
    ],
)
def test_what_does_not_go_with_chaos_is_refused_in_a_line(
    tmp_path: Path, capsys: Any, words: list[str], told: str
) -> None:
    assert run(["demo", "--chaos", "--folder", str(tmp_path), *words]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1
    assert files(tmp_path) == {}


def test_chaos_finds_its_fleet_and_kills_the_gateway_twice() -> None:
    plan = chaos_plan(40)
    assert example(FLEET).read_text("utf-8").count("[[groups]]") > 1
    assert [str(deed) for deed in plan.disturbances] == ["kill gateway", "cut link", "kill gateway"]
    assert all(deed.at_s + deed.for_s < plan.seconds for deed in plan.disturbances)


def test_what_is_no_folder_is_refused_in_a_line(tmp_path: Path, capsys: Any) -> None:
    put(tmp_path, "file")
    assert run(["demo", "--folder", str(tmp_path / "file")]) == 2
    assert run(["demo", "--folder", str(tmp_path / "file" / "within")]) == 1
    assert "Traceback" not in capsys.readouterr().err
    assert files(tmp_path) == {"file": "precious"}
