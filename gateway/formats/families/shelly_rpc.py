"""Shelly, second generation and later: statuses of components, notifications, and calls with their answers.

Topics and payloads: https://shelly-api-docs.shelly.cloud/gen2/ComponentsAndServices/Mqtt; units: the page of each
component there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

from gateway.formats.body import Body, Json
from gateway.formats.draft import Draft
from gateway.formats.families import shelly_blu
from gateway.formats.format import Format, Lesson, Unreadable
from storage.event import Event, Kind, Message

NAME = "shelly_gen2"
_ROOT = "shellies/"
_COMPONENT = re.compile(r"[a-z][a-z0-9_]{1,30}(:\d{1,4})?")


def read(message: Message, body: Body) -> Sequence[Event] | None:
    """An event of the device; of a notification of events, one for each."""
    place, document = _placed(message.topic), body.document
    if isinstance(document, dict):
        if isinstance(document.get("src"), str) and (place.word == "rpc" or "method" in document or "dst" in document):
            return _called(message, body, place, document)
        if place.word == "status" and _is_status(place.last, document):
            return [_status(message, body, place, document)]
        if place.word == "command":
            return _ordered(message, body, place)
        return _announced(message, body, place, document) if _INFO.issubset(document) else None
    if body.json_fault and place.word in ("rpc", "status"):
        raise Unreadable(body.json_fault)
    if place.word == "online" and body.text in ("true", "false"):
        draft = Draft(NAME, message, body)
        draft.put("online", body.text == "true")
        return [draft.event(place.device, "availability")]
    return _ordered(message, body, place) if place.word == "command" else None


def teach(message: Message, body: Body) -> Iterable[Lesson]:
    """That the device of a prefix is of this generation: its `online` looks like that of the first."""
    place = _placed(message.topic)
    if place.word not in ("rpc", "status") or not place.base:
        return
    online = f"{place.base}/online"
    if body.learned.get(NAME, online) is None:
        yield Lesson(key=online, value=True, topics=(online,))


# ---------------------------------------------------------------- what the topic says


class _Place(NamedTuple):
    base: str
    """The prefix that the user chose; that of the factory is the device's id."""
    device: str
    word: str
    """`rpc`, `status`, `command`, `online`, or empty."""
    last: str


def _placed(topic: str) -> _Place:
    return _remembered(topic) if len(topic) <= _MOST_REMEMBERED_CHARS else _place(topic)


def _place(topic: str) -> _Place:
    *levels, last = topic.split("/")
    before = "/".join(levels[:-1])
    if levels and levels[-1] == "events" and last == "rpc":
        return _Place(before, _device(before), "rpc", last)
    base = "/".join(levels)
    if last in ("rpc", "online", "command"):
        return _Place(base, _device(base), last, "")
    if levels and levels[-1] in ("status", "command"):
        return _Place(before, _device(before), levels[-1], last)
    return _Place(base, _device(base) or last, "", last)


_remembered = lru_cache(maxsize=8_192)(_place)
_MOST_REMEMBERED_CHARS = 512


def _device(base: str) -> str:
    return base.removeprefix(_ROOT)


# ---------------------------------------------------------------- notifications, calls and answers


def _called(message: Message, body: Body, place: _Place, document: dict[str, Json]) -> Sequence[Event] | None:
    source = document.get("src")
    sender = source.strip() if isinstance(source, str) else ""
    method, parameters = document.get("method"), document.get("params")
    if isinstance(method, str) and method.startswith("Notify"):
        if not sender or not isinstance(parameters, dict):
            return None
        if method == "NotifyEvent":
            return _happened(message, body, sender, parameters)
        return [_notified(message, body, sender, method, parameters)]
    if isinstance(method, str) and place.word == "rpc":
        return [_asked(message, body, place.device or sender, method, parameters)]
    if sender and ("result" in document or "error" in document):
        return [_answered(message, body, sender, document)]
    return None


def _notified(message: Message, body: Body, device: str, method: str, parameters: dict[str, Json]) -> Event:
    draft = Draft(NAME, message, body)
    stamp = parameters.get("ts")
    kind = _put_components(draft, parameters)
    if method == "NotifyFullStatus":
        kind = "state"
    if stamp is not None and draft.believed(stamp) is None:  # before the clock was set: seconds since boot
        draft.put("ts", stamp)
    return draft.event(device, kind, stamp=stamp, vendor_type=method)


