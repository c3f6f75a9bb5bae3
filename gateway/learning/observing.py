"""What the events of a device say of its pace and its readings. Reads the newest of them, within bounds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from storage.clocks import believed
from storage.event import Value
from storage.filters import Filters

if TYPE_CHECKING:
    from storage.event import StoredEvent
    from storage.history import Reader

EVENTS_OF_A_DEVICE, EVENTS_IN_ALL, FEWEST_EVENTS = 5_000, 1_000_000, 50
"""So many of the newest are looked at, in a row: how a value follows the one before is part of what it is like."""

TELEMETRY = ("measurement", "state", "location", "event", "other")
"""The kinds of events that tell of readings. Births, wills and commands come by themselves."""


class Observed(msgspec.Struct):
    """What was recorded of one device; values with their times (microseconds) by reading, in the order of time.

    `arrivals` are when those of the reading that came most often reached the gateway, in the same order.
    """

    device: str
    values: dict[str, list[tuple[int, Value]]]
    units: Mapping[str, str]
    formats: Counter[str]
    topics: Counter[str]
    qos: int
    retain: bool
    arrivals: Sequence[int] = ()

    @property
    def times(self) -> list[int]:
        """When it measured: the times of the reading that came most often."""
        return [time for time, _ in max(self.values.values(), key=len)]


def observe(reader: Reader, filters: Filters) -> Iterator[Observed]:
    """Each device that has telemetry of at least two times."""
    chosen = filters if filters.kinds else msgspec.structs.replace(filters, kinds=TELEMETRY)
    names = [device.device for device in reader.devices(Filters(devices=filters.devices))]
    limit = max(FEWEST_EVENTS, min(EVENTS_OF_A_DEVICE, EVENTS_IN_ALL // max(1, len(names))))
    for name in names:
        only = msgspec.structs.replace(chosen, devices=(pattern(name),))
        pages = reader.pages(only, newest_first=True, limit=limit)
        observed = of_events(name, [event for page in pages for event in page if event.device == name])
        if observed is not None:
            yield observed


def of_events(device: str, events: list[StoredEvent]) -> Observed | None:
    """None where there is no pace to be seen."""
    values: dict[str, list[tuple[int, Value]]] = {}
    arrived: dict[str, list[int]] = {}
    units: dict[str, str] = {}
    formats: Counter[str] = Counter()
    topics: Counter[str] = Counter()
    for event in events:
        formats[event.format] += 1
        topics[event.topic] += 1
        units |= event.units
        time = believed(event.observed_at, event.received_at)
        for name, value in msgspec.json.decode(event.readings).items():
            if value is not None:
                values.setdefault(name, []).append((time, value))
                arrived.setdefault(name, []).append(event.received_at)
    for series in values.values():
        series.reverse()  # the newest came first: those of one time are to be in their order as well
        series.sort(key=lambda entry: entry[0])
    arrivals = sorted(max(arrived.values(), key=len, default=()))
    qos, retain = _usual(events, "qos"), bool(_usual(events, "retain"))
    seen = Observed(device, values, units, formats, topics, qos, retain, arrivals)
    return seen if values and seen.times[0] < seen.times[-1] else None


def pattern(name: str) -> str:
    """A filter that this name matches, and hardly another: filters have no way to write a star that is one."""
    return name.replace("*", "?")


def _usual(events: list[StoredEvent], field: str) -> int:
    counted = Counter(getattr(event, field) for event in events)
    return int(counted.most_common(1)[0][0]) if counted else 0
