"""The Things Stack (v3): what its application server publishes of LoRaWAN devices.

https://www.thethingsindustries.com/docs/integrations/data-formats/
"""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence

from gateway.formats.body import Body, Json
from gateway.formats.draft import Draft, located
from gateway.formats.format import Format
from gateway.formats.nodes import members, number, objects, opened, text, unquoted
from gateway.formats.values import position
from storage.event import Event, Location, Message

NAME = "tts_v3"

Object = dict[str, Json]

_DOWNLINK_EVENTS = frozenset(
    {
        "downlink_queued",
        "downlink_sent",
        "downlink_ack",
        "downlink_nack",
        "downlink_failed",
        "downlink_queue_invalidated",
    }
)
_TYPES = (
    "uplink_message",
    "uplink_normalized",
    "join_accept",
    *sorted(_DOWNLINK_EVENTS),
    "location_solved",
    "service_data",
    "downlinks",
)


def read(message: Message, body: Body) -> Sequence[Event] | None:
    """One event: the measurements of an uplink, or what became of a join or a downlink."""
    levels = message.topic.split("/")
    in_topic = _device_in(levels)
    document = opened(body, certain=bool(in_topic))
    if document is None:
        return None
    ids = members(document.get("end_device_ids"))
    device = text(ids.get("device_id")) or in_topic
    kind_of_message = next((name for name in _TYPES if name in document), None)
    if not device or kind_of_message is None or not (ids or in_topic):
        return None
    draft = Draft(NAME, message, body)
    if kind_of_message == "downlinks":
        return [_command(draft, device, document, levels)]
    content = document.get(kind_of_message)
    if not isinstance(content, dict) or not ids:
        return None
    if dev_eui := text(ids.get("dev_eui")):
        draft.put("dev_eui", dev_eui)
    if kind_of_message in ("uplink_message", "uplink_normalized"):
        return [_uplink(draft, device, document, kind_of_message, content)]
    return [_other(draft, device, document, kind_of_message, content)]


def _uplink(draft: Draft, device: str, document: Object, kind_of_message: str, uplink: Object) -> Event:
    gateways = objects(uplink.get("rx_metadata"))
    for at, entry in enumerate(gateways):
        _put_reception(draft, f"rx_metadata.{at}", entry)
    _put_radio(draft, uplink)
    normalized = uplink.get("normalized_payload")
    _put_normalized(draft, "" if kind_of_message == "uplink_normalized" else "normalized_payload", normalized)
    _put_decoded(draft, uplink)
    if document.get("simulated") is True:
        draft.put("simulated", node=True)
    counter = uplink.get("f_cnt")
    where = position(draft.readings)
    draft.put_units(dict.fromkeys(where or (), "deg"))
    return draft.event(
        device,
        "location" if where else "measurement",
        stamp=_time_of_uplink(draft, document, uplink, gateways),
        seq=counter if type(counter) is int else None,
        via=_gateway(gateways[0]) if gateways else None,
        vendor_type=kind_of_message,
        # The counter runs within a session. The network tells the same uplink a second time in its normalized form.
        boot=text(uplink.get("session_key_id")) if kind_of_message == "uplink_message" else None,
        location=located(draft.readings) or _registered(uplink.get("locations")),
    )


def _time_of_uplink(draft: Draft, document: Object, uplink: Object, gateways: list[Object]) -> Json:
    """The gateway's clock is nearest to the transmission, and the servers' come after it."""
    settings = members(uplink.get("settings"))
    stamps = [settings.get("time"), *(entry.get("time") for entry in gateways[:1])]
    stamps += [uplink.get("received_at"), document.get("received_at")]
    return next((stamp for stamp in stamps if stamp is not None and draft.believed(stamp) is not None), None)


_RECEPTION_UNITS = {"rssi": "dBm", "channel_rssi": "dBm", "signal_rssi": "dBm", "snr": "dB", "frequency_offset": "Hz"}


def _put_reception(draft: Draft, path: str, entry: Object) -> None:
    # Not the gateway's own place, which is nothing of the device's, and no tokens.
    if name := _gateway(entry):
        draft.put(f"{path}.gateway_id", name)
    for key, unit in _RECEPTION_UNITS.items():
        if (value := number(entry.get(key))) is not None:
            draft.put_value(f"{path}.{key}", value, unit, source="format")


