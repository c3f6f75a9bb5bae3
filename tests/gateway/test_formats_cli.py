"""Claims about `amber normalize` and `amber explain`: what they print, and what they say when they cannot."""

from __future__ import annotations

import base64
import io
import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from gateway.__main__ import run
from storage.store import Store, StoreOptions


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("AMBER_STORE", "AMBER_BROKER"):
        monkeypatch.delenv(name, raising=False)


def normalized(capsysbinary: pytest.CaptureFixture[bytes], *messages: dict[str, object]) -> list[dict[str, Any]]:
    Path("in.jsonl").write_text("\n\n".join(map(json.dumps, messages)) + "\n")
    assert run(["normalize", "in.jsonl"]) == 0
    return [json.loads(line) for line in capsysbinary.readouterr().out.splitlines()]


def test_each_message_is_one_line_with_its_id(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    one, two, three = normalized(
        capsysbinary,
        {"id": "a", "topic": "room/t", "payload": "21.5", "received_at": "2026-11-22T09:00:00Z"},
        {"id": 7, "topic": "x/y", "payload": "{"},
        {"topic": "x/y", "payload_b64": base64.b64encode(b'{"a":1,"time":1763802000}').decode()},
    )
    assert one == {
        "id": "a",
        "events": [
            {
                "device": "room",
                "kind": "measurement",
                "observed_at": "2026-11-22T09:00:00.000000Z",
                "time_source": "gateway",
                "format": "plain",
                "seq": None,
                "readings": {"t": 21.5},
                "units": {},
            }
        ],
        "rejection": None,
    }
    assert (two["id"], two["events"], two["rejection"]["format"]) == (7, [], "json")
    assert three["events"][0]["observed_at"] == "2025-11-22T09:00:00.000000Z"
    assert three["events"][0]["time_source"] == "device"


def test_recordings_of_mosquitto_sub_can_be_fed(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    (line,) = normalized(
        capsysbinary,
        {"tst": "2026-11-22T09:00:00Z", "topic": "d/x", "qos": 0, "retain": 1, "payloadlen": 9, "payload": {"a": 2}},
    )
    assert line["events"][0]["readings"] == {"a": 2}


def test_properties_count(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    lines = normalized(
        capsysbinary,
        {"topic": "t", "payload": "1", "mqtt5": {"content_type": "text/plain", "user_properties": {"a": "b"}}},
        {"topic": "t", "payload": "1", "mqtt5": {"user_properties": [["a", "b"], ["a", "c"]]}},
    )
    assert [line["rejection"] for line in lines] == [None, None]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("nonsense", "line 2: JSON is malformed"),
        ('{"payload": "1"}', "line 2: Object missing required field `topic`"),
        ('{"topic": "a", "payload_b64": "%"}', "line 2: payload_b64"),
        ('{"topic": "a", "received_at": "whenever it was"}', "line 2: 'whenever it was' is no time"),
    ],
)
def test_a_line_that_is_no_message_ends_it_with_one_line(
    line: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("in.jsonl").write_text(f'{{"topic":"a"}}\n{line}\n')
    assert run(["normalize", "in.jsonl"]) == 1
    told = capsys.readouterr()
    assert len(told.out.splitlines()) == 1
    assert told.err.startswith(f"amber: {says}")
    assert len(told.err.splitlines()) == 1


def test_standard_input_is_read_where_no_file_is_named(
    monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b'{"topic":"a/b","payload":"1"}\n')))
    assert run(["normalize"]) == 0
    assert json.loads(capsysbinary.readouterr().out)["events"][0]["readings"] == {"b": 1}


def test_a_missing_file_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["normalize", "nowhere.jsonl"]) == 1
    assert capsys.readouterr().err == "amber: cannot read nowhere.jsonl: No such file or directory\n"


def explained(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert run(["explain", *arguments]) == 0
    return capsys.readouterr().out


def test_who_read_it_and_who_did_not_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    told = explained(capsys, "sensors/room1/temperature", "21.5")
    assert "asked     json (nothing else fits): not of this format" in told
    assert "asked     plain (nothing else fits): read it: 1 event" in told
    assert "device  room1  (from the topic)" in told
    assert "time of arrival" in told
    assert "temperature = 21.5" in told


def test_the_rule_that_is_suggested_is_one_and_changes_it(capsys: pytest.CaptureFixture[str]) -> None:
    told = explained(capsys, "sensors/room1/temperature", "21.5")
    suggested = told[told.index("[[rules]]") :].replace("# units = { temperature", "units = { temperature")
    assert tomllib.loads(suggested)["rules"][0] == {
        "topic": "sensors/{device}/temperature",
        "units": {"temperature": "Cel"},
    }
    Path("amber.toml").write_text(suggested)
    told = explained(capsys, "sensors/room1/temperature", "21.5")
    assert "rule      sensors/{device}/temperature: device {device} · units temperature = Cel" in told
    assert "device  room1  (by your rule)" in told
    assert "temperature = 21.5 Cel  (unit: by your rule)" in told


def test_a_rejection_and_a_message_that_is_not_kept_are_explained(capsys: pytest.CaptureFixture[str]) -> None:
    assert "result    rejected: not valid JSON" in explained(capsys, "a/b", '{"a":')
    Path("amber.toml").write_text('[[rules]]\ntopic = "a/#"\nformat = "ignore"\n')
    assert "result    ignored" in explained(capsys, "a/b", "1")
    Path("amber.toml").write_text('[[rules]]\ntopic = "a/#"\nformat = "raw"\n')
    assert "result    no events" in explained(capsys, "a/b", "1")


def test_an_explanation_can_be_json_and_the_payload_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    Path("payload").write_bytes(b'{"t":{"value":1,"unit":"\xc2\xb0C"},"gone":null}')
    document = json.loads(explained(capsys, "a/b", "--file", "payload", "--json"))
    assert document["asked"][-1] == {"format": "json", "sign": "nothing else fits", "result": "read it: 1 event"}
    assert document["events"][0]["units"] == {"t": "Cel"}
    assert document["unit_sources"] == [{"t": "message"}]


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        ([], 2, "explain a TOPIC with its PAYLOAD, or a message of the store with --message ID"),
        (["a", "1", "--message", "3"], 2, "explain a TOPIC"),
        (["a", "1", "--file", "x"], 2, "the payload is given twice"),
        (["a", "--file", "x"], 1, "cannot read x: No such file or directory"),
        (["--message", "3"], 1, "there is no store at"),
    ],
)
def test_what_cannot_be_explained_says_what_to_do(
    arguments: list[str], status: int, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["explain", *arguments]) == status
    told = capsys.readouterr().err
    assert told.startswith(f"amber: {says}")
    assert len(told.splitlines()) == 1


@pytest.mark.parametrize(
    "line",
    ['{"topic":"a","payload":1,"received_at":1e305}', f'{{"topic":"a","payload":{"[" * 100_000}{"]" * 100_000}}}'],
)
def test_a_line_that_no_number_and_no_stack_holds_is_one_line(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("in.jsonl").write_text(line)
    assert run(["normalize", "in.jsonl"]) == 1
    assert capsys.readouterr().err.startswith("amber: line 1: ")


def test_a_number_that_no_store_has_is_no_message_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    Store(Path("amber.db"), StoreOptions(free_floor_bytes=0)).close()
    for number in (10**30, 0, -1):
        assert run(["explain", "--message", str(number)]) == 1
        assert capsys.readouterr().err.startswith(f"amber: there is no message {number} in ")
