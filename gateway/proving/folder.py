"""A folder that a run fills and the next one may use again. Never deletes what no such run has made."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from storage.engine import Lock
from storage.errors import AmberError

STORE = ("amber.db", "amber.db-wal", "amber.db-shm", "amber.db.lock", "amber.db.keeper")
BROKER = ("broker/mosquitto.conf", "broker/mosquitto.log", "broker/mosquitto.db", "broker/mosquitto.db.new")
STAGE = (*STORE, *BROKER, "ledger.jsonl", "outbox.db", "outbox.db-wal", "outbox.db-shm", "gateway.log", "devices.log")
"""What every run leaves in its folder."""


def make_ready(folder: Path, command: str, parts: Sequence[str]) -> None:
    """The folder without the `parts` that an earlier run of `command` left.

    Raises AmberError where it is in use, or anyone else's.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        mark = folder / f".amber-{command}"
        if any(folder.iterdir()) and not mark.is_file():
            raise AmberError(f"{folder} is not empty, and no {command} made it: name a new one with --folder")
        mark.write_text(
            f"Made by amber {command}. The next one in this folder replaces its store and its logs.\n", "utf-8"
        )
        Lock(folder / "amber.db").release()
        for part in parts:
            (folder / part).unlink(missing_ok=True)
    except OSError as error:
        raise AmberError(f"cannot use {error.filename or folder}: {error.strerror}") from error
