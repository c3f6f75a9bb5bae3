"""Everything that takes part, as real processes: a broker, a bad network, the gateway, devices. Judges nothing."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

import msgspec

from devices.broker import BrokerError, Mosquitto
from devices.clock import SECOND_US, iso
from devices.proxy import Proxy
from gateway.proving.disk import Disk
from gateway.proving.plan import Disturbance
from gateway.proving.processes import Child
from storage.errors import AmberError

START_WITHIN_S = 30.0
LAST_GRACE_S = 40.0
"""How long devices may take to end after their time: for the last answers and their farewells."""

SLOW_BYTES_PER_S = 30_000.0

SETTINGS = {
    "AMBER_LINK__CLIENT_ID": "amber-on-trial",
    "AMBER_LINK__KEEP_ALIVE_S": "5",  # so that a link that is dead in silence is found while the trial lasts
}

ENDLESS_PATIENCE = "1d"
"""Devices are not to give up because the broker is away in the moment in which they start."""


class Crowd(msgspec.Struct, frozen=True):
    """Which devices there are, and what they are told.

    `start_us` is what their clocks show at the start of the run; `outbox`: whether what they hold outlives them.
    """

    fleet: Path
    seed: int
    start_us: int
    seconds: float
    outbox: bool


class Stage:
    """The processes, with all that they write in `folder`. Whatever it still runs ends with the block."""

    def __init__(self, folder: Path, crowd: Crowd, *, full_disk: bool = False) -> None:
        self._crowd = crowd
        self._closing = contextlib.ExitStack()
        self._disk = Disk(folder / "disk") if full_disk else None
        self.store = (folder / "disk" if full_disk else folder) / "amber.db"
        self.ledger = folder / "ledger.jsonl"
        self._outbox = folder / "outbox.db"
        self.broker = Mosquitto(folder / "broker")
        floor = {"AMBER_SEGMENTS__FREE_FLOOR_MB": "0"} if full_disk else {}  # else it stops before the disk is full
        self.gateway = Child("the gateway", folder / "gateway.log", SETTINGS | floor)
        self.devices = Child("the simulation", folder / "devices.log")
        self._proxy: Proxy | None = None
        self._broker_up = True

    def __enter__(self) -> Self:
        self.ledger.touch()  # whoever stops us before the first message is told so, not that there is no ledger
        with contextlib.ExitStack() as opened:
            if self._disk is not None:
                opened.enter_context(self._disk)
            with in_our_words():
                opened.enter_context(self.broker)
            self._proxy = opened.enter_context(Proxy(self.broker.port))
            opened.enter_context(self.gateway)
            opened.enter_context(self.devices)
            self.start_gateway()
            self.gateway.wait_until(lambda: "subscribed" in self.gateway.said(), START_WITHIN_S)
            self.start_devices(0.0)
            self._closing = opened.pop_all()
        return self

    def __exit__(self, *details: object) -> None:
        self.calm()  # what is frozen cannot end in good order
        self._closing.close()

    @property
    def proxy(self) -> Proxy:
        assert self._proxy is not None, "the stage is not set"  # noqa: S101
        return self._proxy

    def start_gateway(self) -> None:
        url = f"mqtt://127.0.0.1:{self.proxy.port}"
        arguments = ["-m", "gateway", "run", "--broker", url, "--store", str(self.store), "--config", os.devnull]
        self.gateway.start(arguments)

    def start_devices(self, at_s: float) -> None:
        """For the rest of the time. They are as if they had been switched on `at_s` after the start."""
        crowd = self._crowd
        options: dict[str, object] = {
            "--broker": self.broker.url,
            "--seed": crowd.seed,
            "--start": iso(crowd.start_us + round(at_s * SECOND_US)),
            "--duration": f"{max(0.001, crowd.seconds - at_s):.3f}",
            "--ledger": self.ledger,
            "--connect-timeout": ENDLESS_PATIENCE,
        }
        if crowd.outbox:
            options["--outbox"] = self._outbox
        words = [str(word) for option in options.items() for word in option]
        self.devices.start(["-m", "devices", "simulate", str(crowd.fleet), *words])

    def disturb(self, deed: Disturbance) -> None:
        """Do it."""
        match deed.how, deed.what:
            case "kill", "broker":
                self._broker_up = False
                self.broker.kill()
            case "kill", _:
                self._child(deed).kill()
            case "freeze", _:
                self._signal(deed, signal.SIGSTOP)
            case "cut", _:
                self.proxy.cut()
            case "stall", _:
                self.proxy.stall()
            case "slow", _:
                self.proxy.slow(SLOW_BYTES_PER_S)
            case "fill", _ if self._disk is not None:
                self._disk.fill()

    def mend(self, deed: Disturbance) -> None:
        """Undo it: who was killed starts again."""
        match deed.how, deed.what:
            case "kill", "broker":
                self._start_broker()
            case "kill", "gateway":
                self.start_gateway()
            case "kill", "devices":
                self.start_devices(deed.at_s + deed.for_s)
            case "freeze", _:
                self._signal(deed, signal.SIGCONT)
            case (("stall" | "slow"), _):
                self.proxy.flow()
            case "fill", _ if self._disk is not None:
                self._disk.free()

    def calm(self) -> None:
        """Undo whatever is still as a disturbance left it, but for devices that are gone."""
        if self._proxy is None:
            return
        self.proxy.flow()
        self.gateway.signal(signal.SIGCONT)
        if self._disk is not None:
            self._disk.free()
        self._signal_broker(signal.SIGCONT)

    def restore(self) -> None:
        """All that must be there for everything that is on its way to arrive."""
        self.calm()
        self._start_broker()
        if self.gateway.pid is None:
            self.start_gateway()

    def fallen(self) -> Sequence[str]:
        """Who has ended without being told to, each with its last words. Devices may end well before their time."""
        found = []
        for child in (self.gateway, self.devices):
            status = child.status
            if status is not None and not (child is self.devices and status == 0):
                found.append(
                    f"{child.name} ended by itself with status {status}. Its last words:\n{child.last_words()}"
                )
        if self._broker_up and not self.broker.alive:
            found.append(f"the broker ended by itself. Its last words:\n{self.broker.log()[-1_000:]}")
        return found

    def _start_broker(self) -> None:
        if not self.broker.alive:
            with in_our_words():
                self.broker.start()
        self._broker_up = True

    def _child(self, deed: Disturbance) -> Child:
        return self.gateway if deed.what == "gateway" else self.devices

    def _signal(self, deed: Disturbance, number: signal.Signals) -> None:
        if deed.what == "gateway":
            self.gateway.signal(number)
        else:
            self._signal_broker(number)

    def _signal_broker(self, number: signal.Signals) -> None:
        if self.broker.alive:
            os.kill(self.broker.pid, number)


@contextlib.contextmanager
def in_our_words() -> Iterator[None]:
    """What goes wrong with the broker, as an AmberError."""
    try:
        yield
    except BrokerError as error:
        raise AmberError(str(error)) from error
