"""Claims about `amber gaps`: it names what never came, by the numbers that devices give their events."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.__main__ import run
from storage import open_log
from storage.backup import backup
from storage.checking import check
from storage.engine import sqlite
from storage.event import Detail, Event, Message
from storage.history import Reader
from storage.retention import prune
from storage.retention.ages import RetentionOptions
from storage.store import Store, StoreOptions
from storage.times import iso
from tests.storage.histories import NOON, message
from tests.storage.test_append import rows
from tests.storage.test_identity import named, numbered, of, see_sound

SECOND = 1_000_000

Amber = Callable[..., str]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Two starts of a device, the earlier with gaps, a copy and a conflict; a device that all came of; an id twice."""
    path = tmp_path / "amber.db"
    writer = Store(path, StoreOptions(free_floor_bytes=0))
    writer.append([of(numbered(seq, boot="one")) for seq in (3, 4, 7, 8, 9, 12, 20)], 1)
    writer.append([of(numbered(seq, boot="two", at=NOON + 60 * SECOND + seq)) for seq in range(5)], 1)
    writer.append([of(numbered(4, boot="one")), of(numbered(8, 2, boot="one"))], 1)
    writer.append([of(numbered(seq, device="whole\x1b")) for seq in range(3)], 1)
    writer.append([of(named("x")), of(named("x"))], 1)
    writer.close()
    return path


@pytest.fixture
def amber(store: Path, capfd: pytest.CaptureFixture[str]) -> Amber:
    def call(*words: str) -> str:
        assert run(["gaps", "--store", str(store), *words]) == 0
        out, amber.err = capfd.readouterr()  # type: ignore[attr-defined]
        return out

    amber = call
    return call


def test_the_table_names_what_is_missing_and_says_what_it_cannot_know(amber: Amber) -> None:
    lines = [line.split() for line in amber().splitlines()]
    assert lines == [
        ["device", "boot", "first", "last", "events", "missing", "duplicates", "conflicts", "which"],
        ["d", "-", "-", "-", "0", "0", "1", "0"],
        ["d", "one", "3", "20", "7", "11", "1", "1", "5-6,", "10-11,", "13-19"],
    ]
    assert amber.err.startswith("1 of 3 starts of devices (--all shows all); what came before")  # type: ignore[attr-defined]


def test_all_shows_the_starts_that_are_whole_and_no_name_steers_a_terminal(amber: Amber) -> None:
    lines = amber("--all").splitlines()
    assert [line.split()[:2] for line in lines[1:]] == [["d", "-"], ["d", "one"], ["d", "two"], ["whole\\x1b", "b"]]
    assert amber.err.startswith("3 starts of devices; what came before")  # type: ignore[attr-defined]


def test_every_form_has_all_of_it(amber: Amber) -> None:
    found = json.loads(amber("--format", "json", "--all", "--device", "d"))
    assert [one["boot"] for one in found] == [None, "one", "two"]
    assert found[1] == {
        "device": "d",
        "boot": "one",
        "first": 3,
        "last": 20,
        "events": 7,
        "missing": 11,
        "missing_ranges": [[5, 6], [10, 11], [13, 19]],
        "duplicates": 1,
        "conflicts": 1,
        "restarts": 0,
        "last_observed_at": iso(NOON + 20 * SECOND),
    }
    assert [json.loads(line) for line in amber("--format", "jsonl").splitlines()] == found[:2]
    (_, row) = csv.DictReader(io.StringIO(amber("--format", "csv")))
    assert (row["boot"], row["missing"], json.loads(row["missing_ranges"])) == (
        "one",
        "11",
        [[5, 6], [10, 11], [13, 19]],
    )


def test_since_leaves_out_the_starts_that_are_over(amber: Amber, store: Path) -> None:
    since = iso(NOON + 50 * SECOND)
    assert [one["boot"] for one in json.loads(amber("--format", "json", "--all", "--since", since))] == ["two"]
    with open_log(store) as log:
        assert [one.boot for one in log.gaps(since=since, whole=True)] == ["two"]


def test_a_program_asks_for_the_same(store: Path) -> None:
    with open_log(store) as log:
        (ids, one) = log.gaps(device="d")
        assert (one.boot, one.first, one.last, one.missing) == ("one", 3, 20, 11)
        assert one.missing_ranges == [[5, 6], [10, 11], [13, 19]]
        assert ids.duplicates == 1
        assert log.gaps(device="nobody").to_arrow().num_rows == 0
        assert log.gaps().to_arrow().column("missing_ranges").to_pylist()[1] == one.missing_ranges
        assert [event.detail.conflict for event in log.events(device="d") if event.seq == 8] == [False, True]


def test_an_event_shows_its_start_and_its_mark(store: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["events", "--store", str(store), "-n", "0", "--format", "jsonl", "--device", "d"]) == 0
    found = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert [(one["boot"], one["readings"]) for one in found if one.get("conflict")] == [("one", {"v": 2})]
    assert {one.get("boot") for one in found} == {"one", "two", None}


