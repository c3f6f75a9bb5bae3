"""The short cut for the JSON of most devices: flat, or with readings and units in objects of their own.

A plan, made once for each set of keys, says which of them are device, time and sequence; the object without them
is the readings. Whatever is not plain sailing goes the long way, and a test holds that both ways give one result.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec

from gateway.formats import fields, times, units
from gateway.formats.identity import MOST_ID_CHARS, MOST_SEQ
from gateway.formats.json import NAME, detailed
from gateway.formats.options import Options
from gateway.formats.routes import Routes
from gateway.formats.signatures import Signatures
from gateway.formats.topics import Place
from gateway.formats.values import LATITUDES, NO_VALUE, PRESENCE_NAMES, fits_double, kind_of, kind_of_types, position
from storage.event import Detail, Event, Kind, Message, Value

Flat = dict[str, Value]
Node = dict[str, Value | Flat]

MOST_BYTES = 4_096
_BACKSLASH = 92
_NO_GREAT_INTEGER_BYTES = 300  # an integer that no double holds has more digits than this

_decode = msgspec.json.Decoder(Node).decode


class Quick:
    """Reads one message, or leaves it: None. What is right is for `json` to say."""

    def __init__(
        self,
        options: Options,
        routes: Routes,
        signatures: Signatures,
        taught: Callable[[str], bool],
    ) -> None:
        self._options = options
        # Within so few bytes no text and no number of keys can be over its limit.
        self._most_bytes = min(MOST_BYTES, options.text_chars, options.entries, options.readings, options.payload_bytes)
        self.faults = 0
        """How often this file failed: never, the tests hold."""
        self._named_by = signatures.named_by
        self._taught = taught
        self._routes = routes
        self._plans = _Plans(signatures.key_sets, options.name_chars)
        self._kinds = _Kinds()
        self._codes = _Codes()
        self._details = _Details()

    def read(self, message: Message) -> tuple[Event] | None:
        payload = message.payload
        # A text without escapes holds neither NUL nor a lone surrogate.
        if len(payload) > self._most_bytes or _BACKSLASH in payload or payload[:1] != b"{":
            return None
        route = self._routes[message.topic]
        if not route.plain or self._taught(message.topic):
            return None
        if message.properties is not None and self._named_by(message.properties):
            return None
        try:
            node = _decode(payload)
            plan = self._plans[tuple(node)]
            return None if plan is None else self._event(message, node, plan, route.place)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None
        except Exception:  # noqa: BLE001  a fault of this file: the long way reads the message all the same
            self.faults += 1
            return None

    def _event(self, message: Message, node: Node, plan: Plan, place: Place) -> tuple[Event] | None:
        """Takes the planned keys out of `node`: what is left is the readings."""
        device_key, device_chars, time_key, seq_key, boot_key, units_key, wrapper, telling = plan
        device = place.device
        if device_key is not None:
            named = node.pop(device_key)
            if type(named) is not str or len(named) > device_chars:
                return None
            device = named.strip()
        observed_at: int | None = message.received_at
        if time_key is not None:
            observed_at = times.believed(node.pop(time_key), message.received_at, self._options)
        if not device or observed_at is None:
            return None
        seq = None
        if seq_key is not None:
            number = node.pop(seq_key)
            if type(number) is not int or not 0 <= number <= MOST_SEQ:
                return None
            seq = number
        detail = boot = None
        if boot_key is not None:
            word = node.pop(boot_key)
            if type(word) is not str or len(word) > self._options.name_chars:
                return None
            boot, detail = word, self._details[word]
        named_units = node.pop(units_key) if units_key is not None else {}
        readings = node
        if wrapper is not None:
            inner = node[wrapper]
            inner_plan = self._plans[tuple(inner)] if type(inner) is dict else None
            if inner_plan is not _READINGS and inner_plan is not _TELLING_READINGS:
                return None
            readings, telling = inner, inner_plan.telling  # type: ignore[assignment]
        if type(named_units) is not dict:
            return None
        kind, wordy = self._kinds[tuple(map(type, readings.values()))]
        codes = self._codes[tuple(readings), tuple(named_units.items())] if named_units else {}
        if kind is None or codes is None or (len(message.payload) > _NO_GREAT_INTEGER_BYTES and _too_great(readings)):
            return None
        if wordy and not NO_VALUE.isdisjoint(readings.values()):
            return None
        flat: Flat = readings  # type: ignore[assignment]  # or it would have no kind
        if telling:
            kind = kind_of(flat)
            codes = codes | dict.fromkeys(position(flat) or (), "deg")
            detail = detailed(flat, {}, boot)
        return (
            Event(
                device, place.kind or kind, NAME, observed_at, flat, time_key is not None, seq, codes or None, detail
            ),
        )


class Plan(NamedTuple):
    """The keys of one shape of object that have a role, None where there is none."""

    device: str | None = None
    device_chars: int = 0
    time: str | None = None
    seq: str | None = None
    boot: str | None = None
    units: str | None = None
    wrapper: str | None = None
    """The object that holds all the readings."""
    telling: bool = False
    """Whether the names of the readings may tell of a position or a presence."""


_READINGS = Plan()
_TELLING_READINGS = Plan(telling=True)


class _Plans(dict[tuple[str, ...], Plan | None]):
    """`plans[keys]`, made when first asked for; None where objects with these keys go the long way."""

    MOST = 2_048

    def __init__(self, claims: Sequence[frozenset[str]], name_chars: int) -> None:
        super().__init__()
        self._claims = claims
        self._name_chars = name_chars

    def __missing__(self, keys: tuple[str, ...]) -> Plan | None:
        if len(self) >= self.MOST:
            self.clear()
        plan = self[keys] = self._plan(keys)
        return plan

    def _plan(self, keys: tuple[str, ...]) -> Plan | None:
        found = fields.roles(keys)
        device, time, seq, boot, units_key = (role[0] if role else None for role in found)
        wrappers = [key for key in keys if fields.squeezed(key) in fields.WRAPPERS]
        wrapper = wrappers[0] if wrappers else None
        rest = [key for key in keys if key not in (device, time, seq, boot, units_key, wrapper)]
        if (
            any(claim.issubset(keys) for claim in self._claims)
            or any(len(key) > self._name_chars or fields.squeezed(key) in fields.VALUE for key in keys)
            or len(found.boot) > 1
            or any(key != units_key and fields.tells_unit(key) for key in keys)
            or ("v" in keys and any(fields.squeezed(key) in fields.NAME for key in keys))
            or (wrapper is not None and rest)
        ):
            return None
        telling = (len(rest) == 1 and rest[0].lower() in PRESENCE_NAMES) or any(map(_may_be_latitude, rest))
        if not any(found) and wrapper is None:
            return _TELLING_READINGS if telling else _READINGS
        lone_id = device is not None and fields.squeezed(device) == "id"
        device_chars = MOST_ID_CHARS if lone_id else self._name_chars
        return Plan(device, device_chars, time, seq, boot, units_key, wrapper, telling)


def _may_be_latitude(name: str) -> bool:
    return name.rpartition(".")[2].lower() in LATITUDES


class _Kinds(dict[tuple[type, ...], tuple[Kind | None, bool]]):
    """`kinds[types]`: the kind that values of these types make, None where one is not plain; whether one is a text."""

    MOST = 1_024

    def __missing__(self, types: tuple[type, ...]) -> tuple[Kind | None, bool]:
        if len(self) >= self.MOST:
            self.clear()
        found = self[types] = None if dict in types else kind_of_types(types), str in types
        return found


class _Codes(dict[tuple[tuple[str, ...], tuple[tuple[str, Value], ...]], dict[str, str] | None]):
    """`codes[readings, units]`: the UCUM code of each reading that has one, None where a unit is not text."""

    MOST = 1_024

    def __missing__(self, key: tuple[tuple[str, ...], tuple[tuple[str, Value], ...]]) -> dict[str, str] | None:
        if len(self) >= self.MOST:
            self.clear()
        readings, named = key
        texts = {name: unit for name, unit in named if type(unit) is str}
        codes = {name: code for name, unit in texts.items() if name in readings and (code := units.code(unit))}
        found = self[key] = codes if len(texts) == len(named) else None
        return found


class _Details(dict[str, Detail | None]):
    """`details[boot]`: the detail of an event that tells no more than which start of its device it is from."""

    MOST = 16_384

    def __missing__(self, boot: str) -> Detail | None:
        if len(self) >= self.MOST:
            self.clear()
        found = self[boot] = Detail(boot=boot) if boot else None
        return found


def _too_great(readings: Node) -> bool:
    return any(type(value) is int and not fits_double(value) for value in readings.values())
