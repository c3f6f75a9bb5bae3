"""Wiren Board: controls of devices, a value a topic, with their types and units in `meta` topics.

https://github.com/wirenboard/conventions
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from gateway.formats.body import Body
from gateway.formats.draft import Draft
from gateway.formats.format import Format, Lesson, Unreadable
from storage.event import Event, Kind, Message

_NAME = "wirenboard"

# Types that fix a unit; later conventions have `value` and `units` instead.
_UNITS = {
    "temperature": "Cel",
    "rel_humidity": "%",
    "atmospheric_pressure": "mbar",
    "rainfall": "mm/h",
    "wind_speed": "m/s",
    "power": "W",
    "power_consumption": "kW.h",
    "voltage": "V",
    "water_flow": "m3/h",
    "water_consumption": "m3",
    "resistance": "Ohm",
    "concentration": "[ppm]",
    "heat_power": "Gcal/h",
    "heat_energy": "Gcal",
    "current": "A",
    "pressure": "bar",
    "lux": "lx",
    "sound_level": "dB",
    "unixtime": "s",
}
_SWITCHES = frozenset({"switch", "alarm"})
_BOOLEANS = {"0": False, "1": True}
_TEXTS = frozenset({"text", "rgb", "w1-id"})
_WORDS = frozenset({"type", "name", "units", "driver"})

_TOPIC = re.compile(
    r"(?:.*/)?devices/(?P<device>[^/]+)"
    r"(?:/controls/(?P<control>[^/]+))?(?:/(?P<end>on|meta)(?:/(?P<attribute>[^/]+))?)?"
)


def read(message: Message, body: Body) -> Sequence[Event] | None:
    """What follows `devices/name`: a control, its command topic `on`, or metadata of either."""
    found = _TOPIC.fullmatch(message.topic)
    if found is None or body.text is None:
        return None
    device, control, end, attribute = found.groups()
    draft = Draft(_NAME, message, body)
    if end == "meta":
        return _meta(draft, device, control, attribute, body)
    if control is None or attribute is not None:
        return None
    if body.text[:1] in ("{", "["):  # no control has such a value: it is another's topic
        return None
    kind = _put_control(draft, control, body.text, message.topic.removesuffix("/on") if end else message.topic, body)
    return [draft.event(device, "command" if end else kind)]


def teach(message: Message, body: Body) -> Iterator[Lesson]:
    """Type and units of a control, from its JSON or, in older firmware, from topics of their own."""
    value_topic, found, end = message.topic.rpartition("/meta")
    if not found or "/controls/" not in value_topic or end not in ("", "/type", "/units"):
        return
    document, topics = body.document, (value_topic, f"{value_topic}/on")
    if end:
        yield Lesson(key=message.topic, value=body.text or None, topics=topics)
    elif isinstance(document, dict):
        fact = {key: word for key in ("type", "units") if isinstance(word := document.get(key), str)}
        yield Lesson(key=message.topic, value={**fact}, topics=topics)
    else:
        yield Lesson(key=message.topic, value=None)


def _meta(draft: Draft, device: str, control: str | None, attribute: str | None, body: Body) -> Sequence[Event] | None:
    text = body.text or ""
    if attribute is None:
        if text and not isinstance(body.document, dict):
            if text[0] != "{":
                return None
            raise Unreadable(body.json_fault)
        return [draft.event(device, "discovery", vendor_type="meta")]
    name = f"{control}.meta.{attribute}" if control else f"meta.{attribute}"
    if attribute == "error":  # r: not read, w: not written, p: late; empty when it is over
        draft.put_value(name, text or None)
        return [draft.event(device, "state", vendor_type="error")]
    if attribute in _WORDS:
        draft.put_value(name, text or None)
    else:
        draft.put_scalar(name, text)
    return [draft.event(device, "discovery", vendor_type="meta")]


def _put_control(draft: Draft, control: str, text: str, topic: str, body: Body) -> Kind | None:
    type_, units = _described(topic, body)
    if not text:
        draft.put_missing(control)
        return None
    if type_ in _SWITCHES and text in _BOOLEANS:
        draft.put_value(control, _BOOLEANS[text])
    elif type_ in _TEXTS:
        draft.put_value(control, text)
    else:
        draft.put_scalar(control, text, units or _UNITS.get(type_), source="learned")
    return "event" if type_ == "pushbutton" else "state" if type_ in _SWITCHES else None


def _described(topic: str, body: Body) -> tuple[str, str]:
    known = body.learned.get(_NAME, f"{topic}/meta")
    fact = known if isinstance(known, dict) else {}
    type_ = fact.get("type") or body.learned.get(_NAME, f"{topic}/meta/type")
    units = fact.get("units") or body.learned.get(_NAME, f"{topic}/meta/units")
    return type_ if isinstance(type_, str) else "", units if isinstance(units, str) else ""


_CONTROL = "#/devices/+/controls/+"

FORMATS: tuple[Format, ...] = (
    Format(
        name=_NAME,
        read=read,
        teach=teach,
        topics=(
            *(f"{_CONTROL}{end}" for end in ("", "/on", "/meta", "/meta/+")),
            "#/devices/+/meta",
            "#/devices/+/meta/+",
        ),
    ),
)
