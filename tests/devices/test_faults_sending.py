"""Messages that come twice, late, in another order, or broken, each fault in its own way."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from functools import cache
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from devices.dialects import DIALECTS, speak
from devices.faults import Faults, Spell
from devices.faults.sending import FAULTS, TOO_LARGE_BYTES, TURNS
from devices.fleet import Fleet
from devices.models import MODELS
from devices.outgoing import Outgoing
from devices.telemetry import telemetry
from gateway.formats import Formats
from storage.event import Message, Properties, Rejection
from tests.devices.faulty import EVERY, START_US, digest, fleet_of, is_share, one_of, only, sent, struck

EVERY_OF_SENDING = Faults(duplicate=0.1, conflict=0.1, out_of_order=0.1, garbage=0.1, truncated=0.1, oversize=0.01)
BROKEN = {"garbage", "truncated", "oversize"}


def originals(messages: list[Outgoing]) -> list[Outgoing]:
    return [message for message in messages if not message.copy]


def payloads(fleet: Fleet, number: int) -> dict[int, bytes]:
    """By the number that a message bears."""
    return {message.seq: message.publication.payload for message in sent(fleet, number)}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_strikes_the_share_that_was_asked_for(fault: str) -> None:
    share, number = (0.02, 2_000) if fault == "oversize" else (0.05, 4_000)
    messages = sent(fleet_of(only(fault, share)), number)
    assert is_share(len(struck(messages, fault)), len(originals(messages)), share)


def test_a_duplicate_is_the_same_message_sent_again() -> None:
    messages = sent(fleet_of(Faults(duplicate=0.1)), 2_000)
    first = {message.seq: message for message in originals(messages)}
    copies = [message for message in messages if message.copy]
    for copy in copies:
        assert copy == replace(first[copy.seq], copy=1, due_us=copy.due_us, faults=("duplicate",))
        assert copy.identified
    later = {copy.seq: messages.index(copy) - messages.index(first[copy.seq]) for copy in copies}
    assert min(later.values()) == 1  # at once
    assert max(later.values()) > TURNS  # behind three others, and maybe copies of them
    assert len({message.key for message in messages}) == len(messages)


def test_a_conflict_has_the_same_identity_and_another_reading() -> None:
    messages = sent(fleet_of(Faults(conflict=0.1), model="meter"), 2_000)
    first = {message.seq: message for message in originals(messages)}
    for copy in (message for message in messages if message.copy):
        said, was = json.loads(copy.publication.payload), json.loads(first[copy.seq].publication.payload)
        other, readings = said.pop("readings"), was.pop("readings")
        assert said == was
        assert other.keys() == readings.keys()
        assert sum(other[name] != readings[name] for name in other) == 1
        assert (copy.copy, copy.identified, copy.expect, copy.faults) == (2, True, "event", ("conflict",))


@pytest.mark.parametrize("model", ["door", "tracker"])
def test_a_conflict_is_of_the_same_type(model: str) -> None:
    messages = sent(fleet_of(Faults(conflict=1.0), model=model), 200)
    said = [json.loads(message.publication.payload)["readings"] for message in messages]
    assert {tuple(type(value) for value in readings.values()) for readings in said} <= {
        (str, int),
        (float, float, float),
    }
    assert len(struck(messages, "conflict")) > 80


def test_where_no_identity_is_told_there_is_no_conflict() -> None:
    messages = sent(fleet_of(Faults(conflict=1.0), dialect="influx"), 50)
    assert [message.copy for message in messages] == [0] * 50


def test_what_is_out_of_order_comes_after_some_that_follow_it() -> None:
    """Unless these are held back themselves."""
    messages = sent(fleet_of(Faults(out_of_order=0.05)), 1_200)
    seqs = [message.seq for message in messages]
    passed = {seq: sum(other > seq for other in seqs[:place]) for place, seq in enumerate(seqs)}
    held = {message.seq for message in messages if message.faults}
    assert {seq for seq in seqs if passed[seq]} <= held
    assert {seq for seq in held if not passed[seq]} <= {seq for seq in held if seq + 1 in held}
    assert {passed[seq] for seq in held if seq + 1 not in held} == {1, 2, 3}
    assert set(range(1_190)) <= set(seqs)


def test_garbage_has_nothing_of_the_message() -> None:
    messages = sent(fleet_of(Faults(garbage=0.1)), 2_000)
    for message in messages:
        if message.faults:
            assert b"device" not in message.publication.payload
            assert (message.expect, message.identified) == ("rejection", False)
    broken = [message.publication.payload for message in messages if message.faults]
    assert len(set(broken)) == len(broken)


def test_what_breaks_off_is_the_beginning_of_the_message() -> None:
    whole, messages = payloads(fleet_of(), 2_000), sent(fleet_of(Faults(truncated=0.1)), 2_000)
    for message in messages:
        payload = message.publication.payload
        assert whole[message.seq].startswith(payload)
        assert (len(payload) < len(whole[message.seq])) == (message.faults == ("truncated",))
        assert message.identified == (not message.faults)


def test_what_is_too_large_is_that_and_nothing_else() -> None:
    whole, messages = payloads(fleet_of(), 200), sent(fleet_of(Faults(oversize=0.1)), 200)
    assert struck(messages, "oversize")
    for message in messages:
        payload = message.publication.payload
        assert payload.rstrip() == whole[message.seq]
        assert (len(payload) >= TOO_LARGE_BYTES) == (message.faults == ("oversize",))


@pytest.mark.parametrize("share", [0.1, 0.5, 1.0])
def test_messages_are_in_the_order_in_which_they_are_due_and_none_is_lost(share: float) -> None:
    faults = Faults(out_of_order=share, duplicate=share, conflict=share, garbage=share)
    messages = sent(fleet_of(faults), 1_000)
    assert all(before.due_us <= after.due_us for before, after in pairwise(messages))
    last = max(message.seq for message in messages)
    missing = set(range(last)) - {message.seq for message in originals(messages)}
    assert all(seq >= last - TURNS for seq in missing)  # they are still held back


@pytest.mark.parametrize("dialect", ["json", "homie"])
@pytest.mark.parametrize("fault", FAULTS)
def test_no_fault_changes_what_another_does(fault: str, dialect: str) -> None:
    """But where a message is broken already: it is not broken once more, and nothing contradicts it."""
    alone = sent(fleet_of(only(fault, getattr(EVERY_BUT_THE_CLOCK, fault)), dialect=dialect), 1_500)
    together = sent_with_every_fault(dialect)
    both = measured(alone) & measured(together)
    assert len(both) > 500
    if fault in BROKEN | {"conflict"}:
        both -= measured(message for message in together if BROKEN - {fault} & set(message.faults))
    here, there = (measured(message for message in run if fault in message.faults) for run in (alone, together))
    assert here & both == there & both
    assert (here & both != set()) == (dialect == "json" or fault != "conflict")


EVERY_BUT_THE_CLOCK = replace(EVERY, missing=0.0, clock_skew_s=0.0, clock_drift_ppm=0.0, clock_reset=None)


@cache
def sent_with_every_fault(dialect: str) -> list[Outgoing]:
    return sent(fleet_of(EVERY_BUT_THE_CLOCK, dialect=dialect), 1_500)


def measured(messages: Iterable[Outgoing]) -> set[tuple[int, int]]:
    """Names that stay: what comes late is due later, and after a reboot another message bears the number."""
    return {(message.observed_at, message.part) for message in messages}


def test_who_is_not_struck_is_sent_as_ever() -> None:
    whole = payloads(fleet_of(), 2_000)
    faults = replace(EVERY_OF_SENDING, oversize=0.001)
    for message in sent(fleet_of(faults), 2_000):
        if not BROKEN & set(message.faults) and not message.copy:
            assert message.publication.payload == whole[message.seq]


@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_gateway_makes_of_each_fault_what_is_expected(dialect: str) -> None:
    """Rejected is what nobody could read, and nothing else."""
    alone = [only(name, _more(fault)) for name in EVERY.__struct_fields__ if (fault := getattr(EVERY, name))]
    formats = Formats()
    for at, faults in enumerate([*alone, EVERY], start=[*DIALECTS].index(dialect)):
        fleet = fleet_of(faults, dialect=dialect, model=[*MODELS][at % len(MODELS)], seed=f"{at}")
        for message, outcome in outcomes(fleet, 40 if faults is EVERY else 15, formats):
            rejected = isinstance(outcome, Rejection)
            if message.expect == "any":
                assert message.faults[-1] in {"truncated", "duplicate", "out_of_order"}
            else:
                assert rejected == (message.expect == "rejection"), (message.faults, message.publication, outcome)
            assert rejected or outcome or message.expect == "any", (message.faults, message.publication)


def _more(fault: Any) -> Any:
    if isinstance(fault, Spell):
        return Spell(at_s=(4.0,), for_s=5.0)
    return max(fault, 0.3) if 0 < fault < 1 else fault


def outcomes(fleet: Fleet, number: int, formats: Formats) -> list[tuple[Outgoing, object]]:
    """What the gateway makes of the first messages of a device, which has announced itself."""
    device = one_of(fleet)
    dialect = speak(device, fleet)
    dialect.will(START_US)
    for publication in dialect.birth(START_US):
        assert not isinstance(formats.read(_received(publication, START_US)), Rejection)
    messages = islice(telemetry(device, fleet, dialect), number)
    return [(message, formats.read(_received(message.publication, message.due_us))) for message in messages]


def _received(publication: object, at_us: int) -> Message:
    topic, payload, retain, content_type, user = (
        getattr(publication, name) for name in ("topic", "payload", "retain", "content_type", "user")
    )
    properties = Properties(content_type=content_type, user=user) if content_type or user else None
    return Message(topic, payload, 1, retain=retain, received_at=at_us, packet_id=1, properties=properties)


DIGESTS = """
from tests.devices.faulty import digest
from devices.dialects import DIALECTS
print(*[digest(dialect) for dialect in DIALECTS])
"""


def test_two_processes_say_the_same_bytes() -> None:
    root = Path(__file__).parents[2]
    there = subprocess.run(
        [sys.executable, "-c", DIGESTS],
        cwd=root,
        env={"PYTHONHASHSEED": "1", "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert there.stdout.split() == [digest(dialect) for dialect in DIALECTS]
