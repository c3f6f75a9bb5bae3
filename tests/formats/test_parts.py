"""The parts that all formats share: times, topics, units, texts."""

from __future__ import annotations

from zoneinfo import ZoneInfo

import pytest

from gateway.formats.options import Options
from gateway.formats.times import believed, instant
from gateway.formats.topics import place, takes
from gateway.formats.units import code
from tests.formats.messages import NOW

DAY = 86_400_000_000


@pytest.mark.parametrize(
    ("stamp", "microseconds"),
    [
        (1_795_338_000, NOW),
        (1_795_338_000.000001, NOW + 1),
        (1_795_338_000_000, NOW),
        (NOW + 1, NOW + 1),
        ((NOW + 1) * 1_000 + 999, NOW + 1),
        (float(NOW) * 1_000, NOW),
        ("1795338000.5", NOW + 500_000),
        ("2026-11-22T09:00:00Z", NOW),
        ("2026-11-22 10:00:00.5+01:00", NOW + 500_000),
        ("20261122T090000Z", NOW),
        ("2026-11-22T09:00:00", None),
        ("2026-11-22", None),
        ("2026-02-29T09:00:00Z", None),
        ("0001-01-01T00:00:00+23:59", -62135683140000000),
        ("", None),
        ("1e999", None),
        (float("nan"), None),
        (float("inf"), None),
        (10**400, None),
        (True, None),
        (None, None),
    ],
)
def test_an_instant_is_read_or_refused(stamp: object, microseconds: int | None) -> None:
    assert instant(stamp) == microseconds


def test_a_local_time_needs_its_zone() -> None:
    assert instant("2026-11-22T10:00:00", ZoneInfo("Europe/Berlin")) == NOW


@pytest.mark.parametrize("offset", [-DAY * 365, 0, DAY])
def test_a_time_within_the_window_is_believed(offset: int) -> None:
    assert believed(NOW + offset, NOW, Options()) == NOW + offset


@pytest.mark.parametrize("stamp", [NOW + DAY + 1, 946_684_799, 0, 4_102_444_800])
def test_a_time_without_the_window_is_not(stamp: int) -> None:
    assert believed(stamp, NOW, Options()) is None


@pytest.mark.parametrize(
    ("topic", "device", "scalar"),
    [
        ("devices/thermo-1/telemetry", "thermo-1", ("thermo-1", "value")),
        ("home/livingroom", "livingroom", ("home", "livingroom")),
        ("home/livingroom/lamp/state", "lamp", ("lamp", "state")),
        ("livingroom/sensors/motion/state", "motion", ("livingroom", "motion")),
        ("home/lamp/state", "lamp", ("lamp", "state")),
        ("home/lamp/set", "lamp", ("home", "lamp")),
        ("meters/7/power", "power", ("meters/7", "power")),
        ("meters/7/telemetry", "meters/7", ("meters/7", "value")),
        ("v1/devices/me/telemetry", "v1/devices/me/telemetry", ("v1/devices/me/telemetry", "value")),
        ("telemetry", "telemetry", ("telemetry", "value")),
        ("", "unknown", ("unknown", "value")),
    ],
)
def test_a_topic_places_objects_and_scalars(topic: str, device: str, scalar: tuple[str, str]) -> None:
    found = place(topic, 512)
    assert (found.device, (found.scalar_device, found.scalar_name)) == (device, scalar)


@pytest.mark.parametrize(
    ("topic_filter", "topic", "taken"),
    [
        ("a/b", "a/b", True),
        ("a/b", "a/b/c", False),
        ("a/+", "a/b", True),
        ("a/+", "a", False),
        ("a/+", "a/", True),
        ("a/#", "a", True),
        ("a/#", "a/b/c", True),
        ("#", "a/b", True),
        ("#", "$SYS/x", False),
        ("+/x", "$SYS/x", False),
        ("$SYS/#", "$SYS/x", True),
        ("a/#", "b/a", False),
    ],
)
def test_a_filter_takes_the_topics_that_a_broker_would_send_it(topic_filter: str, topic: str, taken: bool) -> None:  # noqa: FBT001
    assert takes(topic_filter.split("/"), topic.split("/")) is taken


@pytest.mark.parametrize(
    ("name", "ucum"),
    [
        ("°C", "Cel"),
        ("ºC", "Cel"),
        ("℃", "Cel"),
        ("deg C", "Cel"),
        ("%RH", "%"),
        ("% RH", "%"),
        ("kWh", "kW.h"),
        ("m³/h", "m3/h"),
        ("µg/m³", "ug/m3"),
        ("μV", "uV"),
        ("Ω", "Ohm"),
        ("\u2126", "Ohm"),
        ("ppm", "[ppm]"),
        ("dBm", "dBm"),
        ("mW", "mW"),
        ("MW", "MW"),
        ("m[g]", "m[g]"),
        (" V ", "V"),
        ("kw.h", None),
        ("bananas", None),
        ("", None),
        ("V" * 1_000, None),
    ],
)
def test_a_unit_is_in_the_table_or_left_out(name: str, ucum: str | None) -> None:
    assert code(name) == ucum


def test_a_code_is_its_own_name() -> None:
    from gateway.formats.units import _CODES

    assert [ucum for ucum in _CODES.values() if code(ucum) != ucum] == []
