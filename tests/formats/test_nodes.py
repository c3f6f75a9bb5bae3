"""What a format takes of a document is of the type it expects, or is not there."""

from __future__ import annotations

import pytest

from gateway.formats.body import Json
from gateway.formats.nodes import members, number, objects, text, unquoted

WORDS = ["00189440", "868M", "true", "1,5", "9" * 70]
OTHERS: list[Json] = [7, 1.5, True, None]


@pytest.mark.parametrize(
    ("node", "wanted"),
    [("12", 12), ("-4.5", -4.5), ("0.0", 0.0), ("", None), (" ", None), ("null", None), ("nan", None)]
    + [(word, word) for word in WORDS]
    + [(other, other) for other in OTHERS],
)
def test_a_quoted_number_is_one_and_other_texts_stay(node: Json, wanted: Json) -> None:
    assert unquoted(node) == wanted
    assert type(unquoted(node)) is type(wanted)


def test_what_is_of_another_type_is_not_there() -> None:
    assert members([1]) == {}
    assert objects({"a": 1}) == []
    assert objects([1, {"a": 1}]) == [{"a": 1}]
    assert text(" ") is None
    assert number("x") is None
    assert number(node=True) is None
