"""Meshtastic: the packets of a LoRa mesh as its gateways publish them in JSON.

https://meshtastic.org/docs/software/integrations/mqtt/
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gateway.formats.body import Body, Json
from gateway.formats.draft import Draft
from gateway.formats.format import Format
from gateway.formats.nodes import members, number, objects, opened, text
from storage.event import Event, Kind, Message

NAME = "meshtastic_json"

Object = dict[str, Json]

_NODES = 2**32


def read(message: Message, body: Body) -> Sequence[Event] | None:
    """One event of a packet: its device is the node that sent it, heard by the gateway that published it."""
    levels = message.topic.split("/")
    if len(levels) > 1 and levels[-2] == "stat":
        return _presence(message, body, levels[-1])
    document = opened(body, certain=len(levels) > 3 and levels[-3] == "json")
    if document is None:
        return None
    sender = _node(document.get("from"))
    sort = document.get("type")
    if sender is None or not (isinstance(sort, str) or "bytes" in document):
        return None
    return [_packet(Draft(NAME, message, body), sender, sort if isinstance(sort, str) else "", document, levels[-1])]


def _presence(message: Message, body: Body, node: str) -> Sequence[Event] | None:
    if body.text not in ("online", "offline") or not node.startswith("!"):
        return None
    draft = Draft(NAME, message, body)
    draft.put("status", body.text)
    return [draft.event(node, "availability", vendor_type="stat")]


def _node(number_of_node: Json) -> str | None:
    """`!e213a228` of a node's number, which firmware before 2.2.0 gave as a signed one."""
    if type(number_of_node) is not int or not -_NODES // 2 <= number_of_node < _NODES:
        return None
    return f"!{number_of_node % _NODES:08x}"


def _packet(draft: Draft, sender: str, sort: str, document: Object, last: str) -> Event:
    _CONTENTS.get(sort, _put_content)(draft, document.get("payload"))
    for key, unit in (("rssi", "dBm"), ("snr", "dB"), ("hops_away", None), ("hop_start", None), ("channel", None)):
        if (value := number(document.get(key))) is not None:
            draft.put_value(key, value, unit, source="format")
    if receiver := _node(document.get("to")):
        draft.put("to", receiver)
    for key in ("bytes", "size"):  # a packet that the gateway has no key for
        if key in document:
            draft.put(key, document[key])
    packet = document.get("id")
    gateway = text(document.get("sender")) or (last if last.startswith("!") else None)
    return draft.event(
        sender,
        _KINDS.get(sort, "other"),
        stamp=document.get("timestamp"),
        via=None if gateway == sender else gateway,
        vendor_type=sort or None,
        source_id=str(packet) if type(packet) is int and abs(packet) < _NODES else None,
        placed=sort != "waypoint",
    )


_KINDS: dict[str, Kind] = {
    "detection": "event",
    "gpios_changed": "event",
    "neighborinfo": "state",
    "nodeinfo": "discovery",
    "paxcounter": "measurement",
    "position": "location",
    "sendposition": "command",
    "sendtext": "command",
    "telemetry": "measurement",
    "text": "event",
    "traceroute": "event",
    "waypoint": "event",
}

_UNITS = {
    "air_util_tx": "%",
    "barometric_pressure": "hPa",
    "battery_level": "%",
    "channel_utilization": "%",
    "distance": "mm",
    "gas_resistance": "MOhm",
    "ir_lux": "lx",
    "lux": "lx",
    "node_broadcast_interval_secs": "s",
    "pm10": "ug/m3",
    "pm100": "ug/m3",
    "pm100_e": "ug/m3",
    "pm10_e": "ug/m3",
    "pm25": "ug/m3",
    "pm25_e": "ug/m3",
    "co2": "ppm",
    "radiation": "uR/h",
    "rainfall_1h": "mm",
    "rainfall_24h": "mm",
    "relative_humidity": "%",
    "soil_moisture": "%",
    "soil_temperature": "Cel",
    "temperature": "Cel",
    "uptime": "s",
    "uptime_seconds": "s",
    "uv_lux": "lx",
    "voltage": "V",
    "voltage_ch1": "V",
    "voltage_ch2": "V",
    "voltage_ch3": "V",
    "weight": "kg",
    "white_lux": "lx",
    "wind_direction": "deg",
    "wind_gust": "m/s",
    "wind_lull": "m/s",
    "wind_speed": "m/s",
}
"""https://github.com/meshtastic/protobufs/blob/master/meshtastic/telemetry.proto. A current has no unit there:
it says milliampere for one sensor and nothing for the others."""


