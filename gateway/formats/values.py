"""What a single value may be in a reading, and what kind of event a set of values makes."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping

from gateway.formats import texts
from gateway.formats.format import Unreadable
from gateway.formats.options import Options
from storage.event import Kind, Value

PRESENCE_NAMES = frozenset(
    {"status", "state", "availability", "available", "lwt", "online", "connected", "connection", "reachable", "alive"}
)
"""Names, in lower case, of readings and topic levels that may tell whether a device is there."""

_NOTHING = ("", "null", "undefined")
_NO_NUMBER = [f"{sign}{word}" for word in ("nan", "inf", "infinity") for sign in ("", "+", "-")]
_FORMS = (str, str.upper, str.capitalize)
NO_NUMBER = frozenset({form(word) for word in _NO_NUMBER for form in _FORMS} | {"NaN", "-NaN"})
"""Texts that stand for a number there is not."""
NO_VALUE = NO_NUMBER | {form(word) for word in _NOTHING for form in _FORMS}
"""Texts that say that there is no value."""

_ALWAYS = frozenset({"online", "offline"})
_ON_PRESENCE = _ALWAYS | {"connected", "disconnected", "available", "unavailable", "alive", "dead", "lost", "0", "1"}
_BEYOND = 10**308


def usable(value: Value, options: Options) -> Value:
    """The value as a reading keeps it: None for what is not a number after all; Unreadable for an endless text."""
    if type(value) is str:
        if len(value) > options.text_chars:
            raise Unreadable(f"a text of {len(value)} characters, over the limit of {options.text_chars} (text_chars)")
        return texts.storable(value)
    if type(value) is float:
        return value if math.isfinite(value) else None
    if type(value) is int and not fits_double(value):
        return None
    return value


def fits_double(value: int) -> bool:
    """Whether other programs can make a number of it at all: what no double holds is as unusable as 1e999."""
    return -_BEYOND < value < _BEYOND


def kind_of(readings: Mapping[str, Value]) -> Kind:
    """A position, a presence, a measurement where any value is a number, a state of texts and booleans."""
    if where := position(readings):
        return "location" if _is_only_place(readings, where) else "measurement"
    if len(readings) == 1:
        ((name, value),) = readings.items()
        if tells_presence(name, value):
            return "availability"
    return kind_of_types(set(map(type, readings.values())))


def kind_of_types(types: Collection[type]) -> Kind:
    if int in types or float in types:
        return "measurement"
    return "state" if str in types or bool in types else "other"


def tells_presence(name: str, value: Value) -> bool:
    """Whether a lone value under this name says that the device is there, or is not."""
    if type(value) is float or value is None or (name := name.lower()) not in PRESENCE_NAMES:
        return False
    if name in ("status", "state"):  # these tell of a thousand other things as well
        return type(value) is str and value.lower() in _ALWAYS
    return type(value) is bool or str(value).lower() in _ON_PRESENCE


def position(readings: Mapping[str, Value]) -> tuple[str, str] | None:
    """The names of a latitude and the longitude beside it, where both are there and on the globe."""
    if "lat" not in "\n".join(readings).lower():
        return None
    latitudes = {path: name for name, path, last in map(_parted, readings) if last in LATITUDES}
    if not latitudes:
        return None
    longitudes = {path: name for name, path, last in map(_parted, readings) if last in _LONGITUDES}
    for path, latitude in latitudes.items():
        longitude = longitudes.get(path)
        if longitude and _degrees(readings[latitude], 90) and _degrees(readings[longitude], 180):
            return latitude, longitude
    return None


LATITUDES = frozenset({"latitude", "lat"})
_LONGITUDES = frozenset({"longitude", "lon", "lng", "long"})


def _parted(name: str) -> tuple[str, str, str]:
    path, _, last = name.rpartition(".")
    return name, path, last.lower()


# What a receiver of satellites tells beside the position, and what keeps a tracker alive.
_OF_A_FIX = re.compile(
    r"(?:gps|gnss|loc|location|pos|position|fix|ground|horizontal|vertical|num|n|h|v)?"
    r"(?:alt|elev|height|z$|acc|precision|uncertainty|radius|error|speed|velocity|vel|spd|kmh|knots|sog|heading|course|"
    r"cog|bearing|direction|azimuth|track|[hpvgt]?dop|sat|nsat|fix|gps|quality|mode|age|time|ts|stamp|tst|date|bat|"
    r"vbat|soc|volt|charg|rssi|snr|signal|odo|mileage|distance|zoom|motion|moving|id$|seq|count|uptime|lat|lon|lng)"
)


def _is_only_place(readings: Mapping[str, Value], where: tuple[str, str]) -> bool:
    """Whether every number belongs to the position: a weather report tells of a place, and measures."""
    return all(
        name in where or _OF_A_FIX.match(_parted(name)[2].replace("_", "").replace("-", "").replace(" ", ""))
        for name, value in readings.items()
        if type(value) is int or type(value) is float
    )


_DEGREES = re.compile(r"[+-]?[0-9]{1,3}\.[0-9]{1,20}")


def _degrees(value: Value, most: int) -> bool:
    """Whether it is a coordinate, quoted or not; a quoted one has a fraction, or it may be a code."""
    if type(value) is str and _DEGREES.fullmatch(value):
        value = float(value)
    return isinstance(value, (int, float)) and type(value) is not bool and -most <= value <= most
