"""A fleet that is described in a file: read, checked, and made. The file is TOML; docs/fleets.md says how it looks."""

from __future__ import annotations

from pathlib import Path

from devices.clock import wall_us
from devices.fleet import Fleet, Group, any_seed
from devices.fleets.errors import FleetError
from devices.fleets.locate import line_of, locate
from devices.fleets.reading import Draft, data_of, read, text_of
from devices.fleets.rules import broken, hours_of
from devices.fleets.words import printable, written
from devices.models import MODELS
from devices.pace import Bursts, Pace
from devices.signals import Signals

__all__ = ["FleetError", "load"]


def load(
    path: Path, *, seed: int | str | None = None, start_us: int | None = None, duration_s: float | None = None
) -> Fleet:
    """The fleet of a file; what is given here stands over what the file says.

    Raises FleetError with a line for each fault of the file.
    """
    text = text_of(path)
    reading = read(data_of(path, text), path.parent)
    if complaints := [*reading.complaints, *broken(reading)]:
        lines = locate(text)
        told = sorted((line_of(way, lines), f"{written(way)}: {words}" if way else words) for way, words in complaints)
        raise FleetError([f"{path}:{line}: {printable(words)}" for line, words in dict.fromkeys(told)])
    section = reading.fleet
    return Fleet(
        groups=tuple(map(_group, reading.groups)),
        seed=f"{seed}" if seed is not None else section.seed or any_seed(),
        start_us=start_us if start_us is not None else section.start if section.start is not None else wall_us(),
        duration_s=duration_s if duration_s is not None else section.duration,
    )


def _group(draft: Draft) -> Group:
    section = draft.section
    model = MODELS[section.model] if section.model else None
    names = section.names or ()
    bursts = section.bursts
    units = model.units if model else {k: v for name, kind in draft.kinds.items() for k, v in kind.units(name).items()}
    return Group(
        name=section.name,
        prefix=section.prefix or section.name,
        names=names,
        count=len(names) or section.count or 1,
        signal=model.signal if model else Signals(draft.kinds),
        units=units,
        pace=Pace(
            section.every_s or 0.0,
            section.jitter,
            hours_of(draft),
            Bursts(bursts.every, bursts.count) if bursts else None,
        ),
        dialect=section.dialect,
        topic=section.topic,
        qos=section.qos,
        retain=section.retain,
        will=section.will,
        birth=section.birth,
        session=section.session,
        receipts=section.receipts,
        faults=draft.faults,
    )