def _put_radio(draft: Draft, uplink: Object) -> None:
    settings = members(uplink.get("settings"))
    lora = members(members(settings.get("data_rate")).get("lora"))
    # 64 bit integers are quoted in the JSON of protocol buffers.
    if (frequency := number(settings.get("frequency"))) is not None:
        draft.put_value("settings.frequency", frequency, "Hz", source="format")
    if (bandwidth := number(lora.get("bandwidth"))) is not None:
        draft.put_value("settings.data_rate.lora.bandwidth", bandwidth, "Hz", source="format")
    if (spreading := number(lora.get("spreading_factor"))) is not None:
        draft.put("settings.data_rate.lora.spreading_factor", spreading)
    airtime = uplink.get("consumed_airtime")
    if isinstance(airtime, str) and (seconds := number(airtime.removesuffix("s"))) is not None:
        draft.put_value("consumed_airtime", seconds, "s", source="format")
    for key in ("f_port", "confirmed"):
        if key in uplink:
            draft.put(key, uplink[key])


# The decoders that Dragino publishes for its devices (https://github.com/dragino/dragino-end-node-decoder).
_DRAGINO_UNITS = (
    ("bat", "V"),
    ("adc_ch", "V"),
    ("temp", "Cel"),
    ("tem_", "Cel"),
    ("hum", "%"),
    ("ill_l", "lx"),
    ("water_soil", "%"),
    ("conduct_soil", "uS/cm"),
)
_DRAGINO_NO_PROBE = (327.67, 3276.7)  # 0x7FFF: nothing is connected


def _put_decoded(draft: Draft, uplink: Object) -> None:
    decoded = uplink.get("decoded_payload")
    payload = uplink.get("frm_payload")
    if isinstance(payload, str):
        draft.put("frm_payload", payload)
    if not isinstance(decoded, dict):
        if isinstance(payload, str) and (readable := printable(payload)):
            draft.put("frm_payload_text", readable)
        if decoded is not None:
            draft.put("decoded_payload", decoded)
        return
    dragino = members(uplink.get("version_ids")).get("brand_id") == "dragino"
    known = _FENCYBOY_UNITS if "FENCEVOLTAGE" in decoded else {}
    for key, value in decoded.items():
        if dragino and type(value) in (int, float):
            _put_dragino(draft, key, value)
        elif key == "messages" and (measured := _measured_by_sensecap(value)):
            _put_sensecap(draft, measured)
        elif key in known and type(value) in (int, float):
            draft.put_value(key, number(value), known[key], source="format")
        else:
            draft.put(key, value)


def _put_dragino(draft: Draft, key: str, value: Json) -> None:
    low = key.lower()
    unit = next((unit for start, unit in _DRAGINO_UNITS if low.startswith(start)), None)
    if unit == "Cel" and value in _DRAGINO_NO_PROBE:
        draft.put_missing(key, "bad")
    else:
        draft.put_value(key, number(value), unit, source="format")


_FENCYBOY_UNITS = {
    "BATTERYVOLTAGE": "V",
    "FENCEVOLTAGE": "V",
    "FENCEVOLTAGEMAX": "V",
    "FENCEVOLTAGEMIN": "V",
    "REMAINING_CAPACITY": "mAh",
    "TEMPERATURE": "Cel",
}
"""Of the fence monitor that names its fields so (https://www.fencyboy.com)."""

_SENSECAP_UNITS = {
    "4097": "Cel",
    "4098": "%",
    "4099": "lx",
    "4100": "ppm",
    "4101": "Pa",
    "4102": "Cel",
    "4103": "%",
    "4104": "deg",
    "4105": "m/s",
    "4106": "[pH]",
    "4108": "mS/cm",
    "4109": "mg/L",
    "4113": "mm/h",
    "4115": "cm",
    "4117": "cm",
    "4124": "Cel",
    "4136": "Cel",
    "4137": "%",
    "4146": "ug/m3",
    "4147": "ug/m3",
    "4191": "m/s",
    "4195": "ppb",
    "4197": "deg",
    "4198": "deg",
    "4203": "Cel",
}
"""By the number of the measurement (https://sensecap-docs.seeed.cc/measurement_list.html)."""


def _measured_by_sensecap(node: Json) -> list[tuple[str, Object]]:
    """The measurements in the list that SenseCAP's decoders give, by name; nothing where any of them has none."""
    listed = node if isinstance(node, list) else []
    entries = [entry for item in listed for entry in (item if isinstance(item, list) else [item])]
    named = [
        (name, entry)
        for entry in objects(entries)
        if "measurementValue" in entry and (name := text(entry.get("type")) or text(entry.get("measurementId")))
    ]
    return named if len(dict(named)) == len(entries) else []


def _put_sensecap(draft: Draft, measured: list[tuple[str, Object]]) -> None:
    for name, entry in measured:
        value = unquoted(entry["measurementValue"])
        if isinstance(value, (dict, list)):
            draft.put(name, value)
        else:
            unit = _SENSECAP_UNITS.get(str(entry.get("measurementId")))
            draft.put_value(name, value, unit, source="format")


