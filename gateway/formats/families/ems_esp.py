"""EMS-ESP, a gateway to the bus of Bosch heating systems: https://docs.emsesp.org/MQTT.

Units by https://docs.emsesp.org/All-Entities. Temperatures are in °C, as EMS-ESP has them unless it is set to
Fahrenheit, of which its messages say nothing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from gateway.formats.body import Body, Json
from gateway.formats.draft import Draft
from gateway.formats.format import Format, Unreadable
from gateway.formats.plain import scalar
from storage.event import Event, Kind, Message

NAME = "ems_esp"

_BASE = "ems-esp"
_DEVICES = """
boiler thermostat mixer solar heatpump heatsource gateway switch controller connect alert extension generic ventilation
water pool pump
"""
_OWN = frozenset({"temperaturesensor", "analogsensor", "custom", "scheduler", "system"})
# Under another base name only what nobody else is likely to call so.
_TELLING = ("boiler", "thermostat", "mixer", "heatpump", "temperaturesensor", "analogsensor")
_NAMES = "|".join([*_DEVICES.split(), *sorted(_OWN)])
_DATA = re.compile(rf"({_NAMES})_data(?:_(\w{{1,16}}))?")
_ORDER = re.compile(rf"({_NAMES})(?:_hc[1-8]|_cmd)?")  # _cmd until version 3
_COMMANDS = ("cmd", "entity")
_VALUES = ("data", "value")

# By unit, the entities; those are left out that have another unit on another device.
_ENTITIES = """
°C    altflowtemp altrettemp baseflowtemp blockhyst boil2hystoff boil2hyston boilhystoff boilhyston boiltemp coldtemp
°C    collector2temp collectormaxtemp collectormintemp collectortemp comfoff comfoffset comforttemp comfstop comftemp
°C    coolstart cooltemp curflowtemp curroominfl currsolarinfl currtemp curtemp curtemp2 curvebase curveend
°C    cyl2bottomtemp cyl3bottomtemp cylbottomtemp cylcentertemp cylmaxtemp cylmiddletemp cyltoptemp dailytemp
°C    dampedoutdoortemp daytemp daytemp2 daytemp3 daytemp4 designtemp dewtemperature difftemp disinfectiontemp ecooff
°C    ecoplusoff ecoplusstop ecostop ecotemp emergencytemp exhausttemp floordrytemp flowsettemp flowtemphc flowtempvf
°C    fluegastemp headertemp heatblock heatcntflowtemp heatcntrettemp heatexchangertemp heatingtemp heattemp
°C    holidaytemp hottemp hpbrinein hpbrineout hpminflowtemp hpph1 hppl1 hpta4 hptc0 hptc1 hptc3 hptl2 hptr1 hptr3
°C    hptr4 hptr5 hptr6 hptr7 hptw1 hydrtemp hystoff hyston inexhaust infresh intoffset inttemp1 inttemp2 keepwarmtemp
°C    manualtemp maxflowtemp maxt maxtemp minexttemp minflowtemp mint mintemp mintempsilent mixertemp netflowtemp
°C    nighttemp nofrosttemp noreducetemp offsettemp offtemp outdoortemp outexhaust outfresh poolsettemp pooltemp
°C    pumpontemp redtemp redthreshold reducetemp remotetemp requiredtemp retheatassist rettemp selflowtemp seltemp
°C    seltemplow seltempoff seltempsingle setflowtemp setpoint setreturntemp settemp settemplow solarinfl solartemp
°C    storagetemp1 storagetemp2 summertemp swapflowtemp swaprettemp switchovertemp switchtemp sysflowtemp sysrettemp
°C    targetflowtemp temp temp5 tempautotemp tempdiffboiler tempecoplus tempparmode ts16 ts3 ts8 turnoffdiff
°C    turnoffdiff2 turnondiff turnondiff2 vacreducetemp
%     absburnpow airhumidity apumpmin apumpmod auxheaterlevel auxheatmix burnmaxpower compstartmod curburnpow
%     cylpumpmod dhwvalve expvalve fan fanspd fastheatup heatassistpower heatingpumpmod heatpumpoutput heatrequest
%     heatvalve hpbrinepumpspd hpcircspd hpcompspd hpmaxpower hptargetspd maxpower outpow pc1rate poolshunt
%     powerreduction primepumpmod pump2minmod pumpminmod pumpmod pumpmodmax pumpmodmin recvalve remotehum selburnpow
%     setburnpow setpower solarpump2mod solarpumpmod transferpumpmod valvebuffer valvereturn ventinspeed ventoutspeed
bar   syspress
min   altopprio altopprioheat blockremain blockremaindhw burn2workmin burnminperiod burnworkmin chargeduration
min   dailyheattime delayboiler disinfecttime heatworkmin inttime inttimefloor m1worktime pump2worktime pumpdelay
min   pumpkickdelay pumpworktime reduceminutes releasewait silentfrom silentto ubauptime uptimecomp uptimecompcooling
min   uptimecompheating uptimecomppool uptimecontrol uptimetotal workm
h     boosttime cooloffdelay coolondelay heatoffdelay heatondelay lownoisestart lownoisestop maintenancetime party
h     pause pumpkickhour reducehours
l/h   pc0flow pc1flow
kWh   auxelecheatnrgcons auxelecheatnrgconsheating auxelecheatnrgconspool auxelecheatnrgconstotal eldhw elgendhw
kWh   elgenheat elheat energytotal fueldhw fuelheat gasmeter gasmeterheat meter metercomp metercool metereheat
kWh   meterheat metertotal nrg nrg2 nrgconscomp nrgconscompcooling nrgconscompheating nrgconscomppool nrgconscomptotal
kWh   nrgconstotal nrgcool nrgheat nrgheat2 nrgsupp nrgsuppcooling nrgsuppheating nrgsupppool nrgsupptotal nrgtotal
kW    nompower pvmaxcomp
mbar  hpsetdiffpress setdiffpress
K     auxlimitstart auxmaxlimit comfdiff deltatret dewoffset ecodiff ecoplusdiff heatassistoff heatassiston
K     instantstart pvlowercool pvraiseheat roomtempdiff tempdiffcool tempdiffheat
W     hpcurrpower hppowerlimit solarpower
l/min curflow maxflow
uA    flamecurr
s     bufmixruntime clockoffset mixruntime valvesettime
Wh    energylasthour energytoday
m2    collector1area collector2area
V     input maxv minv
"""
_HEARTBEAT = {
    "uptime_sec": "s",
    "freemem": "kB",
    "max_alloc": "kB",
    "rssi": "dBm",
    "wifistrength": "%",
    "temperature": "°C",
}


def read(message: Message, body: Body) -> Sequence[Event] | None:
    """One event of the gateway; what is behind it is told by the first part of a reading's name: `boiler.rettemp`."""
    found = _split(message.topic)
    if found is None:
        return None
    if body.document is None and body.json_fault:
        raise Unreadable(body.json_fault)
    if body.document is None and body.text is None:
        return None
    base, path = found
    draft = Draft(NAME, message, body)
    return [draft.event(base, _fill(draft, body, path))]


