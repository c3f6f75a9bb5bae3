"""Claims about the keeper's process: it is there while the gateway is, and never longer."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from pathlib import Path

import pytest

from gateway import keeper
from gateway.keeper import Task, keep
from storage.store import Store, StoreOptions

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = tmp_path / "amber.db"
    Store(path, StoreOptions(free_floor_bytes=0)).close()
    return path


def keeper_of(store: Path) -> int | None:
    """The process that keeps the store, None where none does."""
    try:
        pid = int(store.with_name(store.name + ".keeper").read_text())
        os.kill(pid, 0)
    except (FileNotFoundError, ValueError, ProcessLookupError):
        return None
    return pid


async def kept(store: Path, *, but: int | None = None) -> int:
    while (pid := keeper_of(store)) is None or pid == but:
        await asyncio.sleep(0.02)
    return pid


async def test_a_keeper_that_ends_is_started_again_and_ends_with_the_task(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "FIRST_PAUSE_S", 0.01)
    task = asyncio.create_task(keep(Task(str(store))))
    first = await kept(store)
    os.kill(first, signal.SIGKILL)
    await kept(store, but=first)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert keeper_of(store) is None


async def test_a_keeper_ends_when_its_gateway_is_killed(store: Path) -> None:
    code = f"import asyncio; from gateway.keeper import *; asyncio.run(keep(Task({str(store)!r})))"
    gateway = await asyncio.create_subprocess_exec(sys.executable, "-c", code, cwd=ROOT)
    await kept(store)
    gateway.kill()
    await gateway.wait()
    while keeper_of(store) is not None:
        await asyncio.sleep(0.02)


async def test_a_store_that_cannot_be_kept_is_tried_again_with_longer_pauses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(keeper, "FIRST_PAUSE_S", 0.01)
    task = asyncio.create_task(keep(Task(str(tmp_path / "none.db"))))
    while sum("ended with status 1" in line for line in caplog.messages) < 3:
        await asyncio.sleep(0.02)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert keeper_of(tmp_path / "none.db") is None
