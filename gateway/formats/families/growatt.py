"""Grott, which reads what Growatt solar inverters send to their maker: https://github.com/johanmeijer/grott.

It publishes the integers of the wire. Scales by its record layouts, units by the Growatt Modbus protocol.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from gateway.formats.body import Body, Json
from gateway.formats.draft import Draft
from gateway.formats.format import Format
from storage.event import Event, Message

NAME = "growatt_grott"

_DATE = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d")
# By divisor and unit, the names whose scale is the same in every layout that has them. # stands for a number.
_FIELDS = """
10    W    pvpowerin pvpowerout pv#watt pvgridpower pvgridpower# ppv# op_watt opfullwatt acchr_watt AC_InWatt
10    W    ACDischarWatt BatDischarWatt BatWatt pdischarge# p#charge# pcharge# pactouserr pactousertot pactogridr
10    W    pactogridtot plocaloadr plocaloadtot act_power_l# pos_rev_act_power pos_act_power rev_act_power epspac
10    W    epspac# pac pac# pdischr pchr bdc#_pdischr bdc#_pchr ptousertotal ptogridtotal ptoloadtotal pself
10    VA   op_va acchr_VA AC_InVA ACDischarVA BatDischarVA app_power_l# app_power
10    V    pv#voltage pvgridvoltage pvgridvoltage# Vac_RS Vac_ST Vac_TR vacrs vacst vactr vpv# vac# bus_volt grid_volt
10    V    outputvolt spbusvolt pbusvoltage nbusvoltage busvoltage voltage_l# L#-#_voltage epsvac# uwBatVolt_DSP
10    V    bat_dsp string#_voltage
100   V    bat_Volt bms_batteryvolt bmsbatteryvolt bdc#_vbat batloadvolt bmscell#volt
10    A    pv#current pvgridcurrent pvgridcurrent# buck#curr OP_Curr Inv_Curr ACCharCurr Current_l# iac# epsiac#
10    A    string#_current bdc#_ibat
100   A    bms_batterycurr bmsbatterycurr bms_maxcurr bmsmaxcurr
100   Hz   pvfrequentie pvfrequency line_freq outputfreq epsfac fac
10    Hz   frequency
10    kWh  pvenergytoday pvenergytotal epvtoday epvToday epvtotal epvTotal epv#today epv#total epv#tod epv#tot
10    kWh  eactoday eactotal eacharge_today eacharge_total eacchargetoday eacchargetotal etouser_tod etouser_tot
10    kWh  etogrid_tod etogrid_tot edischarge#_tod edischarge#_tot eharge#_tod eharge#_tot elocalload_tod
10    kWh  elocalload_tot eacCharToday eacCharTotal ebatDischarToday ebatDischarTotal eacDischarToday eacDischarTotal
10    kWh  eopDischrToday eopDischrTotal etousertoday etousertotal etogridtoday etogridtotal eloadtoday eloadtotal
10    kWh  edischrtoday edischrtotal echrtoday echrtotal eacchrtoday eacchrtotal esystemtoday esystemtotal eselftoday
10    kWh  eselftotal pos_act_energy rev_act_energy act_energy_kwh
10    °C   pvtemperature pvipmtemperature pvboottemperature pvboosttemp invtemp dcdctemp bms_batterytemp
10    °C   boosttemperature comboardtemperature buck#_ntc bdc#_tempa bdc#_tempb
10    %    loadpercent
1     %    batterySoc bms_soc bms_soh bdc#_soc bmssoc bmssoh
1000  1    powerfactor powerfactor_l#
2     s    totworktime timetotal
"""
_SERIALS = frozenset({"datalogserial", "pvserial"})
_DIGITS = re.compile(r"[0-9]+")


def read(message: Message, body: Body) -> Sequence[Event] | None:
    """One event of the inverter or meter; a buffered record was sent later than it was measured."""
    document = body.document
    if not isinstance(document, dict):
        return None
    device, values, stamp = document.get("device"), document.get("values"), document.get("time")
    if not isinstance(device, str) or not device.strip() or not isinstance(values, dict):
        return None
    if not isinstance(stamp, str) or not _DATE.match(stamp) or document.get("buffered") not in _BUFFERED:
        return None
    draft = Draft(NAME, message, body)
    for name, node in values.items():
        _put(draft, name, node)
    if draft.believed(stamp) is None:  # local time, without a zone
        draft.put("time", stamp)
    logger = values.get("datalogserial")
    via = logger if isinstance(logger, str) and logger != device else None
    return [draft.event(device, "measurement", stamp=stamp, via=via, historical=document.get("buffered") == "yes")]


def _put(draft: Draft, name: str, node: Json) -> None:
    scale = _scale_of(name)
    # A text or a fraction did not come from the wire as it is.
    if scale is None or type(node) is not int or abs(node) >= 2**53:
        draft.put(name, node)
        return
    by, unit = scale
    draft.put_value(name, node if by == 1 else node / by, unit, source="format")


@lru_cache(maxsize=4_096)
def _scale_of(name: str) -> tuple[int, str] | None:
    return _SCALES.get(name) or _SCALES.get(_DIGITS.sub("#", name))


def _scales() -> dict[str, tuple[int, str]]:
    rows = (line.split() for line in _FIELDS.strip().splitlines())
    return {name: (int(by), unit) for by, unit, *names in rows for name in names}


# "nodetect": Grott in its compatibility mode does not look.
_BUFFERED = ("yes", "no", "nodetect")
_SCALES = _scales()

FORMATS: tuple[Format, ...] = (
    Format(name=NAME, read=read, keys=(frozenset({"device", "time", "buffered", "values"}),)),
)
