"""What descriptions teach: values from before are read again with it, and a restart forgets nothing of it."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.formats import Formats
from gateway.formats.topics import takes
from storage.event import Event, Message, Outcome, Rejection
from tests.formats.messages import message, written

DESCRIPTION = {"homie": "5.0", "nodes": {"tank": {"properties": {"level": {"datatype": "float", "unit": "%"}}}}}
SENSOR = {"stat_t": "attic/t", "unit_of_meas": "°C", "dev": {"ids": "a1"}}
SHARED = {"stat_t": "attic/data", "unit_of_meas": "°C", "val_tpl": "{{ value_json.t }}"}
BESIDE = {"stat_t": "attic/data", "unit_of_meas": "%", "val_tpl": "{{ value_json.rh }}"}
NODE = {"stat_t": "porch/sensor/out/state", "unit_of_meas": "°C"}
INVERTER = {"stat_t": "solar_assistant/total/pv_power/state", "unit_of_meas": "W"}
ZWAVE = {"state_topic": "zwave/8/128/0/level", "unit_of_measurement": "%", "value_template": "{{ value_json.value }}"}
CONTROL = "/devices/d/controls/c"

# The descriptions, then a value, and the unit that it has by them.
Late = tuple[Sequence[tuple[str, object]], tuple[str, object], dict[str, str]]
LATE: dict[str, Late] = {
    "homie5": ([("homie/5/b/$description", DESCRIPTION)], ("homie/5/b/tank/level", "61.5"), {"tank.level": "%"}),
    "homie5 renamed": ([("plant/5/b/$description", DESCRIPTION)], ("plant/5/b/tank/level", "6"), {"tank.level": "%"}),
    "homie4": ([("homie/b/tank/level/$unit", "%")], ("homie/b/tank/level", "61.5"), {"tank.level": "%"}),
    "homie4, the datatype first": (
        [("cellar/b/tank/level/$datatype", "float"), ("cellar/b/tank/level/$unit", "%")],
        ("cellar/b/tank/level", "61.5"),
        {"tank.level": "%"},
    ),
    "homeassistant": ([("homeassistant/sensor/t/config", SENSOR)], ("attic/t", "21.5"), {"t": "Cel"}),
    "homeassistant, two entities": (
        [("homeassistant/sensor/t/config", SHARED), ("homeassistant/sensor/rh/config", BESIDE)],
        ("attic/data", {"t": 21.5, "rh": 40}),
        {"t": "Cel", "rh": "%"},
    ),
    "esphome": ([("homeassistant/sensor/porch/out/config", NODE)], ("porch/sensor/out/state", "3"), {"out": "Cel"}),
    "solar_assistant": (
        [("homeassistant/sensor/pv/config", INVERTER)],
        ("solar_assistant/total/pv_power/state", "3"),
        {"pv_power": "W"},
    ),
    "zwavejs": (
        [("homeassistant/sensor/n8/battery/config", ZWAVE)],
        ("zwave/8/128/0/level", {"time": 1795337000000, "value": 87}),
        {"128.0.level": "%"},
    ),
    "wirenboard": ([(f"{CONTROL}/meta", {"units": "W"})], (CONTROL, "5"), {"c": "W"}),
    "wirenboard, a topic each": (
        [(f"{CONTROL}/meta/type", "value"), (f"{CONTROL}/meta/units", "W")],
        (CONTROL, "5"),
        {"c": "W"},
    ),
    "valetudo": (
        [("valetudo/r/ConsumableMonitoringCapability/filter/$unit", "%")],
        ("valetudo/r/ConsumableMonitoringCapability/filter", "0"),
        {"ConsumableMonitoringCapability.filter": "%"},
    ),
}


def sent(topic: str, payload: object) -> Message:
    text = payload if isinstance(payload, str) else json.dumps(payload)
    return message(text.encode(), topic)


def only(outcome: Outcome) -> Event:
    assert not isinstance(outcome, Rejection)
    (event,) = outcome
    return event


@pytest.mark.parametrize("name", LATE)
def test_a_description_after_the_value_gives_it_its_unit_when_it_is_read_again(name: str) -> None:
    descriptions, value, units = LATE[name]
    formats = Formats()
    assert only(formats.read(sent(*value))).units is None
    for description in descriptions:
        formats.read(sent(*description))
    after = only(formats.read_again(sent(*value)))
    assert after.units == units
    assert set((after.unit_sources or {}).values()) == {"learned"}


@pytest.mark.parametrize("name", LATE)
def test_every_description_asks_for_the_value_whatever_came_before_it(name: str) -> None:
    descriptions, (topic, _), _ = LATE[name]
    formats = Formats()
    for description in descriptions:
        formats.read(sent(*description))
        filters = [wanted for reread in formats.take_lessons().rereads for wanted in reread.topics]
        assert any(takes(wanted.split("/"), topic.split("/")) for wanted in filters)


@pytest.mark.parametrize("name", LATE)
def test_no_description_asks_for_more_than_its_device(name: str) -> None:
    descriptions, _, _ = LATE[name]
    formats = Formats()
    for description in descriptions:
        formats.read(sent(*description))
    for reread in formats.take_lessons().rereads:
        for wanted in reread.topics:
            assert not takes(wanted.split("/"), ["homie", "5", "other", "tank", "level"])
            assert not wanted.startswith(("#", "+"))
            assert "#" not in wanted


@pytest.mark.parametrize("name", LATE)
def test_lessons_survive_a_restart(name: str) -> None:
    descriptions, value, units = LATE[name]
    formats = Formats()
    for description in descriptions:
        formats.read(sent(*description))
    restarted = Formats(facts=formats.take_lessons().facts)
    outcome = restarted.read(sent(*value))
    assert written(outcome) == written(formats.read(sent(*value)))
    assert only(outcome).units == units


@pytest.mark.parametrize("name", LATE)
def test_a_description_that_is_repeated_teaches_nothing_new(name: str) -> None:
    descriptions, _, _ = LATE[name]
    formats = Formats()
    for description in [*descriptions, *descriptions]:
        formats.read(sent(*description))
    formats.take_lessons()
    for description in descriptions:
        formats.read(sent(*description))
    lessons = formats.take_lessons()
    assert (lessons.facts, lessons.rereads) == ((), ())


def test_a_rejection_under_a_wrong_datatype_is_asked_for_when_the_datatype_is_mended() -> None:
    formats = Formats()
    formats.read(sent("homie/b/tank/level/$datatype", "integer"))
    assert isinstance(formats.read(sent("homie/b/tank/level", "full")), Rejection)
    formats.take_lessons()
    formats.read(sent("homie/b/tank/level/$datatype", "enum"))
    (reread,) = formats.take_lessons().rereads
    assert (reread.format, reread.topics[0]) == ("homie4", "homie/b/tank/level")
    assert not isinstance(formats.read_again(sent("homie/b/tank/level", "full")), Rejection)


def test_a_configuration_that_is_taken_away_is_forgotten_after_a_restart_too() -> None:
    formats = Formats()
    formats.read(sent("homeassistant/sensor/t/config", SENSOR))
    kept = list(formats.take_lessons().facts)
    restarted = Formats(facts=kept)
    restarted.read(sent("homeassistant/sensor/t/config", ""))
    assert {fact.value for fact in restarted.take_lessons().facts} == {None}
    event = only(restarted.read(sent("attic/t", "21.5")))
    assert (event.format, event.units) == ("plain", None)


def test_a_family_wins_over_the_discovery_that_announced_its_topic() -> None:
    formats = Formats()
    formats.read(sent("homeassistant/sensor/porch/out/config", NODE))
    event = only(formats.read(sent("porch/sensor/out/state", "3")))
    assert event.format == "esphome"


def test_many_entities_on_one_topic_stay_bounded() -> None:
    formats = Formats()
    for n in range(400):
        formats.read(sent(f"homeassistant/sensor/e{n}/config", {**SHARED, "val_tpl": f"{{{{ value_json.v{n} }}}}"}))
    event = only(formats.read(sent("attic/data", {f"v{n}": n for n in range(400)})))
    assert len(event.units or {}) == 256


@pytest.mark.parametrize(
    "config",
    [
        {"stat_t": 5, "dev": []},
        {"stat_t": "a/+/b", "avty_t": "#"},
        {"cmps": {"a": 1, "b": None, "c": []}, "dev": {"ids": {}}},
        {"cmps": {"a": {"p": {}, "stat_t": ["x"], "avty": "x"}}, "~": 7},
        {"dev": {"ids": [], "cns": [[]], "name": None}, "avty": [{"t": None}, 5]},
        {"stat_t": "a/b", "val_tpl": "{{ value_json" + ".a" * 150 + " }}", "pl_on": {}, "pl_off": []},
        {"stat_t": "a/b", "val_tpl": "{{ value_json[" * 20, "unit_of_meas": 5},
    ],
)
def test_a_strange_configuration_stops_nothing(config: object) -> None:
    formats = Formats()
    formats.read(sent("homeassistant/device/x/config", config))
    formats.read(sent("homeassistant/switch/x/config", config))
    for payload in ("ON", {"a": 1}, "", "[1]"):
        assert not isinstance(formats.read(sent("a/b", payload)), Rejection)


@pytest.mark.parametrize("nodes", [5, [], {"a": 5}, {"a": {"properties": []}}, {"a": {"properties": {"b": 5}}}])
def test_a_strange_description_stops_nothing(nodes: object) -> None:
    formats = Formats()
    outcome = formats.read(sent("homie/5/x/$description", {"homie": "5.0", "nodes": nodes, "root": 5}))
    assert not isinstance(outcome, Rejection)


EVERY_TOPIC = """
homie/5/x/$description homie/5/x/n/p homie/5/x/n/p/set homie/5/x/$state homie/5/x/$alert/a homie/5/$broadcast/a
homie/x/n/p homie/x/$state homie/x/n/p/$unit homie/x/$stats/uptime homie/$broadcast/a homie/x/n/$name
homeassistant/sensor/x/config homeassistant/device/x/config homeassistant/light/x/state homeassistant/status a/b
n/sensor/x/state n/light/x/state n/climate/x/mode/state esphome/discover/n n/debug n/event/e/state
/devices/d/controls/c /devices/d/controls/c/meta /devices/d/controls/c/meta/units /devices/d/meta/error
zwave/8/38/0/x zwave/8/status zwave/8/nodeinfo zwave/_CLIENTS/ZWAVE_GATEWAY-x/api/y zwave/8/lastActive z
zwave/_EVENTS_/ZWAVE_GATEWAY-x/node/y zwave/_CLIENTS/ZWAVE_GATEWAY-x/status solar_assistant/x/y/state
valetudo/r/StatusStateAttribute/error valetudo/r/ValetudoEvents/valetudo_events valetudo/r/MapData/map-data
"""
EVERY_KEY = """
homie nodes properties stat_t state_topic dev ids cmps p ~ avty t val_tpl value time commandClass property endpoint
commandClassName propertyName propertyKey lastUpdate data __class nodeName unit units type name root datatype
"""
WORDS = [
    "",
    "a/b",
    "~/x",
    "{{ value_json.a }}",
    "NaN",
    "1e999",
    "9" * 400,
    "0" * 30,
    "-",
    "[",
    "{",
    '"',
    "ON",
    "homie5",
]
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.sampled_from(WORDS)
    | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(EVERY_KEY.split()), inner, max_size=5),
    max_leaves=12,
)
payloads = (
    json_values.map(lambda node: json.dumps(node).encode()) | st.sampled_from(WORDS).map(str.encode) | st.binary()
)


@given(st.lists(st.tuples(st.sampled_from(EVERY_TOPIC.split()), payloads), min_size=1, max_size=5))
@settings(max_examples=300, deadline=None)
def test_no_description_and_no_value_is_beyond_them(messages: list[tuple[str, bytes]]) -> None:
    formats = Formats()
    for topic, payload in messages:
        outcome = formats.read(message(payload, topic))
        if isinstance(outcome, Rejection):
            assert not outcome.reason.startswith(("the format failed", "the format gave")), outcome.reason
        again = formats.read_again(message(payload, topic))
        assert written(again) == written(formats.read_again(message(payload, topic)))
