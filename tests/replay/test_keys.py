"""Claims about the keys that steer a replay, pressed on a real terminal."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.replay_keys import pressed
from tests.replay.filled import SECOND, T0, entry, fill, position, positions

ROOT = Path(__file__).resolve().parents[2]
ECHO_AND_LINES = termios.ECHO | termios.ICANON
HOUR = 3_600 * SECOND

UP, DOWN, RIGHT, LEFT, PAGE_UP, PAGE_DOWN = b"\x1b[A", b"\x1b[B", b"\x1b[C", b"\x1b[D", b"\x1b[5~", b"\x1b[6~"


class Terminal:
    """`amber replay` with its keys and its messages on a terminal, and its events in a pipe."""

    def __init__(self, path: Path, *options: str) -> None:
        self.ours, self.theirs = pty.openpty()
        self.before = termios.tcgetattr(self.theirs)
        command = [sys.executable, "-m", "gateway", "replay", "--store", str(path), *options]
        self.process = subprocess.Popen(
            [sys.executable, "-c", _IN_FOREGROUND, *command],
            cwd=ROOT,
            stdin=self.theirs,
            stdout=subprocess.PIPE,
            stderr=self.theirs,
            start_new_session=True,
            bufsize=0,
        )
        assert self.process.stdout is not None
        self.out = self.process.stdout
        self.shown = b""
        self._read = b""

    def press(self, keys: bytes) -> None:
        os.write(self.ours, keys)

    def wait_for(self, text: str) -> None:
        """Until this has been shown on the terminal from now on."""
        begin = len(self.shown)
        deadline = time.monotonic() + 20
        while text.encode() not in self.shown[begin:]:
            assert time.monotonic() < deadline, self.shown
            self._take(self.ours)

    def _take(self, source: int) -> None:
        if select.select([source], [], [], 0.05)[0]:
            with contextlib.suppress(OSError):  # the other side is closed
                self.shown += os.read(source, 65_536)

    def ids(self, count: int) -> list[int]:
        """The positions of so many lines."""
        found: list[int] = []
        while len(found) < count:
            self._take(self.ours)
            if b"\n" not in self._read:
                chunk = os.read(self.out.fileno(), 65_536)
                assert chunk, self.shown
                self._read += chunk
            line, _, self._read = self._read.partition(b"\n")
            found.append(msgspec.json.decode(line)["id"])
        return found

    def ends(self) -> int:
        """Its status, when all has been read that it says."""
        while self.process.poll() is None:
            self._take(self.ours)
            if select.select([self.out], [], [], 0)[0]:
                self._read += os.read(self.out.fileno(), 65_536)
        self._take(self.ours)
        return self.process.returncode

    @property
    def settings(self) -> list[Any]:
        return termios.tcgetattr(self.theirs)

    @property
    def is_held(self) -> bool:
        return not self.settings[3] & ECHO_AND_LINES

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self.out.close()
        os.close(self.ours)
        os.close(self.theirs)


_IN_FOREGROUND = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.tcsetpgrp(0, os.getpgrp())
os.execv(sys.argv[1], sys.argv[1:])
"""


@contextlib.contextmanager
def terminal(path: Path, *options: str) -> Iterator[Terminal]:
    one = Terminal(path, *options)
    try:
        yield one
    finally:
        one.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "amber.db"


