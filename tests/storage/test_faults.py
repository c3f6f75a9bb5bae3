"""Claims about a disk that misbehaves: nothing is called stored that is not, and storing goes on when it can."""

import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path

import pytest

from storage.engine import sqlite
from storage.errors import StoreBusy, StoreDamaged, StoreError, StoreFull
from storage.event import EVENTS_PER_MESSAGE
from storage.store import Committed, StoreOptions
from storage.writer import Writer
from tests.storage.test_append import entry, rows

OPTIONS = StoreOptions(segment_events=1_000, free_floor_bytes=0)


@contextmanager
def writing(path: Path, options: StoreOptions = OPTIONS) -> Iterator[Writer]:
    writer = Writer(path, options)
    try:
        yield writer
    finally:
        writer.stop()


def wait_for_trouble(writer: Writer, future: Future[Committed], kind: type[StoreError]) -> str:
    """The words for what the writer waits for, once it does."""
    while not isinstance(writer.trouble, kind):
        assert not future.done(), future.exception()
    return str(writer.trouble)


def stored(path: Path) -> list[object]:
    return [row[0] for row in rows(path, "SELECT seq FROM events ORDER BY id")]


def test_a_held_write_lock_is_waited_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "amber.db"
    with writing(path) as writer, caplog.at_level(logging.WARNING, "amber.store"):
        writer.append([entry(0)], 1).result()
        other = sqlite.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        future = writer.append([entry(1)], 1)
        assert "locked by another program" in wait_for_trouble(writer, future, StoreBusy)
        other.execute("ROLLBACK")
        other.close()
        assert future.result().position == 2 * EVENTS_PER_MESSAGE
        assert writer.trouble is None
    assert stored(path) == [0, 1]
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]


def test_below_the_floor_of_free_space_nothing_is_stored(tmp_path: Path) -> None:
    path = tmp_path / "amber.db"
    writer = Writer(path, StoreOptions(free_floor_bytes=1 << 60))
    future = writer.append([entry(0)], 1)
    assert "must stay free" in wait_for_trouble(writer, future, StoreFull)
    writer.stop()
    with pytest.raises(StoreFull):
        future.result()
    assert stored(path) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk takes root")
def test_a_full_disk_is_waited_out_without_loss_or_repeat(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount(disk, "size=2m")
    try:
        path = disk / "amber.db"
        with writing(path) as writer:
            done, future = 0, writer.append([entry(0)], 1)
            while True:
                try:
                    future.result(timeout=0.5)
                except TimeoutError:
                    break
                done += 50
                future = writer.append([entry(n) for n in range(done - 49, done + 1)], 1)
            assert "is full" in wait_for_trouble(writer, future, StoreFull)
            mount(disk, "remount,size=64m")
            future.result(timeout=10)
        assert stored(path) == list(range(done + 1))
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


def mount(disk: Path, options: str) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", disk], check=True)


def test_a_deleted_store_is_noticed_before_anything_is_called_stored(tmp_path: Path) -> None:
    path = tmp_path / "amber.db"
    with writing(path) as writer:
        writer.append([entry(0)], 1).result()
        for file in tmp_path.glob("amber.db*"):
            if file.suffix != ".lock":
                file.unlink()
        writer.append([entry(1)], 1).result()
        writer.append([entry(2)], 1).result()
    assert stored(path) == [1, 2]


def test_a_replaced_store_gets_what_follows_and_no_foreign_log(tmp_path: Path) -> None:
    path, other = tmp_path / "amber.db", tmp_path / "other.db"
    with writing(other) as writer:
        writer.append([entry(100)], 1).result()
    with writing(path) as writer:
        writer.append([entry(0)], 1).result()
        shutil.copy(other, tmp_path / "copy.db")
        (tmp_path / "copy.db").replace(path)
        writer.append([entry(1)], 1).result()
    assert stored(path) == [100, 1]
    assert (tmp_path / "amber.db-wal.orphan").stat().st_size > 0


def test_a_corrupt_page_ends_the_writing_with_a_clear_word(tmp_path: Path) -> None:
    path = tmp_path / "amber.db"
    with writing(path) as writer:
        writer.append([entry(n) for n in range(900)], 1).result()
    data = bytearray(path.read_bytes())
    data[4096:] = b"\xa5" * (len(data) - 4096)
    path.write_bytes(data)
    with pytest.raises(StoreDamaged, match="move it away or bring back a backup"):
        Writer(path, OPTIONS)


@pytest.mark.parametrize(("failing", "when"), [("fsync,fdatasync", "40..43"), ("pwrite64", "300..303")])
def test_after_an_error_of_the_disk_each_event_is_there_once(tmp_path: Path, failing: str, when: str) -> None:
    if shutil.which("strace") is None:
        pytest.skip("strace makes the disk fail")
    path = tmp_path / "amber.db"
    code = (
        "import sys; from pathlib import Path\n"
        "from tests.storage.test_faults import *\n"
        "with writing(Path(sys.argv[1])) as writer:\n"
        "    for n in range(0, 400, 4):\n"
        "        writer.append([entry(m) for m in range(n, n + 4)], 1).result()\n"
    )
    inject = f"inject={failing}:error=EIO:when={when}"
    traced: list[str | Path] = ["strace", "-f", "-o", tmp_path / "trace", "-e", f"trace={failing}", "-e", inject]
    subprocess.run([*traced, sys.executable, "-c", code, path], check=True, cwd=Path.cwd(), timeout=60)
    assert "(INJECTED)" in (tmp_path / "trace").read_text()
    assert stored(path) == list(range(400))
    assert rows(path, "PRAGMA integrity_check") == [("ok",)]


def test_a_reader_that_stays_does_not_let_the_log_grow_without_bound(tmp_path: Path) -> None:
    path = tmp_path / "amber.db"
    with writing(path, StoreOptions(free_floor_bytes=0)) as writer:
        writer.append([entry(0)], 1).result()
        reader = sqlite.connect(path, isolation_level=None)
        sizes = []
        for batch in range(60):
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM events").fetchone()
            entries = [entry(n, readings={"text": "x" * 2_000}) for n in range(batch * 500, batch * 500 + 500)]
            writer.append(entries, 1).result()
            reader.execute("ROLLBACK")
            sizes.append((tmp_path / "amber.db-wal").stat().st_size)
        reader.close()
    assert max(sizes) < 64 << 20
