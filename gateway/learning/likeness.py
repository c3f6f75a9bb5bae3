"""How alike two sets of values are. Pure; never looks at the store."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence

from storage.event import Value


def distance(one: Sequence[Value], other: Sequence[Value]) -> float:
    """From 0, the same distribution, to 1, nothing in common.

    Of numbers the greatest difference between the shares below any value (Kolmogorov and Smirnov); of others half the
    sum of the differences between their shares (total variation).
    """
    if not one or not other:
        return 0.0 if not one and not other else 1.0
    if all(type(value) in (int, float) for value in (*one, *other)):
        return _of_numbers(sorted(map(_number, one)), sorted(map(_number, other)))
    mine, yours = (Counter(map(str, values)) for values in (one, other))
    return sum(abs(mine[name] / len(one) - yours[name] / len(other)) for name in mine | yours) / 2


def _of_numbers(one: Sequence[float], other: Sequence[float]) -> float:
    return max(
        abs(bisect_right(one, value) / len(one) - bisect_right(other, value) / len(other)) for value in {*one, *other}
    )


def _number(value: Value) -> float:
    return float(value)  # type: ignore[arg-type]  # the caller has looked
