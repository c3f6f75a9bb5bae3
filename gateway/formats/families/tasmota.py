"""Tasmota: telemetry, states, answers and commands of the firmware, its Zigbee, LoRaWAN and EQ-3 bridges among them.

Topics and payloads: https://tasmota.github.io/docs/MQTT/, a page for each sensor, and
https://tasmota.github.io/docs/Zigbee/; what unit a quantity has: https://github.com/emontnemery/hatasmota.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

from gateway.formats.body import Body, Json
from gateway.formats.draft import Draft
from gateway.formats.format import Format, Lesson, Unreadable, named
from gateway.formats.values import kind_of
from storage.event import Event, Kind, Message, UnitSource

NAME = "tasmota"
_PREFIXES = frozenset({"cmnd", "stat", "tele"})
_DISCOVERY = ("tasmota", "discovery")
_OUTER_LEVEL = re.compile(r"[A-Z][A-Z0-9_-]{1,40}")
_STATUS = re.compile(r"STATUS\d{0,2}")
_JSON_ONLY = re.compile(r"SENSOR|STATE|RESULT|INFO[123]|STATUS\d{0,2}")

_BRIDGED = frozenset({"ZbReceived", "ZbInfo", "ZbLight", "LwReceived", "LwDecoded"})
"""Under these, the devices behind the bridge: `{"ZbReceived": {"0x2916": {…}}}`."""
_HEARD = re.compile(r"\w{1,20}Received|RfRaw|Zb(State|Response|Bind|Unbind)|Event|Button\d+|Gesture|MCP\w{1,12}_INT")
"""What a device tells of once, when it happens."""
_TAGS = frozenset({"PN532", "RC522", "RDM6300"})
"""Readers of tags."""


def read(message: Message, body: Body) -> Sequence[Event] | None:
    """An event of the device, and one for each device behind it."""
    place = _placed(message.topic)
    if place is None:
        return None
    if place.prefix == "discovery":
        return _discovered(message, body, place)
    if place.prefix == "cmnd":
        return _commanded(message, body, place)
    document = body.document
    if isinstance(document, dict):
        return _reported(message, body, place, document) if place.prefix or _telling(place.last, document) else None
    return _said(message, body, place)


def teach(message: Message, body: Body) -> Iterable[Lesson]:
    """The topic of a device, which its sensors' discovery names by the MAC address alone."""
    place, document = _placed(message.topic), body.document
    if place is None or place.prefix != "discovery" or not isinstance(document, dict):
        return
    topic = document.get("t")
    if place.last == "config" and isinstance(topic, str) and topic:
        yield Lesson(key=place.device, value=topic, topics=(message.topic.removesuffix("config") + "sensors",))


# ---------------------------------------------------------------- what the topic says


class _Place(NamedTuple):
    prefix: str
    """`tele`, `stat`, `cmnd`, `discovery`, or empty where the user renamed it."""
    device: str
    """Empty where the topic names none."""
    last: str
    sensor: str = ""
    """Where the message is that of one sensor."""


def _placed(topic: str) -> _Place | None:
    return _remembered(topic) if len(topic) <= _MOST_REMEMBERED_CHARS else _place(topic)


def _place(topic: str) -> _Place | None:
    *levels, last = topic.split("/")
    if tuple(levels[:2]) == _DISCOVERY:
        mac = levels[2] if len(levels) > 2 else last
        return _Place("discovery", mac, last if len(levels) > 2 else "config")
    # FullTopic is %prefix%/%topic%/ or %topic%/%prefix%/, with levels of the user's before and between them.
    at = next((at for at, level in enumerate(levels) if level in _PREFIXES), None)
    if at is None:
        return _Place("", "/".join(levels), last) if _OUTER_LEVEL.fullmatch(last) else None
    device = "/".join(levels[at + 1 :] or levels[:at])
    if device == "EQ3":  # stat/EQ3/<address or alias of a radiator valve>
        return _Place(levels[at], last, last, "EQ3")
    if levels[at] != "cmnd" and not _OUTER_LEVEL.fullmatch(last):
        return None
    return _Place(levels[at], device, last, "ENERGY" if last == "ENERGY" else "")


