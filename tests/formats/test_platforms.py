"""The platforms' formats (clouds, twins, context brokers): what holds for all of their messages."""

from __future__ import annotations

import random
from pathlib import Path
from time import perf_counter

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.formats import Formats
from storage.event import Lessons, Message, Rejection
from tests.formats.messages import message, written
from tests.formats.storable import assert_storable
from tests.formats.test_cases import CASES, Case

FAMILIES = ("aws_shadow", "azure", "ditto", "fiware", "ngsi", "sensorthings", "teslamate", "thingsboard", "wot")
WORDS = """
state reported desired metadata timestamp version code previous current value ac __t $version ts values device data
method params secretKey topic path revision status extra result phenomenonTime Datastream Datastreams Observations
components dataArray unitOfMeasurement location coordinates type Point name id @iot.id @context title security
securityDefinitions properties forms mqv:topic mqv:filter subscriptionId entities actionType body observedAt unitCode
object @value TimeInstant dt fields error latitude longitude
"""


def cases() -> list[tuple[str, Case]]:
    paths = sorted(path for family in FAMILIES for path in (CASES / family).glob("*.json"))
    return [(named(path), msgspec.json.decode(path.read_bytes(), type=Case)) for path in paths]


def named(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


SENT = [case.message() for _, case in cases()]
TOPICS = sorted({sent.topic for sent in SENT})

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(
        ["", "2026-11-22T08:59:00Z", "a/b/things/twin/commands/modify", "urn:ngsi-ld:a", "geo:point", "1,2"]
    )
    | st.text(max_size=8)
)
keys = st.sampled_from(WORDS.split()) | st.text(max_size=4)
documents = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=5), max_leaves=20
)


@given(st.sampled_from(TOPICS), documents)
@settings(max_examples=1_500, deadline=None)
def test_any_json_on_their_topics_can_be_stored_or_is_rejected(topic: str, document: object) -> None:
    sent = message(msgspec.json.encode(document), topic)
    assert_storable(Formats().read_in_full(sent), sent)


@given(st.sampled_from(TOPICS), st.text(alphabet="|#@=.\"'[]{}:,/0123456789TZ-abt\n", max_size=40))
@settings(max_examples=500, deadline=None)
def test_any_text_on_their_topics_can_be_stored_or_is_rejected(topic: str, text: str) -> None:
    sent = message(text.encode(), topic)
    assert_storable(Formats().read_in_full(sent), sent)


@pytest.mark.parametrize("seed", range(4))
def test_good_messages_that_were_damaged_can_be_stored_or_are_rejected(seed: int) -> None:
    chance = random.Random(seed)
    formats = Formats()
    for sent in SENT:
        payload = bytearray(sent.payload or b"?")
        payload[chance.randrange(len(payload))] = chance.randrange(256)
        damaged = message(bytes(payload), sent.topic, sent.properties)
        assert_storable(formats.read_in_full(damaged), damaged)
        elsewhere = message(sent.payload, chance.choice(TOPICS), sent.properties)
        assert_storable(formats.read_in_full(elsewhere), elsewhere)


@pytest.mark.parametrize(("name", "case"), cases())
def test_reading_again_gives_the_same(name: str, case: Case) -> None:
    formats = Formats()
    for earlier in case.before:
        formats.read(earlier.message())
    sent = case.message()
    assert written(formats.read(sent)) == written(formats.read_again(sent)), name


@pytest.mark.parametrize(
    ("topic", "payload"),
    [
        ("v1/gateway/telemetry", b'{"a":[' + b'{"ts":1763802000000,"values":{"a":1}},' * 25_000 + b"{}]}"),
        ("/ul/k/d/attrs", b"a|1#" * 250_000 + b"a|1"),
        ("/json/k/d/attrs", b"[" + b'{"a":1},' * 120_000 + b"{}]"),
        ("v1.1/Things", b'{"@iot.id":1,"Datastreams":[' + b'{"Observations":[{"result":1}]},' * 30_000 + b"{}]}"),
        ("any", b'{"subscriptionId":"s","data":[' + b'{"id":"a","b":1},' * 55_000 + b'{"id":"a"}]}'),
        ("any", b'{"id":"a","type":"b","c":' + b'{"type":"Property","value":[' * 20_000 + b"]}" * 20_000 + b"}"),
        ("$iothub/twin/PATCH/properties/reported/?$rid=1", b'{"a":' * 500 + b"1" + b"}" * 500),
    ],
    ids=lambda value: str(value[:20]),
)
def test_a_megabyte_for_them_takes_no_time_worth_speaking_of(topic: str, payload: bytes) -> None:
    sent = message(payload, topic)
    started = perf_counter()
    outcome = Formats().read(sent)
    assert perf_counter() - started < 3  # a tenth of it on a quiet machine
    assert isinstance(outcome, Rejection)


def test_a_description_says_which_messages_it_lets_read_better() -> None:
    assert rereads("wot", "description") == {
        "plant/boiler-3/alarm",
        "plant/boiler-3/sensor/t",
        "plant/boiler-3/status",
        "plant/boiler-3/target/write",
        "plant/boiler-3/valve/purge",
    }


def test_a_datastream_says_which_observations_it_gives_a_unit() -> None:
    assert rereads("sensorthings", "datastream") == {"v1.1/Datastreams(7)/Observations"}


def rereads(family: str, name: str) -> set[str]:
    formats = Formats()
    case = msgspec.json.decode((CASES / family / f"{name}.json").read_bytes(), type=Case)
    formats.read(case.message())
    lessons: Lessons = formats.take_lessons()
    return {topic for reread in lessons.rereads for topic in reread.topics}


@pytest.mark.parametrize("topic", ["devices/x/telemetry", "sensors/x/y", "factory/line/machine/data"])
def test_ordinary_telemetry_is_not_theirs(topic: str) -> None:
    sent: Message = message(b'{"id":"s1","temperature":21.5,"data":{"humidity":40}}', topic)
    _, trials = Formats().trials(sent)
    assert not {trial.format for trial in trials} & set(OWN_NAMES)


OWN_NAMES = (
    "aws_iot_shadow",
    "azure_iot",
    "ditto_protocol",
    "fiware_ul",
    "fiware_json",
    "ngsi_v2",
    "ngsi_ld",
    "sensorthings",
    "teslamate",
    "thingsboard",
    "wot",
)
