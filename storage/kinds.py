"""The kinds of events that can be asked for. Never looks at a store: an old one may hold others."""

from __future__ import annotations

from collections.abc import Iterable
from typing import get_args

from storage.event import Kind


def check_kinds(kinds: Iterable[str]) -> None:
    """Raises ValueError for a kind that no event has."""
    known = get_args(Kind)
    for kind in kinds:
        if kind not in known:
            raise ValueError(f"there is no kind {kind!r}: take {', '.join(known[:-1])} or {known[-1]}")
