"""A whole simulation: many devices on one event loop, or shared out to several processes, and one count of it all."""

from __future__ import annotations

import asyncio
import gc
import resource
import signal
import ssl
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import msgspec

from devices.address import Address
from devices.clock import Clock, happens
from devices.connection import Client, Door
from devices.counts import Counts, show
from devices.device import GRACE_S, World, live, stand_in
from devices.errors import DeviceError
from devices.fleet import Device, Fleet, devices
from devices.ledger import Ledger
from devices.outbox_file import LIMIT, Claim, Left, OutboxFile
from devices.standing_in import in_place_of
from devices.workers import Link, in_workers

CONNECTING_AT_A_TIME = 32
"""More would overrun the queue of a broker's listening socket, and gain nothing."""

FILES_BESIDE_CONNECTIONS = 64

COLLECT_AFTER = 100_000
"""New objects before Python looks for garbage: with 3 000 devices, at its usual 700, that was a quarter of the CPU."""


class Run(msgspec.Struct, frozen=True):
    """How a fleet is to be played: where, by which client, and what is kept of it."""

    address: Address
    ca_file: Path | None = None
    ledger: Path | None = None
    outbox: Path | None = None
    outbox_limit: int = LIMIT
    client: Client = "codec"
    connect_within_s: float = 10.0
    grace_s: float = GRACE_S
    workers: int = 1


class Part(msgspec.Struct, frozen=True):
    """The devices of one process: each `step`-th of the fleet, from `number` on."""

    number: int = 0
    step: int = 1

    def of(self, fleet: Fleet) -> Iterator[Device]:
        return (device for place, device in enumerate(devices(fleet)) if place % self.step == self.number)


class Play(msgspec.Struct, frozen=True):
    """A fleet, and all that is at hand to play it."""

    fleet: Fleet
    run: Run
    tls: ssl.SSLContext | None
    ledger: Ledger | None
    claim: Claim | None


