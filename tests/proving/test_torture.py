"""A short torture with real processes; docs/reliability.md tells of the long ones."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from storage.engine import sqlite

WITHIN_S = 60.0


@contextmanager
def torture(folder: Path, *words: str) -> Iterator[subprocess.Popen[str]]:
    """`amber torture` in `folder`, beside us."""
    command = [sys.executable, "-m", "gateway", "torture", "--folder", str(folder), "--format", "json", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def ended(process: subprocess.Popen[str]) -> tuple[int, Any]:
    """Its status, and what it found."""
    found, errors = process.communicate(timeout=2 * WITHIN_S)
    assert found, errors
    return process.returncode, json.loads(found)


def wait_until(ready: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    patience = time.monotonic() + WITHIN_S
    while not ready():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < patience
        time.sleep(0.05)


def ask(store: Path, question: str) -> int:
    """Changes too: the answer is the first number, or how many rows were changed."""
    with closing(sqlite.connect(store, timeout=20)) as connection, connection:
        rows = connection.execute(question)
        answer = rows.fetchone()
        return int(answer[0]) if answer else int(rows.rowcount)


def test_whatever_is_killed_every_message_is_stored_once(tmp_path: Path) -> None:
    """Each of the kinds that every machine allows."""
    words = ["--seed", "7", "--minutes", "0.25", "--kill", "gateway,broker,devices,link,freeze", "--kills", "6"]
    with torture(tmp_path, *words) as process:
        status, found = ended(process)
    assert (status, found["holds"], found["failures"]) == (0, True, [])
    assert found["disturbances"] == 6
    assert found["verdict"]["totals"]["receipted"] > 500
    marks = [json.loads(line) for line in (tmp_path / "marks.jsonl").read_text().splitlines()]
    assert [mark["what"].split()[0] for mark in marks].count("kill") >= 3
    assert not ask(tmp_path / "amber.db", "SELECT count(*) FROM rejections")


def test_an_event_that_goes_behind_its_back_is_found(tmp_path: Path) -> None:
    store = tmp_path / "amber.db"
    with torture(tmp_path, "--seed", "3", "--minutes", "0.1", "--kill", "none") as process:
        wait_until(lambda: (tmp_path / "ledger.jsonl").exists() and stored(store) > 300, process)
        first = ask(store, "SELECT min(id) FROM messages_1 WHERE qos > 0 AND payload LIKE '%readings%'")
        assert ask(store, f"DELETE FROM messages_1 WHERE id = {first} RETURNING 1") == 1
        status, found = ended(process)
    assert (status, found["holds"]) == (1, False)
    assert (found["verdict"]["totals"]["lost"], found["verdict"]["totals"]["repeated"]) == (1, 0)


def test_a_disk_that_is_full_for_a_while_loses_nothing(tmp_path: Path) -> None:
    with torture(tmp_path, "--seed", "2", "--minutes", "0.1", "--kill", "disk", "--kills", "1") as process:
        found, errors = process.communicate(timeout=2 * WITHIN_S)
    if "a full disk needs" in errors:
        assert process.returncode == 1
        pytest.skip("this machine gives us no disk of our own")
    assert json.loads(found)["holds"], found
    assert "is full: make room" in (tmp_path / "gateway.log").read_text()
    assert stored(tmp_path / "amber.db") > 300, "the store is not there once the disk has gone"


def test_ctrl_c_ends_everything_in_good_order_and_still_verifies(tmp_path: Path) -> None:
    with torture(tmp_path, "--seed", "5", "--minutes", "5", "--kill", "gateway", "--kills", "100") as process:
        wait_until((tmp_path / "marks.jsonl").exists, process)
        process.send_signal(signal.SIGINT)
        status, found = ended(process)
    assert (status, found["interrupted"], found["holds"]) == (0, True, True)
    assert 0 < found["disturbances"] < 100
    assert "stopped" in (tmp_path / "gateway.log").read_text().splitlines()[-1]


def test_a_process_that_ends_by_itself_is_a_failure(tmp_path: Path) -> None:
    with torture(tmp_path, "--minutes", "5", "--kill", "none", "--no-receipts") as process:
        wait_until(lambda: (tmp_path / "ledger.jsonl").exists() and stored(tmp_path / "amber.db") > 0, process)
        pid = int((tmp_path / "amber.db.lock").read_text())
        subprocess.run(["kill", "-SEGV", str(pid)], check=True)
        status, found = ended(process)
    assert status == 1
    assert found["failures"][0].startswith(f"the gateway ended by itself with status {-signal.SIGSEGV}")


def stored(store: Path) -> int:
    try:
        return ask(store, "SELECT count(*) FROM messages")
    except sqlite.OperationalError:  # it is only being made
        return 0
