"""Homie 4 and 5: devices that describe themselves in retained topics and publish each property as text.

https://homieiot.github.io/specification/ and, for 4, https://homieiot.github.io/specification/spec-core-v4_0_0/
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from gateway.formats.body import Body, Json
from gateway.formats.draft import Draft
from gateway.formats.format import Format, Lesson, Unreadable
from storage.event import Event, Kind, Message

_NAME4, _NAME5 = "homie4", "homie5"

_TEXTS = frozenset({"string", "enum", "color", "datetime", "duration"})
_NUMBERS = frozenset({"integer", "float"})
_BOOLEANS = ("true", "false")
# Leading zeros are allowed where a property is declared a number.
_NUMBER = re.compile(r"[+-]?[0-9]{1,400}(\.[0-9]{0,400})?([eE][+-]?[0-9]{1,5})?")

# The empty string has a byte of its own, because an empty payload deletes the topic.
_EMPTY_STRING = b"\0"


def read5(message: Message, body: Body) -> Sequence[Event] | None:
    """`domain/5/device/…`: the state, the description, an alert, a log line, or a property."""
    levels = message.topic.split("/")
    if len(levels) < 4 or levels[1] != "5" or (body.text is None and body.payload != _EMPTY_STRING):
        return None
    draft = Draft(_NAME5, message, body)
    if levels[2] == "$broadcast":
        return _broadcast(draft, levels[0], levels[3:], body)
    if levels[3].startswith("$"):
        return _attribute5(draft, levels, body)
    end = levels[5] if len(levels) == 6 else ""
    if len(levels) == 5 or end in ("set", "$target"):
        return _property5(draft, levels, end, body)
    return None


def teach5(message: Message, body: Body) -> Iterator[Lesson]:
    """Of each property in a description: datatype, unit, whether it is momentary, and the device's parent."""
    device, _, attribute = message.topic.rpartition("/")
    document = body.document
    if attribute != "$description" or not isinstance(document, dict):
        return
    parent = document.get("parent") or document.get("root")
    via = parent if isinstance(parent, str) else None
    topics = (f"{device}/+/+", f"{device}/+/+/$target", f"{device}/+/+/set")
    for path, described in _properties(document.get("nodes")):
        known = {key: word for key in ("datatype", "unit") if isinstance(word := described.get(key), str)}
        fact: dict[str, Json] = {**known, **({"via": via} if via else {})}
        if described.get("retained") is False:
            fact["momentary"] = True
        yield Lesson(key=f"{device}/{path}", value=fact, topics=topics)


def _properties(nodes: Json) -> Iterator[tuple[str, dict[str, Json]]]:
    for node, described in nodes.items() if isinstance(nodes, dict) else ():
        properties = described.get("properties") if isinstance(described, dict) else None
        for name, inner in properties.items() if isinstance(properties, dict) else ():
            if isinstance(inner, dict):
                yield f"{node}/{name}", inner


def _attribute5(draft: Draft, levels: list[str], body: Body) -> Sequence[Event] | None:
    device, attribute = levels[2], levels[3]
    if attribute == "$description" and len(levels) == 4:
        return _description(draft, levels, body)
    if attribute == "$state" and len(levels) == 4:
        return _state(draft, device, body)
    name = ".".join(levels[3:])
    if attribute in ("$alert", "$log"):
        _put_text(draft, name, body)
        return [draft.event(device, "event", vendor_type=attribute)]
    if levels[0] != "homie":
        return None
    _put_text(draft, name, body)
    return [draft.event(device, "discovery", vendor_type=attribute)]


def _description(draft: Draft, levels: list[str], body: Body) -> Sequence[Event] | None:
    document = body.document
    described = isinstance(document, dict) and "homie" in document
    if not described and body.text:
        if levels[0] != "homie":
            return None
        raise Unreadable(body.json_fault or "the description is no JSON object that names its version of Homie")
    parent = document.get("parent") or document.get("root") if isinstance(document, dict) else None
    via = parent if isinstance(parent, str) else None
    return [draft.event(levels[2], "discovery", via=via, vendor_type="$description")]


def _property5(draft: Draft, levels: list[str], end: str, body: Body) -> Sequence[Event] | None:
    topic = "/".join(levels[:5])
    fact = body.learned.get(_NAME5, topic)
    known: dict[str, Json] = fact if isinstance(fact, dict) else {}
    if not known and levels[0] != "homie" and end != "$target":
        return None
    name = f"{levels[3]}.{levels[4]}"
    if end == "$target":  # in front, so that no one takes the intended value for the measured one
        name = f"$target.{name}"
    _put_property(draft, name, body, _word(known, "datatype"), _word(known, "unit"))
    kind: Kind | None = "command" if end == "set" else "event" if "momentary" in known else None
    if end == "$target":
        kind = "state"
    elif kind is None and _is_number(known) and body.text:
        kind = "measurement"  # NaN as well
    return [draft.event(levels[2], kind, via=_word(known, "via") or None)]


def _is_number(known: dict[str, Json]) -> bool:
    return _word(known, "datatype") in _NUMBERS


def _word(known: dict[str, Json], key: str) -> str:
    word = known.get(key)
    return word if isinstance(word, str) else ""