def simulate(fleet: Fleet, run: Run) -> Counts:
    """Run until the fleet's time is over or a signal comes.

    Raises DeviceError if no device connects within the time given.
    """
    check(fleet, run)
    workers = min(run.workers, max(1, fleet.devices))
    allow_open_files(-(-fleet.devices // workers) + FILES_BESIDE_CONNECTIONS)
    tls = trust(run.ca_file) if run.address.tls else None
    with (
        Claim(run.outbox) if run.outbox else nullcontext() as claim,
        Ledger(run.ledger) if run.ledger else nullcontext() as ledger,
    ):
        play = Play(fleet, run, tls, ledger, claim)
        if workers == 1:
            return _played(play, Part(), _on_signals)

        def work(number: int, link: Link) -> Counts:
            return _played(play, Part(number, workers), link.attend)

        return in_workers(work, workers, fleet.devices)


def check(fleet: Fleet, run: Run) -> None:
    """Refuse what a client cannot do, and what would spoil a file."""
    if run.ledger and run.outbox and run.ledger.resolve() == run.outbox.resolve():
        raise DeviceError(f"{run.outbox} cannot be the ledger and the outbox: give each a file of its own")
    if run.client == "aiomqtt" and any(group.session == "persistent" for group in fleet.groups):
        raise DeviceError("--client aiomqtt has clean sessions only: leave it out, or have no persistent session")


def allow_open_files(needed: int) -> None:
    """Raise the soft limit on open files as far as it must and may go: each connection is one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < needed:
        if hard != resource.RLIM_INFINITY and hard < needed:
            raise DeviceError(
                f"this needs {needed} open files, and the system allows {hard}: "
                "simulate fewer devices, share them out with --workers, or raise the hard limit (ulimit -Hn)"
            )
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def trust(ca_file: Path | None) -> ssl.SSLContext:
    """Whose certificates to believe: the system's authorities, or the one in the file."""
    try:
        return ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError) as error:
        raise DeviceError(f"cannot read the CA file {ca_file}: {error}") from error


Attend = Callable[[Counts, asyncio.Event], Awaitable[None]]
"""Shows the counts for ever, and sets the event when all is to stop."""


def _played(play: Play, part: Part, attend: Attend) -> Counts:
    """One process's part of it."""
    gc.set_threshold(COLLECT_AFTER, 20, 50)
    with _opened(play, part) as outbox:
        left = outbox.left(mine=_mine(part, play.fleet)) if outbox else []
        try:
            counts = asyncio.run(_simulate(play, part, outbox, left, attend))
        except ExceptionGroup as errors:
            raise _told(errors) from errors
        finally:
            if play.ledger is not None:
                play.ledger.flush()  # a worker never comes to where it is closed
    if outbox is not None and outbox.lost:
        counts.left -= outbox.lost
        counts.failed += outbox.lost
        counts.failure = outbox.trouble
    return counts


def _opened(play: Play, part: Part) -> AbstractContextManager[OutboxFile | None]:
    if play.claim is None:
        return nullcontext()
    limit = play.run.outbox_limit
    return OutboxFile(
        play.claim,
        limit=max(1, limit // part.step),
        share=limit // max(1, play.fleet.devices),
        worker=part.number,
        step=part.step,
    )


def _mine(part: Part, fleet: Fleet) -> Callable[[str], bool]:
    """Whose messages this process sends; those of devices that the fleet has no more are the first one's."""
    own = {device.name for device in part.of(fleet)}
    if part.number:
        return own.__contains__
    others = {device.name for device in devices(fleet)} - own
    return lambda name: name not in others


async def _simulate(play: Play, part: Part, outbox: OutboxFile | None, left: Sequence[Left], attend: Attend) -> Counts:
    fleet, run, ledger = play.fleet, play.run, play.ledger
    own = list(part.of(fleet))
    at_a_time = max(1, CONNECTING_AT_A_TIME // part.step)
    if run.client == "aiomqtt":  # which connects in threads
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(at_a_time))
    world = World(
        fleet=fleet,
        clock=Clock.starting_now(fleet.start_us),
        door=Door(run.address, asyncio.Semaphore(at_a_time), play.tls, run.client, {}),
        counts=Counts(devices=len(own)),
        ledger=ledger,
        stopping=asyncio.Event(),
        reached=asyncio.Event(),
        outbox=outbox,
        grace_s=run.grace_s,
    )
    async with asyncio.TaskGroup() as group:
        beside = [
            group.create_task(_expect_connection(world, run.connect_within_s), name="expect a connection"),
            group.create_task(_failing(world.post.failure), name="watch the post"),
        ]
        attending = group.create_task(_attending(attend, world), name="attend")
        if ledger is not None:
            beside.append(group.create_task(ledger.keep(), name="keep the ledger"))
        if outbox is not None:
            beside.append(group.create_task(_failing(outbox.start()), name="watch the outbox"))
        async with asyncio.TaskGroup() as lives:
            _begin_lives(lives, own, left, world)
        for task in (*beside, attending):
            task.cancel()
    if not (world.reached.is_set() or world.stopping.is_set()):
        raise _unreachable(world)
    return world.counts


def _begin_lives(lives: asyncio.TaskGroup, own: Sequence[Device], left: Sequence[Left], world: World) -> None:
    found = {one.device: one for one in left}
    for device in own:
        mine = found.pop(device.name, None)
        lives.create_task(live(device, world, mine.held if mine else ()), name=device.name)
    for one in found.values():
        device, dialect = in_place_of(one)
        lives.create_task(stand_in(device, dialect, world, one.held), name=f"in place of {one.device}")


async def _attending(attend: Attend, world: World) -> None:
    await attend(world.counts, world.stopping)


async def _on_signals(counts: Counts, stopping: asyncio.Event) -> None:
    """Show the counts, and let signals end it."""
    stop_on_signals(stopping.set)
    await show(counts, sys.stderr)


def stop_on_signals(stop: Callable[[], None]) -> None:
    """The first Ctrl-C or SIGTERM asks for an orderly end; the next acts as it always does, and ends it at once."""
    loop = asyncio.get_running_loop()

    def once() -> None:
        stop()
        for sign in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(sign)

    for sign in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(sign, once)


async def _failing(failure: Awaitable[None]) -> None:
    """Raise what comes, if it comes."""
    await failure


async def _expect_connection(world: World, within_s: float) -> None:
    """One device connected shows that the broker is there; the others then try for as long as it takes."""
    if not await happens(world.reached, before_s=world.clock.loop_start_s + within_s) and not world.stopping.is_set():
        raise _unreachable(world)


def _unreachable(world: World) -> DeviceError:
    elapsed_s = asyncio.get_running_loop().time() - world.clock.loop_start_s
    reason = world.counts.trouble or "no answer"
    return DeviceError(f"no device could connect to {world.door.address} within {elapsed_s:.0f} s: {reason}")


def _told(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error that is meant for a person, if there is one in the group."""
    for error in errors.exceptions:
        told = _told(error) if isinstance(error, BaseExceptionGroup) else error
        if isinstance(told, DeviceError):
            return told
    return errors
