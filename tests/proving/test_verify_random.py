"""Whatever a ledger and a store hold, `verify` counts as a reader of both would who keeps everything in memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from devices.ledger import Record
from gateway.proving.showing import sum_line
from gateway.proving.verdict import Row
from gateway.proving.verify import verify
from storage.store import Store, StoreOptions
from tests.proving.ledgers import answered, sent, stored, write_ledger

Ledger = Sequence["Sending"]
Stored = Sequence[tuple[int, bool]]

IDENTIFIED = {0, 1, 2}
EXPECT = {0: "event", 1: "event", 2: "rejection", 3: "event", 4: "any"}
"""By content. What comes beyond is in no ledger."""


class Sending(tuple[str, int, int, int, bool, bool]):
    """Device, content, QoS, how often it was sent, whether it was acknowledged and receipted."""

    __slots__ = ()


messages = st.lists(
    st.tuples(
        st.sampled_from(["a", "b"]),
        st.integers(0, 4),
        st.integers(0, 2),
        st.integers(1, 3),
        st.booleans(),
        st.booleans(),
    ).map(Sending),
    min_size=1,
    max_size=8,
)
holdings = st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=10)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """One for all examples, each of which has an hour of it, and a topic."""
    store = Store(tmp_path_factory.mktemp("random") / "amber.db", StoreOptions(free_floor_bytes=0))
    yield store
    store.close()


HOURS = count(1)


@given(ledger=messages, kept=holdings)
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_it_counts_as_a_plain_reader_does(store: Store, tmp_path: Path, ledger: Ledger, kept: Stored) -> None:
    hour = next(HOURS)
    path = write_ledger(tmp_path / "ledger.jsonl", lines(ledger, hour))
    first_id = store.message_id
    entries = [
        stored(0, at=hour * 3_600 + 0.5, topic=f"t/{hour}", payload=b"%d" % content, rejected="bad" if bad else None)
        for content, bad in kept
    ]
    if entries:
        store.append(entries, 1)
    else:  # a store must have begun
        store.append([stored(0, at=0)], 1)
    verdict = verify([path], store.path)
    expected, unrecorded, unknown = reckon(ledger, kept)
    totals = verdict.totals
    assert {name: getattr(totals, name) for name in expected} == expected
    assert (verdict.unrecorded, verdict.unknown_rejections) == (unrecorded, unknown)
    assert (totals.stored == totals.sent) or sum_line(totals)
    sums = Row("all")
    for row in verdict.rows:
        sums.add(row)
    assert sums == totals
    assert verdict.holds() == (
        not any((totals.lost, totals.repeated, totals.rejected_unexpected, totals.misread, unknown))
    )
    assert sum(moment.lost for moment in verdict.timeline) == totals.lost
    assert sum(moment.repeated for moment in verdict.timeline) == totals.repeated
    assert store.message_id - first_id == max(1, len(kept))


def lines(ledger: Ledger, hour: int) -> Iterator[Record]:
    """Each message is sent in a tenth of a second of its own."""
    for seq, (device, content, qos, times, acked, receipted) in enumerate(ledger):
        at = hour * 3_600 + seq / 10
        for again in range(times):
            yield sent(
                *(seq,),
                at=at + again,
                payload=b"%d" % content,
                device=device,
                qos=qos,
                topic=f"t/{hour}",
                identified=content in IDENTIFIED,
                expect=EXPECT[content],  # type: ignore[arg-type]
            )
        if acked:
            yield answered(seq, at=at + 5, device=device)
        if receipted:
            yield answered(seq, "receipted", at=at + 6, device=device)


def reckon(ledger: Ledger, kept: Stored) -> tuple[dict[str, int], int, int]:
    """Totals, unrecorded messages and unknown rejections, by the rules as they are told to people."""
    known = {content for _, content, *_ in ledger}
    copies = Counter(content for content, _ in kept if content in known)
    found: Counter[str] = Counter(sent=len(ledger), stored=sum(copies.values()))
    for content in known:
        mine = [one for one in ledger if one[1] == content]
        words = {
            "lost": [(acked and qos > 0) or receipted for _, _, qos, _, acked, receipted in mine],
            "lost_by_puback": [acked and qos > 0 for _, _, qos, _, acked, _ in mine],
            "lost_by_receipt": [receipted for *_, receipted in mine],
        }
        allowed = 1 if content in IDENTIFIED else sum(times for _, _, _, times, _, _ in mine)
        for name, given_word in words.items():
            due = min(1, sum(given_word)) if content in IDENTIFIED else sum(given_word)
            found[name] += max(0, due - copies[content])
        found["repeated"] += max(0, copies[content] - allowed)
        once = 1 if content in IDENTIFIED else len(mine)
        due = sum((acked and qos > 0) or receipted for _, _, qos, _, acked, receipted in mine)
        found["absent"] += max(0, once - max(copies[content], min(once, due)))
        found["again"] += max(0, min(copies[content], allowed) - once)
        found["publications"] += sum(times for _, _, _, times, _, _ in mine)
        found["acknowledged"] += sum(acked for *_, acked, _ in mine)
        found["receipted"] += sum(receipted for *_, receipted in mine)
        found["duplicates"] += len(mine) - 1 if content in IDENTIFIED else 0
        bad = sum(rejected for other, rejected in kept if other == content)
        found["rejected_unexpected"] += bad if EXPECT[content] == "event" else 0
        found["rejected_expected"] += 0 if EXPECT[content] == "event" else bad
        found["misread"] += copies[content] - bad if EXPECT[content] == "rejection" else 0
    found["reordered"] = reordered(ledger, kept)
    names = ("sent", "stored", "lost", "lost_by_puback", "lost_by_receipt", "repeated", "publications", "acknowledged",
             "receipted", "duplicates", "rejected_unexpected", "rejected_expected", "misread", "reordered",
             "absent", "again")  # fmt: skip
    unknown = [rejected for content, rejected in kept if content not in known]
    return {name: found[name] for name in names}, unknown.count(False), unknown.count(True)


def reordered(ledger: Ledger, kept: Stored) -> int:
    """Messages behind one of their device that was sent later; of QoS 1 and 2, and not where several are alike."""
    order = [content for content, _ in kept]
    placed = []
    for content in set(order):
        mine = [(seq, one[0]) for seq, one in enumerate(ledger) if one[1] == content and one[2] > 0]
        if mine and (content in IDENTIFIED or len(mine) == 1):
            placed.append((order.index(content), *mine[0]))
    return sum(
        any(place > before and seq < later and device == other for before, later, other in placed)
        for place, seq, device in placed
    )
