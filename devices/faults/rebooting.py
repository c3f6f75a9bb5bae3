"""Which boot of a device it is at what time, and since when. Follows from the device's seed alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devices.faults.chance import Course, spells
from devices.fleet import boot_id

if TYPE_CHECKING:
    from devices.fleet import Device, Fleet


class Boots:
    """The boots of one device beside times that only rise; from the beginning of a reboot on it is the next one."""

    def __init__(self, device: Device, fleet: Fleet) -> None:
        self._device, self._fleet = device, fleet
        spell = device.group.faults.reboot
        self._course = None if spell is None else Course(spells(spell, "reboot", device, fleet))
        self._since_us = fleet.start_us
        self._restarts, self._id = 0, boot_id(device, fleet)

    def id_at(self, time_us: int) -> str:
        """What the boot is called."""
        if (restarts := self._restarts_at(time_us)) != self._restarts:
            self._restarts, self._id = restarts, boot_id(self._device, self._fleet, restarts)
        return self._id

    def since_us(self, time_us: int) -> int:
        """When it began: with the fleet, or at the end of the last reboot."""
        self._restarts_at(time_us)
        return self._since_us

    def _restarts_at(self, time_us: int) -> int:
        if self._course is None:
            return 0
        within = self._course.at(time_us)
        if self._course.past:
            self._since_us = self._course.since_us
        if within is None:
            return self._course.past
        # Whoever comes back early, as when the fleet's time is over, has been off all the same.
        self._since_us = within[0]
        return self._course.past + 1
