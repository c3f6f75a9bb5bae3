"""InfluxDB line protocol, a point a line: https://docs.influxdata.com/influxdb/v2/reference/syntax/line-protocol/."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from gateway.formats import fields, texts
from gateway.formats.body import Body, Json
from gateway.formats.draft import Draft
from gateway.formats.format import Format, Unreadable, named
from gateway.formats.values import kind_of, position
from storage.event import Event, Message, Value

NAME = "influx_lp"

_MOST_FAULTS = 10

# A backslash escapes what it stands before; only `,`, `=` and space lose it. Possessive: no match is tried twice.
_MEASUREMENT = r"(?:[^\x00-\x20\x7f\\,=#]|\\++[^\\\x00-\x1f\x7f])(?:[^\x00-\x20\x7f\\,=]|\\++[^\\\x00-\x1f\x7f])*+"
_KEY = r"(?:[^\x00-\x20\x7f\\,=]|\\++[^\\\x00-\x1f\x7f])++"
_VALUE = r'(?:"(?:[^"\\]|\\.)*+"|[^\x00-\x20\x7f,"]++)'


class _Shape(NamedTuple):
    """What a line must be like."""

    point: re.Pattern[str]
    like: re.Pattern[str]


def _shape(measurement: str) -> _Shape:
    head = rf"({measurement})((?:,{_KEY}={_KEY})*+)\ ++"
    fields = rf"({_KEY}={_VALUE}(?:,{_KEY}={_VALUE})*+)"
    stamp = r"(?:\ ++(-?[0-9]{1,19}))?\ *+\r?(?:\n|\Z)"
    return _Shape(re.compile(rf"\ *+{head}{fields}{stamp}", re.DOTALL), re.compile(rf"\ *+{head}{_KEY}="))


# A measurement may hold `=`, says the grammar: but `a=1 b=2` is no point, but where nothing else is to be expected.
_SHAPE = _shape(_MEASUREMENT)
_PROMISED_SHAPE = _shape(_MEASUREMENT.replace(",=", ","))
_PROMISES = frozenset({"influx", "influxdb", "lp", "lineprotocol", "line-protocol", "line_protocol"})
"""Levels of a topic that say that there is nothing but line protocol."""
_NO_POINT = re.compile(r"[ \r]*+(?:#[^\n]*+)?(?:\n|\Z)")
_TAG = re.compile(rf",({_KEY})=({_KEY})")
_FIELD = re.compile(rf"({_KEY})=({_VALUE})", re.DOTALL)

_ESCAPED = re.compile(r"\\([,= ])")
_ESCAPED_IN_TEXT = re.compile(r'\\(["\\])')
_FLOAT = re.compile(r"-?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_INTEGER = re.compile(r"(-?[0-9]{1,400})i|([0-9]{1,400})u")
_NOT_A_NUMBER = re.compile(r"[+-]?(?:nan|inf(?:inity)?)", re.IGNORECASE)
_TRUE = ("t", "T", "true", "True", "TRUE")
_FALSE = ("f", "F", "false", "False", "FALSE")
_WORDS = dict.fromkeys(_TRUE, True) | dict.fromkeys(_FALSE, False)

_HOSTS = ("host", "hostname")
_RANKS = {tag: rank for rank, tag in enumerate((*_HOSTS, *fields.DEVICE.split(), "sensor", "node", "source"))}


def read(message: Message, body: Body) -> Sequence[Event] | None:
    """An event of each point; what is wrong with a line stands beside those of the good lines."""
    text = body.text
    if text is None or "=" not in text:
        return None
    promised = not _PROMISES.isdisjoint(message.topic.lower().split("/"))
    shape = _PROMISED_SHAPE if promised else _SHAPE
    if not _is_like_points(text, shape):
        if promised and body.document is None:
            raise Unreadable(f"not line protocol: {text[:100]}")
        return None
    draft = Draft(NAME, message, body)
    topic = named(body.place.device, body)
    events: list[Event] = []
    faults: list[tuple[int, str]] = []
    at = 0
    while at < len(text):
        draft.count()
        if skipped := _NO_POINT.match(text, at):
            at = skipped.end()
        elif point := shape.point.match(text, at):
            try:
                events.append(_event(draft, body, topic, point))
            except ValueError as fault:
                draft.start()
                faults.append((at, str(fault)))
            at = point.end()
        else:
            end = (text.find("\n", at) + 1) or len(text)
            faults.append((at, f"not a point: {text[at:end]}"))
            at = end
    if events and faults:
        events.append(_report(draft, body, topic, text, faults))
    elif faults:
        _refuse(text, faults, shape, promised=promised)
    return events or None


FORMATS: tuple[Format, ...] = (Format(name=NAME, read=read),)


def point(draft: Draft, topic: str, name: str, tags: Mapping[str, Json], values: Iterable[tuple[str, Json]]) -> str:
    """Put a point of InfluxDB's model into a draft: fields under its name, tags beside them; gives the device."""
    device, tag = _device(tags)
    for key, text in tags.items():
        if key != tag:
            draft.put(f"tags.{key}", text)
    for key, value in values:
        draft.put(f"{name}.{key}" if name else key, value)
    if where := position(draft.readings):
        draft.put_units(dict.fromkeys(where, "deg"))
    return device or topic


