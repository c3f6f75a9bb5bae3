"""`verify` tells what is lost, repeated, reordered and wrongly rejected, and nothing else."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest

from devices.errors import DeviceError
from devices.ledger import Record
from gateway.proving.books import BooksError
from gateway.proving.showing import sum_line
from gateway.proving.verdict import Promise, Row, Verdict
from gateway.proving.verify import verify
from storage.event import Detail, Message, Outcome
from storage.retention import prune
from storage.retention.ages import RetentionOptions, RetentionRule
from storage.store import Store, StoreOptions
from tests.proving.ledgers import START, TOPIC, answered, make_store, sent, stored, us, write_ledger

Entries = Sequence[tuple[Message, Outcome]]
Hold = Callable[..., Verdict]


@pytest.fixture
def hold(tmp_path: Path) -> Hold:
    """Hold lines of a ledger against messages of a store."""

    def hold(records: Iterable[Record], entries: Entries, **options: Any) -> Verdict:
        ledger = write_ledger(tmp_path / "ledger.jsonl", records)
        return verify([ledger], make_store(tmp_path / "amber.db", entries), **options)

    return hold


def exchange(seq: int, **options: Any) -> list[Record]:
    """A message that is sent and acknowledged."""
    return [sent(seq, **options), answered(seq)]


def counts(verdict: Verdict) -> dict[str, int]:
    """What is not zero of what may be wrong."""
    totals = verdict.totals
    found = {
        name: getattr(totals, name)
        for name in ("lost", "repeated", "reordered", "gone", "misread", "rejected_unexpected")
    }
    found |= {"unknown_rejections": verdict.unknown_rejections, "unrecorded": verdict.unrecorded}
    return {name: count for name, count in found.items() if count}


def test_all_that_was_acknowledged_and_stored_once_keeps_the_promise(hold: Hold) -> None:
    verdict = hold([*exchange(0), *exchange(1)], [stored(0), stored(1)])
    assert verdict.holds()
    assert counts(verdict) == {}
    assert (verdict.totals.sent, verdict.totals.acknowledged, verdict.totals.stored) == (2, 2, 2)


def test_a_removed_and_a_doubled_message_are_found_and_named(tmp_path: Path) -> None:
    ledger = write_ledger(tmp_path / "ledger.jsonl", [record for seq in range(5) for record in exchange(seq)])
    store = make_store(tmp_path / "amber.db", [stored(seq) for seq in range(5)])
    with sqlite3.connect(store) as connection:
        connection.execute("DELETE FROM messages_1 WHERE id = 2")
        connection.execute(
            "INSERT INTO messages_1 SELECT 6, topic_id, received_at, qos, retain, session_id, packet_id, properties,"
            " payload FROM messages_1 WHERE id = 4"
        )
    connection.close()
    verdict = verify([ledger], store)
    assert verdict.broken() == ["1 lost", "1 repeated"]
    ((lost,), (repeated,)) = verdict.lost, verdict.repeated
    assert (lost.device, lost.boot, lost.seq, lost.topic, lost.count) == ("thermo-0001", "5f3a", 1, TOPIC, 1)
    assert (lost.sent_at, lost.acked_at) == ("2026-11-18T11:06:41.000000Z", "2026-11-18T11:06:41.100000Z")
    assert repeated.seq == 3


@pytest.mark.parametrize(
    ("records", "by_puback", "by_receipt", "lost"),
    [
        ([sent(qos=1)], 0, 0, 0),
        ([sent(qos=1), answered()], 1, 0, 1),
        ([sent(qos=2), answered()], 1, 0, 1),
        ([sent(qos=1), answered(state="receipted")], 0, 1, 1),
        ([sent(qos=1), answered(), answered(state="receipted")], 1, 1, 1),
        ([sent(qos=0)], 0, 0, 0),
    ],
)
def test_only_what_was_promised_can_be_lost(
    hold: Hold, records: list[Record], by_puback: int, by_receipt: int, lost: int
) -> None:
    verdict = hold([*records, sent(9)], [stored(9)])
    totals = verdict.totals
    assert (totals.lost_by_puback, totals.lost_by_receipt, totals.lost) == (by_puback, by_receipt, lost)
    answers: dict[Promise, bool] = {"puback": by_puback == 0, "receipt": by_receipt == 0, "both": lost == 0}
    assert {promise: verdict.holds(promise) for promise in answers} == answers


def test_an_identified_message_is_stored_once_whatever_happened(hold: Hold) -> None:
    """Sent three times, and once more on purpose: two in the store are one too many."""
    records = [sent(identified=True), sent(identified=True, at=1), sent(identified=True, at=2), answered()]
    records += [sent(identified=True, copy=1, at=3), answered(copy=1)]
    once = hold(records, [stored()])
    assert once.holds()
    assert (once.totals.sent, once.totals.publications, once.totals.duplicates) == (2, 4, 1)
    assert hold(records, [stored(at=1)]).totals.repeated == 1  # the store has one more of it now


def test_an_identified_message_and_its_duplicates_are_lost_once(hold: Hold) -> None:
    records = [sent(identified=True), answered(), sent(identified=True, copy=1), answered(copy=1), sent(9)]
    assert hold(records, [stored(9)]).totals.lost == 1


def test_what_is_stored_is_told_as_what_was_sent_less_and_more(hold: Hold) -> None:
    """Three copies of one message, one sent twice, one lost, one that nobody promised, one that is there twice."""
    records = [record for copy in range(3) for record in (sent(identified=True, copy=copy), answered(copy=copy))]
    records += [*exchange(1), *exchange(1, at=5), *exchange(2), sent(3), *exchange(4)]
    verdict = hold(records, [stored(), stored(1), stored(1, at=5), stored(4), stored(4, at=6)])
    terms = "− 2 copies that the store needs once − 1 lost − 1 never promised and not there"
    assert sum_line(verdict.totals) == f"stored 5 = 7 sent {terms} + 1 sent again without identity + 1 repeated"


@pytest.mark.parametrize("totals", [Row("all"), Row("all", sent=2, stored=2), Row("all", sent=2, stored=1)])
def test_a_sum_that_is_plain_or_does_not_add_up_is_left_out(totals: Row) -> None:
    assert sum_line(totals) == ""


def test_a_message_without_identity_may_be_stored_as_often_as_it_was_sent(hold: Hold) -> None:
    records = [sent(), sent(at=1), answered()]
    assert hold(records, [stored(), stored(at=1)]).holds()
    assert hold(records, [stored(at=2)]).totals.repeated == 1


def test_messages_that_are_alike_are_counted(hold: Hold) -> None:
    """A switch says "ON" four times, the last time without an answer; two are stored: one of them is lost."""
    records = [record for seq in range(3) for record in exchange(seq, payload=b"ON")] + [sent(3, payload=b"ON")]
    verdict = hold(records, [stored(payload=b"ON"), stored(payload=b"ON")])
    assert counts(verdict) == {"lost": 1}
    (lost,) = verdict.lost
    assert (lost.count, lost.alike, lost.acked_at is not None) == (1, 4, True)
    assert hold(records, [stored(payload=b"ON")] * 3).totals.repeated == 1


def test_another_payload_under_the_same_identity_is_to_be_kept(hold: Hold) -> None:
    records = [*exchange(0, identified=True), sent(0, copy=1, payload=b"other", identified=True, faults=("conflict",))]
    records.append(answered(0, copy=1))
    assert hold(records, [stored()]).totals.lost == 1
    verdict = hold(records, [stored(payload=b"other", detail=Detail(conflict=True))])
    assert counts(verdict) == {}
    assert (verdict.conflicts, verdict.conflicts_marked) == (1, 1)


def test_what_is_stored_after_a_later_message_of_its_device_is_reordered(hold: Hold) -> None:
    records = [record for seq in range(4) for record in exchange(seq)]
    records += [sent(4, at=0.5, device="meter-0001", topic="m"), sent(5, at=0, device="meter-0001", topic="m", qos=0)]
    verdict = hold(records, [stored(2), stored(0), stored(3), stored(1), stored(4, topic="m"), stored(5, topic="m")])
    assert counts(verdict) == {"reordered": 2}
    assert verdict.holds()


def test_a_message_sent_again_counts_from_its_first_time(hold: Hold) -> None:
    records = [sent(0), sent(1), sent(0, at=2), answered(0), answered(1)]
    assert hold(records, [stored(1), stored(0)]).totals.reordered == 1


@pytest.mark.parametrize(
    ("expect", "rejected", "found"),
    [
        ("event", None, {}),
        ("event", "no format reads it", {"rejected_unexpected": 1}),
        ("rejection", "no format reads it", {}),
        ("rejection", None, {"misread": 1}),
        ("any", "no format reads it", {}),
        ("any", None, {}),
    ],
)
def test_what_becomes_of_a_message_is_what_was_to_become_of_it(
    hold: Hold, expect: Any, rejected: str | None, found: dict[str, int]
) -> None:
    verdict = hold(exchange(0, expect=expect), [stored(rejected=rejected)])
    assert counts(verdict) == found
    assert verdict.holds() == (not found)
    assert [one.reason for one in verdict.refused] == (["no format reads it"] if "rejected_unexpected" in found else [])
    assert [one.message_id for one in verdict.misread] == ([1] if "misread" in found else [])


@pytest.mark.parametrize("topic", [TOPIC, "somewhere/else"])
def test_a_rejection_that_the_ledger_does_not_know_breaks_the_promise(hold: Hold, topic: str) -> None:
    verdict = hold([*exchange(0), *exchange(5)], [stored(0), stored(3, topic=topic, rejected="bad"), stored(5)])
    assert counts(verdict) == {"unknown_rejections": 1}
    (refused,) = verdict.refused
    assert (refused.message_id, refused.topic, refused.reason, refused.in_ledger) == (2, topic, "bad", False)
    assert not verdict.holds()


def test_what_others_sent_before_and_after_is_no_concern(hold: Hold) -> None:
    others = [stored(-20, rejected="bad"), stored(60, rejected="bad"), stored(-20, payload=b"x"), stored(60)]
    verdict = hold(exchange(0), [stored(0), *others])
    assert counts(verdict) == {}


def test_what_was_sent_in_the_moment_of_a_kill_is_shown_and_no_failure(hold: Hold) -> None:
    """Only on topics of the ledger: births, wills and all that others say are no concern."""
    status = stored(1, topic="devices/thermo-0001/status")
    verdict = hold([*exchange(0), *exchange(5)], [stored(0), stored(3), stored(5), status])
    assert counts(verdict) == {"unrecorded": 1}
    assert verdict.holds()


def test_a_message_that_arrived_long_after_is_not_lost(hold: Hold) -> None:
    """The gateway was away for a day. What then comes again is another run's, and no repeat."""
    day = 86_400
    verdict = hold([*exchange(0), *exchange(1)], [stored(0), stored(1, at=day), stored(1, at=day + 1)])
    assert counts(verdict) == {}
    assert verdict.totals.stored == 2