_NORMALIZED_UNITS = {
    "air.temperature": "Cel",
    "air.relativeHumidity": "%",
    "air.pressure": "hPa",
    "air.co2": "ppm",
    "air.lightIntensity": "lx",
    "battery": "V",
    "metering.water.total": "L",
    "position.latitude": "deg",
    "position.longitude": "deg",
    "rain.cumulative": "mm",
    "rain.intensity": "mm/h",
    "soil.depth": "cm",
    "soil.ec": "dS/m",
    "soil.k": "ppm",
    "soil.moisture": "%",
    "soil.n": "ppm",
    "soil.p": "ppm",
    "soil.pH": "[pH]",
    "soil.temperature": "Cel",
    "water.temperature.current": "Cel",
    "water.temperature.max": "Cel",
    "water.temperature.min": "Cel",
    "water.temperature.avg": "Cel",
    "wind.direction": "deg",
    "wind.speed": "m/s",
}
"""Of the payload schema in https://github.com/TheThingsNetwork/lorawan-devices."""


def _put_normalized(draft: Draft, path: str, normalized: Json) -> None:
    measured = normalized if isinstance(normalized, list) else [normalized]
    for at, measurement in enumerate(measured):
        if isinstance(measurement, dict):
            inner = f"{path}.{at}" if len(measured) > 1 else path
            _put_measurement(draft, inner.strip("."), measurement)


def _put_measurement(draft: Draft, path: str, measurement: Object) -> None:
    before = f"{path}." if path else ""
    for key, value in measurement.items():
        draft.put(f"{before}{key}", value)
    for name, unit in _NORMALIZED_UNITS.items():
        if f"{before}{name}" in draft.readings:
            draft.put_value(f"{before}{name}", draft.readings[f"{before}{name}"], unit, source="format")


def _other(draft: Draft, device: str, document: Object, kind_of_message: str, content: Object) -> Event:
    stamp = content.get("received_at") or document.get("received_at")
    if kind_of_message == "location_solved":
        _put_location(draft, content)
    else:
        ids = members(document.get("end_device_ids")) if kind_of_message == "join_accept" else {}
        for key in ("join_eui", "dev_addr"):
            if key in ids:
                draft.put(key, ids[key])
        for key, value in content.items():
            if key not in ("received_at", "correlation_ids"):
                draft.put(key, value)
    return draft.event(
        device, "location" if position(draft.readings) else "event", stamp=stamp, vendor_type=kind_of_message
    )


def _put_location(draft: Draft, content: Object) -> None:
    units = {"latitude": "deg", "longitude": "deg", "altitude": "m", "accuracy": "m"}
    for key, value in members(content.get("location")).items():
        if isinstance(value, (dict, list)):
            draft.put(key, value)
        else:
            draft.put_value(key, value, units.get(key), source="format")
    draft.put("service", content.get("service"))


def _command(draft: Draft, device: str, document: Object, levels: list[str]) -> Event:
    draft.put("downlinks", document["downlinks"])
    return draft.event(device, "command", vendor_type=f"down/{levels[-1]}" if "down" in levels else "down")


def _registered(locations: Json) -> Location | None:
    """Where the device is by its locations: as it said itself, or as a person registered it."""
    named = members(locations)
    for name in ("frm-payload", *named):
        place = members(named.get(name))
        latitude, longitude = number(place.get("latitude")), number(place.get("longitude"))
        if latitude is not None and longitude is not None and abs(latitude) <= 90 and abs(longitude) <= 180:
            return Location(latitude, longitude, _finite(place.get("altitude")), _finite(place.get("accuracy")))
    return None


def _finite(value: Json) -> float | None:
    known = number(value)
    try:
        return float(known) if known is not None and math.isfinite(known) else None
    except OverflowError:
        return None


def printable(payload: str) -> str | None:
    """The text that a payload in base64 is, if it is one."""
    try:
        readable = base64.b64decode(payload, validate=True).decode("ascii")
    except ValueError:
        return None
    return readable if len(readable) > 1 and readable.isprintable() else None


def _gateway(entry: Object) -> str | None:
    ids = members(entry.get("gateway_ids"))
    return text(ids.get("gateway_id")) or text(ids.get("eui"))


def _device_in(levels: list[str]) -> str | None:
    for at in range(len(levels) - 4):
        if levels[at] == "v3" and levels[at + 2] == "devices":
            return levels[at + 3]
    return None


FORMATS: tuple[Format, ...] = (
    Format(
        name=NAME,
        read=read,
        topics=("#/v3/+/devices/+/#",),
        keys=tuple(frozenset({"end_device_ids", name}) for name in _TYPES),
    ),
)