def read4(message: Message, body: Body) -> Sequence[Event] | None:
    """`base/device/…`: an attribute, whose name begins with `$`, or a property."""
    levels = message.topic.split("/")
    if len(levels) < 3 or levels[1] == "5" or (body.text is None and body.payload != _EMPTY_STRING):
        return None
    draft = Draft(_NAME4, message, body)
    if levels[1] == "$broadcast":
        return _broadcast(draft, levels[0], levels[2:], body)
    if any(level.startswith("$") for level in levels[2:5]):
        return _attribute4(draft, levels, body)
    command = len(levels) == 5 and levels[4] == "set"
    if len(levels) != 4 and not command:
        return None
    topic = "/".join(levels[:4])
    datatype = body.learned.get(_NAME4, topic)
    if levels[0] != "homie" and not isinstance(datatype, str):
        return None
    unit = body.learned.get(_NAME4, f"{topic}/$unit")
    momentary = body.learned.get(_NAME4, f"{topic}/$retained") == "false"
    datatype, unit = (word if isinstance(word, str) else "" for word in (datatype, unit))
    _put_property(draft, f"{levels[2]}.{levels[3]}", body, datatype, unit)
    kind: Kind | None = "command" if command else "event" if momentary else None
    if kind is None and datatype in _NUMBERS and body.text:
        kind = "measurement"  # NaN as well
    return [draft.event(levels[1], kind)]


def teach4(message: Message, body: Body) -> Iterator[Lesson]:
    """What a property's `$datatype`, `$unit` and `$retained` say: each a fact of its own, since each may come late."""
    described, _, attribute = message.topic.rpartition("/")
    if attribute not in _TAUGHT or described.count("/") != 3:
        return
    key = described if attribute == "$datatype" else message.topic
    yield Lesson(key=key, value=body.text or None, topics=(described, f"{described}/set"))


_TAUGHT = frozenset({"$datatype", "$unit", "$retained"})

# The legacy statistics, https://github.com/homieiot/convention/blob/develop/extensions/
_STATISTICS = {
    "interval": "s",
    "uptime": "s",
    "signal": "%",
    "cputemp": "Cel",
    "cpuload": "%",
    "battery": "%",
    "freeheap": "By",
    "supply": "V",
}


def _attribute4(draft: Draft, levels: list[str], body: Body) -> Sequence[Event] | None:
    device, name, text, last = levels[1], ".".join(levels[2:]), body.text or "", levels[-1]
    if name == "$state":
        return _state(draft, device, body)
    if levels[2] == "$stats" and len(levels) == 4:
        draft.put_scalar(name, text, _STATISTICS.get(last), source="format")
        return [draft.event(device, vendor_type="$stats")]
    if name == "$online" or (last in ("$settable", "$retained") and text in _BOOLEANS):
        draft.put_scalar(name, text)
    else:
        _put_text(draft, name, body)
    kind: Kind = "availability" if name == "$online" else "command" if last == "set" else "discovery"
    return [draft.event(device, kind, vendor_type=next(level for level in levels if level.startswith("$")))]


def _state(draft: Draft, device: str, body: Body) -> Sequence[Event]:
    if not body.payload:  # the retained state was deleted, and with it the device
        return [draft.event(device, "death", vendor_type="$state")]
    draft.put_value("$state", body.text or None)
    return [draft.event(device, "availability", vendor_type="$state")]


def _broadcast(draft: Draft, domain: str, subtopic: list[str], body: Body) -> Sequence[Event]:
    # Sent to all devices by a controller: it is of none of them.
    _put_text(draft, ".".join(subtopic) or "$broadcast", body)
    return [draft.event(domain, "event", vendor_type="$broadcast")]


def _put_text(draft: Draft, name: str, body: Body) -> None:
    draft.put_value(name, body.text or None)


def _put_property(draft: Draft, name: str, body: Body, datatype: str, unit: str) -> None:
    text = body.text or ""
    if not text:
        draft.put_value(name, "" if body.payload == _EMPTY_STRING else None)
    elif datatype in _TEXTS:
        draft.put_value(name, text)
    elif datatype in _NUMBERS:
        _put_number(draft, name, text, datatype, unit)
    elif datatype == "boolean":
        if text not in _BOOLEANS:
            raise Unreadable(f"{name} is declared boolean, and is neither true nor false: {text[:50]}")
        draft.put_value(name, text == "true")
    elif datatype == "json" or text[0] in "{[":
        _put_json(draft, name, text, body, datatype)
    elif text.lower() in _BOOLEANS and text not in _BOOLEANS:  # Homie has one spelling of true
        draft.put_value(name, text)
    else:
        draft.put_scalar(name, text, unit, source="learned")


def _put_number(draft: Draft, name: str, text: str, datatype: str, unit: str) -> None:
    if found := _NUMBER.fullmatch(text):
        draft.put_value(name, float(text) if found[1] or found[2] else int(text), unit, source="learned")
    elif text.lower().lstrip("+-") in ("nan", "inf", "infinity"):
        draft.put_missing(name, "bad", unit)
    else:
        raise Unreadable(f"{name} is declared {datatype}, and is no number: {text[:50]}")


def _put_json(draft: Draft, name: str, text: str, body: Body, datatype: str) -> None:
    if body.document is not None:
        draft.put(name, body.document)
    elif datatype:
        raise Unreadable(f"{name} is declared json: {body.json_fault or 'neither object nor array'}")
    else:
        draft.put_value(name, text)


_ATTRIBUTES = """
$homie $state $name $nodes $extensions $implementation $localip $mac $online $fw/+ $stats/+ +/$name +/$type
+/$properties +/+/$name +/+/$datatype +/+/$unit +/+/$format +/+/$settable +/+/$retained
"""

FORMATS: tuple[Format, ...] = (
    Format(
        name=_NAME5,
        read=read5,
        teach=teach5,
        learned_topics=True,
        topics=(
            "homie/5/#",
            *(f"+/5/+/{end}" for end in ("$state", "$description", "$alert/+", "$log/+", "$log", "+/+/$target")),
            "+/5/$broadcast/#",
        ),
    ),
    Format(
        name=_NAME4,
        read=read4,
        teach=teach4,
        learned_topics=True,
        topics=("homie/#", *(f"+/+/{end}" for end in _ATTRIBUTES.split())),
    ),
)
