"""A torture: everything is killed, cut off and filled up by a plan, then the ledger is held against the store.

The plan and what the devices say follow from the seed. Nothing here decides what a kept promise is: `verify` does.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec
import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from devices.clock import iso, wall_us
from gateway.proving.folder import STAGE
from gateway.proving.memory import SETTLED_S, Memory, Sample, memory, resident_mb
from gateway.proving.plan import Disturbance, Plan
from gateway.proving.stage import LAST_GRACE_S, Crowd, Stage
from gateway.proving.verdict import Promise, Row, Verdict
from gateway.proving.verify import verify
from storage.errors import AmberError
from storage.filters import Filters
from storage.history import Reader

LOOK_EVERY_S = 0.25
ARRIVED_WITHIN_S = 120.0
"""How long the last message may take: a gateway that found no broker waits up to 30 seconds before it tries again."""

ANSWERED_WITHIN_S = 20.0

LAST_TOPIC = "torture/last"
PARTS = (*STAGE, "fleet.toml", "plan.json", "marks.jsonl")
"""What a torture leaves in its folder, and all that the next one deletes there."""


class Outcome(msgspec.Struct, frozen=True):
    """What came of it. `failures`: who ended by itself, or would not end, and what never arrived."""

    plan: Plan
    done: int
    elapsed_s: float
    interrupted: bool
    failures: tuple[str, ...]
    memory: Memory | None
    verdict: Verdict
    promise: Promise

    @property
    def holds(self) -> bool:
        return not self.failures and self.verdict.holds(self.promise)


def torture(plan: Plan, crowd: Crowd, folder: Path, show: Show) -> Outcome:
    """Run it in `folder`, which is ready; on return everything is stopped. Raises AmberError where it cannot begin.

    `show` is called some times a second while the devices speak.
    """
    full_disk = any(deed.how == "fill" for deed in plan.disturbances)
    folder.joinpath("plan.json").write_bytes(msgspec.json.encode(plan))
    with Stage(folder, crowd, full_disk=full_disk) as stage:
        run = Run(stage, plan, folder / "marks.jsonl")
        try:
            run.disturb(show)
        except KeyboardInterrupt:
            run.interrupted = True
        run.settle()
        verdict = verify([stage.ledger], stage.store)
        if full_disk:
            keep_store(stage.store.parent, folder)
    # Mosquitto acknowledges from memory: what it says before it is killed is not ours to keep.
    promise: Promise = "receipt" if any(str(deed) == "kill broker" for deed in plan.disturbances) else "both"
    return Outcome(
        plan=plan,
        done=run.done,
        elapsed_s=run.elapsed_s,
        interrupted=run.interrupted,
        failures=(*run.failures, *([] if run.interrupted else unproven(verdict.totals, promise))),
        memory=memory(run.samples),
        verdict=verdict,
        promise=promise,
    )


class Run:
    """One run on a stage: what was done so far, and what was seen. `last` is what was done last."""

    def __init__(self, stage: Stage, plan: Plan, marks: Path) -> None:
        self.done = 0
        self.last = ""
        self.elapsed_s = 0.0
        self.interrupted = False
        self.failures = list[str]()
        self.samples = list[Sample]()
        self._stage, self._plan, self._marks = stage, plan, marks
        self._started = time.monotonic()

    def disturb(self, show: Show) -> None:
        """Follow the plan until the devices' time is over. Ends early if someone ended unbidden."""
        with Reader(self._stage.store) as reader:
            for at_s, deed, begins in steps(self._plan):
                while (left_s := at_s - self.now_s()) > 0 and not self._fallen():
                    self._look()
                    show(reader, self)
                    time.sleep(min(LOOK_EVERY_S, left_s))
                if self._fallen():
                    return
                if deed is not None:
                    self._do(deed, begins=begins)

    def settle(self) -> None:
        """Devices end, all that is on its way arrives, the gateway ends: each in good order, or it is a failure."""
        stage = self._stage
        stage.restore()
        early = self.interrupted or self.failures
        devices = stage.devices.stop(LAST_GRACE_S) if early else stage.devices.wait(LAST_GRACE_S)
        if devices not in (None, 0, -signal.SIGTERM) and not self.failures:  # it may not even have begun to listen
            self.failures.append(f"the simulation ended with status {devices}. {stage.devices.last_words()}")
        if not self.failures:
            self._let_arrive()
        self.elapsed_s = self.now_s()
        status = stage.gateway.stop()
        if status and not self.failures:
            self.failures.append(f"the gateway ended with status {status}. {stage.gateway.last_words()}")

    def _do(self, deed: Disturbance, *, begins: bool) -> None:
        if not begins:
            self._stage.mend(deed)
            return
        with self._marks.open("ab") as file:
            file.write(msgspec.json.encode({"at": iso(wall_us()), "what": str(deed)}) + b"\n")
        self.last = str(deed)
        self.done += 1
        self._stage.disturb(deed)

    def _look(self) -> None:
        """Take a sample of the gateway's memory."""
        gateway = self._stage.gateway
        if gateway.pid is not None and time.monotonic() - gateway.started_at > SETTLED_S:
            mb = resident_mb(gateway.pid)
            if mb is not None:
                self.samples.append(Sample(self.now_s(), mb))

    def _fallen(self) -> bool:
        if not self.failures:
            self.failures += self._stage.fallen()
        return bool(self.failures)

    def _let_arrive(self) -> None:
        """One last message, behind all others in the gateway's queue: when it is stored, so is all before it."""
        stage = self._stage
        publish(stage.broker.port, LAST_TOPIC, b'{"device":"torture","done":true}')
        patience = time.monotonic() + ARRIVED_WITHIN_S
        with Reader(stage.store) as reader:
            while not any(True for _ in reader.pages(Filters(topics=(LAST_TOPIC,)), limit=1)):
                if self._fallen():
                    return
                if time.monotonic() > patience:
                    self.failures.append(f"the last message did not arrive within {ARRIVED_WITHIN_S:.0f} s")
                    return
                time.sleep(LOOK_EVERY_S)

    def now_s(self) -> float:
        """Since the devices began to speak."""
        return time.monotonic() - self._started


