"""The ledger gives back what was recorded, and nothing else."""

from __future__ import annotations

import json
import resource
from pathlib import Path

import pytest

from devices.errors import DeviceError
from devices.ledger import CUT, Account, Ledger, accounts, digest, files, read
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


@pytest.mark.parametrize("left", [1, 60, -2, -1])
def test_half_a_line_is_marked_as_cut_off_and_never_continued(path: Path, left: int) -> None:
    """Wherever a crash has cut the last line off, all others are read, and those that a later run adds."""
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:4]) + lines[4][:left])
    with Ledger(path) as ledger:
        ledger.answered("thermo-0001", MESSAGES[1], "receipted")
    assert [record.state for record in read(path)] == ["sent", "sent", "sent", "acked", "receipted"]
    assert path.read_bytes().startswith(b"".join(lines[:4]) + lines[4][:left])


def test_a_mark_that_was_itself_cut_off_is_finished(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5] + CUT[:4])
    with Ledger(path):
        pass
    assert [record.state for record in read(path)] == ["sent", "sent", "sent", "acked"]


def test_half_a_line_that_nobody_marked_is_an_error(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5] + b"\n")
    with pytest.raises(DeviceError, match="line 5, is not a line of a ledger"):
        list(read(path))


def test_what_was_recorded_is_in_the_file_after_a_flush(tmp_path: Path) -> None:
    """A simulation killed a moment later has it in its ledger."""
    with Ledger(tmp_path / "ledger.jsonl") as ledger:
        ledger.sent("thermo-0001", MESSAGES[0], 1)
        ledger.answered("thermo-0001", MESSAGES[0], "acked")
        assert not list(read(tmp_path / "ledger.jsonl"))
        ledger.flush()
        assert [record.state for record in read(tmp_path / "ledger.jsonl")] == ["sent", "acked"]


def test_the_half_line_of_another_process_is_marked_by_the_next_to_write(path: Path) -> None:
    """Workers share a ledger; one that is killed within a line must not spoil that of another."""
    with Ledger(path) as ledger:
        with path.open("ab") as other:
            other.write(b'{"device": "thermo-0002", "bo')
        ledger.answered("thermo-0001", MESSAGES[1], "acked")
        ledger.flush()
        assert [record.seq for record in read(path) if record.state == "acked"] == [0, 2, 1]
    assert path.read_bytes().count(CUT) == 1


def test_a_line_that_found_no_room_is_written_whole_when_there_is_some(path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Ledger(path) as ledger:
        ledger.answered("thermo-0001", MESSAGES[1], "acked")
        ledger.answered("thermo-0001", MESSAGES[1], "receipted")
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 150, before[1]))
        try:
            with pytest.raises(DeviceError, match="cannot write the ledger"):
                ledger.flush()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        with path.open("ab") as other:
            assert path.read_bytes()[-1:] != b"\n"
            other.write(CUT)
        ledger.flush()
    assert [record.state for record in read(path)][3:] == ["acked", "acked", "acked", "receipted"]


def test_several_files_a_folder_or_a_pattern_name_ledgers(tmp_path: Path) -> None:
    names = "ledger-1.jsonl", "ledger-2.jsonl", "marks.jsonl", "notes.txt"
    one, two, *_ = paths = [tmp_path / name for name in names]
    for path in paths:
        path.touch()
    assert files([tmp_path]) == files([tmp_path / "led*-?.jsonl"]) == files([one, two, one]) == [one, two]
    assert files([tmp_path / "none.jsonl"]) == [tmp_path / "none.jsonl"]
    for nowhere in (tmp_path / "*.log", tmp_path / "empty"):
        tmp_path.joinpath("empty").mkdir(exist_ok=True)
        with pytest.raises(DeviceError, match="there is no ledger at"):
            files([nowhere])


def test_a_file_may_be_called_as_a_pattern(tmp_path: Path) -> None:
    odd = tmp_path / "ledger[1].jsonl"
    odd.touch()
    assert files([odd]) == [odd]


NAME = '"device": "d", "boot": "b", "at": "2026-11-22T09:00:17.123456Z"'


@pytest.mark.parametrize(
    "line",
    [
        *("nonsense", "{}", '{"device": "d"}', "[]", "\0\0\0"),
        f'{{{NAME}, "seq": 0, "state": "sent"}}',
        f'{{{NAME}, "seq": 0, "state": "sent", "topic": "t", "digest": "8d1f"}}',
        f'{{{NAME}, "seq": 0, "state": "lost"}}',
        f'{{{NAME}, "seq": -1, "state": "acked"}}',
        f'{{{NAME}, "seq": 9223372036854775808, "state": "acked"}}',
        f'{{{NAME}, "seq": 0, "state": "acked", "qos": 3}}',
        '{"device": "d", "boot": "b", "seq": 0, "state": "acked", "at": "yesterday"}',
    ],
)
def test_a_foreign_line_is_an_error_that_names_it(path: Path, line: str) -> None:
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(DeviceError, match="line 6, is not a line of a ledger"):
        accounts(path)


def test_a_ledger_that_cannot_be_written_or_read_is_an_error_in_words(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match=r"cannot write the ledger .*: Is a directory"):
        Ledger(tmp_path)
    with pytest.raises(DeviceError, match=r"cannot read the ledger .*: No such file"):
        accounts(tmp_path / "none")


@pytest.mark.parametrize(
    "beginning",
    [
        *(b"# Amber\n\nA gateway.\n", b"SQLite format 3\0\x10\0", b"\n", b"x", b'{"device": "d"}\n', b'{"device":"d"}'),
        *(b'{"a":1}', b"\0" * 4096, b"#" * (2 << 20), b" # Amber", b" #cut off\n", b'{"device":"d","bo\n'),
    ],
)
def test_a_file_that_is_no_ledger_is_refused_and_left_as_it_is(tmp_path: Path, beginning: bytes) -> None:
    path = tmp_path / "README.md"
    path.write_bytes(beginning)
    with pytest.raises(DeviceError, match=r"README.md is no ledger: name another file$"):
        Ledger(path)
    assert path.read_bytes() == beginning


@pytest.mark.parametrize("left", [0, 1, 9, 10, 60, -2, -1, None])
def test_whatever_a_crash_has_left_of_the_first_line_is_gone_on_with(path: Path, left: int | None) -> None:
    path.write_bytes(path.read_bytes().splitlines(keepends=True)[0][:left])
    for mark in (CUT[:1], b"", b""):  # the second finds half a mark, the third what the second has marked
        with path.open("ab") as file:
            file.write(mark * bool(left))
        with Ledger(path) as ledger:
            ledger.answered("thermo-0001", MESSAGES[1], "acked")
    assert [record.state for record in read(path)][-3:] == ["acked"] * 3


def test_a_full_disk_is_an_error_in_words() -> None:
    full = "cannot write the ledger /dev/full: No space left on device"
    with pytest.raises(DeviceError, match=full), Ledger(Path("/dev/full")) as ledger:
        ledger.sent("thermo-0001", MESSAGES[0], 1)


def test_a_name_that_no_file_can_have_is_an_error_in_words(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match=r"cannot read the ledger .*: File name too long"):
        accounts(files([tmp_path / ("x" * 300)])[0])
