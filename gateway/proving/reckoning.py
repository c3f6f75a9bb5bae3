"""What the books come to: rows of counts, the messages that something is wrong with, the timeline. Reads no ledger."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from functools import cache
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import msgspec

from devices.outgoing import Expect
from gateway.proving.books import EXPECTATIONS, Books
from gateway.proving.holdings import Span
from gateway.proving.judging import Part, judge
from gateway.proving.verdict import SAMPLES, By, Moment, Named, Promise, Refused, Row, Verdict
from storage.history import Reader
from storage.times import SECOND, iso

MOST_MOMENTS = 600
"""A picture has so many steps at most."""

STEPS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1_800, 3_600, 7_200, 21_600, 43_200, 86_400)

NO_FAULT = "no fault"

Case = tuple[tuple[Any, ...], ...]
"""All that there is to know of a content, by parts: who sent it, what was promised, how it is stored. Most contents
have the same case, and one judgement."""


class Tally:
    """Counts of all messages, and in rows."""

    def __init__(self, books: Books, by: By) -> None:
        self.by: By = by
        self.totals = Row("all")
        self.rows: dict[str, Row] = {}
        self._books = books

    def add(self, device: int, qos: int, faults: int, counts: Row) -> None:
        self.totals.add(counts)
        for name in self._names(device, qos, faults):
            row = self.rows.get(name)
            if row is None:
                row = self.rows[name] = Row(name)
            row.add(counts)

    def missing(self, promise: Promise) -> int:
        totals = self.totals
        return {"puback": totals.lost_by_puback, "receipt": totals.lost_by_receipt, "both": totals.lost}[promise]

    def sorted_rows(self) -> list[Row]:
        """As people count: thermo-2 before thermo-10."""
        return sorted(self.rows.values(), key=lambda row: (row.of == NO_FAULT, natural(row.of)))

    def _names(self, device: int, qos: int, faults: int) -> Sequence[str]:
        if self.by == "qos":
            return (f"QoS {qos}",)
        if self.by == "device":
            return (self._books.devices.texts[device],)
        if self.by == "fault":
            return faults_of(self._books.faults.texts[faults]) or (NO_FAULT,)
        return ()


def span(books: Books) -> Span:
    """The time of the ledgers."""
    first, last = books.rows(
        "SELECT min(first_sent), max(max(ifnull(first_sent, 0), ifnull(acked_at, 0), ifnull(receipted_at, 0)))"
        " FROM messages WHERE digest NOTNULL"
    )[0]
    return Span(first or 0, last or 0)


def judge_all(books: Books, whole_since: int | None, by: By) -> Tally:
    """Every content of the ledgers; what is broken is entered into the books."""
    books.run("DELETE FROM broken")
    judged = cache(_judged)
    columns = _columns(by)
    cases: Counter[Case] = Counter()
    # Most contents have one message. They are counted without a step of the interpreter for each.
    alone: Counter[tuple[Any, ...]] = Counter(books.each(_ALONE.format("", **columns), whole_since))
    for message, times in alone.items():
        cases[(message,)] += times
    if any(judged(case)[1:] != (0, 0) for case in cases):
        for named in books.each(_ALONE.format("m.digest, ", **columns), whole_since):
            _note_broken(books, named[0], judged((named[1:],)))
    for digest, group in groupby(books.each(_PARTS.format(**columns), whole_since), key=itemgetter(0)):
        case = tuple(row[1:] for row in group)
        cases[case] += 1
        _note_broken(books, digest, judged(case))
    tally = Tally(books, by)
    for case, times in cases.items():
        for (device, qos, faults, *_), row in zip(case, judged(case)[0], strict=True):
            tally.add(device, qos, faults, multiplied(row, times))
    return tally


def count_reordered(books: Books, tally: Tally) -> None:
    """Add the messages of a device that are stored after one which was first sent later.

    Where several have the same content nobody can know which was stored first: those are left out.
    """
    newest: dict[int, int] = {}
    behind: Counter[tuple[int, int, int]] = Counter()
    for device, qos, faults, first_sent in books.each(_IN_ORDER):
        if first_sent < newest.get(device, first_sent):
            behind[device, qos, faults] += 1
        else:
            newest[device] = first_sent
    for (device, qos, faults), count in behind.items():
        tally.add(device, qos, faults, Row("", reordered=count))


def verdict(
    books: Books, reader: Reader, tally: Tally, *, paths: Sequence[Path], span: Span, whole_since: int | None
) -> Verdict:
    totals, (step_s, timeline) = tally.totals, _timeline(books, span)
    unknown = f"rejected AND within AND NOT {_KNOWN}"
    unrecorded, unknown_rejections = books.rows(_UNKNOWN)[0]
    return Verdict(
        ledgers=tuple(map(str, paths)),
        store=str(reader.path),
        by=tally.by,
        first_sent_at=iso(span.first) if span.first else None,
        last_at=iso(span.last) if span.last else None,
        whole_since=None if whole_since is None else iso(whole_since),
        totals=totals,
        rows=tuple(tally.sorted_rows()),
        unrecorded=unrecorded,
        unknown_rejections=unknown_rejections
        + _number(books, f"SELECT count(*) FROM stored AS s WHERE NOT ours AND {unknown}"),
        unsent=_number(books, "SELECT count(*) FROM messages WHERE digest IS NULL"),
        conflicts=_conflicts(books),
        conflicts_marked=_number(books, "SELECT count(*) FROM stored WHERE conflict"),
        lost=_named(books, "lost"),
        repeated=_named(books, "repeated"),
        refused=_refused(books, reader, f"rejected AND (({unknown}) OR ({_all_expected('event')}))"),
        misread=_refused(books, reader, f"NOT rejected AND {_all_expected('rejection')}") if totals.misread else (),
        step_s=step_s,
        timeline=timeline,
    )


def faults_of(text: str) -> tuple[str, ...]:
    return tuple(msgspec.json.decode(text, type=list[str]))


def multiplied(row: Row, times: int) -> Row:
    of, *counts = msgspec.structs.astuple(row)
    return Row(of, *(count * times for count in counts))


def natural(text: str) -> list[tuple[int, str]]:
    return [(int(part) if part.isdecimal() and part.isascii() else -1, part) for part in re.split(r"(\d+)", text)]


def _judged(case: Case) -> tuple[list[Row], int, int]:
    """The judgement, and how many are lost and repeated in all."""
    parts = [
        Part(messages, publications, qos, identified == 1, acked == 1, receipted == 1, past == 1, EXPECTATIONS[expect])
        for _, qos, _, identified, expect, acked, receipted, past, messages, publications, *_ in case
    ]
    stored, late, rejected = case[0][-3:]
    rows = judge(parts, stored=stored, late=late, rejected=rejected)
    return rows, sum(row.lost for row in rows), sum(row.repeated for row in rows)


def _note_broken(books: Books, digest: int, judgement: tuple[list[Row], int, int]) -> None:
    _, lost, repeated = judgement
    if lost or repeated:
        books.run("INSERT INTO broken VALUES (?, ?, ?)", digest, lost, repeated)


def _columns(by: By) -> dict[str, str]:
    """What need not be told apart is not."""
    return {"device": "m.device" if by == "device" else "0", "faults": "m.faults" if by == "fault" else "0"}


def _named(books: Books, what: str) -> tuple[Named, ...]:
    """The first messages that are lost, or repeated, by the time they were sent at."""
    devices, boots, topics = books.devices.texts, books.boots.texts, books.topics.texts
    return tuple(
        Named(
            device=devices[device],
            boot=boots[boot],
            seq=seq,
            part=part,
            copy=copy,
            topic=topics[topic],
            qos=qos,
            sent_at=iso(sent_at),
            acked_at=None if acked_at is None else iso(acked_at),
            receipted_at=None if receipted_at is None else iso(receipted_at),
            count=count,
            alike=alike,
        )
        for device, boot, seq, part, copy, topic, qos, sent_at, acked_at, receipted_at, count, alike in books.each(
            f"SELECT device, boot, seq, part, copy, topic, qos, first_sent, acked_at, receipted_at, {what}, alike"
            f" FROM ({_NAMED}) WHERE {what} ORDER BY first_sent LIMIT {SAMPLES}"
        )
    )


def _refused(books: Books, reader: Reader, which: str) -> tuple[Refused, ...]:
    found = []
    rows = books.rows(f"SELECT id, {_KNOWN} FROM stored AS s WHERE {which} ORDER BY id LIMIT {SAMPLES}")
    for id, in_ledger in rows:
        outcome = reader.message(id)
        if outcome is not None:  # retention may have come by
            reason = outcome.rejection.reason if outcome.rejection else None
            at = iso(outcome.message.received_at)
            found.append(Refused(id, outcome.message.topic, at, reason, in_ledger == 1))
    return tuple(found)


def _conflicts(books: Books) -> int:
    numbers = [number for number, text in enumerate(books.faults.texts) if "conflict" in faults_of(text)]
    return _number(
        books,
        "SELECT count(*) FROM messages WHERE faults IN (SELECT value FROM json_each(?))",
        msgspec.json.encode(numbers).decode(),
    )


def _timeline(books: Books, span: Span) -> tuple[int, tuple[Moment, ...]]:
    """In steps of so many seconds; those in which nothing was sent are left out."""
    last = _number(books, "SELECT ifnull(max(first_sent), 0) FROM messages")
    seconds = (last - span.first) // SECOND + 1
    step_s = next((step for step in STEPS_S if seconds <= step * MOST_MOMENTS), STEPS_S[-1])
    step = step_s * SECOND
    broken = {
        number: counts
        for number, *counts in books.each(
            f"SELECT first_sent / {step}, sum(lost), sum(repeated) FROM ({_NAMED}) GROUP BY 1"
        )
    }
    sent = books.each(
        f"SELECT first_sent / {step}, count(*) FROM messages WHERE first_sent NOTNULL GROUP BY 1 ORDER BY 1"
    )
    return step_s, tuple(Moment(iso(at * step), count, *broken.get(at, (0, 0))) for at, count in sent)


def _number(books: Books, sql: str, *values: object) -> int:
    return int(books.rows(sql, *values)[0][0])


_CASE = """{device}, m.qos, {faults}, m.identified, m.expect, m.acked_at NOTNULL, m.receipted_at NOTNULL,
    ifnull(m.first_sent < ?, 0)"""
_STORED = "ifnull(c.stored, 0), ifnull(c.late, 0), ifnull(c.rejected, 0)"
_MESSAGES = "FROM messages AS m INDEXED BY by_digest LEFT JOIN contents AS c ON c.digest = m.digest"
_ALONE = f"""
SELECT {{}}{_CASE}, 1, m.sent, {_STORED} {_MESSAGES}
WHERE m.digest NOTNULL GROUP BY m.digest HAVING count(*) = 1
"""
_PARTS = f"""
SELECT m.digest, {_CASE}, count(*), sum(m.sent), {_STORED}
FROM (SELECT digest FROM messages WHERE digest NOTNULL GROUP BY digest HAVING count(*) > 1) AS several
CROSS JOIN messages AS m INDEXED BY by_digest ON m.digest = several.digest
LEFT JOIN contents AS c ON c.digest = m.digest
GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9 ORDER BY 1, 2, 3, 4, 5, 6, 7, 8, 9
"""
# Of messages with one content and one identity, the first that was sent stands for all. With min() the others are its.
_IN_ORDER = """
SELECT device, qos, faults, first_sent FROM (
    SELECT m.device, m.qos, m.faults, min(m.first_sent) AS first_sent, c.first_id
    FROM messages AS m INDEXED BY by_digest JOIN contents AS c ON c.digest = m.digest
    WHERE m.digest NOTNULL AND m.qos > 0 GROUP BY m.digest HAVING count(*) = 1 OR sum(NOT m.identified) = 0
) ORDER BY first_id
"""
_UNKNOWN = """
SELECT ifnull(sum(unrecorded), 0), ifnull(sum(unknown), 0) FROM contents AS c
WHERE (unrecorded OR unknown) AND NOT EXISTS (SELECT 1 FROM messages AS m WHERE m.digest = c.digest)
"""
# Of equal messages one stands for all: one that was promised, the last of them. With max() the other columns are its.
_NAMED = """
SELECT m.*, b.lost, b.repeated, count(*) AS alike,
    max(m.first_sent + (m.receipted_at NOTNULL OR (m.qos AND m.acked_at NOTNULL)) * (1 << 60))
FROM broken AS b CROSS JOIN messages AS m ON m.digest = b.digest GROUP BY b.digest
"""
_KNOWN = "EXISTS (SELECT 1 FROM messages AS m WHERE m.digest = s.digest)"


def _all_expected(expect: Expect) -> str:
    """Whether all messages of a content are to become the same."""
    other = f"m.digest = s.digest AND m.expect <> {EXPECTATIONS.index(expect)}"
    return f"{_KNOWN} AND NOT EXISTS (SELECT 1 FROM messages AS m WHERE {other})"
