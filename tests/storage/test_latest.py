"""Claims about the newest values: which one it is, that they survive kills and exchanges, and how they are shown."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path
from random import Random

import msgspec
import pytest
import typer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some
from sqlalchemy import Connection
from typer.testing import CliRunner, Result

import storage.latest_cli
from storage.errors import StoreError
from storage.event import Detail, Entry, Event, Rejection, Value
from storage.filters import Filters
from storage.history import EVERYTHING, LatestValue, Reader, StoredSeries
from storage.render import age
from storage.rereading import Rewriter
from storage.store import StoreOptions
from storage.summaries import keeping
from storage.summaries.keeping import MakeSummary
from storage.summaries.latest import Latest
from storage.summaries.presence import Presence
from storage.times import iso
from tests.storage.histories import NOON, ROOT, History, message
from tests.storage.lives import (
    NOT_SET,
    SECOND,
    keep,
    keeper,
    lived,
    living,
    measured,
    newest_values,
    said,
    truths,
)
from tests.storage.test_append import rows


def amber(*arguments: object, store: Path) -> Result:
    app = typer.Typer()
    storage.latest_cli.register(app)
    return CliRunner().invoke(app, [*map(str, arguments), "--store", str(store)])


def latest(path: Path, filters: Filters = EVERYTHING) -> list[LatestValue]:
    with Reader(path) as reader:
        return list(reader.latest(filters))


def values(path: Path) -> dict[str, str]:
    """Of the one device of a test."""
    return {one.reading: one.value for one in latest(path)}


def both(history: History, *entries: Entry) -> tuple[dict[str, str], dict[str, str]]:
    """The values as a reader tells them alone, and as it tells them after a keeper."""
    history.append(entries)
    alone = values(history.path)
    keep(history.path)
    return alone, values(history.path)


def test_each_series_has_its_newest_value(new_history: History) -> None:
    new_history.append([said(1, measured("pump", 1, {"t": 1.5, "on": True})), said(2, measured("pump", 2, {"t": "x"}))])
    new_history.append([said(3, measured("lamp", 3, {"t": None}))])
    expected = [
        LatestValue("lamp", "t", "null", None, "missing", NOON + 3 * SECOND, NOON + 3 * SECOND, 30_000),
        LatestValue("pump", "on", "true", None, None, NOON + SECOND, NOON + SECOND, 10_000),
        LatestValue("pump", "t", '"x"', None, None, NOON + 2 * SECOND, NOON + 2 * SECOND, 20_000),
    ]
    assert latest(new_history.path) == expected
    keep(new_history.path)
    assert latest(new_history.path) == expected
    assert rows(new_history.path, "SELECT count(*) FROM latest") == [(3,)]


def test_what_has_come_since_the_keeper_wrote_is_read_too(new_history: History) -> None:
    new_history.append([said(1, measured("pump", 1, {"t": 1, "h": 1}))])
    keep(new_history.path)
    new_history.append([said(2, measured("pump", 2, {"t": 2, "new": 2})), said(3, measured("lamp", 3, {"t": 3}))])
    assert [(one.device, one.reading, one.value) for one in latest(new_history.path)] == [
        *(("lamp", "t", "3"), ("pump", "h", "1"), ("pump", "new", "2"), ("pump", "t", "2"))
    ]


def test_a_late_burst_out_of_a_buffer_does_not_override(new_history: History) -> None:
    late = [said(10 + n, measured("pump", n, {"t": n})) for n in range(5)]
    told = both(new_history, said(9, measured("pump", 9, {"t": 9})), *late)
    assert told == ({"t": "9"}, {"t": "9"})


def test_a_clock_that_was_ahead_does_not_freeze_a_series(new_history: History) -> None:
    ahead = said(1, measured("pump", 10**9, {"t": 1}))
    assert both(new_history, ahead, said(2, measured("pump", 2, {"t": 2}))) == ({"t": "2"}, {"t": "2"})


def test_a_clock_that_was_never_set_counts_as_of_when_its_messages_came(new_history: History) -> None:
    unset = [said(n, Event("pump", "measurement", "json", NOT_SET, {"t": n})) for n in (1, 2)]
    assert both(new_history, *unset) == ({"t": "2"}, {"t": "2"})
    assert latest(new_history.path)[0].at == NOON + 2 * SECOND


def test_of_the_same_time_the_later_in_the_log_is_the_newest(new_history: History) -> None:
    same = said(1, *(measured("pump", 1, {"t": n}) for n in range(3)))
    assert both(new_history, same) == ({"t": "2"}, {"t": "2"})


def test_what_a_device_was_told_or_announces_is_none_of_its_values(new_history: History) -> None:
    told = [measured("lamp", 2, {"on": True}, kind=kind) for kind in ("command", "discovery")]
    assert both(new_history, said(1, measured("lamp", 1, {"on": False})), said(2, *told))[1] == {"on": "false"}


def test_a_value_has_the_unit_of_its_own_event(new_history: History) -> None:
    """A device that goes over to another unit is shown in that; texts have none."""
    for n, unit in enumerate(("Cel", "[degF]")):
        new_history.append([said(n, measured("pump", n, {"t": n, "u": n}, units={"t": unit, "u": "V"}))])
    new_history.append([said(3, measured("pump", 3, {"u": "overload"}))])
    for _ in range(2):
        assert [(one.reading, one.value, one.unit) for one in latest(new_history.path)] == [
            *(("t", "1", "[degF]"), ("u", '"overload"', None))
        ]
        keep(new_history.path)


def test_a_value_has_its_quality(new_history: History) -> None:
    detail = Detail(quality={"a": "bad", "b": "uncertain"})
    new_history.append([said(1, measured("pump", 1, {"a": None, "b": 2, "c": None, "d": 4}, detail=detail))])
    for _ in range(2):
        assert [one.quality for one in latest(new_history.path)] == ["bad", "uncertain", "missing", None]
        keep(new_history.path)


def test_the_filters_choose(new_history: History) -> None:
    new_history.append([said(n, measured(f"pump-{n}", n, {"t": n, "h": n})) for n in range(4)])
    path, span = new_history.path, Filters(readings=("t",), since=NOON + SECOND, until=NOON + 3 * SECOND)
    for _ in range(2):
        found = latest(path, Filters(devices=("pump-?",), readings=("t",)))
        assert [one.device for one in found] == [f"pump-{n}" for n in range(4)]
        assert [one.reading for one in latest(path, Filters(devices=("pump-2",)))] == ["h", "t"]
        assert [one.value for one in latest(path, span)] == ["1", "2"]
        assert [one.value for one in latest(path, msgspec.structs.replace(span, clock="observed"))] == ["1", "2"]
        assert latest(path, Filters(devices=("nobody",))) == latest(path, Filters(readings=("none",))) == []
        keep(path)


@pytest.mark.parametrize(
    "filters", [Filters(topics=("#",)), Filters(kinds=("state",)), Filters(after=1), Filters(until_position=1)]
)
def test_what_the_values_cannot_be_chosen_by_is_refused(new_history: History, filters: Filters) -> None:
    with Reader(new_history.path) as reader, pytest.raises(ValueError, match="cannot be chosen"):
        next(reader.latest(filters))


def test_a_value_that_is_older_than_what_has_just_come_is_not_stale(new_history: History) -> None:
    new_history.append([said(1, measured("pump", 1, {"t": 1}))])
    keep(new_history.path)
    new_history.append([said(100, measured("pump", 100, {"t": 2}))])
    assert latest(new_history.path, Filters(clock="observed", until=NOON + 50 * SECOND)) == []


@pytest.mark.parametrize("series_a_read", [1, 7, 100, 2_000])
def test_more_series_than_one_read_takes_come_in_order(
    new_history: History, monkeypatch: pytest.MonkeyPatch, series_a_read: int
) -> None:
    monkeypatch.setattr("storage.summaries.latest.SERIES_A_READ", series_a_read)
    wide = {f"r{n}": n for n in range(250)}
    new_history.append([said(1, measured("b", 1, dict(wide)))])
    new_history.append([said(2 + n, measured(f"{'ac'[n % 2]}{n}", 2, {"t": n})) for n in range(50)])
    expected = sorted([("b", reading) for reading in wide] + [(f"{'ac'[n % 2]}{n}", "t") for n in range(50)])
    for _ in range(2):
        assert [(one.device, one.reading) for one in latest(new_history.path)] == expected
        keep(new_history.path)
    with Reader(new_history.path) as reader:
        assert [(one.device, one.reading) for one in reader.series()] == expected


def test_an_empty_store_has_no_values(new_history: History) -> None:
    for _ in range(2):
        with Reader(new_history.path) as reader:
            assert [*reader.latest(), *reader.series(), *reader.devices()] == []
        keep(new_history.path)


def test_a_series_tells_its_unit_and_when_it_last_had_a_value(new_history: History) -> None:
    new_history.append([said(1, measured("pump", 1, {"t": 1, "n": 2}, units={"t": "Cel"}, unit_sources={"t": "rule"}))])
    new_history.append([said(2, measured("pump", 2, {"set": 1}, kind="command"))])
    for _ in range(2):
        with Reader(new_history.path) as reader:
            assert list(reader.series()) == [
                StoredSeries("pump", "n", None, None, NOON + SECOND),
                StoredSeries("pump", "set", None, None, None),
                StoredSeries("pump", "t", "Cel", "rule", NOON + SECOND),
            ]
            assert [one.reading for one in reader.series(Filters(devices=("p*",), readings=("t",)))] == ["t"]
        keep(new_history.path)


def test_an_exchange_is_followed(new_history: History) -> None:
    """Another value, another name for a reading, another time, another device, none at all."""
    new_history.append([said(n, measured("pump", n, {"t": n})) for n in range(1, 6)])
    keep(new_history.path)

    def after(message_id: int, *events: Event) -> dict[str, str]:
        new_history.replace([(message_id, events)])
        keep(new_history.path)
        return values(new_history.path)

    assert after(5, measured("pump", 5, {"t": 50})) == {"t": "50"}
    assert after(5, measured("pump", 5, {"u": 50})) == {"t": "4", "u": "50"}
    assert after(4, measured("pump", 0, {"t": 4})) == {"t": "3", "u": "50"}
    assert after(5) == {"t": "3"}
    new_history.replace([(n, Rejection("no")) for n in range(1, 4)])
    keep(new_history.path)
    assert values(new_history.path) == {"t": "4"}
    new_history.replace([(4, [measured("lamp", 4, {"t": 4})])])
    keep(new_history.path)
    assert [(one.device, one.value) for one in latest(new_history.path)] == [("lamp", "4")]


def test_an_exchange_by_another_process_is_followed(new_history: History) -> None:
    """As `amber reprocess` does it, with no gateway running; while it is not followed up, the reader tells what was."""
    new_history.append([said(n, measured("pump", n, {"t": n})) for n in range(1, 20)])
    new_history.index_now()
    new_history.append([said(n, measured("pump", n, {"t": n})) for n in range(20, 25)])
    keep(new_history.path)
    new_history.writer.stop()
    with Rewriter(new_history.path, StoreOptions(free_floor_bytes=0)) as rewriter:
        rewriter.stage([(n, [measured("lamp" if n > 10 else "pump", n, {"t": -n})]) for n in range(5, 25)])
        rewriter.exchange()
    assert [(one.device, one.value) for one in latest(new_history.path)] == [("pump", "24")]
    keep(new_history.path)
    assert [(one.device, one.value) for one in latest(new_history.path)] == [("lamp", "-24"), ("pump", "-10")]


def test_what_retention_has_dropped_stays_until_something_newer_comes(tmp_path: Path) -> None:
    with History(tmp_path / "amber.db", segment_events=5) as history:
        history.append([said(n, measured("pump", n, {"rare": n} if n < 3 else {"t": n})) for n in range(1, 31)])
        for n in range(31, 60):
            history.append([said(n, measured("pump", n, {"t": n}))])
        keep(history.path)
        history.writer.submit(drop_first_segment).result()
        history.replace([(59, [measured("pump", 59, {"t": 590})])])
        keep(history.path)
        assert values(history.path) == {"rare": "2", "t": "590"}
        history.append([said(70, measured("pump", 70, {"rare": 70}))])
        keep(history.path)
        assert values(history.path) == {"rare": "70", "t": "590"}


def drop_first_segment(store: object) -> None:
    """As retention does it, and what it notes."""
    with store._transaction():  # type: ignore[attr-defined]
        run = store.connection.exec_driver_sql  # type: ignore[attr-defined]
        (number,) = run("SELECT min(id) FROM segments").one()
        run(
            "INSERT INTO forgotten SELECT device_id, count(*), (SELECT received_to FROM segments WHERE id = ?)"
            f" FROM event_index_{number} GROUP BY device_id",
            (number,),
        )
        run("DELETE FROM segments WHERE id = ?", (number,))
        for view in ("events", "messages"):
            run(f"DROP VIEW {view}")
        for table in ("events", "messages", "event_index"):
            run(f"DROP TABLE {table}_{number}")


class Killed(Exception):
    """The end of a process, at a moment of the test's own choosing."""


