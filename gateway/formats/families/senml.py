"""SenML, measurement lists in JSON and in CBOR: https://www.rfc-editor.org/rfc/rfc8428 and, for units, RFC 8798."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from typing import NamedTuple

import cbor2
import msgspec

from gateway.formats import texts, units
from gateway.formats.body import Body
from gateway.formats.draft import Draft
from gateway.formats.format import Format, Unreadable, named
from gateway.formats.values import fits_double
from storage.event import Event, Message, Value

JSON_TYPES = ("application/senml+json", "application/sensml+json")
CBOR_TYPES = ("application/senml+cbor", "application/sensml+cbor")

_LATEST_VERSION = 10
_RELATIVE_BELOW = 2**28
"""Times below this are seconds from now (RFC 8428, section 4.5.3)."""
_LABELS = dict(enumerate(("n", "u", "v", "vs", "vb", "s", "t", "ut", "vd"))) | dict(
    enumerate(("bs", "bv", "bu", "bt", "bn", "bver"), start=-6)
)
_TYPES: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("v", "s", "t", "ut", "bt", "bv", "bs", "bver"), (int, float)),
    **dict.fromkeys(("n", "u", "vs", "bn", "bu"), (str,)),
    "vb": (bool,),
    "vd": (str, bytes),
}
_OF_DRAFT = {"sv": "vs", "bv": "vb"}
_DEVICE_URN = re.compile(r"(urn:dev:[a-z]+:[0-9A-Za-z.\-]+)(?:[:/_](.+))?")
_SEPARATORS = ":/._- "

_VALUES = frozenset({"v", "vs", "vb", "vd"})

Sent = dict[str, object]
"""One record as it was sent, by the labels of the JSON form."""


class Record(NamedTuple):
    """A record that holds good by itself: with a value, a sum, or both."""

    base: str
    name: str
    """What stands behind the base name."""
    time: float
    unit: str
    value: Value
    is_valued: bool
    sum: float | None


def read_json(message: Message, body: Body) -> Sequence[Event] | None:
    """An event for each time of each device in a pack; a stream may be cut between two records."""
    promised = _is_promised(message, JSON_TYPES)
    document: object = body.document
    if document is None and promised:
        document = _stream(body)
    if isinstance(document, dict):
        alone = promised or (isinstance(document.get("bn"), str) and _holds_value(document))
        document = _of_draft(document) or ([document] if alone else None)
    return _read("senml_json", message, body, document, promised=promised)


def read_cbor(message: Message, body: Body) -> Sequence[Event] | None:
    """As `read_json`; the labels are integers."""
    promised = _is_promised(message, CBOR_TYPES)
    if not promised and not _looks_like_records(body.payload):
        return None
    try:
        document = _items(body.payload)
    except (cbor2.CBORDecodeError, ArithmeticError, ValueError, TypeError, MemoryError, RecursionError) as fault:
        if not promised:
            return None
        raise Unreadable(f"not CBOR: {fault}") from None
    return _read("senml_cbor", message, body, _spelled(document), promised=promised)


def _read(name: str, message: Message, body: Body, document: object, *, promised: bool) -> Sequence[Event] | None:
    records = _records(document, body.options.entries)
    if records is None or (fault := _fault(records)):
        if promised:
            raise Unreadable(body.json_fault or f"not SenML: {fault if records else 'not an array of records'}")
        if records and _names_a_device(records[0]) and (fault := _forbidden(records)):
            raise Unreadable(f"not SenML: {fault}")
        return None
    return list(_events(Draft(name, message, body), body, message.received_at, _resolved(records)))


# From bytes to records


def _of_draft(document: Sent) -> list[object] | None:
    """The records of what was SenML before the RFC, and is LwM2M's JSON: an object with the bases and the entries."""
    entries = document.get("e")
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries):
        return None
    records = [{_OF_DRAFT.get(label, label): value for label, value in entry.items()} for entry in entries]
    bases = {label: document[label] for label in ("bn", "bt", "bu") if label in document}
    return [bases | records[0], *records[1:]]


def _is_promised(message: Message, types: tuple[str, ...]) -> bool:
    properties = message.properties
    return bool(properties and (properties.content_type or "").partition(";")[0].strip().lower() in types)


def _stream(body: Body) -> object:
    """What a stream has so far: its array is closed when it ends, which may be never."""
    parts = (body.text or "").strip().strip(",")
    try:
        return msgspec.json.decode(f"[{parts.removeprefix('[').removesuffix(']')}]")
    except (msgspec.MsgspecError, RecursionError):
        return None


