"""OpenMQTTGateway and Theengs Gateway: what they hear over Bluetooth, radio, infrared and LoRa, and their commands.

https://docs.openmqttgateway.com/use/ and https://decoder.theengs.io
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from gateway.formats.body import Body, Json
from gateway.formats.draft import Draft
from gateway.formats.families.rtl_433 import put_transmission, transmitter
from gateway.formats.format import Format
from gateway.formats.nodes import opened, text, unquoted
from gateway.formats.values import kind_of
from storage.event import Event, Kind, Message

NAME = "openmqttgateway"

Object = dict[str, Json]

_RADIOS = "2G 433 BT IR LORA Pilight RF2 RFM69 RTL_433 SERIAL SRFB SYS WebUI"
_SENSORS = "ADC BH1750 CLIMA DHT GPIOInput GPIOKeyCode HCSR501 INA226 ONOFF RN8209 RS232 TSL2561 Touch Weather"
_HEARD = frozenset(f"{module}toMQTT" for module in (*_RADIOS.split(), *_SENSORS.split()))
_ORDERED = frozenset(f"MQTTto{module}" for module in (*_RADIOS.split(), "FASTLED", "ONOFF"))
_MAC = re.compile(r"[0-9A-Fa-f]{12}")
_SECRET = re.compile(r"\w*(?:pass|password|cert|key)")


def read(message: Message, body: Body) -> Sequence[Event] | None:
    """One event: of the device that was heard, of the gateway itself, or an order to it."""
    levels = message.topic.split("/")
    if levels[-1] == "LWT":
        return _presence(message, body, levels)
    at = next((at for at, level in enumerate(levels) if level in _HEARD or level in _ORDERED), None)
    document = opened(body, certain=at is not None)
    if document is None:
        return None
    draft = Draft(NAME, message, body)
    if at is None:
        return _anywhere(draft, document, levels[-1])
    gateway = levels[at - 1] if at else ""
    if levels[at] in _ORDERED:
        gateway = levels[at - 2] if gateway == "commands" and at > 1 else gateway
        return [_order(draft, gateway or levels[at], levels[at], document)]
    module = levels[at].removesuffix("toMQTT")
    return [_heard(draft, module, gateway or levels[at], [level for level in levels[at + 1 :] if level], document)]


def _presence(message: Message, body: Body, levels: list[str]) -> Sequence[Event] | None:
    if body.text not in ("online", "offline") or len(levels) < 2 or not levels[-2]:
        return None
    draft = Draft(NAME, message, body)
    draft.put("LWT", body.text)
    return [draft.event(levels[-2], "availability", vendor_type="LWT")]


def _order(draft: Draft, gateway: str, module: str, document: Object) -> Event:
    for key, value in document.items():
        if not _SECRET.fullmatch(key):
            draft.put(key, value)
    return draft.event(gateway, "command", vendor_type=module)


def _anywhere(draft: Draft, document: Object, last: str) -> Sequence[Event] | None:
    """What the decoder says of a device, on a topic of the user's own."""
    if not all(isinstance(document.get(key), str) for key in ("brand", "model", "model_id")):
        return None
    _put_all(draft, document)
    return [draft.event(_named(document) or _address(last) or last or "unknown", kind_of(draft.readings))]


def _heard(draft: Draft, module: str, gateway: str, rest: list[str], document: Object) -> Event:
    if document.get("model") == "status" and module == "RTL_433":  # of the receiver itself
        for key, value in document.items():  # its duration is that of a signal, not in seconds
            draft.put(key, value)
        draft.put_known_units(_OF_RECEIVER.get)
        return draft.event(gateway, "state", vendor_type=module)
    if module == "RTL_433" and (device := transmitter(document)):
        kind_of_transmission = put_transmission(draft, document)
        draft.put_units({"rssi": "dBm"})  # its radios know the power; rtl_433's do not
        return draft.event(device, kind_of_transmission, via=gateway, vendor_type=module)
    _put_all(draft, document)
    if module == "SYS":
        return draft.event(gateway, "state", vendor_type=module)
    device = (
        _named(document) or _phone(module, document) or "/".join(_address(level) or level for level in rest) or None
    )
    pressed = module in _HAPPENINGS or document.get("type") == "BTN"
    kind: Kind = "event" if pressed else kind_of(draft.readings)
    return draft.event(device or gateway, kind, via=gateway if device else None, vendor_type=_model(document) or module)


