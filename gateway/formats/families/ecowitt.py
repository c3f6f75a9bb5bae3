"""Ecowitt, Ambient and other Fine Offset weather stations, by the names of the protocol in which they upload.

https://osswww.ecowitt.net/uploads/20220407/WN1900%20GW1000,1100%20WH2680,2650%20telenet%20v1.6.4.pdf and
https://github.com/bachya/ecowitt2mqtt
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from urllib.parse import parse_qsl

from gateway.formats.body import Body, Json
from gateway.formats.draft import Draft
from gateway.formats.format import Format, Unreadable, named
from gateway.formats.nodes import number, unquoted
from storage.event import Event, Message

NAME = "ecowitt"

Object = dict[str, Json]

_FORM = b"PASSKEY="
_MOST_FIELDS = 1_000
_TYPICAL = frozenset({"PASSKEY", "stationtype", "softwaretype", "baromrelin", "baromabsin", "baromrel", "baromabs"})
# The pass key is what the station shows to the servers it uploads to.
_UNSAID = frozenset({"PASSKEY", "PASSWORD", "dateutc"})
_TEXTS = frozenset({"ID", "MAC", "action", "freq", "model", "softwaretype", "stationtype"})


def read(message: Message, body: Body) -> Sequence[Event] | None:
    """One event of all that the station measures."""
    document = body.document
    if document is None and message.payload.startswith(_FORM):
        document = _form(message.payload)
    if document is None and body.json_fault and message.topic.startswith("ecowitt2mqtt/"):
        raise Unreadable(body.json_fault)
    if not isinstance(document, dict) or _TYPICAL.isdisjoint(document):
        return None
    if not any(key.startswith(("temp", "humidity", "barom", "wind", "rain")) for key in document):
        return None
    draft = Draft(NAME, message, body)
    metric = _is_metric(document)
    for key, value in document.items():
        if key not in _UNSAID:
            _put(draft, key, value, metric=metric)
    return [
        draft.event(named(body.place.device, body), "measurement", stamp=_utc(document.get("dateutc")), placed=False)
    ]


def _form(payload: bytes) -> Object:
    try:
        return dict(parse_qsl(payload.decode("ascii").strip(), keep_blank_values=True, max_num_fields=_MOST_FIELDS))
    except ValueError as fault:
        raise Unreadable(f"not a form: {fault}") from None


def _utc(stamp: Json) -> str | None:
    """`2022-05-18 18:17:37` is UTC by its name."""
    return f"{stamp}+00:00" if isinstance(stamp, str) and len(stamp) == 19 else None


def _is_metric(document: Object) -> bool:
    """Whether the values are metric under imperial names, as some servers are sent them.

    No air has a pressure of 50 inches of mercury; below the Dead Sea it is 32.
    """
    pressure = next((number(document[key]) for key in ("baromabsin", "baromrelin") if key in document), None)
    return pressure is not None and pressure > 50


def _put(draft: Draft, key: str, value: Json, *, metric: bool) -> None:
    plain = value if key in _TEXTS else unquoted(value)
    if isinstance(plain, (dict, list)):
        draft.put(key, plain)
    elif plain == _NO_SENSOR and type(plain) is not bool:
        draft.put_missing(key, "bad")
    else:
        draft.put(key, plain)
        # The names that have a unit are storable and their units UCUM codes: forty of them come in each message.
        if (unit := _unit(key)) and (unit := _METRIC.get(unit, unit) if metric else unit):
            draft.units[key] = unit
            draft.unit_sources[key] = "format"


_NO_SENSOR = -9999

# A speed may be metres a second or kilometres an hour.
_METRIC = {"[degF]": "Cel", "[in_i'Hg]": "hPa", "[in_i]": "mm", "[in_i]/h": "mm/h", "[mi_i]/h": None}

_PATTERNS: tuple[tuple[str, str], ...] = (
    (
        r"(?:soil)?temp(?:in|[0-9]+)?f|tf_ch[0-9]+|tf_co2|(?:indoortemp|dewpt|dewpoint|windchill|heatindex|feelslike)f",
        "[degF]",
    ),
    (
        r"(?:soil)?temp(?:in|[0-9]+)?c|tc_ch[0-9]+|tc_co2|(?:indoortemp|dewpt|dewpoint|windchill|heatindex|feelslike)c",
        "Cel",
    ),
    (r"(?:indoor)?humidity(?:in|[0-9]+)?|humi_co2|soilmoisture[0-9]+|leafwetness_ch[0-9]+", "%"),
    (r"barom(?:rel|abs)?in|vpd", "[in_i'Hg]"),
    (r"barom(?:rel|abs)?hpa", "hPa"),
    (r"winddir(?:_avg[0-9]+m)?|windgustdir", "deg"),
    (r"wind(?:speed|gust|spd|gst)mph(?:_avg[0-9]+m)?|maxdailygust", "[mi_i]/h"),
    (r"wind(?:speed|gust|spd|gst)(?:kmh|kph)(?:_avg[0-9]+m)?", "km/h"),
    (r"wind(?:speed|gust|spd|gst)ms(?:_avg[0-9]+m)?", "m/s"),
    (r"rainratein|rrain_piezo", "[in_i]/h"),
    (r"rainratemm", "mm/h"),
    (
        r"(?:24hour|daily|event|hourly|weekly|monthly|yearly|total)?rainin|[ehdwmy]rain_piezo|last24hrain_piezo",
        "[in_i]",
    ),
    (r"(?:24hour|daily|event|hourly|weekly|monthly|yearly|total)?rainmm", "mm"),
    (r"solarradiation", "W/m2"),
    (r"pm(?:1|25|4|10)(?:_(?:24h_|avg_24h_)?(?:ch[0-9]+|co2)|_24h(?:_co2)?)?", "ug/m3"),
    (r"co2(?:_24h|in|in_24h)?", "[ppm]"),
    (r"lightning", "km"),
    (r"runtime|interval|rtfreq", "s"),
    (r"heap", "By"),
    # Others count steps of 20 %, or are 0 for a good battery.
    (
        r"wh(?:40|68|80|85|90)batt|soilbatt[0-9]+|leaf_batt[0-9]+|tf_batt[0-9]+|ws90cap_volt|console_batt|ldsbatt[0-9]+",
        "V",
    ),
)
_COMPILED = tuple((re.compile(pattern), unit) for pattern, unit in _PATTERNS)


_MOST_CHARS = 64


def _unit(name: str) -> str | None:
    """The unit of a name of the protocol."""
    return _known_unit(name) if len(name) <= _MOST_CHARS else None


@lru_cache(maxsize=4_096)
def _known_unit(name: str) -> str | None:
    return next((unit for pattern, unit in _COMPILED if pattern.fullmatch(name)), None)


FORMATS: tuple[Format, ...] = (
    Format(
        name=NAME,
        read=read,
        topics=("ecowitt2mqtt/#", "ecowitt/#"),
        starts=(_FORM,),
        keys=(
            frozenset({"PASSKEY", "dateutc"}),
            frozenset({"stationtype", "dateutc"}),
            frozenset({"softwaretype", "dateutc"}),
            frozenset({"tempinf", "baromrelin"}),
            frozenset({"tempin", "baromrel"}),
        ),
    ),
)
