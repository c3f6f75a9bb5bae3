"""A load from its first connection to its last answer, on one event loop. Says nothing itself but the live line."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import re
import secrets
import selectors
import signal
import ssl
import sys
import time
from collections.abc import Callable
from functools import partial

from devices.address import Address
from devices.clock import iso, wall_us
from devices.errors import DeviceError
from devices.load.connection import LoadConnection, Refused
from devices.load.live import show
from devices.load.packets import MOST
from devices.load.plan import SECOND_US, Plan
from devices.load.tally import Tally

CONNECT_WITHIN_S = 10.0
GRACE_S = 10.0
"""How long the answers to the last messages may take, and then the goodbyes."""

CONNECTING_AT_A_TIME = 32
PING_EVERY_S = 20.0
RECONNECT_AFTER_S = 0.5

GRAIN_US = 1_000
GRAIN_FROM = 4_000
"""From this rate on, what is due within a millisecond leaves together: to wake up and write costs as much as several
messages do."""

SELECTED_CONNECTIONS = 900
"""`select` takes files up to number 1023 and wakes in time; asyncio rounds epoll's time up to whole milliseconds."""


def load(plan: Plan, address: Address, tls: ssl.SSLContext | None) -> Tally:
    """Run a load until it is over or a signal comes. Raises DeviceError if it cannot begin."""
    with asyncio.Runner(loop_factory=partial(_loop, plan.connections)) as runner:
        return runner.run(_load(plan, address, tls))


def _loop(connections: int) -> asyncio.AbstractEventLoop:
    few = connections <= SELECTED_CONNECTIONS
    return asyncio.SelectorEventLoop(selectors.SelectSelector() if few else selectors.DefaultSelector())


async def _load(plan: Plan, address: Address, tls: ssl.SSLContext | None) -> Tally:
    running = Load(plan, address, tls)
    _on_signals(running.stop)
    await running.connect()
    async with asyncio.TaskGroup() as group:
        beside = [
            group.create_task(running.stay_connected(number), name=f"connection {number}")
            for number in range(plan.connections)
        ]
        beside += [
            group.create_task(running.ping(), name="ping"),
            group.create_task(show(running.tally, plan, sys.stderr), name="show the counts"),
        ]
        await running.send()
        for task in beside:
            task.cancel()
    await running.close()
    return running.tally


def _on_signals(end: Callable[[], None]) -> None:
    """The first Ctrl-C or SIGTERM ends the load in good order; the next acts as it always does, and at once."""
    loop = asyncio.get_running_loop()

    def stop() -> None:
        end()
        for sign in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(sign)

    for sign in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(sign, stop)


