"""Publishes messages out of the log to a broker, marked so that no gateway stores them again. Never subscribes."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
import ssl
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from typing import NoReturn

import msgspec
import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties as PahoProperties
from paho.mqtt.reasoncodes import ReasonCode

from gateway.link import reasons
from gateway.link.address import Address
from gateway.sinks import REPLAY_MARK, STATE_MARK, SinkError
from gateway.sinks.topics import TopicOf, prefixed
from storage.event import Message, Properties, StoredEvent

WINDOW_MESSAGES = 500
"""Messages on their way at a time, or fewer where the broker says so (MQTT 5 Receive Maximum)."""

WINDOW_BYTES = 8 << 20
"""With so many bytes of payload on their way, no message is added."""

CONNECT_TIMEOUT_S = 10.0
KEEP_ALIVE_S = 30


@contextlib.asynccontextmanager
async def publisher(address: Address, topic: str | TopicOf, *, resumes: bool = False) -> AsyncIterator[Publisher]:
    """A connection for the time of the block; `topic` is a prefix, or makes whole topics.

    Should the connection end earlier, SinkError interrupts the block, in a group; it says how to go on, by position,
    or, where whoever starts again `resumes`, in no more words than that.
    """
    publisher = Publisher(address, prefixed(topic) if isinstance(topic, str) else topic, resumes=resumes)
    try:
        await publisher.open()
        async with asyncio.TaskGroup() as group:
            watch = group.create_task(publisher.failed(), name="watch the connection")
            yield publisher
            watch.cancel()
    finally:
        publisher.close()


class Publisher:
    """A sink that publishes each message once, for the first of its events that comes.

    Payload, QoS, retain flag and properties are those that were received, as far as the broker allows; but not
    response topic and correlation data: nobody shall answer what was asked long ago. Confirmed is what the broker has
    acknowledged; at QoS 0, which knows no acknowledgement, what was written to the socket.
    """

    def __init__(self, address: Address, topic_of: TopicOf, *, resumes: bool) -> None:
        self.confirmed = 0
        self.payload_bytes_underway = 0
        self._address = address
        self._topic_of = topic_of
        self._resumes = resumes
        self._client_id = f"amber-replay-{secrets.token_hex(4)}"
        self._client = _Client(
            CallbackAPIVersion.VERSION2, self._client_id, protocol=paho.MQTTv5, reconnect_on_failure=False
        )
        self._client.max_inflight_messages_set(0)  # the window is ours: paho's own costs more the larger it is
        self._loop = asyncio.get_running_loop()
        self._connected: asyncio.Future[None] = self._loop.create_future()
        self._failed: asyncio.Future[NoReturn] = self._loop.create_future()
        self._beat: asyncio.TimerHandle | None = None
        self._window = WINDOW_MESSAGES
        self._max_qos = 2
        self._may_retain = True
        self._last = 0, 0  # the message published last, and the last of its events that came
        self._unconfirmed: deque[_Sent] = deque()
        self._answers: dict[int, ReasonCode] = {}
        self._progress = asyncio.Event()

    async def open(self) -> None:
        """Connect. Raises SinkError."""
        address, client = self._address, self._client
        client.connect_timeout = CONNECT_TIMEOUT_S
        if address.username is not None:
            client.username_pw_set(address.username, address.password)
        try:
            if address.tls:
                client.tls_set_context(ssl.create_default_context())
            await asyncio.to_thread(client.connect, address.host, address.port, KEEP_ALIVE_S)
        except OSError as error:
            why = f"{address} cannot be reached ({error.strerror or error})"
            raise SinkError(f"{why}: check --to, the broker and the network") from error
        self._attach()
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await self._connected
        except TimeoutError:
            why = f"{address} did not answer within {CONNECT_TIMEOUT_S:g} s"
            raise SinkError(f"{why}: check that --to names an MQTT broker") from None

    async def send(self, batch: Sequence[tuple[StoredEvent, Message]], *, as_state: bool = False) -> None:
        """Publish the messages of these events; waits while the window is full.

        What is sent `as_state` is marked so, and confirms nothing: it stands before what is replayed.
        """
        for event, message in batch:
            message_id, position = self._last
            if event.message_id == message_id and event.id > position:  # else it begins again
                self._extend(event)
                continue
            while len(self._unconfirmed) >= self._window or self.payload_bytes_underway >= WINDOW_BYTES:
                await self._wait()
            self._publish(event, message, as_state=as_state)
        if as_state:
            self._last = 0, 0  # its message may be one that is replayed next

    async def settle(self) -> None:
        """Wait until everything is acknowledged."""
        while self._unconfirmed:
            await self._wait()

    async def failed(self) -> NoReturn:
        """Raises SinkError when the connection ends, or the broker refuses a message."""
        await self._failed

    def close(self) -> None:
        """End the connection; what is not yet written is not sent any more."""
        client = self._client
        client.on_disconnect = None
        client.disconnect()
        client.loop_write()
        if (sock := client.socket()) is not None:
            self._let_go(sock.fileno())
            sock.close()
        if self._beat is not None:
            self._beat.cancel()
        for future in (self._connected, self._failed):
            if not future.cancel() and not future.cancelled():
                future.exception()  # it was raised elsewhere, or nobody waits for it any more

    # --- messages ---

    def _publish(self, event: StoredEvent, message: Message, *, as_state: bool) -> None:
        qos, retain = min(message.qos, self._max_qos), message.retain and self._may_retain
        properties = marked(message.properties, event.id, as_state=as_state)
        try:
            sent = self._client.publish(self._topic_of(event, message), message.payload, qos, retain, properties)
        except ValueError as error:
            why = f"the message at position {event.id} cannot be published ({error})"
            self._fail(f"{why}: shorten --prefix or --topic-template")
            return
        # Once the connection has ended paho answers nothing: `failed` then interrupts whoever waits for an answer.
        self._last = event.message_id, event.id
        self._unconfirmed.append(_Sent(sent.mid, event.id, len(message.payload), as_state))
        self.payload_bytes_underway += len(message.payload)

    def _extend(self, event: StoredEvent) -> None:
        """Another event of the last message."""
        self._last = event.message_id, event.id
        if self._unconfirmed:
            self._unconfirmed[-1].position = event.id
        else:
            self.confirmed = event.id

    def _answer(self, mid: int, reason: ReasonCode) -> None:
        """Take answers in the order of the messages, so that a refusal finds those before it settled."""
        self._answers[mid] = reason
        waiting = self._unconfirmed
        while waiting and (answer := self._answers.pop(waiting[0].mid, None)) is not None:
            if answer.is_failure:
                refused = f"{self._address} refused the message at position {waiting[0].position} ({answer})"
                self._fail(f"{refused}: look at what its ACL allows")
                return
            sent = waiting.popleft()
            if not sent.as_state:
                self.confirmed = sent.position
            self.payload_bytes_underway -= sent.payload_bytes
        self._progress.set()

    async def _wait(self) -> None:
        self._progress.clear()
        await self._progress.wait()

    def _fail(self, why: str) -> None:
        """The first reason stands."""
        if self._failed.done():
            return
        last = self.confirmed
        go_on = "start again to go on" if self._resumes else f"go on with --after {last}"
        said = f"acknowledged up to position {last}, {go_on}" if last else "start again"
        self._failed.set_exception(SinkError(f"{why}; {said}"))
        if not self._connected.done():
            self._connected.set_exception(SinkError(why))

    # --- the connection ---

    def _attach(self) -> None:
        """Let our loop serve the socket: the callbacks then come on its thread, and nothing needs a lock."""
        client, loop = self._client, self._loop
        sock = client.socket()
        if sock is None:
            self._fail(reasons.closed(self._address))
            return
        if isinstance(sock, socket.socket):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.on_connect = lambda *said: self._on_connect(said[3], said[4])
        client.on_publish = lambda *said: self._answer(said[2], said[3])
        client.on_refused = self._answer
        client.on_disconnect = lambda *said: self._on_disconnect(said[2], said[3])
        client.on_socket_close = lambda *said: self._let_go(said[2].fileno())
        client.on_socket_register_write = lambda *said: loop.add_writer(said[2].fileno(), client.loop_write)
        client.on_socket_unregister_write = lambda *said: self._rest(said[2].fileno())
        loop.add_reader(sock.fileno(), client.loop_read)
        self._keep_alive()

    def _rest(self, fileno: int) -> None:
        self._loop.remove_writer(fileno)

    def _let_go(self, fileno: int) -> None:
        self._loop.remove_reader(fileno)
        self._loop.remove_writer(fileno)

    def _keep_alive(self) -> None:
        self._client.loop_misc()
        self._beat = self._loop.call_later(KEEP_ALIVE_S / 10, self._keep_alive)

    def _on_connect(self, reason: ReasonCode, properties: PahoProperties | None) -> None:
        if reason.is_failure:
            self._fail(reasons.connect_refused(self._address, reason.value))
            return
        self._window = min(WINDOW_MESSAGES, getattr(properties, "ReceiveMaximum", WINDOW_MESSAGES))
        self._max_qos = getattr(properties, "MaximumQoS", 2)
        self._may_retain = bool(getattr(properties, "RetainAvailable", 1))
        self._connected.set_result(None)

    def _on_disconnect(self, flags: paho.DisconnectFlags, reason: ReasonCode) -> None:
        if flags.is_disconnect_packet_from_server:
            self._fail(reasons.disconnected(self._address, self._client_id, reason.value))
        elif reason == "Keep alive timeout":
            self._fail(reasons.silent(self._address, KEEP_ALIVE_S))
        else:
            self._fail(reasons.closed(self._address))


class _Sent(msgspec.Struct, gc=False):
    """A message on its way, and the position that is confirmed once it and all before it are answered."""

    mid: int
    position: int
    payload_bytes: int
    as_state: bool


class _Client(paho.Client):
    """paho's client, which by itself takes a QoS 2 message that the broker refuses for delivered."""

    on_refused: Callable[[int, ReasonCode], None]

    def _handle_pubrec(self) -> MQTTErrorCode:
        packet = self._in_packet["packet"]  # packet id, then a reason code unless it is 0 (MQTT 5.0, section 3.5.2)
        if len(packet) > 2 and packet[2] >= 0x80:
            self.on_refused(int.from_bytes(packet[:2], "big"), ReasonCode(PacketTypes.PUBREC, identifier=packet[2]))
            return MQTTErrorCode.MQTT_ERR_SUCCESS
        return super()._handle_pubrec()


def marked(properties: Properties | None, position: int, *, as_state: bool = False) -> PahoProperties:
    """The properties to publish with: those received that ask for no answer, and the mark of a replay."""
    marked = PahoProperties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    marks = [(REPLAY_MARK, str(position)), *([(STATE_MARK, "true")] if as_state else [])]
    user = [] if properties is None else [pair for pair in properties.user if pair[0] not in (REPLAY_MARK, STATE_MARK)]
    marked.UserProperty = [*user, *marks]
    if properties is None:
        return marked
    if properties.payload_is_text:
        marked.PayloadFormatIndicator = 1
    if properties.expiry_s is not None:
        marked.MessageExpiryInterval = properties.expiry_s
    if properties.content_type is not None:
        marked.ContentType = properties.content_type
    return marked
