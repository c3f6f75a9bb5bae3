"""Claims about `amber reprocess`: it shows what would differ, and replaces that and nothing else."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from gateway.__main__ import run
from gateway.config import load
from gateway.formats import Format, Formats, Options
from gateway.reprocess import Difference, Reading
from storage.event import Lessons, Message, Rejection
from storage.history import Reader
from storage.store import Store, StoreOptions

STORE = Path("amber.db")
RULE = '[[rules]]\ntopic = "site/{device}/#"\nunits = {t = "Cel"}\nscale = {t = 0.1}\n'
NOW = 1_795_338_000_000_000


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("AMBER_STORE", "AMBER_BROKER"):
        monkeypatch.delenv(name, raising=False)


def kept(*messages: tuple[str, bytes]) -> None:
    """A store as ingest would leave it."""
    store = Store(STORE, StoreOptions(segment_events=1_000, free_floor_bytes=0))
    formats = load(None, {}).make_formats()
    session = store.open_session("c", "b", resumed=False)
    sent = [Message(t, p, 1, retain=False, received_at=NOW + n, packet_id=1) for n, (t, p) in enumerate(messages)]
    store.append([(one, formats.read(one)) for one in sent], session, Lessons())
    store.move_cursor("consumer", store.event_id)
    store.close()


def events() -> list[tuple[int, str, object, object]]:
    with Reader(STORE) as reader:
        return [(e.id, e.device, json.loads(e.readings), dict(e.units)) for page in reader.pages() for e in page]


def reprocessed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert run(["reprocess", *arguments]) == 0
    return capsys.readouterr().out


def test_a_dry_run_shows_counts_and_samples_and_changes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    kept(("site/pump/up", b'{"t":215}'), ("site/fan/up", b'{"t":100}'), ("other/x", b"1"))
    before = events()
    Path("amber.toml").write_text(RULE)
    told = reprocessed(capsys, "--dry-run", "--samples", "1")
    assert told.splitlines()[0] == "3 messages read again: 2 would become something else"
    assert told.splitlines()[1] == "         2  json, with other events"
    assert 'old  measurement of pump at 2026-11-22T09:00:00.000000Z {"t":215}' in told
    assert 'new  measurement of pump at 2026-11-22T09:00:00.000000Z {"t":21.5} {"t":"Cel"}' in told
    assert "fan" not in told
    assert events() == before


def test_events_are_replaced_where_they_stand(capsys: pytest.CaptureFixture[str]) -> None:
    kept(("site/pump/up", b'{"t":215}'), ("other/x", b"1"), ("site/fan/up", b'{"t":100}'))
    positions = [event[0] for event in events()]
    Path("amber.toml").write_text(RULE)
    told = reprocessed(capsys, "--yes")
    assert "replaced: 2 messages · events 0 added, 2 changed, 0 removed" in told
    assert events() == [
        (positions[0], "pump", {"t": 21.5}, {"t": "Cel"}),
        (positions[1], "other", {"x": 1}, {}),
        (positions[2], "fan", {"t": 10.0}, {"t": "Cel"}),
    ]
    assert reprocessed(capsys, "--yes") == "3 messages read again: 0 would become something else\n"


def test_a_rejection_becomes_events_and_events_become_none(capsys: pytest.CaptureFixture[str]) -> None:
    kept(("a/b", b'{"t":'), ("a/c", b'{"t":1}'))
    Path("amber.toml").write_text('[[rules]]\ntopic = "a/#"\nformat = "raw"\n')
    told = reprocessed(capsys, "--yes")
    assert "rejected by json → nothing" in told
    assert "json → nothing" in told
    assert events() == []
    with Reader(STORE) as reader:
        assert list(reader.rejections()) == []
        assert [one.message.payload for page in reader.outcomes() for one in page] == [b'{"t":', b'{"t":1}']


def test_one_message_may_become_more_events_without_moving_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    batch = b'[{"device":"a","t":1},{"device":"b","t":2},{"device":"c","t":3}]'
    Path("amber.toml").write_text('[[rules]]\ntopic = "x"\nformat = "plain"\n')
    kept(("w", b"0"), ("x", batch), ("y", b"4"))
    assert [event[1] for event in events()] == ["w", "x", "y"]
    Path("amber.toml").unlink()
    assert "events 2 added, 1 changed, 0 removed" in reprocessed(capsys, "--yes")
    found = events()
    assert [event[1] for event in found] == ["w", "a", "b", "c", "y"]
    assert [event[0] for event in found] == sorted(event[0] for event in found)


def test_only_what_the_filters_choose_is_replaced(capsys: pytest.CaptureFixture[str]) -> None:
    kept(("site/pump/up", b'{"t":215}'), ("site/fan/up", b'{"t":100}'))
    Path("amber.toml").write_text(RULE)
    told = reprocessed(capsys, "--yes", "--topic", "site/fan/#")
    assert told.splitlines()[0] == "1 messages read again: 1 would become something else"
    assert [event[2] for event in events()] == [{"t": 215}, {"t": 10.0}]


def test_births_that_no_format_understood_at_the_time_are_learned(capsys: pytest.CaptureFixture[str]) -> None:
    birth = b'{"homie":"5.0","version":1,"nodes":{"tank":{"properties":{"level":{"datatype":"float","unit":"%"}}}}}'
    Path("amber.toml").write_text('[[rules]]\ntopic = "homie/#"\nformat = "plain"\n')
    kept(
        ("homie/5/boiler/tank/level", b"61.5"),
        ("homie/5/boiler/$description", birth),
        ("homie/5/boiler/tank/level", b"7"),
    )
    with Reader(STORE) as reader:
        assert reader.facts() == []
    Path("amber.toml").unlink()
    told = reprocessed(capsys, "--yes")
    assert "learned 1 facts that the store did not have" in told
    with Reader(STORE) as reader:
        assert [fact.format for fact in reader.facts()] == ["homie5"]
    assert events()[-1][2:] == ({"tank.level": 7.0}, {"tank.level": "%"})


def test_a_rule_that_changes_a_unit_only_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    kept(("site/pump/up", b'{"t":215}'))
    Path("amber.toml").write_text('[[rules]]\ntopic = "site/#"\nunits = {t = "K"}\n')
    told = reprocessed(capsys, "--yes")
    assert "replaced: 0 messages" in told
    assert "1 series new or of another unit" in told
    assert events()[0][3] == {"t": "K"}


def test_a_device_that_goes_over_to_another_unit_leaves_its_history_as_it_was(
    capsys: pytest.CaptureFixture[str],
) -> None:
    units = ["°C", "°F", "°C"]
    kept(*(("u/d/x", f'{{"t":{{"value":20,"unit":"{unit}"}}}}'.encode()) for unit in units), ("u/d/x", b'{"t":"high"}'))
    assert [event[3] for event in events()] == [{"t": "Cel"}, {"t": "[degF]"}, {"t": "Cel"}, {}]
    assert reprocessed(capsys, "--yes") == "4 messages read again: 0 would become something else\n"
    Path("amber.toml").write_text('[[rules]]\ntopic = "u/#"\nunits = {t = "K"}\n')
    reprocessed(capsys, "--yes")
    assert [event[3] for event in events()] == [{"t": "K"}, {"t": "K"}, {"t": "K"}, {}]
    assert reprocessed(capsys, "--yes") == "4 messages read again: 0 would become something else\n"


def test_a_message_that_only_took_too_long_this_time_keeps_its_events() -> None:
    kept(("a/b", b"1"))
    with Reader(STORE) as reader:
        stored = reader.message(1)
    assert stored is not None
    slow = Format(name="slow", read=lambda _sent, _body: time.sleep(1), topics=("a/#",))
    outcome = Formats(Options(message_ms=20), specific=[slow]).read(stored.message)
    assert isinstance(outcome, Rejection)
    assert not Difference(1).note(Reading(stored, outcome))


def test_nobody_to_ask_needs_a_word(capsys: pytest.CaptureFixture[str]) -> None:
    kept(("a", b"1"))
    assert run(["reprocess"]) == 2
    assert capsys.readouterr().err == (
        "amber: nobody is there to be asked: give --dry-run to see the difference, or --yes to replace\n"
    )


def test_a_store_that_is_not_there_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["reprocess", "--dry-run"]) == 1
    assert capsys.readouterr().err.startswith("amber: there is no store at")


def test_a_stored_message_is_explained_by_its_id(capsys: pytest.CaptureFixture[str]) -> None:
    kept(("a/b", b'{"t":1}'))
    assert run(["explain", "--message", "1"]) == 0
    assert "message   a/b · 7 bytes" in capsys.readouterr().out
    assert run(["explain", "--message", "9"]) == 1
    assert capsys.readouterr().err.startswith("amber: there is no message 9 in ")
