"""A payload that is one value: the topic names the device and the reading."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from gateway.formats.body import Body
from gateway.formats.format import Format, named
from gateway.formats.values import kind_of_types, tells_presence, usable
from storage.event import Detail, Event, Kind, Message, Value

NAME = "plain"

# No leading zeros: 00189440 is a code. No list of numbers either: which of them would it be?
_NUMBER = re.compile(r"[+-]?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_WORDS: dict[str, bool | None] = {"true": True, "false": False}
_NOTHING = frozenset({"null", "none", "nil", "undefined"})
_WORDS |= dict.fromkeys([*_NOTHING, "nan", "inf", "infinity"])
_WORDS |= dict.fromkeys(f"{sign}{word}" for sign in "+-" for word in ("nan", "inf", "infinity"))


def read(message: Message, body: Body) -> Sequence[Event] | None:
    """One event of any text; none of an empty payload's reading: it says that something is gone."""
    text, place = body.text, body.place
    if text is None:
        return None
    device = named(place.scalar_device, body)
    if not text:
        return [Event(device, place.kind or "other", NAME, message.received_at, {})]
    value = usable(scalar(text), body.options)
    kind = place.kind or _kind(value, place.scalar_name, place.last)
    detail = Detail(quality={place.scalar_name: "bad"}) if value is None and text.lower() not in _NOTHING else None
    return [Event(device, kind, NAME, message.received_at, {place.scalar_name: value}, detail=detail)]


FORMAT = Format(name=NAME, read=read)


def scalar(text: str) -> Value:
    """A number where the whole text is one, true and false, None for the words for nothing; else the text."""
    if len(text) <= 300 and _NUMBER.fullmatch(text):
        return int(text) if text.lstrip("+-").isdigit() else float(text) + 0.0  # -0.0 is 0.0
    if len(text) <= 10 and text.lower() in _WORDS:
        return _WORDS[text.lower()]
    return _unquoted(text) if text[0] == '"' == text[-1] else text


def _unquoted(text: str) -> str:
    try:
        return str(json.loads(text))  # a quoted number stays text: its sender meant it so
    except ValueError:
        return text


def _kind(value: Value, name: str, last: str) -> Kind:
    if tells_presence(last, value) or (name != last and tells_presence(name, value)):
        return "availability"
    return kind_of_types((type(value),))
