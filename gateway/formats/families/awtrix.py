"""AWTRIX 3, a pixel clock: https://blueforcer.github.io/awtrix3/#/api, and its firmware's MQTTManager.cpp."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from gateway.formats.body import Body, Json
from gateway.formats.draft import Draft
from gateway.formats.format import Format, Lesson, Unreadable
from gateway.formats.plain import scalar
from storage.event import Event, Kind, Message

NAME = "awtrix"

_ORDERS = """
brightness notify notify/dismiss switch settings previousapp nextapp doupdate apps power sleep indicator1 indicator2
indicator3 timeformat dateformat reboot moodlight sound rtttl sendscreen r2d2
"""
_SAID = """
stats stats/effects stats/transitions stats/loop stats/device stats/currentApp stats/buttonLeft stats/buttonSelect
stats/buttonRight screen
"""
_CUSTOM = "custom"
# In °C, as the sensor gives it: the setting for °F changes what the clock shows.
_UNITS = {
    "bat": "%",
    "lux": "lx",
    "ram": "B",
    "temp": "°C",
    "hum": "%",
    "uptime": "s",
    "wifi_signal": "dBm",
}


def read(message: Message, body: Body) -> Sequence[Event] | None:
    """One event of the clock: what it measures, a button, its presence, or an order to show something."""
    if body.document is None and (body.json_fault or body.text is None):
        if not body.json_fault:
            return None
        raise Unreadable(body.json_fault)
    found = _split(message.topic)
    if found is None:
        return None
    prefix, path = found
    if not (_ours(prefix) or body.learned.get(NAME, message.topic) or _is_stats(body.document)):
        return None
    draft = Draft(NAME, message, body)
    return [draft.event(prefix.rpartition("/")[2], _fill(draft, path, body))]


def teach(message: Message, body: Body) -> Iterable[Lesson]:
    """Where a clock listens and publishes whose prefix has not `awtrix` in it: its stats show it."""
    found = _split(message.topic)
    if found is None or found[1] != "stats" or _ours(found[0]) or not _is_stats(body.document):
        return
    for path in sorted(_PATHS - {"stats"}):
        topic = f"{found[0]}/{path}"
        yield Lesson(key=topic, value=True, topics=(topic,))


def _ours(prefix: str) -> bool:
    return prefix.rpartition("/")[2].lower().startswith("awtrix")


def _is_stats(document: Json) -> bool:
    return isinstance(document, dict) and "ldr_raw" in document and "lux" in document


def _split(topic: str) -> tuple[str, str] | None:
    """The prefix, and the path that is known below it."""
    levels = topic.split("/")
    if len(levels) > 2 and levels[-2] == _CUSTOM and levels[-1]:
        return "/".join(levels[:-2]), "/".join(levels[-2:])
    for back in (2, 1):
        if len(levels) > back and "/".join(levels[-back:]) in _PATHS:
            return "/".join(levels[:-back]), "/".join(levels[-back:])
    return None


def _fill(draft: Draft, path: str, body: Body) -> Kind | None:
    document, name = body.document, path.replace("/", ".")
    if path == "stats" and isinstance(document, dict):
        for key, node in document.items():
            draft.put(key, node)
        draft.put_known_units(_UNITS.get)
        return "measurement"
    if document is not None:
        draft.put(name, document)
    elif body.text:
        draft.put(name, scalar(body.text))
    if path in _OF_ORDERS or path.startswith(_CUSTOM):  # an empty payload takes a custom app away
        return "command"
    if path == "stats/device":
        return "availability"
    return "event" if path.startswith("stats/button") else "state"


_OF_ORDERS = frozenset(_ORDERS.split())
_PATHS = _OF_ORDERS | frozenset(_SAID.split())

FORMATS: tuple[Format, ...] = (
    Format(
        name=NAME,
        read=read,
        topics=("awtrix*/#", "+/awtrix*/#"),
        keys=(frozenset({"lux", "ldr_raw"}),),
        teach=teach,
        learned_topics=True,
    ),
)
