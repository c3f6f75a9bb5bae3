"""What packs or encodes other formats keeps to their bounds, and takes no text for itself."""

from __future__ import annotations

import bz2
import gzip
import lzma
import tracemalloc
import zlib
from time import perf_counter

import cbor2
import msgspec
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.formats import Formats, Options
from storage.event import Outcome, Rejection
from tests.formats.messages import message, written
from tests.formats.storable import assert_storable

MOST = 1_000_000
BOMB = b"\0" * 50_000_000
PACKERS = [
    gzip.compress,
    zlib.compress,
    bz2.compress,
    lzma.compress,
    zstandard.ZstdCompressor(level=19).compress,
]
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=9)
)
trees = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
)
documents = st.dictionaries(st.text(max_size=5), trees, min_size=1, max_size=4)
texts = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1, max_size=60)
shared = Formats()


def formats_of(outcome: Outcome) -> set[str]:
    assert not isinstance(outcome, Rejection)
    return {event.format for event in outcome}


@pytest.mark.parametrize("pack", PACKERS, ids=["gzip", "zlib", "bzip2", "xz", "zstandard"])
def test_a_bomb_costs_no_more_than_the_bound(pack: object) -> None:
    assert callable(pack)
    formats = Formats(Options(unpacked_bytes=MOST))
    bomb = message(pack(BOMB))
    tracemalloc.start()
    outcome = formats.read(bomb)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert outcome == Rejection("unpacks to more than 1000000 bytes (unpacked_bytes)", "compressed")
    assert peak < 40 * MOST


@pytest.mark.parametrize("pack", PACKERS, ids=["gzip", "zlib", "bzip2", "xz", "zstandard"])
@given(st.data())
@settings(max_examples=60, deadline=None)
def test_no_part_and_no_damage_of_a_stream_is_read_as_something_else(pack: object, data: st.DataObject) -> None:
    assert callable(pack)
    whole = pack(b"21.5, and so on")
    cut = whole[: data.draw(st.integers(14, len(whole) - 1))]
    outcome = shared.read(message(cut))
    assert isinstance(outcome, Rejection) or all(event.detail for event in outcome)
    at = data.draw(st.integers(0, len(whole) - 1))
    sent = message(whole[:at] + data.draw(st.binary(min_size=1, max_size=1)) + whole[at + 1 :])
    assert_storable(shared.read(sent), sent)


@given(documents)
@settings(max_examples=300, deadline=None)
def test_an_encoding_gives_what_json_gives(document: dict[str, object]) -> None:
    sent = written(shared.read(message(msgspec.json.encode(document))))
    if '"format":"json"' not in sent:  # the keys named another format
        return
    for name, payload in (("msgpack", msgspec.msgpack.encode(document)), ("cbor", cbor2.dumps(document))):
        assert written(shared.read(message(payload))).replace(f'"format":"{name}"', '"format":"json"') == sent


@given(texts)
@settings(max_examples=500, deadline=None)
def test_no_text_is_taken_for_a_binary_encoding(text: str) -> None:
    outcome = shared.read(message(text.encode()))
    if not isinstance(outcome, Rejection):
        assert not {event.format for event in outcome} & {"msgpack", "cbor", "compressed"}


@given(
    st.binary(max_size=80),
    st.sampled_from([b"", b"\x81", b"\x9f", b"\xa1", b"\xbf", b"\xd9\xd9\xf7", b"<a>", b"x\x9c"]),
)
@settings(max_examples=1_000, deadline=None)
def test_any_bytes_behind_an_opening_can_be_stored_or_are_rejected(payload: bytes, opening: bytes) -> None:
    sent = message(opening + payload)
    assert_storable(shared.read(sent), sent)


@given(st.text(st.sampled_from('m ,=\\"1itT#\n\re.-'), max_size=40), st.sampled_from(["", "m v=1\n", "m,a=b "]))
@settings(max_examples=1_000, deadline=None)
def test_any_line_protocol_can_be_stored_or_is_rejected(text: str, opening: str) -> None:
    sent = message((opening + text).encode(), "metrics/lp")
    assert_storable(shared.read(sent), sent)


@given(st.text(st.sampled_from('a1,;"\n #.|\t'), max_size=40))
@settings(max_examples=1_000, deadline=None)
def test_any_table_can_be_stored_or_is_rejected(text: str) -> None:
    sent = message(text.encode(), "logs/csv")
    assert_storable(shared.read(sent), sent)


@pytest.mark.parametrize(
    "payload",
    [
        b"m v=1\n" * 170_000,
        b"m v=x\n" * 170_000,
        b"m,a=b " + b"\\" * 900_000,
        b"m " + b"v=1," * 250_000,
        b'm v="' + b'\\"' * 400_000,
        b"#\n" * 500_000,
        b"a,b\n" + b"1,2\n" * 250_000,
        b"a" + b",1" * 500_000 + b"\n1",
        b"<a>" + b"<b/>" * 250_000 + b"</a>",
        b"<a b='1'>" * 100_000,
        b"<" * 1_000_000,
        b"<a " + b" " * 900_000,
        b"\x91" * 1_000_000,
        b"\x81" * 1_000_000,
        b"\xdd\x00\x0f\x42\x3b" + b"\x01" * 999_995,
        b"eJ" + b"A" * 999_998,
        b"0x" + b"0" * 1_000_000,
        b"7b22" + b"2" * 1_000_000,
        b'{"a":1}\n' * 120_000,
    ],
    ids=lambda payload: str(payload[:24]),
)
def test_a_megabyte_takes_no_time_worth_speaking_of(payload: bytes) -> None:
    sent = message(payload)
    started = perf_counter()
    assert_storable(shared.read(sent), sent)
    assert perf_counter() - started < 3


def test_what_is_read_again_gives_the_same() -> None:
    for payload in (gzip.compress(b"21.5"), b"m v=1", b"a,b\n1,2", b"<a><b>1</b></a>", b"\x81\xa1a\x01", b"\xa1aa\x01"):
        sent = message(payload)
        assert written(shared.read(sent)) == written(shared.read_again(sent))
        assert formats_of(shared.read(sent)) <= {"plain", "influx_lp", "csv", "xml", "msgpack", "cbor"}
