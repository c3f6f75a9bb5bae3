"""The fast link: MQTT 5 on the mqtt5 codec. Connects and connects again; acknowledges only what it is told to."""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
import ssl
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec
from mqtt5 import SubAckPacket

from gateway.link import Batch, Connection, Receipt, reasons
from gateway.link.backoff import delay_s
from gateway.link.errors import LinkError
from gateway.link.options import LinkOptions
from gateway.link.state import LinkState
from gateway.link.subscriptions import Subscription
from gateway.link.wire import End, Wire
from storage.event import Message

log = logging.getLogger("amber.link")

FLAPPING_FROM = 3
"""So many connections in a row, each lost before it had settled. If all of them ended without a word, another client
uses our client id: Mosquitto 2.0.11 closes without the SESSION_TAKEN_OVER that MQTT 5.0, section 3.1.4, asks for."""

REFUSED = 128
"""Reason codes from here on mean failure (MQTT 5.0, section 2.4)."""


class CodecLink:
    """A connection to a broker that lasts as long as its `async with`, over any number of losses.

    It never raises because of the broker: `state` tells how it is doing, and the log each change of that.
    """

    def __init__(self, options: LinkOptions) -> None:
        self._options = options
        self._address = options.address
        self._state = LinkState(connected=False, broker=str(self._address), since=_now())
        self._wire: Wire | None = None
        self._announced = 0
        self._task: asyncio.Task[None] | None = None
        self._arrived = asyncio.Event()
        self._taken = asyncio.Event()
        self._holds = False
        self._short_connections = 0
        self._unexplained_ends = 0
        self._greeting = ""
        self._told: list[str] = []

    @property
    def state(self) -> LinkState:
        return self._state

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._stay_connected(), name="link")
        self._task.add_done_callback(lambda _: self._arrived.set())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        if self._wire is not None:
            await self._wire.close()
        if self._state.connected:
            self._become(connected=False, subscribed=False)
            self._tell(logging.INFO, f"closed the connection to {self._address}, which keeps what comes meanwhile")
        if task is not None and not task.cancelled() and error is None:
            task.result()

    async def receive(self) -> Batch:
        """Wait for the next batch: all that has arrived since the last call.

        What had arrived when its connection ended is still handed out: QoS 0 would else be lost, and anything else,
        if the broker has lost the session. If it has not, it sends that again, as it does after a lost acknowledgement.
        Raises LinkError if the link is not open.
        """
        while True:
            if self._task is None or self._task.cancelled():
                raise LinkError("the link is closed: receive within its `async with`")
            if self._task.done():
                self._task.result()
            batch = self.receive_now()
            if batch is not None:
                return batch
            self._arrived.clear()
            await self._arrived.wait()

    def receive_now(self) -> Batch | None:
        """The next batch, if one has arrived already."""
        wire = self._wire
        if wire is None or wire.connection is None:
            return None
        if self._announced < wire.connection.number:
            self._announced = wire.connection.number
            return WireBatch(wire, wire.connection, ())
        if wire.messages:
            self._taken.set()
            if wire.salvaged is not None:
                self._tell(logging.WARNING, reasons.salvaged(self._address, wire.salvaged.topic))
            return WireBatch(wire, wire.connection, wire.take())
        return None

    # --- the task ---

    async def _stay_connected(self) -> None:
        failures = 0
        while True:
            self._holds = False
            end = await self._connect_once()
            failures = 1 if self._holds else failures + 1
            self._lost(end)
            await asyncio.sleep(self._delay_s(failures))
            await self._everything_taken()

    async def _connect_once(self) -> End:
        """One connection, from the first packet on the network to its end."""
        # A connection that was made just when its time was up may have been announced, and yet not counted.
        number = max(self._state.connections, self._announced) + 1
        self._wire = wire = Wire(self._options, number, self._arrived.set)
        try:
            async with asyncio.timeout(self._options.connect_timeout_s):
                await asyncio.get_running_loop().create_connection(
                    lambda: wire, self._address.host, self._address.port, ssl=_tls(self._options)
                )
                await wire.opened()
        except TimeoutError:
            return wire.abort(reasons.not_answered(self._address, self._options.connect_timeout_s))
        except OSError as error:
            return wire.abort(reasons.unreachable(self._address, error))
        if wire.connection is None:
            return await wire.ended()
        self._connected(wire, wire.connection)
        settling = asyncio.get_running_loop().call_later(self._options.settled_after_s, self._settled)
        try:
            async with asyncio.TaskGroup() as tasks:
                subscribing = tasks.create_task(self._subscribe(wire), name="link subscriptions")
                end = await wire.ended()
                subscribing.cancel()
            return end
        finally:
            settling.cancel()

    async def _subscribe(self, wire: Wire) -> None:
        """Subscribe to every filter, and again, with back-off, to each that is refused: its ACL may be mended."""
        wanted = self._options.subscriptions
        for tries in itertools.count(1):
            answers = dict(zip(wanted, await wire.subscribe(wanted), strict=True))
            refused = tuple(one for one, answer in answers.items() if int(answer.reason_codes[0]) >= REFUSED)
            self._subscribed(answers, refused)
            if not refused:
                return
            wanted = refused
            await asyncio.sleep(self._delay_s(tries))

    async def _everything_taken(self) -> None:
        """Wait until what the last connection left is taken: else each new one would add a window to it."""
        while self._wire is not None and self._wire.messages:
            self._taken.clear()
            await self._taken.wait()

    def _delay_s(self, failures: int) -> float:
        first_s, cap_s = self._options.first_backoff_s, self._options.max_backoff_s
        return delay_s(failures, first_s=first_s, cap_s=cap_s, chance=random.random())  # noqa: S311 (no secret)

    # --- changes of state: one line in the log for each ---

    def _connected(self, wire: Wire, connection: Connection) -> None:
        if self._short_connections < FLAPPING_FROM:
            self._told.clear()
            self._become(last_error="")
        self._become(connected=True, connections=connection.number, subscribed=False, refused=())
        session = "goes on with its session" if connection.resumed else "in a new session"
        self._greeting = f"connected to {connection.broker} as {connection.client_id!r}, {session}"
        self._tell(logging.INFO, self._greeting)
        granted_s = wire.connack.session_expiry_interval if wire.connack else None
        if granted_s is not None and granted_s < self._options.session_expiry_s:
            asked_s = self._options.session_expiry_s
            self._tell(logging.WARNING, reasons.session_shortened(self._address, asked_s, granted_s))

    def _settled(self) -> None:
        """The connection has held: whatever was wrong with the ones before is over."""
        self._holds = True
        if self._short_connections >= FLAPPING_FROM:
            self._told.clear()
            self._tell(logging.INFO, self._greeting)
        self._short_connections = self._unexplained_ends = 0
        if not self._state.refused:
            self._become(last_error="")

    def _lost(self, end: End) -> None:
        sentence, takeover = end.sentence, end.takeover
        if self._state.connected and not self._holds:
            self._short_connections += 1
            self._unexplained_ends = self._unexplained_ends + 1 if end.unexplained else 0
            if self._unexplained_ends >= FLAPPING_FROM:
                sentence, takeover = reasons.closed_again_and_again(self._address, self._options.client_id), True
        takeovers = self._state.takeovers + takeover
        self._become(connected=False, subscribed=False, refused=(), last_error=sentence, takeovers=takeovers)
        self._tell(logging.WARNING, f"{sentence}; trying again until it works")

    def _subscribed(self, answers: Mapping[Subscription, SubAckPacket], refused: Sequence[Subscription]) -> None:
        before = self._state.refused
        for (pattern, qos), answer in answers.items():
            code = int(answer.reason_codes[0])
            if code >= REFUSED:
                sentence = reasons.filter_refused(pattern, code, answer.reason_str)
                self._become(last_error=sentence)
                self._tell(logging.ERROR, sentence)
            elif code < qos:
                self._tell(logging.WARNING, reasons.filter_lowered(pattern, qos, code))
            elif pattern in before:
                self._tell(logging.INFO, f"the broker now grants {pattern!r}")
        self._become(subscribed=not refused, refused=tuple(pattern for pattern, _ in refused))
        if not refused:
            self._tell(
                logging.INFO, f"subscribed to {', '.join(pattern for pattern, _ in self._options.subscriptions)}"
            )
        if before and not refused:
            self._become(last_error="")

    def _become(self, **changes: object) -> None:
        if changes.get("connected", self._state.connected) != self._state.connected:
            changes["since"] = _now()
        self._state = msgspec.structs.replace(self._state, **changes)

    def _tell(self, level: int, sentence: str) -> None:
        """Log it, unless it was already said since a connection last held: what repeats must not flood the log."""
        if sentence not in self._told:
            self._told.append(sentence)
            log.log(level, "%s", sentence)


class WireBatch:
    """What arrived together on one wire."""

    __slots__ = ("_wire", "connection", "messages")

    def __init__(self, wire: Wire, connection: Connection, messages: Sequence[Message]) -> None:
        self.connection = connection
        self.messages = messages
        self._wire: Wire | None = wire

    def ack(self, receipts: Sequence[Receipt] = ()) -> int:
        # Only once: the broker may by then use the same packet ids for other messages.
        wire, self._wire = self._wire, None
        return 0 if wire is None else wire.acknowledge(self.messages, receipts)


def _tls(options: LinkOptions) -> ssl.SSLContext | None:
    """Read anew for each connection: certificates are replaced while we run. Raises OSError."""
    if not options.address.tls:
        return None
    for file in (options.ca_file, options.cert_file, options.key_file):
        if file is not None:
            Path(file).open("rb").close()  # ssl's own error would not name it
    context = ssl.create_default_context(cafile=options.ca_file)
    if options.cert_file is not None:
        # An encrypted key would else ask for its password on the terminal.
        context.load_cert_chain(options.cert_file, options.key_file, password="")
    return context


def _now() -> int:
    return time.time_ns() // 1000
