"""What comes into the log out of files: exports come back as they were, recordings are read as if they arrived now."""

from __future__ import annotations

import base64
import gzip
import io
import json
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.__main__ import run
from gateway.formats.families.amber import CONTENT_TYPE, microseconds
from gateway.formats.fitness import unfit
from gateway.recordings.moments import moment
from storage.engine import Lock
from storage.event import Detail, Entry, Event, Location, Message, Outcome, Properties, Rejection
from storage.history import Reader
from storage.store import Store, StoreOptions
from storage.times import iso
from tests.storage.histories import NOON, History, entries
from tests.storage.killing import import_killed


def amber(*words: object) -> int:
    return run([str(word) for word in words])


def bring_in(store: Path, *words: object) -> None:
    assert amber("import", *words, "--store", store) == 0


def fill(path: Path, kept: list[Entry]) -> Path:
    store = Store(path, StoreOptions(free_floor_bytes=0))
    store.append(kept, 1)
    store.close()
    return path


def events(store: Path) -> list[object]:
    """The events but for their ids, each with the number of its message."""
    with Reader(store) as reader:
        found = [event for page in reader.pages() for event in page]
    order = {id: number for number, id in enumerate(dict.fromkeys(event.message_id for event in found))}
    return [
        (order[event.message_id], msgspec.structs.replace(event, id=0, message_id=0, units=dict(event.units)))
        for event in found
    ]


def messages(store: Path) -> list[Message]:
    """Without the packet ids, which an import uses for itself."""
    with Reader(store) as reader:
        return [msgspec.structs.replace(one.message, packet_id=0) for page in reader.outcomes() for one in page]


def rejections(store: Path) -> list[Rejection]:
    with Reader(store) as reader:
        return [Rejection(one.reason, one.format) for one in reader.rejections()]


# --- what was exported ---

text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
times = st.one_of(
    st.integers(NOON, NOON + 10**9),
    st.sampled_from([2**63 - 1, 253_402_300_800_000_000]),
)
values = st.one_of(
    st.booleans(), st.none(), text, st.floats(allow_nan=False, allow_infinity=False), st.integers(-(2**80), 2**80)
)
properties = st.builds(
    Properties,
    payload_is_text=st.booleans(),
    expiry_s=st.none() | st.integers(0, 9),
    content_type=st.none() | text,
    correlation_data=st.none() | st.binary(max_size=4),
    user=st.lists(st.tuples(text, text), max_size=2).map(tuple),
)


@st.composite
def some_event(draw: st.DrawFn, received_at: int) -> Event:
    """As a format can have given it: a time of its own is one that is believed."""
    readings = draw(st.dictionaries(text, values, max_size=3))
    units = {name: draw(st.sampled_from(["Cel", "ü", ""])) for name in readings if draw(st.booleans())}
    from_device = draw(st.booleans())
    return Event(
        draw(text.filter(bool)),
        draw(st.sampled_from(["measurement", "state", "other"])),
        draw(st.sampled_from(["json", "senml"])),
        draw(st.integers(NOON - 10**9, NOON + 10**9)) if from_device else received_at,
        readings,
        from_device=from_device,
        seq=draw(st.none() | st.integers(0, 2**63 - 1)),
        units=units or None,
        detail=draw(
            st.none()
            | st.builds(
                Detail,
                via=st.none() | text,
                source_id=st.none() | text,
                historical=st.booleans(),
                quality=st.dictionaries(text, st.sampled_from(["bad", "stale"]), max_size=2),
                location=st.none() | st.builds(Location, st.floats(-90, 90), st.floats(-180, 180)),
            )
        ),
    )


some_message = st.builds(
    Message,
    topic=text.filter(bool),
    payload=st.binary(max_size=6) | text.map(str.encode),
    qos=st.integers(0, 2),
    retain=st.booleans(),
    received_at=times,
    properties=st.none() | properties.filter(lambda some: some != Properties()),
)


