"""What every test may ask for: real things on free ports, never doubles of them."""

from __future__ import annotations

import asyncio
import inspect
import logging
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from devices.broker import Mosquitto

# How long an example takes is the machine's affair, and whatever else runs on it.
settings.register_profile("amber", deadline=None)
settings.load_profile("amber")


def pytest_configure(config: pytest.Config) -> None:
    """A run without a time limit can hang for ever: refuse it at the start."""
    if not config.pluginmanager.hasplugin("timeout"):
        raise pytest.UsageError("pytest-timeout is missing: run the tests with ./run test")
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # Run behind a shell's `&` or nohup, we and all that we start would not hear Ctrl-C, which many tests send.
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """A test that is a coroutine runs in an event loop of its own."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    asyncio.run(pyfuncitem.obj(**arguments))
    return True


@pytest.fixture(autouse=True)
def what_is_logged_ends_with_the_test() -> Iterator[None]:
    """A command that runs in this process has its log written by a thread: to a standard error that is soon another."""
    handlers = logging.getLogger("amber").handlers
    before = handlers[:]
    yield
    handlers[:] = before


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    """A Mosquitto of this test's own, on a free port; the test may kill it and start it again."""
    with Mosquitto(tmp_path / "broker") as broker:
        yield broker
