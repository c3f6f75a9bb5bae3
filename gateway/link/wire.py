"""One TCP or TLS connection to a broker, from CONNECT to its end. Never acknowledges by itself, never reconnects."""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import Callable, Sequence
from typing import cast

import msgspec
from mqtt5 import (
    ConnAckPacket,
    ConnAckReasonCode,
    ConnectPacket,
    DisconnectPacket,
    DisconnectReasonCode,
    Packet,
    PingReqPacket,
    PingRespPacket,
    PublishPacket,
    PubRelPacket,
    QoS,
    RetainHandling,
    SubAckPacket,
    SubscribePacket,
    TopicFilter,
)

from gateway.link import Connection, Receipt, reasons
from gateway.link.keepalive import KeepAlive
from gateway.link.options import LinkOptions
from gateway.link.packets import MalformedPacket, PacketStream
from gateway.link.subscriptions import Subscription
from storage.event import Message

_ACKNOWLEDGEMENT = (0, 0x4002_0000, 0x5002_0000)
"""By QoS: PUBACK or PUBREC with the reason code 0 left out, four bytes in all; the packet id goes into the last two
(MQTT 5.0, sections 3.4 and 3.5)."""

_PUBCOMP = 0x7002_0000

RECEIPTS_WAITING_BYTES = 8 << 20
"""More than that is not held for a broker that does not read: whoever asked for a receipt asks again."""


class End(msgspec.Struct, frozen=True):
    """Why a connection ended. `unexplained`: it just broke off."""

    sentence: str
    takeover: bool = False
    unexplained: bool = False


