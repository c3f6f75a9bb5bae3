"""The short cut gives what the long way gives, and is short."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.formats import Format, Formats, Options
from storage.event import Event, Message, Properties, Rejection
from tests.formats.messages import NOW, message, written

FLAT = b'{"device":"bench-0042","seq":123456,"time":1763802000123456,"temperature":21.53,"humidity":40.2,"ok":true}'
OWN = (
    b'{"device":"thermo-0001","boot":"5f3a","seq":17,"time":"2026-11-22T09:00:00.123456Z",'
    b'"readings":{"temperature":21.5},"units":{"temperature":"Cel"}}'
)

STATUS = b'{"device":"thermo-0001","boot":"5f3a","time":"2026-11-22T09:00:00Z","state":"online"}'
TRACKER = b'{"device":"tracker-0001","readings":{"latitude":52.5,"longitude":13.4,"speed":40},"units":{"speed":"km/h"}}'
KEYS = """device deviceId id time ts t date seq boot boot_id units unit readings data values value val name n desc lat
lon latitude longitude status state online temperature humidity ok a b.lat events samples ü"""
STAMPS = [0, 17, 1_763_802_000, NOW, NOW * 1000, 10**14, 10**17]
GREAT = [2**63, 2**64, 10**308, 10**309]
TEXTS = ["", " ", "d1", "online", "2026-11-22T09:00:00Z", "2026-11-22 09:00", "°C", "V", "x" * 24, "\0", "1763802000"]
keys = st.sampled_from(KEYS.split()) | st.text(max_size=3)
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from(STAMPS + GREAT)
    | st.floats(allow_nan=True)
    | st.sampled_from(TEXTS)
    | st.text(max_size=4)
)
some_units = st.dictionaries(st.sampled_from(["t", "lat", "x"]), st.sampled_from(["V", "°C", "?", 1, True]), max_size=2)
some_readings = st.dictionaries(st.sampled_from(["t", "lat", "lon", "online", "value", "seq"]), scalars, max_size=2)
trees = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4), max_leaves=12
)
flat = st.dictionaries(keys, scalars, max_size=8)
likely = st.fixed_dictionaries(
    {},
    optional={
        "device": st.sampled_from(["d1", " d1 ", "", 7]),
        "id": st.sampled_from(["d2", "x" * 24, 8]),
        "seq": st.sampled_from([0, 5, -1, 2**63, 1.0, True]),
        "time": st.sampled_from([NOW, NOW // 1_000_000, NOW + 10**12, "2026-11-22T09:00:00Z", "09:00", None]),
        "boot": st.sampled_from(["5f", 3]),
        "boot_id": st.sampled_from(["5f", 3]),
        "units": some_units,
        "readings": some_readings,
        "state": st.sampled_from(["online", "on", True]),
        "value": scalars,
        "lat": st.sampled_from([48.1, 481, "n"]),
        "lon": st.sampled_from([11.6, 1116]),
    },
)
own = st.fixed_dictionaries({"readings": flat, "units": st.dictionaries(keys, scalars)}, optional={"device": scalars})
objects = likely | flat | own | st.dictionaries(keys, trees, max_size=6)
topics = st.sampled_from(["devices/d1/telemetry", "d1", "a/b/set", "x" * 600, "lamps/lamp/availability", "$x/+/y", "/"])
shared = Formats()


@given(objects, topics, st.booleans())
@settings(max_examples=1_000, deadline=None)
def test_both_ways_give_one_result(node: dict[str, object], topic: str, compact: bool) -> None:  # noqa: FBT001
    payload = json.dumps(node, ensure_ascii=False, separators=(",", ":") if compact else None)
    sent = message(payload.encode("utf-8", "replace"), topic)
    assert written(shared.read(sent)) == written(shared.read_in_full(sent))
    assert shared._quick.faults == 0


@pytest.mark.parametrize(
    "node",
    [
        {"readings": {"a": 1}, "units": {"a": 1}},
        {"readings": {"a": 1}, "units": {"a": True}},
        {"a": 10**309, "b": "x" * 300},
        {"id": "x" * 24, "a": 1},
        {"device": " d1 ", "a": 1},
        {"device": " ", "a": 1},
        {"device": "d1", "boot": "5f", "boot_id": "6f", "a": 1},
        {"device": "d1", "boot": 3},
        {"device": "d1", "seq": -1},
        {"device": "d1", "seq": True},
        {"device": "d1", "readings": {"a": 1}, "b": 2},
        {"device": "d1", "readings": {"seq": 1}},
        {"device": "d1", "state": "online"},
        {"readings": {"state": "online"}},
        {"lat": 48.1, "lon": 11.6},
        {"a.lat": 48.1, "a.lon": 11.6},
        {"value": 1, "device": "d1"},
        {"time": NOW + 10**12, "ts": NOW},
        {"date": "2026-11-21", "time": "09:00Z"},
    ],
    ids=lambda node: str(node)[:60],
)
def test_both_ways_give_one_result_where_they_may_part(node: dict[str, object]) -> None:
    for topic in ("devices/d1/telemetry", "a/b/set"):
        sent = message(json.dumps(node, separators=(",", ":")).encode(), topic)
        assert written(shared.read(sent)) == written(shared.read_in_full(sent))
    assert shared._quick.faults == 0


@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode), topics)
@settings(max_examples=500, deadline=None)
def test_both_ways_give_one_result_of_any_bytes(payload: bytes, topic: str) -> None:
    sent = message(b"{" + payload, topic)
    assert written(shared.read(sent)) == written(shared.read_in_full(sent))
    assert shared._quick.faults == 0


def test_what_one_message_told_does_not_cling_to_the_next() -> None:
    formats = Formats()
    for degrees in (48, 480, 48):
        sent = message(b'{"lat":%d,"lon":11,"units":{"lon":"V"}}' % degrees)
        assert formats._quick.read(sent) is not None
        assert written(formats.read(sent)) == written(formats.read_in_full(sent))


@pytest.mark.parametrize(
    "payload", [FLAT, OWN, STATUS, TRACKER, b'{"temperature":21.5}', b'{"id":"s1","ts":1763802000}']
)
def test_common_telemetry_takes_the_short_cut(payload: bytes) -> None:
    assert Formats()._quick.read(message(payload)) is not None


def test_a_fault_of_the_short_cut_costs_nothing_but_time() -> None:
    formats = Formats()
    vars(formats._quick)["_codes"] = {}
    assert written(formats.read(message(OWN))) == written(Formats().read(message(OWN)))
    assert formats._quick.faults == 1


def test_the_short_cut_keeps_to_the_limits_of_the_long_way() -> None:
    formats = Formats(Options(name_chars=4, entries=1_000, text_chars=20))
    for payload in (b'{"abcde":1}', b'{"a":"xxxxxxxxxxxxxxxxxxxxx"}', b'{"device":"abcde","a":1}'):
        sent = message(payload)
        assert written(formats.read(sent)) == written(formats.read_in_full(sent))


def test_the_short_cut_leaves_a_message_to_the_format_that_claims_it() -> None:
    def read(_: Message, __: object) -> list[Event]:
        return [Event("mine", "other", "mine", NOW, {})]

    by_topic = Format(name="mine", read=read, topics=("devices/+/telemetry",))
    by_keys = Format(name="mine", read=read, keys=(frozenset({"device", "seq"}),))
    by_type = Format(name="mine", read=read, content_types=("application/mine",))
    properties = Properties(content_type="application/mine; charset=utf-8")
    for row in (by_topic, by_keys, by_type):
        outcome = Formats(specific=[row]).read(message(FLAT, properties=properties))
        assert not isinstance(outcome, Rejection)
        assert [event.device for event in outcome] == ["mine"]
