"""A payload that is one value: the topic names the device and the reading."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from gateway.formats import units
from gateway.formats.body import Body
from gateway.formats.format import Format, Unreadable, named
from gateway.formats.values import kind_of_types, tells_presence, usable
from storage.event import Detail, Event, Kind, Message, Value

NAME = "plain"

# No leading zeros: 00189440 is a code. No list of numbers either: which of them would it be?
_NUMBER = re.compile(r"[+-]?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_WORDS: dict[str, bool | None] = {"true": True, "false": False}
NOTHING = frozenset({"null", "none", "nil", "undefined"})
"""Words for a value that is not there; NaN is one that is bad."""
_WORDS |= dict.fromkeys([*NOTHING, "nan", "inf", "infinity"])
_WORDS |= dict.fromkeys(f"{sign}{word}" for sign in "+-" for word in ("nan", "inf", "infinity"))
# A letter needs a space before it: `5A` may be a code.
_AMOUNT = re.compile(r"([+-]?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?)(?:[ \u00a0]+(\S{1,20})| ?([%°℃℉]\S{0,3}))")
_PACKED = ('"{', '"[')
_ASCII_LETTERS = [bytes([letter]) for letter in range(128) if chr(letter).isalpha() or letter == 32]
_OLD_TEXT = re.compile(rb"[\t\r\n\x20-\x7e\x80\x91-\x97\xa0\xa7\xb0-\xb5\xc0-\xd6\xd8-\xf6\xf8-\xff]+")


def read(message: Message, body: Body) -> Sequence[Event] | None:
    """One event of any text; none of an empty payload's reading: it says that something is gone."""
    text, place = body.text, body.place
    if text is None and not _is_old_text(body.payload):
        return None
    device = named(place.scalar_device, body)
    name, now = place.scalar_name, message.received_at
    if text is None:  # text of some other encoding: that it is there can be told, what it says cannot
        return [Event(device, place.kind or "other", NAME, now, {name: None}, detail=Detail(quality={name: "bad"}))]
    if not text:
        return [Event(device, place.kind or "other", NAME, now, {})]
    if text.startswith(_PACKED) and (inner := _unpacked(text, body)):
        return inner
    number, unit = _amount(text)
    value = usable(scalar(number), body.options)
    kind = place.kind or _kind(value, name, place.last)
    detail = Detail(quality={name: "bad"}) if value is None and text.lower() not in NOTHING else None
    return [Event(device, kind, NAME, now, {name: value}, units={name: unit} if unit else None, detail=detail)]


FORMAT = Format(name=NAME, read=read)


def _is_old_text(payload: bytes) -> bool:
    """Whether it is mostly ASCII letters, and the rest letters of ISO 8859 or Windows."""
    letters = sum(map(payload.count, _ASCII_LETTERS))
    return letters >= 3 and 3 * letters >= 2 * len(payload.strip()) - 2 and _OLD_TEXT.fullmatch(payload) is not None


def _amount(text: str) -> tuple[str, str | None]:
    """`21.5 °C` is a number and its unit; `5A` may be a code."""
    if len(text) > 60 or not (found := _AMOUNT.fullmatch(text)):
        return text, None
    unit = units.code(found[2] or found[3])
    return (found[1], unit) if unit else (text, None)


def _unpacked(text: str, body: Body) -> Sequence[Event]:
    """The events of JSON that was encoded twice."""
    try:
        return body.read_inner(_unquoted(text).encode())
    except (Unreadable, UnicodeEncodeError):
        return ()


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
