"""Unit names as devices write them, to UCUM codes: a table, because parsers of units guess.

Measured: pint reads `%RH` as percent·ronnahenry and `deg C` as coulomb·degree. A unit that is not in the table
is left out of the event, and no unit is ever taken from a reading's name. Codes: https://ucum.org/ucum, and `dBm`.
"""

from __future__ import annotations

# A code and what devices write for it.
_ALIASES = """
Cel         °C ℃ C degC deg_C deg.C celsius Celsius CELSIUS celcius degree_Celsius degrees_Celsius
Cel         degree_celsius degreeCelsius DEG_C
[degF]      °F ℉ F degF deg_F fahrenheit Fahrenheit degrees_Fahrenheit degree_fahrenheit degreeFahrenheit DEG_F
MK-1        MK⁻¹ mired mireds
K           kelvin Kelvin
%           %RH %rh %_RH %r.H. %EL %EB percent Percent pct %,_RH
W           watt Watt watts Watts
kW          kilowatt
V.A         VA
kV.A        kVA
W.h         Wh wh
W.s         Ws ws
kW.h        kWh kwh KWH KWh kilowatt_hours
MW.h        MWh
V           volt Volt volts Volts
A           amp Amp amps Amps ampere Ampere
A.h         Ah
mA.h        mAh
Ohm         Ω ohm ohms
mOhm        mΩ
kOhm        kΩ kohm
MOhm        MΩ
Hz          hertz Hertz
Pa          pascal
hPa         hpa HPA hectopascal
kPa         kpa KPA kilopascal
[psi]       psi PSI
[in_i'Hg]   inHg
mm[Hg]      mmHg
m           meter meters metre metres
[in_i]      in inch inches
[ft_i]      ft feet
[mi_i]      mi mile miles
m/s         mps m.s-1
km/h        kmh kph km/hr kmph
[mi_i]/h    mph
[kn_i]      kn kt knots
m/s2        m.s-2
mm/h        mm/hr
[in_i]/h    in/h in/hr
m3          m^3 cbm
[cft_i]     ft3 ft^3
L           l liter liters litre litres
mL          ml
[gal_us]    gal gallons
L/min       l/min lpm
L/h         l/h
L/s         l/s
mL/min      ml/min
m3/s        m^3/s
kg/h
m3/h        m^3/h
m2          m^2
cm2         cm^2
mg          milligram
[lb_av]     lb lbs
[oz_av]     oz
ug/m3       ug/m^3
mg/m3       mg/m^3
[ppm]       ppm PPM
[ppb]       ppb PPB
lx          lux Lux LUX
klx         klux
W/m2        W/m^2
dBm         dbm DBm
s           sec secs second seconds
ms          msec millisecond milliseconds
us          usec microsecond microseconds
min         mins minute minutes
h           hr hrs hour hours
d           day days
deg         ° degree degrees lat lon
rad         radian radians
/min        rpm RPM 1/min
1           / #
[pH]        pH
Bq/m3       Bq/m^3
uSv/h       usv/h
uS/cm       us/cm US/CM
By          B byte bytes Bytes
kBy         kB KB
MBy         MB
GBy         GB
bit         bits
kbit/s      kbps
Mbit/s      Mbps
bit/s       bps
By/s        B/s
"""

# Codes that devices write as they are.
_PLAIN = """
mW MW GW mW.h W.min J kJ MJ GJ mV kV uV mA uA kHz MHz GHz mS/cm S/m MPa bar mbar cm mm km um nm g kg t lm cd
dB ns N N.m T mT uT m[g] mol cal kcal Gcal Gcal/h [g] dS/m cm/h uR/h g/h
"""

# Micro sign, Greek mu, ohm sign and masculine ordinal look like others; powers and products have several forms.
_FOLDED = str.maketrans(
    {"\u00b5": "u", "\u03bc": "u", "\u2126": "Ω", "º": "°", "³": "3", "²": "2", "·": ".", "⋅": ".", "*": ".", " ": "_"}
)


def code(name: str) -> str | None:
    """The UCUM code of a unit's name, None where the table does not have it."""
    return _CODES.get(name) or (_CODES.get(name.strip().translate(_FOLDED)) if len(name) <= 32 else None)


def _table() -> dict[str, str]:
    table = {name: name for name in _PLAIN.split()}
    for line in _ALIASES.strip().splitlines():
        canonical, *names = line.split()
        table |= dict.fromkeys([canonical, *names], canonical)
    return table


_CODES = _table()