def _looks_like_records(payload: bytes) -> bool:
    """An array whose first element is a map."""
    head = payload[0] & 0x1F if payload else 31
    at = 1 if head < 24 or head == 31 else 2 if head == 24 else 3
    return len(payload) > at and payload[at] >> 5 == 5


def _items(payload: bytes) -> object:
    source = io.BytesIO(payload)
    document: object = cbor2.load(source)
    if source.tell() != len(payload):
        raise ValueError("something follows the end of the array")
    return document


def _records(document: object, most: int) -> list[Sent] | None:
    """The records; None where the document is no array of maps."""
    if not isinstance(document, list) or not document or len(document) > most:
        return None
    return document if all(isinstance(item, dict) for item in document) else None


def _spelled(document: object) -> object:
    """The labels of CBOR as those of JSON, and its decimal fractions as numbers."""
    if not isinstance(document, list) or not all(isinstance(item, dict) for item in document):
        return None
    return [
        {_label(key): float(value) if isinstance(value, Decimal) else value for key, value in item.items()}
        for item in document
    ]


def _label(key: object) -> str:
    if type(key) is int:
        return _LABELS.get(key, str(key))
    return key if isinstance(key, str) else ""


def _fault(records: Iterable[Sent]) -> str | None:
    """Why these are not records of SenML, None where they are."""
    base, valued = "", False
    for record in records:
        for label, value in record.items():
            if fault := _fault_of(label, value):
                return fault
        base = str(record.get("bn", base))
        if _holds_value(record):
            valued = True
            if not base and not record.get("n"):
                return "a value without a name"
    return None if valued else "no record has a value"


def _fault_of(label: str, value: object) -> str | None:
    types = _TYPES.get(label)
    if types is not None and (type(value) not in types or (type(value) is int and not fits_double(value))):
        return f"{label} is of another type than it may be"
    return _bar(label, value)


def _bar(label: str, value: object) -> str | None:
    """What RFC 8428 forbids to read: a label that is to be understood and is not, a version that is not known."""
    if label.endswith("_") and label not in _TYPES:
        return f"who does not know {label} must not read the rest"
    if label == "bver" and _number({label: value}, label, 0) > _LATEST_VERSION:
        return f"version {value} is newer than {_LATEST_VERSION}"
    return None


def _forbidden(records: Iterable[Sent]) -> str | None:
    bars = (_bar(label, value) for record in records for label, value in record.items())
    return next((bar for bar in bars if bar), None)


def _names_a_device(record: Sent) -> bool:
    """By a base name, or a name that is a URN; then it is SenML and nothing else."""
    return isinstance(record.get("bn"), str) or str(record.get("n")).startswith("urn:")


def _holds_value(record: Sent) -> bool:
    return "s" in record or not _VALUES.isdisjoint(record)


# Resolution (RFC 8428, section 4.6)


def _resolved(records: Iterable[Sent]) -> Iterator[Record]:
    base, unit, time, value, total = "", "", 0.0, 0.0, 0.0
    summed = False
    for record in records:
        base, unit = str(record.get("bn", base)), str(record.get("bu", unit))
        time, value, total = _number(record, "bt", time), _number(record, "bv", value), _number(record, "bs", total)
        summed = summed or "bs" in record
        if _holds_value(record):
            yield Record(
                base,
                str(record.get("n", "")),
                time + _number(record, "t", 0),
                str(record.get("u", unit)),
                _value(record, value),
                not _VALUES.isdisjoint(record),
                total + _number(record, "s", 0) if summed or "s" in record else None,
            )


def _number(record: Sent, label: str, default: float) -> float:
    number = record.get(label, default)
    return number if isinstance(number, (int, float)) else default


def _value(record: Sent, base: float) -> Value:
    if "v" in record:
        number = _number(record, "v", 0)
        return number + base if base else number
    if "vd" in record:
        data = record["vd"]
        return base64.urlsafe_b64encode(data).decode().rstrip("=") if isinstance(data, bytes) else str(data)
    flag = record.get("vb")
    return flag if isinstance(flag, bool) else str(record["vs"]) if "vs" in record else None


# From records to events


