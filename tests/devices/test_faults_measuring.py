"""Devices that take for true what is not, each fault in its own way."""

from __future__ import annotations

from itertools import islice, pairwise
from statistics import mean

import msgspec
import pytest

from devices.clock import SECOND_US
from devices.faults import Faults, Spell
from devices.faults.chance import spells
from devices.faults.measuring import misread
from devices.fleet import boot_id, devices
from devices.pace import Bursts, Pace
from devices.telemetry import samples
from tests.devices.faulty import EVERY, START_US, fleet_of, is_share, one_of, struck, taken, true

OF_MEASURING = ("clock_skew", "clock_drift", "clock_reset", "stuck", "spike", "missing", "schema_change", "reboot")
FIFTH_TO_TENTH = Spell(at_s=(5.0,), for_s=5.0)


def within(due_us: int) -> bool:
    """Whether it is in the fifth to tenth second."""
    return START_US + 5 * SECOND_US <= due_us < START_US + 10 * SECOND_US


def test_without_faults_the_samples_are_the_very_same() -> None:
    """So they cost nothing."""
    fleet = fleet_of()
    measured = samples(one_of(fleet), fleet)
    assert misread(measured, one_of(fleet), fleet) is measured


def test_each_clock_is_off_by_an_amount_of_its_own() -> None:
    fleet = fleet_of(Faults(clock_skew_s=30.0), count=50)
    offs = []
    for device in devices(fleet):
        readings = list(islice(misread(samples(device, fleet), device, fleet), 20))
        (off_us,) = {sample.observed_at - sample.due_us for sample in readings}
        assert {sample.faults for sample in readings} == {("clock_skew",)}
        offs.append(off_us / SECOND_US)
    assert len(set(offs)) == 50
    assert -30 <= min(offs) < -20 < 20 < max(offs) <= 30


def test_a_drifting_clock_is_ever_further_off() -> None:
    fleet = fleet_of(Faults(clock_drift_ppm=1_000.0), count=20, every_s=60.0)
    for device in devices(fleet):
        readings = list(islice(misread(samples(device, fleet), device, fleet), 100))
        offs = [sample.observed_at - sample.due_us for sample in readings]
        steps = [after - before for before, after in pairwise(offs)]
        assert max(steps) - min(steps) <= 1
        assert 0 < abs(mean(steps)) <= 60 * 1_000


def test_a_reset_clock_counts_from_1970_and_is_set_right_again() -> None:
    readings = taken(fleet_of(Faults(clock_reset=FIFTH_TO_TENTH)), 20)
    for sample in readings:
        if within(sample.due_us):
            assert 0 <= sample.observed_at < 5 * SECOND_US
            assert sample.faults == ("clock_reset",)
        else:
            assert sample.observed_at == sample.due_us
            assert sample.faults == ()
    assert len(struck(readings, "clock_reset")) == 5


def test_a_stuck_device_repeats_itself_and_recovers() -> None:
    fleet = fleet_of(Faults(stuck=FIFTH_TO_TENTH))
    real = list(true(fleet, 20).values())
    readings = taken(fleet, 20)
    assert [sample.readings for sample in readings[5:10]] == [real[4].readings] * 5
    assert readings[:5] + readings[10:] == real[:5] + real[10:]
    assert [sample.faults for sample in readings[5:10]] == [("stuck",)] * 5


def test_a_device_that_is_stuck_from_the_start_repeats_its_first_readings() -> None:
    readings = taken(fleet_of(Faults(stuck=Spell(at_s=(0.0,), for_s=5.0))), 8)
    assert [sample.readings for sample in readings[:5]] == [readings[0].readings] * 5
    assert readings[5].readings != readings[0].readings


@pytest.mark.parametrize("model", ["thermometer", "meter", "tracker"])
def test_a_spike_is_one_number_far_off(model: str) -> None:
    fleet = fleet_of(Faults(spike=0.1), model=model)
    real, readings = true(fleet, 5_000), taken(fleet, 5_000)
    assert is_share(len(struck(readings, "spike")), 5_000, 0.1)
    for sample in readings:
        was = real[sample.due_us]
        off = [name for name, value in sample.readings.items() if value != was.readings[name]]
        assert len(off) == ("spike" in sample.faults)
        for name in off:
            value, before = sample.readings[name], was.readings[name]
            assert isinstance(value, int | float)
            assert isinstance(before, int | float)
            assert abs(value) >= 4.99 * (abs(before) + 1)


