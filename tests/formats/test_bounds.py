"""What is over a bound is rejected with the bound's name; what is at it is read."""

from __future__ import annotations

import gzip
import json

import pytest

from gateway.formats import Formats, Options
from storage.event import Rejection
from tests.formats.messages import message

BATCH = [{"device": f"d{n}", "a": n, "b": n} for n in range(10)]


@pytest.mark.parametrize(
    ("bound", "limit", "payload"),
    [
        ("payload_bytes", 20, b'{"a":"' + b"x" * 13 + b'"}'),
        ("depth", 3, b'{"a":{"b":{"c":{"d":1}}}}'),
        ("entries", 10, json.dumps({str(n): n for n in range(9)}).encode()),
        ("readings", 19, json.dumps(BATCH).encode()),
        ("unpacked_bytes", 999, gzip.compress(b'{"a":"' + b"x" * 992 + b'"}', mtime=0)),
        ("text_chars", 9, b'{"a":"xxxxxxxxxx"}'),
        ("name_chars", 9, b'{"aaaaaaaaaa":1}'),
    ],
)
def test_each_bound_is_kept_and_named(bound: str, limit: int, payload: bytes) -> None:
    over = Formats(Options(**{bound: limit})).read(message(payload, "d/x"))  # type: ignore[arg-type]
    assert isinstance(over, Rejection)
    assert f"({bound})" in over.reason
    assert str(limit) in over.reason
    at = Formats(Options(**{bound: limit + 1})).read(message(payload, "d/x"))  # type: ignore[arg-type]
    assert not isinstance(at, Rejection), at


def test_a_bomb_is_not_unpacked_beyond_its_bound() -> None:
    bomb = gzip.compress(b"\0" * 50_000_000)
    outcome = Formats(Options(unpacked_bytes=100_000)).read(message(bomb, "d/x"))
    assert isinstance(outcome, Rejection)
    assert "unpacked_bytes" in outcome.reason


def test_packed_in_packed_in_packed_ends() -> None:
    payload = b'{"a":1}'
    for _ in range(10):
        payload = gzip.compress(payload)
    assert isinstance(Formats().read(message(payload, "d/x")), Rejection)