@st.composite
def some_entry(draw: st.DrawFn) -> Entry:
    message = draw(some_message)
    return message, draw(st.lists(some_event(message.received_at), max_size=3))


some_entries = st.lists(some_entry(), max_size=6)


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.csv.zst", "a.parquet"])
@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(kept=some_entries, payload=st.booleans())
def test_what_is_exported_comes_back_as_it_was(kept: list[Entry], name: str, *, payload: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store, again = fill(Path(folder) / "amber.db", kept), Path(folder) / "again.db"
        file = Path(folder) / name
        assert amber("export", "--store", store, "-o", file, *["--payload"] * payload) == 0
        bring_in(again, file)
        assert events(again) == events(store)
        if payload:
            with Reader(store) as reader:
                spoke = {event.message_id for page in reader.pages() for event in page}
                wanted = [one.message for page in reader.outcomes() for one in page if one.message_id in spoke]
            assert messages(again) == wanted


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Iterator[History]:
    with History(tmp_path_factory.mktemp("history") / "amber.db") as history:
        history.append([(message, as_read(message, outcome)) for message, outcome in entries(random.Random(7), 700)])
        yield history


def as_read(message: Message, outcome: Outcome) -> Outcome:
    """What of it a format can give: the histories hold more than that."""
    if isinstance(outcome, Rejection):
        return outcome
    at = message.received_at
    timed = [one if one.from_device else msgspec.structs.replace(one, observed_at=at) for one in outcome]
    return [one for one in timed if abs(at - one.observed_at) < 10**9 and (one.seq or 0) >= 0 and not unfit([one])]


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.parquet"])
def test_a_long_history_comes_back_as_it_was(history: History, tmp_path: Path, name: str) -> None:
    assert amber("export", "--store", history.path, "-o", tmp_path / name) == 0
    bring_in(tmp_path / "again.db", tmp_path / name)
    assert events(tmp_path / "again.db") == events(history.path)


def test_an_event_without_its_message_is_its_message_itself(tmp_path: Path) -> None:
    event = Event("d", "state", "json", NOON, {"t": 1})
    store = fill(tmp_path / "amber.db", [(Message("t", b"secret", 1, retain=True, received_at=NOON), [event] * 2)])
    assert amber("export", "--store", store, "-o", tmp_path / "a.jsonl") == 0
    bring_in(tmp_path / "again.db", tmp_path / "a.jsonl")
    (message,) = messages(tmp_path / "again.db")
    assert message.payload == (tmp_path / "a.jsonl").read_bytes().rstrip(b"\n")
    assert (message.topic, message.qos, message.retain) == ("t", 1, True)
    assert message.properties == Properties(content_type=CONTENT_TYPE)


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.parquet"])
def test_reading_again_what_was_brought_in_changes_nothing(
    history: History, tmp_path: Path, name: str, capsys: Any
) -> None:
    """Nor do rules that say how to read a topic: that has been done."""
    config = tmp_path / "amber.toml"
    config.write_text(
        '[[rules]]\ntopic = "a/#"\nformat = "tasmota"\nscale = { temperature = 10 }\nunits = { temperature = "K" }\n'
        '[[rules]]\ntopic = "b/#"\nreadings = { x = "y.z" }\nkind = "other"\n'
    )
    assert amber("export", "--store", history.path, "-o", tmp_path / name) == 0
    bring_in(tmp_path / "again.db", tmp_path / name, "--config", config)
    assert events(tmp_path / "again.db") == events(history.path)
    for words in ([], ["--config", config]):
        capsys.readouterr()
        assert amber("reprocess", "--dry-run", "--store", tmp_path / "again.db", *words) == 0
        assert ": 0 would become something else" in capsys.readouterr().out


def test_a_rule_for_the_device_or_against_the_topic_holds_for_exported_events(tmp_path: Path, capsys: Any) -> None:
    config = tmp_path / "amber.toml"
    config.write_text(
        '[[rules]]\ntopic = "plant/{device}"\n[[rules]]\ntopic = "secret"\nformat = "ignore"\n'
        '[[rules]]\ntopic = "raw"\nformat = "raw"\n'
    )
    event = Event("d", "state", "json", NOON, {"t": 1}, seq=3)
    topics = ("plant/press", "secret", "raw", "other")
    kept: list[Entry] = [(Message(topic, b"", 0, retain=False, received_at=NOON), [event]) for topic in topics]
    assert amber("export", "--store", fill(tmp_path / "a.db", kept), "-o", tmp_path / "a.jsonl") == 0
    bring_in(tmp_path / "b.db", tmp_path / "a.jsonl", "--config", config)
    with Reader(tmp_path / "b.db") as reader:
        found = [(one.topic, one.device, one.seq) for page in reader.pages() for one in page]
    assert found == [("plant/press", "press", 3), ("other", "d", 3)]
    assert [message.topic for message in messages(tmp_path / "b.db")] == ["plant/press", "raw", "other"]
    assert "1 left out by a rule" in capsys.readouterr().err
    assert amber("reprocess", "--dry-run", "--store", tmp_path / "b.db", "--config", config) == 0
    assert ": 0 would become something else" in capsys.readouterr().out


def test_events_that_are_too_long_for_one_message_become_several(tmp_path: Path) -> None:
    config = tmp_path / "amber.toml"
    config.write_text("[formats]\npayload_bytes = 1024\n")
    event = Event("d", "state", "json", NOON, {"t": "x" * 100}, from_device=True)
    store = fill(tmp_path / "a.db", [(Message("t", b"", 0, retain=False, received_at=NOON), [event] * 9)])
    assert amber("export", "--store", store, "-o", tmp_path / "a.jsonl") == 0
    bring_in(tmp_path / "b.db", tmp_path / "a.jsonl", "--config", config)
    found = messages(tmp_path / "b.db")
    assert max(len(message.payload) for message in found) <= 1_024
    lines = [line for message in found for line in message.payload.split(b"\n")]
    assert lines == (tmp_path / "a.jsonl").read_bytes().splitlines()
    assert [one[1] for one in events(tmp_path / "b.db")] == [one[1] for one in events(store)]  # type: ignore[index]


def test_what_no_format_can_have_read_is_a_rejection_and_kept(tmp_path: Path, capsys: Any) -> None:
    """Among them a device's time that is not believed: it is never replaced by another, and told."""
    event = Event("d", "state", "json", 10**14, {"t": 1}, from_device=True)
    store = fill(tmp_path / "a.db", [(Message("t", b"", 0, retain=False, received_at=NOON), [event])])
    assert amber("export", "--store", store, "-o", tmp_path / "a.jsonl") == 0
    bring_in(tmp_path / "b.db", tmp_path / "a.jsonl")
    (rejection,) = rejections(tmp_path / "b.db")
    assert rejection.format == "amber"
    assert "(earliest)" in rejection.reason
    assert "1 rejection" in capsys.readouterr().err


@pytest.mark.parametrize("at", [0, -1, 1, 2**63 - 1, -(2**63), -62_135_596_800_000_001, 253_402_300_800_000_000, NOON])
def test_every_time_is_read_as_it_is_written(at: int) -> None:
    assert microseconds(iso(at)) == at


# --- messages ---

# As Mosquitto 2.0.11 was seen to write them.
RECORDED = (
    b'{"tst":"2026-11-22T17:00:12.915212Z+0000","topic":"a/b","qos":1,"mid":7,"retain":1,"payloadlen":20,"properties":{'
    b'"user-properties":{"a":"b","a":"c"},"content-type":"text/plain","response-topic":"r/t","correlation-data":"cc"},'
    b'"payload":"{\\"t\\":1.50,\\"x\\":[1,2]}"}\n'
    b'{"tst":"2026-11-22T17:00:12.922009Z+0000","topic":"a/bin","qos":0,"retain":0,"payloadlen":2,"payload":"\xff1"}\n'
    b'{"tst":"2026-11-22T17:00:12.925147Z+0000","topic":"a/empty","qos":0,"retain":0,"payloadlen":0,"payload":null}\n'
    b'{"tst":"2026-11-22T18:00:13.341352Z+0100","topic":"a/J","qos":0,"retain":0,"payloadlen":9,"payload":{"t":1.50}}\n'
    b'{"tst":"2026-11-22T18:00:13.341352+0100","topic":"a/J","qos":0,"retain":0,"payloadlen":4,"payload":"on"}'
).split(b"\n")
AT = 1_795_366_812_915_212


def write(path: Path, *lines: bytes) -> Path:
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path


def test_what_mosquitto_sub_writes_as_json_is_what_was_received(tmp_path: Path) -> None:
    bring_in(tmp_path / "amber.db", write(tmp_path / "a.jsonl", *RECORDED))
    found = messages(tmp_path / "amber.db")
    known = Properties(
        content_type="text/plain", response_topic="r/t", correlation_data=b"cc", user=(("a", "b"), ("a", "c"))
    )
    assert found[0] == Message("a/b", b'{"t":1.50,"x":[1,2]}', 1, retain=True, received_at=AT, properties=known)
    assert [message.payload for message in found[1:]] == [b"\xff1", b"", b'{"t":1.50}', b'"on"']
    assert [message.received_at for message in found[3:]] == [1_795_366_813_341_352] * 2
    assert next(event[1].readings for event in events(tmp_path / "amber.db")) == '{"t":1.5,"x.0":1,"x.1":2}'  # type: ignore[index]


def test_what_was_cut_is_told_and_the_rest_is_kept(tmp_path: Path, capsys: Any) -> None:
    cut = b'{"topic":"a","payloadlen":4,"payload":"\xff"}'
    file = write(tmp_path / "a.jsonl", RECORDED[0], cut, b'{"topic":"a', b"", b'{"topic":"#","payload":1}', RECORDED[2])
    bring_in(tmp_path / "amber.db", file)
    assert len(messages(tmp_path / "amber.db")) == 2
    told = capsys.readouterr().err
    assert "3 that could not be read" in told
    assert [f"line {number}: " in told for number in (1, 2, 3, 4, 5, 6)] == [False, True, True, False, True, False]


def test_a_payload_cut_at_a_zero_byte_is_told_and_never_stored(tmp_path: Path, capsys: Any) -> None:
    """%j writes a, a zero byte and b as %J writes an a within quotes: the lines before tell which it was."""
    lines = (
        b'{"topic":"a","payloadlen":3,"payload":"a"}',
        b'{"topic":"a","payloadlen":2,"payload":""}',
        b'{"topic":"a","payloadlen":2}',
        b'{"topic":"J","payloadlen":13,"payload":{"t":1.5}}',
        b'{"topic":"J","payloadlen":3,"payload":"a"}',
        b'{"topic":"j","payloadlen":1,"payload":"a"}',
        b'{"topic":"a","payloadlen":3,"payload":"a"}',
    )
    bring_in(tmp_path / "amber.db", write(tmp_path / "a.jsonl", *lines))
    found = [(message.topic, message.payload) for message in messages(tmp_path / "amber.db")]
    assert found == [("J", b'{"t":1.5}'), ("J", b'"a"'), ("j", b"a")]
    told = capsys.readouterr().err
    assert "4 that could not be read" in told
    assert all(f"line {number}: its payload had" in told for number in (1, 2, 3, 7))
    assert "with -F and %x" in told


def test_a_payload_in_hex_is_what_it_was(tmp_path: Path, capsys: Any) -> None:
    file = write(
        tmp_path / "a.jsonl",
        b'{"topic":"a","time":"1795366813.770278239","qos":1,"retain":0,"payload_hex":"610062"}',
        b'{"topic":"a","payload_hex":""}',
        b'{"topic":"a","payload_hex":"6x"}',
    )
    bring_in(tmp_path / "amber.db", file)
    found = messages(tmp_path / "amber.db")
    assert [message.payload for message in found] == [b"a\0b", b""]
    assert found[0].received_at == 1_795_366_813_770_278
    assert "line 3: payload_hex: " in capsys.readouterr().err


@pytest.mark.parametrize("lead", [b"", b"1795366813.770278239 "])
def test_of_a_payload_with_a_line_break_it_is_told_that_the_message_before_is_cut(
    tmp_path: Path, capsys: Any, lead: bytes
) -> None:
    file = write(tmp_path / "a.txt", lead + b"a/b two", b"lines", b"}", lead + b"a/b 3")
    bring_in(tmp_path / "amber.db", file)
    assert [message.topic for message in messages(tmp_path / "amber.db")] == ["a/b"] * 2
    told = capsys.readouterr().err
    assert "2 that could not be read" in told
    assert told.count("that had a line break, the message before it is cut") == 2


@pytest.mark.parametrize("lead", [b"", b"1795366813.770278239 ", b"2026-11-22T17:00:13+0000 "])
def test_lines_of_topic_and_payload_are_messages(tmp_path: Path, lead: bytes) -> None:
    empty = b"a/empty " if lead else b"a/empty (null)"
    file = write(tmp_path / "a.txt", *(lead + line for line in (b'a/b {"t":1}', b"a/c \xff\x00 x", empty)), b"torn")
    bring_in(tmp_path / "amber.db", file)
    found = messages(tmp_path / "amber.db")
    assert [(message.topic, message.payload) for message in found] == [
        ("a/b", b'{"t":1}'),
        ("a/c", b"\xff\x00 x"),
        ("a/empty", b""),
    ]
    wanted = {1_795_366_813_770_278, 1_795_366_813_000_000}
    assert not lead or {message.received_at for message in found} <= wanted


def test_the_same_stream_is_stored_as_the_gateway_reads_it(tmp_path: Path) -> None:
    config = tmp_path / "amber.toml"
    config.write_text('[[rules]]\ntopic = "secret/#"\nformat = "ignore"\n')
    file = write(
        tmp_path / "a.jsonl",
        b'{"topic":"secret/a","payload":"1"}',
        b'{"topic":"amber/own","payload":"1"}',
        b'{"topic":"r","payload":"1","mqtt5":{"user_properties":{"amber-replay":"1"}}}',
        b'{"topic":"sensors/one/temperature","payload":"21.5","received_at":"2026-11-22T09:00:00Z"}',
        b'{"topic":"x","payload_b64":"//8=","time":1795366812.5}',
    )
    bring_in(tmp_path / "amber.db", file, "--config", config)
    found = messages(tmp_path / "amber.db")
    assert [message.topic for message in found] == ["sensors/one/temperature", "x"]
    assert found[1].received_at == 1_795_366_812_500_000
    assert len(events(tmp_path / "amber.db")) == len(rejections(tmp_path / "amber.db")) == 1


def test_messages_without_a_topic_get_the_one_that_is_given(tmp_path: Path, capsys: Any) -> None:
    file = write(tmp_path / "a.jsonl", b'{"t":1,"when":1795366812}', b'{"t":2,"when":1795366813000}', b'{"t":3}')
    assert amber("import", file, "--store", tmp_path / "amber.db") == 1
    assert "--topic" in capsys.readouterr().err
    bring_in(tmp_path / "amber.db", file, "--topic", "a/b", "--format", "messages", "--time-field", "when")
    found = messages(tmp_path / "amber.db")
    assert [(message.topic, message.received_at // 1_000_000) for message in found] == [
        ("a/b", 1_795_366_812),
        ("a/b", 1_795_366_813),
    ]
    assert found[0].payload == b'{"t":1,"when":1795366812}'
    assert "has no time in when" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("1795366813", 1_795_366_813_000_000),
        ("1795366813.770278239", 1_795_366_813_770_278),
        (1_795_366_813_770, 1_795_366_813_770_000),
        ("2026-11-22T17:00:13Z", 1_795_366_813_000_000),
        ("2026-11-22T18:00:13.5Z+0100", 1_795_366_813_500_000),
        ("soon", None),
        ("", None),
        (None, None),
    ],
)
def test_times_of_recordings_are_known_by_their_size_and_form(text: object, at: int | None) -> None:
    assert moment(text) == at


