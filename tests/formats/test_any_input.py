"""Whatever arrives gives events that can be stored, or a rejection that a person understands: never a crash."""

from __future__ import annotations

import random
from time import perf_counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.formats import Formats
from storage.event import Rejection
from tests.formats.hostile import FAMILIES, hostile_payloads, named_payloads, oversize
from tests.formats.messages import message
from tests.formats.storable import assert_storable

TOPICS = ["", "/", "x" * 60_000, "a/" * 199]
any_text = st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\0+#"), max_size=40)
any_topic = st.lists(any_text, min_size=1, max_size=6).map("/".join) | st.sampled_from(TOPICS)
any_payload = st.binary(max_size=300) | st.text(max_size=300).map(lambda text: text.encode("utf-8", "surrogatepass"))
shared = Formats()


@given(any_topic, any_payload, st.sampled_from([b"", b"{", b"[", b'{"a":', b"\xff\xfe", b"\xef\xbb\xbf"]))
@settings(max_examples=1_000, deadline=None)
def test_any_bytes_on_any_topic_can_be_stored_or_are_rejected(topic: str, payload: bytes, opening: bytes) -> None:
    sent = message(opening + payload, topic)
    assert_storable(shared.read(sent), sent)


@given(st.text(alphabet=st.characters(), max_size=30))
@settings(max_examples=300, deadline=None)
def test_a_topic_of_any_characters_can_be_stored(topic: str) -> None:
    for payload in (b"21.5", b'{"a":1}', b'{"value":1}', b"[1]", b""):
        sent = message(payload, topic)
        assert_storable(shared.read(sent), sent)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_hostile_family_can_be_stored_or_is_rejected(family: str) -> None:
    for seed in range(12):
        payload = dict(named_payloads(seed))[family]
        sent = message(payload)
        assert_storable(shared.read(sent), sent)


def test_two_thousand_hostile_payloads_stop_nothing() -> None:
    payloads = hostile_payloads(2_000, seed=1)
    messages = [message(payload, f"devices/d{i}/telemetry") for i, payload in enumerate(payloads)]
    outcomes = shared.read_all(messages)
    assert len(outcomes) == 2_000
    for sent, outcome in zip(messages, outcomes, strict=True):
        assert_storable(outcome, sent)
    assert 200 < sum(isinstance(outcome, Rejection) for outcome in outcomes) < 1_800


def test_the_same_seed_gives_the_same_different_payloads() -> None:
    assert hostile_payloads(300, seed=5) == hostile_payloads(300, seed=5)
    assert len(set(hostile_payloads(1_000, seed=6))) == 1_000


@pytest.mark.parametrize(
    "payload",
    [
        b'{"data":[' + b'{"name":"a","value":1},' * 40_000 + b'{"name":"a","value":1}]}',
        b"[" + b"{}," * 340_000 + b"{}]",
        b"[" * 1_000_000,
        b"[" + b"[]," * 340_000 + b"[]]",
        b"1" * 1_000_000 + b".5",
        b'{"a":' + b"1" * 1_000_000 + b"}",
        b'{"a":1' + b"0" * 1_000_000 + b".5}",
        b'{"a":[' + b"1," * 500_000 + b"1]}",
        b"{" + b",".join(b'"%d.lat":1,"%d.lon":1' % (i, i) for i in range(4_900)) + b"}",
        b'{"a":"' + b"\\ud800" * 170_000 + b'"}',
        b" " * 1_000_000 + b"{",
        b'"' + b"\\" * 999_999 + b'"',
    ],
    ids=lambda payload: str(payload[:24]),
)
def test_a_megabyte_takes_no_time_worth_speaking_of(payload: bytes) -> None:
    sent = message(payload)
    started = perf_counter()
    assert_storable(shared.read(sent), sent)
    assert perf_counter() - started < 3  # a tenth of it on a quiet machine


def test_a_payload_over_the_limit_is_not_even_opened() -> None:
    outcome = shared.read(message(oversize(random.Random(2))))
    assert isinstance(outcome, Rejection)
    assert "payload_bytes" in outcome.reason