def test_without_devices_that_number_their_events_it_says_so(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "amber.db"
    Store(path, StoreOptions(free_floor_bytes=0)).close()
    assert run(["gaps", "--store", str(path)]) == 0
    assert "no device tells" in capfd.readouterr().err
    assert run(["gaps", "--store", str(tmp_path / "none.db")]) == 1
    assert capfd.readouterr().err.count("\n") == 1


def test_an_export_keeps_starts_and_marks_and_brings_nothing_twice(store: Path, tmp_path: Path) -> None:
    for name in ("a.jsonl", "a.csv", "a.parquet"):
        file, copy = str(tmp_path / name), tmp_path / f"{name}.db"
        assert run(["export", "--store", str(store), "-o", file]) == 0
        for again in ([], ["--again"]):
            assert run(["import", file, "--store", str(copy), *again]) == 0
        with Reader(store) as old, Reader(copy) as new:
            assert [one.detail for page in new.pages() for one in page] == [
                one.detail for page in old.pages() for one in page
            ]
        see_sound(copy)


def test_a_backup_knows_what_the_store_knows(store: Path, tmp_path: Path) -> None:
    target = tmp_path / "copy.db"
    backup(store, target)
    with Reader(store) as old, Reader(target) as new:
        assert list(new.gaps()) == list(old.gaps())
    copy = Store(target, StoreOptions(free_floor_bytes=0))
    assert copy.append([of(numbered(seq, boot="one")) for seq in (3, 4, 7)], 1).duplicates == 3
    copy.close()
    see_sound(target)


def test_retention_forgets_the_starts_whose_events_are_gone(tmp_path: Path) -> None:
    path = tmp_path / "amber.db"
    writer = Store(path, StoreOptions(segment_events=10, free_floor_bytes=0))
    for boot in range(4):
        for n in range(10):
            one = Message("t", b"", 0, retain=False, received_at=NOON + boot * SECOND)
            at = NOON + boot * SECOND + n
            event = numbered(n, boot=f"{boot}", at=at)
            writer.append([(one, [event]), (one, [event, numbered(n, device="e", boot=f"{boot}", at=at)])], 1)
    options = RetentionOptions(max_age_us=SECOND * 3 // 2)
    report = prune(path, options, now=lambda: NOON + 3 * SECOND)
    assert report.dropped.segments > 0
    with Reader(path) as reader:
        kept = {event.detail and json.loads(event.detail)["boot"] for page in reader.pages() for event in page}
        assert {one.boot for one in reader.gaps()} == kept
    assert kept < {"0", "1", "2", "3"}
    assert {boot for (boot,) in rows(path, "SELECT boot FROM copy_counts")} == kept
    assert writer.append([of(numbered(0, boot="3", at=NOON + 3 * SECOND))], 1).duplicates == 1
    assert writer.append([of(numbered(5, boot="0", at=NOON + 5))], 1).conflicts == 0
    writer.close()
    see_sound(path)


@pytest.mark.parametrize(
    ("harm", "found"),
    [
        ("INSERT INTO sequences VALUES (99, 'b', '[[0,1]]', 0, -1, 0, 0)", "starts of devices not there"),
        ("UPDATE sequences SET ranges = '[[3,1]]'", "make no sense"),
        ("UPDATE sequences SET ranges = 'x'", "make no sense"),
        ("INSERT INTO copy_counts VALUES (99, '', 1, 1)", "counts of devices not there"),
        ("INSERT INTO copies VALUES (999, 0, '', 0)", "1 copies in messages of no segment"),
    ],
)
def test_a_check_finds_what_is_wrong_with_what_is_known(store: Path, harm: str, found: str) -> None:
    writer = Store(store, StoreOptions(free_floor_bytes=0))
    writer.replace([(1, [numbered(3, boot="one")])])  # brings the table up to the log
    writer.close()
    connection = sqlite.connect(store)
    connection.execute(harm)
    connection.commit()
    connection.close()
    faults = [finding.found for finding in check(store) if finding.result == "broken"]
    assert len(faults) == 1
    assert found in faults[0]


def test_a_store_of_schema_3_goes_on_with_what_comes(tmp_path: Path) -> None:
    """Its events have no identity; the first number that comes is where the ranges begin."""
    path = tmp_path / "amber.db"
    writer = Store(path, StoreOptions(free_floor_bytes=0))
    writer.append([of(numbered(seq)) for seq in range(5)], 1)
    writer.append([(message(), [Event("other", "state", "json", NOON, {}, detail=Detail(via="x"))])], 1)
    for table in ("sequences", "copy_counts", "copies"):
        writer.connection.exec_driver_sql(f"DROP TABLE {table}")
    writer.connection.exec_driver_sql("DELETE FROM marks")
    writer.connection.exec_driver_sql("PRAGMA user_version=3")
    writer.connection.commit()
    writer.close()
    writer = Store(path, StoreOptions(free_floor_bytes=0))
    stored = writer.append([of(numbered(seq)) for seq in (4, 7, 4)], 1)
    assert (stored.events, stored.duplicates, stored.conflicts) == (2, 1, 0)
    writer.close()
    with Reader(path) as reader:
        (found,) = reader.gaps()
    assert (found.first, found.last, found.missing) == (4, 7, 2)
    fresh = tmp_path / "fresh.db"
    Store(fresh, StoreOptions(free_floor_bytes=0)).close()
    columns = (
        "SELECT m.name, c.name, c.type, c.pk FROM sqlite_master AS m, pragma_table_info(m.name) AS c"
        " WHERE m.name IN ('sequences', 'copy_counts', 'copies') ORDER BY m.name, c.cid"
    )
    assert rows(path, columns) == rows(fresh, columns) != []
    see_sound(path)
