"""The demo in which everything goes wrong: devices misbehave, the gateway is killed twice, its link is cut.

Decides nothing of its own: the fleet is an example, and the rest a short torture with a plan that is always the same.
"""

from __future__ import annotations

from pathlib import Path

from devices.clock import wall_us
from gateway.demo_screen import Screen
from gateway.proving.plan import Disturbance, Plan
from gateway.proving.stage import Crowd
from gateway.proving.torture import Outcome, Run, torture
from storage.errors import AmberError
from storage.history import Reader

FLEET = "chaos.toml"
SEED = 7

FELT_S = 3.0
"""So long after a deed is undone the rate on the screen is low because of it: it is that of the last seconds."""

DONE = {"kill": "killed", "cut": "cut", "stall": "stalled", "slow": "slow", "fill": "full", "freeze": "frozen"}


def chaos(folder: Path, plan: Plan) -> Outcome:
    """Run it in `folder`, which is ready, with the live screen."""
    crowd = Crowd(example(FLEET), plan.seed, wall_us(), plan.seconds, outbox=True)
    with Screen(plan.seconds) as screen:

        def show(reader: Reader, run: Run) -> None:
            screen.notes = felt(plan, run.now_s())
            screen.show(reader)

        return torture(plan, crowd, folder, show)


def felt(plan: Plan, now_s: float) -> list[str]:
    """What the rate suffers from at this time of the plan: `gateway killed`."""
    deeds = [deed for deed in plan.disturbances if deed.at_s <= now_s < deed.at_s + deed.for_s + FELT_S]
    return [f"{deed.what} {DONE[deed.how]}" for deed in deeds]


def chaos_plan(seconds: float) -> Plan:
    """A kill, a cut, and another kill, evenly spread."""
    return Plan(
        SEED,
        seconds,
        (
            Disturbance(seconds * 0.25, "gateway", "kill", 1.0),
            Disturbance(seconds * 0.45, "link", "cut", 0.0),
            Disturbance(seconds * 0.65, "gateway", "kill", 2.0),
        ),
    )


def example(name: str) -> Path:
    """A fleet of examples/fleets in the clone, or the copy of it that the wheel carries. Raises AmberError."""
    packages = Path(__file__).resolve().parent.parent.parent
    for folder in (packages / "examples" / "fleets", packages / "devices" / "examples"):
        if (folder / name).is_file():
            return folder / name
    raise AmberError(f"{name} is missing beside {packages}: clone or install Amber again")
