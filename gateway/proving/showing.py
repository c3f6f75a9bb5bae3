"""A verdict for people, as a table and sentences, and for programs, as JSON. Judges nothing."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

import msgspec

from gateway.proving.verdict import Named, Promise, Refused, Row, Verdict
from storage.render import View, plain_table, shown

WORDS = {"puback": "PUBACK", "receipt": "receipt", "both": "PUBACK or receipt"}


def print_verdict(verdict: Verdict, promise: Promise = "both") -> None:
    """The table, what there is to remark, and whether the promise holds, on standard output."""
    for text in verdict_lines(verdict, promise):
        sys.stdout.write(text)
    sys.stdout.flush()


def verdict_lines(verdict: Verdict, promise: Promise) -> Iterator[str]:
    rows = [*verdict.rows, *([verdict.totals] if len(verdict.rows) != 1 else [])]
    yield from plain_table(rows_view(), [rows])
    yield "\n"
    for remark in remarks(verdict, promise):
        yield f"{remark}\n"
    yield f"{closing(verdict, promise)}\n"
    yield from named_lines(verdict)


def verdict_json(verdict: Verdict, promise: Promise) -> str:
    """One object: the verdict's own fields, and what was asked and answered in front."""
    answer = {"holds": verdict.holds(promise), "promise": promise, "broken": list(verdict.broken(promise))}
    return msgspec.json.format(msgspec.json.encode(answer | msgspec.structs.asdict(verdict))).decode() + "\n"


def rows_view() -> View[Row]:
    columns = (
        *("of", "sent", "acknowledged", "receipted", "stored", "lost", "repeated", "reordered"),
        "rejected (expected/unexpected)",
    )
    return View(
        to_json=lambda rows: [msgspec.json.encode(row).decode() for row in rows],
        fields=Row.__struct_fields__,
        record=msgspec.structs.astuple,
        columns=("", *columns[1:]),
        cells=_cells,
    )


def closing(verdict: Verdict, promise: Promise) -> str:
    """Whether the promise holds, in one sentence."""
    broken = verdict.broken(promise)
    if broken:
        return f"BROKEN: {', '.join(broken)}"
    totals = verdict.totals
    counts = []
    if totals.acknowledged and promise != "receipt":
        counts.append(f"{totals.acknowledged:,} acknowledged")
    if totals.receipted and promise != "puback":
        counts.append(f"{totals.receipted:,} receipted")
    if not counts:
        return f"The promise holds: of {totals.sent:,} messages none was promised, and none is stored too often"
    given = " and ".join(counts)
    return f"The promise holds: of {totals.sent:,} messages, {given}, none is lost and none is stored too often"


def remarks(verdict: Verdict, promise: Promise) -> Iterator[str]:
    """What a person should know besides."""
    totals = verdict.totals
    if text := sum_line(totals):
        yield text
    if totals.lost:
        yield f"lost by PUBACK {totals.lost_by_puback:,} · lost by receipt {totals.lost_by_receipt:,}"
        if not verdict.lost_by(promise):
            yield f"what is lost was promised in another way than by {WORDS[promise]}: it does not count here"
    if totals.duplicates:
        yield f"{totals.duplicates:,} sent again on purpose, under the same identity: of each the store needs one"
    if verdict.conflicts:
        yield (
            f"{verdict.conflicts:,} sent with another payload under a known identity; "
            f"{verdict.conflicts_marked:,} stored as a conflict"
        )
    if verdict.unrecorded:
        yield f"{verdict.unrecorded:,} stored that the ledger does not know: births, or sent as a kill came"
    if verdict.unsent:
        yield f"{verdict.unsent:,} answered of which the ledger does not say what they were: they cannot be looked for"
    if verdict.whole_since is not None:
        yield f"retention has dropped messages: the store is whole since {verdict.whole_since}"
    if totals.gone:
        yield f"{totals.gone:,} promised messages are not there, and were sent before: they may have been stored once"


def sum_line(totals: Row) -> str:
    """How what is stored comes of what was sent; nothing where both are the same, or where it would not add up."""
    changes = [
        (-totals.duplicates, "copies that the store needs once"),
        (-totals.lost, "lost"),
        (-totals.gone, "that retention may have dropped"),
        (-totals.absent, "never promised and not there"),
        (totals.again, "sent again without identity"),
        (totals.repeated, "repeated"),
    ]
    if totals.stored == totals.sent or totals.stored != totals.sent + sum(count for count, _ in changes):
        return ""
    terms = (f" {'−' if count < 0 else '+'} {abs(count):,} {words}" for count, words in changes if count)
    return f"stored {totals.stored:,} = {totals.sent:,} sent{''.join(terms)}"


def named_lines(verdict: Verdict) -> Iterator[str]:
    """The first of each sort of fault."""
    if verdict.totals.lost:
        yield from _listed("lost", verdict.lost, verdict.totals.lost)
    if verdict.totals.repeated:
        yield from _listed("repeated", verdict.repeated, verdict.totals.repeated)
    refused = verdict.totals.rejected_unexpected + verdict.unknown_rejections
    if refused:
        yield from _refusals("rejected unexpectedly", verdict.refused, refused)
    if verdict.totals.misread:
        yield from _refusals("read that should have been rejected", verdict.misread, verdict.totals.misread)


def _cells(row: Row) -> Sequence[str]:
    numbers = row.sent, row.acknowledged, row.receipted, row.stored, row.lost, row.repeated, row.reordered
    rejected = f"{row.rejected_expected:,} / {row.rejected_unexpected:,}"
    return shown(row.of), *(f"{number:,}" for number in numbers), rejected


def _listed(what: str, named: Sequence[Named], count: int) -> Iterator[str]:
    yield f"\n{_first(what, len(named), count)}\n"
    columns = "device", "boot", "seq", "topic", "sent", "acknowledged", "receipted", "times"
    view: View[Named] = View(lambda _: [], columns, lambda _: (), columns, _named_cells)
    yield from plain_table(view, [named])


def _named_cells(one: Named) -> Sequence[str]:
    seq = f"{one.seq}" + (f"/{one.part}" if one.part else "") + (f" copy {one.copy}" if one.copy else "")
    times = f"{one.count}" + (f" of {one.alike} alike" if one.alike > 1 else "")
    return (
        *(shown(one.device), shown(one.boot), seq, shown(one.topic), one.sent_at),
        *(one.acked_at or "-", one.receipted_at or "-", times),
    )


def _refusals(what: str, refused: Sequence[Refused], count: int) -> Iterator[str]:
    yield f"\n{_first(what, len(refused), count)}\n"
    columns = "message", "topic", "received", "ledger", "reason"
    view: View[Refused] = View(lambda _: [], columns, lambda _: (), columns, _refused_cells)
    yield from plain_table(view, [refused])


def _refused_cells(one: Refused) -> Sequence[str]:
    known = "knows it" if one.in_ledger else "-"
    return str(one.message_id), shown(one.topic), one.received_at, known, shown(one.reason or "-")


def _first(what: str, shown: int, count: int) -> str:
    return f"{what}:" if shown >= count else f"{what}, the first {shown}:"