# --- once ---


def recording(path: Path, count: int) -> Path:
    lines = [
        b'{"topic":"d/%d/telemetry","ts":%d,"payload":{"t":%d}}' % (n % 9, 1_795_366_812 + n, n) for n in range(count)
    ]
    lines[::50] = [b"torn"] * len(lines[::50])
    return write(path, *lines)


def test_a_file_is_stored_once_whatever_its_name(tmp_path: Path, capsys: Any) -> None:
    file, store = recording(tmp_path / "a.jsonl", 100), tmp_path / "amber.db"
    bring_in(store, file)
    wanted = messages(store)
    assert len(wanted) == 98
    assert amber("import", file, "--store", store) == 1
    assert "--again" in capsys.readouterr().err
    assert amber("import", file.rename(tmp_path / "b.jsonl"), "--store", store) == 1
    assert messages(store) == wanted
    bring_in(store, tmp_path / "b.jsonl", "--again")
    assert messages(store) == wanted * 2


def test_of_several_files_those_that_are_new_are_stored(tmp_path: Path) -> None:
    first, second, store = recording(tmp_path / "1", 60), recording(tmp_path / "2", 70), tmp_path / "amber.db"
    bring_in(store, first)
    bring_in(store, first, second, second)
    assert len(messages(store)) == 58 + 68


