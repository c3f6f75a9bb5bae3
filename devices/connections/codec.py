"""The fast client: MQTT 5 on the mqtt5 codec and a bare asyncio transport. Reads nothing but answers and receipts."""

from __future__ import annotations

import asyncio
import os
import re
import ssl
from collections import deque
from typing import NamedTuple, TypeVar, cast

from mqtt5 import (
    ConnAckPacket,
    ConnectPacket,
    DisconnectPacket,
    DisconnectReasonCode,
    Packet,
    PingReqPacket,
    PubAckPacket,
    PubCompPacket,
    PublishPacket,
    PubRecPacket,
    PubRelPacket,
    QoS,
    RetainHandling,
    SubAckPacket,
    SubscribePacket,
    TopicFilter,
    Will,
)

from devices.connection import (
    CONNECT_WITHIN_S,
    KEEPALIVE_S,
    LOST,
    SESSION_EXPIRY_S,
    Answered,
    Connection,
    Door,
    Receipted,
    Unfinished,
)
from devices.connections.packets import Illegible, MalformedPacket, Packets
from devices.errors import ConnectionLost
from devices.outgoing import Publication

REFUSED = 128
"""Reason codes from here on mean failure (MQTT 5.0, section 2.4)."""

CLOSE_WITHIN_S = 2.0

Kind = TypeVar("Kind", bound=Packet)

_NO_LIMITS = ConnAckPacket()

_QOS = (QoS.AT_MOST_ONCE, QoS.AT_LEAST_ONCE, QoS.EXACTLY_ONCE)

_READ = memoryview(bytearray(1 << 16))
"""What arrives on any connection, and is used before the next one is read: asyncio would make 256 KB for each read."""


class _Open(NamedTuple):
    """A message whose handshake is under way; `released`: the broker has it, and owes a PUBCOMP."""

    publication: Publication
    qos: int
    answered: Answered
    correlation: bytes | None
    released: bool = False