Show = Callable[[Reader, Run], None]
"""Tells a person how it goes, from the store and the run so far."""


def steps(plan: Plan) -> Iterator[tuple[float, Disturbance | None, bool]]:
    """When what begins (True) or is undone (False), in order; at last the end, which is nothing."""
    begun = [(deed.at_s, deed, True) for deed in plan.disturbances]
    undone = [(deed.at_s + deed.for_s, deed, False) for deed in plan.disturbances if deed.how != "cut"]
    yield from sorted([*begun, *undone], key=lambda step: (step[0], step[2]))
    yield plan.seconds, None, False


def publish(port: int, topic: str, payload: bytes) -> None:
    """One message at QoS 1. Raises AmberError if the broker does not acknowledge it."""
    client = paho.Client(CallbackAPIVersion.VERSION2, "amber-torture", protocol=paho.MQTTv5)
    try:
        client.connect("127.0.0.1", port)
        client.loop_start()
        client.publish(topic, payload, qos=1).wait_for_publish(ANSWERED_WITHIN_S)
        client.disconnect()
    except (OSError, RuntimeError, ValueError) as error:
        raise AmberError(f"the broker at 127.0.0.1:{port} does not answer: {error}") from error
    finally:
        client.loop_stop()


def unproven(totals: Row, promise: Promise) -> Iterator[str]:
    """Why a promise that holds means nothing, if it does."""
    if not totals.sent:
        yield "the devices sent nothing, so nothing is proven"
    elif promise == "receipt" and not totals.receipted:
        yield "no message was receipted, and with a broker that is killed nothing else counts: give the fleet receipts"


def keep_store(source: Path, folder: Path) -> None:
    """Bring the store from the disk that goes with us to one that stays."""
    for name in ("amber.db", "amber.db-wal"):
        with contextlib.suppress(FileNotFoundError):
            shutil.copyfile(source / name, folder / name)


def fleet_text(*, devices: int, rate: float, levels: Sequence[int], receipts: bool) -> str:
    """A fleet of JSON devices that share `rate` messages a second, and take turns at the levels of QoS."""
    groups = []
    for place, qos in enumerate(levels):
        count = (devices - place + len(levels) - 1) // len(levels)
        if count:
            groups.append(
                f'[[groups]]\nname = "qos{qos}"\nmodel = "thermometer"\ncount = {count}\n'
                f"rate = {rate / devices:.6g}\nqos = {qos}\nreceipts = {str(receipts and qos > 0).lower()}\n"
            )
    return "\n".join(groups)
