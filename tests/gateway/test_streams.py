"""Claims about the standard streams of the command, whatever they are when it is started."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from storage.consumers import Consumer
from tests.replay.filled import entry, fill, position
from tests.storage.histories import ROOT

AMBER = sys.executable, "-m", "gateway"
FULL = "amber: cannot write to standard output (No space left on device)"
CLOSED = "amber: cannot write to standard output (Bad file descriptor)"
WITHIN_S = 60.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return fill(tmp_path / "amber.db", (entry(n) for n in range(3_000)))


def amber(path: Path, arguments: str, redirected: str) -> tuple[int, list[str]]:
    """The exit status, and the lines on standard error."""
    command = f'exec "$@" {redirected}'
    words = ["sh", "-c", command, "sh", *AMBER, *arguments.split(), "--store", str(path)]
    done = subprocess.run(words, stderr=subprocess.PIPE, text=True, timeout=WITHIN_S, check=False, cwd=ROOT)
    return done.returncode, done.stderr.splitlines()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a disk that is always full")
@pytest.mark.parametrize(
    "arguments",
    ["status", "replay --speed max", "consumers reset mine --to now"],
)
def test_a_full_disk_is_said_in_one_line(path: Path, arguments: str) -> None:
    Consumer(path, "mine").close()
    status, said = amber(path, arguments, ">/dev/full")
    assert status == 1
    assert said[-1].startswith(FULL)
    assert len(said) <= 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a disk that is always full")
def test_what_could_not_be_written_is_not_confirmed(path: Path) -> None:
    amber(path, "consume billing --once", ">/dev/full")
    amber(path, "consume billing --once", ">&-")
    amber(path, "replay --speed max --as again", ">/dev/full")
    with Consumer(path, "billing") as consumer:
        assert consumer.position == 0
    assert amber(path, "replay --speed max --as again", ">/dev/null")[1][-1].startswith("replayed 3000 events")


@pytest.mark.parametrize("arguments", ["events", "consume billing --once"])
def test_what_is_closed_takes_nothing(path: Path, arguments: str) -> None:
    """Not even in secret: the next file that was opened would else stand in its place."""
    before = path.read_bytes()
    status, said = amber(path, arguments, "<&- >&-")
    assert (status, said[-1].startswith(CLOSED)) == (1, True)
    if "consume" not in arguments:
        assert path.read_bytes() == before


def test_without_a_standard_error_it_works_all_the_same(path: Path, tmp_path: Path) -> None:
    assert amber(path, "replay --speed max", f">{tmp_path}/out 2>&-") == (0, [])
    assert len((tmp_path / "out").read_bytes().splitlines()) == 3_000


@pytest.mark.parametrize("arguments", ["replay --speed max", "consume billing --once"])
def test_a_pipe_that_does_not_block_gets_all_of_it(path: Path, arguments: str) -> None:
    """Others who share a pipe or terminal may make it so for all."""
    ours, theirs = os.pipe()
    fcntl.fcntl(theirs, fcntl.F_SETFL, fcntl.fcntl(theirs, fcntl.F_GETFL) | os.O_NONBLOCK)
    words = [*AMBER, *arguments.split(), "--store", str(path)]
    with subprocess.Popen(words, cwd=ROOT, stdout=theirs, stderr=subprocess.DEVNULL) as process:
        os.close(theirs)
        with os.fdopen(ours, "rb") as out:
            assert len(out.read().splitlines()) == 3_000
        assert process.wait(WITHIN_S) == 0


def unfinished(path: Path, file: Path) -> None:
    """Leave a file as a kill in the middle of a write does."""
    assert amber(path, "consume billing --once", f">{file}")[0] == 0
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(lines[:1_000]) + lines[1_000][:50])
    assert amber(path, f"consumers reset billing --to {position(1_000)}", ">/dev/null")[0] == 0


def test_a_line_that_was_cut_off_comes_again_on_one_of_its_own(path: Path, tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    unfinished(path, file)
    amber(path, "consume billing --once", f">>{file}")
    lines = file.read_bytes().splitlines()
    assert len(lines) == 3_001
    assert lines[1_001].startswith(lines[1_000])
    assert lines[1_001].startswith(b'{"id":%d,' % position(1_001))
