"""The demo: a private broker, devices and the gateway as real processes, a live screen, a replay, and the count.

Stands above all rooms and changes nothing in any of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from devices.broker import BrokerError, Mosquitto
from devices.ledger import accounts
from gateway.demo_screen import Screen
from gateway.proving import folder as folders
from gateway.proving.processes import Child
from storage.errors import AmberError
from storage.filters import Filters
from storage.history import Reader
from storage.replay import replay

START_WITHIN_S, SETTLE_WITHIN_S = 20.0, 15.0
REPLAYED_S, REPLAY_SPEED = 10.0, 10.0
PARTS = (*folders.STAGE, "fleet.toml", "plan.json", "marks.jsonl")
"""What a demo leaves in its folder, with chaos or without, and all that the next one deletes there."""

TELEMETRY = Filters(topics=("devices/+/telemetry",))


class Count(msgspec.Struct, frozen=True):
    """What the devices wrote into their ledger, held against what the store holds."""

    published: int
    acknowledged: int
    stored: int
    lost: int
    repeated: int
    rejected: int

    def __str__(self) -> str:
        return " · ".join(f"{name} {value}" for name, value in msgspec.structs.asdict(self).items())


class Demo:
    """One run of the demo in its folder."""

    def __init__(self, folder: Path, *, seconds: float, devices: int, rate: float) -> None:
        self._folder = folder
        self._seconds, self._devices, self._rate = seconds, devices, rate
        self._store = folder / "amber.db"
        self._ledger = folder / "ledger.jsonl"

    def run(self) -> int:
        """The exit status: 1 if an event was lost or repeated."""
        make_ready(self._folder)
        print(f"Starting a broker, the gateway and {self._devices} devices for {self._seconds:g} s …", flush=True)
        try:
            with Mosquitto(self._folder / "broker") as broker, self._gateway(broker.url) as gateway:
                with self._simulation(broker.url) as simulation:
                    self._watch(gateway, simulation)
                self._settle()
                self._replay()
        except BrokerError as error:
            raise AmberError(str(error)) from error
        except KeyboardInterrupt:
            print("interrupted: everything is stopped, and the store is kept", file=sys.stderr)
        count = self._count()
        store = self._store
        print(f"\nThe store is {store}. Ask it:")
        print(f"  ./run events -n 5 --store {store}")
        print(f"  ./run replay --speed 10 --device thermo-0001 --store {store}")
        print(f"  ./run status --store {store}")
        print(count)
        return 1 if count.lost or count.repeated else 0

    @contextlib.contextmanager
    def _gateway(self, url: str) -> Iterator[Child]:
        with Child("the gateway", self._folder / "gateway.log") as gateway:
            gateway.start(
                ["-m", "gateway", "run", "--broker", url, "--store", str(self._store), "--config", os.devnull]
            )
            gateway.wait_until(lambda: "subscribed" in gateway.said(), START_WITHIN_S)
            yield gateway

    @contextlib.contextmanager
    def _simulation(self, url: str) -> Iterator[Child]:
        options = {
            "--broker": url,
            "--devices": self._devices,
            "--rate": self._rate,
            "--duration": self._seconds,
            "--ledger": self._ledger,
        }
        with Child("the simulation", self._folder / "devices.log") as simulation:
            simulation.start(["-m", "devices", "simulate", *(str(part) for pair in options.items() for part in pair)])
            yield simulation

    def _watch(self, gateway: Child, simulation: Child) -> None:
        """The live screen, until the devices are done."""
        with Reader(self._store) as reader, Screen(self._seconds) as screen:
            while simulation.status is None and gateway.status is None:
                screen.show(reader)
                time.sleep(0.25)
            screen.show(reader)
        if gateway.status is not None:
            raise AmberError(f"the gateway ended by itself: see {gateway.log}")
        if simulation.status:
            raise AmberError(f"the devices failed: see {simulation.log}")

    def _settle(self) -> None:
        """Wait until the store has what was acknowledged; if it never comes, the count will say so."""
        patience = time.monotonic() + SETTLE_WITHIN_S
        while self._count().lost and time.monotonic() < patience:
            time.sleep(0.2)

    def _replay(self) -> None:
        """The last seconds once more, at ten times the pace."""
        with Reader(self._store) as reader:
            newest = next(iter(reader.pages(TELEMETRY, newest_first=True, limit=1)), [])
        if not newest:
            return
        since = newest[0].received_at - round(REPLAYED_S * 1e6)
        filters = msgspec.structs.replace(TELEMETRY, since=since, clock="received")
        print(f"\nThe last {REPLAYED_S:.0f} s once more, at {REPLAY_SPEED:.0f} times the pace:")
        asyncio.run(_play(self._store, filters))

    def _count(self) -> Count:
        sent, acked = set(), set()
        if self._ledger.exists():
            for (device, _), account in accounts(self._ledger).items():
                sent |= {(device, seq) for seq in account.sent}
                acked |= {(device, seq) for seq in account.acked}
        stored = 0
        distinct = set()
        with Reader(self._store) as reader:
            for page in reader.pages(TELEMETRY):
                stored += len(page)
                distinct |= {(event.device, event.seq) for event in page}
            rejected = reader.status().rejections
        return Count(len(sent), len(acked), stored, len(acked - distinct), stored - len(distinct), rejected)


def make_ready(folder: Path) -> None:
    """A folder without what an earlier demo left. Raises AmberError where it is in use, or anyone else's."""
    folders.make_ready(folder, "demo", PARTS)


async def _play(store: Path, filters: Filters) -> None:
    started, events, shown_at = time.monotonic(), 0, 0.0
    async for batch in replay(store, filters, speed=REPLAY_SPEED, clock="received"):
        events += len(batch)
        if time.monotonic() - shown_at > 0.1:
            shown_at = time.monotonic()
            event = batch[-1]
            print(f"  {event.device:<14} {event.readings[:80]}")
    print(f"  {events} events in {time.monotonic() - started:.1f} s")
