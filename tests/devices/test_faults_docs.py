"""docs/faults.md says what there is."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from devices.dialects import DIALECTS, speak
from devices.faults import SHARES, Faults
from devices.faults.sending import TOO_LARGE_BYTES
from gateway.formats import Options
from tests.devices.faulty import fleet_of, one_of

DOCS = (Path(__file__).parents[2] / "docs" / "faults.md").read_text("utf-8")


def test_every_fault_has_its_row_and_nothing_else_has() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", DOCS, re.MULTILINE)
    assert tuple(rows) == Faults.__struct_fields__


def test_the_example_names_faults() -> None:
    (example,) = re.findall(r"```toml\n(.*?)```", DOCS, re.DOTALL)
    (group,) = [tomllib.loads(example)["groups"]]
    assert group["faults"].keys() <= set(Faults.__struct_fields__)
    for name, value in group["faults"].items():
        assert isinstance(value, dict) == (name not in SHARES and not name.startswith("clock_s"))


def test_the_dialects_that_bear_an_identity_are_named() -> None:
    fleets = {name: fleet_of(dialect=name) for name in DIALECTS}
    identified = [f"`{name}`" for name, fleet in fleets.items() if speak(one_of(fleet), fleet).identified]
    words = " ".join(DOCS.split())
    assert f"Dialects that bear an identity are {', '.join(identified[:-1])} and {identified[-1]}" in words


def test_too_large_is_just_more_than_the_gateway_reads() -> None:
    assert Options().payload_bytes + 1 == TOO_LARGE_BYTES


def test_spells_and_shares_are_all_there_is() -> None:
    """A fault of another kind would have to be told of."""
    kinds = {name: str(kind) for name, kind in Faults.__annotations__.items()}
    assert {name for name, kind in kinds.items() if "Spell" not in kind} == {
        *SHARES,
        "clock_skew_s",
        "clock_drift_ppm",
    }
