"""rtl_433: what it decodes of weather stations, meters, remotes and other radio devices.

https://github.com/merbanan/rtl_433/blob/master/docs/DATA_FORMAT.md and docs/OPERATION.md
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache

from gateway.formats.body import Body, Json
from gateway.formats.draft import Draft
from gateway.formats.format import Format, Unreadable
from gateway.formats.nodes import text
from gateway.formats.plain import scalar
from gateway.formats.values import kind_of
from storage.event import Event, Kind, Message, Value

NAME = "rtl_433"

Object = dict[str, Json]


def read(message: Message, body: Body) -> Sequence[Event] | None:
    """One event of a decoded transmission, of one value of it, or of the receiver's own state."""
    levels = message.topic.split("/")
    below = levels[levels.index("rtl_433") + 1 :] if "rtl_433" in levels else None
    document = body.document
    if isinstance(document, dict):
        if transmitter(document):
            return [_transmission(Draft(NAME, message, body), document, below)]
        return _state(Draft(NAME, message, body), document, below) if below else None
    if below is None:
        return None
    if body.json_fault:
        raise Unreadable(body.json_fault)
    return None if document is not None else _single(message, body, below)


def transmitter(document: Object) -> str | None:
    """`Nexus-TH/2/42`: type, model, subtype, channel and id, as rtl_433 names its topics; None without a model."""
    if text(document.get("model")) is None:
        return None
    parts = (document.get(key) for key in ("type", "model", "subtype", "channel", "id"))
    return "/".join(str(part) for part in parts if type(part) in (str, int) and part != "")


_SUFFIX_UNITS = {
    "A": "A",
    "C": "Cel",
    "F": "[degF]",
    "Hz": "Hz",
    "L": "L",
    "MHz": "MHz",
    "PSI": "[psi]",
    "V": "V",
    "VA": "V.A",
    "W": "W",
    "Wh": "W.h",
    "cm": "cm",
    "dB": "dB",
    "deg": "deg",
    "ft": "[ft_i]",
    "gal": "[gal_us]",
    "hPa": "hPa",
    "in": "[in_i]",
    "inHg": "[in_i'Hg]",
    "in_h": "[in_i]/h",
    "kPa": "kPa",
    "kWh": "kW.h",
    "kg": "kg",
    "klx": "klx",
    "km": "km",
    "km_h": "km/h",
    "kph": "km/h",
    "lux": "lx",
    "lx": "lx",
    "m3": "m3",
    "mV": "mV",
    "m_s": "m/s",
    "mg_m3": "mg/m3",
    "mi_h": "[mi_i]/h",
    "mm": "mm",
    "mm_h": "mm/h",
    "mph": "[mi_i]/h",
    "pct": "%",
    "ppb": "[ppb]",
    "ppm": "[ppm]",
    "psi": "[psi]",
    "s": "s",
    "ug_m3": "ug/m3",
}
_NAMED_UNITS = {
    "freq": "MHz",
    "freq1": "MHz",
    "freq2": "MHz",
    "humidity": "%",
    "humidity_1": "%",
    "humidity_2": "%",
    "humidity_last": "%",
    "moisture": "%",
    "noise": "dB",
    "rssi": "dB",
    "snr": "dB",
}
# `temperature_C_ext`, `temperature_2_HI_C`; what follows the unit says of which sensor it is.
_TEMPERATURE = re.compile(r"(?:temp|temperature|setpoint)[0-9]?_(?:\w+_)??([CF])(?:_\w+)?")
_NOT_A_UNIT = frozenset({"button_A", "channel_A", "channel_C", "channel_F", "impulse_kWh", "power_factor_VA"})


_MOST_CHARS = 64


def _unit(name: str) -> str | None:
    """The unit that ends a name, or that its name has by documentation."""
    return _known_unit(name) if len(name) <= _MOST_CHARS else None


