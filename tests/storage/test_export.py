"""What an export writes, and that one that was killed or stopped ends as if it had not been."""

from __future__ import annotations

import base64
import csv
import gzip
import io
import json
import os
import random
from pathlib import Path
from typing import Any

import msgspec
import pyarrow.parquet as pq
import pytest
import zstandard

from gateway.__main__ import run
from storage.event import Event, Message, Value
from storage.export import Checkpoint, Done, ExportError, Request, Unfinished, begun, pages, write_file
from storage.filters import Filters
from storage.history import Reader
from tests.storage.histories import NOON, History
from tests.storage.killing import content, export_killed, long_store

EVENTS = 7_000


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of several pages."""
    return long_store(tmp_path_factory.mktemp("long") / "amber.db", EVENTS)


def amber(*words: object) -> int:
    return run([str(word) for word in words])


def exported(store: Path, file: Path, *options: object) -> bytes:
    assert amber("export", "--store", store, "-o", file, *options) == 0
    assert [path for path in file.parent.iterdir() if ".part" in path.name] == []
    return file.read_bytes()


def lines_of(store: Path, **filters: Any) -> str:
    with Reader(store) as reader:
        return "".join(f"{line}\n" for page in reader.line_pages(Filters(**filters)) for line in page)


def test_the_lines_are_those_of_amber_events(history: History, tmp_path: Path) -> None:
    assert exported(history.path, tmp_path / "a.jsonl").decode() == lines_of(history.path)


def test_csv_is_that_of_amber_events(history: History, tmp_path: Path, capfdbinary: Any) -> None:
    found = exported(history.path, tmp_path / "a.csv")
    capfdbinary.readouterr()
    assert amber("events", "--format", "csv", "-n", 0, "--oldest-first", "--store", history.path) == 0
    assert found == capfdbinary.readouterr().out


def test_standard_output_has_the_same(long: Path, capfdbinary: Any) -> None:
    assert amber("export", "--store", long) == 0
    found = capfdbinary.readouterr()
    assert found.out.decode() == lines_of(long)
    assert found.err.startswith(b"exported 7,000 events in ")
    assert amber("export", "--store", long, "--format", "parquet") == 0
    assert pq.read_table(io.BytesIO(capfdbinary.readouterr().out)).num_rows == EVENTS


def test_a_name_says_the_compression(history: History, tmp_path: Path) -> None:
    wanted = lines_of(history.path).encode()
    assert gzip.decompress(exported(history.path, tmp_path / "a.jsonl.gz")) == wanted
    packed = io.BytesIO(exported(history.path, tmp_path / "a.jsonl.zst"))
    assert zstandard.ZstdDecompressor().stream_reader(packed, read_across_frames=True).read() == wanted


def test_a_filter_leaves_out_what_does_not_match(history: History, tmp_path: Path) -> None:
    found = exported(history.path, tmp_path / "a.jsonl", "--device", "thermo*", "--kind", "state")
    assert found.decode() == lines_of(history.path, devices=("thermo*",), kinds=("state",))
    assert found


def test_the_next_export_begins_where_this_one_ended(new_history: History, tmp_path: Path, capsys: Any) -> None:
    def append(n: int) -> None:
        event = Event("d", "measurement", "json", NOON + n, {"n": n})
        new_history.append([(Message("t", b"", 0, retain=False, received_at=NOON + n), [event])])

    append(1)
    first = exported(new_history.path, tmp_path / "1.jsonl")
    position = capsys.readouterr().err.split("--after ")[1].strip()
    append(2)
    second = exported(new_history.path, tmp_path / "2.jsonl", "--after", position)
    assert (first + second).decode() == lines_of(new_history.path)
    assert json.loads(second)["readings"] == {"n": 2}


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.parquet"])
@pytest.mark.parametrize("payload", [True, False])
def test_a_limit_ends_it_and_the_next_one_begins_there(
    history: History, tmp_path: Path, name: str, *, payload: bool, capsys: Any
) -> None:
    options = ["--payload"] * payload
    position: object = 0
    for part in ("1", "2"):
        exported(history.path, tmp_path / f"{part}-{name}", "-n", 30, "--after", position, *options)
        position = capsys.readouterr().err.split("--after ")[1].strip()
    exported(history.path, tmp_path / f"both-{name}", "-n", 60, *options)
    one, two, both = (ids_in(tmp_path / f"{part}-{name}") for part in ("1", "2", "both"))
    assert (len(one), len(two)) == (30, 30)
    assert one + two == both
    exported(history.path, tmp_path / f"all-{name}", "-n", 0, *options)
    assert len(ids_in(tmp_path / f"all-{name}")) == len(history.events)


def ids_in(file: Path) -> list[int]:
    if file.suffix == ".parquet":
        ids: list[int] = pq.read_table(file)["id"].to_pylist()
        return ids
    if file.suffix == ".csv":
        return [int(row["id"]) for row in csv.DictReader(io.StringIO(file.read_bytes().decode(), newline=""))]
    return [json.loads(line)["id"] for line in file.read_bytes().splitlines()]


def test_each_line_has_its_message_where_that_is_wanted(history: History, tmp_path: Path) -> None:
    found = [json.loads(line) for line in exported(history.path, tmp_path / "a.jsonl", "--payload").splitlines()]
    rows = list(csv.DictReader(io.StringIO(exported(history.path, tmp_path / "a.csv", "--payload").decode())))
    with Reader(history.path) as reader:
        pairs = [pair for page in reader.message_pages() for pair in page]
    assert [one["id"] for one in found] == [event.id for event, _ in pairs]
    for one, row, (_, message) in zip(found, rows, pairs, strict=True):
        kept = one["payload"].encode() if "payload" in one else base64.b64decode(one["payload_b64"])
        assert kept == message.payload
        assert base64.b64decode(row["payload_b64"]) or row["payload"].encode() == message.payload
        assert one["properties"] == msgspec.json.decode(msgspec.json.encode(message.properties))


def test_large_payloads_are_read_a_few_at_a_time(new_history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "PAGE_BYTES", 1_000)
    event = Event("d", "state", "json", NOON, {})
    new_history.append(
        [(Message("t", b"x" * 400, 0, retain=False, received_at=NOON), [event] * (n % 4)) for n in range(50)]
    )
    request = begun(new_history.path, Request("", Filters(), payload=True))
    found = list(pages.pages(new_history.path, request, Done()))
    assert max(page.events for page in found) == 3
    assert sum(page.events for page in found) == len(new_history.events)


def test_parquet_has_typed_columns(history: History, tmp_path: Path) -> None:
    exported(history.path, tmp_path / "a.parquet", "--payload")
    table = pq.read_table(tmp_path / "a.parquet")
    assert str(table.schema.field("observed_at").type) == "timestamp[us, tz=UTC]"
    assert str(table.schema.field("seq").type) == "int64"
    assert str(table.schema.field("device").type) == "dictionary<values=string, indices=int32, ordered=0>"
    with Reader(history.path) as reader:
        pairs = [pair for page in reader.message_pages() for pair in page]

    def column(name: str) -> Any:
        values = table[name].combine_chunks()
        return (values.view("int64") if name.endswith("_at") else values).to_pylist()

    for name in ("id", "device", "observed_at", "received_at", "topic", "retain", "seq", "readings", "detail"):
        assert column(name) == [getattr(event, name) for event, _ in pairs]
    assert column("payload") == [message.payload for _, message in pairs]
    assert [json.loads(units) for units in column("units")] == [event.units for event, _ in pairs]


def test_a_row_for_each_reading(new_history: History, tmp_path: Path) -> None:
    readings: dict[str, Value] = {
        "t": 1.5,
        "n": 3,
        "on": True,
        "text": "x",
        "none": None,
        "huge": 10**400,
        "big": 2**70,
    }
    event = Event("d", "state", "json", NOON, readings, units={"t": "Cel"})
    new_history.append([(Message("t", b"", 0, retain=False, received_at=NOON), [event])])
    exported(new_history.path, tmp_path / "a.parquet", "--rows", "readings")
    rows = pq.read_table(tmp_path / "a.parquet").to_pylist()
    assert {row["reading"]: (row["number"], row["text"], row["boolean"], row["unit"]) for row in rows} == {
        "t": (1.5, None, None, "Cel"),
        "n": (3.0, None, None, None),
        "on": (None, None, True, None),
        "text": (None, "x", None, None),
        "none": (None, None, None, None),
        "huge": (None, str(10**400), None, None),
        "big": (float(2**70), None, None, None),
    }
    lines = exported(new_history.path, tmp_path / "a.jsonl", "--rows", "readings", "--reading", "t").splitlines()
    assert [json.loads(line)["number"] for line in lines] == [1.5]


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.parquet", "a.jsonl.gz"])
def test_an_empty_export_is_a_file_of_its_kind(new_history: History, tmp_path: Path, name: str) -> None:
    exported(new_history.path, tmp_path / name)
    assert name != "a.csv" or (tmp_path / name).read_text().startswith("id,message_id,")
    assert name != "a.parquet" or pq.read_table(tmp_path / name).num_rows == 0


@pytest.mark.parametrize("name", ["a.csv.zst", "a.parquet"])
def test_killed_and_resumed_it_is_as_if_it_had_not_been(long: Path, tmp_path: Path, name: str) -> None:
    """`killing` does it with all sorts of files, and more often."""
    exported(long, tmp_path / f"whole-{name}", "--payload")
    export_killed(long, tmp_path / name, 2, random.Random(name))
    assert content(tmp_path / name) == content(tmp_path / f"whole-{name}")


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
def test_stopped_it_goes_on_from_where_it_was_and_keeps_its_end(
    new_history: History, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "PAGE_EVENTS", 10)
    event = Event("d", "state", "json", NOON, {})
    entries: Any = [(Message("t", b"", 0, retain=False, received_at=NOON + n), [event]) for n in range(50)]
    new_history.append(entries)
    wanted = exported(new_history.path, tmp_path / f"whole-{name}", "--payload")
    file = tmp_path / name
    request = Request(str(new_history.path), Filters(), "parquet" if "parquet" in name else "jsonl", payload=True)
    checkpoint = Checkpoint({}, begun(new_history.path, request), Done())
    unfinished = Unfinished(file)
    assert not write_file(new_history.path, unfinished, checkpoint, lambda: None, lambda: True)
    unfinished.close()
    new_history.append(entries)  # not of this export any more
    unfinished = Unfinished(file)
    left = unfinished.checkpoint()
    assert left is not None
    assert left.done.events == 10
    assert write_file(new_history.path, unfinished, left, lambda: None, lambda: False)
    unfinished.close()
    assert left.done.events == 50
    assert name != "a.jsonl" or file.read_bytes() == wanted
    assert content(file) == content(tmp_path / f"whole-{name}")


def test_what_is_begun_is_not_gone_on_with_as_something_else(long: Path, tmp_path: Path, capsys: Any) -> None:
    file = tmp_path / "a.jsonl"
    begin(long, file)
    assert amber("export", "--store", long, "-o", file) == 1
    assert "--resume" in capsys.readouterr().err
    assert amber("export", "--store", long, "-o", file, "--resume", "--device", "x") == 2
    assert "another --device" in capsys.readouterr().err
    exported(long, file, "--overwrite")


def begin(store: Path, file: Path) -> None:
    """Leave an export that was stopped at its first page."""
    unfinished = Unfinished(file)
    request = begun(store, Request(str(store), Filters()))
    asked = {"device": None, "format": "jsonl"}
    assert not write_file(store, unfinished, Checkpoint(asked, request, Done()), lambda: None, lambda: True)
    unfinished.close()


def test_two_exports_do_not_write_one_file(long: Path, tmp_path: Path, capsys: Any) -> None:
    unfinished = Unfinished(tmp_path / "a.jsonl")
    assert amber("export", "--store", long, "-o", tmp_path / "a.jsonl") == 1
    assert "another export" in capsys.readouterr().err
    unfinished.close()


def test_a_file_that_is_there_stays_what_it_is(long: Path, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "a.jsonl").write_text("mine")
    assert amber("export", "--store", long, "-o", tmp_path / "a.jsonl") == 1
    assert "is there already" in capsys.readouterr().err
    assert (tmp_path / "a.jsonl").read_text() == "mine"
    assert exported(long, tmp_path / "a.jsonl", "--overwrite").startswith(b'{"id":')


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["-o", "{tmp}"], 1),
        (["-o", "{tmp}/no/folder/a.jsonl"], 1),
        (["-o", "/dev/null"], 1),
        (["-o", "{tmp}/a.parquet.gz"], 2),
        (["--resume"], 2),
        (["-o", "{tmp}/a", "--resume", "--overwrite"], 2),
        (["-o", "{tmp}/a", "--rows", "readings", "--payload"], 2),
        (["-o", "{tmp}/a", "--since", "nonsense"], 2),
        (["-o", "{tmp}/a", "--format", "xml"], 2),
        (["-o", "{tmp}/a", "--store", "{tmp}/none.db"], 1),
    ],
)
def test_nonsense_is_told_in_a_line(
    long: Path, tmp_path: Path, words: list[str], status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [word.replace("{tmp}", str(tmp_path)) for word in words]
    assert amber("export", "--store", long, *given) == status
    assert capsys.readouterr().err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_told_and_what_is_written_stays(long: Path, tmp_path: Path) -> None:
    class Full(io.BytesIO):
        def write(self, _: Any) -> int:
            raise OSError(28, os.strerror(28))

    unfinished = Unfinished(tmp_path / "a.jsonl")
    unfinished.out.close()
    unfinished.out = Full()  # type: ignore[assignment]
    request = begun(long, Request(str(long), Filters()))
    with pytest.raises(ExportError, match=r"No space left on device.*--resume"):
        write_file(long, unfinished, Checkpoint({}, request, Done()), lambda: None, lambda: False)
    unfinished.close()
    left = Unfinished(tmp_path / "a.jsonl")
    assert left.checkpoint() is not None
    left.close()
