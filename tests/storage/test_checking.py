"""Claims about `amber check`: a sound store passes, also while it is written to, and each sort of damage is found."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from random import Random

import pytest

from gateway.__main__ import run
from storage import checking
from storage.checking import Finding, check
from storage.engine import Lock, sqlite
from storage.errors import StoreError
from storage.segments import VIEWED_SEGMENTS
from storage.store import Store, StoreOptions
from tests.storage.histories import History, entries, message
from tests.storage.test_backup import drop_oldest, fill, remove_one, sum_up


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that nobody writes to any more."""
    path = tmp_path_factory.mktemp("sound") / "amber.db"
    with History(path) as history:
        fill(history, Random(11))
        history.writer.submit(remove_one).result()
    return path


@pytest.fixture
def store(sound: Path, tmp_path: Path) -> Path:
    """A copy of it to be damaged."""
    return Path(shutil.copy(sound, tmp_path / "amber.db"))


def broken(path: Path, *, quick: bool = False) -> list[Finding]:
    return [finding for finding in check(path, quick=quick) if finding.result == "broken"]


def damage(path: Path, *statements: str) -> None:
    with closing(sqlite.connect(path)) as connection:
        columns = len(connection.execute("PRAGMA table_info(presence)").fetchall())
        for statement in statements:
            assert connection.execute(statement.replace("{ones}", ", ".join("1" * columns))).rowcount != 0, statement
        connection.commit()


@pytest.mark.parametrize("quick", [False, True])
def test_a_sound_store_passes(sound: Path, capfd: pytest.CaptureFixture[str], quick: bool) -> None:  # noqa: FBT001
    assert run(["check", "--store", str(sound), "--format", "json", *(["--quick"] if quick else [])]) == 0
    findings = json.loads(capfd.readouterr().out)
    assert {finding["result"] for finding in findings} <= {"ok", "warning"}
    assert list(findings[0]) == ["check", "result", "found", "remedy"]
    said = {finding["check"]: finding["found"] for finding in findings}
    assert "schema 4" in said["file"]
    assert "4 sound" in said["segments"] or "3 sound" in said["segments"]
    assert said["gateway"] == "none is running"
    assert "rollups" in said["cursors"]


def test_the_smallest_store_passes(new_history: History) -> None:
    new_history.writer.submit(lambda store: store.segment).result()
    assert broken(new_history.path) == []
    new_history.append([(message(), [])])
    assert broken(new_history.path) == []


def test_a_store_that_is_written_to_gives_no_false_alarm(new_history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checking, "PIECE_ROWS", 17)
    random = Random(5)
    fill(new_history, random)
    pieces, looks = checking._pieces, [0]

    def disturbed(*arguments: object) -> Iterator[object]:
        """Something happens to the store before each piece."""
        for piece in pieces(*arguments):  # type: ignore[arg-type]
            yield piece
            looks[0] += 1
            new_history.append(entries(random, 7, len(new_history.messages)))
            if looks[0] % 20 == 7:
                new_history.writer.submit(remove_one).result()
            if looks[0] % 20 == 11:
                ids = random.sample(range(1, len(new_history.messages)), 9)
                new_history.replace([(id, entries(random, 1, id)[0][1]) for id in ids])
            if looks[0] % 50 == 23:
                new_history.writer.submit(drop_oldest).result()

    monkeypatch.setattr(checking, "_pieces", disturbed)
    findings = []
    for number, finding in enumerate(check(new_history.path)):
        findings.append(finding)
        new_history.append(entries(random, 30, len(new_history.messages)))
        new_history.writer.submit(partial(sum_up, number=number)).result()
    assert looks[0] > 50
    assert [finding for finding in findings if finding.result == "broken"] == []
    assert "one is running" in {finding.check: finding.found for finding in findings}["gateway"]


@pytest.mark.parametrize(
    ("statements", "name", "words"),
    [
        (
            ["DELETE FROM event_index_1 WHERE event_id = (SELECT max(event_id) FROM event_index_1)"],
            "segment 1",
            "in the index of",
        ),
        (["DELETE FROM events_2 WHERE id = (SELECT max(id) FROM events_2)"], "segment 2", "where the catalog counts"),
        (["UPDATE segments SET events = events + 1 WHERE id = 1"], "segment 1", "where the catalog counts"),
        (["UPDATE segments SET rejections = rejections + 1 WHERE id = 1"], "segment 1", "rejections where the catalog"),
        (
            ["DELETE FROM messages_1 WHERE id = (SELECT message_id FROM rejections LIMIT 1)"],
            "segment 1",
            "1 messages are missing",
        ),
        (
            ["DELETE FROM messages_1 WHERE id = (SELECT message_id FROM rejections LIMIT 1)"],
            "segment 1",
            "1 rejections of messages that are not there",
        ),
        (["UPDATE messages_1 SET id = 1000000 WHERE id = 5"], "segment 1", "outside of 1 to"),
        (["UPDATE events_2 SET id = 7 WHERE id = (SELECT min(id) FROM events_2)"], "segment 2", "outside of"),
        (["INSERT INTO rejections VALUES (1000000, 10000000, '', 'x')"], "rejections", "1 of messages in no segment"),
        (["DROP TABLE events_2"], "tables", "missing: events_2"),
        (["UPDATE cursors SET position = 1 << 50"], "cursors", "beyond the end of the log: rollups"),
        (["UPDATE latest SET series_id = 1000000"], "names", "1 latest values of series not there"),
        (["INSERT INTO series VALUES (1000000, 1000000, 'a', NULL, NULL)"], "names", "1 series of devices not there"),
        (
            ["INSERT INTO presence VALUES ({ones})", "UPDATE presence SET device_id = 1000000"],
            "names",
            "1 presences of devices",
        ),
        (["DROP TABLE rereads"], "pending", "no such table"),
        (["DROP TABLE topics"], "segment 1", "no such table"),
    ],
)
def test_each_sort_of_damage_is_found(store: Path, statements: list[str], name: str, words: str) -> None:
    damage(store, *statements)
    assert [finding for finding in broken(store) if finding.check == name and words in finding.found]
    assert all(finding.remedy for finding in broken(store))
    assert run(["check", "--store", str(store)]) == 1


