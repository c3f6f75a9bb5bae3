"""Processes of ours that are killed, frozen and started again. Never leaves one behind, however this one ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from devices.broker import guard
from storage.errors import AmberError

STOP_WITHIN_S = 15.0
LAST_WORDS_LINES = 10

ROOT = Path(__file__).resolve().parent.parent.parent
"""Where Python finds the packages beside this one."""


class Child:
    """A Python process (`python ARGUMENTS`) whose output goes to `log`; it may be started again after its end.

    As a context manager it ends with the block: by SIGTERM, or by SIGKILL where that does not help.
    """

    def __init__(self, name: str, log: Path, environment: Mapping[str, str] | None = None) -> None:
        self.name = name
        self.log = log
        self.started_at = 0.0
        self._environment = {**_without_settings(os.environ), **(environment or {}), "PYTHONPATH": str(ROOT)}
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None
        self._killed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int | None:
        """None where it does not run by our will."""
        return self._process.pid if self._process and not self._killed else None

    @property
    def status(self) -> int | None:
        """The exit status if it has ended without being told to, else None."""
        return self._process.poll() if self._process and not self._killed else None

    def start(self, arguments: Sequence[str]) -> None:
        """Begin; a group of its own keeps a terminal's Ctrl-C from it, which is for us to hand on."""
        self.wait(STOP_WITHIN_S)  # where a kill was interrupted
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
                process_group=0,
            )
        self.started_at = time.monotonic()
        self._guard = guard(self._process.pid)

    def signal(self, number: signal.Signals) -> None:
        """Does nothing where it does not run."""
        if self._process is not None:
            self._process.send_signal(number)

    def kill(self) -> None:
        """End it as a crash would."""
        self._killed = True
        self.signal(signal.SIGKILL)
        self.wait(STOP_WITHIN_S)

    def stop(self, within_s: float = STOP_WITHIN_S) -> int | None:
        """End it in good order; its exit status, or None if it did not run. One that does not end is killed."""
        if self.status is None:
            self.signal(signal.SIGTERM)
        return self.wait(within_s)

    def wait(self, within_s: float) -> int | None:
        """Its exit status once it has ended; killed if that takes too long. None if it did not run by our will."""
        if self._process is None or self._guard is None:
            return None
        try:
            status = self._process.wait(within_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            status = self._process.wait()
        self._guard.kill()
        self._guard.communicate()
        told, self._killed = self._killed, False
        self._process = self._guard = None
        return None if told else status

    def said(self) -> str:
        """All that it has said since the log was begun."""
        return self.log.read_text("utf-8", "replace") if self.log.exists() else ""

    def wait_until(self, ready: Callable[[], bool], within_s: float) -> None:
        """Look until it is ready. Raises AmberError if it ends first or the time is over."""
        patience = time.monotonic() + within_s
        while not ready():
            if self.status is not None or time.monotonic() > patience:
                raise AmberError(f"{self.name} did not start: see {self.log}")
            time.sleep(0.05)

    def last_words(self) -> str:
        return "\n".join(self.said().splitlines()[-LAST_WORDS_LINES:]) or "(it said nothing)"


def _without_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """Settings of the user's own gateway are not for one on trial."""
    return {name: value for name, value in environment.items() if not name.startswith("AMBER_")}
