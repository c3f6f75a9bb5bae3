"""Claims about backups: the whole store as of one moment, whatever is done to it meanwhile, or nothing at all."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from random import Random

import pytest
import typer
from typer.testing import CliRunner, Result

import storage.backup_cli
from storage import backup as backing_up
from storage import segments
from storage.backup import BackupError, Copy, backup
from storage.checking import check
from storage.engine import Lock, sqlite
from storage.errors import StoreError, StoreFull, StoreGone
from storage.event import EVENTS_PER_MESSAGE
from storage.history import Reader
from storage.snapshot import OpenLog
from storage.store import Store
from tests.storage.histories import NOON, ROOT, History, entries, outcome
from tests.storage.histories import check as check_history
from tests.storage.test_faults import mount

Dump = dict[str, object]


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small stores are copied in many reads, too."""
    monkeypatch.setattr(backing_up, "MOST_ROWS", 13)
    monkeypatch.setattr(backing_up, "FEW_MESSAGES", 5)


def amber(*arguments: object) -> Result:
    app = typer.Typer()
    storage.backup_cli.register(app)
    return CliRunner().invoke(app, [*map(str, arguments)], env={"COLUMNS": "200"})


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def dump(path: Path) -> Dump:
    """Everything that a store says: its tables with their rows, its views and indexes, what it says it is."""
    with closing(sqlite.connect(path)) as connection:
        connection.execute("BEGIN")
        found: Dump = {
            name: connection.execute(f"PRAGMA {name}").fetchone() for name in ("application_id", "user_version")
        }
        made = connection.execute("SELECT type, name, sql FROM sqlite_master").fetchall()
        found["schema"] = sorted(made, key=str)
        for name in ("sqlite_sequence", *(name for sort, name, _ in made if sort in ("table", "view"))):
            found[name] = sorted(connection.execute(f"SELECT * FROM {name}").fetchall(), key=str)
        return found


def fill(history: History, random: Random, batches: int = 6) -> None:
    for _ in range(batches):
        history.append(entries(random, 90, len(history.messages)))
    history.index_now()
    history.append(entries(random, 20, len(history.messages)))
    history.writer.submit(lambda store: sum_up(store, 0)).result()


