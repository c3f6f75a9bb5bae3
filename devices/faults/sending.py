"""Faults of sending: messages come twice, late, in another order, or broken. Follows from the device's seed alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from operator import lt
from random import Random
from typing import TYPE_CHECKING

from msgspec.structs import replace

from devices.faults.chance import limit, throws
from devices.outgoing import Expect, Outgoing, Sample, Value

if TYPE_CHECKING:
    from devices.fleet import Device

Say = Callable[[Iterable[Sample]], Iterator[Outgoing]]
"""What a dialect makes of samples."""

FAULTS = ("garbage", "truncated", "oversize", "out_of_order", "duplicate", "conflict")
"""In the order of the numbers that are drawn for each message: a new one goes to the end."""

TURNS = 3
"""How many messages have their turn before one that is sent late, at most; which of them go late themselves is not
looked at, for else the fate of one would hang on that of others."""

TOO_LARGE_BYTES = 1_048_577
"""The least that a gateway refuses: Amber reads payloads up to 1 MiB (payload_bytes)."""

NOTHING = b"\xff\xc1\x00"
"""So begins what means nothing: no UTF-8 and no UTF-16, no CBOR (a break that ends nothing), no MessagePack (0xc1 is
never used), no protobuf (there is no wire type 7), nothing compressed."""


def misdeliver(samples: Iterator[Sample], say: Say, device: Device) -> Iterator[Outgoing]:
    """The messages as they are sent, in the order in which they are due."""
    shares = [getattr(device.group.faults, fault) for fault in FAULTS]
    if not any(shares):
        return say(samples)
    return _misdelivered(samples, say, device, [limit(share) for share in shares])


class _Sent:
    """A message, and for how many turns of others it waits."""

    __slots__ = ("message", "turns")

    def __init__(self, message: Outgoing, turns: int) -> None:
        self.message = message
        self.turns = turns


def _misdelivered(samples: Iterator[Sample], say: Say, device: Device, limits: Sequence[int]) -> Iterator[Outgoing]:
    throw = throws(f"{device.seed}/faults/sending")
    waiting: list[_Sent] = []
    before_us, place = -1, 0
    for sample in samples:
        due_us = sample.due_us
        place = place + 1 if due_us == before_us else 0  # several samples may be due at once
        before_us = due_us
        for message in say((sample,)):
            numbers = throw(due_us, place, message.part)
            late: Sequence[_Sent] = ()
            if any(map(lt, numbers, limits)):
                struck = {fault: numbers[n] for n, fault in enumerate(FAULTS) if numbers[n] < limits[n]}
                fate = list(_fate(message, struck, sample, say))
                yield from (one.message for one in fate if not one.turns)
                late = [one for one in fate if one.turns]
            else:
                yield message
            if waiting:
                yield from _due(waiting, due_us)
            waiting += late
    yield from (one.message for one in waiting)


def _due(waiting: list[_Sent], due_us: int) -> Iterator[Outgoing]:
    """One more has had its turn: those that have waited long enough."""
    for one in waiting:
        one.turns -= 1
        if not one.turns:
            yield replace(one.message, due_us=due_us)
    waiting[:] = [one for one in waiting if one.turns]


def _fate(message: Outgoing, struck: Mapping[str, int], sample: Sample, say: Say) -> Iterator[_Sent]:
    """What becomes of a message, and its copies; none of these comes before it."""
    turns = 0
    sent = _broken(message, struck)
    if "out_of_order" in struck:
        turns = 1 + struck["out_of_order"] % TURNS
        sent = _named(sent, "out_of_order")
    yield _Sent(sent, turns)
    if "duplicate" in struck:
        again = _named(replace(sent, copy=1), "duplicate")
        yield _Sent(again, turns + struck["duplicate"] % (TURNS + 1))
    if "conflict" in struck and sent.identified:
        readings = _contradicting(sample.readings, Random(struck["conflict"]))
        if readings is not None:
            said = say((replace(sample, readings=readings),))
            other = next(other for other in said if other.part == message.part)
            again = _named(replace(other, copy=2), "conflict")
            yield _Sent(again, turns + struck["conflict"] % (TURNS + 1))


def _broken(message: Outgoing, struck: Mapping[str, int]) -> Outgoing:
    """A message that is garbage, or breaks off, or is too large; as it is, where nothing of that has struck."""
    payload = message.publication.payload
    if "garbage" in struck:
        chance = Random(struck["garbage"])
        return _spoiled(message, "garbage", NOTHING + chance.randbytes(chance.randint(5, 60)), "rejection")
    if "truncated" in struck and len(payload) > 1:
        cut = max(1, int(len(payload) * Random(struck["truncated"]).uniform(0.25, 0.75)))
        # An object that breaks off is no JSON. Half a number is a number, half a line of Influx may be one, and of a
        # SenML array the gateway takes the records that are whole.
        return _spoiled(message, "truncated", payload[:cut], "rejection" if payload.startswith(b"{") else "any")
    if "oversize" in struck:
        size = TOO_LARGE_BYTES + struck["oversize"] % 1_024
        return _spoiled(message, "oversize", payload.ljust(size), "rejection")
    return message


def _spoiled(message: Outgoing, fault: str, payload: bytes, expect: Expect) -> Outgoing:
    publication = replace(message.publication, payload=payload)
    return _named(replace(message, publication=publication, identified=False, expect=expect), fault)


def _named(message: Outgoing, fault: str) -> Outgoing:
    return replace(message, faults=(*message.faults, fault))


def _contradicting(readings: Mapping[str, Value], chance: Random) -> Mapping[str, Value] | None:
    """The readings with another value for one of them; None where there are none."""
    if not readings:
        return None
    name = chance.choice([*readings])
    return {**readings, name: _another(readings[name])}


def _another(value: Value) -> Value:
    """Surely not the same, and of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, str):
        return f"{value}?"
    if isinstance(value, int):
        return value - 1 if value > 0 else value + 1
    return value / 2 if abs(value) > 1 else value + 1
