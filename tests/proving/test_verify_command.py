"""`amber verify` as a person and a program meet it: its status, its words, its JSON and its pictures."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path

import pytest

from devices.broker import Mosquitto
from gateway.__main__ import run
from gateway.proving.verdict import COUNTS, Verdict
from gateway.proving.verify import verify as held
from tests.proving.ledgers import answered, make_store, sent, stored, write_ledger

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a ledger of three messages, one of them lost by PUBACK, and the store."""
    records = [sent(0), answered(0), answered(0, "receipted"), sent(1), answered(1), sent(2, qos=2), answered(2)]
    write_ledger(tmp_path / "ledger.jsonl", records)
    make_store(tmp_path / "amber.db", [stored(0), stored(2)])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def verify(*options: object) -> int:
    return run(["verify", *map(str, options)])


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize(("promise", "status"), [("both", 1), ("puback", 1), ("receipt", 0)])
def test_the_status_tells_whether_the_promise_in_question_holds(
    promise: str, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verify("ledger.jsonl", "--promise", promise) == status
    out = capsys.readouterr().out
    assert "lost by PUBACK 1 · lost by receipt 0" in out
    assert ("BROKEN: 1 lost" in out) == (status == 1)
    assert ("The promise holds: of 3 messages, 1 receipted, none is lost" in out) == (status == 0)


@pytest.mark.usefixtures("place")
def test_a_table_and_the_lost_message_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    verify("ledger.jsonl")
    *lines, head, lost = capsys.readouterr().out.splitlines()
    assert lines == [
        "       sent  acknowledged  receipted  stored  lost  repeated  reordered  rejected (expected/unexpected)",
        "QoS 1  2     2             1          1       1     0         0          0 / 0",
        "QoS 2  1     1             0          1       0     0         0          0 / 0",
        "all    3     3             1          2       1     0         0          0 / 0",
        "",
        "stored 2 = 3 sent − 1 lost",
        "lost by PUBACK 1 · lost by receipt 0",
        "BROKEN: 1 lost",
        "",
        "lost:",
    ]
    assert head.split() == ["device", "boot", "seq", "topic", "sent", "acknowledged", "receipted", "times"]
    times = "2026-11-18T11:06:41.000000Z", "2026-11-18T11:06:41.100000Z"
    assert lost.split() == ["thermo-0001", "5f3a", "1", "devices/thermo-0001/telemetry", *times, "-", "1"]


@pytest.mark.usefixtures("place")
def test_json_tells_all_under_documented_names(capsys: pytest.CaptureFixture[str]) -> None:
    assert verify("ledger.jsonl", "--format", "json") == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["holds"], told["promise"], told["broken"], told["totals"]["lost"]) == (False, "both", ["1 lost"], 1)
    assert list(told) == ["holds", "promise", "broken", *Verdict.__struct_fields__]
    docs = (ROOT / "docs/verify.md").read_text("utf-8")
    assert [name for name in (*told, *COUNTS, *told["lost"][0]) if f"`{name}`" not in docs] == []


