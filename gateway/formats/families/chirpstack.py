"""ChirpStack v4: the events of its MQTT integration, the downlinks it is sent, and what its gateways say.

https://www.chirpstack.io/docs/chirpstack/integrations/events.html
https://www.chirpstack.io/docs/chirpstack-gateway-bridge/payloads/events.html
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from gateway.formats.body import Body, Json
from gateway.formats.draft import Draft
from gateway.formats.format import Format
from gateway.formats.nodes import members, number, objects, opened, text
from gateway.formats.values import position
from storage.event import Event, Kind, Message

NAME = "chirpstack_v4"

Object = dict[str, Json]


def read(message: Message, body: Body) -> Sequence[Event] | None:
    """One event: the measurements of an uplink, the state of a device, or what became of a join or a downlink."""
    levels = message.topic.split("/")
    in_topic, sort, name = _told_by(levels)
    document = opened(body, certain=bool(in_topic))
    if document is None:
        return None
    draft = Draft(NAME, message, body)
    if gateway := _gateway_in(levels):
        return [_of_gateway(draft, gateway, levels, document)]
    if sort == "command":
        device = in_topic or text(document.get("devEui"))
        return [_command(draft, device, name, document)] if device else None
    info = members(document.get("deviceInfo"))
    device = text(info.get("devEui")) or (in_topic if info else None) or _of_version_3(document)
    if device is None:
        return None
    name = name or _guessed(document)
    return [_EVENTS.get(name, _other)(draft, device, name, document)]


def _told_by(levels: list[str]) -> tuple[str | None, str, str]:
    """Device, event or command, and which one: `application/<id>/device/<dev_eui>/event/up`."""
    for at in range(len(levels) - 5):
        if levels[at] == "application" and levels[at + 2] == "device":
            return levels[at + 3] or None, levels[at + 4], levels[at + 5]
    return None, "", ""


def _of_version_3(document: Object) -> str | None:
    """The device of a message of ChirpStack 3, which has no `deviceInfo` around it."""
    return text(document.get("devEUI")) if "applicationID" in document else None


_MARKS = {
    "object": "up",
    "rxInfo": "up",
    "data": "up",
    "location": "location",
    "acknowledged": "ack",
    "gatewayId": "txack",
    "margin": "status",
    "batteryLevel": "status",
    "integrationName": "integration",
    "level": "log",
}


def _guessed(document: Object) -> str:
    """Which event it is where the topic does not say; `integrationName` stands beside an object."""
    if "integrationName" in document:
        return "integration"
    return next((name for mark, name in _MARKS.items() if mark in document), "join")


_RECEPTION_UNITS = {"rssi": "dBm", "snr": "dB", "loRaSNR": "dB"}
_RADIO = (("bandwidth", "Hz"), ("spreadingFactor", None), ("bitrate", "bit/s"), ("frequencyDeviation", "Hz"))


def _uplink(draft: Draft, device: str, name: str, document: Object) -> Event:
    receptions = objects(document.get("rxInfo"))
    for at, entry in enumerate(receptions):
        _put_reception(draft, f"rxInfo.{at}", entry)
    _put_radio(draft, members(document.get("txInfo")))
    for key in ("adr", "dr", "fPort", "confirmed", "data"):
        if key in document:
            draft.put(key, document[key])
    _put_object(draft, document.get("object"))
    counter = document.get("fCnt")
    where = position(draft.readings)
    draft.put_units(dict.fromkeys(where or (), "deg"))
    return _event(
        draft,
        device,
        "location" if where else "measurement",
        name,
        document,
        # fCnt is left out where it is 0, as all zeros are: without it, there is no sequence to rely on.
        seq=counter if type(counter) is int else None,
        via=_gateway(receptions[0]) if receptions else None,
    )


def _put_object(draft: Draft, decoded: Json) -> None:
    if isinstance(decoded, dict):
        for key, value in decoded.items():
            draft.put(key, value)
    elif decoded is not None:
        draft.put("object", decoded)


def _put_reception(draft: Draft, path: str, entry: Object) -> None:
    # Not `location`, which is the gateway's.
    if gateway := _gateway(entry):
        draft.put(f"{path}.gatewayId", gateway)
    for key, unit in _RECEPTION_UNITS.items():
        if (value := number(entry.get(key))) is not None:
            draft.put_value(f"{path}.{key}", value, unit, source="format")


def _gateway(node: Object) -> str | None:
    return text(node.get("gatewayId")) or text(node.get("gatewayID"))


def _put_radio(draft: Draft, sent: Object) -> None:
    if (frequency := number(sent.get("frequency"))) is not None:
        draft.put_value("txInfo.frequency", frequency, "Hz", source="format")
    if (power := number(sent.get("power"))) is not None:
        draft.put_value("txInfo.power", power, "dBm", source="format")
    if "dr" in sent:
        draft.put("txInfo.dr", sent["dr"])
    for modulation, parameters in members(sent.get("modulation")).items():
        for key, unit in _RADIO:
            if (value := number(members(parameters).get(key))) is not None:
                draft.put_value(f"txInfo.modulation.{modulation}.{key}", value, unit, source="format")


def _status(draft: Draft, device: str, name: str, document: Object) -> Event:
    if "margin" in document:
        draft.put_value("margin", number(document["margin"]), "dB", source="format")
    if "batteryLevel" in document:
        # 0 is what the field holds where the device runs on mains, or cannot tell.
        known = not (document.get("externalPowerSource") is True or document.get("batteryLevelUnavailable") is True)
        draft.put_value("batteryLevel", number(document["batteryLevel"]) if known else None, "%", source="format")
    for key in ("externalPowerSource", "batteryLevelUnavailable"):
        if key in document:
            draft.put(key, document[key])
    return _event(draft, device, "measurement", name, document)


def _location(draft: Draft, device: str, name: str, document: Object) -> Event:
    units = {"latitude": "deg", "longitude": "deg", "altitude": "m", "accuracy": "m"}
    for key, value in members(document.get("location")).items():
        if isinstance(value, (dict, list)):
            draft.put(f"location.{key}", value)
        else:
            draft.put_value(f"location.{key}", value, units.get(key), source="format")
    return _event(draft, device, "location", name, document)


_ENVELOPE = frozenset({"deduplicationId", "time", "deviceInfo", "txInfo"})


def _other(draft: Draft, device: str, name: str, document: Object) -> Event:
    """A join, an acknowledgement, a log entry, what an integration says."""
    _put_radio(draft, members(document.get("txInfo")))
    for key, value in document.items():
        if key not in _ENVELOPE:
            draft.put(key, value)
    return _event(draft, device, "event", name, document, via=text(document.get("gatewayId")))


def _event(
    draft: Draft,
    device: str,
    kind: Kind,
    name: str,
    document: Object,
    *,
    seq: int | None = None,
    via: str | None = None,
) -> Event:
    if title := text(members(document.get("deviceInfo")).get("deviceName")):
        draft.put("deviceInfo.deviceName", title)
    elif title := text(document.get("deviceName")):
        draft.put("deviceName", title)
    return draft.event(
        device,
        kind,
        stamp=_stamp(document),
        seq=seq,
        via=via,
        vendor_type=name,
        source_id=text(document.get("deduplicationId")),
    )


def _stamp(document: Object) -> Json:
    """The time of an event; in version 3 that of the reception."""
    receptions = objects(document.get("rxInfo"))[:1]
    stamps = (document.get("time"), *(entry.get("time") for entry in receptions), document.get("timestamp"))
    return next((stamp for stamp in stamps if stamp), None)


_EVENTS = {"up": _uplink, "status": _status, "location": _location}


def _command(draft: Draft, device: str, name: str, document: Object) -> Event:
    for key, value in document.items():
        if key != "devEui":
            draft.put(key, value)
    return draft.event(device, "command", vendor_type=name)


_GATEWAY = re.compile(r"[0-9a-fA-F]{16}")
_GATEWAY_KINDS: dict[str, Kind] = {"stats": "measurement", "up": "measurement", "conn": "availability"}


# Not `location`: where a gateway stands is nothing of a frame's.
_OF_ITS_OWN = frozenset({"gatewayId", "gatewayID", "time", "rxInfo", "location"})


def _gateway_in(levels: list[str]) -> str | None:
    """The gateway of `…/gateway/<id>/event/<event>`, `…/state/<state>`, `…/command/<command>`."""
    *_, word, gateway, _, _ = ["", "", "", "", *levels]
    return gateway if word == "gateway" and _GATEWAY.fullmatch(gateway) else None


def _of_gateway(draft: Draft, gateway: str, levels: list[str], document: Object) -> Event:
    """The statistics of a gateway, a frame as it heard it, whether it is connected, or an order to it."""
    *_, sort, name = levels
    reception = members(document.get("rxInfo"))
    for path, node in (("", document), ("rxInfo.", reception)):
        for key, value in node.items():
            if key not in _OF_ITS_OWN:
                draft.put(f"{path}{key}", value)
    draft.put_known_units(lambda reading: _RECEPTION_UNITS.get(reading.removeprefix("rxInfo.")))
    kind: Kind = "command" if sort == "command" else _GATEWAY_KINDS.get(name, "event")
    return draft.event(gateway, kind, stamp=document.get("time") or reception.get("time"), vendor_type=name)


FORMATS: tuple[Format, ...] = (
    Format(
        name=NAME,
        read=read,
        topics=(
            "#/application/+/device/+/event/+",
            "#/application/+/device/+/command/+",
            "#/gateway/+/event/+",
            "#/gateway/+/state/+",
            "#/gateway/+/command/+",
        ),
        keys=(
            frozenset({"deviceInfo", "deduplicationId"}),
            frozenset({"deviceInfo", "time"}),
            frozenset({"devEUI", "applicationID"}),
        ),
    ),
)
