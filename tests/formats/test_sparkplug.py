"""What Sparkplug B needs more than one message for: births that come late or again, and births of great size."""

from __future__ import annotations

import pytest

from gateway.formats import Formats
from storage.event import Event, Outcome, Rejection
from tests.formats import wire
from tests.formats.messages import NOW, message

SENT = NOW // 1_000
FLOAT = 9


def payload(*metrics: bytes, seq: int = 0, sent: int = SENT) -> bytes:
    return wire.message((1, sent), *((2, metric) for metric in metrics), (3, seq))


def metric(name: str | None, alias: int | None, value: float, at: int = SENT) -> bytes:
    parts: list[tuple[int, wire.Value]] = [(3, at), (4, FLOAT), (12, wire.Single(value))]
    if alias is not None:
        parts.insert(0, (2, alias))
    if name is not None:
        parts.insert(0, (1, name))
    return wire.message(*parts)


NBIRTH, NDATA = "spBv1.0/g/NBIRTH/e", "spBv1.0/g/NDATA/e"
DBIRTH, DDATA = "spBv1.0/g/DBIRTH/e/d", "spBv1.0/g/DDATA/e/d"
DATA = message(payload(metric(None, 5, 1.5)), DDATA)


def event(outcome: Outcome) -> Event:
    assert not isinstance(outcome, Rejection), outcome
    (only,) = outcome
    return only


def test_data_before_its_birth_is_read_when_the_birth_has_come() -> None:
    formats = Formats()
    before = event(formats.read(DATA))
    assert before.readings == {"alias:5": 1.5}
    assert before.detail is not None
    assert before.detail.provisional
    formats.read(message(payload(metric("Level", 5, 1.0)), DBIRTH))
    assert event(formats.read_again(DATA)).readings == {"Level": 1.5}


@pytest.mark.parametrize(
    ("topic", "again"),
    [
        (NBIRTH, (NDATA, "spBv1.0/g/NCMD/e", "spBv1.0/g/DDATA/e/+", "spBv1.0/g/DCMD/e/+")),
        (DBIRTH, (DDATA, "spBv1.0/g/DCMD/e/d")),
    ],
)
def test_a_birth_has_no_more_read_again_than_the_data_of_its_edge_node(topic: str, again: tuple[str, ...]) -> None:
    formats = Formats()
    formats.read(message(payload(metric("Level", 5, 1.0)), topic))
    (reread,) = formats.take_lessons().rereads
    assert reread.topics == again


def test_a_birth_that_is_repeated_teaches_nothing_new() -> None:
    formats = Formats()
    birth = message(payload(metric("Level", 5, 1.0)), DBIRTH)
    formats.read(birth)
    formats.take_lessons()
    formats.read(birth)
    assert formats.take_lessons().facts == ()


def test_births_outlive_the_process() -> None:
    formats = Formats()
    formats.read(message(payload(metric("Level", 5, 1.0)), DBIRTH))
    restarted = Formats(facts=formats.take_lessons().facts)
    assert event(restarted.read(DATA)).readings == {"Level": 1.5}


def test_an_edge_node_that_is_born_again_waits_for_its_devices() -> None:
    formats = Formats()
    births = [message(payload(metric(name, alias, 1.0)), topic) for name, alias, topic in CASE]
    for birth in births:
        formats.read(birth)
    assert event(formats.read(DATA)).readings == {"Level": 1.5}
    formats.read(message(payload(metric("Uptime", 1, 2.0), sent=SENT + 1), NBIRTH))
    assert event(formats.read(DATA)).readings == {"alias:5": 1.5}
    formats.read(births[1])
    assert event(formats.read(DATA)).readings == {"Level": 1.5}


CASE = (("Uptime", 1, NBIRTH), ("Level", 5, DBIRTH))


def test_edge_nodes_and_groups_do_not_share_aliases() -> None:
    formats = Formats()
    formats.read(message(payload(metric("Level", 5, 1.0)), DBIRTH))
    for topic in ("spBv1.0/g/DDATA/other/d", "spBv1.0/other/DDATA/e/d", "spBv1.0/g/DDATA/e/other"):
        assert event(formats.read(message(DATA.payload, topic))).readings == {"alias:5": 1.5}


@pytest.mark.parametrize("spread", [0, 1], ids=["one time", "each its own"])
def test_a_birth_of_five_thousand_metrics_is_read_and_learned(spread: int) -> None:
    formats = Formats()
    metrics = [metric(f"Line/{n}", n, n / 2, SENT - spread * n) for n in range(5_000)]
    birth = event(formats.read(message(payload(*metrics), DBIRTH)))
    assert len(birth.readings) == 5_000
    assert birth.observed_at == NOW
    data = event(formats.read(message(payload(metric(None, 4_999, 0.3)), DDATA)))
    assert data.readings == {"Line/4999": 0.3}


@pytest.mark.parametrize("cut", range(1, 40))
def test_a_payload_that_is_cut_anywhere_never_fails_otherwise(cut: int) -> None:
    whole = payload(metric("Level", 5, 1.0), metric("Flow", 6, 2.0))
    outcome = Formats().read(message(whole[:-cut], DDATA))
    assert not isinstance(outcome, Rejection) or "failed" not in outcome.reason


def test_facts_are_small() -> None:
    formats = Formats()
    formats.read(message(payload(*(metric(f"Line/{n}", n, 1.0) for n in range(5_000))), DBIRTH))
    facts = formats.take_lessons().facts
    assert {len(fact.value or "") < 300_000 for fact in facts} == {True}
    for number in range(1_100):
        formats.read(message(payload(metric("Level", 5, 1.0)), f"spBv1.0/g/DBIRTH/e/{number}"))
    behind = next(fact.value for fact in reversed(formats.take_lessons().facts) if fact.key == "spBv1.0/g/e/#")
    assert len(behind or "") < 10_000


def deaths(outcome: Outcome) -> list[tuple[str, str | None]]:
    """Who has died, and behind whom."""
    assert not isinstance(outcome, Rejection), outcome
    assert {one.kind for one in outcome} == {"death"}
    return [(one.device, one.detail.via if one.detail else None) for one in outcome]


NDEATH = message(wire.message((2, wire.message((1, "bdSeq"), (4, 4), (11, 0)))), "spBv1.0/g/NDEATH/e")


def test_with_an_edge_node_all_die_that_were_born_behind_it() -> None:
    formats = Formats()
    assert deaths(formats.read(NDEATH)) == [("g/e", None)]
    for topic in (NBIRTH, DBIRTH, "spBv1.0/g/DBIRTH/e/d2", DBIRTH, "spBv1.0/g/DBIRTH/other/d3"):
        formats.read(message(payload(metric("Level", 5, 1.0)), topic))
    all_of_them = [("g/e", None), ("g/e/d", "g/e"), ("g/e/d2", "g/e")]
    assert deaths(formats.read(NDEATH)) == all_of_them
    restarted = Formats(facts=formats.take_lessons().facts)
    assert deaths(restarted.read(NDEATH)) == all_of_them
    formats.read(message(payload(metric("Level", 5, 1.0)), NBIRTH))
    formats.read(message(payload(metric("Level", 5, 1.0)), "spBv1.0/g/DBIRTH/e/d2"))
    assert deaths(formats.read(NDEATH)) == [("g/e", None), ("g/e/d2", "g/e")]
