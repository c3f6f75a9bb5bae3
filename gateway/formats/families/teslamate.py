"""TeslaMate: one topic for each value of a car (https://docs.teslamate.org/docs/integrations/mqtt)."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.formats.body import Body
from gateway.formats.draft import Draft
from gateway.formats.format import Format, Unreadable
from storage.event import Event, Kind, Message

NAME = "teslamate"

# The table of the documentation has watts for `power`; TeslaMate's own discovery for Home Assistant, and its example of
# a configuration, have kilowatts, which is what the car's API gives (lib/teslamate/mqtt/pubsub/home_assistant.ex).
_UNITS = {
    "latitude": "deg",
    "longitude": "deg",
    "heading": "deg",
    "active_route_latitude": "deg",
    "active_route_longitude": "deg",
    "power": "kW",
    "charger_power": "kW",
    "speed": "km/h",
    "elevation": "m",
    "inside_temp": "Cel",
    "outside_temp": "Cel",
    "odometer": "km",
    "est_battery_range_km": "km",
    "rated_battery_range_km": "km",
    "ideal_battery_range_km": "km",
    "battery_level": "%",
    "usable_battery_level": "%",
    "charge_limit_soc": "%",
    "download_perc": "%",
    "install_perc": "%",
    "sun_roof_percent_open": "%",
    "charge_energy_added": "kW.h",
    "charger_actual_current": "A",
    "charge_current_request": "A",
    "charge_current_request_max": "A",
    "charger_voltage": "V",
    "time_to_full_charge": "h",
    "tpms_pressure_fl": "bar",
    "tpms_pressure_fr": "bar",
    "tpms_pressure_rl": "bar",
    "tpms_pressure_rr": "bar",
    "active_route.energy_at_arrival": "%",
    "active_route.miles_to_arrival": "[mi_i]",
    "active_route.minutes_to_arrival": "min",
    "active_route.traffic_minutes_delay": "min",
    "active_route.location.latitude": "deg",
    "active_route.location.longitude": "deg",
}
# Names and codes, whatever they look like: a Model 3, a car named 42, a spoiler of type None.
_TEXTS = frozenset(
    {
        "display_name",
        "state",
        "since",
        "version",
        "update_version",
        "model",
        "trim_badging",
        "exterior_color",
        "wheel_type",
        "spoiler_type",
        "geofence",
        "shift_state",
        "charging_state",
        "climate_keeper_mode",
        "sun_roof_state",
        "scheduled_charging_start_time",
        "active_route_destination",
    }
)
_CODES = frozenset({"center_display_state"})
_OBJECTS = frozenset({"location", "active_route", "software_update"})


def read(message: Message, body: Body) -> Sequence[Event] | None:
    """One event of one value, or of the object that `location`, `active_route` and `software_update` are."""
    levels = message.topic.split("/")
    device = "/".join(levels[levels.index("teslamate") + 1 : -1])
    name = levels[-1]
    draft = Draft(NAME, message, body)
    if name in _OBJECTS:
        return [_object(draft, body, device, name)]
    text = body.text
    return None if text is None else [_value(draft, device, name, text)]


FORMATS: tuple[Format, ...] = (Format(name=NAME, read=read, topics=("#/teslamate/cars/+/+", "#/teslamate/+/cars/+/+")),)


def _value(draft: Draft, device: str, name: str, text: str) -> Event:
    unit = _UNITS.get(name)
    if text in ("", "nil"):  # what is not known is published as an empty text, the route that is not as `nil`
        draft.put_missing(name)
    elif name in _TEXTS:
        draft.put(name, text)
    else:
        draft.put_scalar(name, text, unit, source="format")
    numeric = any(type(value) in (int, float) for value in draft.readings.values())
    kind: Kind = "measurement" if (unit or numeric) and name not in _CODES else "state"
    return draft.event(device, kind)


def _object(draft: Draft, body: Body, device: str, name: str) -> Event:
    document = body.document
    if not isinstance(document, dict):
        if body.text == "":
            draft.put_missing(name)
            return draft.event(device, "state")
        raise Unreadable(body.json_fault or f"{name} is not a JSON object")
    if name == "location":
        for key, node in document.items():
            draft.put(key, node)
        _add_units(draft)
        return draft.event(device)
    if isinstance(document.get("error"), str):  # no route: the text says so, no value is to be had
        draft.put(f"{name}.error", document["error"])
        return draft.event(device, "state")
    for key, node in document.items():
        if key != "error":
            draft.put(f"{name}.{key}", node)
    _add_units(draft)
    return draft.event(device, "state", placed=False)  # the position is where the car is going to


def _add_units(draft: Draft) -> None:
    for name in draft.readings:
        if unit := _UNITS.get(name):
            draft.units[name] = unit
            draft.unit_sources[name] = "format"