def _happened(message: Message, body: Body, device: str, parameters: dict[str, Json]) -> Sequence[Event] | None:
    listed = parameters.get("events")
    if not isinstance(listed, list):
        return None
    draft = Draft(NAME, message, body)
    events: list[Event] = []
    for item in listed:
        if not isinstance(item, dict):
            continue
        stamp = item.get("ts", parameters.get("ts"))
        data = item.get("data")
        if isinstance(data, dict) and shelly_blu.is_heard(data):
            events.append(shelly_blu.heard(draft, data, stamp=stamp, via=device))
            continue
        for key, node in item.items():
            if key not in ("ts", "id"):
                _put(draft, key, node, _Spot("", key))
        events.append(draft.event(device, "event", stamp=stamp, vendor_type="NotifyEvent"))
    return events


def _asked(message: Message, body: Body, device: str, method: str, parameters: Json) -> Event:
    draft = Draft(NAME, message, body)
    draft.put("method", method)
    if isinstance(parameters, dict):
        for key, node in parameters.items():
            draft.put(f"params.{key}", node)
    return draft.event(device, "command", vendor_type=method)


def _answered(message: Message, body: Body, device: str, document: dict[str, Json]) -> Event:
    draft = Draft(NAME, message, body)
    result, error = document.get("result"), document.get("error")
    if isinstance(error, dict):
        for key, node in error.items():
            draft.put(f"error.{key}", node)
        return draft.event(device, "event")
    if not isinstance(result, dict):
        if result is not None:
            draft.put("result", result)
        return draft.event(device, "state")
    if _INFO.issubset(result):
        _put_info(draft, result)
        return draft.event(device, "discovery")
    kind = _put_components(draft, result)
    return draft.event(device, kind)


def _announced(message: Message, body: Body, place: _Place, document: dict[str, Json]) -> Sequence[Event] | None:
    name = document.get("id")
    draft = Draft(NAME, message, body)
    _put_info(draft, document)
    return [draft.event(name if isinstance(name, str) and name.strip() else place.device, "discovery")]


def _put_info(draft: Draft, document: dict[str, Json]) -> None:
    for key, node in document.items():
        if key != "id":
            draft.put(key, node)


_INFO = frozenset({"mac", "fw_id", "app", "gen"})


def _ordered(message: Message, body: Body, place: _Place) -> Sequence[Event] | None:
    """`command/switch:0` with on, off or toggle; `command` alone with announce or status_update."""
    if not (":" in place.last or message.topic.startswith(_ROOT)) or body.text is None:
        return None
    draft = Draft(NAME, message, body)
    if isinstance(body.document, dict):
        draft.put(place.last or "command", body.document)
    elif body.text:
        draft.put_scalar(place.last or "command", body.text)
    return [draft.event(place.device, "command")]


# ---------------------------------------------------------------- components


def _is_status(component: str, document: dict[str, Json]) -> bool:
    if not _COMPONENT.fullmatch(component):
        return False
    if ":" in component:
        return "id" in document or _VIRTUAL.issubset(document)
    return component in _SYSTEM and not _OF_SYSTEM.get(component, _CONNECTION).isdisjoint(document)


_CONNECTION = frozenset({"connected", "enabled"})
_VIRTUAL = frozenset({"value", "last_update_ts"})
_OF_SYSTEM = {
    "sys": frozenset({"mac", "unixtime", "available_updates"}),
    "wifi": frozenset({"sta_ip", "ap_client_count"}),
    "eth": frozenset({"ip"}),
}


def _status(message: Message, body: Body, place: _Place, document: dict[str, Json]) -> Event:
    draft = Draft(NAME, message, body)
    kind = _put_components(draft, {place.last: document})
    return draft.event(place.device, kind)


def _put_components(draft: Draft, components: dict[str, Json]) -> Kind:
    """A measurement where anything but the system itself gives a number."""
    measured = False
    for key, node in components.items():
        if key == "ts":
            continue
        before = len(draft.readings)
        _put(draft, key, _without_channel(key, node), _Spot("", key))
        if not measured and key.partition(":")[0] not in _SYSTEM and len(draft.readings) > before:
            added = list(draft.readings.items())[before:]
            # A thermometer that has failed gives null.
            measured = any(type(value) in (int, float) or name in draft.units for name, value in added)
    return "measurement" if measured else "state"


def _without_channel(key: str, node: Json) -> Json:
    if isinstance(node, dict) and ":" in key:
        return {inner: value for inner, value in node.items() if inner != "id"}
    return node