def test_retention_is_not_loss(tmp_path: Path) -> None:
    """Of twenty messages the store keeps the last; one is gone from its end, and that is a loss."""
    ledger = write_ledger(tmp_path / "ledger.jsonl", [record for seq in range(20) for record in exchange(seq)])
    path = tmp_path / "amber.db"
    store = Store(path, StoreOptions(free_floor_bytes=0, segment_events=5))
    for seq in range(19):
        store.append([stored(seq)], 1)
    store.close()
    assert verify([ledger], path).totals.lost == 1
    age_us = 1_000 * 1_000_000
    report = prune(path, RetentionOptions(max_age_us=age_us, past_consumers=True), dry_run=False)
    assert report.dropped.messages
    verdict = verify([ledger], path)
    assert (verdict.totals.gone, verdict.totals.lost) == (verdict.totals.sent - verdict.totals.stored - 1, 1)
    assert verdict.whole_since is not None


def test_messages_that_retention_took_out_singly_are_not_lost(tmp_path: Path) -> None:
    """On one topic nothing is kept: what was sent before the last that went may have gone too, what came later not."""
    records = [record for seq in range(4) for record in exchange(seq)]
    records += [sent(2, at=2, device="door-0001", topic="door"), answered(2, device="door-0001")]
    ledger = write_ledger(tmp_path / "ledger.jsonl", records)
    path = make_store(tmp_path / "amber.db", [stored(0), stored(2, at=2.01, topic="door"), stored(2, at=2.05)])
    assert verify([ledger], path).totals.lost == 2
    rule = RetentionRule(topic="door", max_age_us=1_000_000)
    prune(path, RetentionOptions(rules=(rule,), past_consumers=True), dry_run=False)
    verdict = verify([ledger], path)
    assert (verdict.totals.gone, verdict.totals.lost) == (2, 1)
    assert [lost.seq for lost in verdict.lost] == [3]


