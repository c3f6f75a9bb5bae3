"""Claims about the user's rules: the first that takes a topic wins over whatever the formats would say."""

from __future__ import annotations

from collections.abc import Sequence
from zoneinfo import ZoneInfo

import pytest

from gateway.formats import IGNORED, Format, Formats, Unreadable, rule
from gateway.formats.body import Body
from storage.event import Event, Message, Outcome, Rejection
from tests.formats.messages import NOW, message


def lone(outcome: Outcome) -> Event:
    assert not isinstance(outcome, Rejection), outcome
    (event,) = outcome
    return event


def test_a_named_level_is_the_device() -> None:
    formats = Formats(rules=[rule("site/{site}/{device}/#")])
    assert lone(formats.read(message(b'{"t":1}', "site/berlin/pump-7/raw/telemetry"))).device == "pump-7"


def test_a_device_is_put_together_from_named_levels() -> None:
    formats = Formats(rules=[rule("{site}/+/{unit}", device="{site}-{unit}")])
    assert lone(formats.read(message(b"4", "berlin/hall/3"))).device == "berlin-3"


def test_the_first_rule_that_takes_the_topic_counts() -> None:
    formats = Formats(rules=[rule("a/b", device="first"), rule("a/#", device="second")])
    assert lone(formats.read(message(b"1", "a/b"))).device == "first"
    assert lone(formats.read(message(b"1", "a/c"))).device == "second"
    assert lone(formats.read(message(b"1", "b/c"))).device == "b"


def test_raw_keeps_the_message_and_reads_nothing_and_ignore_does_not_keep_it() -> None:
    formats = Formats(rules=[rule("cam/#", format="raw"), rule("noise/#", format="ignore")])
    assert formats.read(message(b'{"a":1}', "cam/1")) == ()
    assert formats.read(message(b'{"a":1}', "noise/1")) is IGNORED


def test_units_kind_and_scale_stand_over_what_the_format_says() -> None:
    formats = Formats(
        rules=[rule("m/#", units_by_reading={"p": "°C", "q": "kWh"}, scale={"p": 0.1}, kind="state", device="meter")]
    )
    event = lone(formats.read(message(b'{"p":{"value":215,"unit":"W"},"on":true,"word":"x"}', "m/x")))
    assert event.readings == {"p": 21.5, "on": True, "word": "x"}
    assert event.units == {"p": "Cel"}
    assert event.unit_sources == {"p": "rule"}
    assert (event.device, event.kind) == ("meter", "state")


def test_a_scale_leaves_booleans_texts_and_missing_values_alone() -> None:
    formats = Formats(rules=[rule("m", scale={"a": 0.1, "b": 0.1, "c": 0.1, "d": 0.1})])
    event = lone(formats.read(message(b'{"a":3,"b":true,"c":"3","d":null}', "m")))
    assert event.readings == {"a": 0.3, "b": True, "c": "3", "d": None}


def test_paths_find_device_time_and_readings_in_json() -> None:
    wanted = rule(
        "plant/#",
        readings={"temperature": "data.sensors[?type=='t'].value | [0]", "lost": "data.nothing"},
        device_path="meta.name",
        time_path="meta.at",
        units_by_reading={"temperature": "Cel"},
    )
    payload = (
        b'{"meta":{"name":"kiln","at":1763802000},"data":{"sensors":[{"type":"p","value":1},{"type":"t","value":980}]}}'
    )
    event = lone(Formats(rules=[wanted]).read(message(payload, "plant/x")))
    assert event.format == "rule"
    assert (event.device, event.readings, event.units) == ("kiln", {"temperature": 980}, {"temperature": "Cel"})
    assert (event.observed_at, event.from_device) == (1_763_802_000_000_000, True)


@pytest.mark.parametrize("payload", [b"21.5", b"{", b"\xff", b""])
def test_paths_into_what_is_no_json_reject_it(payload: bytes) -> None:
    outcome = Formats(rules=[rule("p", readings={"t": "t"})]).read(message(payload, "p"))
    assert isinstance(outcome, Rejection)
    assert outcome.format == "rule"


