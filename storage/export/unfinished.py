"""The files of an export that is not done. Never knows what is in them."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path

import msgspec

from storage.export.durable import sync, sync_folder, writing
from storage.export.request import Checkpoint, Done, ExportError


class Unfinished:
    """The files of an export that is not done: FILE.part, FILE.part.json, and the parts of a Parquet file.

    One process at a time has them. Raises ExportError where another does.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.part = file.with_name(f"{file.name}.part")
        self._notes = file.with_name(f"{file.name}.part.json")
        with writing(self.part):
            handle = os.open(self.part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self.out = os.fdopen(handle, "r+b")
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            mine = os.path.samestat(os.fstat(handle), self.part.stat())
        except OSError:
            mine = False
        if not mine:
            self.out.close()
            raise ExportError(f"another export is writing {self.part}: wait for it, or give another name")

    def close(self) -> None:
        with contextlib.suppress(OSError):  # a full disk has been told of by then
            self.out.close()

    def checkpoint(self) -> Checkpoint | None:
        """What an earlier export has left; None where it left nothing that can be gone on with."""
        try:
            return msgspec.json.decode(self._notes.read_bytes(), type=Checkpoint)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.MsgspecError) as error:
            raise ExportError(f"cannot read {self._notes} ({error}): start anew with --overwrite") from error

    def remember(self, checkpoint: Checkpoint) -> None:
        """Put down durably how far it is."""
        new = self._notes.with_name(f"{self._notes.name}.new")
        with writing(self._notes):
            with new.open("wb") as notes:
                notes.write(msgspec.json.encode(checkpoint))
                sync(notes)
            new.replace(self._notes)
            sync_folder(self.file)

    def part_number(self, number: int) -> Path:
        return self.file.with_name(f"{self.part.name}-{number:04}")

    def parts_after(self, number: int) -> list[Path]:
        """The parts behind a number, which no checkpoint names."""
        found = self.file.parent.glob(f"{glob_escaped(self.part.name)}-*")
        return [path for path in found if (end := path.name.rpartition("-")[2]).isdigit() and int(end) > number]

    def clear(self, done: Done | None = None) -> None:
        """Throw away what lies behind `done`; all of it where that is left out."""
        done = done or Done()
        with writing(self.part):
            self.out.truncate(done.bytes)
            self.out.seek(done.bytes)
            for path in self.parts_after(done.parts):
                path.unlink()

    def finish(self, whole: Path) -> None:
        """Give what is `whole` the file's name, and leave nothing beside it."""
        with writing(self.file):
            whole.replace(self.file)
            sync_folder(self.file)
            self.part.unlink(missing_ok=True)
            self._notes.unlink(missing_ok=True)
            for path in self.parts_after(0):
                path.unlink()


def glob_escaped(name: str) -> str:
    return "".join(f"[{character}]" if character in "*?[" else character for character in name)
