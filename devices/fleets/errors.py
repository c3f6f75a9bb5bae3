"""What is wrong with a fleet's file."""

from __future__ import annotations

from devices.errors import DeviceError


class FleetError(DeviceError):
    """The file describes no fleet. One line for each fault: file, line, key, and what to do."""

    exit_status = 2

    def __init__(self, lines: list[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines
