"""A whole simulation in one process: many devices, one event loop, one count of it all."""

from __future__ import annotations

import asyncio
import resource
import signal
import ssl
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

from devices.address import Address
from devices.clock import Clock, happens
from devices.connection import Door
from devices.counts import Counts, show
from devices.device import World, live
from devices.errors import DeviceError
from devices.fleet import Fleet, devices
from devices.ledger import Ledger

CONNECTING_AT_A_TIME = 32
"""More would overrun the queue of a broker's listening socket, and gain nothing."""

FILES_BESIDE_CONNECTIONS = 64


def simulate(
    fleet: Fleet, address: Address, *, ca_file: Path | None, ledger: Path | None, connect_within_s: float
) -> Counts:
    """Run until the fleet's time is over or a signal comes.

    Raises DeviceError if no device connects within the time given.
    """
    allow_open_files(fleet.devices + FILES_BESIDE_CONNECTIONS)
    tls = trust(ca_file) if address.tls else None
    with Ledger(ledger) if ledger else nullcontext() as kept:
        try:
            return asyncio.run(_simulate(fleet, address, tls, kept, connect_within_s))
        except ExceptionGroup as errors:
            raise _told(errors) from errors


def allow_open_files(needed: int) -> None:
    """Raise the soft limit on open files as far as it must and may go: each connection is one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < needed:
        if hard != resource.RLIM_INFINITY and hard < needed:
            raise DeviceError(
                f"this needs {needed} open files, and the system allows {hard}: "
                "simulate fewer devices, or raise the hard limit (ulimit -Hn)"
            )
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def trust(ca_file: Path | None) -> ssl.SSLContext:
    """Whose certificates to believe: the system's authorities, or the one in the file."""
    try:
        return ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError) as error:
        raise DeviceError(f"cannot read the CA file {ca_file}: {error}") from error


async def _simulate(
    fleet: Fleet, address: Address, tls: ssl.SSLContext | None, ledger: Ledger | None, connect_within_s: float
) -> Counts:
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(CONNECTING_AT_A_TIME))  # aiomqtt connects in threads
    world = World(
        fleet=fleet,
        clock=Clock.starting_now(fleet.start_us),
        door=Door(address, asyncio.Semaphore(CONNECTING_AT_A_TIME), tls),
        counts=Counts(devices=fleet.devices),
        ledger=ledger,
        stopping=asyncio.Event(),
        reached=asyncio.Event(),
    )
    _stop_on_signals(world.stopping)
    async with asyncio.TaskGroup() as group:
        beside = [
            group.create_task(_expect_connection(world, connect_within_s), name="expect a connection"),
            group.create_task(show(world.counts, sys.stderr), name="show the counts"),
        ]
        if ledger is not None:
            beside.append(group.create_task(ledger.keep(), name="keep the ledger"))
        async with asyncio.TaskGroup() as lives:
            for device in devices(fleet):
                lives.create_task(live(device, world), name=device.name)
        for task in beside:
            task.cancel()
    if not (world.reached.is_set() or world.stopping.is_set()):
        raise _unreachable(world)
    return world.counts


def _stop_on_signals(stopping: asyncio.Event) -> None:
    """The first Ctrl-C or SIGTERM asks for an orderly end; the next acts as it always does, and ends it at once."""
    loop = asyncio.get_running_loop()

    def stop() -> None:
        stopping.set()
        for sign in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(sign)

    for sign in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(sign, stop)


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
