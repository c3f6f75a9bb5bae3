"""What a reading's recorded values are like, as the signal of a fleet's file. Pure; never looks at the store."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from statistics import NormalDist, fmean, median, pstdev

from storage.event import Value

Series = Sequence[tuple[int, Value]]
Spec = dict[str, object]
"""A signal as the file has it, by key."""

QUANTILES = 21
MOST_STATES = 20
FEWEST_OF_A_COUNTER = 10
A_ROUND = 50
"""So many values a counter has at least before it begins anew."""

OUTAGE = 5
"""From so many intervals on nothing came: it is no part of the pace."""

MOST_POINTS = 40
FASTEST_S = 0.001
SECOND_US = 1_000_000
DAY_US = 86_400 * SECOND_US
QUARTER_US = DAY_US // 96
LONG_BREAK_US = 2 * 3600 * SECOND_US
FEWEST_BURSTS, QUICKEST_BURSTS_S = 3, 1.0
"""Of what comes together oftener than that, a network or a busy gateway may have made groups."""

_NORMAL = NormalDist()

ALIKE = 0.98
"""From this correlation on, one reading is taken to follow another."""


def signals(values: dict[str, list[tuple[int, Value]]]) -> dict[str, Spec]:
    """The signal of each reading; a position makes one of two."""
    found: dict[str, Spec] = {}
    left = dict(values)
    if track := _track(values):
        found["position"] = track
        left = {name: series for name, series in values.items() if name not in ("latitude", "longitude", "speed")}
    for name, series in left.items():
        found[name] = _follows(series, left, found) or signal(series)
    return found


def signal(series: Series) -> Spec:
    """The signal that one reading's values would come of."""
    values = [value for _, value in series]
    if len(set(map(_typed, values))) == 1:
        return {"kind": "constant", "value": values[-1]}
    if not all(_is_number(value) for value in values):
        return _states(series)
    numbers = [float(value) for value in values]  # type: ignore[arg-type]  # all are numbers
    if _counts(numbers):
        return {"kind": "counter", "start": values[-1], "rate": float(f"{rate_of(series):.6g}"), **precision(values)}
    return {
        "kind": "quantiles",
        "quantiles": quantiles(numbers),
        "memory": round(min(0.9999, max(0.0, autocorrelation(ranks(numbers)))), 4),
        **precision(values),
    }


def _counts(numbers: Sequence[float]) -> bool:
    """Whether it never falls, or so seldom and so far that the counter will have begun anew."""
    falls = [(one, other) for one, other in pairwise(numbers) if other < one]
    lowest = min(numbers)
    anew = all(other - lowest <= (one - lowest) / 2 for one, other in falls)
    return len(numbers) >= FEWEST_OF_A_COUNTER and anew and len(falls) <= len(numbers) / A_ROUND


def rate_of(series: Series) -> float:
    """How much a counter rises in a second, where it rises or stands."""
    rises = [
        (float(other) - float(one), later - time)  # type: ignore[arg-type]  # a counter has numbers
        for (time, one), (later, other) in pairwise(series)
        if later > time and other >= one  # type: ignore[operator]
    ]
    span_us = sum(us for _, us in rises)
    return sum(rise for rise, _ in rises) / span_us * SECOND_US if span_us else 0.0


def quantiles(numbers: Sequence[float]) -> list[float]:
    """Values that equal shares of the numbers lie between, from the least to the greatest."""
    ordered = sorted(numbers)
    steps = [(len(ordered) - 1) * n / (QUANTILES - 1) for n in range(QUANTILES)]
    return [_between(ordered, step) for step in steps]


def ranks(numbers: Sequence[float]) -> list[float]:
    """The place of each number among them all, in standard deviations of a normal distribution."""
    order = sorted(range(len(numbers)), key=numbers.__getitem__)
    found = [0.0] * len(numbers)
    for place, index in enumerate(order):
        found[index] = _NORMAL.inv_cdf((place + 0.5) / len(numbers))
    return found


def autocorrelation(numbers: Sequence[float]) -> float:
    """How much each is like the one before: 1 as much as can be, 0 not at all."""
    return correlation(numbers[:-1], numbers[1:]) if len(numbers) > 2 else 0.0


def correlation(one: Sequence[float], other: Sequence[float]) -> float:
    """Pearson's; 0 where either never changes."""
    mean_one, mean_other = fmean(one), fmean(other)
    spread = math.sqrt(sum((x - mean_one) ** 2 for x in one) * sum((y - mean_other) ** 2 for y in other))
    together = sum((x - mean_one) * (y - mean_other) for x, y in zip(one, other, strict=True))
    return together / spread if spread else 0.0


