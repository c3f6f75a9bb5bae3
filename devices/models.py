"""What each kind of device would measure: signals that follow from chance and time alone, far from any network."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from random import Random

import msgspec

from devices.clock import DAY_US, SECOND_US
from devices.outgoing import Value

Readings = dict[str, Value]

Signal = Callable[[Random, Iterable[int]], Iterator[Readings]]
"""One device's readings at each of the times given (microseconds since the epoch)."""


class Model(msgspec.Struct, frozen=True):
    """A kind of device. `prefix` begins the names of its devices, `units` are UCUM codes by reading name."""

    prefix: str
    units: Mapping[str, str]
    signal: Signal


def thermometer(chance: Random, times: Iterable[int]) -> Iterator[Readings]:
    """Warmest at 15:00 UTC, dampest when coolest; the noise of a good sensor."""
    mean, swing = chance.uniform(16, 24), chance.uniform(2, 6)
    damp = chance.uniform(40, 60)
    for time in times:
        departure = swing * _daily(time, peak_hour=15) + chance.gauss(0, 0.05)
        humidity = damp - 2.0 * departure + chance.gauss(0, 0.2)
        yield {"temperature": round(mean + departure, 2), "humidity": round(min(max(humidity, 0.0), 100.0), 1)}


def meter(chance: Random, times: Iterable[int]) -> Iterator[Readings]:
    """A household: a base load, busiest at 19:00 UTC, with a heater that comes and goes; the counter never falls."""
    base, evening = chance.uniform(80, 250), chance.uniform(200, 800)
    energy = chance.uniform(1_000, 20_000)
    heater = 0.0
    for time, seconds in _steps(times):
        if _changes(chance, seconds, every_s=120):
            heater = 0.0 if heater else chance.uniform(800, 2_000)
        power = base + evening * (1 + _daily(time, peak_hour=19)) / 2 + heater + chance.gauss(0, 5)
        energy += power * seconds / 3_600_000
        yield {
            "power": round(power, 1),
            "energy": round(energy, 6),
            "voltage": round(231 - power / 1_000 + chance.gauss(0, 0.4), 1),
        }


def door(chance: Random, times: Iterable[int]) -> Iterator[Readings]:
    """Two states that know no past: closed for a minute on average, open for a quarter of one."""
    is_open, count = False, 0
    for _, seconds in _steps(times):
        if _changes(chance, seconds, every_s=15 if is_open else 60):
            is_open = not is_open
            count += is_open
        yield {"state": "open" if is_open else "closed", "open_count": count}


def tracker(chance: Random, times: Iterable[int]) -> Iterator[Readings]:
    """Round and round on a circular track near Berlin, at the speed of town traffic."""
    centre_latitude, centre_longitude = 52.52 + chance.uniform(-0.1, 0.1), 13.4 + chance.uniform(-0.2, 0.2)
    radius_km, angle = chance.uniform(0.5, 4), chance.uniform(0, math.tau)
    usual = speed = chance.uniform(25, 60)
    for _, seconds in _steps(times):
        # drawn back to the usual speed, however long the step
        speed = max(0.0, usual + (speed - usual) * math.exp(-seconds / 60) + chance.gauss(0, 1))
        angle += speed * seconds / 3_600 / radius_km
        north_km, east_km = radius_km * math.sin(angle), radius_km * math.cos(angle)
        yield {
            "latitude": round(centre_latitude + north_km / _KM_PER_DEGREE, 6),
            "longitude": round(
                centre_longitude + east_km / _KM_PER_DEGREE / math.cos(math.radians(centre_latitude)), 6
            ),
            "speed": round(speed, 1),
        }


MODELS: Mapping[str, Model] = {
    "thermometer": Model("thermo", {"temperature": "Cel", "humidity": "%"}, thermometer),
    "meter": Model("meter", {"power": "W", "energy": "kW.h", "voltage": "V"}, meter),
    "door": Model("door", {"open_count": "1"}, door),
    "tracker": Model("tracker", {"latitude": "deg", "longitude": "deg", "speed": "km/h"}, tracker),
}
"""By the name that `--models` takes."""

_KM_PER_DEGREE = 111.32


def _daily(time_us: int, *, peak_hour: float) -> float:
    """From -1 to 1 and back within a day, 1 at the hour given (UTC)."""
    return math.cos(math.tau * ((time_us % DAY_US) / DAY_US - peak_hour / 24))


def _steps(times: Iterable[int]) -> Iterator[tuple[int, float]]:
    """Each time with the seconds since the one before: 0 for the first."""
    before = None
    for time in times:
        yield time, 0.0 if before is None else (time - before) / SECOND_US
        before = time


def _changes(chance: Random, seconds: float, *, every_s: float) -> bool:
    """Whether something that happens every so often, on average, has happened within these seconds."""
    return chance.random() < -math.expm1(-seconds / every_s)
