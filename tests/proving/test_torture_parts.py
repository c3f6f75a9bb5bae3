"""What a torture is made of: a plan that its seed tells, processes that leave nobody behind, honest figures."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.main import get_command

from devices.ledger import Record
from gateway.__main__ import app, run
from gateway.demo_screen import Screen
from gateway.proving.chaos import DONE, chaos_plan, felt
from gateway.proving.memory import Sample, memory
from gateway.proving.plan import FIRST_S, KINDS, QUIET, How, Kind, Plan, make_plan
from gateway.proving.processes import Child
from gateway.proving.progress import Unanswered
from gateway.proving.torture import fleet_text, steps, unproven
from gateway.proving.verdict import Promise, Row
from storage.history import Reader
from tests.proving.ledgers import make_store, stored

FARM = str(Path(__file__).resolve().parents[2] / "examples" / "fleets" / "farm.toml")
"""A fleet that asks for no receipts."""

kinds = st.lists(st.sampled_from(KINDS), unique=True)
lengths = st.floats(60, 6_000)


@settings(deadline=None)
@given(st.integers(0), kinds.filter(bool), st.integers(0, 50), lengths, st.randoms())
def test_the_same_seed_makes_the_same_plan_however_the_kinds_are_named(
    seed: int, chosen: list[Kind], times: int, seconds: float, chance: Any
) -> None:
    plan = make_plan(seed, chosen, times=times, seconds=seconds)
    chance.shuffle(chosen)
    assert make_plan(seed, chosen, times=times, seconds=seconds) == plan


@settings(deadline=None)
@given(st.integers(0), kinds.filter(bool), st.integers(0, 50), lengths)
def test_a_plan_has_as_many_deeds_as_asked_within_its_time_and_undoes_each_before_the_next_of_its_kind(
    seed: int, chosen: list[Kind], times: int, seconds: float
) -> None:
    plan = make_plan(seed, chosen, times=times, seconds=seconds)
    assert len(plan.disturbances) == times
    assert all(FIRST_S <= deed.at_s <= deed.at_s + deed.for_s <= seconds * (1 - QUIET) for deed in plan.disturbances)
    for kind in chosen:
        own = [deed for deed in plan.disturbances if (deed.how if kind == "freeze" else deed.what) == kind]
        own = [deed for deed in own if kind == "freeze" or deed.how != "freeze"]
        assert times // len(chosen) <= len(own) <= times // len(chosen) + 1
        assert all(one.at_s + one.for_s <= other.at_s for one, other in pairwise(own))


def test_another_seed_makes_another_plan() -> None:
    assert make_plan(1, KINDS, times=12, seconds=60) != make_plan(2, KINDS, times=12, seconds=60)


@settings(deadline=None, max_examples=30)
@given(st.integers(0), kinds, st.floats(60, 600))
def test_each_deed_is_begun_and_then_undone_in_the_order_of_time(seed: int, chosen: list[Kind], seconds: float) -> None:
    plan = make_plan(seed, chosen, times=None, seconds=seconds)
    found = list(steps(plan))
    assert [at_s for at_s, _, _ in found] == sorted(at_s for at_s, _, _ in found)
    assert found[-1] == (seconds, None, False)
    for deed in plan.disturbances:
        ways = [begins for _, step, begins in found if step is deed]
        assert ways == ([True] if deed.how == "cut" else [True, False])


def test_the_plan_is_shown_alike_by_every_process() -> None:
    words = ["-m", "gateway", "torture", "--plan", "--seed", "7", "--format", "json", "--kill", ",".join(KINDS)]
    shown = {
        subprocess.run(
            [sys.executable, *words], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert len(shown) == 1
    assert msgspec.json.decode(shown.pop(), type=Plan) == make_plan(7, KINDS, times=None, seconds=300)


def test_the_plan_for_people_has_a_line_for_each_deed(capsys: Any) -> None:
    assert run(["torture", "--plan", "--seed", "7", "--kills", "9"]) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.startswith("seed 7: ")
    assert len(rows) == 2 + 9


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--kill", "everything"], "there is no 'everything'"),
        (["--kills", "1000", "--minutes", "1"], "there is no time for 1000 in 60 s: at most"),
        (["--kill", "none", "--kills", "1"], "nothing is to be disturbed"),
        (["--qos", "3"], "names no levels"),
        (["--qos", "x"], "names no levels"),
        (["--rate", "20000", "--devices", "1"], "at most 10000"),
        (["--no-receipts", "--kill", "broker"], "only receipts can tell"),
        (["no-such-fleet.toml"], "amber: there is no file no-such-fleet.toml: name a fleet's file, or leave it out\n"),
        (["f" * 300], "name a fleet's file, or leave it out"),
        ([__file__], "test_torture_parts.py:1:"),
        (["no-such-fleet.toml", "--rate", "3"], "a fleet says itself"),
        ([FARM, "--kill", "broker"], "only receipts can tell"),
    ],
)
@pytest.mark.parametrize("also", [[], ["--plan"]])
def test_what_makes_no_sense_is_refused_in_a_line(capsys: Any, words: list[str], told: str, also: list[str]) -> None:
    assert run(["torture", *words, *also]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert told in said.err
    assert said.err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["torture", "--kills", "many"], "for '--kills': 'many' is not a whole number"),
        (["torture", "--kills", "-1"], "for '--kills': is to be at least 0, not -1"),
        (["torture", "--devices", "20000"], "for '--devices': is to be at most 10000, not 20000"),
        (["torture", "--minutes", "long"], "for '--minutes': 'long' is not a number"),
        (["torture", "--format", "colour"], "for '--format': there is no 'colour', only table, json"),
        (["torture", "--folder", __file__], f"for '--folder': {__file__} is a file: name a folder"),
        (["torture", "."], "for 'FLEET.toml': . is a folder: name a file"),
        (["simulate", "."], "for 'FLEET.toml': . is a folder: name a file"),
        (["simulate", "nope.toml"], "for 'FLEET.toml': there is no file nope.toml: name another"),
        (["simulate", "--qos", "3"], "for '--qos': is to be at most 2, not 3"),
        (["verify", "x", "--by", "it's"], 'there is no "it\'s", only qos, device, fault, none'),
    ],
)
def test_an_option_is_refused_in_words_for_people(capsys: Any, words: list[str], told: str) -> None:
    assert run(words) == 2
    error = capsys.readouterr().err
    assert error.startswith("amber: Invalid value ")
    assert error.endswith(f"{told}\n")


@pytest.mark.parametrize(
    ("now_s", "told"),
    [(9, []), (10, ["gateway killed"]), (13.9, ["gateway killed"]), (14.1, []), (18, ["link cut"]), (39, [])],
)
def test_the_demo_says_what_keeps_messages_away(now_s: float, told: list[str]) -> None:
    assert felt(chaos_plan(40), now_s) == told


def test_the_demos_line_says_so_in_front(tmp_path: Path) -> None:
    screen = Screen(40)
    with Reader(make_store(tmp_path / "amber.db", [stored()])) as reader:
        screen.show(reader)
        assert screen._head(reader.status()).startswith("0 messages/s · 1 messages")
        screen.notes = felt(chaos_plan(40), 10.5)
        assert screen._head(reader.status()).startswith("gateway killed · 0 messages/s · 1 messages")


def test_each_way_of_disturbing_has_a_word() -> None:
    assert {*DONE} == {*get_args(How)}


def test_the_fleet_is_not_deleted_with_what_an_earlier_torture_left(tmp_path: Path, capsys: Any) -> None:
    fleet = tmp_path / "fleet.toml"
    (tmp_path / ".amber-torture").touch()
    fleet.write_text(fleet_text(devices=1, rate=1, levels=[1], receipts=True))
    assert run(["torture", str(fleet), "--folder", str(tmp_path)]) == 2
    assert "the fleet is in it" in capsys.readouterr().err
    assert fleet.exists()


def test_every_option_is_documented() -> None:
    command = get_command(app).commands["torture"]  # type: ignore[attr-defined]
    text = (Path(__file__).resolve().parents[2] / "docs" / "reliability.md").read_text("utf-8")
    options = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    assert [option for option in options if option.startswith("--") and f"`{option}`" not in text] == []
    assert [kind for kind in KINDS if f"| `{kind}` |" not in text] == []


def test_a_folder_that_no_torture_made_is_refused(tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "amber.db").write_text("precious")
    assert run(["torture", "--folder", str(tmp_path)]) == 1
    assert "no torture made it" in capsys.readouterr().err
    assert (tmp_path / "amber.db").read_text() == "precious"


@pytest.mark.parametrize(("devices", "levels", "shares"), [(5, [1, 2], [3, 2]), (1, [1, 2], [1]), (3, [0], [3])])
def test_devices_share_the_rate_and_take_turns_at_the_levels(
    devices: int, levels: list[int], shares: list[int]
) -> None:
    text = fleet_text(devices=devices, rate=10, levels=levels, receipts=True)
    assert [int(line.split()[-1]) for line in text.splitlines() if line.startswith("count")] == shares
    assert text.count(f"rate = {10 / devices:.6g}") == len(shares)
    assert ("receipts = true" in text) == any(levels)


@pytest.mark.parametrize(
    ("totals", "promise", "proves"),
    [
        (Row("all"), "both", False),
        (Row("all", sent=9), "both", True),
        (Row("all", sent=9, acknowledged=9), "receipt", False),
        (Row("all", sent=9, receipted=1), "receipt", True),
    ],
)
def test_a_torture_in_which_nothing_was_promised_proves_nothing(totals: Row, promise: Promise, *, proves: bool) -> None:
    assert (list(unproven(totals, promise)) == []) is proves


def test_memory_that_grows_is_told_from_memory_that_is_flat() -> None:
    flat = memory([Sample(float(n), 80 + n % 2) for n in range(120)])
    grown = memory([Sample(float(n), 80 + n) for n in range(120)])
    assert flat is not None
    assert grown is not None
    assert flat.slope_per_minute == pytest.approx(0, abs=0.1)
    assert flat.first_third == flat.last_third
    assert grown.slope_per_minute == pytest.approx(60)
    assert grown.last_third - grown.first_third == pytest.approx(80)
    assert grown.peak == 199
    assert memory([]) is None


def test_what_waits_for_an_answer_is_counted_on_while_the_ledger_grows(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.jsonl"
    unanswered = Unanswered(ledger)
    assert unanswered.count() == 0
    at = "2026-11-22T09:00:00.000000Z"
    records = [
        Record("d", "b", 0, "sent", at, qos=1),
        Record("d", "b", 1, "sent", at, qos=2),
        Record("d", "b", 2, "sent", at, qos=0),
        Record("d", "b", 1, "sent", at, qos=2),
        Record("d", "b", 1, "acked", at),
    ]
    lines = [msgspec.json.encode(record) + b"\n" for record in records]
    ledger.write_bytes(b"".join(lines[:2]) + lines[2][:10])
    assert unanswered.count() == 2
    with ledger.open("ab") as file:
        file.write(lines[2][10:] + lines[3] + lines[4])
    assert unanswered.count() == 1


def test_a_child_goes_when_whoever_started_it_is_killed(tmp_path: Path) -> None:
    script = f"""
