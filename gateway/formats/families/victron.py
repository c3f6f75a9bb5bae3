"""Victron Venus OS, D-Bus values over MQTT: https://github.com/victronenergy/dbus-flashmq.

Units by https://github.com/victronenergy/node-red-contrib-victron (services.json) and the Venus OS D-Bus documentation.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from gateway.formats.body import Body, Json
from gateway.formats.draft import Draft
from gateway.formats.format import Format, Unreadable
from storage.event import Event, Kind, Message

NAME = "victron_venus"

_PORTAL = re.compile(r"[0-9a-zA-Z]{6,32}")
_INSTANCE = re.compile(r"[0-9]{1,10}")
_PHASE = re.compile(r"/L[1-3](?=/|$)")
_NUMBER = re.compile(r"/[0-9]+(?=/|$)")

# By unit, the D-Bus paths; # stands for a number, L# for a phase.
_PATHS = """
W     Ac/Power Ac/L#/Power Ac/In/L#/P Ac/In/#/L#/P Ac/In/#/P Ac/Out/L#/P Ac/Out/P Ac/ActiveIn/L#/P Ac/ActiveIn/P
W     Ac/PowerLimit Ac/Consumption/L#/Power Ac/ConsumptionOnInput/L#/Power Ac/ConsumptionOnOutput/L#/Power
W     Ac/Consumption/Total/Power Ac/Grid/L#/Power Ac/Grid/Total/Power Ac/Genset/L#/Power Ac/PvOnGrid/L#/Power
W     Ac/PvOnGrid/Total/Power Ac/PvOnOutput/L#/Power Ac/PvOnOutput/Total/Power Ac/PvOnGenset/L#/Power
W     Dc/#/Power Dc/In/P Dc/Battery/Power Dc/Charger/Power Dc/Pv/Power Dc/System/Power Dc/Vebus/Power
W     Ess/AcPowerSetpoint Hub4/L#/AcPowerSetpoint Hub4/L#/MaxFeedInPower AcPowerSetpoint InstallationPower
W     Settings/CGwacs/AcPowerSetPoint Settings/CGwacs/MaxChargePower Settings/CGwacs/MaxDischargePower
W     Settings/CGwacs/MaxFeedInPower Yield/Power Pv/#/P History/Daily/#/MaxPower History/Daily/#/Pv/#/MaxPower
V     Ac/L#/Voltage Ac/Voltage Ac/In/L#/V Ac/In/#/L#/V Ac/Out/L#/V Ac/ActiveIn/L#/V Dc/#/Voltage Dc/#/MidVoltage
V     Dc/In/V Dc/Battery/Voltage Pv/V Pv/#/V StarterVoltage BatteryVoltage Info/BatteryLowVoltage
V     Info/MaxChargeVoltage Settings/SystemSetup/MaxChargeVoltage History/MaximumCellVoltage
V     History/MinimumCellVoltage History/MaximumVoltage History/MinimumVoltage History/MaximumStarterVoltage
V     History/MinimumStarterVoltage System/MaxCellVoltage System/MinCellVoltage
A     Ac/L#/Current Ac/Current Ac/In/L#/I Ac/In/#/L#/I Ac/Out/L#/I Ac/ActiveIn/L#/I Ac/In/#/CurrentLimit
A     Ac/In/CurrentLimit Ac/ActiveIn/CurrentLimit Dc/#/Current Dc/Battery/Current Dc/Pv/Current Dc/Vebus/Current
A     Current MaxCurrent SetCurrent Info/MaxChargeCurrent Info/MaxDischargeCurrent
A     Settings/SystemSetup/MaxChargeCurrent
Hz    Ac/Frequency Ac/L#/Frequency Ac/In/#/L#/F Ac/Out/L#/F Ac/ActiveIn/L#/F
kWh   Ac/Energy/Forward Ac/Energy/Reverse Ac/L#/Energy/Forward Ac/L#/Energy/Reverse Session/Energy
kWh   History/EnergyIn History/EnergyOut History/ChargedEnergy History/DischargedEnergy History/Daily/#/Yield
kWh   History/Daily/#/Pv/#/Yield Yield/User Yield/System Energy/InverterToAcOut Energy/OutToInverter
kWh   Energy/SolarToAcOut Energy/SolarToBattery Energy/AcIn#ToAcOut Energy/AcIn#ToInverter Energy/AcOutToAcIn#
kWh   Energy/InverterToAcIn#
Ah    ConsumedAmphours Dc/Battery/ConsumedAmphours History/AverageDischarge History/DeepestDischarge
Ah    History/LastDischarge History/TotalAhDrawn battery:Capacity battery:InstalledCapacity
%     Soc Soh Dc/Battery/Soc Dc/#/MidVoltageDeviation TargetSoc Level Humidity Engine/Load
%     Settings/CGwacs/BatteryLife/MinimumSocLimit Settings/CGwacs/BatteryLife/SocLimit Control/ActiveSocLimit
°C    Temperature Dc/#/Temperature Dc/Battery/Temperature CellTemperature ExternalTemperature
°C    Engine/CoolantTemperature Engine/ExaustTemperature Engine/OilTemperature Engine/WindingTemperature
°C    HeatsinkTemperature Controller/Temperature Motor/Temperature System/MaxCellTemperature
°C    System/MinCellTemperature
s     TimeToGo Dc/Battery/TimeToGo ChargingTime Session/Time Runtime TodayRuntime Engine/OperatingHours
s     History/TimeSinceLastFullCharge Timers/TimeOff Timers/TimeOnGenerator Timers/TimeOnGrid
s     Timers/TimeOnInverter
m3    tank:Capacity tank:Remaining
rpm   Engine/Speed Motor/RPM alternator:Speed
m/s   gps:Speed WindSpeed
deg   Course WindDirection Position/Latitude Position/Longitude
m     Altitude
W/m2  Irradiance
kPa   Pressure Engine/OilPressure
ppm   CO2
lx    Luminosity
km    Odometer RangeToGo
"""


# Numbers that stand for a word or a thing.
_STATES = frozenset({"State", "Mode", "ErrorCode", "ProductId", "DeviceInstance", "Connected", "FirmwareVersion"})


def read(message: Message, body: Body) -> Sequence[Event] | None:
    """One event: of a value (N), of a request to read it (R) or to write it (W)."""
    levels = message.topic.split("/")
    at = next((at for at, level in enumerate(levels[:-2]) if level in _READERS), None)
    if at is None or not _PORTAL.fullmatch(levels[at + 1]):
        return None
    portal, path = levels[at + 1], levels[at + 2 :]
    if len(path) > 1 and not _INSTANCE.fullmatch(path[1]):
        return None
    draft = Draft(NAME, message, body)
    device = "/".join([portal, *path[:2]]) if len(path) > 1 else portal
    name = ".".join(path[2:] if len(path) > 1 else path)
    kind = _READERS[levels[at]](draft, body, path, name)
    return None if kind is None else [draft.event(device, kind, via=portal if len(path) > 1 else None)]


def _notified(draft: Draft, body: Body, path: list[str], name: str) -> Kind | None:
    if not body.payload:  # the device has left the D-Bus
        draft.put_missing(name or "value")
        return "availability"
    node = _value(body)
    if node is _NO_VALUE or not name:
        return None
    if len(path) == 1:
        return _of_portal(draft, body, path[0], node)
    unit = unit_of(path[0], "/".join(path[2:]))
    _put(draft, name, node, unit)
    if path[0] == "settings" or path[-1] in _STATES or "Alarms" in path:
        return "state"
    return "measurement" if unit or _numeric(draft) else "state"


def _of_portal(draft: Draft, body: Body, name: str, node: Json) -> Kind:
    """The clock of the gateway, every three seconds while it is kept alive; or the end of a full report."""
    _put(draft, name, node, "s" if name in ("heartbeat", "full_publish_completed") else None)
    echo = body.document.get("full-publish-completed-echo") if isinstance(body.document, dict) else None
    if echo is not None:
        draft.put("full-publish-completed-echo", echo)
    return "availability" if name == "heartbeat" else "event"


def _asked(draft: Draft, body: Body, path: list[str], name: str) -> Kind:  # noqa: ARG001
    document = body.document
    if isinstance(document, dict):  # of a keepalive; else the payload means nothing
        for key, node in document.items():
            draft.put(key, node)
    return "command"


def _written(draft: Draft, body: Body, path: list[str], name: str) -> Kind | None:
    node = _value(body)
    if node is _NO_VALUE or len(path) < 3:
        return None
    _put(draft, name, node, unit_of(path[0], "/".join(path[2:])))
    return "command"


def _value(body: Body) -> Json:
    document = body.document
    if isinstance(document, dict):
        return document.get("value", _NO_VALUE)
    if body.json_fault:
        raise Unreadable(body.json_fault)
    return _NO_VALUE


def _put(draft: Draft, name: str, node: Json, unit: str | None) -> None:
    if node is None or node in ("", []):  # the D-Bus has an empty array for what is invalid
        draft.put_missing(name)
    elif isinstance(node, (dict, list)):
        draft.put(name, node)
    else:
        draft.put_value(name, node, None if isinstance(node, (str, bool)) else unit, source="format")


def _numeric(draft: Draft) -> bool:
    return any(type(value) is int or type(value) is float for value in draft.readings.values())


@lru_cache(maxsize=4_096)
def unit_of(service: str, path: str) -> str | None:
    """The unit of a D-Bus path, as far as it is documented."""
    wanted = _NUMBER.sub("/#", _PHASE.sub("/L#", path)).replace("AcIn1", "AcIn#").replace("AcIn2", "AcIn#")
    return _UNITS.get(f"{service}:{wanted}") or _UNITS.get(wanted)


_NO_VALUE: Json = {}
_READERS = {"N": _notified, "R": _asked, "W": _written}
_UNITS = {path: line.split()[0] for line in _PATHS.strip().splitlines() for path in line.split()[1:]}

FORMATS: tuple[Format, ...] = (
    Format(
        name=NAME,
        read=read,
        topics=("N/+/#", "R/+/#", "W/+/#", "#/N/+/+/+/#", "#/R/+/+/+/#", "#/W/+/+/+/#"),
    ),
)
