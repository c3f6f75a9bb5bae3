"""Claims about asking for messages with what became of them: exactly those that a scan in plain Python finds."""

from __future__ import annotations

from itertools import chain

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage import outcomes
from storage.event import Event, Outcome, PendingReread, Rejection, Reread
from storage.filters import topic_matcher, topic_pattern
from storage.history import Filters, Reader, StoredOutcome
from tests.storage.histories import NOON, History, message
from tests.storage.test_history import FILTERS, drop_oldest, matches, under

FORMATS = ("json", "senml", "none", "")


def told(history: History) -> list[StoredOutcome]:
    """Every message of a history with what became of it."""
    events: dict[int, list[object]] = {}
    for event in history.events:
        events.setdefault(event.message_id, []).append(event)
    return [
        StoredOutcome(id, history.messages[id - 1], events.get(id, []), one if isinstance(one, Rejection) else None)  # type: ignore[arg-type]
        for id, one in history.outcomes.items()
    ]


@settings(max_examples=250, deadline=None)
@given(
    filters=FILTERS,
    formats=st.lists(st.sampled_from(FORMATS), max_size=2),
    rejected_only=st.booleans(),
    limit=st.none() | st.integers(0, 40),
    after=st.just(0) | st.integers(0, 800),
    up_to=st.none() | st.integers(0, 900),
    scanned_events=st.sampled_from((3, 150, 32_768)),
)
def test_every_question_finds_what_a_scan_finds(
    *,
    history: History,
    filters: Filters,
    formats: list[str],
    rejected_only: bool,
    limit: int | None,
    after: int,
    up_to: int | None,
    scanned_events: int,
) -> None:
    expected = [
        one
        for one in told(history)
        if after < one.message_id <= (up_to if up_to is not None else 10**6)
        and (one.rejection is not None or not rejected_only)
        and wanted(one, filters, formats)
    ][:limit]
    with Reader(history.path, scanned_events=scanned_events) as reader:
        pages = reader.outcomes(
            filters, after_message=after, up_to_message=up_to, formats=formats, rejected_only=rejected_only, limit=limit
        )
        assert list(chain(*pages)) == expected


def wanted(one: StoredOutcome, filters: Filters, formats: list[str]) -> bool:
    if filters.topics and not any(under(one.message.topic, topic) for topic in filters.topics):
        return False
    of_message = Filters(since=filters.since, until=filters.until) if filters.clock == "received" else Filters()
    at = one.message.received_at
    if (of_message.since is not None and at < of_message.since) or (
        of_message.until is not None and at >= of_message.until
    ):
        return False
    of_events = Filters(
        devices=filters.devices,
        kinds=filters.kinds,
        readings=filters.readings,
        since=filters.since if filters.clock == "observed" else None,
        until=filters.until if filters.clock == "observed" else None,
        clock="observed",
    )
    rejected = one.rejection is not None and one.rejection.format in formats
    if of_events == Filters(clock="observed"):
        return not formats or rejected or any(event.format in formats for event in one.events)
    return any(matches(event, of_events) and (not formats or event.format in formats) for event in one.events)


def test_one_message_comes_with_what_became_of_it(history: History) -> None:
    with Reader(history.path) as reader:
        for one in told(history)[::40]:
            assert reader.message(one.message_id) == one
        assert reader.message(0) is None
        assert reader.message(10_000) is None


def test_pages_are_bounded_in_bytes_and_events(new_history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outcomes, "PAGE_BYTES", 10_000)
    many = [Event("d", "state", "json", NOON, {"n": n}) for n in range(15)]
    sorts: list[tuple[int, Outcome]] = [(4_000, []), (30_000, []), (10, many), (10, many), (10, []), (9_000, [])]
    new_history.append([(message("t", b"x" * size), outcome) for size, outcome in sorts])
    with Reader(new_history.path) as reader:
        pages = list(reader.outcomes())
    assert [[one.message_id for one in page] for page in pages] == [[1], [2], [3], [4, 5], [6]]
    assert [len(one.events) for one in chain(*pages)] == [0, 0, 15, 15, 0, 0]


def test_dropped_messages_are_passed_over(new_history: History) -> None:
    for _ in range(6):
        new_history.append([(message(), Rejection("empty")) for _ in range(100)])
    drop_oldest(new_history.path, 1)
    with Reader(new_history.path) as reader:
        for rejected_only in (False, True):
            found = chain(*reader.outcomes(rejected_only=rejected_only))
            assert [one.message_id for one in found] == list(range(201, 601))
        assert reader.message(200) is None


def test_a_reread_means_the_rejections_of_its_format_and_the_latest_messages(new_history: History) -> None:
    def sort(n: int) -> Outcome:
        return [Event("d", "state", "json", NOON, {})] if n % 3 == 0 else Rejection("no", ("a", "b")[n % 2])

    new_history.append([(message(("t/1", "u")[n // 2 % 2]), sort(n)) for n in range(1, 301)])
    pending = PendingReread(1, Reread("a", ("t/#",), recent_messages=50), up_to_message_id=250)
    expected = [
        n
        for n in range(1, 251)
        if new_history.messages[n - 1].topic == "t/1" and (n > 200 or new_history.outcomes[n] == Rejection("no", "a"))
    ]
    with Reader(new_history.path) as reader:
        assert [one.message_id for one in chain(*reader.to_reread(pending))] == expected


def test_a_reread_may_mean_thousands_of_topic_filters(new_history: History) -> None:
    """Of one batch that taught of a thousand devices each; SQLite takes no question with so many parts."""
    new_history.append([(message(f"site/{n}/x/y"), Rejection("no birth yet", "toy")) for n in range(30)])
    wild = tuple(f"site/{n}/#" for n in range(10, 3_000))
    with Reader(new_history.path) as reader:
        pending = PendingReread(1, Reread("toy", wild, recent_messages=5), 30)
        found = [one.message_id for page in reader.to_reread(pending) for one in page]
    assert found == list(range(11, 31))


@given(
    filters=st.lists(st.lists(st.sampled_from(["", "a", "b", "+", "$S"]), min_size=1, max_size=4), max_size=5),
    onwards=st.booleans(),
    topic=st.lists(st.sampled_from(["", "a", "b", "$S"]), min_size=1, max_size=5).map("/".join),
)
def test_many_filters_match_what_each_matches(*, filters: list[list[str]], onwards: bool, topic: str) -> None:
    wild = [text for levels in filters if (text := "/".join([*levels, "#"] if onwards else levels))]
    assert topic_matcher(wild)(topic) == any(topic_pattern(one).fullmatch(topic) for one in wild)
