"""What to say to someone who has written a name that does not exist."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

MOST_NAMED = 30


def meant(wrong: str, known: Iterable[str]) -> str:
    """The end of a complaint: the name that was meant, or those there are."""
    names = list(known)
    if close := get_close_matches(wrong.lower(), [name.lower() for name in names], n=1, cutoff=0.6):
        return f", did you mean {next(name for name in names if name.lower() == close[0])!r}?"
    if not names or len(names) > MOST_NAMED:
        return ""
    return f", only {', '.join(names)}"