def independent(series: Series) -> float:
    """How many of the values tell something new: neighbours that are alike, or a state that lasts, tell little."""
    values = [value for _, value in series]
    if len(values) < 3:
        return 1.0
    if not all(_is_number(value) for value in values):
        return 1.0 + sum(_typed(one) != _typed(other) for one, other in pairwise(values))
    alike = min(0.9999, max(0.0, autocorrelation([float(value) for value in values])))  # type: ignore[arg-type]
    return max(1.0, len(values) * (1 - alike) / (1 + alike))


def _follows(series: Series, values: dict[str, list[tuple[int, Value]]], found: dict[str, Spec]) -> Spec | None:
    """The reading before it that this one is a line of, if there is one."""
    for name, spec in found.items():
        leader = dict(values.get(name, ()))
        pairs = [(leader[time], value) for time, value in series if time in leader]
        if spec["kind"] != "quantiles" or len(pairs) < max(FEWEST_OF_A_COUNTER, len(series) // 2):
            continue
        if not all(_is_number(value) for pair in pairs for value in pair):
            continue
        xs, ys = ([float(value) for value in side] for side in zip(*pairs, strict=True))
        if abs(correlation(xs, ys)) >= ALIKE:
            factor = correlation(xs, ys) * pstdev(ys) / pstdev(xs)
            offset = fmean(ys) - factor * fmean(xs)
            noise = pstdev([y - factor * x - offset for x, y in zip(xs, ys, strict=True)])
            line = {"factor": float(f"{factor:.6g}"), "offset": float(f"{offset:.6g}"), "noise": float(f"{noise:.3g}")}
            return {"kind": "follows", "of": name, **line, **precision([value for _, value in series])}
    return None


def _states(series: Series) -> Spec:
    """How long each state lasts, on the average; the newest alone where there are too many to be states."""
    names = Counter(_written(value) for _, value in series)
    if len(names) > MOST_STATES:
        return {"kind": "constant", "value": series[-1][1]}
    lasted_us, visits = dict.fromkeys(names, 0), dict.fromkeys(names, 0)
    before = ""
    for (time, value), (later, _) in pairwise(series):
        name = _written(value)
        visits[name] += name != before
        lasted_us[name] += later - time
        before = name
    typical = max(1.0, (series[-1][0] - series[0][0]) / len(series) / SECOND_US)
    stays = {name: f"{max(typical, lasted_us[name] / max(1, visits[name]) / SECOND_US):.4g}s" for name in names}
    return {"kind": "states", "states": stays}


def _track(values: dict[str, list[tuple[int, Value]]]) -> Spec | None:
    """The way of a device that moves, thinned to some points."""
    latitudes, longitudes = (dict(values.get(name, ())) for name in ("latitude", "longitude"))
    places = [(lat, longitudes[time]) for time, lat in latitudes.items() if time in longitudes]
    if len(set(places)) < 3 or not all(_is_number(degrees) for place in places for degrees in place):
        return None
    way = [(float(lat), float(lon)) for lat, lon in places]  # type: ignore[arg-type]
    times = sorted(set(latitudes) & set(longitudes))
    span_h = (times[-1] - times[0]) / SECOND_US / 3600
    length_km = sum(_km(one, other) for one, other in pairwise(way))
    if not span_h or length_km / span_h < 0.1:  # it stands, and its receiver is not quite sure where
        return None
    step = max(1, math.ceil(len(way) / MOST_POINTS))
    points = [[round(lat, 6), round(lon, 6)] for lat, lon in way[::step]]
    speeds = [float(speed) for _, speed in values.get("speed", ()) if type(speed) in (int, float)]  # type: ignore[arg-type]
    noise = {"noise": float(f"{pstdev(speeds):.3g}")} if len(speeds) > 1 and pstdev(speeds) else {}
    usual = fmean(speeds) if speeds and fmean(speeds) > 0 else length_km / span_h
    return {"kind": "track", "points": points, "speed_km_h": float(f"{usual:.4g}"), **noise}


def _km(one: tuple[float, float], other: tuple[float, float]) -> float:
    """On a small part of the globe."""
    east = (other[1] - one[1]) * math.cos(math.radians(one[0]))
    return 111.32 * math.hypot(other[0] - one[0], east)


def precision(values: Sequence[Value]) -> Spec:
    if all(type(value) is int for value in values):
        return {"integer": True}
    return {"decimals": min(9, max(_decimals(value) for value in values))}


def _decimals(value: Value) -> int:
    text = f"{float(value or 0):.9f}".rstrip("0")
    return len(text.partition(".")[2])


def _is_number(value: Value) -> bool:
    return type(value) in (int, float)


def _typed(value: Value) -> tuple[type, Value]:
    return type(value), value  # 1 and True are equal, and are not the same


def _written(value: Value) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _between(ordered: Sequence[float], step: float) -> float:
    low = math.floor(step)
    high = min(low + 1, len(ordered) - 1)
    return float(f"{ordered[low] + (ordered[high] - ordered[low]) * (step - low):.9g}")


def interval_of(
    times: Sequence[int], arrivals: Sequence[int] = (), *, breaks: bool = False
) -> tuple[float, float, int]:
    """Seconds from one sample to the next, the jitter as a share of that, and how many come at once.

    `times` are when they were measured, `arrivals` when they came: of those who gather what they measure, the latter
    tell. With `breaks` it has nights, which are no part of its pace.
    """
    mean = (times[-1] - times[0]) / (len(times) - 1)
    steps = [later - time for time, later in pairwise(times)]
    if median(steps) < mean / 5 and len(_starts(times)) > FEWEST_BURSTS:
        return _bursts(times, breaks=breaks)
    if _gathered(times, arrivals):
        return _bursts(arrivals, breaks=breaks)
    usual = median(steps)
    mean = usual if breaks else fmean(step for step in steps if step <= OUTAGE * usual)
    low, high = (_between(sorted(map(float, steps)), (len(steps) - 1) * share) for share in (0.25, 0.75))
    # Steps between times that are each late by up to a share of the interval are spread as a triangle is.
    return max(FASTEST_S, mean / SECOND_US), round(min(0.9, (high - low) / 0.586 / mean), 3), 1


def _gathered(times: Sequence[int], arrivals: Sequence[int]) -> bool:
    """Whether most came in groups of much the same size, at a pace at which no network makes groups.

    An outage makes one group, however large, among many that came alone; history that was brought in afterwards came
    much faster than it was measured.
    """
    if len(arrivals) < 2 or arrivals[-1] - arrivals[0] < (times[-1] - times[0]) / 2:
        return False
    steps, apart = (median(later - time for time, later in pairwise(those)) for those in (arrivals, times))
    if steps >= apart / 5:
        return False
    starts = _starts(arrivals)
    sizes = [after - before for before, after in pairwise(starts)]  # the last one may not be whole
    if len(sizes) < FEWEST_BURSTS or median(sizes) < 2:
        return False
    every_s = median(arrivals[after] - arrivals[before] for before, after in pairwise(starts)) / SECOND_US
    like_most = sum(abs(size - median(sizes)) <= median(sizes) / 5 for size in sizes)
    return every_s >= QUICKEST_BURSTS_S and like_most >= len(sizes) / 2


def _starts(times: Sequence[int]) -> list[int]:
    """The places of the first of each group: a pause longer than the mean is before it."""
    mean = (times[-1] - times[0]) / (len(times) - 1)
    return [0, *(place for place, (time, later) in enumerate(pairwise(times), start=1) if later - time > mean)]


def _bursts(times: Sequence[int], *, breaks: bool) -> tuple[float, float, int]:
    starts = _starts(times)
    if len(starts) < 2:
        return max(FASTEST_S, (times[-1] - times[0]) / (len(times) - 1) / SECOND_US), 0.0, 1
    steps = [times[after] - times[before] for before, after in pairwise(starts)]
    every = (median(steps) if breaks else fmean(steps)) / SECOND_US
    return max(FASTEST_S, every), 0.0, max(1, round(len(times) / len(starts)))


def hours_of(times: Sequence[int]) -> str | None:
    """The hours of the day (UTC) in which all came, where there are such for some days."""
    if times[-1] - times[0] < 2 * DAY_US:
        return None
    usual = (times[-1] - times[0]) / len(times)
    breaks = [(one, other) for one, other in pairwise(times) if other - one > max(LONG_BREAK_US, 5 * usual)]
    if len(breaks) < (times[-1] - times[0]) // DAY_US - 1 or not breaks:
        return None
    first, last = min(other % DAY_US for _, other in breaks), max(one % DAY_US for one, _ in breaks)
    if first >= last:
        return None
    begin, end = first // QUARTER_US, -(-(last + 1) // QUARTER_US)
    return f"{_clock(begin)}-{_clock(end)}"


def _clock(quarters: int) -> str:
    return f"{quarters // 4:02}:{quarters % 4 * 15:02}"