def test_the_keys_are_told_and_one_after_the_other_they_steer(path: Path) -> None:
    """Step, seek both ways, another speed, on, end; and the terminal is given back as it was."""
    fill(path, [entry(n, at=T0 + n * SECOND) for n in range(300)])
    with terminal(path, "--start-paused", "--speed", "0.001") as one:
        one.wait_for("space: pause")
        one.wait_for("paused")
        assert one.is_held
        one.press(RIGHT + RIGHT)
        assert one.ids(2) == positions(2)
        one.press(b"]" + PAGE_DOWN)  # 70 s on from the second
        one.wait_for("2025-11-22T09:01:11Z")
        one.press(RIGHT)
        assert one.ids(1) == [position(72)]
        one.press(b"[" + LEFT)
        one.wait_for("2025-11-22T09:00:51Z")
        one.press(RIGHT)
        assert one.ids(1) == [position(52)]
        one.press(PAGE_UP)
        one.press(RIGHT)
        assert one.ids(1) == positions(1)
        one.press(UP)
        one.wait_for("0.002")
        one.press(DOWN + DOWN)
        one.wait_for("0.0005")
        one.press(UP * 16 + b" ")
        assert one.ids(20) == positions(21, first=2)
        one.press(b"q")
        assert one.ends() == 0
        assert b"stopped, go on with --after" in one.shown
        assert one.settings == one.before


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_terminal_is_given_back_whatever_ends_it(path: Path, number: signal.Signals, status: int) -> None:
    fill(path, [entry(0), entry(1, at=T0 + HOUR)])
    with terminal(path) as one:
        one.wait_for("space: pause")
        assert one.ids(1) == positions(1)
        one.wait_for("1×")
        assert one.is_held
        if number is signal.SIGINT:
            one.press(b"\x03")
        else:
            one.process.send_signal(number)
        assert one.ends() == status
        assert one.settings == one.before
        assert b"stopped, go on with --after" in one.shown


def test_a_reader_who_has_seen_enough_leaves_the_terminal_as_it_was(path: Path) -> None:
    fill(path, (entry(n) for n in range(5_000)))
    with terminal(path, "--speed", "100") as one:
        assert one.ids(1) == positions(1)
        one.out.close()
        while one.process.poll() is None:
            one._take(one.ours)
        assert one.process.returncode == 0
        assert one.settings == one.before


def test_a_replay_that_was_suspended_takes_the_terminal_again(path: Path) -> None:
    """The shell that got it meanwhile has changed it."""
    fill(path, [entry(0), entry(1, at=T0 + HOUR)])
    with terminal(path) as one:
        one.wait_for("1×")
        one.process.send_signal(signal.SIGSTOP)
        termios.tcsetattr(one.theirs, termios.TCSANOW, one.before)
        one.process.send_signal(signal.SIGCONT)
        deadline = time.monotonic() + 20
        while not one.is_held:
            assert time.monotonic() < deadline
        one.press(b"q")
        assert one.ends() == 0
        assert one.settings == one.before


def test_keys_can_be_left_to_others(path: Path) -> None:
    fill(path, [entry(0), entry(1, at=T0 + HOUR)])
    with terminal(path, "--no-keys") as one:
        assert one.ids(1) == positions(1)
        one.wait_for("position 10000")
        assert not one.is_held
        one.press(b"\x03")
        assert one.ends() == 130
    assert b"space: pause" not in one.shown


def test_a_replay_that_no_key_can_start_is_refused(path: Path) -> None:
    fill(path, [entry(0)])
    command = [sys.executable, "-m", "gateway", "replay", "--store", str(path), "--start-paused"]
    done = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "no key could start it" in done.stderr


@given(st.lists(st.sampled_from([b" ", b"q", b"[", b"]", UP, RIGHT, LEFT, PAGE_UP, b"\x1bOA"])), st.integers(0, 40))
def test_a_key_that_comes_in_pieces_is_the_same_key(typed: list[bytes], cut: int) -> None:
    whole = b"".join(typed)
    keys, rest = pressed(whole[:cut])
    more, rest = pressed(rest + whole[cut:])
    assert keys + more == pressed(whole)[0]
    assert len(keys + more) == len(typed)
    assert rest == b""


def test_other_keys_mean_nothing() -> None:
    assert pressed(b"abcABC5~\t\xff") == ([], b"")
    assert pressed(b"\x1bx ") == ([b" "], b"")
    assert pressed(b"\x1b[" + b"1" * 100) == ([], b"")