def test_what_has_no_number_has_no_spike() -> None:
    def words(_chance: object, times: object) -> object:
        return ({"state": "open", "ok": True} for _ in times)  # type: ignore[attr-defined]

    assert struck(taken(fleet_of(Faults(spike=1.0), signal=words), 50), "spike") == []


def test_one_reading_of_several_is_missing() -> None:
    fleet = fleet_of(Faults(missing=0.1), model="meter")
    real, readings = true(fleet, 5_000), taken(fleet, 5_000)
    assert is_share(len(struck(readings, "missing")), 5_000, 0.1)
    for sample in readings:
        left = real[sample.due_us].readings
        assert sample.readings.items() <= left.items()
        assert len(sample.readings) == len(left) - ("missing" in sample.faults)
    assert {name for sample in readings for name in left.keys() - sample.readings.keys()} == set(left)


def test_the_only_reading_is_never_missing() -> None:
    def lone(_chance: object, times: object) -> object:
        return ({"level": 1.5} for _ in times)  # type: ignore[attr-defined]

    assert all(sample.readings for sample in taken(fleet_of(Faults(missing=1.0), signal=lone), 50))


def test_an_update_renames_all_readings_and_makes_a_text_of_a_number() -> None:
    fleet = fleet_of(Faults(schema_change=FIFTH_TO_TENTH), model="meter")
    for was, sample in zip(true(fleet, 20).values(), taken(fleet, 20), strict=True):
        if not within(sample.due_us):
            assert sample == was
            continue
        assert list(sample.readings) == ["power_v2", "energy_v2", "voltage_v2"]
        assert sample.readings["power_v2"] == str(was.readings["power"])
        assert sample.readings["voltage_v2"] == was.readings["voltage"]
        assert sample.faults == ("schema_change",)


def test_a_reboot_is_a_new_boot_that_counts_from_0() -> None:
    fleet = fleet_of(Faults(reboot=Spell(at_s=(5.0, 20.0), for_s=5.0)))
    real, readings = true(fleet, 40), taken(fleet, 30)
    boots = [boot_id(one_of(fleet), fleet, restarts) for restarts in range(3)]
    assert [(sample.boot, sample.seq) for sample in readings] == [
        *((boots[0], seq) for seq in range(5)),
        *((boots[1], seq) for seq in range(10)),
        *((boots[2], seq) for seq in range(15)),
    ]
    assert not any(within(sample.due_us) for sample in readings)
    assert all(sample.readings == real[sample.due_us].readings for sample in readings)
    assert [sample.seq for sample in readings if "reboot" in sample.faults] == [0, 0]


def test_a_reboot_may_take_no_time() -> None:
    readings = taken(fleet_of(Faults(reboot=Spell(at_s=(5.0,)))), 10)
    assert [sample.seq for sample in readings] == [*range(5), *range(5)]
    assert len({sample.boot for sample in readings}) == 2


def test_a_reboot_forgets_what_was_gathered_for_a_burst() -> None:
    pace, spell = Pace(10.0, bursts=Bursts(10.0, 10)), Spell(at_s=(35.0,), for_s=3.0)
    begin_us, end_us = START_US + 35 * SECOND_US, START_US + 38 * SECOND_US
    real = [sample for sample in taken(fleet_of(pace=pace), 80) if sample.due_us < START_US + 60 * SECOND_US]
    left = {sample.measured_us: sample for sample in taken(fleet_of(Faults(reboot=spell), pace=pace), 80)}
    lost = [sample for sample in real if sample.measured_us not in left]
    assert lost == [sample for sample in real if sample.due_us >= begin_us and sample.measured_us < end_us]
    assert 3 < len(lost) < 10
    assert left[min(at_us for at_us in left if at_us >= end_us)].seq == 0


@pytest.mark.parametrize(
    ("fault", "how"),
    [
        ("clock_reset", Spell(at_s=(35.0,), for_s=7.0)),
        ("stuck", Spell(at_s=(35.0,), for_s=7.0)),
        ("schema_change", Spell(at_s=(35.0,), for_s=7.0)),
    ],
)
def test_a_burst_is_struck_as_far_as_it_was_measured_within_the_spell(fault: str, how: Spell) -> None:
    readings = taken(fleet_of(Faults(**{fault: how}), pace=Pace(10.0, bursts=Bursts(10.0, 10))), 100)  # type: ignore[arg-type]
    for sample in readings:
        within = START_US + 35 * SECOND_US <= sample.measured_us < START_US + 42 * SECOND_US
        assert sample.faults == ((fault,) if within else ())
        if fault == "clock_reset" and within:
            assert sample.observed_at == sample.measured_us - START_US - 35 * SECOND_US
    assert any(sample.faults for sample in readings)


