"""The units of readings: refuses common names that are no UCUM codes. No list of units: what it does not know passes.

Codes: https://ucum.org/ucum. A name is here only if UCUM reads nothing else in it: `C` and `F` are coulomb and farad.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

# A code, and what people write for it; small letters stand for capitals as well.
_MISTAKEN = """
Cel         °c ℃ celsius celcius degc deg_c degree_celsius degrees_celsius
[degF]      °f ℉ fahrenheit degf deg_f degrees_fahrenheit
K           °k kelvin
%           percent pct %rh
W           watt watts
kW          kwatt kilowatt
W.h         wh
kW.h        kwh
MW.h        MWh
mW.h        mWh
V           volt volts
mV          millivolt
A           amp amps ampere amperes
mA          milliamp
A.h         ah
mA.h        mah
V.A         va
kV.A        kva
Ohm         Ω ohm ohms
Hz          hz hertz
Pa          pascal
hPa         hpa hectopascal
mbar        millibar
[psi]       psi
mm[Hg]      mmhg
[in_i'Hg]   inhg
[ppm]       ppm
[ppb]       ppb
lx          lux
/min        rpm
km/h        kmh kph kmph km/hr
[mi_i]/h    mph
[kn_i]      kn knots
m/s         mps
deg         ° degree degrees
dB          db decibel
s           sec secs second seconds
min         minute minutes
h           hr hrs hour hours
m           meter meters metre metres
[in_i]      inch inches
[ft_i]      feet
[mi_i]      mile miles
m2          m² m^2
m3          m³ m^3
L           liter liters litre litres
ug/m3       µg/m³ µg/m3 ug/m³ ug/m^3
W/m2        w/m² w/m^2
"""


def known_unit(unit: str) -> str:
    """Raises ValueError for a name whose code is known."""
    name = unit.strip().replace("\u03bc", "\u00b5").replace("\u2126", "Ω").replace("º", "°")  # they look alike
    name = "_".join(name.replace("° ", "°").split())
    code = CODES.get(name) or CODES.get(name.lower())
    if code is None or code == unit:
        return unit
    raise ValueError(f"{unit!r} is no UCUM code, did you mean {code!r}?")


CODES = {name: line.split()[0] for line in _MISTAKEN.strip().splitlines() for name in line.split()[1:]}
"""Of each common name."""

Unit = Annotated[str, Field(max_length=100), AfterValidator(known_unit)]
