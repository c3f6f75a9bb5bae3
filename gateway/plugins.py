"""Formats that other installed packages offer under the entry point group `amber.formats`."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from importlib.metadata import EntryPoint, entry_points

from gateway.formats import Format
from gateway.formats.rules import IGNORE, RAW

logger = logging.getLogger("amber.formats")

GROUP = "amber.formats"
"""Each entry point is a Format, or a list of them."""


def offered() -> tuple[Format, ...]:
    """All that load; of those that do not the log says why."""
    return tuple(format for point in sorted(entry_points(group=GROUP)) for format in _loaded(point))


def _loaded(point: EntryPoint) -> Iterator[Format]:
    try:
        offer = point.load()
        formats = [offer] if isinstance(offer, Format) else list(offer)
    except Exception as fault:  # noqa: BLE001  whatever another's package does at its import, the gateway runs
        logger.warning("the format plugin %s cannot be loaded: %s: %s", point.value, type(fault).__name__, fault)
        return
    for format in formats:
        if isinstance(format, Format) and format.name not in (RAW, IGNORE):
            yield format
        else:
            logger.warning("the format plugin %s offers what is no format: %r", point.value, format)