def sum_up(store: Store, number: int) -> None:
    """Write to the summaries as the keeper does: some rows are new, some are changed, some go."""
    run = store.connection.exec_driver_sql
    with store._transaction():
        at = store.event_id
        run(
            "INSERT INTO cursors (name, kind, position, moved_at) VALUES ('rollups', 'summary', ?, 1)"
            " ON CONFLICT DO UPDATE SET position = excluded.position",
            (at,),
        )
        for table in ("rollup_minutes", "rollup_hours"):
            for bucket in range(number % 7, 60 + number, 3):
                row = (bucket, number % 5, at, 1, 0.5, 1.5, number, at, 1.0)
                run(f"INSERT OR REPLACE INTO {table} VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
        if number % 4 == 3:
            run("DELETE FROM rollup_minutes WHERE bucket < ?", (number,))
        run(
            "INSERT OR REPLACE INTO latest (series_id, event_id, at, received_at, value) VALUES (1, ?, 1, 1, ?)",
            (at, str(number)),
        )
        run(
            "INSERT INTO rereads (format, topics, recent_messages, provisional_only, up_to_message_id)"
            " VALUES ('', '', 0, 0, 0)"
        )
        run("DELETE FROM rereads WHERE id % 2")


def drop_oldest(store: Store) -> None:
    """Drop a segment as retention does."""
    run = store.connection.exec_driver_sql
    with store._transaction():
        oldest, following = segments.present(store.connection)[:2]
        run("DELETE FROM segments WHERE id = ?", (oldest.id,))
        run("DELETE FROM rejections WHERE message_id < ?", (following.first_message_id,))
        segments.define_views(store.connection)
        for kind in ("messages", "events", "event_index"):
            run(f"DROP TABLE {kind}_{oldest.id}")


def remove_one(store: Store) -> None:
    """Take the second message of the second segment out, as retention does."""
    run = store.connection.exec_driver_sql
    with store._transaction():
        segment = segments.present(store.connection)[1]
        n, id = segment.id, run(f"SELECT id FROM messages_{segment.id} LIMIT 1 OFFSET 1").scalar_one()
        places = id * EVENTS_PER_MESSAGE, (id + 1) * EVENTS_PER_MESSAGE - 1
        run(f"DELETE FROM event_index_{n} WHERE event_id BETWEEN ? AND ?", places)
        events = run(f"DELETE FROM events_{n} WHERE id BETWEEN ? AND ?", places).rowcount
        rejections = run("DELETE FROM rejections WHERE message_id = ?", (id,)).rowcount
        run(f"DELETE FROM messages_{n} WHERE id = ?", (id,))
        run(
            "UPDATE segments SET removed = removed + 1, events = events - ?, rejections = rejections - ? WHERE id = ?",
            (events, rejections, n),
        )


def disturb(history: History, random: Random, number: int) -> None:
    """Something that a gateway, its keeper or its retention does."""
    if number % 3 == 0:
        history.append(entries(random, random.randrange(1, 25), len(history.messages)))
    elif number % 7 == 1:
        ids = random.sample(range(1, len(history.messages) + 1), 9)
        history.writer.submit(lambda store: store.replace([(id, outcome(random, NOON)) for id in ids])).result()
    elif number % 7 == 2:
        history.writer.submit(lambda store: sum_up(store, number)).result()
    elif number in (40, 80):
        history.writer.submit(drop_oldest).result()
    elif number in (25, 70):
        history.writer.submit(remove_one).result()


@pytest.mark.parametrize("seed", range(4))
def test_a_backup_is_the_store_as_of_one_moment_whatever_happens_meanwhile(new_history: History, seed: int) -> None:
    random, path = Random(seed), new_history.path
    fill(new_history, random)
    part = path.with_name("copy.db")
    expected: Dump = {}
    with closing(Copy(path, part)) as copy:
        copy._rows = 13
        for number, step in enumerate(copy.steps()):
            if step == "finishing":
                expected = dump(path)
            if number < 120 or number % 25 == 0 or step == "finishing":  # it must come to an end
                disturb(new_history, random, number if step != "finishing" else 0)
        position = copy.position
    assert number > 100
    assert len({row[0] for row in expected["segments"]}) > 2  # type: ignore[attr-defined]
    assert dump(part) == expected != dump(path)
    with closing(OpenLog(part)) as log, log.snapshot():
        assert log.position == position
    check_history(part)
    assert [finding for finding in check(part) if finding.result == "broken"] == []


def test_changes_after_the_last_look_are_in_the_copy(new_history: History) -> None:
    """What is done between the last piece copied ahead and the last read is put right in that read."""
    random = Random(3)
    fill(new_history, random)
    path, part = new_history.path, new_history.path.with_name("copy.db")
    with closing(Copy(path, part)) as copy:
        copy._rows = 13
        ahead = sum(step == "copying" for step in copy.steps())
        assert copy.last_read_s > 0
    part.unlink()
    with closing(Copy(path, part)) as copy:
        copy._rows = 13
        settled = copy._settled

        def look() -> bool:
            answer = settled()
            if answer:
                ids = random.sample(range(1, 300), 60)
                new_history.writer.submit(
                    lambda store: store.replace([(id, outcome(random, NOON)) for id in ids])
                ).result()
                new_history.writer.submit(remove_one).result()
                new_history.writer.submit(drop_oldest).result()
                new_history.append(entries(random, 300, len(new_history.messages)))
                new_history.writer.submit(lambda store: sum_up(store, 3)).result()
            return answer

        copy._settled = look  # type: ignore[method-assign]
        assert sum(step == "copying" for step in copy.steps()) == ahead
    assert dump(part) == dump(path)


def test_a_copy_is_read_and_written_on(new_history: History, tmp_path: Path) -> None:
    fill(new_history, Random(1))
    target = tmp_path / "kept" / "copy.db"
    target.parent.mkdir()
    done = backup(new_history.path, target)
    assert (done.messages, done.events) == (len(new_history.messages), len(new_history.events))
    assert done.position == new_history.position
    assert done.bytes == target.stat().st_size
    assert target.stat().st_mode == new_history.path.stat().st_mode
    assert names_in(target.parent) == ["copy.db"]
    with Reader(target) as reader:
        assert [event for page in reader.pages() for event in page] == new_history.events
    new_history.writer.stop()
    new_history.path = target
    new_history.reopen()
    new_history.append(entries(Random(2), 300, len(new_history.messages)))
    with Reader(target) as reader:
        assert [event for page in reader.pages() for event in page] == new_history.events
    new_history.writer.stop()
    check_history(target)


def test_a_store_with_nothing_in_it_is_copied(new_history: History, tmp_path: Path) -> None:
    new_history.writer.submit(lambda store: store.segment).result()
    assert backup(new_history.path, tmp_path / "copy.db").events == 0
    assert dump(tmp_path / "copy.db") == dump(new_history.path)


def test_large_payloads_are_copied_few_at_a_time(
    new_history: History, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backing_up, "MOST_BYTES", 100)
    fill(new_history, Random(5), batches=1)
    backup(new_history.path, tmp_path / "copy.db")
    assert dump(tmp_path / "copy.db") == dump(new_history.path)


def test_tables_and_views_of_others_are_copied(new_history: History, tmp_path: Path) -> None:
    fill(new_history, Random(5), batches=1)
    with closing(sqlite.connect(new_history.path)) as connection:
        connection.execute('CREATE TABLE "my ""notes" (a, b UNIQUE)')
        connection.execute('INSERT INTO "my ""notes" VALUES (1, NULL), (2, 3)')
        connection.execute("CREATE VIEW mine AS SELECT count(*) AS n FROM events")
        connection.commit()
    backup(new_history.path, tmp_path / "copy.db")
    with closing(sqlite.connect(tmp_path / "copy.db")) as connection:
        assert connection.execute('SELECT * FROM "my ""notes"').fetchall() == [(1, None), (2, 3)]
        assert connection.execute("SELECT n FROM mine").fetchone() == (len(new_history.events),)


def test_what_is_left_of_a_segment_that_is_being_dropped_is_not_copied(new_history: History, tmp_path: Path) -> None:
    """Retention takes a segment out of the catalog first, and its tables and rejections bit by bit."""
    fill(new_history, Random(1))
    with closing(sqlite.connect(new_history.path)) as connection:
        newest = connection.execute("SELECT max(id) FROM segments").fetchone()[0]
        connection.execute("DELETE FROM segments WHERE id < ?", (newest,))
        connection.commit()
    new_history.writer.submit(lambda store: segments.define_views(store.connection)).result()
    assert {finding.result for finding in check(new_history.path) if finding.check == "rejections"} == {"warning"}
    backup(new_history.path, tmp_path / "copy.db")
    with closing(sqlite.connect(tmp_path / "copy.db")) as connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE name GLOB 'messages_*'")}
        assert tables == {f"messages_{newest}", f"messages_{newest - 1}"}  # the gateway looks into the last but one
        assert connection.execute(f"SELECT count(*) FROM messages_{newest - 1}").fetchone() == (0,)


def test_killed_in_the_middle_it_leaves_nothing_but_the_part(new_history: History, tmp_path: Path) -> None:
    fill(new_history, Random(1))
    folder = tmp_path / "kept"
    folder.mkdir()
    target = folder / "copy.db"
    program = (
        "import sys; from pathlib import Path; from storage.backup import backup\n"
        "def tell(step, size, expected):\n"
        "    if size > 100_000: print(step, flush=True); sys.stdin.read()\n"
        "backup(Path(sys.argv[1]), Path(sys.argv[2]), tell=tell)"
    )
    command = [sys.executable, "-c", program, str(new_history.path), str(target)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() != b""
        with pytest.raises(BackupError, match="another backup writes"):
            backup(new_history.path, target)
        process.send_signal(signal.SIGKILL)
    assert names_in(folder) == ["copy.db.part"]
    assert (folder / "copy.db.part").stat().st_size > 0
    backup(new_history.path, target)
    assert names_in(folder) == ["copy.db"]
    assert dump(target) == dump(new_history.path)


def test_what_cannot_be_a_target_is_refused_in_one_line(new_history: History, tmp_path: Path) -> None:
    fill(new_history, Random(1), batches=1)
    store, there, folder = new_history.path, tmp_path / "there.db", tmp_path / "folder"
    there.write_bytes(b"mine")
    folder.mkdir()
    (tmp_path / "link.db").symlink_to(store)
    (tmp_path / "gone.db-wal").write_bytes(b"other")
    names = names_in(tmp_path)
    for target, words in (
        (there, "give --overwrite"),
        (store, "is the store itself"),
        (tmp_path / "link.db", "is the store itself"),
        (Path(f"{store}-wal"), "is the store itself"),
        (folder, "is a folder"),
        (tmp_path / "none" / "copy.db", "there is no folder"),
        (there / "copy.db", "there is no folder"),
        (tmp_path / "gone.db", "give --overwrite"),
        (tmp_path / ("n" * 300), "too long"),
        (Path("/proc/copy.db"), "cannot write"),
    ):
        refused = amber("backup", target, "--store", store)
        assert isinstance(refused.exception, StoreError), target
        assert words in str(refused.exception)
        assert len(str(refused.exception).splitlines()) == 1
    with pytest.raises(BackupError, match="no ordinary file"):
        backup(store, Path(os.devnull), overwrite=True)
    with pytest.raises(StoreError, match="there is no store"):
        backup(tmp_path / "none.db", tmp_path / "copy.db")
    assert names_in(tmp_path) == names
    assert there.read_bytes() == b"mine"


def test_overwrite_replaces_an_older_copy_and_its_write_ahead_log(new_history: History, tmp_path: Path) -> None:
    fill(new_history, Random(1), batches=1)
    target = tmp_path / "copy.db"
    for suffix in ("", "-wal", "-shm"):
        Path(f"{target}{suffix}").write_bytes(b"older")
    assert amber("backup", target, "--overwrite", "--store", new_history.path).exit_code == 0
    assert not Path(f"{target}-wal").exists()
    assert dump(target) == dump(new_history.path)
    held = Lock(target)
    with pytest.raises(BackupError, match="in use by a gateway"):
        backup(new_history.path, target, overwrite=True)
    held.release()


def test_the_command_says_what_it_has_copied(new_history: History, tmp_path: Path) -> None:
    fill(new_history, Random(1), batches=1)
    done = amber("backup", tmp_path / "copy.db", "--store", new_history.path)
    assert done.exit_code == 0
    assert f"{len(new_history.events)} events of {len(new_history.messages)} messages, up to" in done.stdout
    assert f"position {new_history.position}," in done.stdout
    assert done.stdout.endswith("verified\n")
    assert done.stderr == ""


def test_a_store_that_is_not_sound_gives_no_copy(new_history: History, tmp_path: Path) -> None:
    fill(new_history, Random(1))
    with closing(sqlite.connect(new_history.path)) as connection:
        connection.execute("DELETE FROM messages_2 WHERE id = (SELECT min(id) + 3 FROM messages_2)")
        connection.commit()
    folder = tmp_path / "kept"
    folder.mkdir()
    with pytest.raises(BackupError, match=r"segment 2: 1 messages are missing"):
        backup(new_history.path, folder / "copy.db")
    assert names_in(folder) == []


def test_an_index_that_is_damaged_is_whole_in_the_copy(new_history: History, tmp_path: Path) -> None:
    fill(new_history, Random(1))
    expected = dump(new_history.path)
    with closing(sqlite.connect(new_history.path)) as connection:
        connection.execute("DELETE FROM event_index_1")
        connection.commit()
    backup(new_history.path, tmp_path / "copy.db")
    assert dump(tmp_path / "copy.db") == expected


def test_a_store_that_is_replaced_meanwhile_is_noticed(new_history: History, tmp_path: Path) -> None:
    fill(new_history, Random(1))
    new_history.writer.stop()
    store, part = tmp_path / "mine.db", tmp_path / "copy.db"
    shutil.copy(new_history.path, store)
    with closing(Copy(store, part)) as copy:
        steps = copy.steps()
        next(steps)
        store.unlink()
        shutil.copy(new_history.path, store)
        with pytest.raises(StoreGone):
            list(steps)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk takes root")
def test_a_disk_that_is_too_small_or_runs_full_is_told(
    new_history: History, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(new_history, Random(1))
    disk = tmp_path / "disk"
    disk.mkdir()
    mount(disk, "size=100k")
    try:
        with pytest.raises(StoreFull, match=r"MB left, and the copy needs"):
            backup(new_history.path, disk / "copy.db")
        monkeypatch.setattr(backing_up, "see_room", lambda *_: None)
        with pytest.raises(StoreFull, match="full"):
            backup(new_history.path, disk / "copy.db")
        assert names_in(disk) == []
    finally:
        subprocess.run(["umount", str(disk)], check=True)