_remembered = lru_cache(maxsize=8_192)(_place)
_MOST_REMEMBERED_CHARS = 512


def _telling(last: str, document: dict[str, Json]) -> bool:
    """Whether a payload under a renamed prefix can be nothing else."""
    if last == "SENSOR":
        return isinstance(document.get("Time"), str) or not _BRIDGED.isdisjoint(document)
    if last == "STATE":
        return "Wifi" in document and ("Uptime" in document or "UptimeSec" in document)
    if _STATUS.fullmatch(last):
        return any(key.startswith("Status") for key in document)
    if last.startswith("INFO"):
        return not _INFO.isdisjoint(document)
    return last == "RESULT" and any(_POWER.fullmatch(key) or key in _BRIDGED for key in document)


_INFO = frozenset({"Info1", "Info2", "Info3", "FallbackTopic", "WebServerMode", "RestartReason"})
_POWER = re.compile(r"POWER\d{0,2}")


def _device(place: _Place, body: Body) -> str:
    return place.device or named(body.place.device, body)


# ---------------------------------------------------------------- payloads that are no object


def _said(message: Message, body: Body, place: _Place) -> Sequence[Event] | None:
    text = body.text
    if place.last == "LWT":
        return _will(message, body, place, text or "")
    if not place.prefix:
        return None
    if body.json_fault:
        raise Unreadable(body.json_fault)
    if not text or isinstance(body.document, list):
        return None
    if _JSON_ONLY.fullmatch(place.last):
        raise Unreadable(f"{place.last} carries a JSON object, and this begins with {text[:20]!r}")
    draft = Draft(NAME, message, body)
    draft.put_scalar(place.last, text)
    return [draft.event(_device(place, body), "event" if place.last == "LOGGING" else "state")]


def _will(message: Message, body: Body, place: _Place, text: str) -> Sequence[Event] | None:
    # Others say `online` on a topic LWT, in lower case.
    if text not in _PRESENCE or not (place.prefix or text.istitle()):
        return None
    draft = Draft(NAME, message, body)
    draft.put("LWT", text)
    return [draft.event(_device(place, body), "availability")]


_PRESENCE = frozenset({"Online", "Offline", "online", "offline"})


def _commanded(message: Message, body: Body, place: _Place) -> Sequence[Event] | None:
    draft = Draft(NAME, message, body)
    if isinstance(body.document, dict):
        draft.put(place.last, body.document)
    elif body.text is None:
        return None
    elif body.text:  # an empty payload asks for the value
        draft.put_scalar(place.last, body.text)
    return [draft.event(_device(place, body), "command")]


def _discovered(message: Message, body: Body, place: _Place) -> Sequence[Event] | None:
    document = body.document
    if not isinstance(document, dict) or not ("t" in document or "sn" in document):
        return None
    draft = Draft(NAME, message, body)
    for key, node in document.items():
        if key in _ABOUT or not isinstance(node, (dict, list)):
            draft.put(key, node)
    told = document.get("t") or body.learned.get(NAME, place.device)
    device = told if isinstance(told, str) else place.device
    sensors = document.get("sn")
    if isinstance(sensors, dict):
        _put_top(draft, sensors, _Units.of(sensors), "sn.")
    return [draft.event(device, "discovery")]


_ABOUT = frozenset({"fn", "tp"})
"""Of the lists in a discovery, those that are not one number for each relay, switch or option."""


# ---------------------------------------------------------------- JSON objects


