"""Brings what is written to the disk, and tells plainly where that fails."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from storage.export.request import ExportError


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raise what the disk says as an ExportError."""
    try:
        yield
    except OSError as error:
        raise ExportError(
            f"cannot write {path}: {error.strerror or error}; what is written stays, and --resume goes on from there"
        ) from error


def sync(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())


def sync_folder(file: Path) -> None:
    folder = os.open(file.parent, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