_SYSTEM = frozenset(
    {"ble", "cloud", "eth", "ht_ui", "knx", "matter", "mqtt", "plugs_ui", "script", "sys", "ui", "wifi", "ws", "zigbee"}
)


class _Spot(NamedTuple):
    parent: str
    key: str


_MOST_LEVELS = 8


def _put(draft: Draft, name: str, node: Json, spot: _Spot) -> None:
    if isinstance(node, dict) and name.count(".") < _MOST_LEVELS:
        for key, inner in node.items():
            _put(draft, f"{name}.{key}", inner, _Spot(spot.key, key))
    elif isinstance(node, dict):
        draft.put(name, node)
    elif isinstance(node, list):
        unit = "mW.h" if spot.key == "by_minute" and spot.parent in _ENERGY else None
        for at, item in enumerate(node) if unit and len(node) <= draft.options.array_items else ():
            if not isinstance(item, (dict, list)):
                draft.put_value(f"{name}.{at}", item, unit, source="format")
        if unit is None or len(node) > draft.options.array_items:
            draft.put(name, node)
    elif isinstance(node, (bool, str)):
        draft.put(name, node if node != "" else None)
    else:
        unit = "Wh" if spot.key == "total" and spot.parent in _ENERGY else _UNITS.get(spot.key)
        draft.put_value(name, node, unit, source="format")


_ENERGY = frozenset({"aenergy", "ret_aenergy"})
_PHASES = ("", "a_", "b_", "c_", "n_", "total_")
_UNITS = {
    **{f"{phase}current": "A" for phase in _PHASES},
    **{f"{phase}voltage": "V" for phase in _PHASES},
    **{f"{phase}act_power": "W" for phase in _PHASES},
    **{f"{phase}aprt_power": "VA" for phase in _PHASES},
    **{f"{phase}freq": "Hz" for phase in _PHASES},
    **{f"{phase}total_act_energy": "Wh" for phase in _PHASES},
    **{f"{phase}total_act_ret_energy": "Wh" for phase in _PHASES},
    "total_act": "Wh",
    "total_act_ret": "Wh",
    "apower": "W",
    "aprtpower": "VA",
    "tC": "C",
    "tF": "F",
    "current_C": "C",
    "target_C": "C",
    "rh": "%",
    "lux": "lux",
    "V": "V",
    "percent": "%",
    "progress_percent": "%",
    "brightness": "%",
    "current_pos": "%",
    "target_pos": "%",
    "ct": "K",
    "rssi": "dBm",
    "uptime": "s",
    "wakeup_period": "s",
    "timer_duration": "s",
    "move_timeout": "s",
    "time_ms": "ms",
    "ram_size": "B",
    "ram_free": "B",
    "ram_min_free": "B",
    "fs_size": "B",
    "fs_free": "B",
    "mem_used": "B",
    "mem_peak": "B",
    "mem_free": "B",
}

_KEYS = (
    ("src", "dst", "method", "params"),
    ("mac", "fw_id", "app", "gen"),
    ("id", "source", "output"),
    ("id", "state", "pos_control"),
    ("id", "apower", "aenergy"),
    ("id", "act_power", "aprt_power"),
    ("id", "a_current", "a_voltage"),
    ("id", "total_act"),
    ("id", "total_act_energy"),
    ("id", "tC", "tF"),
    ("id", "rh"),
    ("id", "lux", "illumination"),
    ("id", "battery", "external"),
    ("id", "alarm", "mute"),
    ("id", "value", "last_updated_ts"),
    ("value", "source", "last_update_ts"),
    ("id", "target_C", "current_C"),
)
"""What components' statuses hold: the prefix of their topics is the user's, and MQTT filters know no `switch:*`."""
_TOPICS = (
    "#/events/rpc",
    "#/rpc",
    f"#/{_ROOT}#",
    *(f"#/status/{component}" for component in ("sys", "wifi", "mqtt", "cloud", "ble", "eth", "ws")),
    *(f"#/status/input:{number}" for number in (*range(8), *range(100, 104))),
    *(f"#/status/voltmeter:{number}" for number in range(100, 104)),
    *(f"#/command/{component}:{number}" for component in ("switch", "cover", "light") for number in range(4)),
)

FORMATS: tuple[Format, ...] = (
    Format(
        name=NAME,
        read=read,
        topics=_TOPICS,
        keys=tuple(map(frozenset, _KEYS)),
        teach=teach,
        learned_topics=True,
    ),
)