def _reported(message: Message, body: Body, place: _Place, document: dict[str, Json]) -> Sequence[Event] | None:
    device = _device(place, body)
    for wrapper in ("StatusSNS", "StatusSTS"):
        inner = document.get(wrapper)
        if isinstance(inner, dict):
            document = {**document, **inner}
            del document[wrapper]
    draft = Draft(NAME, message, body)
    stamp = _stamp(document, draft)
    events: list[Event] = []
    own: dict[str, Json] = {}
    for key, node in document.items():
        if key in _BRIDGED and isinstance(node, dict):
            events += _behind(draft, key, node, device, stamp)
        elif key.startswith("Zb") and _of_another(key, node):
            events += _answered(draft, key, node, device)
        else:
            own[key] = node
    _put_top(draft, own, _Units.of(document), sensor=place.sensor)
    if draft.readings or not events:
        kind = _kind(place, document, draft)
        for key in ("Time", "Epoch") if stamp is None else ():
            if document.get(key) is not None:
                draft.put(key, document[key])
        events.append(draft.event(device, kind, stamp=stamp, via=_poller(place, document)))
    return events


def _poller(place: _Place, document: dict[str, Json]) -> str | None:
    """The Tasmota that asked a radiator valve."""
    asked = document.get("tas") if place.sensor == "EQ3" else None
    return asked if isinstance(asked, str) else None


def _stamp(document: dict[str, Json], draft: Draft) -> Json:
    """When the message was made: `Epoch` is UTC, `Time` local and only sometimes with its zone."""
    stamp = document.get("Epoch")
    if stamp is not None and draft.believed(stamp) is not None:
        return stamp
    stamp = document.get("Time")
    if isinstance(stamp, str) and stamp[4:5] == ".":  # before 2018: 2018.02.01 22:52:09
        stamp = stamp[:10].replace(".", "-") + stamp[10:]
    return None if stamp is None or draft.believed(stamp) is None else stamp


def _kind(place: _Place, document: dict[str, Json], draft: Draft) -> Kind:
    last = place.last
    if last.startswith("INFO"):
        return "birth"
    if last == "DEEPSLEEP" or last.startswith("BUTTON") or any(map(_is_heard, document)) or _acted(document):
        return "event"
    if last in _STATES or "Status" in document or (last.startswith("STATUS") and _sensorless(document)):
        return "state"
    kind = kind_of(draft.readings)
    return "measurement" if kind == "other" and draft.units else kind  # a sensor that gives null for now


_STATES = frozenset({"STATE", "RESULT", "UPTIME", "HASS_STATE", "STATUS0", "STATUS11"})


def _acted(document: dict[str, Json]) -> bool:
    """Whether a switch or a button was pressed; the action of a timer is a number."""
    return "ACTION" in document or any(
        isinstance(node, dict) and isinstance(node.get("Action"), str) for node in document.values()
    )


def _is_heard(key: str) -> bool:
    return len(key) <= _MOST_KEY_CHARS and _matches_heard(key)


@lru_cache(maxsize=4_096)
def _matches_heard(key: str) -> bool:
    return key in _TAGS or _HEARD.fullmatch(key) is not None


def _sensorless(document: dict[str, Json]) -> bool:
    return "Time" not in document


class _Units(NamedTuple):
    """What the message itself says of its units."""

    temperature: str | None
    pressure: str | None
    speed: str | None

    @classmethod
    def of(cls, document: dict[str, Json]) -> _Units:
        return cls(*(unit if isinstance(unit, str) else None for unit in map(document.get, _NAMED_UNITS)))


_NAMED_UNITS = ("TempUnit", "PressureUnit", "SpeedUnit")
_NO_READINGS = frozenset({*_NAMED_UNITS, "Time", "Epoch"})
_MOST_LEVELS = 8
"""How deep units are looked for; NeoPool has three levels."""
_MOST_KEY_CHARS = 96
"""Longer keys name nothing that is known, and are not remembered."""


def _put_top(draft: Draft, document: dict[str, Json], units: _Units, path: str = "", sensor: str = "") -> None:
    for key, node in document.items():
        if key in _NO_READINGS:
            continue
        if not isinstance(node, dict):
            _put(draft, path + key, node, _Spot(sensor, "", key), units)
        elif key in _FOREIGN or key.startswith("Status") or key.endswith("Received"):
            draft.put(path + key, node)
        else:
            kind_of_sensor = sensor or (_sensor(key) if len(key) <= _MOST_KEY_CHARS else key)
            _put(draft, path + key, node, _Spot(kind_of_sensor, "", kind_of_sensor), units)