@lru_cache(maxsize=4_096)
def _known_unit(name: str) -> str | None:
    if (unit := _NAMED_UNITS.get(name)) or name in _NOT_A_UNIT:
        return unit
    if found := _TEMPERATURE.fullmatch(name):
        return _SUFFIX_UNITS[found[1]]
    parts = name.split("_")
    for most in (2, 1):
        if len(parts) > most and parts[-2] != "per" and (unit := _SUFFIX_UNITS.get("_".join(parts[-most:]))):
            return unit
    return None


_IDENTITY = frozenset({"time", "type", "model", "subtype", "channel", "id"})
_HAPPENINGS = """
alarm button button_code button_id button_name button_str cmd code command contact_open dipswitch event motion
reed_open secret_knock switch1 tamper tristate unit
"""
_HAPPENING = frozenset(_HAPPENINGS.split())
_OF_THE_SIGNAL = frozenset({"freq", "freq1", "freq2", "noise", "rssi", "snr"})


def put_transmission(draft: Draft, document: Mapping[str, Json]) -> Kind:
    """The readings of a transmission, without what names its sender; what kind they make."""
    measured = happened = False
    for key, value in document.items():
        if key in _IDENTITY:
            continue
        if isinstance(value, (dict, list)):
            draft.put(key, value)
            continue
        unit = _unit(key) if type(value) in (int, float) else None
        draft.put_value(key, value, unit, source="format")
        measured = measured or (unit is not None and key not in _OF_THE_SIGNAL)
        happened = happened or key in _HAPPENING
    return "event" if happened and not measured else kind_of(draft.readings)


def _transmission(draft: Draft, document: Object, below: list[str] | None) -> Event:
    kind = put_transmission(draft, document)
    stamp = document.get("time")
    if stamp is not None and draft.believed(stamp) is None:
        draft.put("time", stamp)  # a local time, or a position in a file
    host = below[0] if below and len(below) > 1 and below[1] == "events" else None
    return draft.event(
        transmitter(document) or "", kind, stamp=stamp, via=host, vendor_type=text(document.get("model"))
    )


_STATE_KEYS = frozenset({"enabled", "frames", "since", "stats", "frequencies", "center_frequency", "sample_rate"})


def _state(draft: Draft, document: Object, below: list[str]) -> Sequence[Event] | None:
    if below[-1] != "states" and _STATE_KEYS.isdisjoint(document):
        return None
    for key, value in document.items():
        if key != "time":
            draft.put(key, value)
    return [draft.event(below[0] or "rtl_433", "state", stamp=document.get("time"), vendor_type="states")]


def _single(message: Message, body: Body, below: list[str]) -> Sequence[Event] | None:
    """One value on a topic of its own: `rtl_433/<host>/devices/<type/model/…/id>/temperature_C`."""
    said = body.text
    if said is None or len(below) < 2 or not below[-1]:
        return None
    draft = Draft(NAME, message, body)
    if below[-1] == "availability":
        if said not in ("online", "offline"):
            return None
        draft.put("availability", said)
        return [draft.event(below[-2] or "rtl_433", "availability", vendor_type="availability")]
    nested = below[1] == "devices"
    device = "/".join(below[2:-1] if nested else below[:-1])
    if not device:
        return None
    name, value = below[-1], _value(said)
    draft.put_value(name, value, _unit(name) if type(value) in (int, float) else None, source="format")
    return [draft.event(device, kind_of(draft.readings), via=below[0] if nested else None, vendor_type="devices")]


def _value(said: str) -> Value:
    return scalar(said) if said else None


FORMATS: tuple[Format, ...] = (
    Format(
        name=NAME,
        read=read,
        topics=("#/rtl_433/#",),
        keys=(
            frozenset({"model", "battery_ok"}),
            frozenset({"model", "mic", "id"}),
            frozenset({"model", "temperature_C", "time"}),
            frozenset({"model", "temperature_F", "time"}),
        ),
    ),
)