@pytest.mark.parametrize("kind", ["packed", "events"])
def test_killed_and_started_again_it_is_as_if_it_had_not_been(tmp_path: Path, kind: str) -> None:
    file = recording(tmp_path / "a.jsonl", 2_000)
    if kind == "packed":
        file = tmp_path / "a.jsonl.zst"
        file.write_bytes(zstandard.compress((tmp_path / "a.jsonl").read_bytes()))
    whole, store = tmp_path / "whole.db", tmp_path / "amber.db"
    bring_in(whole, file)
    if kind == "events":
        file = tmp_path / "b.csv"
        assert amber("export", "--store", whole, "-o", file) == 0
    import_killed(file, store, 2, random.Random(kind))
    assert events(store) == events(whole)
    assert kind == "events" or messages(store) == messages(whole)


def test_standard_input_is_read_and_not_known_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    packed = gzip.compress(recording(tmp_path / "a.jsonl", 20).read_bytes())
    for times in (1, 2):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(packed))))
        bring_in(tmp_path / "amber.db", "-")
        assert "not known again" in capsys.readouterr().err
        assert len(messages(tmp_path / "amber.db")) == 19 * times


def test_a_dry_run_tells_and_stores_nothing(tmp_path: Path, capsys: Any) -> None:
    file = write(tmp_path / "a.jsonl", *RECORDED, b"torn", b'{"topic":"x","payload_b64":"//8="}')
    assert amber("import", file, "--dry-run", "--store", tmp_path / "amber.db") == 0
    told = capsys.readouterr().out
    assert "6 messages" in told
    assert "1 that could not be read" in told
    assert "2  no format fits" in told
    assert not (tmp_path / "amber.db").exists()


