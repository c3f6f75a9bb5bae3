"""Helium Console (legacy): what its MQTT integration publishes of LoRaWAN devices.

https://docs.helium.com/console/integrations/mqtt; today's Helium networks run ChirpStack.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from gateway.formats.body import Body, Json
from gateway.formats.draft import Draft
from gateway.formats.format import Format, Unreadable
from gateway.formats.nodes import members, number, objects, text
from gateway.formats.values import position
from storage.event import Event, Message

NAME = "helium_legacy"

Object = dict[str, Json]


def read(message: Message, body: Body) -> Sequence[Event] | None:
    """One event: what a device sent, or what it is to be sent."""
    levels = message.topic.split("/")
    in_topic = levels[-2] if len(levels) > 2 and levels[-3] == "helium" else ""
    document = body.document
    if document is None and in_topic and body.json_fault:
        raise Unreadable(body.json_fault)
    if not isinstance(document, dict):
        return None
    draft = Draft(NAME, message, body)
    if in_topic and levels[-1] == "tx" and "payload_raw" in document:
        for key, value in document.items():
            draft.put(key, value)
        return [draft.event(in_topic, "command", vendor_type="tx")]
    device = text(document.get("dev_eui"))
    hotspots = document.get("hotspots")
    if device is None or not isinstance(hotspots, list):
        return None
    return [_uplink(draft, device, document, objects(hotspots))]


# Not the place of a hotspot (`lat`, `long`), which is nothing of the device's.
_HOTSPOT_UNITS = {"rssi": "dBm", "snr": "dB", "frequency": "MHz"}
_HOTSPOT_TEXTS = ("name", "spreading", "status")


def _uplink(draft: Draft, device: str, document: Object, hotspots: list[Object]) -> Event:
    for at, hotspot in enumerate(hotspots):
        for key in _HOTSPOT_TEXTS:
            if said := text(hotspot.get(key)):
                draft.put(f"hotspots.{at}.{key}", said)
        for key, unit in _HOTSPOT_UNITS.items():
            if (value := number(hotspot.get(key))) is not None:
                draft.put_value(f"hotspots.{at}.{key}", value, unit, source="format")
    for key in ("name", "port", "payload", "payload_size"):
        if key in document:
            draft.put(key, document[key])
    _put_decoded(draft, members(document.get("decoded")))
    counter = document.get("fcnt")
    heard_by = hotspots[0] if hotspots else {}
    where = position(draft.readings)
    draft.put_units(dict.fromkeys(where or (), "deg"))
    joined = document.get("type") == "join"
    return draft.event(
        device,
        "event" if joined else "location" if where else "measurement",
        stamp=document.get("reported_at"),
        seq=counter if type(counter) is int else None,
        via=text(heard_by.get("name")) or text(heard_by.get("id")),
        vendor_type=text(document.get("type")) or "uplink",
    )


def _put_decoded(draft: Draft, decoded: Object) -> None:
    payload = decoded.get("payload")
    if isinstance(payload, dict):
        for key, value in payload.items():
            draft.put(key, value)
    elif channels := objects(payload):
        _put_channels(draft, channels)
    elif payload is not None:
        draft.put("decoded.payload", payload)
    if error := text(decoded.get("error")):
        draft.put("decoded.error", error)


def _put_channels(draft: Draft, channels: list[Object]) -> None:
    """The list that the decoder for Cayenne LPP gives; of several with one name each bears its channel."""
    bearers = Counter(str(channel.get("name")) for channel in channels)
    for at, channel in enumerate(channels):
        name = text(channel.get("name")) or f"decoded.{at}"
        if bearers[name] > 1:
            name = f"{name}_{channel.get('channel', at)}"
        value = channel.get("value")
        unit = channel.get("unit")
        if isinstance(value, (dict, list)):
            draft.put(name, value)
        else:
            draft.put_value(name, value, unit if isinstance(unit, str) else None)


FORMATS: tuple[Format, ...] = (
    Format(
        name=NAME,
        read=read,
        topics=("#/helium/+/rx", "#/helium/+/tx"),
        keys=(frozenset({"dev_eui", "hotspots"}),),
    ),
)