def _is_like_points(text: str, shape: _Shape) -> bool:
    """Whether the first line that is no comment has the shape of a point."""
    at = 0
    while at < len(text) and (skipped := _NO_POINT.match(text, at)):
        at = skipped.end()
    return at < len(text) and shape.like.match(text, at) is not None


def _event(draft: Draft, body: Body, topic: str, found: re.Match[str]) -> Event:
    measurement, tag_set, field_set, stamp = found.groups()
    name = _bare(measurement)
    tags: dict[str, Json] = {_bare(key): _bare(value) for key, value in _TAG.findall(tag_set)} if tag_set else {}
    values = [(_bare(key), _value(value)) for key, value in _FIELD.findall(field_set)]
    device = point(draft, topic, name, tags, values)
    _mark_not_numbers(draft, name, values, field_set)
    kind = body.place.kind or ("location" if kind_of(draft.readings) == "location" else "measurement")
    return draft.event(device, kind, stamp=int(stamp) if stamp else None)


def _mark_not_numbers(draft: Draft, name: str, values: Sequence[tuple[str, Value]], field_set: str) -> None:
    if any(value is None for _, value in values) and field_set:
        draft.quality |= {f"{name}.{key}": "bad" for key, value in values if value is None}


def _value(text: str) -> Value:
    """A typed value; None for NaN, which the protocol does not have and some writers send."""
    if text[0] == '"':
        return _ESCAPED_IN_TEXT.sub(r"\1", text[1:-1])
    if _FLOAT.fullmatch(text):
        return float(text)
    if found := _INTEGER.fullmatch(text):
        number = int(found[1] or found[2])
        if -(2**63) <= number < (2**63 if found[1] else 2**64):
            return number
        raise ValueError(f"{text} is out of range")
    if text in _WORDS:
        return _WORDS[text]
    if _NOT_A_NUMBER.fullmatch(text):
        return None
    raise ValueError(f"{text} is no value")


def _bare(text: str) -> str:
    return _ESCAPED.sub(r"\1", text) if "\\" in text else text


def _device(tags: Mapping[str, Json]) -> tuple[str | None, str | None]:
    """The tag that says whose point it is: a host before all others, whose `device` may be its disk."""
    known = [(rank, tag) for tag in tags if (rank := _RANKS.get(fields.squeezed(tag))) is not None]
    for _, tag in sorted(known):
        name = tags[tag]
        if isinstance(name, str) and name.strip():
            return name, tag
    return None, None


def _report(draft: Draft, body: Body, topic: str, text: str, faults: Sequence[tuple[int, str]]) -> Event:
    """The lines that are no points: a bad reading of each, under its number."""
    for at, fault in faults[:_MOST_FAULTS]:
        name = texts.shortened(f"line {_line(text, at)}: {fault}", min(100, body.options.name_chars - 1))
        draft.put_missing(name, "bad")
    return draft.event(topic, "other", vendor_type="lines that are no points")


def _refuse(text: str, faults: Sequence[tuple[int, str]], shape: _Shape, *, promised: bool) -> None:
    """Raise Unreadable where it can be nothing else: `door state=open` is as good a text as a point."""
    at, fault = faults[0]
    like = shape.like.match(text, at)
    if promised or "out of range" in fault or (like and like[2]):
        raise Unreadable(f"line {_line(text, at)} of line protocol: {fault}")


def _line(text: str, at: int) -> int:
    return text.count("\n", 0, at) + 1
