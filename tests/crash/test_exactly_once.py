"""The short form of the proof: each message is stored exactly once, whatever ends the gateway or its connection."""

from pathlib import Path

import pytest

from tests.crash.prove import prove


@pytest.mark.parametrize("by", ["kill", "term", "cut"])
def test_each_message_is_stored_exactly_once(tmp_path: Path, by: str) -> None:
    verdict = prove(tmp_path, by=by, times=4, messages=8_000, seed=7, rate=1_500)
    assert verdict.holds, verdict
