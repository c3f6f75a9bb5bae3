"""How often a content of the ledger may, and must, be in the store. Pure decisions; reads neither."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from gateway.proving.verdict import Row


class Part(msgspec.Struct, frozen=True, gc=False):
    """Messages of the ledger with the same content that do not differ in anything that counts.

    `past`: sent before the time from which on the store is whole, so that retention may have dropped them.
    """

    messages: int
    publications: int
    qos: int = 1
    identified: bool = False
    acked: bool = False
    receipted: bool = False
    past: bool = False
    expect: str = "event"

    @property
    def by_puback(self) -> bool:
        """Whether the broker promised them: at QoS 0 nothing is."""
        return self.acked and self.qos > 0

    @property
    def promised(self) -> bool:
        return self.by_puback or self.receipted


def judge(parts: Sequence[Part], *, stored: int, late: int, rejected: int) -> list[Row]:
    """What becomes of each part, the content being `stored` so often, `rejected` of them as rejections.

    Copies that came `late`, long after the ledger's time, can only make up for what is missing. Contents are counted:
    which of several equal messages was lost nobody can know, and it is said of those first that there is an excuse for.
    """
    wanted = sum(due(parts, "promised"))
    stored = max(stored, min(stored + late, wanted))
    rows = [_row(part) for part in parts]
    _share_out(rows, "lost", parts, due(parts, "promised"), stored)
    _share_out(rows, "lost_by_puback", parts, due(parts, "by_puback"), stored)
    _share_out(rows, "lost_by_receipt", parts, due(parts, "receipted"), stored)
    first = next((row for row, part in zip(rows, parts, strict=True) if part.identified), None)
    if first is not None:
        first.duplicates -= 1
    rows[0].repeated = max(0, stored - allowed(parts))
    each_once = sum(row.sent - row.duplicates for row in rows)
    rows[0].absent = max(0, each_once - stored) - sum(row.lost + row.gone for row in rows)
    rows[0].again = max(0, stored - rows[0].repeated - each_once)
    _share_stored(rows, parts, stored)
    expected, rejected = {part.expect for part in parts}, min(rejected, stored)
    for row in rows:
        share = min(row.stored, rejected)
        rejected -= share
        _judge_rejections(row, expected, row.stored, share)
    return rows


def due(parts: Sequence[Part], word: Literal["promised", "by_puback", "receipted"]) -> list[int]:
    """How many of each part must be stored for a word that was given: of all that are identified, one."""
    given = [part.messages if getattr(part, word) else 0 for part in parts]
    identified = [number for number, part in enumerate(parts) if part.identified and given[number]]
    one = min(identified, key=lambda number: not parts[number].past, default=None)
    return [
        (number == one) if part.identified else count
        for number, (part, count) in enumerate(zip(parts, given, strict=True))
    ]


def allowed(parts: Sequence[Part]) -> int:
    """How many may be stored: one of all that are identified, and of others each as often as it was sent."""
    return any(part.identified for part in parts) + sum(part.publications for part in parts if not part.identified)


def _row(part: Part) -> Row:
    count = part.messages
    return Row(
        "",
        sent=count,
        publications=part.publications,
        duplicates=count * part.identified,
        acknowledged=count * part.acked,
        receipted=count * part.receipted,
    )


def _share_out(rows: Sequence[Row], name: str, parts: Sequence[Part], due: Sequence[int], stored: int) -> None:
    """Say of which parts the missing ones are: of those first that retention may have dropped."""
    missing = max(0, sum(due) - stored)
    for number in sorted(range(len(parts)), key=lambda number: not parts[number].past):
        share = min(due[number], missing)
        missing -= share
        if not parts[number].past:
            setattr(rows[number], name, share)
        elif name == "lost":
            rows[number].gone = share


def _share_stored(rows: Sequence[Row], parts: Sequence[Part], stored: int) -> None:
    """Say of which parts the stored ones are, each of one: of those first that were promised and are not missing."""
    promised = due(parts, "promised")
    kept = [count - row.lost - row.gone for count, row in zip(promised, rows, strict=True)]
    identified = any(part.identified and count for part, count in zip(parts, promised, strict=True))
    left = stored - sum(kept)
    for each in ("messages", "publications"):
        for number, part in enumerate(parts):
            most = (kept[number] if identified else 1) if part.identified else getattr(part, each)
            identified |= part.identified
            share = max(0, min(most - kept[number], left))
            kept[number] += share
            left -= share
    kept[0] += left
    for row, count in zip(rows, kept, strict=True):
        row.stored = count


def _judge_rejections(row: Row, expected: set[str], stored: int, rejected: int) -> None:
    if expected == {"event"}:
        row.rejected_unexpected = rejected
        return
    row.rejected_expected = rejected
    if expected == {"rejection"}:
        row.misread = stored - rejected