def _events(draft: Draft, body: Body, now: int, records: Iterable[Record]) -> Iterator[Event]:
    """Records of one device and one time are one event; so are those that a second time bear one name another."""
    groups: dict[tuple[str, float, int], dict[str, Record]] = {}
    again: dict[tuple[str, float, str], int] = {}
    for record in records:
        device, name = _parted(record, body)
        names = groups.setdefault((device, record.time, 0), {})
        if name in names:
            times = again[device, record.time, name] = again.get((device, record.time, name), 0) + 1
            names = groups.setdefault((device, record.time, times), {})
        names[name] = record
    for (device, time, _), named_records in groups.items():
        for name, record in named_records.items():
            _put(draft, name, record)
        yield draft.event(device, body.place.kind, stamp=_stamp(time, now))


def _parted(record: Record, body: Body) -> tuple[str, str]:
    """The device and the reading: the base name and what stands behind it, or the parts of a device's URN.

    A base name that is a path, as those of LwM2M, does not name the device: the topic does.
    """
    base, name = record.base, record.name
    if base.startswith("/") or not base.strip(_SEPARATORS):
        full = f"{base}{name}"
        urn = _DEVICE_URN.fullmatch(full)
        device = urn[1] if urn else named(body.place.device, body)
        name = (urn[2] if urn else None) or full
    else:
        device = base.rstrip(_SEPARATORS)
        name = name or device
    return device, _axis(name, record, device)


def _axis(name: str, record: Record, device: str) -> str:
    """These units say which of the two a number is, and often nothing else does."""
    if record.unit not in ("lat", "lon") or name.endswith(record.unit):
        return name
    return record.unit if name == device else f"{name}.{record.unit}"


def _stamp(time: float, now: int) -> int | None:
    """Microseconds; a time of 0 is now, and other small ones are counted from now."""
    moment = round(time * 1_000_000) if abs(time) < 10**12 else 0
    if time >= _RELATIVE_BELOW:
        return moment
    return now + moment if moment else None


def _put(draft: Draft, name: str, record: Record) -> None:
    if record.is_valued:
        draft.put(name, record.value)
        _put_unit(draft, name, record.unit)
    if record.sum is not None:
        draft.put(f"{name}.sum", record.sum)
        _put_unit(draft, f"{name}.sum", {"W": "J", "A": "C"}.get(record.unit, ""))


def _put_unit(draft: Draft, name: str, unit: str) -> None:
    """By SenML's own table first: C is a coulomb here."""
    if unit and (code := _UNITS.get(unit) or units.code(unit)):
        draft.units[texts.storable(name)] = code


# A code of UCUM and the units of SenML's registry that it stands for. Reactive power and NTU have none.
_UNIT_TABLE = """
m m
g g
kg kg
s s EL
A A
K K
cd cd
mol mol
Hz Hz
rad rad
sr sr
N N
Pa Pa
J J
W W
C C
V V
F F
Ohm Ohm
S S
Wb Wb
T T
H H
Cel Cel
lm lm
lx lx
Bq Bq
Gy Gy
Sv Sv
kat kat
m2 m2
m3 m3
L l
m/s m/s
m/s2 m/s2
m3/s m3/s
L/s l/s
W/m2 W/m2
cd/m2 cd/m2
bit bit
bit/s bit/s
deg lat lon deg
[pH] pH
dB dB
dB[W] dBW
B[SPL] Bspl
1 count / beats
% % %RH %EL /100
/s 1/s
/min 1/min beat/min
/h 1/h
S/m S/m
By B
V.A VA
V.A.s VAs
J/m J/m
kg/m3 kg/m3
ms ms
min min
h h
MHz MHz
kW kW
kV.A kVA
A.h Ah
W.h Wh
kW.h kWh
kV.A.h kVAh
W.h/km Wh/km
KiBy KiB
GBy GB
Mbit/s Mbit/s
By/s B/s
MBy/s MB/s
mV mV
mA mA
dBm dBm
ug/m3 ug/m3
mm/h mm/h
m/h m/h
[ppm] ppm
[ppth] /1000
[ppb] ppb
hPa hPa
mm mm
cm cm
km km
km/h km/h
"""
_UNITS = {unit: code for code, *named_so in map(str.split, _UNIT_TABLE.strip().splitlines()) for unit in named_so}


FORMATS: tuple[Format, ...] = (
    Format(
        name="senml_json",
        read=read_json,
        content_types=JSON_TYPES,
        keys=(frozenset({"bn"}), frozenset({"e"}), *(frozenset({"n", value}) for value in sorted(_VALUES | {"s"}))),
    ),
    Format(
        name="senml_cbor",
        read=read_cbor,
        content_types=CBOR_TYPES,
        # The heads of arrays; no text in UTF-8 begins with one of them.
        starts=tuple(bytes([head]) for head in (*range(0x81, 0x9A), 0x9F)),
    ),
)