class Dying(Latest):
    """Is killed in its third step of writing."""

    steps = 0

    def write(self, connection: Connection, position: int, rows: int) -> None:
        super().write(connection, position, rows)
        self.steps += 1
        if self.steps == 3:
            raise Killed


class DyingPresence(Presence):
    steps = 0

    def write(self, connection: Connection, position: int, rows: int) -> None:
        super().write(connection, position, rows)
        self.steps += 1
        if self.steps == 3:
            raise Killed


def test_a_keeper_killed_between_two_steps_counts_nothing_twice(
    new_history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "WRITTEN_ROWS", 2)
    new_history.append([said(n, measured(f"d{n % 9}", n, {"t": n})) for n in range(50)])
    doomed: list[list[MakeSummary]] = [[Dying, Presence], [Latest, DyingPresence]]
    for kinds in doomed:
        with pytest.raises(Killed), keeper(new_history.path, kinds) as kept:
            kept.catch_up()
        see_truth(new_history)
        assert rows(new_history.path, "SELECT count(*) FROM cursors WHERE flushing_to IS NOT NULL") == [(1,)]
        new_history.append([said(50 + n, measured(f"d{n}", 50 + n, {"t": n, "u": n})) for n in range(5)])
        see_truth(new_history)
    keep(new_history.path)
    see_truth(new_history)
    assert rows(new_history.path, "SELECT sum(events) FROM presence") == [(60,)]