@pytest.mark.parametrize(
    ("statement", "name", "words"),
    [
        ("UPDATE event_index_1 SET observed_at = observed_at + 1", "segment 1", "events that the index does not know"),
        ("UPDATE events_1 SET device_id = 1000000 WHERE id < 100000", "segment 1", "events of devices"),
        ("UPDATE events_1 SET kind_id = 1000000 WHERE id < 100000", "segment 1", "events of kinds or formats"),
        ("UPDATE events_1 SET readings = '{\"never\":1}' WHERE id < 100000", "segment 1", "readings of no series"),
        ("UPDATE events_1 SET readings = '{' WHERE id < 100000", "segment 1", "readings of no series"),
        ("UPDATE messages_1 SET topic_id = 1000000 WHERE id = 5", "segment 1", "1 messages of topics"),
        ("UPDATE segments SET received_from = received_to WHERE id = 1", "segment 1", "outside of the times"),
        ("UPDATE segments SET observed_to = NULL WHERE id = 1", "segment 1", "outside of the times"),
    ],
)
def test_what_single_entries_tell_is_found_but_not_quickly(store: Path, statement: str, name: str, words: str) -> None:
    damage(store, statement)
    assert [finding for finding in broken(store) if finding.check == name and words in finding.found]
    assert broken(store, quick=True) == []


def test_tables_of_no_segment_are_a_warning(store: Path, capfd: pytest.CaptureFixture[str]) -> None:
    damage(store, "CREATE TABLE events_99 AS SELECT * FROM events_1")
    assert run(["check", "--store", str(store)]) == 0
    assert "of dropped segments: events_99" in capfd.readouterr().out


def test_flipped_bytes_are_found(store: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with closing(sqlite.connect(store)) as connection:
        roots = connection.execute("SELECT name, rootpage FROM sqlite_master WHERE type = 'table'").fetchall()
    for name, root in roots:
        hurt = store.with_name(f"{name}.db")
        content = bytearray(store.read_bytes())
        page = slice((root - 1) * 4096, root * 4096)
        content[page] = bytes(byte ^ 0x5A for byte in content[page])
        hurt.write_bytes(content)
        assert run(["check", "--store", str(hurt)]) == 1, name
        output = capfd.readouterr()
        assert "broken" in output.out or output.err.startswith("amber: "), name
        assert len(output.err.splitlines()) <= 1


def test_what_is_no_whole_file_is_told_in_one_line(
    store: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    content = store.read_bytes()
    for name, hurt in {
        "cut": content[: len(content) // 2],
        "odd": content[:5_001],
        "head": content[:50],
        "garbage": b"\xa5" * 100 + content[100:],
        "text": b"hello, world\n" * 1_000,
        "empty": b"",
    }.items():
        (tmp_path / name).write_bytes(hurt)
        assert run(["check", "--store", str(tmp_path / name)]) == 1, name
        output = capfd.readouterr()
        assert "broken" in output.out or len(output.err.splitlines()) == 1, name
    assert run(["check", "--store", str(tmp_path)]) == 1
    assert run(["check", "--store", str(tmp_path / "none.db")]) == 1
    assert len(capfd.readouterr().err.splitlines()) == 2


def test_a_store_without_its_write_ahead_log_is_told_or_sound(new_history: History, tmp_path: Path) -> None:
    """What had been checkpointed by then is there, or SQLite sees that it does not fit."""
    fill(new_history, Random(1))
    shutil.copy(new_history.path, tmp_path / "alone.db")
    with contextlib.suppress(StoreError):
        list(check(tmp_path / "alone.db"))


def test_a_store_of_many_segments_passes(tmp_path: Path) -> None:
    with History(tmp_path / "amber.db", segment_events=3) as history:
        history.append(entries(Random(1), 3 * VIEWED_SEGMENTS // 50))
        assert broken(history.path) == []


def test_a_large_write_ahead_log_is_a_warning(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checking, "LARGE_WAL_BYTES", 1)
    with closing(sqlite.connect(store)) as connection:
        connection.execute("UPDATE cursors SET moved_at = 2")
        connection.commit()
        found = {finding.check: finding for finding in check(store)}
    assert found["write-ahead log"].result == "warning"


def test_a_segment_that_retention_has_emptied_passes(store: Path) -> None:
    damage(
        store,
        "UPDATE segments SET removed = removed + (SELECT count(*) FROM messages_1), events = 0, rejections = 0"
        " WHERE id = 1",
        "DELETE FROM rejections WHERE message_id IN (SELECT id FROM messages_1)",
        "DELETE FROM messages_1",
        "DELETE FROM events_1",
        "DELETE FROM event_index_1",
    )
    assert broken(store) == []


def test_whoever_asks_for_the_lock_does_not_take_it(store: Path) -> None:
    assert not checking.is_held(store)
    held = Lock(store)
    assert checking.is_held(store)
    held.release()
    assert not checking.is_held(store)
    Lock(store).release()


def test_the_store_is_opened_by_its_gateway_after_a_check(store: Path) -> None:
    list(check(store))
    opened = Store(store, StoreOptions(free_floor_bytes=0))
    opened.append([(message(), [])], 1)
    opened.close()
    assert broken(store) == []