def _put_content(draft: Draft, payload: Json) -> None:
    if not isinstance(payload, dict):
        if payload is not None:
            draft.put("payload", payload)
        return
    for key, value in payload.items():
        _put(draft, key, value, _UNITS.get(key))


def _put(draft: Draft, name: str, value: Json, unit: str | None) -> None:
    if isinstance(value, (dict, list)):
        draft.put(name, value)
    else:
        draft.put_value(name, value, unit, source="format")


def _put_telemetry(draft: Draft, payload: Json) -> None:
    _put_content(draft, payload)
    level = draft.readings.get("battery_level")
    if type(level) is int and level > 100:  # says that there is power from outside, not how full the battery is
        draft.put_missing("battery_level")
        draft.put("external_power", node=True)


def _put_position(draft: Draft, payload: Json) -> None:
    # ground_speed and ground_track have no unit: the protocol says m/s and 1/100 degree, its firmware writes km/h
    # and 1/100 000 degree (GPS.cpp).
    for key, value in members(payload).items():
        if key in ("latitude_i", "longitude_i"):
            _put_angle(draft, key.removesuffix("_i"), value)
        else:
            _put(draft, key, value, "m" if key == "altitude" else None)


def _put_angle(draft: Draft, name: str, value: Json) -> None:
    if type(value) is int and abs(value) <= 1_800_000_000:
        draft.put_value(name, round(value * 1e-7, 7), "deg", source="format")
    else:
        draft.put_missing(name, "bad")


def _put_neighbors(draft: Draft, payload: Json) -> None:
    seen = members(payload)
    for at, neighbor in enumerate(objects(seen.get("neighbors"))):
        if node := _node(neighbor.get("node_id")):
            draft.put(f"neighbors.{at}.node_id", node)
        if (snr := number(neighbor.get("snr"))) is not None:
            draft.put_value(f"neighbors.{at}.snr", snr, "dB", source="format")
    for key, value in seen.items():
        if key in ("node_id", "last_sent_by_id"):
            draft.put(key, _node(value) or value)
        elif key != "neighbors":
            _put(draft, key, value, _UNITS.get(key))


def _put_route(draft: Draft, payload: Json) -> None:
    for key, value in members(payload).items():
        draft.put(key, value)
    draft.put_units({name: "dB" for name in draft.readings if name.startswith(("snr_towards.", "snr_back."))})


def _put_text(draft: Draft, payload: Json) -> None:
    """A text that happened to be JSON comes as that: a number, or an object of the sender's own."""
    if isinstance(payload, dict):
        for key, value in payload.items():
            draft.put(key, value)
    else:
        draft.put("text", payload)


_CONTENTS: dict[str, Callable[[Draft, Json], None]] = {
    "neighborinfo": _put_neighbors,
    "position": _put_position,
    "sendposition": _put_position,
    "sendtext": _put_text,
    "telemetry": _put_telemetry,
    "text": _put_text,
    "traceroute": _put_route,
    "waypoint": _put_position,
}

FORMATS: tuple[Format, ...] = (
    Format(
        name=NAME,
        read=read,
        topics=("#/2/json/+/+", "#/2/stat/+"),
        keys=(frozenset({"from", "sender", "type", "timestamp"}), frozenset({"from", "to", "type", "payload", "id"})),
    ),
)
