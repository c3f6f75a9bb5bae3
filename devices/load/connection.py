"""One MQTT 5 connection under load, on the codec itself. Sends what is due as far as there is room; never resends."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from typing import cast

import mqtt5
from mqtt5 import (
    ConnAckPacket,
    ConnectPacket,
    DisconnectPacket,
    PingReqPacket,
    PubAckPacket,
    PubCompPacket,
    PublishPacket,
    PubRecPacket,
    QoS,
    SubAckPacket,
    SubscribePacket,
    TopicFilter,
)

from devices.address import Address
from devices.load.packets import MOST, PACKET_IDS, Packets, largest_packet, receipts_topic
from devices.load.plan import Plan
from devices.load.tally import Tally

KEEP_ALIVE_S = 60

IN_FLIGHT = 1_000
IN_FLIGHT_OF_ALL = 50_000
UNRECEIPTED_OF_ALL = 100_000
"""What a connection, and all of them together, may have on the way, however much the broker would allow. More makes no
broker faster (with 12 500 at QoS 2 on each of four connections, Mosquitto 2.0.11 took 244 messages a second), and what
waits here to be sent counts as late all the same."""

FAILURE = 0x80
"""Reason codes from here on mean failure (MQTT 5.0, section 2.4)."""

_PUBACK, _PUBREC, _PUBCOMP = 0x4002, 0x5002, 0x7002
"""The first two bytes of an answer without reason code, which is four bytes long (MQTT 5.0, section 3.4)."""

_PUBREL = 0x6202_0000


class Refused(Exception):
    """The broker will not have this load, now or later; the text says why."""


class LoadConnection(asyncio.Protocol):
    """Lives as long as its socket; the messages' numbers go on in the next one.

    `now_us` is the time since the start of the load, `changed` is called when answers came or the connection ended.
    """

    def __init__(
        self, plan: Plan, number: int, *, run: str, address: Address, tally: Tally, now_us: Callable[[], int]
    ) -> None:
        self.number = number
        self.sent = 0
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.changed: Callable[[], None] = lambda: None
        self.in_flight = 0
        self.awaiting: dict[int, int] = {}
        self._plan = plan
        self._run = run
        self._address = address
        self._tally = tally
        self._now_us = now_us
        self._packets = Packets(plan, number, run, receipts_topic(number, run) if plan.receipts else None)
        self._most_awaiting = max(1, UNRECEIPTED_OF_ALL // plan.connections)
        self._transport: asyncio.Transport | None = None
        self._writable = self._closing = False
        self._rest = b""
        self._slots: list[int] = []

    def again(self) -> None:
        """A new socket follows: what was on the way on the one before is not known to have arrived."""
        loop = asyncio.get_running_loop()
        self.ready, self.gone = loop.create_future(), loop.create_future()
        self.give_up()
        self._slots, self._rest = [], b""

    def give_up(self) -> None:
        """What is on the way now counts as never answered."""
        self._tally.unanswered += self.in_flight
        self._tally.unreceipted += len(self.awaiting)
        self.in_flight = 0
        self.awaiting.clear()

    # --- for the load ---

    @property
    def is_open(self) -> bool:
        return self._transport is not None

    @property
    def outstanding(self) -> int:
        """Answers that are still to come."""
        return self.in_flight + len(self.awaiting)

    @property
    def has_room(self) -> bool:
        """Whether a message could be sent now."""
        if not self._writable or len(self.awaiting) >= self._most_awaiting:
            return False
        if not self._plan.qos:
            return True
        # Of a full window a quarter has to come free: to write for each answer is slower for both sides.
        return self.in_flight <= len(self._slots) * 3 // 4 and not self._slots[self.sent % len(self._slots)]

    def send(self, due: int, time: bytes) -> None:
        """Send up to the connection's message number `due`, as far as there is room."""
        while self._writable and (count := min(due - self.sent, MOST)) > 0:
            at = self.sent % len(self._slots)
            if self._plan.qos:
                count = min(count, self._free_slots(at, count))
            if self._plan.receipts:
                count = min(count, self._most_awaiting - len(self.awaiting))
            if count <= 0:
                return
            self._write(self._packets.next(self.sent, count, PACKET_IDS[at + 1 : at + 1 + count], time))
            self._note_sent(at, count)

    def ping(self) -> None:
        if self._writable:
            self._write(PingReqPacket().write())

    def close(self) -> None:
        """Say goodbye once all is written; the broker closes when it has read it."""
        self._closing, self._writable = True, False
        self._write(DisconnectPacket().write())

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _free_slots(self, at: int, count: int) -> int:
        """How many of the next packet ids are free, one after the other, up to the end of the window."""
        wanted = self._slots[at : at + count]
        return wanted.index(next(filter(None, wanted))) if any(wanted) else len(wanted)

    def _note_sent(self, at: int, count: int) -> None:
        now_us, plan, first = self._now_us(), self._plan, self.sent
        dues = [now_us] * count if plan.rate is None else plan.due_us(self.number, first, count)
        self._tally.sent.note(now_us, [now_us - due for due in dues])
        if plan.qos:
            self._slots[at : at + count] = [due + 1 for due in dues]  # 0 is a free one
            self.in_flight += count
        if plan.receipts:
            self.awaiting.update(zip(range(first, first + count), dues, strict=True))
        self.sent += count

    # --- for asyncio ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=256 * 1024)
        connect = ConnectPacket(
            f"amber-load-{self._run}-{self.number}",
            username=self._address.user,
            password=None if self._address.password is None else self._address.password.encode(),
            clean_start=True,
            keep_alive=KEEP_ALIVE_S,
        )
        self._write(connect.write())

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._closing:
            self._tally.trouble = str(exc) if exc else self._tally.trouble or "the broker closed the connection"
        self._transport, self._writable = None, False
        if not self.ready.done():
            self._unready(exc if isinstance(exc, OSError) else ConnectionError("it closed the connection"))
        if not self.gone.done():
            self.gone.set_result(None)
        self.changed()

    def pause_writing(self) -> None:
        self._writable = False

    def resume_writing(self) -> None:
        self._writable = self._transport is not None and not self._closing
        self.changed()

    def data_received(self, data: bytes) -> None:
        if not self._rest and not len(data) % 4 and self._plain_answers(data):
            self.changed()
            return
        view, position, durations, receipted = memoryview(self._rest + data), 0, list[int](), list[int]()
        try:
            while position < len(view):
                packet, size = mqtt5.read(view[position:])
                position += size
                self._on_packet(packet, durations, receipted)
        except IndexError:  # the rest of it is yet to come
            pass
        except ValueError as error:
            self._fail(Refused(f"it sent what is not MQTT 5: {error}"))
            return
        self._rest = bytes(view[position:])
        now_us = self._now_us()
        self._tally.acknowledged.note(now_us, [now_us - due for due in durations])
        self._tally.receipted.note(now_us, [now_us - due for due in receipted])
        self.changed()

    # --- answers ---

    def _plain_answers(self, data: bytes) -> bool:
        """Take in a run of answers of four bytes, as nearly all are; False, and nothing done, if it is none."""
        words = struct.unpack(f">{len(data) // 4}I", data)
        if not {word >> 16 for word in words} <= {_PUBACK, _PUBREC, _PUBCOMP}:
            return False
        slots, durations, releases = self._slots, list[int](), list[int]()
        for word in words:
            if word >> 16 == _PUBREC:
                releases.append(_PUBREL | word & 0xFFFF)
            elif (at := (word & 0xFFFF) - 1) < len(slots) and (due := slots[at]):
                durations.append(due - 1)
                slots[at] = 0
        if releases:
            self._write(struct.pack(f">{len(releases)}I", *releases))
        self.in_flight -= len(durations)
        now_us = self._now_us()
        self._tally.acknowledged.note(now_us, [now_us - due for due in durations])
        return True

    def _on_packet(self, packet: mqtt5.Packet, durations: list[int], receipted: list[int]) -> None:
        match packet:
            case PublishPacket():
                self._on_receipt(packet, receipted)
            case PubRecPacket(reason_code=code, packet_id=packet_id) if int(code) < FAILURE:
                self._write((_PUBREL | packet_id).to_bytes(4))
            case PubAckPacket(reason_code=code) | PubRecPacket(reason_code=code) | PubCompPacket(reason_code=code):
                self._on_answer(packet.packet_id, int(code), code.name, durations)
            case ConnAckPacket():
                self._on_connack(packet)
            case SubAckPacket():
                self._on_suback(packet)
            case DisconnectPacket():
                self._tally.trouble = _words(packet.reason_code.name)
            case _:
                pass  # PINGRESP

    def _on_answer(self, packet_id: int, code: int, name: str, durations: list[int]) -> None:
        at = packet_id - 1
        if at >= len(self._slots) or not (due := self._slots[at]):
            return
        self._slots[at] = 0
        self.in_flight -= 1
        if code < FAILURE:
            durations.append(due - 1)
        else:
            self._tally.refused += 1
            self._tally.trouble = _words(name)

    def _on_receipt(self, packet: PublishPacket, receipted: list[int]) -> None:
        due = self.awaiting.pop(int.from_bytes(packet.correlation_data or b""), None)
        if due is None:
            return
        receipted.append(due)
        if packet.payload:
            self._tally.rejected += 1
            self._tally.rejection = packet.payload.decode(errors="replace")

    def _on_connack(self, packet: ConnAckPacket) -> None:
        plan = self._plan
        if int(packet.reason_code) >= FAILURE:
            self._fail(Refused(_words(packet.reason_code.name)))
        elif int(packet.max_qos) < plan.qos:
            self._fail(Refused(f"it takes QoS {int(packet.max_qos)} at most"))
        elif packet.max_packet_size is not None and packet.max_packet_size < largest_packet(plan):
            self._fail(Refused(f"it takes packets of {packet.max_packet_size} bytes at most"))
        else:
            self._slots = [0] * max(1, min(packet.receive_max, IN_FLIGHT, IN_FLIGHT_OF_ALL // plan.connections))
            if plan.receipts:
                wanted = TopicFilter(receipts_topic(self.number, self._run), max_qos=QoS.AT_MOST_ONCE)
                self._write(SubscribePacket(1, [wanted]).write())
            else:
                self._begin()

    def _on_suback(self, packet: SubAckPacket) -> None:
        if int(packet.reason_codes[0]) >= FAILURE:
            self._fail(Refused(f"it does not let us subscribe to receipts: {_words(packet.reason_codes[0].name)}"))
        else:
            self._begin()

    def _begin(self) -> None:
        self._writable = True
        if not self.ready.done():
            self.ready.set_result(None)

    def _fail(self, error: Refused) -> None:
        if not self.ready.done():
            self._unready(error)
        self.abort()

    def _unready(self, error: Exception) -> None:
        self.ready.set_exception(error)
        self.ready.exception()  # has been seen: nobody may wait for it any more

    def _write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)


def _words(name: str) -> str:
    """The codec's name of a reason code, as words: "not authorized"."""
    return name.lower().replace("_", " ")