class Wire(asyncio.Protocol):
    """What it receives waits in `messages` until it is taken; while too much waits, it does not read the socket.

    QoS 0 knows no Receive Maximum: there, this pause is the only bound.
    """

    def __init__(self, options: LinkOptions, number: int, wake: Callable[[], None]) -> None:
        self.connection: Connection | None = None
        self.connack: ConnAckPacket | None = None
        self.messages: list[Message] = []
        self.end: End | None = None
        self._options = options
        self._address = options.address
        self._number = number
        self._wake = wake
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._stream = PacketStream()
        self._paused = False
        self._completed: list[int] = []
        self._subacks: dict[int, asyncio.Future[SubAckPacket]] = {}
        self._last_subscribe_id = 0
        self._opened = asyncio.Event()
        self._gone = asyncio.Event()
        self._fault: Exception | None = None
        self._timers: list[asyncio.TimerHandle] = []
        self._keep_alive = KeepAlive(options.keep_alive_s, self._loop.time())

    # --- for the link ---

    @property
    def salvaged(self) -> Message | None:
        """The first message that the codec refused, if it refused any."""
        return self._stream.salvaged

    async def opened(self) -> None:
        """Wait for the broker to accept the connection, or for its end, whichever comes first."""
        await self._opened.wait()

    async def ended(self) -> End:
        """Wait for the end of the connection."""
        await self._gone.wait()
        if self._fault is not None:
            raise self._fault
        return cast("End", self.end)

    async def subscribe(self, subscriptions: Sequence[Subscription]) -> list[SubAckPacket]:
        """Send one SUBSCRIBE per filter, and wait for the answers, each with one reason code."""
        answers = []
        written = b""
        for pattern, qos in subscriptions:
            self._last_subscribe_id = self._last_subscribe_id % 65_535 + 1
            # Retained messages come once per session and filter, so also for a filter that is new in an old session.
            wanted = TopicFilter(
                pattern,
                max_qos=QoS(qos),
                # So that our receipts do not come back; on a shared subscription MQTT 5.0, section 3.8.3.1, forbids it.
                no_local=not pattern.startswith("$share/"),
                retain_as_published=True,
                retain_handling=RetainHandling.SEND_IF_SUBSCRIPTION_NOT_EXISTS,
            )
            written += SubscribePacket(self._last_subscribe_id, [wanted]).write()
            answers.append(self._loop.create_future())
            self._subacks[self._last_subscribe_id] = answers[-1]
        self._write(written)
        return list(await asyncio.gather(*answers))

    def take(self) -> list[Message]:
        """All that waits. Reading goes on."""
        messages, self.messages = self.messages, []
        self._stream.parsed_bytes = 0
        if self._paused and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()
        return messages

    def acknowledge(self, messages: Sequence[Message], receipts: Sequence[Receipt] = ()) -> int:
        """PUBACK or PUBREC for all of them, in order, then the receipts, in one write; how many receipts left.

        Nothing once the connection has ended. Left out are receipts for which there is no room, or which the broker
        would end the connection for, as they are too large for it.
        """
        answers = [_ACKNOWLEDGEMENT[message.qos] | message.packet_id for message in messages if message.qos]
        if not receipts:
            self._write_packets(answers)
            return 0
        if self.end is not None or self._transport is None or self._transport.is_closing():
            return 0
        packets = self._publishes(receipts, RECEIPTS_WAITING_BYTES - self._transport.get_write_buffer_size())
        self._write(struct.pack(f">{len(answers)}I", *answers) + b"".join(packets))
        return len(packets)

    def _publishes(self, receipts: Sequence[Receipt], room_bytes: int) -> list[bytes]:
        """The packets of the receipts, as far as there is room and the broker takes packets of that size."""
        largest = (self.connack and self.connack.max_packet_size) or room_bytes
        packets = []
        for receipt in receipts:
            packet = PublishPacket(receipt.topic, receipt.payload, correlation_data=receipt.correlation_data).write()
            if len(packet) <= min(largest, room_bytes):
                packets.append(packet)
                room_bytes -= len(packet)
        return packets

    async def close(self) -> None:
        """End the connection in good order, in bounded time. The broker keeps the session."""
        if self._transport is None:
            return
        if self.connection is None:
            self._transport.abort()
        else:
            # Without a session expiry of 0, which would throw away what is not yet delivered.
            self._write(DisconnectPacket().write())
            self._finish(End("closed in good order"))
            # The broker closes on DISCONNECT. If we closed first, with something unread in the socket, the kernel
            # would send RST, and with it discard those of our acknowledgements that the broker has not yet read.
            self._transport.resume_reading()
        try:
            async with asyncio.timeout(self._options.close_timeout_s):
                await self._gone.wait()
        except TimeoutError:
            self._transport.abort()
            await self._gone.wait()

    def abort(self, sentence: str) -> End:
        """Drop the connection: the other side does not answer, so nothing is said to it."""
        self._finish(End(sentence))
        if self._transport is not None:
            self._transport.abort()
        return cast("End", self.end)

    # --- for asyncio ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        username, password = self._options.credentials
        connect = ConnectPacket(
            self._options.client_id,
            username=username,
            password=None if password is None else password.encode(),
            clean_start=False,
            keep_alive=self._options.keep_alive_s,
            session_expiry_interval=self._options.session_expiry_s,
            receive_max=self._options.window_messages,
        )
        self._write(connect.write())

    def data_received(self, data: bytes) -> None:
        if self.end is not None:
            return
        self._keep_alive.heard_at = self._loop.time()
        try:
            for packet in self._stream.feed(data, self.messages, time.time_ns() // 1000):
                self._on_packet(packet)
        except MalformedPacket as error:
            self._refuse(DisconnectReasonCode.MALFORMED_PACKET, str(error))
        if self._completed:
            completed, self._completed = self._completed, []
            self._write_packets([_PUBCOMP | packet_id for packet_id in completed])
        if self.messages and self.connection is None:
            self.messages.clear()
            self._refuse(DisconnectReasonCode.PROTOCOL_ERROR, "a PUBLISH before CONNACK")
        elif self.messages:
            self._wake()
            self._pause_if_full()

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in self._timers:
            timer.cancel()
        error = exc if isinstance(exc, OSError) else None
        if exc is not error:
            self._fault = exc  # a fault of our own in data_received: let it rise
        if self.connection is not None:
            self._finish(End(reasons.closed(self._address, error), unexplained=True))
        elif error is not None:
            self._finish(End(reasons.unreachable(self._address, error)))
        else:
            self._finish(End(reasons.not_mqtt(self._address)))
        self._opened.set()
        self._gone.set()
        self._wake()

    # --- packets ---

    def _on_packet(self, packet: Packet) -> None:
        if self.end is not None:
            return
        match packet:
            case PubRelPacket():
                # Also for an id that we do not know: without an answer the broker's slot would never come free.
                self._completed.append(packet.packet_id)
            case PingRespPacket():
                pass
            case ConnAckPacket() if self.connack is None:
                self._on_connack(packet)
            case SubAckPacket() if len(packet.reason_codes) == 1 and packet.packet_id in self._subacks:
                answer = self._subacks.pop(packet.packet_id)
                if not answer.done():
                    answer.set_result(packet)
            case DisconnectPacket():
                self._on_disconnect(packet)
            case _:
                self._refuse(DisconnectReasonCode.PROTOCOL_ERROR, f"an unexpected {type(packet).__name__}")

    def _on_connack(self, packet: ConnAckPacket) -> None:
        self.connack = packet
        if packet.reason_code != ConnAckReasonCode.SUCCESS:
            said = reasons.connect_refused(
                self._address, int(packet.reason_code), packet.reason_str, packet.server_reference
            )
            self._finish(End(said))
            self._close()
            return
        if packet.server_keep_alive is not None:
            self._keep_alive.interval_s = packet.server_keep_alive
        self.connection = Connection(
            number=self._number,
            broker=str(self._address),
            client_id=self._options.client_id,
            resumed=packet.session_present,
            window_messages=self._options.window_messages,
        )
        self._opened.set()
        self._wake()
        if self._keep_alive.interval_s:
            self._watch()

    def _on_disconnect(self, packet: DisconnectPacket) -> None:
        code = int(packet.reason_code)
        sentence = reasons.disconnected(
            self._address, self._options.client_id, code, packet.reason_str, packet.server_reference
        )
        self._finish(End(sentence, takeover=code == DisconnectReasonCode.SESSION_TAKEN_OVER))
        self._close()

    def _refuse(self, code: DisconnectReasonCode, problem: str) -> None:
        """End the connection, and tell the broker why if it is one."""
        if self.connection is None:
            self._finish(End(reasons.not_mqtt(self._address)))
        else:
            self._write(DisconnectPacket(reason_code=code).write())
            self._finish(End(reasons.malformed(self._address, problem)))
        self._close()

    # --- keep-alive ---

    def _watch(self) -> None:
        """Look at the keep-alive, now and every tick."""
        if self.end is not None:
            return
        match self._keep_alive.check(self._loop.time(), listening=not self._paused):
            case "ask":
                self._write(PingReqPacket().write())
            case "give up":
                self.abort(reasons.silent(self._address, self._keep_alive.patience_s))
                return
        self._timers = [self._loop.call_later(self._keep_alive.tick_s, self._watch)]

    # --- the socket ---

    def _write_packets(self, packets: list[int]) -> None:
        """Packets of four bytes, each as one number, in one write."""
        if packets:
            self._write(struct.pack(f">{len(packets)}I", *packets))

    def _write(self, data: bytes) -> None:
        if self.end is None and self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)
            self._keep_alive.said_at = self._loop.time()

    def _pause_if_full(self) -> None:
        full = len(self.messages) > self._options.window_messages
        if (full or self._stream.parsed_bytes > self._options.window_bytes) and not self._paused:
            self._paused = True
            cast("asyncio.Transport", self._transport).pause_reading()

    def _finish(self, end: End) -> None:
        """The first reason stands."""
        self.end = self.end or end

    def _close(self) -> None:
        """Close once all is written; a peer that does not read must not hold us up."""
        transport = cast("asyncio.Transport", self._transport)
        transport.close()
        self._timers.append(self._loop.call_later(self._options.close_timeout_s, transport.abort))