class _Spot(NamedTuple):
    """Where in a message a value stands: in which sensor, under which key of which object."""

    sensor: str
    parent: str
    key: str


def _put(draft: Draft, name: str, node: Json, spot: _Spot, units: _Units) -> None:
    if isinstance(node, dict) and name.count(".") < _MOST_LEVELS:
        for key, inner in node.items():
            _put(draft, f"{name}.{key}", inner, _Spot(spot.sensor, spot.key, key), units)
        if spot.sensor == "NeoPool" and "Unit" in node:  # per cent or grams per hour, as the cell was set up
            draft.put_units({f"{name}.{key}": node["Unit"] for key in ("Data", "Setpoint", "Max")})
        return
    if isinstance(node, (dict, str, bool)):
        draft.put(name, None if node == "" else node)
        return
    unit, source = _unit(spot, units)
    if not isinstance(node, list):
        draft.put_value(name, node, unit, source=source)
    elif unit is None or len(node) > draft.options.array_items:
        draft.put(name, node)
    else:  # a value for each phase, or each tariff
        for at, item in enumerate(node):
            if isinstance(item, (dict, list)):
                draft.put(f"{name}.{at}", item)
            else:
                draft.put_value(f"{name}.{at}", item, unit, source=source)


def _unit(spot: _Spot, units: _Units) -> tuple[str | None, UnitSource]:
    quantity = _quantity(spot) if len(spot.key) + len(spot.parent) + len(spot.sensor) <= _MOST_KEY_CHARS else None
    if quantity == "temperature":
        return units.temperature, "message"
    if quantity == "pressure":
        return units.pressure, "message"
    if quantity == "speed":
        return units.speed, "message"
    return quantity, "format"


@lru_cache(maxsize=4_096)
def _quantity(spot: _Spot) -> str | None:
    """The unit that the documentation gives a key, or which of the stated units is its; None where neither."""
    sensor, parent, key = spot
    if not sensor:
        return _FLAT.get(key)
    special = _SPECIAL.get(sensor)
    if special is not None and (parent, key) in special:
        return special[parent, key]
    if special is not None and ("", key) in special and parent == sensor:
        return special["", key]
    if parent == "Speed":
        return "speed"
    if parent == "Dir":
        return "deg"
    return _QUANTITIES.get(key.rstrip("0123456789") if sensor == "ANALOG" else key)


@lru_cache(maxsize=4_096)
def _sensor(key: str) -> str:
    """The kind of sensor without its number or address: DS18B20-1, VL53L0X_2."""
    return key if key in _SPECIAL else _NUMBERED.sub("", key)


_NUMBERED = re.compile(r"[-_](?:\d{1,2}|0x[0-9a-fA-F]{2}|[0-9a-f]{6})$")