_OF_RECEIVER = {"rssi": "dBm", "currentRssi": "dBm", "rssiThreshold": "dBm", "freeMem": "B"}
# A button was pressed, a message came: what these modules hear has no measurements in it.
_HAPPENINGS = frozenset({"2G", "433", "GPIOKeyCode", "IR", "Pilight", "RF2", "SRFB"})


def _model(document: Object) -> str | None:
    return text(document.get("model_id"))


def _named(document: Object) -> str | None:
    """The address of a device in its `id`; a number there is a code."""
    return text(document.get("id"))


def _phone(module: str, document: Object) -> str | None:
    return text(document.get("from")) if module == "LORA" else None


def _address(level: str) -> str | None:
    """`4C33A6603C79` in the form in which payloads have it."""
    if not _MAC.fullmatch(level):
        return None
    return ":".join(level[at : at + 2] for at in range(0, 12, 2)).upper()


_UNITS: dict[str, str] = {
    "accx": "m/s2",
    "accy": "m/s2",
    "accz": "m/s2",
    "act_bpm": "/min",
    "altift": "[ft_i]",
    "altim": "m",
    "batt": "%",
    "bpm": "/min",
    "co2": "[ppm]",
    "current": "A",
    "distance": "m",
    "duration": "s",
    "energy": "kW.h",
    "fer": "uS/cm",
    "for": "mg/m3",
    "freemem": "By",
    "hum": "%",
    "impedance": "Ohm",
    "level": "%",
    "litres": "L",
    "lux": "lx",
    "lvl_cm": "cm",
    "lvl_in": "[in_i]",
    "mhz": "MHz",
    "minmem": "By",
    "maxalloc": "By",
    "moi": "%",
    "pa": "Pa",
    "pm10": "ug/m3",
    "pm25": "ug/m3",
    "position": "%",
    "power": "W",
    "pres": "hPa",
    "rssi": "dBm",
    "seconds": "s",
    "snr": "dB",
    "tempc": "Cel",
    "tempf": "[degF]",
    "tx": "dBm",
    "txpower": "dBm",
    "uptime": "s",
    "volt": "V",
    "wattsm2": "W/m2",
    "darkness": "lx",
    "rot": "deg",
    **dict.fromkeys(("x_axis", "y_axis", "z_axis"), "m/s2"),
}
"""Of the properties in https://github.com/theengs/decoder/tree/development/src/devices, and of the gateway's own."""

_STATED = {"avg": "avgu", "sum": "sumu", "weight": "unit", "temp": "unit"}
"""Whose unit stands in another member."""

_NUMERIC = frozenset({*_STATED, "steps", "value"})
# Its accelerations are raw.
_MOPEKA = frozenset({"M1017"})


def _put_all(draft: Draft, document: Object) -> None:
    model = _model(document)
    named = _named(document)
    for key, value in document.items():
        if key == "id" and named:
            continue
        unit = _unit(key, model)
        plain = unquoted(value) if unit or key in _NUMERIC else value
        if isinstance(plain, (dict, list)):
            draft.put(key, plain)
        elif (stated := _STATED.get(key)) and isinstance(document.get(stated), str):
            draft.put_value(key, plain, str(document[stated]))
        else:
            draft.put_value(key, plain, unit if type(plain) in (int, float) else None, source="format")


def _unit(key: str, model: str | None) -> str | None:
    """The unit of a property; `tempc2` and `tempc2_dp` are of its second probe."""
    known = _UNITS.get(key)
    if known is None:
        known = _UNITS.get(_bare(key))
    if model == "TPMS" and key == "pres":
        return "bar"
    return None if model in _MOPEKA and key.startswith("acc") else known


_PROBE = re.compile(r"(temp[cf]|hum|volt)[0-9]{0,2}(?:_dp|_min|_max|_amb)?")


def _bare(key: str) -> str:
    found = _PROBE.fullmatch(key) if key[:3] in ("tem", "hum", "vol") else None
    return found[1] if found else ""


FORMATS: tuple[Format, ...] = (
    Format(
        name=NAME,
        read=read,
        topics=(
            *(f"#/{level}/#" for level in sorted(_HEARD)),
            *(f"#/commands/{level}/#" for level in sorted(_ORDERED)),
            "home/+/LWT",
        ),
        keys=(frozenset({"brand", "model", "model_id"}),),
    ),
)
