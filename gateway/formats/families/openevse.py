"""OpenEVSE, a charging station with the ESP32 gateway: https://github.com/OpenEVSE/openevse_esp32_firmware, docs/."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from gateway.formats.body import Body, Json
from gateway.formats.draft import Draft
from gateway.formats.format import Format, Lesson, Unreadable
from gateway.formats.plain import scalar
from storage.event import Event, Kind, Message, Value

NAME = "openevse"

_MOST_SCALED = 10**6
# By unit, as published: the current is in mA. Not here: what the documentation gives no unit for.
_NAMED = """
mA   amp
V    voltage
W    power home_battery_power shaper_live_pwr shaper_smoothed_live_pwr shaper_max_pwr solar grid_ie
A    pilot max_current
dBm  srssi
B    freeram
s    session_elapsed elapsed uptime time_to_full_charge
Wh   session_energy watthour wh
W.s  wattsec
kWh  total_energy total_day total_week total_month total_year
%    battery_level vehicle_charge_limit home_battery_soc
"""
# In tenths and hundredths; `false` where no sensor is fitted.
_SCALED = {
    **dict.fromkeys(("temp", "temp_max", "temp1", "temp2", "temp3", "temp4"), (10, "°C")),
    "frequency": (100, "Hz"),
}
_PLAIN = """
total_switches battery_range charge_rate available_current smoothed_available_current trigger_current min_charge_end
shaper_cur gfcicount nogndcount stuckcount comm_sent comm_success packets_sent packets_success
"""
_STATES = """
state status flags vehicle colour manual_override evse_connected divertmode rfid_auth time local_time offset
divert_active shaper mode service_level config_version
"""
_DOCUMENTS = "config claim override schedule limit boost"
_ORDERS = """
override/set claim/set schedule/set schedule/clear limit/set boost/set config/set divertmode/set shaper/set restart
"""
# `$GC` stands in the topic, with its parameters in the payload.
_RAPI_IN, _RAPI_OUT = "rapi/in", "rapi/out"
_DOCUMENT_UNITS = {"charge_current": "A", "max_current": "A"}


def read(message: Message, body: Body) -> Sequence[Event] | None:
    """One event of the station that the topic is below of, or that the announcement names."""
    if body.document is None and body.json_fault:
        raise Unreadable(body.json_fault)
    if _is_announcement(body.document):
        return [_announced(message, body)]
    base, path = _split(message.topic)
    device = base.rpartition("/")[2]
    if not (device.lower().startswith("openevse") or body.learned.get(NAME, message.topic)):
        return None
    if body.document is None and body.text is None:
        return None
    draft = Draft(NAME, message, body)
    return [draft.event(device, _fill(draft, path, body))]


def teach(message: Message, body: Body) -> Iterable[Lesson]:  # noqa: ARG001
    """Where a station publishes that has not `openevse` in its name: it says so itself."""
    document = body.document
    base = document.get("mqtt") if isinstance(document, dict) and _is_announcement(document) else None
    if not isinstance(base, str) or not base or base.rpartition("/")[2].lower().startswith("openevse"):
        return
    for path in _PATHS:
        topic = f"{base}/{path}"
        yield Lesson(key=topic, value=True, topics=(topic,))


def _is_announcement(document: Json) -> bool:
    return (
        isinstance(document, dict)
        and document.get("state") in ("connected", "disconnected")
        and isinstance(document.get("id"), str)
        and isinstance(document.get("name"), str)
    )


def _announced(message: Message, body: Body) -> Event:
    document = body.document if isinstance(body.document, dict) else {}
    draft = Draft(NAME, message, body)
    for key, node in document.items():
        if key != "name":
            draft.put(key, node)
    return draft.event(str(document.get("name")) or str(document.get("id")), "availability")


def _split(topic: str) -> tuple[str, str]:
    """The base topic, and the path that is known below it."""
    base, found, command = topic.partition(f"/{_RAPI_IN}/")
    if found:
        return base, f"{_RAPI_IN}/{command}"
    levels = topic.rstrip("/").split("/")
    for back in (2, 1):
        if "/".join(levels[-back:]) in _PATHS:
            return "/".join(levels[:-back]), "/".join(levels[-back:])
    return "", ""


def _fill(draft: Draft, path: str, body: Body) -> Kind | None:
    text = body.text or ""
    if path.startswith(_RAPI_IN):
        draft.put_scalar(f"rapi.in.{path[len(_RAPI_IN) + 1 :]}", text)
        return "command"
    if path == _RAPI_OUT:
        draft.put("rapi.out", text)
        return "event"
    name = path.partition("/")[0]
    if path in _OF_ORDERS:
        _put(draft, "schedule.clear" if path == "schedule/clear" else name, body)
        return "command"
    if name in _OF_DOCUMENTS:
        _put(draft, name, body)
        return "state"
    value = text if name == "rfid_auth" else scalar(text) if text else None  # a tag's number is its name
    return _put_value(draft, name, value)


def _put(draft: Draft, name: str, body: Body) -> None:
    """An object; that there is none is told by a state of "null"."""
    document = body.document
    if not isinstance(document, dict):
        draft.put(name, document if document is not None else scalar(body.text) if body.text else None)
        return
    for key, node in document.items():
        draft.put(f"{name}.{key}", None if node == "null" else node)
    draft.put_known_units(_unit_within)


def _unit_within(name: str) -> str | None:
    return _DOCUMENT_UNITS.get(name.rpartition(".")[2])


def _put_value(draft: Draft, name: str, value: Value) -> Kind | None:
    if name in _OF_STATES:
        draft.put(name, value)
        return "state"
    if value is False or value is None:
        draft.put_missing(name)
    elif isinstance(value, (str, bool)):
        draft.put(name, value)
    elif name in _SCALED and abs(value) < _MOST_SCALED:
        by, unit = _SCALED[name]
        draft.put_value(name, value / by, unit, source="format")
    else:
        draft.put_value(name, value, _UNITS.get(name), source="format")
    return "measurement"


_UNITS = {name: line.split()[0] for line in _NAMED.strip().splitlines() for name in line.split()[1:]}
_OF_STATES = frozenset(_STATES.split())
_OF_DOCUMENTS = frozenset(_DOCUMENTS.split())
_OF_ORDERS = frozenset(_ORDERS.split())
_PATHS = frozenset([*_UNITS, *_SCALED, *_PLAIN.split(), _RAPI_OUT]) | _OF_STATES | _OF_DOCUMENTS | _OF_ORDERS

FORMATS: tuple[Format, ...] = (
    Format(
        name=NAME,
        read=read,
        topics=(
            "openevse*/#",
            "+/openevse*/#",
        ),
        keys=(frozenset({"state", "id", "name", "mqtt", "http"}),),
        teach=teach,
        learned_topics=True,
    ),
)