class Load:
    """The connections of a load, and the clock that drives them."""

    def __init__(self, plan: Plan, address: Address, tls: ssl.SSLContext | None) -> None:
        self.tally = Tally()
        self._plan = plan
        self._address = address
        self._tls = tls
        self._loop = asyncio.get_running_loop()
        self._started_s = 0.0
        self._due = 0
        self._sending = False
        self._next: asyncio.Handle | None = None
        self._stopped = asyncio.Event()
        self._ending = False
        self._settled = asyncio.Event()
        self._settled_to = 0
        run = secrets.token_hex(4)  # never the same: what bears the same names would be taken for a copy
        self._connections = [
            LoadConnection(plan, number, run=run, address=address, tally=self.tally, now_us=self._now_us)
            for number in range(plan.connections)
        ]

    def stop(self) -> None:
        """Send no more; answers are still waited for, unless they were already."""
        self._stopped.set()
        if self._ending:
            self._settled.set()

    async def connect(self) -> None:
        """Open all connections. Raises DeviceError, unless it is stopped first."""
        threshold = asyncio.Semaphore(CONNECTING_AT_A_TIME)

        async def enter(connection: LoadConnection) -> None:
            async with threshold:
                await self._open(connection)

        async def enter_all() -> None:
            await asyncio.gather(*map(enter, self._connections))

        entering, stopped = asyncio.create_task(enter_all()), asyncio.create_task(self._until_stopped())
        try:
            async with asyncio.timeout(CONNECT_WITHIN_S + len(self._connections) / 100):
                await asyncio.wait([entering, stopped], return_when=asyncio.FIRST_COMPLETED)
            if entering.done():
                entering.result()
        except TimeoutError:
            raise DeviceError(f"{self._address} does not answer: check its address, and the network") from None
        except (OSError, Refused) as error:
            raise DeviceError(f"cannot connect to {self._address}: {_words(error)}") from error
        finally:
            entering.cancel()
            stopped.cancel()
            await asyncio.gather(entering, stopped, return_exceptions=True)

    async def send(self) -> None:
        """Send until the load is over, then wait for what is late and for the answers, in bounded time.

        What was due and could not be sent yet is sent then: left out, it would make the durations look better.
        """
        gc.collect()
        gc.freeze()  # what lives now lives to the end, and need not be looked at again
        for connection in self._connections:
            connection.changed = partial(self._changed, connection)
        processor_s, self._started_s = time.process_time(), self._loop.time()
        self._sending = True
        self._tick()
        await self._until_over()
        self._end()
        taken_s = self._loop.time() - self._started_s
        self.tally.span_s = min(taken_s, self._plan.duration_s or taken_s) if self._plan.rate else taken_s
        self.tally.processor_s = time.process_time() - processor_s
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GRACE_S):
                await self._settled.wait()
        for connection in self._connections:
            connection.give_up()
            if self._plan.rate is not None:
                self.tally.unsent += max(0, self._plan.due_of(connection.number, self._due) - connection.sent)

    async def stay_connected(self, number: int) -> None:
        """Connect again whenever a connection is lost; what was due meanwhile is sent then."""
        connection = self._connections[number]
        while True:
            await asyncio.shield(connection.gone)  # which `close` waits for when this is cancelled
            self.tally.connected -= 1
            while True:
                await asyncio.sleep(RECONNECT_AFTER_S)
                connection.again()
                try:
                    async with asyncio.timeout(CONNECT_WITHIN_S):
                        await self._open(connection)
                except (OSError, Refused) as error:  # TimeoutError is an OSError
                    self.tally.trouble = _words(error)
                    connection.abort()
                    continue
                self.tally.reconnects += 1
                break
            self._changed(connection)

    async def ping(self) -> None:
        """Keep idle connections alive, for ever."""
        while True:
            await asyncio.sleep(PING_EVERY_S)
            for connection in self._connections:
                connection.ping()

    async def close(self) -> None:
        """Leave in good order, in bounded time: the broker closes when it has read all."""
        for connection in self._connections:
            connection.close()
        open_ones = [connection.gone for connection in self._connections if connection.is_open]
        if open_ones:
            await asyncio.wait(open_ones, timeout=GRACE_S)
        self.tally.taken_s = self._loop.time() - self._started_s
        for connection in self._connections:
            self.tally.untaken += connection.is_open
            connection.abort()

    async def _open(self, connection: LoadConnection) -> None:
        address = self._address
        await self._loop.create_connection(lambda: connection, address.host, address.port, ssl=self._tls)
        await connection.ready
        self.tally.connected += 1

    async def _until_stopped(self) -> None:
        await self._stopped.wait()

    async def _until_over(self) -> None:
        duration_s = self._plan.duration_s
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(None if duration_s is None else self._started_s + duration_s):
                await self._stopped.wait()

    def _now_us(self) -> int:
        return int((self._loop.time() - self._started_s) * SECOND_US)

    # --- the clock ---

    def _tick(self) -> None:
        """Give every connection what has become due since the last tick, and wake again when more is."""
        now_us, before, plan = self._now_us(), self._due, self._plan
        if plan.rate is None:
            self._fill()
            return
        self._due, time_text = plan.due_in_all(now_us), iso(wall_us()).encode()
        if self._due - before >= plan.connections:
            for number, connection in enumerate(self._connections):
                connection.send(plan.due_of(number, self._due), time_text)
        else:
            for message in range(before, self._due):
                number = message % plan.connections
                self._connections[number].send(plan.due_of(number, self._due), time_text)
        if self._due == plan.planned:
            return
        next_us = max(self._due * SECOND_US / plan.rate, now_us + (GRAIN_US if plan.rate >= GRAIN_FROM else 0))
        self._next = self._loop.call_at(self._started_s + next_us / SECOND_US, self._tick)

    def _end(self) -> None:
        """From now on nothing more becomes due; after a signal, nothing more is sent either."""
        if self._next is not None:
            self._next.cancel()
        if self._plan.rate is None or self._stopped.is_set():
            self._sending = False
        else:
            self._tick()
        self._ending = True
        self._note_settled()

    def _fill(self) -> None:
        """Without a rate: each connection in turn, as long as any of them has room."""
        time_text, self._next, room = iso(wall_us()).encode(), None, False
        for connection in self._connections:
            if connection.has_room:
                connection.send(connection.sent + MOST, time_text)
                room = room or connection.has_room
        if room:
            self._next = self._loop.call_soon(self._tick)

    def _changed(self, connection: LoadConnection) -> None:
        """Answers came, or there is room to write again."""
        if not self._sending:
            pass
        elif self._plan.rate is None:
            self._next = self._next or self._loop.call_soon(self._tick)
        else:
            due = self._plan.due_of(connection.number, self._due)
            if due > connection.sent:
                connection.send(due, iso(wall_us()).encode())
        if self._ending:
            self._note_settled()

    def _note_settled(self) -> None:
        """What is settled stays so: each connection is looked at until it is, and then no more."""
        for connection in self._connections[self._settled_to :]:
            if connection.is_open and connection.outstanding:
                return
            if self._sending and connection.sent < self._plan.due_of(connection.number, self._due):
                return
            self._settled_to += 1
        self._settled.set()


def _words(error: Exception) -> str:
    """In words, without "[Errno 111]" or "(_ssl.c:1006)"."""
    words = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return re.sub(r"^\[[^]]*\] | \(_ssl.*\)$", "", words) or "no answer in time"