def test_what_comes_later_teaches_how_to_read_what_came_before(tmp_path: Path) -> None:
    """As at the gateway: a discovery message says what the states before it mean."""
    config: dict[str, object] = {
        "stat_t": "plant/x/state",
        "unit_of_meas": "°C",
        "val_tpl": "{{ value_json.v }}",
        "uniq_id": "x_t",
    }
    config |= {"name": "Temp", "dev": {"ids": ["x"], "name": "X"}}
    announced = {"topic": "homeassistant/sensor/x/t/config", "retain": 1, "payload": config}
    state = {"topic": "plant/x/state", "payload": {"v": 21.5}}
    file = write(tmp_path / "a.jsonl", json.dumps(state).encode(), json.dumps(announced).encode())
    bring_in(tmp_path / "amber.db", file)
    store = Store(tmp_path / "amber.db", StoreOptions(free_floor_bytes=0))
    assert store.rereads() == []
    store.close()


# --- what cannot be ---


def test_a_store_that_is_in_use_is_told_with_what_to_do(tmp_path: Path, capsys: Any) -> None:
    lock = Lock(tmp_path / "amber.db")
    assert amber("import", recording(tmp_path / "a", 5), "--store", tmp_path / "amber.db") == 1
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "another store" in told
    lock.release()


