"""The tree finds exactly the filters that take a topic, each as if it were tried by itself."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.formats.families import SPECIFIC
from gateway.formats.topic_tree import TopicTree
from gateway.formats.topics import takes
from tests.formats.mutations import seeds

level = st.sampled_from(["", "a", "b", "abc", "$s"])
topic_levels = st.lists(level, min_size=1, max_size=5)
middle = st.lists(level | st.sampled_from(["+", "a*", "ab*", "*"]), min_size=1, max_size=4)
filters = st.builds(
    lambda first, levels, last: [*first, *levels, *last],
    st.sampled_from([[], ["#"]]),
    middle,
    st.sampled_from([[], ["#"]]),
) | st.just(["#"])


@given(st.lists(filters, max_size=12), topic_levels)
def test_the_tree_finds_what_trying_each_filter_finds(wanted: list[list[str]], levels: list[str]) -> None:
    tree = TopicTree[int]()
    for number, one in enumerate(wanted):
        tree.add(one, number)
    assert set(tree.find(levels)) == {number for number, one in enumerate(wanted) if takes(one, levels)}


def test_the_tree_of_all_formats_finds_what_trying_each_filter_finds() -> None:
    all_filters = [(text.split("/"), row) for row in SPECIFIC for text in row.topics]
    tree = TopicTree[str]()
    for wanted, row in all_filters:
        tree.add(wanted, row.name)
    for topic in {sent.topic for _, sent in seeds() if len(sent.topic) < 1_000}:
        levels = topic.split("/")
        assert set(tree.find(levels)) == {row.name for wanted, row in all_filters if takes(wanted, levels)}, topic