class Page(HTMLParser):
    """What a page shows, and what it would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.text = ""
        self.bars: list[str] = []
        self.fetches: list[tuple[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.fetches += [pair for pair in attrs if pair[0] in ("src", "href")]
        if tag == "script":
            self.fetches.append((tag, None))
        if tag == "rect":
            self.bars.append(dict(attrs).get("class") or "")

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_page_shows_what_was_sent_lost_and_done_and_needs_nothing_else(place: Path) -> None:
    mark = '{"at": "2026-11-18T11:06:41.5Z", "what": "kill <gateway>", "for_s": 3}\n'
    place.joinpath("marks.jsonl").write_text(mark * 2 + mark[:9])
    assert verify("ledger.jsonl", "--picture", "proof.html", "--marks", "marks.jsonl") == 1
    page = Page()
    page.feed(place.joinpath("proof.html").read_text("utf-8"))
    assert page.bars == ["sent"] * 3 + ["lost"] + ["mark"] * 2
    assert page.fetches == []
    assert "The promise is broken" in page.text
    assert "kill <gateway> (2)" in page.text


def test_more_sorts_of_marks_than_lanes_share_the_last_one(place: Path) -> None:
    lines = (json.dumps({"at": f"2026-11-18T11:06:{n:02}Z", "what": f"deed {n}"}) + "\n" for n in range(40, 60))
    place.joinpath("marks.jsonl").write_text("".join(lines))
    verify("ledger.jsonl", "--picture", "proof.html", "--marks", "marks.jsonl")
    page = Page()
    page.feed(place.joinpath("proof.html").read_text("utf-8"))
    assert page.bars.count("mark") == 20
    assert "others (13)" in page.text


@pytest.mark.parametrize("options", [(), ("--marks", "marks.jsonl"), ("--by", "none", "--promise", "receipt")])
def test_a_picture_may_be_a_png(place: Path, options: tuple[str, ...]) -> None:
    pytest.importorskip("matplotlib")
    place.joinpath("marks.jsonl").write_text('{"at": "2026-11-18T11:06:41.5Z", "what": "a $x$ b\\u0007"}\n')
    verify("ledger.jsonl", "--picture", "proof.PNG", *options)
    assert place.joinpath("proof.PNG").read_bytes().startswith(b"\x89PNG")


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize(
    ("options", "status", "text"),
    [
        (["none.jsonl"], 1, "amber: there is no file none.jsonl: name a ledger, or a folder of them\n"),
        ([".", "none.jsonl", "--store", "none.db"], 1, "there is no file none.jsonl"),
        (["amber.db"], 1, "amber.db, line 1, is not a line of a ledger"),
        (["*.ledger"], 1, "there is no ledger at *.ledger"),
        (["empty.jsonl"], 1, "there is nothing to verify"),
        (["ledger.jsonl", "--store", "none.db"], 1, "there is no store at none.db"),
        (["ledger.jsonl", "--store", "ledger.jsonl"], 1, "ledger.jsonl is no SQLite database"),
        (["ledger.jsonl", "--picture", "x/y.html"], 1, "cannot write x/y.html (No such file or directory)"),
        (["ledger.jsonl", "--picture", "y.html", "--marks", "no"], 1, "cannot read the marks no: No such file"),
        (["ledger.jsonl", "--picture", "y.html", "--marks", "ledger.jsonl"], 1, "ledger.jsonl, line 1, is no mark"),
        ([], 2, "Missing argument 'LEDGER...'"),
        ([""], 2, "a ledger has a name"),
        (["ledger.jsonl", "--picture", "y.gif"], 2, "'y.gif' must end in .png or .html"),
        (["ledger.jsonl", "--marks", "marks.jsonl"], 2, "give --picture FILE too"),
        (["ledger.jsonl", "--wait", "soon"], 2, "'soon' is no duration"),
        (["ledger.jsonl", "--promise", "mine"], 2, "there is no 'mine', only puback, receipt, both"),
        (["ledger.jsonl", "--by", "group"], 2, "there is no 'group', only qos, device, fault, none"),
    ],
)
def test_what_it_cannot_do_is_told_in_a_line(
    place: Path, options: list[str], status: int, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    place.joinpath("empty.jsonl").touch()
    assert verify(*options) == status
    error = capsys.readouterr().err
    assert text in error
    assert error.count("\n") == 1


@pytest.mark.usefixtures("place")
def test_a_folder_that_cannot_take_the_tables_is_told_in_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TMPDIR", "/none/there")
    assert verify("ledger.jsonl") == 1
    error = capsys.readouterr().err
    assert "cannot make temporary tables (No such file or directory): set TMPDIR to a folder" in error
    assert error.count("\n") == 1


def test_what_names_say_cannot_steer_a_terminal(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_ledger(place / "ledger.jsonl", [sent(1, device="a\x1b[2J", topic="t\x1b[2J"), answered(1, device="a\x1b[2J")])
    verify("ledger.jsonl", "--by", "device", "--picture", "proof.html")
    assert "\x1b" not in capsys.readouterr().out + place.joinpath("proof.html").read_text("utf-8")


def test_ctrl_c_ends_it_without_a_word(place: Path) -> None:
    """A pipe in the place of the ledger tells that it reads."""
    os.mkfifo(place / "pipe.jsonl")
    command = [sys.executable, "-m", "gateway", "verify", "pipe.jsonl"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, cwd=place, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        with place.joinpath("pipe.jsonl").open("wb"):
            process.send_signal(signal.SIGINT)
            process.wait(30)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (130, b"", b"")


def test_what_devices_send_through_a_gateway_is_verified(broker: Mosquitto, tmp_path: Path) -> None:
    """The gateway is killed at the end: what it had acknowledged is there all the same."""
    store, log = tmp_path / "amber.db", tmp_path / "gateway.log"
    amber = [sys.executable, "-W", "error", "-m", "gateway"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    run_options = ["--broker", broker.url, "--store", str(store), "--config", os.devnull]
    common = ["--broker", broker.url, "--devices", "8", "--rate", "50", "--duration", "0.4s"]
    with (
        log.open("wb") as file,
        subprocess.Popen([*amber, "run", *run_options], cwd=tmp_path, env=env, stderr=file) as gateway,
    ):
        try:
            while "subscribed" not in log.read_text():
                assert gateway.poll() is None
                time.sleep(0.05)
            simulations = [
                subprocess.Popen(
                    [*amber, "simulate", *common, "--models", model, "--qos", qos, "--ledger", f"ledger-{qos}.jsonl"],
                    cwd=tmp_path,
                    env=env,
                )
                for qos, model in (("0", "door"), ("1", "meter"), ("2", "tracker"))
            ]
            assert [simulation.wait() for simulation in simulations] == [0, 0, 0]
            assert verify(tmp_path, "--store", store, "--wait", "20s") == 0
        finally:
            gateway.kill()
    verdict = held([tmp_path], store)
    assert {row.of: (row.sent, row.stored, row.lost, row.repeated) for row in verdict.rows} == {
        f"QoS {qos}": (160, 160, 0, 0) for qos in (0, 1, 2)
    }
