"""Carries messages from outboxes to connections, and answers and receipts back. Never waits, and opens nothing."""

from __future__ import annotations

import asyncio
from functools import partial
from random import Random
from typing import TYPE_CHECKING

from devices.connection import Connection
from devices.outbox import Held, Outbox

if TYPE_CHECKING:
    from devices.device import World
    from devices.fleet import Device

FIRST_REMINDER_S = 5.0
LONGEST_REMINDER_S = 60.0
"""A message that gets no receipt is sent again after the first time, then after twice as long, up to the longest."""

_LOOK_EVERY_S = 0.5


class Post:
    """What leaves in one turn of the event loop leaves together: first it is in the ledger, then on the network.

    `failure` gets the error if that can go on no longer.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.failure: asyncio.Future[None] = self._loop.create_future()
        self._ready: dict[Courier, None] = {}
        self._reminded: set[Courier] = set()
        self._timer: asyncio.TimerHandle | None = None

    def ready(self, courier: Courier) -> None:
        """A courier may have something to carry."""
        if not self._ready:
            self._loop.call_soon(self._round)
        self._ready[courier] = None

    def remind(self, courier: Courier) -> None:
        """Have a courier look now and then for messages whose receipt is overdue."""
        self._reminded.add(courier)
        if self._timer is None:
            self._timer = self._loop.call_later(_LOOK_EVERY_S, self._look)

    def dismiss(self, courier: Courier) -> None:
        """Its connection has ended, or is about to: answers may still come, and nothing more leaves."""
        courier.dismissed = True
        self._ready.pop(courier, None)
        self._reminded.discard(courier)

    def _round(self) -> None:
        couriers, self._ready = self._ready, {}
        try:
            loads = [(courier, load) for courier in couriers if (load := courier.load())]
            if loads and (ledger := loads[0][0].world.ledger) is not None:
                # What is sent and not in the ledger could not be accounted for after a kill -9.
                ledger.flush()
        except Exception as error:  # noqa: BLE001  (it rises where `failure` is awaited)
            if not self.failure.done():
                self.failure.set_exception(error)
            return
        for courier, load in loads:
            courier.deliver(load)

    def _look(self) -> None:
        now_s = self._loop.time()
        for courier in self._reminded:
            if courier.outbox.overdue(now_s):
                self.ready(courier)
        self._timer = self._loop.call_later(_LOOK_EVERY_S, self._look) if self._reminded else None


class Courier:
    """Between the outbox of a device and one connection, for as long as that lasts."""

    def __init__(self, device: Device, outbox: Outbox, world: World, connection: Connection) -> None:
        self.outbox = outbox
        self.world = world
        self.dismissed = False
        self._device = device
        self._qos = device.group.qos
        self._receipts = device.group.receipts
        self._connection = connection

    def load(self) -> list[Held]:
        """Take what may be sent now, and note it in the ledger."""
        taken: list[Held] = []
        if self.dismissed or not self._connection.writable or self._connection.ended is not None:
            return taken
        counts, ledger = self.world.counts, self.world.ledger
        while (held := self.outbox.take()) is not None:
            taken.append(held)
            if held.sent:
                counts.repeated += 1
            else:
                held.sent = True
                counts.published += 1
            if ledger is not None:
                ledger.sent(self._device.name, held.message, self._qos)
        return taken

    def deliver(self, load: list[Held]) -> None:
        """Hand it to the connection."""
        for held in load:
            correlation = name(held) if self._receipts else None
            self._connection.publish(held.message.publication, self._qos, partial(self._answered, held), correlation)
        self._connection.flush()

    def receipted(self, correlation: bytes, payload: bytes) -> None:  # noqa: ARG002  (a rejection is stored too)
        """The gateway has it, as events or as a rejection."""
        held = self.outbox.find(_key(correlation))
        if held is None:
            return
        self.world.counts.receipted += 1
        if self.world.ledger is not None:
            self.world.ledger.answered(self._device.name, held.message, "receipted")
        self.outbox.settle(held)
        self.world.post.ready(self)

    def _answered(self, held: Held, refusal: str | None) -> None:
        """The broker's word, which may come after the gateway's; at QoS 0 the socket's."""
        if refusal is not None:
            if self.outbox.settle(held):
                self.world.counts.failed += 1
                self.world.counts.failure = self.world.counts.trouble = (
                    f"{held.message.publication.topic} refused: {refusal}"
                )
        else:
            self._note_answer(held)
            if not self._receipts:
                self.outbox.settle(held)
            elif not held.settled:
                held.remind_at_s = asyncio.get_running_loop().time() + reminder_s(held.reminders)
                held.reminders += 1
        self.world.post.ready(self)

    def _note_answer(self, held: Held) -> None:
        if held.acked:
            return
        held.acked = True
        if self._qos == 0:
            self.world.counts.unanswerable += 1  # written to the socket, and no more is ever known
            return
        self.world.counts.acknowledged += 1
        if self.world.ledger is not None:
            self.world.ledger.answered(self._device.name, held.message, "acked")


def reminder_s(reminders: int) -> float:
    """How long to wait for a receipt after so many reminders."""
    return min(LONGEST_REMINDER_S, FIRST_REMINDER_S * 2.0 ** min(reminders, 10)) * _CHANCE.uniform(0.75, 1)


def name(held: Held) -> bytes:
    """The Correlation Data of a message: boot/seq/part/copy."""
    message = held.message
    return f"{message.boot}/{message.seq}/{message.part}/{message.copy}".encode()


def _key(correlation: bytes) -> tuple[str, int, int, int]:
    """The reverse; of what is no name of ours, the name of no message."""
    try:
        boot, seq, part, copy = correlation.decode().rsplit("/", 3)
        return boot, int(seq), int(part), int(copy)
    except ValueError:
        return "", -1, -1, -1


_CHANCE = Random()  # when to ask again is nothing that a seed should repeat
