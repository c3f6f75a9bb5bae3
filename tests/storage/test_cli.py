"""Claims about the log's commands: what they print, with which exit code, and how they end."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from itertools import chain
from pathlib import Path
from random import Random

import pytest
import typer
from typer.testing import CliRunner, Result

import storage.cli
from storage.errors import StoreError
from storage.event import Event, Rejection
from storage.event_json import events_json
from storage.history import Filters, Reader
from storage.render import EVENT_FIELDS
from storage.times import iso
from tests.storage.histories import NOON, ROOT, History, entries, message

PROGRAM = [
    sys.executable,
    "-c",
    "import typer, storage.cli; app = typer.Typer(); storage.cli.register(app); app()",
]
"""The commands as a process of their own."""


def amber(*arguments: object, store: Path | None = None) -> Result:
    app = typer.Typer()
    storage.cli.register(app)
    options = ["--store", str(store)] if store else []
    return CliRunner().invoke(app, [*map(str, arguments), *options], env={"COLUMNS": "200"})


def lines_of(history: History, filters: Filters, *, newest_first: bool = True, limit: int | None = None) -> list[str]:
    with Reader(history.path) as reader:
        return list(chain(*reader.line_pages(filters, newest_first=newest_first, limit=limit)))


def test_events_shows_the_newest_first(history: History) -> None:
    expected = events_json(history.events[::-1])
    shown = amber("events", "--format", "jsonl", store=history.path)
    assert shown.exit_code == 0
    assert shown.stdout.splitlines() == expected[:20]
    assert amber("events", "--format", "jsonl", "-n", 3, store=history.path).stdout.splitlines() == expected[:3]
    assert amber("events", "--format", "jsonl", "-n", 0, store=history.path).stdout.splitlines() == expected


def test_every_option_is_a_filter(history: History) -> None:
    options = [
        *("--device", "thermo-*", "--device", "ab", "--topic", "a/#", "--topic", "b/+", "--kind", "state"),
        *("--reading", "temperature", "--reading", "a.b", "--clock", "observed", "--after", "200000"),
        *("--since", iso(NOON + 30_000_000), "--until", iso(NOON + 600_000_000)),
    ]
    filters = Filters(
        devices=("thermo-*", "ab"),
        topics=("a/#", "b/+"),
        kinds=("state",),
        readings=("temperature", "a.b"),
        since=NOON + 30_000_000,
        until=NOON + 600_000_000,
        clock="observed",
        after=200_000,
    )
    expected = lines_of(history, filters, newest_first=False)
    assert len(expected) > 10
    shown = amber("events", *options, "--oldest-first", "-n", 0, "--format", "jsonl", store=history.path)
    assert shown.stdout.splitlines() == expected


def test_json_is_one_array_and_csv_has_a_header(history: History) -> None:
    expected = [json.loads(line) for line in lines_of(history, Filters(), limit=30)]
    shown = amber("events", "-n", 30, "--format", "json", store=history.path)
    assert json.loads(shown.stdout) == expected
    assert json.loads(amber("events", "--device", "nobody", "--format", "json", store=history.path).stdout) == []

    rows = list(csv.DictReader(io.StringIO(amber("events", "-n", 30, "--format", "csv", store=history.path).stdout)))
    assert {tuple(row) for row in rows} == {EVENT_FIELDS}
    for row, event in zip(rows, expected, strict=True):
        for name in ("readings", "units"):
            assert json.loads(row.pop(name)) == event.pop(name)
        known = {name: event.pop(name) for name in EVENT_FIELDS if name in event}
        assert json.loads(row.pop("detail") or "{}") == event
        assert row == {name: as_csv(value) for name, value in known.items()}


def as_csv(value: object) -> str:
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


def test_the_table_is_aligned_when_piped(new_history: History) -> None:
    new_history.append(
        [
            (
                message(received_at=NOON + n),
                [Event(device, "state", "json", NOON, {"t": 1.50, "on": True, "mode": "eco"}, units={"t": "Cel"})],
            )
            for n, device in enumerate(("a-long-name", "short", "esc\x1b[2Jape"))
        ]
    )
    assert amber("events", store=new_history.path).stdout.splitlines() == [
        "id     received_at               device         kind   readings",
        r"30000  2026-11-22T11:00:00.000Z  esc\x1b[2Jape  state  t=1.5 Cel  on=true  mode=eco",
        "20000  2026-11-22T11:00:00.000Z  short          state  t=1.5 Cel  on=true  mode=eco",
        "10000  2026-11-22T11:00:00.000Z  a-long-name    state  t=1.5 Cel  on=true  mode=eco",
    ]


def test_rejections_are_shown_with_their_payload(new_history: History) -> None:
    payloads = b'{"a":', b"\xff\x00\xff", b"x" * 100, b"two\nlines"
    new_history.append([(message("t/1", payload), Rejection("cannot be read", "json")) for payload in payloads])
    table = amber("rejections", "--oldest-first", store=new_history.path).stdout.splitlines()
    assert [line.split("cannot be read  ")[1] for line in table[1:]] == [
        '{"a":',
        "0xff00ff",
        f"{'x' * 48}…",
        r"two\nlines",
    ]
    shown = amber("rejections", "--format", "jsonl", "-n", 3, store=new_history.path).stdout.splitlines()
    common = {"reason": "cannot be read", "format": "json", "topic": "t/1", "received_at": iso(NOON), "qos": 0}
    assert [json.loads(line) for line in shown] == [
        {"id": 4, "message_id": 4, **common, "retain": False, "payload": "two\nlines"},
        {"id": 3, "message_id": 3, **common, "retain": False, "payload": "x" * 100},
        {"id": 2, "message_id": 2, **common, "retain": False, "payload_b64": "/wD/"},
    ]
    assert amber("rejections", "--topic", "t", "--format", "jsonl", store=new_history.path).stdout == ""
    rows = list(csv.DictReader(io.StringIO(amber("rejections", "--format", "csv", store=new_history.path).stdout)))
    assert [(row["payload"], row["payload_b64"]) for row in rows[2:]] == [("", "/wD/"), ('{"a":', "")]


def test_status_shows_how_much_there_is(history: History) -> None:
    shown = json.loads(amber("status", "--format", "json", store=history.path).stdout)
    assert (shown["events"], shown["position"]) == (len(history.events), history.position)
    assert shown["first_received_at"] == iso(history.messages[0].received_at)
    table = amber("status", store=history.path).stdout
    assert f"events             {len(history.events)}\n" in table
    assert "item,value\n" in amber("status", "--format", "csv", store=history.path).stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ("events", "--since", "garbage"),
        ("events", "--until", "2h", "--since", "1h"),
        ("events", "--format", "xml"),
        ("events", "--clock", "wall"),
        ("events", "--topic", "a/#/b"),
        ("events", "-n", "-1"),
        ("events", "--follow", "--format", "json"),
        ("events", "--follow", "--oldest-first"),
        ("events", "--follow", "--until", "now"),
        ("rejections", "--device", "a"),
        ("rejections", "--since", "garbage"),
    ],
)
def test_wrong_usage_is_exit_code_2(history: History, arguments: tuple[str, ...]) -> None:
    wrong = amber(*arguments, store=history.path)
    assert wrong.exit_code == 2
    assert wrong.stdout == ""


def test_a_store_that_is_not_there_is_an_error_for_the_main_program(tmp_path: Path) -> None:
    for command in ("events", "rejections", "status"):
        assert isinstance(amber(command, store=tmp_path / "nix.db").exception, StoreError)


def test_the_store_may_be_a_url_or_come_from_the_environment(
    history: History, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert isinstance(amber("status").exception, StoreError)
    monkeypatch.setenv("AMBER_STORE", f"sqlite:///{history.path}")
    assert amber("status").exit_code == 0
    monkeypatch.delenv("AMBER_STORE")
    (tmp_path / "amber.db").symlink_to(history.path)
    assert amber("status", "--store", f"sqlite:///{history.path}").exit_code == 0


def test_follow_shows_the_last_events_and_then_what_comes(new_history: History) -> None:
    random = Random(1)
    new_history.append(entries(random, 50))
    before = len(new_history.events)
    with subprocess.Popen(
        [*PROGRAM, "events", "--follow", "-n", "5", "--format", "jsonl", "--store", new_history.path],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as process:
        assert process.stdout
        shown = [process.stdout.readline() for _ in range(5)]
        new_history.append(entries(random, 20, 50))
        shown += [process.stdout.readline() for _ in range(len(new_history.events) - before)]
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0
    assert "".join(shown).splitlines() == events_json(new_history.events[before - 5 :])


def test_follow_after_a_position_leaves_nothing_out(history: History) -> None:
    after = history.events[-101].id
    with subprocess.Popen(
        [*PROGRAM, "events", "-f", "--after", str(after), "--format", "csv", "--store", history.path],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as process:
        assert process.stdout
        rows = csv.DictReader(process.stdout)
        ids = [int(next(rows)["id"]) for _ in range(100)]
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0
    assert ids == [event.id for event in history.events[-100:]]


def test_follow_alone_begins_with_the_last_twenty(history: History) -> None:
    with subprocess.Popen(
        [*PROGRAM, "events", "--follow", "--store", history.path], stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        assert process.stdout
        ids = [process.stdout.readline().split()[0] for _ in range(21)]
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0
    assert ids == ["id", *(str(event.id) for event in history.events[-20:])]


@pytest.mark.parametrize("options", [("-n", "0"), ("--follow", "-n", "0")])
def test_a_reader_who_has_seen_enough_is_no_error(history: History, options: tuple[str, ...]) -> None:
    with subprocess.Popen(
        [*PROGRAM, "events", *options, "--format", "jsonl", "--store", history.path],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
    ) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.readline()
        process.stdout.close()
        if "--follow" in options:
            process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0
        assert process.stderr.read() == b""


def test_on_a_terminal_the_table_fits_it(history: History) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*PROGRAM, "events", "-n", "3", "--store", history.path],
        stdout=theirs,
        env={**os.environ, "COLUMNS": "80", "TERM": "xterm", "NO_COLOR": "1"},
        cwd=ROOT,
    )
    os.close(theirs)
    shown = b""
    while True:
        try:
            shown += os.read(ours, 65536)
        except OSError:  # the terminal's other end is closed
            break
    os.close(ours)
    assert process.wait(10) == 0
    lines = re.sub(r"\x1b\[[0-9;]*m", "", shown.decode()).splitlines()
    assert lines[0].split() == ["id", "received_at", "device", "kind", "readings"]
    assert len(lines) > 3
    assert all(len(line) <= 80 for line in lines)


def test_a_short_command_stays_light(history: History) -> None:
    code = (
        "import sys, typer, storage.cli\n"
        "light = {'rich', 'sqlalchemy', 'asyncio', 'msgspec', 'pysqlite3', 'dateparser'}\n"
        "print(*light & sys.modules.keys())\n"
        "app = typer.Typer(); storage.cli.register(app)\n"
        "app(sys.argv[1:], standalone_mode=False)\n"
        "print(*light & sys.modules.keys() - {'msgspec', 'pysqlite3'})\n"
    )
    command = [
        sys.executable,
        "-c",
        code,
        "events",
        "-n",
        "0",
        "--device",
        "nobody",
        "--format",
        "jsonl",
        "--since",
        "2h",
    ]
    begun = time.monotonic()
    done = subprocess.run([*command, "--store", history.path], capture_output=True, text=True, check=True, cwd=ROOT)
    assert time.monotonic() - begun < 3
    assert done.stdout == "\n\n"
