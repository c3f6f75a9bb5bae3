"""What stands in a JSON document, taken only where it is of the type that a format expects."""

from __future__ import annotations

from gateway.formats.body import Body, Json
from gateway.formats.format import Unreadable
from gateway.formats.plain import scalar

_MOST_DIGITS = 64


def opened(body: Body, *, certain: bool) -> dict[str, Json] | None:
    """The object that a payload is, None where it is none; Unreadable where it is `certain` whose, and broken JSON."""
    if body.document is None and certain and body.json_fault:
        raise Unreadable(body.json_fault)
    return body.document if isinstance(body.document, dict) else None


def members(node: Json) -> dict[str, Json]:
    """The members of an object; none of anything else."""
    return node if isinstance(node, dict) else {}


def objects(node: Json) -> list[dict[str, Json]]:
    """The objects of an array; none of anything else."""
    return [element for element in node if isinstance(element, dict)] if isinstance(node, list) else []


def text(node: Json) -> str | None:
    """A text that says something; None for all else."""
    return node if isinstance(node, str) and node.strip() else None


def number(node: Json) -> float | None:
    """A number, quoted or not; None for all else."""
    plain = unquoted(node)
    return plain if type(plain) is int or type(plain) is float else None


def unquoted(node: Json) -> Json:
    """The number in a text that is one, None for an empty text and the words for nothing; all else as it is.

    For the fields that are numbers by a format's documentation: any other text stays what it is.
    """
    if type(node) is not str:
        return node
    if node.isdecimal() and node.isascii() and node[0] != "0" and len(node) <= _MOST_DIGITS:
        return int(node)  # the most frequent, and the quickest
    stripped = node.strip()
    if not stripped:
        return None
    read = scalar(stripped) if len(stripped) <= _MOST_DIGITS else node
    return node if type(read) is bool or type(read) is str else read