def test_a_path_that_fails_on_a_message_costs_a_rejection() -> None:
    outcome = Formats(rules=[rule("p", readings={"t": "length(t)"})]).read(message(b'{"t":5}', "p"))
    assert isinstance(outcome, Rejection)
    assert "length(t)" in outcome.reason


def test_local_times_are_believed_where_a_rule_names_the_zone() -> None:
    payload = b'{"time":"2026-07-01T12:00:00","t":1}'
    formats = Formats(rules=[rule("here/#", zone=ZoneInfo("Europe/Berlin"))])
    assert lone(formats.read(message(payload, "here/x"))).observed_at == 1_782_900_000_000_000
    assert lone(formats.read(message(payload, "there/x"))).observed_at == NOW


def test_a_format_named_by_a_rule_reads_topics_that_nothing_speaks_for() -> None:
    def levels(sent: Message, body: Body) -> Sequence[Event] | None:
        if body.text is None or "=" not in body.text:
            return None
        if body.text.endswith("="):
            raise Unreadable("a level without a value")
        name, _, value = body.text.partition("=")
        return [Event("pond", "measurement", "pond", sent.received_at, {name: float(value)})]

    pond = Format(name="pond", read=levels, topics=("pond/#",))
    formats = Formats(specific=[pond], rules=[rule("other/#", format="pond")])
    assert lone(formats.read(message(b"level=2", "other/x"))).readings == {"level": 2.0}
    assert formats.read(message(b"level=", "other/x")) == Rejection("a level without a value", "pond")
    refused = formats.read(message(b"21", "other/x"))
    assert refused == Rejection("the rule for other/# says pond, which this is not")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"topic": "a/#/b"}, "# may only be the last level"),
        ({"topic": ""}, "no topic filter"),
        ({"topic": "a/b+"}, "whole level"),
        ({"topic": "{x}/{x}"}, "two levels"),
        ({"topic": "a/+", "device": "{name}"}, "no level of the topic"),
        ({"topic": "a", "units_by_reading": {"t": "degrees of warmth"}}, "no unit that Amber knows"),
        ({"topic": "a", "readings": {"t": "a["}}, "no JMESPath expression"),
        ({"topic": "a", "time_path": "t"}, "need readings"),
        ({"topic": "a", "readings": {"t": "t"}, "format": "json"}, "leave format"),
        ({"topic": "a", "readings": {"t": "t"}, "device": "x", "device_path": "y"}, "write one of them"),
    ],
)
def test_a_rule_that_cannot_work_says_what_to_write(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said.replace("#", r"\#")):
        rule(**wrong)  # type: ignore[arg-type]


def test_a_rule_for_a_format_that_is_none_names_those_that_are() -> None:
    with pytest.raises(ValueError, match=r"'jsno' is no format, did you mean 'json'"):
        Formats(rules=[rule("a", format="jsno")])


def test_a_scaled_reading_keeps_all_the_digits_that_a_double_has() -> None:
    formats = Formats(rules=[rule("meter/#", scale={"wh": 0.001, "n": 0.1})])
    found = lone(formats.read(message(b'{"wh":1234567890123,"n":3}', "meter/x")))
    assert found.readings == {"wh": 1234567890.123, "n": 0.3}


def test_a_reading_that_a_scale_brings_beyond_all_numbers_has_no_value() -> None:
    def great(sent: Message, _body: Body) -> Sequence[Event] | None:
        return [Event("d", "measurement", "great", sent.received_at, {"x": 10**400, "y": 1e308})]

    rows = [Format(name="great", read=great, topics=("great",))]
    formats = Formats(specific=rows, rules=[rule("great", scale={"x": 10.0, "y": 10.0})])
    assert lone(formats.read(message(b"1", "great"))).readings == {"x": None, "y": None}


@pytest.mark.parametrize("factor", [float("nan"), float("inf")])
def test_a_factor_that_is_no_number_is_refused(factor: float) -> None:
    with pytest.raises(ValueError, match=r"scale\.t = .* is no factor"):
        rule("a", scale={"t": factor})
