"""Draws a verdict over time, as PNG or as one HTML page that needs nothing else. Judges nothing."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime
from html import escape
from pathlib import Path
from typing import Annotated

import msgspec

from gateway.proving.showing import closing, remarks, rows_view
from gateway.proving.verdict import Promise, Verdict
from storage.chart import ChartError, time_ticks, value_ticks
from storage.errors import AmberError
from storage.render import shown
from storage.times import SECOND, iso, micros

MOST_LANES = 8
"""Sorts of marks that are told apart: the most frequent ones."""

OTHERS = "others"
TICKS = 8

SENT, LOST, REPEATED, MARK, GOOD = "#4c78a8", "#c62828", "#ef8a17", "#6d6875", "#2e7d32"

PNG_INCHES, PNG_DPI = 11.0, 120

WIDTH, LEFT, RIGHT = 1000, 190, 20
SENT_HEIGHT, BROKEN_HEIGHT, LANE_HEIGHT, BETWEEN = 190, 110, 24, 46
NARROWEST = 1.2
"""A bar that stands alone can still be seen."""


class PictureError(AmberError):
    """Marks that cannot be read, or a picture that cannot be written."""


class MarkLine(msgspec.Struct, frozen=True):
    """One line of a file of marks; it may say more."""

    at: Annotated[datetime, msgspec.Meta(tz=True)]
    what: str


class Mark(msgspec.Struct, frozen=True):
    """Something that was done at a time."""

    at: int
    what: str


class Bar(msgspec.Struct, frozen=True):
    """A step of the timeline, in microseconds."""

    at: int
    sent: int
    lost: int
    repeated: int


class Scene(msgspec.Struct, frozen=True):
    """What there is to draw; marks in lanes, each a sort of them."""

    since: int
    until: int
    step_s: int
    bars: Sequence[Bar]
    lanes: Sequence[tuple[str, Sequence[int]]]

    @property
    def rates(self) -> list[float]:
        return [bar.sent / self.step_s for bar in self.bars]

    @property
    def most_broken(self) -> int:
        return max((bar.lost + bar.repeated for bar in self.bars), default=0)

    @property
    def heading(self) -> str:
        return "sent per second" if self.step_s == 1 else f"sent per second, in steps of {self.step_s} s"


def read_marks(path: Path) -> tuple[Mark, ...]:
    """JSON lines of `at` and `what`. An unfinished last line is left out. Raises PictureError."""
    decoder, marks = msgspec.json.Decoder(MarkLine), []
    try:
        for number, line in enumerate(path.read_bytes().splitlines(keepends=True), 1):
            if not line.endswith(b"\n"):
                break
            try:
                mark = decoder.decode(line)
            except ValueError as error:
                raise PictureError(f"{path}, line {number}, is no mark: {error}") from error
            marks.append(Mark(micros(mark.at), mark.what))
    except OSError as error:
        raise PictureError(f"cannot read the marks {path}: {error.strerror}") from error
    return tuple(marks)


def draw(verdict: Verdict, promise: Promise, marks: Sequence[Mark], path: Path) -> None:
    """Write the picture, by the ending of its name. Raises AmberError."""
    made = scene(verdict, marks)
    is_png = path.suffix.lower() == ".png"
    content = png_bytes(verdict, promise, made) if is_png else html_page(verdict, promise, made).encode()
    try:
        path.write_bytes(content)
    except OSError as error:
        raise PictureError(f"cannot write {path} ({error.strerror}): see that its folder is there") from error


def scene(verdict: Verdict, marks: Sequence[Mark]) -> Scene:
    bars = [Bar(_us(moment.at), moment.sent, moment.lost, moment.repeated) for moment in verdict.timeline]
    step = verdict.step_s * SECOND
    times = [bar.at for bar in bars] + [mark.at for mark in marks]
    since, until = (min(times), max(times) + step) if times else (0, step)
    return Scene(since, until, verdict.step_s, bars, _lanes(marks))


def png_bytes(verdict: Verdict, promise: Promise, made: Scene) -> bytes:
    """Raises ChartError where matplotlib is not installed."""
    try:
        from matplotlib.axes import Axes
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator, StrMethodFormatter
    except ImportError as error:
        raise ChartError("PNG needs matplotlib: pip install 'amber-gateway[png]', or draw an .html") from error
    import warnings

    lanes = len(made.lanes)
    heights = [3.0, 1.6, *([0.32 * lanes + 0.1] if lanes else [])]
    figure = Figure(figsize=(PNG_INCHES, sum(heights) + 1.5), dpi=PNG_DPI, layout="constrained")
    drawn = figure.subplots(len(heights), 1, sharex=True, gridspec_kw={"height_ratios": heights})
    panels: list[Axes] = list(drawn)
    seconds = [(bar.at - made.since) / SECOND for bar in made.bars]
    panels[0].bar(seconds, made.rates, width=made.step_s, align="edge", color=SENT)
    panels[0].set_title(made.heading, loc="left", fontsize=10)
    panels[0].yaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
    lost, repeated = [bar.lost for bar in made.bars], [bar.repeated for bar in made.bars]
    width = max(made.step_s, (made.until - made.since) / SECOND / 300)
    panels[1].bar(seconds, lost, width=width, align="edge", color=LOST, label="lost")
    panels[1].bar(seconds, repeated, width=width, align="edge", bottom=lost, color=REPEATED, label="repeated")
    panels[1].set_title("lost and repeated, by when they were sent", loc="left", fontsize=10)
    if made.most_broken:
        panels[1].legend(loc="lower right", bbox_to_anchor=(1, 1), borderaxespad=0, frameon=False, ncols=2, fontsize=9)
        panels[1].set_ylim(0, 1.1 * made.most_broken)
        panels[1].yaxis.set_major_locator(MaxNLocator(integer=True))
    else:
        panels[1].set_ylim(0, 1)
        panels[1].set_yticks([])
        panels[1].text(0.5, 0.5, "nothing", transform=panels[1].transAxes, ha="center", va="center", color=GOOD)
    if lanes:
        for number, (_, times) in enumerate(made.lanes):
            panels[2].plot([(at - made.since) / SECOND for at in times], [number] * len(times), "|", color=MARK, ms=11)
        panels[2].set_ylim(lanes - 0.5, -0.5)
        names = [f"{shown(what)} ({len(times)})" for what, times in made.lanes]
        panels[2].set_yticks(range(lanes), names, fontsize=9, parse_math=False)
        panels[2].set_title("what was done meanwhile", loc="left", fontsize=10)
    for panel in panels:
        panel.grid(axis="x", alpha=0.25)
        panel.set_axisbelow(True)
        panel.spines[["top", "right"]].set_visible(False)
    ticks = time_ticks(made.since, made.until, TICKS)
    panels[-1].set_xlim(0, (made.until - made.since) / SECOND)
    panels[-1].set_xticks([(at - made.since) / SECOND for at, _ in ticks], [text for _, text in ticks])
    panels[-1].set_xlabel(f"{iso(made.since)[:10]}, UTC", fontsize=9)
    colour = GOOD if verdict.holds(promise) else LOST
    figure.suptitle(closing(verdict, promise), color=colour, fontsize=11, x=0.01, ha="left", parse_math=False)
    out = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a mark in a script that its font does not have
        figure.savefig(out, format="png")
    return out.getvalue()


def html_page(verdict: Verdict, promise: Promise, made: Scene) -> str:
    """One page, with its drawing inside and nothing from elsewhere."""
    totals, holds = verdict.totals, verdict.holds(promise)
    tiles = {
        "sent": totals.sent,
        "acknowledged": totals.acknowledged,
        "receipted": totals.receipted,
        "stored": totals.stored,
        "lost": totals.lost,
        "repeated": totals.repeated,
    }
    parts = [
        _PAGE_HEAD,
        f'<h1 class="{"good" if holds else "bad"}">{"The promise holds" if holds else "The promise is broken"}</h1>',
        f"<p>{_text(closing(verdict, promise).removeprefix('BROKEN: '))}.</p>",
        '<div class="tiles">',
        *(
            f'<div class="{"bad" if name in ("lost", "repeated") and count else ""}"><b>{count:,}</b>{name}</div>'
            for name, count in tiles.items()
        ),
        "</div>",
        svg(made),
        _table(verdict),
        *(f"<p>{_text(remark)}.</p>" for remark in remarks(verdict, promise)),
        f'<p class="small">{_text(", ".join(verdict.ledgers))} held against {_text(verdict.store)}.</p>',
        f'<p class="small">{verdict.first_sent_at} to {verdict.last_at}</p>',
        "</main></body></html>\n",
    ]
    return "\n".join(parts)


def svg(made: Scene) -> str:
    """Three panels one below the other over the same time: sent, broken, and what was done."""
    lanes = len(made.lanes)
    tops = 24, 24 + SENT_HEIGHT + BETWEEN, 24 + SENT_HEIGHT + BROKEN_HEIGHT + 2 * BETWEEN
    bottom = tops[2] + lanes * LANE_HEIGHT if lanes else tops[1] + BROKEN_HEIGHT
    scale = (WIDTH - LEFT - RIGHT) / (made.until - made.since)

    def x(at: int) -> float:
        return LEFT + (at - made.since) * scale

    return "\n".join(
        [
            f'<svg viewBox="0 0 {WIDTH} {bottom + 44}" role="img" aria-label="what was sent and lost over time">',
            *_grid(made, tops[0], bottom, x_of=[(x(at), text) for at, text in _ticks(made)]),
            *_sent_panel(made, tops[0], [x(bar.at) for bar in made.bars], made.step_s * SECOND * scale),
            *_broken_panel(made, tops[1], [x(bar.at) for bar in made.bars], made.step_s * SECOND * scale),
            *(_lanes_panel(made, tops[2], [[x(at) for at in times] for _, times in made.lanes]) if lanes else ()),
            "</svg>",
        ]
    )


def _ticks(made: Scene) -> list[tuple[int, str]]:
    return time_ticks(made.since, made.until, TICKS)


def _grid(made: Scene, top: int, bottom: float, *, x_of: Sequence[tuple[float, str]]) -> Iterator[str]:
    for x, text in x_of:
        yield f'<line class="grid" x1="{x:.1f}" y1="{top}" x2="{x:.1f}" y2="{bottom}"/>'
        yield f'<text x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{text}</text>'
    yield f'<text x="{LEFT}" y="{bottom + 38}">{iso(made.since)[:10]}, UTC</text>'


def _sent_panel(made: Scene, top: int, xs: Sequence[float], width: float) -> Iterator[str]:
    yield f'<text class="name" x="{LEFT}" y="{top - 8}">{made.heading}</text>'
    most = max(made.rates, default=0.0)
    levels = [(level, text) for level, text in value_ticks(0, most or 1, 4) if level >= 0]
    highest = max(most, levels[-1][0])
    yield from _levels(top, SENT_HEIGHT, [(level / highest, text) for level, text in levels])
    for bar, rate, x in zip(made.bars, made.rates, xs, strict=True):
        tip = f"{iso(bar.at)[11:19]}: {bar.sent:,} sent"
        yield _bar(x, width, top + SENT_HEIGHT, rate / highest * SENT_HEIGHT, sort="sent", tip=tip)


def _broken_panel(made: Scene, top: int, xs: Sequence[float], width: float) -> Iterator[str]:
    yield (
        f'<text class="name" x="{LEFT}" y="{top - 8}"><tspan class="lost">■</tspan> lost and '
        '<tspan class="repeated">■</tspan> repeated, by when they were sent</text>'
    )
    base = top + BROKEN_HEIGHT
    if not made.most_broken:
        yield f'<line class="axis" x1="{LEFT}" y1="{base}" x2="{WIDTH - RIGHT}" y2="{base}"/>'
        middle = (LEFT + WIDTH - RIGHT) / 2
        yield f'<text class="good" x="{middle}" y="{top + BROKEN_HEIGHT / 2}" text-anchor="middle">nothing</text>'
        return
    levels = [(level, text) for level, text in value_ticks(0, made.most_broken, 3) if level >= 0 and level % 1 == 0]
    highest = max(made.most_broken, levels[-1][0])
    yield from _levels(top, BROKEN_HEIGHT, [(level / highest, f"{level:,.0f}") for level, _ in levels])
    for bar, x in zip(made.bars, xs, strict=True):
        lost, repeated = (count / highest * BROKEN_HEIGHT for count in (bar.lost, bar.repeated))
        at = iso(bar.at)[11:19]
        if bar.lost:
            yield _bar(x, max(width, 3), base, lost, sort="lost", tip=f"{at}: {bar.lost:,} lost")
        if bar.repeated:
            tip = f"{at}: {bar.repeated:,} repeated"
            yield _bar(x, max(width, 3), base - lost, repeated, sort="repeated", tip=tip)


def _lanes_panel(made: Scene, top: int, xs: Sequence[Sequence[float]]) -> Iterator[str]:
    yield f'<text class="name" x="{LEFT}" y="{top - 8}">what was done meanwhile</text>'
    for number, ((what, times), places) in enumerate(zip(made.lanes, xs, strict=True)):
        y = top + number * LANE_HEIGHT
        name = f"{what[:24]}…" if len(what) > 25 else what
        yield f'<text x="{LEFT - 10}" y="{y + 16}" text-anchor="end">{_text(name)} ({len(times)})</text>'
        for at, x in zip(times, places, strict=True):
            tip = f"{iso(at)[11:19]}: {_text(what)}"
            yield f'<rect class="mark" x="{x - 1:.1f}" y="{y + 4}" width="2" height="16"><title>{tip}</title></rect>'


def _levels(top: int, height: int, levels: Sequence[tuple[float, str]]) -> Iterator[str]:
    for share, text in levels:
        y = top + height * (1 - share)
        sort = "grid" if share else "axis"
        yield f'<line class="{sort}" x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}"/>'
        yield f'<text x="{LEFT - 10}" y="{y + 4:.1f}" text-anchor="end">{text}</text>'


def _bar(x: float, width: float, base: float, height: float, *, sort: str, tip: str) -> str:
    return (
        f'<rect class="{sort}" x="{x:.1f}" y="{base - height:.1f}" width="{max(width, NARROWEST):.2f}"'
        f' height="{height:.1f}"><title>{tip}</title></rect>'
    )


def _table(verdict: Verdict) -> str:
    view = rows_view()
    head = "".join(f"<th>{_text(column)}</th>" for column in view.columns)
    rows = [*verdict.rows, *([verdict.totals] if len(verdict.rows) != 1 else [])]
    body = "".join(f"<tr>{''.join(f'<td>{_text(cell)}</td>' for cell in view.cells(row))}</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


def _lanes(marks: Sequence[Mark]) -> list[tuple[str, Sequence[int]]]:
    """The most frequent sorts of marks, in the order in which they first came; the rest together."""
    often = Counter(mark.what for mark in marks)
    told = set(often) if len(often) <= MOST_LANES else {what for what, _ in often.most_common(MOST_LANES - 1)}
    lanes: dict[str, list[int]] = {}
    for mark in sorted(marks, key=lambda mark: (mark.what not in told, mark.at)):
        lanes.setdefault(mark.what if mark.what in told else OTHERS, []).append(mark.at)
    return list(lanes.items())


def _us(text: str) -> int:
    return micros(datetime.fromisoformat(text))


def _text(text: str) -> str:
    return escape(shown(text))


_PAGE_HEAD = f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>amber verify</title>
<style>
:root {{ color-scheme: light dark; --ink: #22272e; --soft: #667080; --line: #e3e6ea; --page: #fff; --tile: #f4f6f8; }}
@media (prefers-color-scheme: dark) {{
  :root {{ --ink: #e6e9ed; --soft: #9aa4b1; --line: #363c45; --page: #1b1f24; --tile: #262c33; }}
}}
body {{ margin: 0; background: var(--page); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }}
main {{ max-width: 1040px; margin: 0 auto; padding: 24px 20px 40px; }}
h1 {{ margin: 0; font-size: 28px; }}
p {{ margin: 6px 0; }}
.good {{ color: {GOOD}; fill: {GOOD}; }} .bad {{ color: {LOST}; }}
.small {{ color: var(--soft); font-size: 13px; overflow-wrap: anywhere; }}
.tiles {{ display: flex; flex-wrap: wrap; gap: 12px; margin: 18px 0; }}
.tiles div {{ flex: 1 1 120px; padding: 10px 14px; border-radius: 8px; background: var(--tile); font-size: 14px; }}
.tiles b {{ display: block; font-size: 24px; font-variant-numeric: tabular-nums; }}
svg {{ width: 100%; height: auto; font-size: 12px; }}
svg text {{ fill: var(--soft); }} svg .name {{ fill: var(--ink); font-size: 13px; }} svg .good {{ fill: {GOOD}; }}
.grid {{ stroke: var(--line); }} .axis {{ stroke: var(--soft); }}
svg .sent {{ fill: {SENT}; }} svg .lost {{ fill: {LOST}; }} svg .repeated {{ fill: {REPEATED}; }}
svg .mark {{ fill: {MARK}; }} svg rect {{ shape-rendering: crispEdges; }}
table {{ border-collapse: collapse; width: 100%; margin: 14px 0; font-size: 14px; font-variant-numeric: tabular-nums; }}
th, td {{ padding: 4px 8px; border-bottom: 1px solid var(--line); text-align: right; }}
th:first-child, td:first-child {{ text-align: left; }}
th {{ color: var(--soft); font-weight: 500; }}
</style></head><body><main>"""