_TEMPERATURES = "Temperature ReferenceTemperature DewPoint HeatIndex ObjTmp AmbTmp OBJTMP AMBTMP"
_QUANTITIES: dict[str, str | None] = {
    **dict.fromkeys(_TEMPERATURES.split(), "temperature"),
    **dict.fromkeys(("Pressure", "SeaPressure"), "pressure"),
    "Speed": "speed",
    **dict.fromkeys(("Humidity", "Moisture", "Battery"), "%"),
    **dict.fromkeys(("Illuminance", "Ambient"), "lx"),
    "CCT": "K",
    **dict.fromkeys(("CarbonDioxide", "eCO2"), "ppm"),
    "TVOC": "ppb",
    **dict.fromkeys(("CF1", "CF2.5", "CF10", "PM1", "PM2.5", "PM10"), "ug/m3"),
    "Distance": "cm",
    "Weight": "kg",
    "Frequency": "Hz",
    "PhaseAngle": "deg",
    **dict.fromkeys(("Power", "ActivePower"), "W"),
    "ApparentPower": "VA",
    **dict.fromkeys(("Voltage", "Vcc"), "V"),
    **dict.fromkeys(("Current", "CurrentNeutral"), "A"),
    **dict.fromkeys(("ImportActive", "ExportActive", "TotalTariff", "ExportTariff", "Energy"), "kWh"),
    "UptimeSec": "s",
    **dict.fromkeys(("RSSI", "Signal"), "dBm"),
    "SNR": "dB",
    **dict.fromkeys(("MinTime", "MaxTime", "AvgTime"), "ms"),  # of a ping, below the name of the host
}
_FLAT = {
    "Temperature": "temperature",
    "Humidity": "%",
    "Vcc": "V",
    "UptimeSec": "s",
    "Heap": "kB",
    **dict.fromkeys(("Dimmer", "White"), "%"),
}
"""Of what stands in no sensor: Sonoff SC, and STATE. Elsewhere `Power` is 1 for on."""
_TIC = {
    "Wh": "BASE HCHC HCHP EJPHN EJPHPM BBRHCJB BBRHPJB BBRHCJW BBRHPJW BBRHCJR BBRHPJR EAST EAIT "
    "EASF01 EASF02 EASF03 EASF04 EASF05 EASF06 EASF07 EASF08 EASF09 EASF10 EASD01 EASD02 EASD03 EASD04",
    "VA": "PAPP SINSTS SINSTS1 SINSTS2 SINSTS3 SINSTI SMAXSN SMAXSN1 SMAXSN2 SMAXSN3 SMAXIN",
    "A": "ISOUSC IINST IINST1 IINST2 IINST3 IMAX IMAX1 IMAX2 IMAX3 ADPS IRMS1 IRMS2 IRMS3",
    "V": "URMS1 URMS2 URMS3 UMOY1 UMOY2 UMOY3",
    "W": "PMAX CCASN CCASN-1",
    "kVA": "PREF PCOUP",
}
"""What French meters tell, by https://www.enedis.fr/media/2035/download."""
_SPECIAL: dict[str, dict[tuple[str, str], str | None]] = {
    "ENERGY": {
        **{(parent, key): "kWh" for parent in ("", "ENERGY") for key in ("Total", "Today", "Yesterday")},
        **{(parent, "Period"): "Wh" for parent in ("", "ENERGY")},
        ("", "Load"): "%",
    },
    "IAQ": {("", "Resistance"): "Ohm"},
    "TIC": {("", label): unit for unit, labels in _TIC.items() for label in labels.split()},
    **{f"Shutter{number}": {("", key): "%" for key in ("Position", "Target")} for number in range(1, 17)},
    "EQ3": {("", "temp"): "C", ("", "posn"): "%", ("", "RSSI"): "dBm"},
    "Wifi": {("", "RSSI"): "%"},  # a quality of 0 to 100; the level in dBm is Signal
    "VL53L0X": {("", "Distance"): "mm"},
    "VL53L1X": {("", "Distance"): "mm"},
    "AS3935": {("", "Distance"): "km", ("", "Energy"): None},
    "LD2410": {("", "Energy"): None},
    "LD2410S": {("", "Energy"): None},
    "RG-15": {("", "Active"): "mm", ("", "Event"): "mm", ("", "Total"): "mm", ("", "FlowRate"): "mm/h"},
    "NeoPool": {
        **{("Redox", key): "mV" for key in ("Data", "Setpoint")},
        **{("Chlorine", key): "ppm" for key in ("Data", "Setpoint")},
        **{("pH", key): "[pH]" for key in ("Data", "Min", "Max")},
        **{("Powerunit", key): "V" for key in ("5V", "12V", "24-30V")},
        ("Powerunit", "4-20mA"): "mA",
        ("", "Conductivity"): "%",
        ("Filtration", "Speed"): None,
    },
}
_FOREIGN = frozenset({"SML", "OPENTHERM", "MtrUpdate"})
"""Their keys are the user's own, or those of another system."""


# ---------------------------------------------------------------- devices behind the bridge


