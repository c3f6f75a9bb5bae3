"""Stores for the tests of the log: one that all of them read, and one for each that writes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from tests.storage.histories import History, entries


@pytest.fixture(scope="session")
def history(tmp_path_factory: pytest.TempPathFactory) -> Iterator[History]:
    """Three sealed segments, an open one with an index and a tail behind it. Tests only read it."""
    random = Random(7)
    with History(tmp_path_factory.mktemp("history") / "amber.db") as history:
        number = 0
        for count in (50, 150, 1, 30, 200, 70, 90, 60, 45):
            history.append(entries(random, count, number))
            number += count
        history.index_now()
        history.append(entries(random, 40, number))
        yield history


@pytest.fixture
def new_history(tmp_path: Path) -> Iterator[History]:
    """A store of the test's own, with nothing in it yet."""
    with History(tmp_path / "amber.db") as history:
        yield history
