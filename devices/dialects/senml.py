"""SenML, measurement lists in JSON and in CBOR: https://www.rfc-editor.org/rfc/rfc8428; units by RFC 8798 as well.

The device is the base name, the time of the sample the base time (section 4.1). Whether a device is there is a record
of its own, `online`: SenML has no word for it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar

import msgspec

from devices.clock import SECOND_US
from devices.dialects import topics
from devices.fleet import Device, Fleet
from devices.outgoing import Publication, Sample, Value

Record = dict[str, Value]


class Senml:
    """Telemetry to `senml/<device>`, presence to `senml/<device>/status`."""

    identified = False
    _content_type = "application/senml+json"

    def __init__(self, device: Device, fleet: Fleet) -> None:  # noqa: ARG002  all dialects are made alike
        self._device = device
        self._topic = topics.chosen(device, "senml/{device}")

    def telemetry(self, sample: Sample) -> Sequence[Publication]:
        units = self._device.group.units
        records = [_record(name, value, units) for name, value in sample.readings.items()]
        # A record must have a value (section 4.2), and of a sample without any the device can still say this.
        records = records or [_ONLINE]
        return [self._pack(self._topic, sample.observed_at, records, retain=self._device.group.retain)]

    def will(self, time_us: int) -> Publication:
        return self._presence(time_us, online=False)

    def birth(self, time_us: int) -> Sequence[Publication]:
        return [self._presence(time_us, online=True)]

    def death(self, time_us: int) -> Sequence[Publication]:
        return [self._presence(time_us, online=False)]

    def _presence(self, time_us: int, *, online: bool) -> Publication:
        return self._pack(f"senml/{self._device.name}/status", time_us, [{**_ONLINE, "vb": online}], retain=True)

    def _pack(self, topic: str, time_us: int, records: Sequence[Record], *, retain: bool) -> Publication:
        base: Record = {"bn": f"{self._device.name}:", "bt": time_us / SECOND_US}
        return Publication(topic, self._encoded([base | records[0], *records[1:]]), retain, self._content_type)

    def _encoded(self, records: list[Record]) -> bytes:
        return msgspec.json.encode(records)


class SenmlCbor(Senml):
    """The same with integers for labels (section 6)."""

    _content_type = "application/senml+cbor"
    _LABELS: ClassVar = {"bn": -2, "bt": -3, "n": 0, "u": 1, "v": 2, "vs": 3, "vb": 4}

    def _encoded(self, records: list[Record]) -> bytes:
        import cbor2

        return cbor2.dumps([{self._LABELS[label]: value for label, value in record.items()} for record in records])


def unsayable(names: Iterable[str]) -> str | None:
    """Names are of letters, digits and - : . / _ (section 4.5.1)."""
    wrong = next((name for name in names if not _NAME.fullmatch(name)), None)
    return wrong and f"a name in SenML is of the letters A to Z, digits and -:./_, and {wrong!r} is not"


_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9:./_-]*")
_ONLINE: Record = {"n": "online", "vb": True}


def _record(name: str, value: Value, units: Mapping[str, str]) -> Record:
    if isinstance(value, bool):
        return {"n": name, "vb": value}
    if isinstance(value, str):
        return {"n": name, "vs": value}
    if name in _POSITIONS:
        return {"n": _POSITIONS[name], "u": _POSITIONS[name], "v": value}
    code = units.get(name)
    if code is None:
        return {"n": name, "v": value}
    return {"n": name, "u": _unit(name, code), "v": value}


_POSITIONS = {"latitude": "lat", "longitude": "lon"}
"""What SenML has units of its own for, which say more than degrees."""


def _unit(name: str, code: str) -> str:
    """SenML's name for a UCUM code (section 12.1); without one, the code."""
    return "%RH" if code == "%" and "humidity" in name else _UNITS.get(code, code)


_UNITS = {
    "1": "count",
    "[pH]": "pH",
    "A.h": "Ah",
    "By": "B",
    "By/s": "B/s",
    "GBy": "GB",
    "L": "l",
    "L/s": "l/s",
    "V.A": "VA",
    "V.A.s": "VAs",
    "W.h": "Wh",
    "[ppb]": "ppb",
    "[ppm]": "ppm",
    "kV.A": "kVA",
    "kV.A.h": "kVAh",
    "kW.h": "kWh",
}
