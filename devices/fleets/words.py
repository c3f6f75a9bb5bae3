"""What is wrong with one key of a fleet's file, in words: the validator's findings, told to a person."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from devices.fleets.locate import Path
from devices.signals.words import meant

_BARE = re.compile(r"[A-Za-z0-9_-]+")

_TYPES: Mapping[str, str] = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "string": "a text in quotes",
    "list": "an array: [ … ]",
    "tuple": "an array: [ … ]",
    "dict": "a table: { … }",
    "model": "a table: { … }",
}
_BOUNDS: Mapping[str, tuple[str, str]] = {
    "greater_than_equal": ("ge", "at least"),
    "greater_than": ("gt", "more than"),
    "less_than_equal": ("le", "at most"),
    "less_than": ("lt", "less than"),
}


class Complaint(NamedTuple):
    """What is wrong at a place of the file."""

    path: Path
    words: str


def complaints(error: ValidationError, table: type[BaseModel], at: Path) -> Iterator[Complaint]:
    """Each of the validator's findings about the table at `at`."""
    for details in error.errors(include_url=False):
        yield Complaint((*at, *details["loc"]), _words(details, table))


def written(path: Path) -> str:
    """As a person would write it: groups[1].signals.humidity.of."""
    parts = (f"[{part}]" if isinstance(part, int) else f".{_key(part)}" for part in path)
    return "".join(parts).removeprefix(".")


def _key(part: str) -> str:
    """In quotes where TOML needs them; what cannot be shown is escaped."""
    return part if _BARE.fullmatch(part) else '"' + repr(part)[1:-1].replace('"', '\\"') + '"'


def _words(details: ErrorDetails, table: type[BaseModel]) -> str:
    sort, context, loc = details["type"], details.get("ctx", {}), details["loc"]
    given = shown(details["input"])
    if sort == "missing":
        return f"is missing: {_description(table, loc) or 'add it'}"
    if sort == "extra_forbidden":
        known = [field.alias or name for name, field in _table_at(table, loc[:-1]).model_fields.items()]
        return f"there is no such key here{meant(str(loc[-1]), (key for key in known if key != 'kind'))}"
    if sort == "value_error":
        return str(context["error"])
    if sort in _BOUNDS:
        key, bound = _BOUNDS[sort]
        return f"is to be {bound} {context[key]:g}, not {given}"
    if sort in ("too_short", "string_too_short"):
        return f"needs {context['min_length']} of them at least"
    if sort in ("too_long", "string_too_long"):
        return f"is too long: {context['max_length']} at most"
    if sort == "literal_error":
        return f"there is no {given}: write {context['expected']}"
    if sort == "finite_number":
        return f"is to be a number that ends, not {given}"
    if sort == "list_type" and isinstance(details["input"], dict):  # what is a list here is one of tables
        return f"may be many: write [[{loc[-1]}]], in double brackets"
    if sort in ("dict_type", "model_type") and _tables(details["input"]):
        return "is one table: write its header in single brackets"
    if wanted := _TYPES.get(sort.removesuffix("_type").removesuffix("_parsing")):
        return f"is to be {wanted}, not {given}"
    return f"{details['msg'][:1].lower()}{details['msg'][1:]}, not {given}"


def _tables(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, dict) for one in value)


def printable(text: str) -> str:
    """Text that cannot steer a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def shown(value: object) -> str:
    """A value as the file has it, shortened."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict | list | tuple):
        return "a table" if isinstance(value, dict) else "an array"
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else f"{text[:59]}…"


def _description(table: type[BaseModel], loc: tuple[str | int, ...]) -> str | None:
    return next(
        (
            field.description
            for name, field in _table_at(table, loc[:-1]).model_fields.items()
            if (field.alias or name) == loc[-1]
        ),
        None,
    )


def _table_at(table: type[BaseModel], loc: tuple[str | int, ...]) -> type[BaseModel]:
    """The table within a table that a location is in."""
    for part in loc:
        fields = {field.alias or name: field for name, field in table.model_fields.items()}
        kind: Any = fields[str(part)].annotation if part in fields else None
        tables = [one for one in (kind, *get_args(kind)) if isinstance(one, type) and issubclass(one, BaseModel)]
        table = tables[0] if tables else table
    return table
