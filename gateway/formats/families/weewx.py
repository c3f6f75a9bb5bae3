"""WeeWX, as its extension weewx-mqtt publishes the records of a weather station.

https://github.com/matthewwall/weewx-mqtt
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gateway.formats.body import Body, Json
from gateway.formats.draft import Draft
from gateway.formats.format import Format
from gateway.formats.nodes import number, unquoted
from storage.event import Event, Message

NAME = "weewx"

Object = dict[str, Json]


def read(message: Message, body: Body) -> Sequence[Event] | None:
    """One event of a whole record, or of one observation on a topic of its own."""
    document = body.document
    levels = message.topic.split("/")
    if isinstance(document, dict) and "dateTime" in document and "usUnits" in document:
        return [_record(Draft(NAME, message, body), _station(levels), document)]
    name, unit = _told(levels[-1], _NO_SYSTEM)
    if document is not None or len(levels) < 2 or name not in _GROUPS or not body.text:
        return None
    value = unquoted(body.text)
    if type(value) not in (int, float):
        return None
    draft = Draft(NAME, message, body)
    draft.put_value(levels[-1], number(value), unit, source="format")
    return [draft.event(_station(levels[:-1]), "measurement")]


def _station(levels: list[str]) -> str:
    """The topic without the level that says which records they are."""
    if len(levels) > 1 and levels[-1] in ("loop", "archive"):
        levels = levels[:-1]
    return next((level for level in reversed(levels) if level), "weewx")


def _record(draft: Draft, station: str, document: Object) -> Event:
    """Its numbers are quoted; the unit stands behind the name, or in the unit system that `usUnits` names."""
    system = _SYSTEMS.get(number(document["usUnits"]) or 0, _NO_SYSTEM)
    for key, value in document.items():
        if key == "dateTime":
            continue
        plain = unquoted(value)
        if isinstance(plain, (dict, list)):
            draft.put(key, plain)
        else:
            draft.put_value(key, plain, _told(key, system)[1], source="format")
    return draft.event(station, "measurement", stamp=unquoted(document["dateTime"]), placed=False)


# The labels that the extension shortens, and those that it leaves as WeeWX has them.
_LABELS = {
    "C": "Cel",
    "F": "[degF]",
    "Wpm2": "W/m2",
    "amp": "A",
    "cm": "cm",
    "cm_per_hour": "cm/h",
    "degree_C_day": None,
    "foot": "[ft_i]",
    "hPa": "hPa",
    "hour": "h",
    "in": "[in_i]",
    "inHg": "[in_i'Hg]",
    "in_per_hour": "[in_i]/h",
    "inch_per_hour": "[in_i]/h",
    "kPa": "kPa",
    "km": "km",
    "knot": "[kn_i]",
    "knot2": "[kn_i]",
    "kph": "km/h",
    "lux": "lx",
    "mbar": "mbar",
    "meter": "m",
    "microgram_per_meter_cubed": "ug/m3",
    "mile": "[mi_i]",
    "minute": "min",
    "mm": "mm",
    "mmHg": "mm[Hg]",
    "mm_per_hour": "mm/h",
    "mph": "[mi_i]/h",
    "mps": "m/s",
    "percent": "%",
    "ppm": "[ppm]",
    "second": "s",
    "volt": "V",
    "watt": "W",
    "watt_hour": "W.h",
}

_TEMPERATURES = "appTemp cooldeg dewpoint heatdeg heatindex humidex inDewpoint inTemp outTemp windchill"
_OBSERVATIONS = {
    "altimeter": "pressure",
    "barometer": "pressure",
    "pressure": "pressure",
    "altitude": "altitude",
    "cloudbase": "altitude",
    "ET": "rain",
    "dayET": "rain",
    "dayRain": "rain",
    "hail": "rain",
    "hourRain": "rain",
    "monthRain": "rain",
    "rain": "rain",
    "rain24": "rain",
    "rain24Hour": "rain",
    "stormRain": "rain",
    "totalRain": "rain",
    "yearRain": "rain",
    "hailRate": "rain_rate",
    "rainRate": "rain_rate",
    "inHumidity": "percent",
    "outHumidity": "percent",
    "rxCheckPercent": "percent",
    "cloudcover": "percent",
    "windDir": "direction",
    "windGustDir": "direction",
    "windDir10": "direction",
    "vecdir": "direction",
    "gustdir": "direction",
    "windGust": "speed",
    "windGustSpeed10": "speed",
    "windSpeed": "speed",
    "windSpeed10": "speed",
    "vecavg": "speed",
    "rms": "speed",
    "windrun": "distance",
    "lightning_distance": "distance",
    "maxSolarRad": "radiation",
    "radiation": "radiation",
    "UV": "none",
    "beaufort": "none",
    "lightning_strike_count": "none",
    "consBatteryVoltage": "volt",
    "heatingVoltage": "volt",
    "referenceVoltage": "volt",
    "supplyVoltage": "volt",
    "interval": "interval",
}
_GROUPS = (
    _OBSERVATIONS
    | dict.fromkeys(_TEMPERATURES.split(), "temperature")
    | {f"{name}{at}": "temperature" for name in ("extraTemp", "soilTemp", "leafTemp") for at in range(1, 9)}
    | {f"extraHumid{at}": "percent" for at in range(1, 9)}
)
"""The observations of WeeWX and the groups their units are of; `weewx/units.py` there."""

_ALL = {"percent": "%", "direction": "deg", "radiation": "W/m2", "volt": "V", "interval": "min"}
_NO_SYSTEM: Mapping[str, str] = {"percent": "%", "direction": "deg"}
_US = {
    "altitude": "[ft_i]",
    "distance": "[mi_i]",
    "pressure": "[in_i'Hg]",
    "rain": "[in_i]",
    "rain_rate": "[in_i]/h",
    "speed": "[mi_i]/h",
    "temperature": "[degF]",
}
_METRIC = {
    "altitude": "m",
    "distance": "km",
    "pressure": "mbar",
    "rain": "cm",
    "rain_rate": "cm/h",
    "speed": "km/h",
    "temperature": "Cel",
}
_SYSTEMS: Mapping[float, Mapping[str, str]] = {
    1: _ALL | _US,
    16: _ALL | _METRIC,
    17: _ALL | _METRIC | {"rain": "mm", "rain_rate": "mm/h", "speed": "m/s"},
}


def _told(key: str, system: Mapping[str, str]) -> tuple[str, str | None]:
    """Observation and unit of a key such as `outTemp_C`, or of one without a label."""
    if group := _GROUPS.get(key):
        return key, system.get(group)
    name, _, label = key.partition("_")
    if label not in _LABELS:  # lightning_distance_km
        name, _, label = key.rpartition("_")
    return (name, _LABELS[label]) if label in _LABELS else (key, None)


FORMATS: tuple[Format, ...] = (
    Format(name=NAME, read=read, topics=("weather/+", "weewx/+"), keys=(frozenset({"dateTime", "usUnits"}),)),
)
