"""When devices leave, die and are impersonated: the plan, before any connection is made."""

from __future__ import annotations

from itertools import islice, pairwise

import pytest
from msgspec.structs import replace

from devices.clock import SECOND_US
from devices.faults import Faults, Spell
from devices.faults.connecting import FLAPPING_S, Disturbance, disturbances
from devices.fleet import Fleet
from tests.devices.faulty import START_US, fleet_of, one_of, only, sent

EVERY = Faults(
    offline=Spell(every_s=60.0, for_s=10.0),
    flapping=Spell(every_s=90.0, for_s=10.0),
    death=Spell(every_s=120.0, for_s=5.0),
    clash=Spell(every_s=100.0, for_s=1.0),
    reboot=Spell(every_s=80.0, for_s=2.0),
)
MARKED = {"offline": "leave", "flapping": "die", "death": "die", "clash": "clash"}
KINDS = {**MARKED, "reboot": "die"}


def planned(fleet: Fleet, number: int) -> list[Disturbance]:
    return list(islice(disturbances(one_of(fleet), fleet), number))


def test_without_faults_nothing_disturbs_a_device() -> None:
    assert planned(fleet_of(), 1) == []


@pytest.mark.parametrize(("fault", "what"), KINDS.items())
def test_a_spell_is_an_absence_of_its_kind(fault: str, what: str) -> None:
    found = planned(fleet_of(only(fault, Spell(at_s=(10.0, 40.0), for_s=8.0))), 100)
    assert {one.what for one in found} == {what}
    if fault != "flapping":
        assert [(one.at_us, one.away_s) for one in found] == [
            (START_US + 10 * SECOND_US, 8.0),
            (START_US + 40 * SECOND_US, 8.0),
        ]
        assert found[0].back_us == START_US + 18 * SECOND_US


def test_while_flapping_a_connection_lasts_for_a_second_or_two() -> None:
    found = planned(fleet_of(Faults(flapping=Spell(at_s=(10.0,), for_s=60.0))), 100)
    lengths = [(after.at_us - before.at_us) / SECOND_US for before, after in pairwise(found)]
    least, most = FLAPPING_S
    assert all(least <= length_s <= most for length_s in lengths)
    assert len(set(lengths)) == len(lengths)
    assert found[0].at_us == START_US + 10 * SECOND_US
    assert START_US + 68 * SECOND_US <= found[-1].at_us <= START_US + 70 * SECOND_US
    assert {one.away_s for one in found} == {0.0}


def test_disturbances_come_in_the_order_of_time() -> None:
    found = planned(fleet_of(EVERY), 1_000)
    assert all(before.at_us <= after.at_us for before, after in pairwise(found))
    assert {one.what for one in found} == {"leave", "die", "clash"}


def test_a_reboot_cuts_the_connection_off_for_as_long_as_nothing_is_measured() -> None:
    faults = Faults(reboot=Spell(at_s=(10.0, 30.0, 60.0), for_s=8.0))
    cuts = planned(fleet_of(faults), 4)
    assert [one.what for one in cuts] == ["die"] * 3
    measured = [message.due_us for message in sent(fleet_of(faults), 100)]
    for cut in cuts:
        assert not any(cut.at_us <= due_us < cut.back_us for due_us in measured)
        assert any(cut.at_us - SECOND_US <= due_us < cut.at_us for due_us in measured)
        assert any(cut.back_us <= due_us < cut.back_us + SECOND_US for due_us in measured)


@pytest.mark.parametrize("fault", KINDS)
def test_no_fault_changes_when_another_strikes(fault: str) -> None:
    alone = planned(fleet_of(only(fault, getattr(EVERY, fault))), 100)
    together = planned(fleet_of(EVERY), 3_000)
    assert set(alone) <= set(together)


def test_what_is_due_within_a_spell_is_named_for_it_and_not_changed() -> None:
    for fault in MARKED:
        faults = only(fault, Spell(at_s=(5.0,), for_s=5.0))
        for sound, message in zip(sent(fleet_of(), 20), sent(fleet_of(faults), 20), strict=True):
            within = START_US + 5 * SECOND_US <= message.due_us < START_US + 10 * SECOND_US
            assert message == replace(sound, faults=(fault,) if within else ())
