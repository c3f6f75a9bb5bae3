"""Runs a command for each batch, the events on its standard input. Never goes on while it fails."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
from collections.abc import Sequence

from gateway.deliver import Batch, NotTaken


class Command:
    """A command that has taken a batch when it ends with status 0, within `timeout_s` where that is given."""

    def __init__(self, arguments: Sequence[str], timeout_s: float | None = None) -> None:
        self._arguments = arguments
        self._timeout_s = timeout_s
        self._name = shlex.quote(arguments[0])

    def take(self, batch: Batch) -> None:
        try:
            # A group of its own: the Ctrl-C that asks us to end in good order is not for the command.
            process = subprocess.Popen(
                self._arguments, stdin=subprocess.PIPE, env={**os.environ, **about(batch)}, process_group=0
            )
        except OSError as error:
            raise NotTaken(f"{self._name} cannot be run ({error.strerror or error})") from error
        with process:
            try:
                process.communicate(batch.body, self._timeout_s)
            except subprocess.TimeoutExpired:
                kill(process)
                raise NotTaken(f"{self._name} did not end within {self._timeout_s:g} s") from None
            except BaseException:
                kill(process)
                raise
        if process.returncode:
            raise NotTaken(f"{self._name} {ended(process.returncode)}")

    def settle(self) -> None:
        """Nothing: a command that has ended well has taken what it was given."""

    def close(self) -> None:
        """Nothing: none runs between the batches."""


def about(batch: Batch) -> dict[str, str]:
    """What a batch is, for the environment of a command."""
    return {
        "AMBER_CONSUMER": batch.consumer,
        "AMBER_FIRST_POSITION": str(batch.first),
        "AMBER_LAST_POSITION": str(batch.last),
        "AMBER_EVENTS": str(len(batch.lines)),
    }


def ended(status: int) -> str:
    if status > 0:
        return f"ended with status {status}"
    try:
        return f"was ended by {signal.Signals(-status).name}"
    except ValueError:  # a real-time signal
        return f"was ended by signal {-status}"


def kill(process: subprocess.Popen[bytes]) -> None:
    """The command, and what it has started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