import time
from pathlib import Path
from gateway.proving.processes import Child
child = Child("it", Path({str(tmp_path / "log")!r}))
child.start(["-c", "import time; time.sleep(600)"])
print(child.pid, flush=True)
time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.kill()
    patience = time.monotonic() + 20
    while alive(pid):
        assert time.monotonic() < patience
        time.sleep(0.02)


def test_a_child_that_does_not_hear_sigterm_is_killed(tmp_path: Path) -> None:
    child = Child("it", tmp_path / "log")
    child.start(
        ["-c", "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"]
    )
    child.wait_until(lambda: "up" in child.said(), 20)
    assert child.stop(within_s=0.1) == -signal.SIGKILL
    assert child.pid is None


def test_settings_of_the_users_own_gateway_do_not_reach_a_child(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("AMBER_STORE", "mine.db")
    with Child("it", tmp_path / "log", {"AMBER_LINK__CLIENT_ID": "x"}) as child:
        child.start(["-c", "import os, json; print(json.dumps({k: v for k, v in os.environ.items() if 'AMBER' in k}))"])
        child.wait(20)
    assert json.loads(child.said()) == {"AMBER_LINK__CLIENT_ID": "x"}


def alive(pid: int) -> bool:
    """Not a zombie either: whoever adopts orphans may be slow to bury them."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