def test_an_answer_to_what_the_ledger_does_not_have_is_told(hold: Hold) -> None:
    verdict = hold([*exchange(0), answered(7)], [stored(0)])
    assert (verdict.unsent, verdict.holds()) == (1, True)


def test_two_contents_under_one_name_are_refused(hold: Hold) -> None:
    with pytest.raises(BooksError, match="two contents for message 0 of thermo-0001, boot 5f3a"):
        hold([sent(0), sent(0, payload=b"other")], [stored(0)])


@pytest.mark.parametrize("at", ["2026-02-30T00:00:00.000000Z", "x" * 27])
def test_a_time_that_there_is_not_is_refused(hold: Hold, at: str) -> None:
    record = Record("thermo-0001", "5f3a", 0, "acked", at)
    with pytest.raises(DeviceError, match="is not a line of a ledger"):
        hold([*exchange(0), record], [stored(0)])


def test_rows_are_by_qos_device_or_fault(tmp_path: Path) -> None:
    records = [*exchange(0), sent(1, qos=0, faults=("late", "copied")), sent(2, device="meter-10", qos=2)]
    records += [sent(3, device="meter-9", qos=2, faults=("late",))]
    ledger = write_ledger(tmp_path / "ledger.jsonl", records)
    store = make_store(tmp_path / "amber.db", [stored(0), stored(1), stored(3)])
    rows = {
        by: {row.of: (row.sent, row.stored) for row in verify([ledger], store, by=by).rows}
        for by in ("qos", "device", "fault", "none")
    }
    assert rows == {
        "qos": {"QoS 0": (1, 1), "QoS 1": (1, 1), "QoS 2": (2, 1)},
        "device": {"meter-9": (1, 1), "meter-10": (1, 0), "thermo-0001": (2, 2)},
        "fault": {"copied": (1, 1), "late": (2, 2), "no fault": (2, 1)},
        "none": {},
    }
    assert list(rows["device"]) == ["meter-9", "meter-10", "thermo-0001"]


