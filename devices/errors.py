"""What can go wrong in `devices` in a way that a person can mend."""

from __future__ import annotations


class DeviceError(Exception):
    """The simulation cannot start or go on; the text says why and what to do."""


class ConnectionLost(Exception):
    """A connection ended or did not come about; the device will try again."""
