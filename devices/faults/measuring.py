"""Faults of measuring: what a device takes for true is not. Follows from the device's seed alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from devices.outgoing import Sample

if TYPE_CHECKING:
    from devices.fleet import Device, Fleet


def misread(samples: Iterator[Sample], device: Device, fleet: Fleet) -> Iterator[Sample]:  # noqa: ARG001
    """The samples as the device takes them, with all that goes wrong up to here."""
    return samples
