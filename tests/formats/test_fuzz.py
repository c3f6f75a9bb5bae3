"""Messages that are nearly right crash no reader, hang none, and give what can be stored."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.formats import Formats
from tests.formats.fuzz import fuzz
from tests.formats.messages import message
from tests.formats.mutations import ODD, families, mutant, seeds, vocabulary
from tests.formats.storable import assert_storable

SHARES = 10
"""Parts of the whole that run beside each other."""

TOGETHER = 100_000


@pytest.mark.parametrize("share", range(SHARES))
def test_mutants_of_the_golden_cases_are_read_or_rejected(share: int) -> None:
    report = fuzz(TOGETHER // SHARES, seed=share)
    assert report.faults == []
    assert report.events > report.messages // 4  # or the mutants would be noise


@pytest.mark.parametrize("family", families())
def test_any_json_with_a_familys_words_is_read_or_rejected(family: str) -> None:
    """Hypothesis looks for what breaks, and shrinks it."""
    topics = sorted({sent.topic for known, sent in seeds() if known == family})
    words = st.sampled_from(vocabulary(family))
    leaves: st.SearchStrategy[Any] = st.sampled_from(ODD) | st.integers() | st.floats() | st.text(max_size=20) | words
    nodes = st.recursive(
        leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words, inner, max_size=6), max_leaves=12
    )
    formats = Formats()

    @settings(max_examples=60, deadline=None)
    @given(st.sampled_from(topics), st.dictionaries(words, nodes, max_size=8) | st.lists(nodes, max_size=4))
    def reads(topic: str, document: Any) -> None:
        sent = message(json.dumps(document).encode(), topic)
        assert_storable(formats.read(sent), sent)

    reads()


@given(st.sampled_from(seeds()), st.binary(max_size=60), st.integers(0, 400), st.integers(0, 40))
@settings(max_examples=500, deadline=None)
def test_a_payload_with_strange_bytes_in_it_is_read_or_rejected(
    seed: tuple[str, Any], put: bytes, at: int, drop: int
) -> None:
    payload = seed[1].payload
    sent = message(payload[:at] + put + payload[at + drop :], seed[1].topic, seed[1].properties)
    assert_storable(Formats().read(sent), sent)


def test_the_same_seed_makes_the_same_mutants() -> None:
    one, other = random.Random(3), random.Random(3)
    among = seeds()
    assert [mutant(one, among[0][1], among) for _ in range(50)] == [
        mutant(other, among[0][1], among) for _ in range(50)
    ]
