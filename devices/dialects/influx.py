"""InfluxDB line protocol, a point a sample: https://docs.influxdata.com/influxdb/v2/reference/syntax/line-protocol/.

There is no presence, and no place for boot and seq but in the measurements.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from devices.dialects import topics
from devices.fleet import Device, Fleet
from devices.outgoing import Publication, Sample, Value


class Influx:
    """Telemetry to `influx/<device>`: the group is the measurement, the device a tag, the readings are fields."""

    identified = False

    def __init__(self, device: Device, fleet: Fleet) -> None:  # noqa: ARG002  all dialects are made alike
        # What begins with # is a comment, and names that begin with _ are InfluxDB's own.
        measurement = device.group.name.lstrip("#_") or "telemetry"
        self._series = f"{_escaped(measurement, ', ')},device={_escaped(device.name)}"
        self._topic = topics.chosen(device, "influx/{device}")
        self._retain = device.group.retain

    def telemetry(self, sample: Sample) -> Sequence[Publication]:
        # A point must have a field, and of a sample without any reading the device can still say this.
        readings = sample.readings or {"online": True}
        fields = ",".join(f"{_escaped(name)}={_field(value)}" for name, value in readings.items())
        line = f"{self._series} {fields} {sample.observed_at * 1_000}"
        return [Publication(self._topic, line.encode(), self._retain)]

    def will(self, time_us: int) -> None:
        pass

    def birth(self, time_us: int) -> Sequence[Publication]:  # noqa: ARG002
        return ()

    def death(self, time_us: int) -> Sequence[Publication]:  # noqa: ARG002
        return ()


def unsayable(names: Iterable[str]) -> str | None:
    """Keys hold no line feeds, and nothing escapes the backslash that would end one."""
    wrong = next((name for name in names if not name.isprintable() or name.endswith("\\")), None)
    return wrong and f"line protocol cannot hold {wrong!r} as the key of a field"


def _escaped(name: str, special: str = ",= ") -> str:
    return "".join(f"\\{letter}" if letter in special else letter for letter in name)


def _field(value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return '"{}"'.format(value.replace("\\", "\\\\").replace('"', '\\"'))
    if isinstance(value, int) and -(2**63) <= value < 2**63:
        return f"{value}i"
    return repr(float(value))