def broken(path: Path, name: str) -> Path:
    """Files with which something is wrong."""
    content = recording(path / "good", 200).read_bytes()
    header = b"id,message_id,device,kind,observed_at\n"
    contents = {
        "torn.gz": gzip.compress(content)[:-20],
        "flipped.gz": gzip.compress(content).replace(b"\x00\x00", b"\x00\x01", 1)[:-8] + b"12345678",
        "torn.zst": zstandard.compress(content)[:-20],
        "unknown": b'1,2,"thermo, 1",3\n4,5,6,7\n',
        "binary": bytes(range(256)) * 9,
        "utf16": "a/b 1\n".encode("utf-16"),
        "other.csv": header,
        "no-topic.jsonl": b'{"t":1}\n',
        "readings.jsonl": b'{"event_id":1,"reading":"t","number":1}\n',
        "torn.parquet": b"PAR1" + content,
    }
    file = path / name
    if name == "other.parquet":
        pq.write_table(pa.table({"x": [1]}), file)
    elif name == "folder":
        file.mkdir()
    elif name in contents:
        file.write_bytes(contents[name])
    return file


@pytest.mark.parametrize(
    "name",
    [
        *("missing", "folder", "torn.gz", "flipped.gz", "torn.zst", "unknown", "binary", "utf16", "other.csv"),
        *("no-topic.jsonl", "readings.jsonl", "torn.parquet", "other.parquet"),
    ],
)
def test_what_is_wrong_with_a_file_is_told_in_a_line_and_nothing_is_stored(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert amber("import", broken(tmp_path, name), "--store", tmp_path / "amber.db") == 1
    told = capsys.readouterr().err
    assert told.startswith("amber: ")
    assert told.count("\n") == 1
    assert not (tmp_path / "amber.db").exists() or messages(tmp_path / "amber.db") == []


def test_an_event_that_is_none_is_told_and_the_others_are_kept(tmp_path: Path, capsys: Any) -> None:
    event = Event("d", "state", "json", NOON, {"t": 1})
    known: list[Entry] = [(Message("t", b"", 0, retain=False, received_at=NOON + n), [event]) for n in range(6)]
    assert amber("export", "--store", fill(tmp_path / "a.db", known), "-o", tmp_path / "a.jsonl") == 0
    lines = (tmp_path / "a.jsonl").read_bytes().splitlines()
    lines[1] = lines[1].replace(b'"state"', b'"nonsense"')
    lines[2] = lines[2].replace(b'{"t":1}', b'{"t":[1]}')
    lines[3] = lines[3].replace(b"T", b"X")
    lines[4] = lines[4][:-20]
    bring_in(tmp_path / "b.db", write(tmp_path / "b.jsonl", *lines))
    assert len(events(tmp_path / "b.db")) == 2
    assert "4 that could not be read" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["-", "-"], ["x", "--topic", "a/#"], ["x", "--format", "xml"], []])
def test_nonsense_is_told_in_a_line(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert amber("import", *words, "--store", tmp_path / "amber.db") == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_payloads_in_base64_are_what_they_were(tmp_path: Path) -> None:
    line = {"topic": "a", "payload_b64": base64.b64encode(bytes(range(256))).decode()}
    bring_in(tmp_path / "amber.db", write(tmp_path / "a.jsonl", json.dumps(line).encode()))
    assert messages(tmp_path / "amber.db")[0].payload == bytes(range(256))
