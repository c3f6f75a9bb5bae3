"""Smart meters with a P1 port: their telegrams (see p1.py), or what DSMR-reader publishes of them.

Topics by https://dsmr-reader.readthedocs.io/en/latest/how-to/admin/mqtt.html.
"""

from __future__ import annotations

from collections.abc import Sequence

from gateway.formats.body import Body, Json
from gateway.formats.draft import Draft
from gateway.formats.families.p1 import NAME, read_telegram
from gateway.formats.format import Format, Unreadable, named
from gateway.formats.plain import scalar
from storage.event import Event, Message

_ROOT = "dsmr"
_PLACES = frozenset(
    {"reading", "telegram", "day-consumption", "meter-stats", "current-month", "current-year", "consumption"}
)
_STATISTICS = "meter-stats"
_READING_UNITS = {
    **{f"electricity_{way}_{tariff}": "kWh" for way in ("delivered", "returned") for tariff in (1, 2)},
    **{f"electricity_currently_{way}": "kW" for way in ("delivered", "returned")},
    **{f"phase_currently_{way}_l{line}": "kW" for way in ("delivered", "returned") for line in (1, 2, 3)},
    **{f"phase_voltage_l{line}": "V" for line in (1, 2, 3)},
    **{f"phase_power_current_l{line}": "A" for line in (1, 2, 3)},
}
_TOTAL_UNITS = {
    f"{period}{name}": unit
    for period in ("", "current_month_", "current_year_")
    for name, unit in {
        **dict.fromkeys(("electricity1", "electricity2", "electricity1_returned", "electricity2_returned"), "kWh"),
        **dict.fromkeys(("electricity_merged", "electricity_returned_merged"), "kWh"),
        "gas": "m3",
    }.items()
}
_EXTRA, _EXTRA_TIME = "extra_device_delivered", "extra_device_timestamp"
_CONSUMPTION_UNITS = {
    _EXTRA: "m3",  # DSMR-reader takes a gas meter's only
    "consumption.gas.delivered": "m3",
    "consumption.gas.currently_delivered": "m3",
    "consumption.quarter-hour-peak-electricity.average_delivered": "kW",
}
_UNITS = _READING_UNITS | _TOTAL_UNITS | _CONSUMPTION_UNITS
# `dsmr/json`, `dsmr/reading/…` and its elder `dsmr/telegram/…` are the meter's own; the others are sums, of days,
# months and years.
_UNNAMED = frozenset({"json", "reading", "telegram"})
_STAMPS = ("timestamp", "read_at", "read_at_end")
_TEXTS = frozenset({"dsmr_version"})


def read(message: Message, body: Body) -> Sequence[Event] | None:
    """One event of each meter that a telegram speaks of; one of what DSMR-reader publishes."""
    document = body.document
    if isinstance(document, dict):
        return _read_document(message, body, document)
    if body.json_fault:
        raise Unreadable(body.json_fault)
    # An identification may hold bytes that no text holds.
    text = body.payload.decode("latin-1") if body.text is None else body.text
    if document is not None:
        return None
    if not text.startswith("/"):
        return _read_value(message, body, text)
    device = _split(message.topic)[0] or named(body.place.device, body)
    return read_telegram(message, body, text, device)


def _read_document(message: Message, body: Body, document: dict[str, Json]) -> list[Event] | None:
    root, path = _split(message.topic)
    if root is None and "electricity_delivered_1" not in document:
        return None
    prefix = "".join(f"{level}." for level in path if level not in _UNNAMED)
    draft = Draft(NAME, message, body)
    extra = document.get(_EXTRA)
    for key, node in document.items():
        if (key != _EXTRA or extra is None) and (key not in _STAMPS or draft.believed(node) is None):
            _put_text(draft, prefix + key, node)
    stamp = next((document[key] for key in _STAMPS if key in document), None)
    device = root or named(body.place.device, body)
    events = [draft.event(device, "measurement", stamp=stamp)]
    if extra is not None:  # the gas meter's, of its own time
        _put_text(draft, _EXTRA, extra)
        events.append(draft.event(device, "measurement", stamp=document.get(_EXTRA_TIME)))
    return events


def _split(topic: str) -> tuple[str | None, list[str]]:
    """The root of DSMR-reader's topics, and what is below it; None where the topic is another."""
    levels = topic.split("/")
    if _ROOT not in levels[:-1]:
        return None, []
    at = levels.index(_ROOT) + 1
    return "/".join(levels[:at]), levels[at:]


def _put_text(draft: Draft, name: str, node: Json) -> None:
    """A decimal number comes as a text: Python's JSON has no decimals."""
    leaf = name.rpartition(".")[2]
    value = node if leaf in _TEXTS or not isinstance(node, str) else scalar(node) if node else None
    if isinstance(value, (dict, list)):
        draft.put(name, value)
    else:
        unit = None if isinstance(value, (str, bool)) else _UNITS.get(name) or _UNITS.get(leaf)
        draft.put_value(name, value, unit, source="format")


def _read_value(message: Message, body: Body, text: str) -> list[Event] | None:
    """A value of a topic of its own; its siblings cannot be joined to it, nor the time that is one of them."""
    root, path = _split(message.topic)
    if body.text is None or root is None or len(path) < 2 or path[0] not in _PLACES:
        return None
    draft = Draft(NAME, message, body)
    _put_text(draft, ".".join(level for level in path if level not in _UNNAMED), text)
    return [draft.event(root, "state" if path[0] == _STATISTICS else None)]


FORMATS: tuple[Format, ...] = (
    Format(
        name=NAME,
        read=read,
        topics=(
            "dsmr/json",
            "dsmr/current-period",
            *(f"{above}dsmr/{place}/#" for place in sorted(_PLACES) for above in ("", "+/")),
        ),
        starts=(b"/",),
        keys=(frozenset({"electricity_delivered_1", "electricity_returned_1"}),),
    ),
)
