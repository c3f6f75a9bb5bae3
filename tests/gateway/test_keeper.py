"""Claims about the keeper's process: it is there while the gateway is, and never longer."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import threading
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


async def test_a_keeper_that_always_ends_is_started_again_with_longer_pauses(
    store: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(keeper, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(sys, "executable", shutil.which("false"))  # whatever it is told, it ends with status 1
    task = asyncio.create_task(keep(Task(str(store))))
    while len(caplog.messages) < 3:
        await asyncio.sleep(0.02)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert all("ended with status 1" in line for line in caplog.messages)
    assert keeper_of(store) is None


def test_a_trouble_with_the_store_is_told_once_and_when_it_is_over_the_keeper_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(keeper, "TROUBLE_PAUSE_S", 0.001)
    path, tries = tmp_path / "amber.db", list[float | None]()

    class Waits(threading.Event):
        """Makes the store after some tries."""

        def wait(self, timeout: float | None = None) -> bool:
            tries.append(timeout)
            if len(tries) == 20:
                Store(path, StoreOptions(free_floor_bytes=0)).close()
            if keeper_of(path) is not None:
                self.set()
            return super().wait(timeout)

    keeper.persist(Task(str(path)), Waits())
    assert [line for line in caplog.messages if "there is no store" in line] == caplog.messages
    assert len(caplog.messages) == 1
    assert len(tries) > 20