def see_truth(history: History, *, with_words: bool = True) -> None:
    """What a reader tells is what looking at all events tells."""
    with Reader(history.path) as reader:
        told = {(one.device, one.reading): one for one in reader.latest()}
        found = {one.device: one for one in reader.devices()}
    assert list(told) == sorted(told)
    expected = newest_values(history.events)
    assert {key: (one.event_id, one.at, one.value, one.quality) for key, one in told.items()} == expected
    truth = truths(history.events)
    assert list(found) == sorted(truth)
    newest = {event.device: event for event in history.events}
    for device, one in found.items():
        last = newest[device]
        assert (one.events, one.first_received_at, one.last_position) == truth[device][:3]
        assert (one.last_kind, one.format, one.last_observed_at) == (last.kind, last.format, last.observed_at)
        assert one.last_received_at == last.received_at
        if with_words:
            assert (one.online, one.online_since) == truth[device][3:]


def test_a_value_that_is_lost_gives_way_to_an_earlier_event_of_the_same_moment(new_history: History) -> None:
    both: dict[str, Value] = {"t": 1, "u": 1}
    one: dict[str, Value] = {"t": 2}
    new_history.append([said(1, measured("d", 1, both)), said(2, measured("d", 1, one))])
    keep(new_history.path)
    new_history.replace([(2, [measured("other", 1, one)])])
    keep(new_history.path)
    see_truth(new_history)


