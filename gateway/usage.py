"""What is wrong with an option, in our words: Typer's and its validator's own are for programmers. Never decides it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from typer import BadParameter

if TYPE_CHECKING:
    from typer.exceptions import TyperException

KINDS = {"int": "a whole number", "float": "a number", "bool": "true or false"}
BOUNDS = {
    "greater_than_equal": ("ge", "at least"),
    "greater_than": ("gt", "more than"),
    "less_than_equal": ("le", "at most"),
    "less_than": ("lt", "less than"),
}

PATHS = (
    (re.compile(r"(?:file|dir|path) '(.+)' does not exist\.", re.DOTALL), r"there is no file \1: name another"),
    (re.compile(r"dir '(.+)' is a file\.", re.DOTALL), r"\1 is a file: name a folder"),
    (re.compile(r"file '(.+)' is a directory\.", re.DOTALL), r"\1 is a folder: name a file"),
)
CHOICES = re.compile(r"Value error, (.+) is not one of (.+)\.", re.DOTALL)


def in_words(error: TyperException) -> str:
    """One sentence without its full stop; what is not known stays as Typer says it."""
    if isinstance(error, BadParameter):
        error.message = _words(error.message, error.__cause__)
    return error.format_message().rstrip(".")


def _words(text: str, cause: BaseException | None) -> str:
    if choices := CHOICES.fullmatch(text):
        return f"there is no {choices[1]}, only {choices[2].replace(chr(39), '')}"
    for pattern, ours in PATHS:
        if pattern.fullmatch(text):
            return pattern.sub(ours, text)
    findings = getattr(cause, "errors", None)  # the validator's, which is imported only where it is needed
    return (_finding(findings()[0]) if callable(findings) else None) or text


def _finding(found: Mapping[str, Any]) -> str | None:
    sort = found["type"]
    if sort in BOUNDS:
        key, bound = BOUNDS[sort]
        return f"is to be {bound} {found['ctx'][key]:g}, not {found['input']}"
    wanted = KINDS.get(sort.removesuffix("_type").removesuffix("_parsing"))
    return wanted and f"{found['input']!r} is not {wanted}"
