"""Several processes that share one simulation: begun, listened to, ended in good order. Knows nothing of devices.

They are forked, before any loop or thread is there: so each has the same fleet, whatever it was made from.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess
from typing import NoReturn

import msgspec

from devices.counts import Counts, show, sum_up
from devices.errors import DeviceError

REPORT_EVERY_S = 0.2
LONGEST_REPORT = 1 << 20
"""A topic in a complaint may have 64 KB by itself."""


class Report(msgspec.Struct):
    """What a worker says of itself, one JSON line at a time; the last one is `final`, or has an `error`."""

    counts: Counts
    final: bool = False
    error: str | None = None


class Link:
    """A worker's end of the line to who began it."""

    def __init__(self, line: socket.socket) -> None:
        self._line = line

    async def attend(self, counts: Counts, stopping: asyncio.Event) -> None:
        """Report for ever, and set the event when all is to stop."""
        asyncio.get_running_loop().add_reader(self._line, self._hear, stopping)
        while True:
            self.report(Report(counts))
            await asyncio.sleep(REPORT_EVERY_S)

    def report(self, report: Report) -> None:
        try:
            self._line.sendall(msgspec.json.encode(report) + b"\n")
        except OSError:
            _give_up()

    def _hear(self, stopping: asyncio.Event) -> None:
        try:
            heard = self._line.recv(64)
        except OSError:
            heard = b""
        if not heard:
            _give_up()
        stopping.set()


def _give_up() -> NoReturn:
    """Whoever began us is gone, killed perhaps: nobody would ever end us."""
    os._exit(1)


def in_workers(work: Callable[[int, Link], Counts], workers: int, devices: int) -> Counts:
    """Have `work` done in so many processes; what they count in all.

    Should one end by itself, the others are stopped, and `Counts.dead` says so. Raises the DeviceError that one had.
    """
    lines = [socket.socketpair() for _ in range(workers)]
    fork = multiprocessing.get_context("fork")
    processes = [fork.Process(target=_begin, args=(work, number, lines)) for number in range(workers)]
    for process in processes:
        process.start()
    for _, theirs in lines:
        theirs.close()
    total = Counts(devices=devices)
    try:
        reports = asyncio.run(_attend(total, [ours for ours, _ in lines], processes))
    finally:
        for ours, _ in lines:
            ours.close()  # at a second Ctrl-C this is what ends the workers
    errors = [report.error for report in reports if report is not None and report.error is not None]
    if errors:
        raise DeviceError(errors[0])
    return total


def _begin(work: Callable[[int, Link], Counts], number: int, lines: list[tuple[socket.socket, socket.socket]]) -> None:
    """A worker's whole life."""
    for place, (ours, theirs) in enumerate(lines):
        ours.close()  # else no worker would see that the process which began it is gone
        if place != number:
            theirs.close()
    # A terminal's Ctrl-C goes to all: the process that began us hears it too, and tells us once.
    for sign in (signal.SIGINT, signal.SIGTERM):
        signal.signal(sign, signal.SIG_IGN)
    link = Link(lines[number][1])
    try:
        link.report(Report(work(number, link), final=True))
    except DeviceError as error:
        link.report(Report(Counts(devices=0), error=str(error)))
        sys.exit(1)


async def _attend(total: Counts, lines: list[socket.socket], processes: Sequence[BaseProcess]) -> list[Report | None]:
    from devices.simulation import stop_on_signals

    streams = [await asyncio.open_connection(sock=line, limit=LONGEST_REPORT) for line in lines]
    reports: list[Report | None] = [None] * len(lines)

    def stop() -> None:
        for _, writer in streams:
            if not writer.is_closing():
                writer.write(b"stop\n")

    async def listen(number: int, reader: asyncio.StreamReader) -> None:
        last: Report | None = None
        try:
            while line := await reader.readline():
                last = reports[number] = msgspec.json.decode(line, type=Report)
                sum_up(total, [report.counts for report in reports if report is not None])
        except OSError:
            pass  # it was killed: its last report stands
        if last is None or not (last.final or last.error):
            await asyncio.to_thread(processes[number].join)
            total.dead = f"worker {number + 1} ended by itself ({_how(processes[number].exitcode)})"
        if last is None or not last.final:
            stop()

    stop_on_signals(stop)
    showing = asyncio.create_task(show(total, sys.stderr), name="show the counts")
    try:
        async with asyncio.TaskGroup() as group:
            for number, (reader, _) in enumerate(streams):
                group.create_task(listen(number, reader), name=f"worker {number + 1}")
    finally:
        showing.cancel()
        for _, writer in streams:
            writer.close()
    await asyncio.wait({showing})
    for process in processes:
        await asyncio.to_thread(process.join)
    return reports


def _how(code: int | None) -> str:
    return f"signal {-code}" if code is not None and code < 0 else f"status {code}"
