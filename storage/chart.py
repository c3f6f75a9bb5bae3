"""Draws what the numbers of series come to over time: for a terminal, as PNG, as JSON and CSV. Reads no store."""

from __future__ import annotations

import csv
import io
import math
import shlex
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from operator import attrgetter
from typing import Literal

import msgspec

from storage.errors import AmberError
from storage.render import shown
from storage.summaries.buckets import Bucket, Series
from storage.times import SECOND, iso

Shown = Literal["count", "min", "max", "mean", "sum", "last"]
"""What of a bucket is drawn."""

MINUTE, HOUR, DAY = 60 * SECOND, 3_600 * SECOND, 86_400 * SECOND

STEPS = (
    *(n * SECOND for n in (1, 2, 5, 10, 15, 30)),
    *(n * MINUTE for n in (1, 2, 5, 10, 15, 30)),
    *(n * HOUR for n in (1, 2, 3, 6, 12)),
    *(n * DAY for n in (1, 2, 7, 14, 30, 90, 365)),
)
"""Steps of time that a person would choose; days and longer begin at midnight UTC, counted from the epoch."""

MOST_STEPS = 200
"""A chart is chosen to have so many at most: about what a terminal can show."""

FIELDS = "start", "count", "min", "max", "mean", "sum", "last"

NARROWEST, LOWEST, HIGHEST = 40, 12, 32
"""Characters: below that there is no room for the axes, and above it nothing is gained."""

COLOURS = ("blue+", "orange+", "green+", "red+", "magenta+", "cyan+")
MARKERS = ("braille", "x", "o", "+", "*", "#")
"""Without colours, lines differ by what they are drawn with."""

FEW_DIGITS, TRUE_DIGITS = 6, 15
"""Digits that are shown if they are enough, and digits that a float has of every decimal number."""

LEAST_PLAIN, MOST_PLAIN = 1e-4, 1e12
"""Numbers in between are written without an exponent."""

LEAST_SPREAD = 1e-290
"""What differs by less is drawn as the same: floats end soon below."""

PNG_INCHES, PNG_DPI = (10, 5), 120
PNG_TICKS = 8


class ChartError(AmberError):
    """A chart that cannot be drawn here."""


class Newest(msgspec.Struct, frozen=True):
    """When the newest value of a series was observed, and whether it is a text, which no chart can show."""

    at: int
    is_text: bool


class Line(msgspec.Struct, frozen=True):
    """One series in a chart, and its buckets in order; `newest` tells of one that has none."""

    series: Series
    buckets: Sequence[Bucket]
    newest: Newest | None = None


class Chart(msgspec.Struct, frozen=True):
    """Lines over a range of time, in steps of `every_us`, which begin at `since`."""

    device: str
    lines: Sequence[Line]
    since: int
    until: int
    every_us: int
    shown: Shown

    @property
    def empty(self) -> bool:
        return not any(line.buckets for line in self.lines)

    @property
    def title(self) -> str:
        """`thermo-1: temperature (Cel), mean of 10 min`."""
        names = ", ".join(_label(line.series, self.shown) for line in self.lines)
        return f"{shown(self.device)}: {names}, {self.shown} of {duration_text(self.every_us)}"


def step_for(span_us: int) -> int:
    """The shortest natural step in which a range has no more steps than a chart can show."""
    return next((step for step in STEPS if span_us <= step * MOST_STEPS), STEPS[-1])


def duration_text(us: int) -> str:
    """In the largest unit that it is a whole number of, as `--every` takes it."""
    for unit_us, unit in ((DAY, "d"), (HOUR, "h"), (MINUTE, "min"), (SECOND, "s")):
        if us % unit_us == 0:
            return f"{us // unit_us} {unit}"
    return f"{us / 1_000:g} ms"


def json_text(chart: Chart) -> str:
    """One array, an element to a line; with several readings each tells which it is of."""
    records = [msgspec.json.encode(record).decode() for record in _records(chart)]
    return "[\n" + ",\n".join(records) + "\n]\n" if records else "[]\n"


def csv_text(chart: Chart) -> str:
    text = io.StringIO()
    fields = ("reading", *FIELDS) if len(chart.lines) > 1 else FIELDS
    writer = csv.DictWriter(text, fields, lineterminator="\n")
    writer.writeheader()
    writer.writerows(_records(chart))
    return text.getvalue()


