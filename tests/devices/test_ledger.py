"""The ledger gives back what was recorded, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from devices.errors import DeviceError
from devices.ledger import Account, Ledger, accounts, digest, read
from devices.outgoing import Outgoing, Publication

MESSAGES = [
    Outgoing("5f3a", seq, 0, 1_000_000 * seq, Publication("devices/thermo-0001/telemetry", b"{}"), identified=True)
    for seq in range(3)
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "ledger.jsonl"
    with Ledger(path) as ledger:
        for message in MESSAGES:
            ledger.sent("thermo-0001", message, 1)
        ledger.answered("thermo-0001", MESSAGES[0], "acked")
        ledger.answered("thermo-0001", MESSAGES[2], "acked")
    return path


def test_a_line_is_as_documented(path: Path) -> None:
    line = json.loads(path.read_text().splitlines()[1])
    assert line | {"at": ""} == {
        "device": "thermo-0001",
        "boot": "5f3a",
        "seq": 1,
        "state": "sent",
        "at": "",
        "qos": 1,
        "observed_at": "1970-01-01T00:00:01.000000Z",
        "topic": "devices/thermo-0001/telemetry",
        "digest": digest("devices/thermo-0001/telemetry", b"{}"),
        "identified": True,
    }


def test_accounts_say_what_was_sent_and_what_acknowledged(path: Path) -> None:
    assert accounts(path) == {("thermo-0001", "5f3a"): Account(sent={0, 1, 2}, acked={0, 2})}


def test_a_second_run_adds_to_the_ledger(path: Path) -> None:
    with Ledger(path) as ledger:
        ledger.answered("thermo-0001", MESSAGES[1], "acked")
    assert accounts(path)["thermo-0001", "5f3a"].acked == {0, 1, 2}


def test_a_line_still_being_written_is_left_out(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])
    assert [record.state for record in read(path)] == ["sent", "sent", "sent", "acked"]


def test_half_a_line_is_never_continued(path: Path) -> None:
    before = path.read_bytes()[:-1]
    path.write_bytes(before)
    with pytest.raises(DeviceError, match="half a line"):
        Ledger(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("line", ["nonsense", "{}", '{"device": "d"}', "[]"])
def test_a_foreign_line_is_an_error_that_names_it(path: Path, line: str) -> None:
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(DeviceError, match="line 6, is not a line of a ledger"):
        accounts(path)


def test_a_ledger_that_cannot_be_written_or_read_is_an_error_in_words(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match=r"cannot write the ledger .*: Is a directory"):
        Ledger(tmp_path)
    with pytest.raises(DeviceError, match=r"cannot read the ledger .*: No such file"):
        accounts(tmp_path / "none")


def test_a_full_disk_is_an_error_in_words() -> None:
    full = "cannot write the ledger /dev/full: No space left on device"
    with pytest.raises(DeviceError, match=full), Ledger(Path("/dev/full")) as ledger:
        ledger.sent("thermo-0001", MESSAGES[0], 1)
