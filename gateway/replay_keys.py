"""The keys that steer a replay from a terminal. Holds the terminal only while it plays, and always gives it back."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import termios
import tty
from collections.abc import Callable, Iterator
from typing import Any

from storage.replay.player import Player

KEYS_HELP = "space: pause · →: one event while paused · ↑ ↓: speed · [ ]: 10 s back, on · PgUp PgDn: 60 s · q: end"

SEEK_S = 10.0
FAR_S = 60.0

FASTEST, SLOWEST = 1e6, 1e-6
"""Keys lead no farther."""

LONGEST_SEQUENCE = 16
"""Bytes of one key, at most."""


def toggle(player: Player[Any]) -> None:
    if player.paused:
        player.resume()
    else:
        player.pause()


def on(player: Player[Any]) -> None:
    if player.paused:
        player.step()
    else:
        player.seek(SEEK_S)


def faster(player: Player[Any]) -> None:
    if player.speed is not None and player.speed < FASTEST:
        player.speed *= 2


def slower(player: Player[Any]) -> None:
    """Of as fast as possible, half of what that has been."""
    speed = player.speed or player.played.speed or 2.0
    if speed > SLOWEST:
        player.speed = speed / 2


KEYS: dict[bytes, Callable[[Player[Any]], None]] = {
    b" ": toggle,
    b"q": lambda player: player.stop(),
    b"[": lambda player: player.seek(-SEEK_S),
    b"]": lambda player: player.seek(SEEK_S),
    b"A": faster,  # from here on what stands last in the sequence of a key, as terminals send it
    b"B": slower,
    b"C": on,
    b"D": lambda player: player.seek(-SEEK_S),
    b"5~": lambda player: player.seek(-FAR_S),
    b"6~": lambda player: player.seek(FAR_S),
}


def pressed(typed: bytes) -> tuple[list[bytes], bytes]:
    """The keys in what was typed, and the beginning of one of which the rest is yet to come."""
    keys: list[bytes] = []
    end = 0
    while found := _KEY.match(typed, end):
        end = found.end()
        key = found["sequence"] or found["plain"]
        if found["sequence"] is not None or key in _PLAIN:
            keys.append(key)
    rest = typed[end:]
    return keys, rest if len(rest) <= LONGEST_SEQUENCE else b""


_PLAIN = (b" ", b"q", b"[", b"]")
_KEY = re.compile(rb"\x1b[\[O](?P<sequence>[0-9;]*[^0-9;])|(?P<plain>[^\x1b])|\x1b(?=[^\[O])", re.DOTALL)


@contextlib.contextmanager
def keys(player: Player[Any], terminal: int, then: Callable[[], None]) -> Iterator[None]:
    """Let the keys of a terminal steer the player for the time of the block; `then` is called after each."""
    hold = Hold(terminal)
    loop = asyncio.get_running_loop()
    rest = b""

    def read() -> None:
        nonlocal rest
        typed = b""
        if in_foreground(terminal):
            with contextlib.suppress(OSError):  # how Linux says that the terminal is gone
                typed = os.read(terminal, 1_024)
        if not typed:
            loop.remove_reader(terminal)  # until we are called to the foreground again
            return
        found, rest = pressed(rest + typed)
        for key in found:
            if (tell := KEYS.get(key)) is not None:
                tell(player)
        then()

    def come_back() -> None:
        if in_foreground(terminal):
            hold.take()
            loop.add_reader(terminal, read)

    try:
        come_back()
        loop.add_signal_handler(signal.SIGCONT, come_back)
        yield
    finally:
        loop.remove_signal_handler(signal.SIGCONT)
        loop.remove_reader(terminal)
        hold.give_back()


class Hold:
    """A terminal that gives each key at once, and does not show it; Ctrl-C goes on to mean what it does."""

    def __init__(self, terminal: int) -> None:
        self._terminal = terminal
        self._before: list[Any] | None = None

    def take(self) -> None:
        if self._before is None:
            self._before = termios.tcgetattr(self._terminal)
        tty.setcbreak(self._terminal, termios.TCSANOW)

    def give_back(self) -> None:
        if self._before is not None and in_foreground(self._terminal):
            with contextlib.suppress(termios.error):  # the terminal is gone
                termios.tcsetattr(self._terminal, termios.TCSANOW, self._before)


def in_foreground(terminal: int) -> bool:
    """Whether the terminal is ours: whoever touches it from the background is stopped."""
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