class CodecConnection(Connection, asyncio.BufferedProtocol):
    """`unfinished` is given for a persistent session, and is this connection's to keep."""

    def __init__(
        self, door: Door, client_id: str, will: Publication | None, unfinished: Unfinished | None = None
    ) -> None:
        super().__init__()
        self._door = door
        self._client_id = client_id
        self._will = will
        self._session = unfinished
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._packets = Packets()
        self._out: list[bytes] = []
        self._open: dict[int, _Open] = {}
        self._queue: deque[_Open] = deque()
        self._last_id = unfinished.last_id if unfinished else 0
        self._receipted: Receipted | None = None
        self._receipts_topic: str | None = None
        self._awaited: asyncio.Future[Packet | None] = self._loop.create_future()  # it may come before we wait
        self._gone: asyncio.Future[None] | None = None
        self._limits = _NO_LIMITS
        self._keep_alive_s = KEEPALIVE_S
        self._timer: asyncio.TimerHandle | None = None
        self._said = self._heard = True
        self._unanswered_ticks = 0

    # --- for devices ---

    async def open(self) -> None:
        address = self._door.address
        try:
            async with asyncio.timeout(CONNECT_WITHIN_S):
                await self._loop.create_connection(lambda: self, address.host, address.port, ssl=self._door.tls)
                connack = await self._answer(ConnAckPacket)
        except TimeoutError:
            raise ConnectionLost("no answer in time") from None
        except OSError as error:
            raise ConnectionLost(_words(error)) from error
        if int(connack.reason_code) >= REFUSED:
            raise ConnectionLost(_name(connack.reason_code))
        self._limits = connack
        if connack.server_keep_alive is not None:
            self._keep_alive_s = connack.server_keep_alive
        if self._session is not None:
            self._session.begun = True
            if not connack.session_present:
                self._session.left.clear()
        if self._keep_alive_s:
            self._timer = self._loop.call_later(self._keep_alive_s / 3, self._tick)

    async def listen(self, topic: str, receipted: Receipted) -> None:
        self._receipted, self._receipts_topic = receipted, topic
        wanted = TopicFilter(topic, max_qos=QoS.AT_LEAST_ONCE, retain_handling=RetainHandling.SEND_NEVER)
        self._awaited = self._loop.create_future()
        self._out.append(SubscribePacket(self._next_id(), [wanted]).write())
        self.flush()
        try:
            async with asyncio.timeout(CONNECT_WITHIN_S):
                suback = await self._answer(SubAckPacket)
        except TimeoutError:
            raise ConnectionLost(f"no answer in time to the subscription to {topic}") from None
        if int(suback.reason_codes[0]) >= REFUSED:
            raise ConnectionLost(f"no subscription to {topic}: {_name(suback.reason_codes[0])}")

    def publish(self, publication: Publication, qos: int, answered: Answered, correlation: bytes | None = None) -> None:
        message = _Open(publication, qos, answered, correlation)
        if qos and (len(self._open) >= self._limits.receive_max or self._queue):
            self._queue.append(message)
        else:
            self._start(message)

    def flush(self) -> None:
        if self._out and self._transport is not None and self.ended is None:
            data, self._out = b"".join(self._out), []
            self._transport.write(data)
            self._said = True

    async def close(self) -> None:
        if self._transport is None or self.ended is not None:
            return
        # Without a session expiry: what the broker was told at CONNECT stands.
        self._out.append(DisconnectPacket().write())
        self.flush()
        self._gone = self._loop.create_future()
        # The broker closes on DISCONNECT; if we closed first, with something unread, the kernel would send RST, and
        # what it had not yet read of ours would be gone.
        await asyncio.wait([self._gone], timeout=CLOSE_WITHIN_S)

    def abandon(self) -> None:
        self.cut()
        self._keep()

    def cut(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._transport is not None:
            self._transport.abort()

    # --- for asyncio ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._out.append(self._connect_packet())
        self.flush()

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002
        return _READ

    def buffer_updated(self, nbytes: int) -> None:
        self._heard = True
        try:
            for packet in self._packets.feed(_READ[:nbytes]):
                self._on_packet(packet)
        except MalformedPacket as error:
            self._lose(f"the broker sent what MQTT 5 does not allow: {error}", DisconnectReasonCode.MALFORMED_PACKET)
        self.flush()

    def pause_writing(self) -> None:
        self.writable = False

    def resume_writing(self) -> None:
        self.writable = True
        self.on_writable()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if exc is not None and not isinstance(exc, OSError):
            self._loop.call_exception_handler({"message": "a fault in a connection", "exception": exc})
        self.end(LOST)
        if not self._awaited.done():
            self._awaited.set_result(None)
        if self._gone is not None and not self._gone.done():
            self._gone.set_result(None)

    # --- packets that come ---

    def _on_packet(self, packet: Packet | Illegible) -> None:
        if self.ended is not None:
            return
        match packet:
            case PubAckPacket() | PubRecPacket() | PubCompPacket():
                self._on_answer(packet)
            case PublishPacket():
                self._on_publish(packet)
            case Illegible():
                if packet.packet_id is not None:
                    self._out.append(PubAckPacket(packet.packet_id).write())
            case ConnAckPacket() | SubAckPacket() if not self._awaited.done():
                self._awaited.set_result(packet)
            case DisconnectPacket():
                self._lose(f"the broker has ended the connection: {_name(packet.reason_code)}")
            case _:
                pass  # PINGRESP: that something was heard is noted already

    def _on_answer(self, packet: PubAckPacket | PubRecPacket | PubCompPacket) -> None:
        """One that does not belong to the message's handshake is no acknowledgement, whatever it says."""
        packet_id, code = packet.packet_id, packet.reason_code
        message = self._open.get(packet_id)
        if message is None:
            return
        if message.qos == 1:
            if isinstance(packet, PubAckPacket):
                self._finish(packet_id, message, _name(code) if int(code) >= REFUSED else None)
        elif isinstance(packet, PubRecPacket):
            if int(code) >= REFUSED:
                self._finish(packet_id, message, _name(code))
            else:
                self._release(packet_id, message)
        elif isinstance(packet, PubCompPacket) and message.released:
            # One of 146 says that the broker knows the packet id no more: it has let the message go on before.
            self._finish(packet_id, message, None)

    def _release(self, packet_id: int, message: _Open) -> None:
        """QoS 2: the broker has the message, and is told to let it go on."""
        self._open[packet_id] = message._replace(released=True)
        self._out.append(PubRelPacket(packet_id).write())

    def _finish(self, packet_id: int, message: _Open, refusal: str | None) -> None:
        """The handshake of a message is at its end."""
        del self._open[packet_id]
        while self._queue and len(self._open) < self._limits.receive_max:
            self._start(self._queue.popleft())
        message.answered(refusal)

    def _on_publish(self, packet: PublishPacket) -> None:
        if packet.packet_id:
            self._out.append(PubAckPacket(packet.packet_id).write())
        if self._receipted is not None and packet.topic == self._receipts_topic:
            self._receipted(packet.correlation_data or b"", packet.payload)

    # --- packets that go ---

    def _connect_packet(self) -> bytes:
        address, will, session = self._door.address, self._will, self._session
        return ConnectPacket(
            self._client_id,
            username=address.user,
            password=None if address.password is None else address.password.encode(),
            # What an earlier process left of the session is unknown to us: a packet id that is still open at the
            # broker would make it take a new message at QoS 2 for an old one.
            clean_start=session is None or not session.begun,
            keep_alive=KEEPALIVE_S,
            session_expiry_interval=0 if session is None else SESSION_EXPIRY_S,
            will=None
            if will is None
            else Will(
                will.topic,
                payload=will.payload,
                qos=QoS.AT_LEAST_ONCE,
                retain=will.retain,
                content_type=will.content_type,
                user_properties=list(will.user),
            ),
        ).write()

    def _start(self, message: _Open) -> None:
        publication, qos, answered, _, _ = message
        packet_id, again, released = self._id_for(publication, qos)
        if released:
            self._release(packet_id, message)
            return
        try:
            packet = self._packet(message, packet_id, again=again)
        except ValueError as error:  # a topic of 70 000 bytes, say
            self._loop.call_soon(answered, f"no MQTT 5 packet can say that: {error}")
            return
        refusal = self._refusal(publication, qos, len(packet))
        if refusal is not None:
            self._loop.call_soon(answered, refusal)
            return
        self._out.append(packet)
        if qos:
            self._open[packet_id] = message
        else:
            self._loop.call_soon(answered, None)

    def _packet(self, message: _Open, packet_id: int, *, again: bool) -> bytes:
        publication, qos, _, correlation, _ = message
        return PublishPacket(
            publication.topic,
            publication.payload,
            qos=_QOS[qos],
            retain=publication.retain,
            packet_id=packet_id or None,
            duplicate=again,
            content_type=publication.content_type,
            response_topic=self._receipts_topic if correlation is not None else None,
            correlation_data=correlation,
            user_properties=list(publication.user) if publication.user else None,
        ).write()

    def _refusal(self, publication: Publication, qos: int, size: int) -> str | None:
        """Why the broker would end the connection over this message, if it would."""
        limits = self._limits
        if limits.max_packet_size is not None and size > limits.max_packet_size:
            return f"{size} bytes, and the broker takes {limits.max_packet_size} at most"
        if qos > int(limits.max_qos):
            return f"the broker takes QoS {int(limits.max_qos)} at most"
        if publication.retain and not limits.retain_available:
            return "the broker retains nothing"
        return None

    def _id_for(self, publication: Publication, qos: int) -> tuple[int, bool, bool]:
        """A packet id; whether this message was sent under it before, and whether the broker has it already."""
        if not qos:
            return 0, False, False
        left = self._session.left if self._session else None
        if left and (ids := left.get(publication)):
            packet_id, released = ids.pop(0)
            if not ids:
                del left[publication]
            return packet_id, True, released
        return self._next_id(), False, False

    def _next_id(self) -> int:
        taken = {packet_id for ids in self._session.left.values() for packet_id, _ in ids} if self._session else ()
        while True:
            self._last_id = self._last_id % 65_535 + 1
            if self._last_id not in self._open and self._last_id not in taken:
                return self._last_id

    def _keep(self) -> None:
        """Into the session goes what is not finished; what no one sent again of an earlier one only at QoS 2."""
        if self._session is None or not self._session.begun:
            return
        self._session.last_id = self._last_id
        for packet_id, message in self._open.items():
            self._session.left.setdefault(message.publication, []).append((packet_id, message.released))
        self._open.clear()

    # --- keep-alive, and the end ---

    def _tick(self) -> None:
        """Three times in an interval: ask where it was silent on either side, and give up what does not answer."""
        self._unanswered_ticks = 0 if self._heard else self._unanswered_ticks + 1
        if self._unanswered_ticks > 5:
            self.cut()
            self._lose("the broker does not answer any more")
            return
        if not self._said or not self._heard:
            self._out.append(PingReqPacket().write())
            self.flush()
        self._said = self._heard = False
        self._timer = self._loop.call_later(self._keep_alive_s / 3, self._tick)

    def _lose(self, reason: str, code: DisconnectReasonCode | None = None) -> None:
        if code is not None:
            self._out.append(DisconnectPacket(reason_code=code).write())
            self.flush()
        self.end(reason)
        if self._transport is not None:
            self._transport.close()

    async def _answer(self, kind: type[Kind]) -> Kind:
        """The CONNACK or SUBACK. Raises ConnectionLost if the connection ends before, or something else comes."""
        try:
            packet = await self._awaited
        finally:
            self._awaited.cancel()
        if packet is None:
            raise ConnectionLost(self.ended or LOST)
        if not isinstance(packet, kind):
            raise ConnectionLost(f"the broker sent a {type(packet).__name__}, and no {kind.__name__}")
        return packet


def _name(code: int) -> str:
    """A reason code in words: `Not authorized`."""
    return getattr(code, "name", f"reason code {code}").replace("_", " ").capitalize()


def _words(error: OSError) -> str:
    """What the system says, without numbers and addresses."""
    if isinstance(error, ssl.SSLError):
        return str(error).partition("] ")[2] or str(error)
    number = error.errno
    if number is None and (found := re.search(r"\[Errno (\d+)\]", str(error))):
        number = int(found[1])  # one of several, where a name has several addresses and none of them answers
    return os.strerror(number) if number and number > 0 else error.strerror or str(error)
