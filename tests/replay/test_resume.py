"""Claims about replays that are taken up again: killed at any moment, nothing is skipped."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from itertools import groupby, pairwise
from pathlib import Path

import msgspec
import pytest

from devices.broker import Mosquitto
from gateway.__main__ import run
from storage.cursors import Cursors, lock
from tests.replay.filled import SECOND, T0, entry, fill, position, positions
from tests.replay.test_mqtt import subscriber

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "amber.db"


def replay(path: Path, *options: str) -> int:
    return run(["replay", "--store", str(path), "--as", "test", "--speed", "max", *options])


def command(path: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "gateway", "replay", "--store", str(path), "--as", "test", *options]


def ids(text: str) -> list[int]:
    return [msgspec.json.decode(line)["id"] for line in text.splitlines()]


def at(path: Path) -> int:
    with Cursors(path) as cursors:
        cursor = cursors.get("test")
    assert cursor is not None
    assert cursor.kind == "replay"
    return cursor.position


def first_times(seen: Sequence[int]) -> list[int]:
    return list(dict.fromkeys(seen))


def test_it_goes_on_where_it_stood_and_says_so(path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    fill(path, (entry(n) for n in range(10)))
    assert replay(path) == 0
    out, err = capfd.readouterr()
    assert ids(out) == positions(10)
    assert f"confirmed up to {position(10)}\n" in err
    fill(path, (entry(10 + n) for n in range(5)))
    assert replay(path) == 0
    out, err = capfd.readouterr()
    assert ids(out) == positions(15, first=11)
    assert f"went on after {position(10)}, confirmed up to {position(15)}\n" in err
    assert replay(path) == 0
    assert capfd.readouterr() == ("", "nothing is left to replay as test: --restart begins anew\n")
    assert replay(path, "--restart") == 0
    assert ids(capfd.readouterr().out) == positions(15)


def test_a_closed_range_stays_the_range_that_it_was(path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Though its limit, or its end in words, would mean others now."""
    fill(path, (entry(n) for n in range(10)))
    assert replay(path, "-n", "4") == 0
    fill(path, (entry(10 + n) for n in range(5)))
    assert replay(path, "-n", "4") == 0
    out, err = capfd.readouterr()
    assert ids(out) == positions(4)
    assert "nothing is left" in err


def test_it_never_goes_back_before_its_beginning(path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Although the log does not reach it yet."""
    fill(path, [entry(0)])
    assert replay(path, "--after", str(position(3))) == 0
    assert at(path) == position(3)
    fill(path, (entry(1 + n) for n in range(4)))
    assert replay(path, "--after", str(position(3))) == 0
    assert ids(capfd.readouterr().out) == positions(5, first=4)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--device", "other"], "another --device"),
        (["--after", "7"], "another --after"),
        (["--since", "2h"], "another --since"),
        (["-n", "3"], "another --limit"),
    ],
)
def test_another_range_under_the_same_name_is_refused(
    path: Path, capfd: pytest.CaptureFixture[str], options: list[str], said: str
) -> None:
    fill(path, [entry(0)])
    assert replay(path) == 0
    assert replay(path, *options) == 1
    assert said in capfd.readouterr().err
    assert at(path) == position(1)


@pytest.mark.parametrize("options", [["--as", "x", "--loop"], ["--as", "x", "--times", "2"], ["--restart"]])
def test_what_makes_no_sense_with_a_name_is_refused(
    path: Path, capfd: pytest.CaptureFixture[str], options: list[str]
) -> None:
    assert run(["replay", "--store", str(path), *options]) == 2
    assert capfd.readouterr().err.count("\n") == 1


def test_names_that_are_others_are_refused(path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    fill(path, [entry(0)])
    with Cursors(path) as cursors:
        cursors.create("test", "consumer", 0)
    assert replay(path) == 1
    assert "the cursor of a consumer" in capfd.readouterr().err
    assert run(["replay", "--store", str(path), "--as", "a/b"]) == 2
    assert "no name for a cursor" in capfd.readouterr().err


def test_only_one_replays_under_a_name_at_a_time(path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    fill(path, [entry(0)])
    held = lock(path, "test")
    assert replay(path) == 1
    held.release()
    assert f"process {os.getpid()}" in capfd.readouterr().err
    assert replay(path) == 0


def test_a_line_that_was_cut_off_takes_no_other_with_it(path: Path, tmp_path: Path) -> None:
    fill(path, (entry(n) for n in range(3)))
    out = tmp_path / "out.jsonl"
    with Cursors(path) as cursors:
        cursors.create("test", "replay", position(1), '{"filters":{}}')
    out.write_text('{"id":10000}\n{"id":200')
    with out.open("ab") as file:
        subprocess.run(command(path, "--speed", "max"), cwd=ROOT, stdout=file, stderr=subprocess.PIPE, check=True)
    lines = out.read_text().splitlines()
    assert lines[:2] == ['{"id":10000}', '{"id":200']
    assert ids("\n".join(lines[2:])) == [position(2), position(3)]


def whole(line: str) -> int | None:
    """The id in a line, unless whoever wrote it was killed before its end."""
    try:
        id: int = msgspec.json.decode(line)["id"]
    except msgspec.DecodeError:
        return None
    return id


def kill_and_go_on(path: Path, *options: str, out: Path, kills: int) -> None:
    """Kill it again and again, each time a while after it has shown some life; then let it end."""
    chance = random.Random(5)
    for _ in range(kills):
        with out.open("ab") as file:
            process = subprocess.Popen(command(path, *options), cwd=ROOT, stdout=file, stderr=subprocess.DEVNULL)
        time.sleep(0.5 + chance.random())  # at any moment: of the start, of the playing
        process.kill()
        process.wait()
    with out.open("ab") as file:
        subprocess.run(command(path, *options), cwd=ROOT, stdout=file, stderr=subprocess.DEVNULL, check=True)


def test_killed_at_any_moment_every_event_is_in_the_file_in_order(path: Path, tmp_path: Path) -> None:
    fill(path, [entry(n, at=T0 + n * SECOND) for n in range(8_000)])
    out = tmp_path / "out.jsonl"
    kill_and_go_on(path, "--speed", "4000", out=out, kills=2)
    seen = [id for line in out.read_text().splitlines() if (id := whole(line)) is not None]
    assert first_times(seen) == positions(8_000)
    assert len(seen) < 3 * 8_000
    assert at(path) == position(8_000)


def test_killed_at_any_moment_every_message_is_at_the_broker_in_order(
    path: Path, tmp_path: Path, broker: Mosquitto
) -> None:
    fill(path, [entry(n, at=T0 + n * SECOND, events=2) for n in range(6_000)])
    with subscriber(broker) as client:
        kill_and_go_on(path, "--speed", "4000", "--to", broker.url, out=tmp_path / "none", kills=2)
        seen: list[bytes] = []
        while not seen or seen[-1] != b"{5999}":
            seen += [message.payload for message in client.take(1)]
    numbers = [int(payload[1:-1]) for payload in seen]
    assert first_times(numbers) == list(range(6_000))
    # Whoever goes on begins again a little before, and from there on leaves out nothing.
    steps = [after - before for before, after in pairwise(numbers)]
    assert [step for step, _ in groupby(steps) if step > 1] == []
    assert at(path) == position(6_000, 1)