STEPS = "append", "append", "index", "note", "keep", "kill", "reopen", "replace"


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=some.integers(0, 2**32), steps=some.lists(some.sampled_from(STEPS), min_size=4, max_size=10))
def test_whatever_happens_the_truth_is_told(
    seed: int, steps: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Appends, exchanges, keepers that come and go: at each moment the reader tells what all the events tell."""
    random = Random(seed)
    replaced = 0
    path = tmp_path_factory.mktemp("lives") / "amber.db"
    with History(path, segment_events=25) as history:
        history.append(living(random, 10, 0))
        kept = keeper(path)
        for step in steps:
            if step == "append":
                history.append(living(random, random.randrange(1, 20), len(history.messages)))
            elif step == "index":
                history.index_now()
            elif step == "note":
                kept.step()
            elif step == "keep":
                kept.catch_up()
            elif step in ("kill", "reopen"):
                if step == "reopen":
                    kept.flush()
                kept.__exit__(None, None, None)
                kept = keeper(path)
            else:
                ids = random.sample(range(1, len(history.messages) + 1), 6)
                history.replace([(id, lived(random, history.messages[id - 1].received_at)) for id in ids])
                kept.catch_up()
                replaced += 1
            see_truth(history, with_words=not replaced)
        kept.catch_up()
        kept.__exit__(None, None, None)
        see_truth(history, with_words=not replaced)
        assert rows(path, "SELECT count(*) FROM latest") == [(len(newest_values(history.events)),)]


def test_latest_prints_a_table(new_history: History) -> None:
    now = time.time_ns() // 1000
    ago = [now - 12 * SECOND - 500_000, now - 200 * SECOND]
    detail = Detail(quality={"u": "bad"})
    events = [
        Event("pump", "measurement", "json", ago[0], {"t": 21.5}, units={"t": "Cel"}),
        Event("pump", "state", "json", ago[1], {"u": 85, "mode": "\x1b[31meco", "x": None}, detail=detail),
    ]
    new_history.append([(message(received_at=now), events)])
    shown = amber("latest", store=new_history.path)
    assert shown.exit_code == 0
    head, *lines = shown.stdout.splitlines()
    assert head.split() == ["device", "reading", "value", "unit", "age", "observed_at"]
    found = {line.split()[1]: line for line in lines}
    assert " ".join(found["t"].split()[2:4]) == "21.5 Cel"
    assert " s  " in found["t"]
    assert iso(ago[0])[:-4] in found["t"]
    assert "85 (bad)" in found["u"]
    assert "3 min" in found["u"]
    assert "null (missing)" in found["x"]
    assert "\\x1b[31meco" in found["mode"]


def test_latest_prints_json_and_csv(new_history: History) -> None:
    new_history.append([said(1, measured('pu"mp', 1, {"t": 1.5, "x": None}, units={"t": "Cel"}))])
    array = json.loads(amber("latest", "--format", "json", store=new_history.path).stdout)
    lines = amber("latest", "--format", "jsonl", store=new_history.path).stdout.splitlines()
    assert [json.loads(line) for line in lines] == array
    assert array[0] == {
        "device": 'pu"mp',
        "reading": "t",
        "value": 1.5,
        "unit": "Cel",
        "quality": None,
        "observed_at": iso(NOON + SECOND),
        "received_at": iso(NOON + SECOND),
        "event_id": 10_000,
    }
    assert (array[1]["value"], array[1]["quality"]) == (None, "missing")
    records = list(csv.DictReader(io.StringIO(amber("latest", "--format", "csv", store=new_history.path).stdout)))
    assert [(one["device"], one["value"], one["quality"]) for one in records] == [
        *(('pu"mp', "1.5", ""), ('pu"mp', "", "missing"))
    ]


def test_latest_shows_only_what_is_stale_or_fresh(new_history: History) -> None:
    now = time.time_ns() // 1000
    ages = {"old": 3_600, "new": 10}
    for name, seconds in ages.items():
        observed_at = now - seconds * SECOND
        new_history.append([(message(received_at=now), [Event(name, "state", "json", observed_at, {"t": 1})])])

    def devices(*options: str) -> list[str]:
        lines = amber("latest", "--format", "jsonl", *options, store=new_history.path).stdout.splitlines()
        return [json.loads(line)["device"] for line in lines]

    assert devices("--stale", "10m") == ["old"]
    assert devices("--since", "10m") == ["new"]
    assert devices("--stale", "10m", "--since", "2h") == ["old"]
    assert devices("--device", "n*") == ["new"]
    assert devices("--reading", "none") == []


def test_series_prints_each(new_history: History) -> None:
    new_history.append([said(1, measured("pump", 1, {"t": 1, "": 2}, units={"t": "Cel"}))])
    assert json.loads(amber("series", "--format", "json", "--reading", "t", store=new_history.path).stdout) == [
        {
            "device": "pump",
            "reading": "t",
            "unit": "Cel",
            "unit_source": "message",
            "last_observed_at": iso(NOON + SECOND),
        }
    ]
    assert len(amber("series", store=new_history.path).stdout.splitlines()) == 3
    assert "pump,,,," in amber("series", "--format", "csv", store=new_history.path).stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ("latest", "--stale", "soon"),
        ("latest", "--stale", "99999999999999d"),
        ("latest", "--stale", "2h", "--since", "1h"),
        ("latest", "--since", "garbage"),
        ("latest", "--topic", "a/#"),
        ("latest", "--watch"),
        ("latest", "--watch", "--format", "json"),
        ("series", "--since", "1h"),
        ("devices", "--format", "xml"),
        ("devices", "--device", "\udcff"),
    ],
)
def test_wrong_usage_is_exit_code_2(new_history: History, arguments: tuple[str, ...]) -> None:
    wrong = amber(*arguments, store=new_history.path)
    assert wrong.exit_code == 2
    assert wrong.stdout == ""


def test_a_store_that_is_not_there_is_an_error_for_the_main_program(tmp_path: Path) -> None:
    for command in ("latest", "series", "devices"):
        assert isinstance(amber(command, store=tmp_path / "nix.db").exception, StoreError)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "0 s"),
        (59.9, "59 s"),
        (60, "1 min"),
        (3_599, "59 min"),
        (3_600, "1 h"),
        (172_800, "2 d"),
    ],
)
def test_an_age_is_told_in_the_unit_that_fits(seconds: float, text: str) -> None:
    assert age(int(seconds * SECOND)) == text


def test_watch_repaints_until_ctrl_c(new_history: History) -> None:
    new_history.append([said(1, measured("pump", 1, {"t": 4321}))])
    master, terminal = pty.openpty()
    command = [sys.executable, "-m", "gateway", "latest", "--watch", "--store", str(new_history.path)]
    env = {**os.environ, "TERM": "xterm", "COLUMNS": "100", "LINES": "10"}
    with subprocess.Popen(command, cwd=ROOT, env=env, stdout=terminal, stderr=subprocess.PIPE) as process:
        os.close(terminal)
        seen = b""
        while b"4321" not in seen:
            seen += os.read(master, 4096)
        new_history.append([said(2, measured("pump", 2, {"t": 8765}))])
        while b"8765" not in seen:
            seen += os.read(master, 4096)
        process.send_signal(signal.SIGINT)
        while True:
            try:
                seen += os.read(master, 4096)
            except OSError:  # the other end is closed
                break
        assert process.stderr
        assert process.stderr.read() == b""
    os.close(master)
    assert process.returncode == 0