def _behind(draft: Draft, key: str, node: dict[str, Json], bridge: str, stamp: Json) -> Iterable[Event]:
    for name, values in node.items():
        if not isinstance(values, dict):
            continue
        lora, measured = key.startswith("Lw"), False
        pressure = values.get("PressureUnit")
        for quantity, value in values.items():
            unit = _LORA.get(quantity) or _decoded(quantity) if lora else _ZIGBEE.get(quantity)
            if quantity == "Pressure" and isinstance(pressure, str):
                unit = pressure
            measured = measured or unit is not None or (lora and type(value) in (int, float))
            if quantity != "PressureUnit":
                _put_attribute(draft, quantity, value, unit)
        yield draft.event(
            name.strip() or bridge, _bridged_kind(key, values, measured), stamp=stamp, via=bridge, vendor_type=key
        )


def _put_attribute(draft: Draft, name: str, value: Json, unit: str | None) -> None:
    if value == "":
        draft.put_missing(name)
    elif unit and not isinstance(value, (dict, list)):
        draft.put_value(name, value, unit, source="format")
    else:
        draft.put(name, value)


def _bridged_kind(key: str, values: dict[str, Json], measured: bool) -> Kind:  # noqa: FBT001  one caller, beside it
    if measured and key != "ZbLight":
        return "measurement"
    # A key such as 0006!02 is a command that a remote control sent.
    return "event" if any("!" in quantity for quantity in values) else "state"


def _of_another(key: str, node: Json) -> bool:
    """Whether it is told by events of its own: the list of Zigbee devices, and what one of them answered."""
    return (key == "ZbResponse" and isinstance(node, dict)) or (
        key.startswith("ZbStatus") and isinstance(node, list) and all(isinstance(item, dict) for item in node)
    )


def _answered(draft: Draft, key: str, node: Json, bridge: str) -> Iterable[Event]:
    for item in node if isinstance(node, list) else [node]:
        if isinstance(item, dict):
            for name, value in item.items():
                _put_attribute(draft, name, value, None)
            device = item.get("Name") or item.get("Device")
            device = device.strip() if isinstance(device, str) else ""
            kind: Kind = "event" if key == "ZbResponse" else "discovery"
            yield draft.event(device or bridge, kind, via=bridge, vendor_type=key)


_ZIGBEE = {
    "Temperature": "C",
    "LocalTemperature": "C",
    "OccupiedHeatingSetpoint": "C",
    "OccupiedCoolingSetpoint": "C",
    "UnoccupiedHeatingSetpoint": "C",
    "PIHeatingDemand": "%",
    "Humidity": "%",
    "Pressure": "hPa",
    "SeaPressure": "hPa",
    "Illuminance": "lx",
    "Battery": "%",
    "BatteryPercentage": "%",
    "BatteryVoltage": "V",
    "Voltage": "V",
    "RMSVoltage": "V",
    "RMSCurrent": "A",
    "ActivePower": "W",
    "ApparentPower": "VA",
}
# The battery of a LoRaWAN sensor is in volts or per cent, as its maker liked.
_LORA = {"RSSI": "dBm", "SNR": "dB", "Temperature": "C", "Humidity": "%"}


def _decoded(quantity: str) -> str | None:
    """The unit of what the firmware's decoders call TempC_Internal, TempC_DS, Hum_SHT."""
    return _DECODED.get(quantity.partition("_")[0])


_DECODED = {"TempC": "C", "TempC1": "C", "TempC2": "C", "Hum": "%"}

_ENDINGS = ("SENSOR", "STATE", "LWT", "RESULT", "INFO1", "INFO2", "INFO3", "STATUS")
_TOPICS = (
    "#/tele/#",
    "#/stat/#",
    "#/cmnd/#",
    "tasmota/discovery/#",
    *(f"#/{ending}" for ending in (*_ENDINGS, *(f"STATUS{number}" for number in range(15)))),
)

FORMATS: tuple[Format, ...] = (Format(name=NAME, read=read, topics=_TOPICS, teach=teach),)
