"""WLED, a light controller: https://kno.wled.ge/interfaces/mqtt/, and its firmware's mqtt.cpp and xml.cpp."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

from gateway.formats.body import Body
from gateway.formats.draft import Draft
from gateway.formats.format import Format, Lesson, Unreadable
from gateway.formats.plain import scalar
from storage.event import Event, Message, Value

NAME = "wled"

_ROOT = "wled"
_XML = b'<?xml version="1.0" ?><vs>'
_ELEMENT = re.compile(r"<([a-z]{1,8})>([^<]*)</\1>")
_COLOUR = re.compile(r"#[0-9A-Fa-f]{6}(?:[0-9A-Fa-f]{2})?")
_BRIGHTNESS = re.compile(r"[0-9]{1,3}")
_SAID = ("g", "c", "v", "status")
_ORDERS = ("api", "col")
# No white channel, and no preset.
_NONE_IS_MINUS_ONE = frozenset({"wv", "ps"})


def read(message: Message, body: Body) -> Sequence[Event] | None:
    """One event: brightness (g), colour (c), all of the state (v), presence, or an order to the light."""
    if body.text is None or not body.text:
        return None
    if body.payload.startswith(_XML):
        return _states(message, body, body.text)
    found = _split(message.topic, learned=body.learned.get(NAME, message.topic) is not None)
    if found is None:
        return None
    base, last = found
    draft = Draft(NAME, message, body)
    if last in _SAID:
        return _said(draft, base, last, body.text)
    if body.document is None and body.json_fault:
        raise Unreadable(body.json_fault)
    _put_order(draft, last, body)
    return [draft.event(_device(base), "command")]


def teach(message: Message, body: Body) -> Iterable[Lesson]:
    """Where a light publishes that is not below `wled/`: its XML shows it."""
    base, _, last = message.topic.rpartition("/")
    if last != "v" or not base or _split(message.topic, learned=False) or not body.payload.startswith(_XML):
        return
    for name in (*_SAID[:2], "status", *_ORDERS):
        yield Lesson(key=f"{base}/{name}", value=True, topics=(f"{base}/{name}",))


def _split(topic: str, *, learned: bool) -> tuple[str, str] | None:
    """The light's own topic, and what is below it."""
    base, _, last = topic.rpartition("/")
    if learned or (last in (*_SAID, *_ORDERS) and _ROOT in base.split("/")[:-1]):
        return base, last
    return (topic, "") if base == _ROOT else None


def _said(draft: Draft, base: str, last: str, text: str) -> list[Event] | None:
    if last == "status" and text in ("online", "offline"):
        draft.put(last, text)
        return [draft.event(_device(base), "availability")]
    if last == "c" and _COLOUR.fullmatch(text):
        draft.put(last, text)
        return [draft.event(_device(base), "state")]
    if last == "g" and _BRIGHTNESS.fullmatch(text):
        draft.put(last, int(text))
        return [draft.event(_device(base), "state")]
    return None


def _put_order(draft: Draft, last: str, body: Body) -> None:
    document = body.document
    if isinstance(document, dict):  # the JSON API
        for key, node in document.items():
            draft.put(key, node)
    else:
        draft.put(last or "bri", scalar(body.text or "") if not last else body.text)


def _states(message: Message, body: Body, text: str) -> list[Event]:
    """The flat XML of the firmware: names that repeat are numbered, as the red, green and blue of `cl`."""
    if not text.endswith("</vs>"):
        raise Unreadable("the XML of the light's state has no end")
    draft = Draft(NAME, message, body)
    elements = _ELEMENT.findall(text, len(_XML))
    counts = Counter(name for name, _ in elements)
    seen: Counter[str] = Counter()
    for name, content in elements:
        draft.put(f"{name}.{seen[name]}" if counts[name] > 1 else name, _value(name, content))
        seen[name] += 1
    base = message.topic.removesuffix("/v")
    return [draft.event(_device(base), "state")]


def _value(name: str, content: str) -> Value:
    if name == "ds":  # the name that its owner gave it
        return content
    value = scalar(content) if content else None
    return None if value == -1 and name in _NONE_IS_MINUS_ONE else value


def _device(base: str) -> str:
    return base.strip("/").rpartition("/")[2] or base


FORMATS: tuple[Format, ...] = (
    Format(
        name=NAME,
        read=read,
        topics=("wled/+", *(f"#/wled/+/{name}" for name in (*_SAID, *_ORDERS))),
        starts=(_XML,),
        teach=teach,
        learned_topics=True,
    ),
)
