"""The process's standard streams: each is there, and what cannot be written is said. Never hides a closed pipe."""

from __future__ import annotations

import contextlib
import io
import os
import select
import stat
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from storage.errors import AmberError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class OutputFailed(AmberError):
    """Standard output takes no more: its disk is full, or it is closed."""


def take_over() -> None:
    """Let standard output fail in one line, and open what the process was started without.

    Else the next file that is opened would take its place, and what is printed would go there.
    """
    # Open for reading: what is written to an output that is closed has to fail, not to get lost.
    for descriptor, mode in enumerate((os.O_RDONLY, os.O_RDONLY, os.O_WRONLY)):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, mode)
    # They are for as long as the process runs.
    sys.stdin = sys.stdin or open(0, closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", closefd=False, errors="backslashreplace")  # noqa: SIM115
    out = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115
    if isinstance(out, io.TextIOWrapper):
        sys.stdout = io.TextIOWrapper(
            io.BufferedWriter(_Output(1, "wb", closefd=False)),
            out.encoding,
            out.errors,
            line_buffering=out.line_buffering,
            write_through=out.write_through,
        )


def silence() -> None:
    """Write nothing more, also not what Python still has and would write as it ends, were it to wait for ever."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def write(descriptor: int, data: ReadableBuffer) -> int:
    """`os.write`, also to what is not ready and does not block. Raises OutputFailed, and BrokenPipeError."""
    with _told():
        while True:
            try:
                return os.write(descriptor, data)
            except BlockingIOError:  # whoever shares our terminal or pipe has made it so
                select.select([], [descriptor], [])


def sync(descriptor: int) -> None:
    """What was written is on the disk when it returns, if it is a file. Raises OutputFailed."""
    with _told():
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.fsync(descriptor)


def ends_within_a_line(descriptor: int) -> bool:
    """Whether whoever wrote this file before ended while a line was being written."""
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or not status.st_size:
        return False
    try:
        with open(f"/dev/fd/{descriptor}", "rb") as file:  # noqa: PTH123 - the one that is open, whatever its name
            file.seek(-1, os.SEEK_END)
            return file.read(1) != b"\n"
    except OSError:  # it cannot be read
        return False


@contextlib.contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        why = f"cannot write to standard output ({error.strerror})"
        raise OutputFailed(f"{why}: make room where it goes, or let it go elsewhere") from error


class _Output(io.FileIO):
    def write(self, data: ReadableBuffer) -> int:
        return write(self.fileno(), data)