@pytest.mark.parametrize("fault", OF_MEASURING)
@pytest.mark.parametrize("model", ["thermometer", "door"])
def test_no_fault_changes_what_another_does(model: str, fault: str) -> None:
    """Alone or with all others, it strikes the same samples."""
    names = [name for name in msgspec.structs.asdict(EVERY) if name.startswith(fault)]
    alone = taken(fleet_of(Faults(**{name: getattr(EVERY, name) for name in names}), model=model), 2_000)
    together = taken(fleet_of(EVERY, model=model), 2_000)
    both = {sample.due_us for sample in alone} & {sample.due_us for sample in together}
    assert len(both) > 1_000
    assert set(struck(alone, fault)) & both == set(struck(together, fault)) & both
    assert struck(together, fault) != []


def test_who_is_not_struck_says_what_is_true() -> None:
    faults = msgspec.structs.replace(EVERY, clock_skew_s=0.0, clock_drift_ppm=0.0)
    fleet = fleet_of(faults)
    real = true(fleet, 3_000)
    sound = [sample for sample in taken(fleet, 2_000) if not sample.faults]
    assert len(sound) > 500
    for sample in sound:
        was = real[sample.due_us]
        assert (sample.observed_at, sample.readings) == (was.observed_at, was.readings)


def test_spells_come_by_chance_with_the_mean_that_was_asked_for() -> None:
    fleet = fleet_of()
    found = list(islice(spells(Spell(every_s=60.0, for_s=10.0), "stuck", one_of(fleet), fleet), 2_000))
    assert all(end - begin == 10 * SECOND_US for begin, end in found)
    gaps = [(after[0] - before[1]) / SECOND_US for before, after in pairwise(found)]
    assert mean(gaps) == pytest.approx(60, rel=0.1)
    assert min(gaps) < 5
    assert max(gaps) > 240


def test_spells_at_set_times_come_beside_those_by_chance_and_never_overlap() -> None:
    fleet = fleet_of()
    spell = Spell(every_s=30.0, at_s=(100.0, 50.0, 52.0), for_s=20.0)
    found = list(islice(spells(spell, "stuck", one_of(fleet), fleet), 500))
    assert all(one[1] <= other[0] for one, other in pairwise(found))
    for at_s in spell.at_s:
        begin_us, end_us = START_US + int(at_s * SECOND_US), START_US + int((at_s + 20) * SECOND_US)
        assert any(begin <= begin_us and end_us <= end for begin, end in found)
    fixed = list(spells(Spell(at_s=(100.0, 50.0, 52.0), for_s=20.0), "stuck", one_of(fleet), fleet))
    assert [((begin - START_US) / SECOND_US, (end - START_US) / SECOND_US) for begin, end in fixed] == [
        (50, 72),
        (100, 120),
    ]


def test_no_two_devices_and_no_two_faults_share_their_chance() -> None:
    fleet = fleet_of(count=2)
    spell = Spell(every_s=60.0, for_s=10.0)
    firsts = [next(spells(spell, fault, device, fleet)) for device in devices(fleet) for fault in ("stuck", "reboot")]
    assert len(set(firsts)) == 4


@pytest.mark.parametrize(
    ("what", "told"),
    [
        ({"every_s": 0.0}, "a millisecond or more"),
        ({"every_s": -1.0}, "a millisecond or more"),
        ({"every_s": float("nan")}, "a millisecond or more"),
        ({"for_s": -1.0}, "0 or more"),
        ({"for_s": float("inf")}, "0 or more"),
        ({"at_s": (-1.0,)}, "0 s after the start or later"),
    ],
)
def test_a_spell_that_makes_no_sense_is_refused(what: dict[str, float], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Spell(**what)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("what", "told"),
    [
        ({"duplicate": 1.5}, "duplicate is 1.5: a share is from 0 to 1"),
        ({"spike": -0.1}, "spike is -0.1"),
        ({"garbage": float("nan")}, "garbage is nan"),
        ({"clock_skew_s": -1.0}, "clock_skew_s is -1"),
        ({"clock_drift_ppm": 2e6}, "clock_drift_ppm is 2e"),
    ],
)
def test_faults_that_make_no_sense_are_refused(what: dict[str, float], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Faults(**what)  # type: ignore[arg-type]
