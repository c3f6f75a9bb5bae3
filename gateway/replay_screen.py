"""The line that shows on a terminal how a replay goes. Never writes where nobody looks."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from storage.replay.player import Played, Player

DRAW_EVERY_S = 0.25
BAR_CELLS = 10


class Screen:
    """One line on standard error, if that is a terminal; drawn over again, and taken away at the end."""

    def __init__(self, first: int, last: int, limit: int | None) -> None:
        self.player: Player[Any] | None = None
        self._on = sys.stderr.isatty()
        # Events that are printed on the same terminal: they and the line take turns.
        self._shares = self._on and sys.stdout.isatty()
        self._first, self._last, self._limit = first, last, limit
        self._shown = False
        self._drawn_s = 0.0

    def draw(self, played: Played, *, now: bool = False) -> None:
        """Show how it stands; not too often, unless it is to be `now`."""
        if not self._on or (time.monotonic() - self._drawn_s < DRAW_EVERY_S and not now):
            return
        self._drawn_s = time.monotonic()
        width = os.get_terminal_size(sys.stderr.fileno()).columns or 80
        self._write(f"\r{status(played, self.player, self._part(played))[: max(width - 1, 0)]}\x1b[K")
        self._shown = True

    def make_way(self) -> None:
        """Take the line away before an event is printed."""
        if self._shares:
            self.clear()

    def clear(self) -> None:
        if self._shown:
            self._write("\r\x1b[K")
            self._shown = False

    def _part(self, played: Played) -> float:
        """How much of a round has been played."""
        if self._limit is not None:
            part = played.events / self._limit - (played.round - 1)
        else:
            part = (played.position - self._first) / max(self._last - self._first, 1) if played.position else 0.0
        return min(max(part, 0.0), 1.0)

    def _write(self, text: str) -> None:
        sys.stderr.write(text)
        sys.stderr.flush()


def status(played: Played, player: Player[Any] | None, part: float) -> str:
    """How it stands: the part that has been played, where in the log that is, and how it goes on."""
    from storage.times import SECOND, iso

    said = [f"{bar(part)} {100 * part:3.0f} %"]
    if player is not None:
        at = player.received_at()
        if at is not None:
            said.append(f"{iso(at // SECOND * SECOND)[:19]}Z")
        speed = "max" if player.speed is None else f"{player.speed:g}×"
        said.append(f"{speed}, paused" if player.paused else speed)
    else:
        said.append(f"{played.events_per_s:.0f} events/s")
    said += [f"position {played.position}", f"{played.events} event{'s' * (played.events != 1)}"]
    if played.round > 1:
        said.append(f"round {played.round}")
    return " · ".join(said)


def bar(part: float) -> str:
    full = round(part * BAR_CELLS)
    return "━" * full + "─" * (BAR_CELLS - full)
