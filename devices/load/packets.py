"""PUBLISH packets by the thousand: written once by the codec with marks in them, then only filled in."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from itertools import chain, repeat
from random import Random

from mqtt5 import PublishPacket, QoS

from devices.load.plan import Plan

MOST = 512
"""Packets in one piece: enough that the piece costs nothing, few enough that all connections get their turn."""

PACKET_IDS = [number.to_bytes(2) for number in range(65_536)]

_PACKET_ID = 0xFEFE
_PACKET_ID_MARK = _PACKET_ID.to_bytes(2)
_NUMBER_MARK = b"\xfd" * 8
_SEQ_MARK, _TIME_MARK, _VALUE_MARK = b"\xf0" * 12, b"\xf1" * 27, b"\xf2" * 5
_VALUES = 997


class Packets:
    """The messages of one connection, in order: its devices take turns, each with a `seq` of its own from 0."""

    def __init__(self, plan: Plan, connection: int, boot: str, receipts_topic: str | None) -> None:
        self._devices = plan.devices_of(connection)
        templates = [_template(plan, device, boot, receipts_topic) for device in self._devices]
        self._cycle = templates * (1 + -(-MOST // len(templates)))
        self._acknowledged, self._receipts = plan.qos > 0, receipts_topic is not None
        self._values, self._values_from = _values(plan.seed), connection

    def next(self, first: int, count: int, packet_ids: Iterable[bytes], time: bytes) -> bytes:
        """Messages first … first + count - 1 of the connection, at most MOST."""
        numbers, turns = range(first, first + count), len(self._devices)
        filling: list[Iterable[object]] = [[number // turns for number in numbers], repeat(time)]
        value = (first + self._values_from) % _VALUES
        filling.append(self._values[value : value + count])
        if self._receipts:
            filling.insert(0, [number.to_bytes(8) for number in numbers])
        if self._acknowledged:
            filling.insert(0, packet_ids)
        whole = b"".join(self._cycle[first % turns : first % turns + count])
        return whole % tuple(chain.from_iterable(zip(*filling, strict=False)))


def largest_packet(plan: Plan) -> int:
    """How many bytes the largest packet has."""
    device = plan.devices_of(0)[-1]
    return len(_packet(plan, device, "0" * 8, receipts_topic(0, "0" * 8) if plan.receipts else None))


def receipts_topic(connection: int, run: str) -> str:
    """Where a connection's receipts go."""
    return f"amber/receipts/load-{run}-{connection}"


def smallest_size(devices: int) -> int:
    """How many bytes a payload has without padding."""
    return len(_payload(f"load-{devices:04}", "0" * 8, 0))


@cache
def _values(seed: int) -> list[bytes]:
    """Readings, enough to take MOST of them from any of the first _VALUES on."""
    chance = Random(seed)
    values = [f"{chance.uniform(10, 30):.2f}".encode() for _ in range(_VALUES)]
    return values + values


def _template(plan: Plan, device: str, boot: str, receipts_topic: str | None) -> bytes:
    """One packet with `%` in the places of what changes, which stay as long as they are."""
    template = _packet(plan, device, boot, receipts_topic).replace(b"%", b"%%")
    marks: Sequence[tuple[bytes, bytes]] = [(_SEQ_MARK, b"%12d"), (_TIME_MARK, b"%b"), (_VALUE_MARK, b"%b")]
    if receipts_topic is not None:
        template = template.replace(_NUMBER_MARK, b"%b", 1)
    for mark, place in marks:
        template = template.replace(mark, place, 1)
    if plan.qos:
        at = _packet_id_at(template, plan.topic.replace("{device}", device))
        template = template[:at] + b"%b" + template[at + 2 :]
    return template


def _packet_id_at(template: bytes, topic: str) -> int:
    """Behind the topic (MQTT 5.0, section 3.3.2.2)."""
    written = topic.encode().replace(b"%", b"%%")
    return template.index(written + _PACKET_ID_MARK) + len(written)


def _packet(plan: Plan, device: str, boot: str, receipts_topic: str | None) -> bytes:
    return PublishPacket(
        plan.topic.replace("{device}", device),
        _payload(device, boot, plan.size),
        qos=QoS(plan.qos),
        packet_id=_PACKET_ID if plan.qos else None,
        response_topic=receipts_topic,
        correlation_data=None if receipts_topic is None else _NUMBER_MARK,
    ).write()


def _payload(device: str, boot: str, size: int) -> bytes:
    """Amber's own JSON. Spaces before the end fill it up, and before `seq`, so that it is as long whatever it is."""
    head = f'{{"device":"{device}","boot":"{boot}","seq":'.encode()
    text = head + _SEQ_MARK + b',"time":"' + _TIME_MARK + b'","readings":{"x":' + _VALUE_MARK + b"}"
    return text.ljust(size - 1) + b"}"