def test_several_ledgers_are_one(tmp_path: Path) -> None:
    """An answer may stand in another file than the message; a file given twice is read once."""
    write_ledger(tmp_path / "ledger-1.jsonl", [sent(0), sent(1), answered(1)])
    write_ledger(tmp_path / "ledger-2.jsonl", [answered(0)])
    tmp_path.joinpath("marks.jsonl").write_text('{"at": "2026-11-22T09:00:00Z", "what": "kill gateway"}\n')
    store = make_store(tmp_path / "amber.db", [stored(1)])
    for places in ([tmp_path], [tmp_path / "ledger-*.jsonl"], [tmp_path, tmp_path / "ledger-1.jsonl"]):
        verdict = verify(places, store)
        assert (verdict.totals.sent, verdict.totals.publications, verdict.totals.lost) == (2, 2, 1)


def test_an_empty_ledger_promises_nothing(hold: Hold) -> None:
    verdict = hold([], [stored(0, rejected="bad")])
    assert (verdict.totals.sent, verdict.holds(), verdict.timeline) == (0, True, ())


def test_it_waits_for_what_is_still_on_its_way(tmp_path: Path) -> None:
    ledger = write_ledger(tmp_path / "ledger.jsonl", [*exchange(0), *exchange(1)])
    path = make_store(tmp_path / "amber.db", [stored(0)])
    assert not verify([ledger], path).holds()
    verdicts = list[Verdict]()
    waiting = threading.Thread(target=lambda: verdicts.append(verify([ledger], path, wait_s=30)))
    waiting.start()
    make_store(path, [stored(1)])
    waiting.join()
    assert verdicts[0].holds()


def test_the_timeline_tells_when_what_is_lost_was_sent(hold: Hold) -> None:
    records = [record for seq in (0, 1, 7) for record in exchange(seq)] + [sent(8, at=7.5)]
    verdict = hold(records, [stored(0), stored(1), stored(8), stored(8), stored(1)])
    assert verdict.step_s == 1
    assert [(moment.sent, moment.lost, moment.repeated) for moment in verdict.timeline] == [
        (1, 0, 0), (1, 0, 1), (2, 1, 1),
    ]  # fmt: skip
    assert us(0) == START


def test_what_is_stored_counts_in_the_row_of_what_was_sent(hold: Hold) -> None:
    """A device says one and the same with a fault and without: each row has its share of what is stored."""
    records = [record for seq in range(3) for record in exchange(seq, payload=b"gone", faults=("death",))]
    records += [record for seq in range(3, 5) for record in exchange(seq, payload=b"gone")]
    rows = hold(records, [stored(seq, payload=b"gone") for seq in range(5)], by="fault").rows
    assert {row.of: (row.sent, row.stored, row.repeated) for row in rows} == {"death": (3, 3, 0), "no fault": (2, 2, 0)}


def test_an_answer_long_after_its_message_belongs_to_it(hold: Hold, monkeypatch: pytest.MonkeyPatch) -> None:
    """However few messages are held in memory, lines that lie apart come together."""
    monkeypatch.setattr("gateway.proving.books.HELD_MESSAGES", 0)
    monkeypatch.setattr("devices.ledger.PAGE_BYTES", 1)
    records = [sent(seq) for seq in range(9)] + [answered(seq) for seq in range(9)] + [sent(1, at=20)]
    verdict = hold(records, [stored(seq) for seq in range(8)])
    assert (verdict.totals.sent, verdict.totals.publications, verdict.totals.acknowledged) == (9, 10, 9)
    assert [lost.seq for lost in verdict.lost] == [8]
    with pytest.raises(BooksError, match="two contents for message 2"):
        hold([*records, sent(2, payload=b"other")], [])