def plot_text(chart: Chart, columns: int, rows: int, *, coloured: bool) -> str:
    """For a terminal of this size: the chart, and beneath it a line for each series."""
    if chart.empty:
        return _nothing(chart)
    import plotext as plt

    plt.clear_figure()
    plt.limit_size(width=False, height=False)
    plt.plot_size(max(columns, NARROWEST), max(LOWEST, min(rows - len(chart.lines) - 2, HIGHEST)))
    plt.theme("clear")
    plt.title(chart.title)
    value = _value(chart.shown)
    for number, line in enumerate(chart.lines):
        colour, marker = COLOURS[number % len(COLOURS)], MARKERS[0 if coloured else number % len(MARKERS)]
        label = _label(line.series, chart.shown) if len(chart.lines) > 1 else None
        for run in runs(line.buckets):
            seconds = [(bucket.start - chart.since) / SECOND for bucket in run]
            plt.plot(seconds, [value(bucket) for bucket in run], color=colour, marker=marker, label=label)
            label = None
    values = [value(bucket) for line in chart.lines for bucket in line.buckets]
    low, high = min(values), max(values)
    levels = value_ticks(low, high)
    plt.ylim(min(low, levels[0][0]), max(high, levels[-1][0]))
    plt.yticks([level for level, _ in levels], [text for _, text in levels])
    times = time_ticks(chart.since, chart.until, max(2, columns // 16))
    plt.xlim(0, (chart.until - chart.since) / SECOND)
    plt.xticks([(at - chart.since) / SECOND for at, _ in times], [text for _, text in times])
    text: str = plt.build()
    text = text if coloured else plt.uncolorize(text)
    return "\n".join([*(line.rstrip() for line in text.splitlines()), *_summaries(chart)]) + "\n"


def png_bytes(chart: Chart) -> bytes:
    """A picture; what the mean is of is drawn as a band from the least to the greatest. Raises ChartError."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ChartError("PNG needs matplotlib: pip install 'amber-gateway[png]'") from error
    import warnings

    figure = Figure(figsize=PNG_INCHES, dpi=PNG_DPI, layout="constrained")
    axes = figure.add_subplot()
    value = _value(chart.shown)
    legend = {}
    for number, line in enumerate(chart.lines):
        for run in runs(line.buckets):
            seconds = [(bucket.start - chart.since) / SECOND for bucket in run]
            values = [value(bucket) for bucket in run]
            marker = "." if len(run) == 1 else None
            drawn = axes.plot(seconds, values, color=f"C{number}", marker=marker, linewidth=1.3)
            legend[_label(line.series, chart.shown)] = drawn[0]
            if chart.shown == "mean" and len(chart.lines) == 1:
                lows, highs = [bucket.min for bucket in run], [bucket.max for bucket in run]
                axes.fill_between(seconds, lows, highs, color=f"C{number}", alpha=0.15, linewidth=0)
    times = time_ticks(chart.since, chart.until, PNG_TICKS)
    axes.set_xlim(0, (chart.until - chart.since) / SECOND)
    axes.set_xticks([(at - chart.since) / SECOND for at, _ in times], [text for _, text in times])
    axes.grid(alpha=0.3)
    # Names may have dollar signs, which are no formulas.
    axes.set_title(chart.title, parse_math=False)
    axes.set_xlabel(_nothing(chart).strip() if chart.empty else "\n".join(_summaries(chart)), parse_math=False)
    if len(chart.lines) > 1 and legend:
        for text in axes.legend(legend.values(), legend).get_texts():
            text.set_parse_math(False)
    out = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a name in a script that its font does not have
        figure.savefig(out, format="png")
    return out.getvalue()


def runs(buckets: Sequence[Bucket]) -> Iterator[Sequence[Bucket]]:
    """The buckets between gaps: silences that are longer than what is usual between two of them."""
    if not buckets:
        return
    distances = sorted(after.start - before.start for before, after in pairwise(buckets))
    usual = distances[len(distances) * 9 // 10] if distances else 0  # nine of ten are no longer
    begin = 0
    for number, (before, after) in enumerate(pairwise(buckets), 1):
        if 2 * (after.start - before.start) > 3 * usual:
            yield buckets[begin:number]
            begin = number
    yield buckets[begin:]


def value_ticks(low: float, high: float, most: int = 7) -> list[tuple[float, str]]:
    """Round numbers that reach over a range, two at least, with as many digits as tell them apart."""
    magnitude = max(abs(low), abs(high))
    if high - low <= max(magnitude * 1e-12, LEAST_SPREAD):  # all the same, or as good as
        margin = magnitude / 10 if magnitude > LEAST_SPREAD else 1.0
        low, high = low - margin, high + margin
    spread = (high - low) / most
    unit = 10.0 ** math.floor(math.log10(spread))
    step = next(unit * factor for factor in (1, 2, 5, 10, 20) if unit * factor >= spread)
    levels = [number * step for number in range(math.floor(low / step), math.ceil(high / step) + 1)]
    if step < LEAST_PLAIN or magnitude >= MOST_PLAIN:
        return [(level, number_text(level)) for level in levels]
    digits = max(0, -math.floor(math.log10(step)))
    return [(level, f"{level or 0:,.{digits}f}") for level in levels]


def time_ticks(since: int, until: int, most: int) -> list[tuple[int, str]]:
    """Times in a range, UTC, with their text: no more of both than is needed to tell them apart."""
    step = next((step for step in STEPS if until - since <= step * most), max(STEPS[-1], (until - since) // most))
    if step % DAY == 0:
        begin, end = 0, 10
    else:
        begin, end = (11 if until - since <= DAY else 5), (16 if step % MINUTE == 0 else 19)
    return [(at, iso(at)[begin:end].replace("T", " ")) for at in range(since + -since % step, until + 1, step)]


def number_text(value: float, digits: int = FEW_DIGITS) -> str:
    """So many digits that count."""
    if value == 0:
        return "0"
    if not LEAST_PLAIN <= abs(value) < MOST_PLAIN:
        return f"{value:.{digits}g}"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    text = f"{value:,.{decimals}f}"
    return text.rstrip("0").rstrip(".") if decimals else text


def number_texts(values: Sequence[float]) -> list[str]:
    """With as many digits as tell apart those that differ, six at least."""
    values = [without_dust(value) for value in values]
    for digits in range(FEW_DIGITS, TRUE_DIGITS):
        texts = [number_text(value, digits) for value in values]
        if len(set(texts)) == len(set(values)):
            return texts
    return [number_text(value, TRUE_DIGITS) for value in values]


def without_dust(value: float) -> float:
    """A sum of decimals as a person would write it: 739.99, not 739.9900000000001."""
    return float(f"{value:.{TRUE_DIGITS}g}")


def _summaries(chart: Chart) -> list[str]:
    """Beneath the chart: how many events, least, mean and greatest, and where the times are from."""
    steps = f"in steps of {duration_text(chart.every_us)}, {_clock(chart.since)} to {_clock(chart.until)} UTC"
    several = len(chart.lines) > 1
    return [
        f"{f'{shown(line.series.reading)}: ' if several else ''}{_summary(line)}"
        + (f"; {steps}" if number == len(chart.lines) - 1 else "")
        for number, line in enumerate(chart.lines)
    ]


def _summary(line: Line) -> str:
    buckets = line.buckets
    if not buckets:
        return "no numbers"
    events = sum(bucket.count for bucket in buckets)
    mean = math.fsum(bucket.sum / events for bucket in buckets)
    least, greatest = min(bucket.min for bucket in buckets), max(bucket.max for bucket in buckets)
    mean = min(max(mean, least), greatest)  # which rounding may have moved it past
    low, middle, high = number_texts((least, mean, greatest))
    unit = _unit(line.series)
    texts = f"min {low}, mean {middle}, max {high}{f' {unit}' if unit else ''}"
    return f"{events:,} {'event' if events == 1 else 'events'}, {texts}"


def _nothing(chart: Chart) -> str:
    names = " or ".join(shown(line.series.reading) for line in chart.lines)
    lines = [
        f"{shown(chart.device)} has no numbers of {names} from {_clock(chart.since)} to {_clock(chart.until)} UTC",
        *(text for line in chart.lines if (text := _instead(chart, line))),
    ]
    return "\n".join(lines) + "\n"


def _instead(chart: Chart, line: Line) -> str:
    """What there is of a series that has nothing to draw."""
    newest, name = line.newest, shown(line.series.reading)
    if newest is None:
        return ""
    if newest.is_text:
        asked = f"amber events --device {shlex.quote(shown(chart.device))} --reading {shlex.quote(name)}"
        return f"the newest value of {name} is a text: `{asked}` shows such"
    if chart.since <= newest.at < chart.until:
        return ""
    return f"the newest value of {name} was observed at {_clock(newest.at)} UTC"


def _records(chart: Chart) -> Iterator[dict[str, object]]:
    for line in chart.lines:
        of = {"reading": line.series.reading} if len(chart.lines) > 1 else {}
        for bucket in line.buckets:
            told = {name: getattr(bucket, name) for name in FIELDS[1:]}
            told |= {"mean": without_dust(bucket.mean), "sum": without_dust(bucket.sum)}
            yield {**of, "start": iso(bucket.start), **told}


def _label(series: Series, what: Shown) -> str:
    unit = _unit(series)
    return f"{shown(series.reading)} ({unit})" if unit and what != "count" else shown(series.reading)


def _unit(series: Series) -> str:
    """Nothing where it has none, or is a bare number, which UCUM calls 1."""
    return "" if series.unit in (None, "1") else shown(series.unit)


def _clock(at: int) -> str:
    """To the minute, or to the second where that says more."""
    return iso(at)[: -8 if at % MINUTE else -11].replace("T", " ")


def _value(what: Shown) -> Callable[[Bucket], float]:
    return attrgetter(what)