def _split(topic: str) -> tuple[str, list[str]] | None:
    """The base, and what is published or subscribed below it."""
    levels = topic.split("/")
    if _BASE in levels[:-1]:
        at = levels.index(_BASE) + 1
    else:
        telling = (at for at, level in enumerate(levels) if at and (level == "heartbeat" or _DATA.fullmatch(level)))
        at = next(telling, 0)
    base = "/".join(levels[:at])
    return (base, levels[at:]) if base.strip("/ ") else None


def _fill(draft: Draft, body: Body, path: list[str]) -> Kind | None:
    first = path[0]
    if data := _DATA.fullmatch(first):
        _put(draft, [data[1], *filter(None, data.groups()[1:]), *path[1:]], body)
        draft.put_known_units(_degrees if data[1] == "temperaturesensor" else _unit_of)
        return None
    if order := _ORDER.fullmatch(first):
        _put_order(draft, [order[1], *path[1:]] if first.endswith("_cmd") else path, body)
        draft.put_known_units(_unit_of)
        return "command"
    _put(draft, [] if isinstance(body.document, dict) else path, body)
    if first == "heartbeat":
        draft.put_known_units(_HEARTBEAT.get)
        return None
    return _KINDS.get(first, "state" if first.endswith("_active") else None)


def _put(draft: Draft, path: list[str], body: Body) -> None:
    document = body.document
    if isinstance(document, dict):
        for key, node in document.items():
            _put_node(draft, ".".join([*path, key]), node)
    elif document is not None or body.text:
        draft.put(".".join(path), document if document is not None else scalar(body.text or ""))


def _put_node(draft: Draft, name: str, node: Json) -> None:
    draft.put(name, None if node == "" else node)  # no error, no message


def _put_order(draft: Draft, path: list[str], body: Body) -> None:
    """An entity and its new value, in the topic or in the payload; an empty payload asks for the value."""
    document = body.document
    if not isinstance(document, dict):
        _put(draft, path, body)
        return
    command = next((key for key in _COMMANDS if isinstance(document.get(key), str)), None)
    value = next((key for key in _VALUES if key in document), None)
    where = [*path, str(document[command])] if command else path
    for key, node in document.items():
        if key != command:
            draft.put(".".join(where if key == value else [*path, key]), node)


def _unit_of(name: str) -> str | None:
    path = name.split(".")
    return None if path[0] in _OWN else _UNITS.get(path[-1].lower())


def _degrees(_: str) -> str:
    return "°C"


_KINDS: dict[str, Kind] = {"status": "availability", "info": "state", "response": "event"}
_UNITS = {name: line.split()[0] for line in _ENTITIES.strip().splitlines() for name in line.split()[1:]}

FORMATS: tuple[Format, ...] = (
    Format(
        name=NAME,
        read=read,
        topics=(
            "ems-esp/#",
            "+/ems-esp/#",
            *(f"#/{name}_data/#" for name in _TELLING),
            *(f"#/{name}_data_hc{at}" for name in ("thermostat", "mixer") for at in range(1, 9)),
            "#/boiler_data_dhw",
        ),
        keys=(frozenset({"bus_status", "rxreceived"}),),
    ),
)
