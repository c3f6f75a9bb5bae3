"""Claims about `amber replay` as people and programs use it."""

from __future__ import annotations

import fcntl
import hashlib
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest
import typer

from devices.broker import Mosquitto
from gateway.__main__ import run
from gateway.replay_cli import parse_prefix, parse_speed
from gateway.sinks import REPLAY_MARK, STATE_MARK
from tests.replay.filled import SECOND, T0, entry, fill, position, positions
from tests.replay.test_mqtt import subscriber

ROOT = Path(__file__).resolve().parents[2]
HOUR = 3_600 * SECOND


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "amber.db"


class Done(NamedTuple):
    status: int
    stdout: str
    stderr: str


class Amber:
    """`amber replay` in this process, which saves the time that a start takes."""

    def __init__(self, path: Path, capture: pytest.CaptureFixture[str]) -> None:
        self._path = path
        self._capture = capture

    def __call__(self, *options: str) -> Done:
        status = run(["replay", "--store", str(self._path), *options])
        return Done(status, *self._capture.readouterr())


@pytest.fixture
def amber(path: Path, capfd: pytest.CaptureFixture[str]) -> Amber:
    return Amber(path, capfd)


@contextmanager
def started(path: Path, *options: str, stderr: int = subprocess.PIPE) -> Iterator[subprocess.Popen[bytes]]:
    """`amber replay` in a process of its own, which ends with the block whatever happens in it."""
    command = [sys.executable, "-m", "gateway", "replay", "--store", str(path), *options]
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with subprocess.Popen(
        command, cwd=ROOT, env=buffered, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=stderr, bufsize=0
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def ids(lines: Sequence[str]) -> list[int]:
    return [msgspec.json.decode(line)["id"] for line in lines]


def test_it_prints_a_line_of_json_for_each_event_and_then_says_how_it_went(path: Path, amber: Amber) -> None:
    fill(path, (entry(n) for n in range(3_000)))
    slow, fast = amber("--speed", "100"), amber("--speed", "max")
    assert (slow.status, fast.status) == (0, 0)
    assert slow.stdout == fast.stdout
    assert ids(slow.stdout.splitlines()) == positions(3_000)
    said = r"replayed 3000 events in \d+\.\d s · \d+\.\d events/s · \d+\.\d×"
    assert re.fullmatch(rf"{said} · latest \d+\.\d ms behind\n", slow.stderr)
    assert re.fullmatch(rf"{said}\n", fast.stderr)


def test_filters_and_limits_choose_what_is_played(path: Path, amber: Amber) -> None:
    fill(path, (entry(n, topic=f"rooms/{n % 2}") for n in range(20)))
    done = amber("--speed", "max", "--topic", "rooms/1", "--after", str(position(4)), "-n", "3")
    assert ids(done.stdout.splitlines()) == [position(6), position(8), position(10)]
    assert amber("--device", "nobody").stderr.startswith("replayed 0 events in 0.0 s")


def test_silences_can_be_shortened(path: Path, amber: Amber) -> None:
    """A night in no time."""
    fill(path, [entry(n, at=T0 + n * HOUR) for n in range(10)])
    assert len(amber("--max-gap", "10ms").stdout.splitlines()) == 10


def test_ctrl_c_ends_it_with_the_position_to_go_on_after(path: Path) -> None:
    """The first line is there although the second is due in an hour."""
    fill(path, [entry(0), entry(1, at=T0 + HOUR)])
    with started(path) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith(b'{"id":10000,')
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
        assert process.stdout.read() == b""
        said = process.stderr.read().decode()
    # The line may have been printed, and not yet counted.
    assert re.fullmatch(r"replayed [01] events? in .* · stopped, go on with --after (0|10000)\n", said)


@pytest.mark.skipif(not hasattr(fcntl, "F_SETPIPE_SZ"), reason="only Linux lets us choose the size of a pipe")
@pytest.mark.parametrize(("speed", "asked"), [("max", signal.SIGINT), ("1000", signal.SIGINT), ("max", signal.SIGTERM)])
def test_a_signal_ends_it_while_nobody_reads(path: Path, speed: str, asked: signal.Signals) -> None:
    """The pipe holds less than is written to it at once, so that whoever sees its first byte knows the writer waits."""
    fill(path, (entry(n, at=T0) for n in range(20)))
    with started(path, "--speed", speed) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        fcntl.fcntl(process.stdout, fcntl.F_SETPIPE_SZ, 4_096)
        assert process.stdout.read(1) == b"{"
        process.send_signal(asked)
        assert process.stderr.read().startswith(b"replayed 0 events")
        assert process.wait(20) == 128 + asked


@pytest.mark.parametrize("speed", ["max", "1000"])
def test_a_reader_who_has_seen_enough_ends_it_quietly(path: Path, speed: str) -> None:
    fill(path, (entry(n) for n in range(5_000)))
    with started(path, "--speed", speed) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(1) == b"{"
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(20) == 0


def test_a_terminal_shows_how_far_it_is(path: Path) -> None:
    """On standard error, so that the events can go elsewhere."""
    fill(path, (entry(n) for n in range(1_000)))
    ours, theirs = pty.openpty()
    with started(path, "--speed", "1", stderr=theirs) as process:
        os.close(theirs)
        assert process.stdout is not None
        lines = process.stdout.read().decode().splitlines()
        shown = b""
        while chunk := read(ours):
            shown += chunk
        assert process.wait(20) == 0
    os.close(ours)
    assert ids(lines) == positions(1_000)
    assert "━" in shown.decode()
    assert "replayed 1000 events" in shown.decode()


def read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 10_000)
    except OSError:  # how Linux says that the other side is closed
        return b""


def test_messages_go_to_a_broker_under_a_prefix(path: Path, amber: Amber, broker: Mosquitto) -> None:
    fill(path, (entry(n) for n in range(10)))
    with subscriber(broker) as client:
        for options in ([], ["--prefix", "test/1"], ["--same-topics"]):
            done = amber("--speed", "max", "--to", broker.url, *options)
            assert (done.status, done.stdout) == (0, "")
            assert done.stderr.startswith("replayed 10 events")
        topics = [message.topic for message in client.take(30)]
    before = ["replay/", "test/1/", ""]
    assert topics == [f"{prefix}devices/thermo/telemetry" for prefix in before for _ in range(10)]


def test_ctrl_c_ends_it_towards_a_broker_too(path: Path, broker: Mosquitto) -> None:
    fill(path, [entry(0), entry(1), entry(2, at=T0 + HOUR)])
    with subscriber(broker) as client, started(path, "--to", broker.url) as process:
        assert process.stderr is not None
        client.take(2)
        process.send_signal(signal.SIGINT)
        said = process.stderr.read().decode()
        assert process.wait(20) == 130
    assert re.search(r" · stopped, go on with --after (0|10000|20000)\n$", said)


def test_a_broker_that_goes_away_is_told_on_one_line(path: Path, broker: Mosquitto) -> None:
    fill(path, [entry(0), entry(1, at=T0 + HOUR)])
    with subscriber(broker) as client, started(path, "--to", broker.url) as process:
        assert process.stderr is not None
        client.take(1)
        broker.stop()
        said = process.stderr.read().decode()
        assert process.wait(20) == 1
    assert re.fullmatch(r"amber: mqtt://127.0.0.1:\d+ closed .*(go on with --after 10000|start again)\n", said)


def test_a_range_can_be_played_several_times(path: Path, amber: Amber) -> None:
    fill(path, (entry(n) for n in range(5)))
    done = amber("--times", "3", "--speed", "max", "-n", "4")
    assert ids(done.stdout.splitlines()) == positions(4) * 3
    assert "3 rounds" in done.stderr
    assert amber("--loop", "--device", "nobody").stdout == ""


def test_a_rate_holds_back_whatever_the_speed(path: Path, amber: Amber) -> None:
    fill(path, (entry(n) for n in range(11)))
    done = amber("--speed", "max", "--rate", "50")
    assert ids(done.stdout.splitlines()) == positions(11)
    said = re.search(r"in (\d+\.\d) s", done.stderr)
    assert said is not None
    assert float(said[1]) >= 0.2


def test_two_replays_of_one_range_have_one_digest(path: Path, amber: Amber, broker: Mosquitto) -> None:
    """It is that of the lines, whoever gets them, and however."""
    fill(path, (entry(n, events=2) for n in range(300)))
    plain = amber("--speed", "max", "--digest")
    sha256 = hashlib.sha256(plain.stdout.encode()).hexdigest()
    for options in (
        ["--speed", "max"],
        ["--speed", "100"],
        ["--speed", "max", "--retime"],
        ["--speed", "max", "--state-first"],
        ["--speed", "max", "--to", broker.url],
        ["--speed", "max", "--to", broker.url, "--retime"],
    ):
        assert amber(*options, "--digest").stderr.endswith(f"\nsha256 {sha256}\n")
    assert f"sha256 {sha256}" not in amber("--speed", "max", "-n", "599", "--digest").stderr


def test_times_can_be_moved_so_that_the_first_event_is_now(path: Path, amber: Amber) -> None:
    """By one offset for all of a round; the distances stay."""
    fill(path, [entry(n, at=T0 + n * SECOND) for n in range(3)])
    before = datetime.now(UTC)
    done = amber("--retime", "--times", "2", "--speed", "1000")
    after = datetime.now(UTC)
    lines = [msgspec.json.decode(line) for line in done.stdout.splitlines()]
    at = [datetime.fromisoformat(line["received_at"]) for line in lines]
    assert [line["observed_at"] for line in lines] == [line["received_at"] for line in lines]
    assert before - timedelta(milliseconds=1) <= at[0] <= at[3] <= after
    assert (
        [one - at[0] for one in at[:3]] == [one - at[3] for one in at[3:]] == [timedelta(seconds=n) for n in range(3)]
    )


@pytest.mark.parametrize("speed", ["max", "1000"])
def test_how_things_stood_comes_before_the_start(path: Path, amber: Amber, speed: str) -> None:
    """Marked, so that nobody takes it for what happens now; in each round again."""
    fill(path, (entry(n) for n in range(10)))
    done = amber("--state-first", "--speed", speed, "--after", str(position(4)), "-n", "2")
    lines = [msgspec.json.decode(line) for line in done.stdout.splitlines()]
    assert [(line["id"], line.get("before_start")) for line in lines] == [
        (position(4), True),
        (position(5), None),
        (position(6), None),
    ]
    assert "replayed 2 events" in done.stderr
    assert "1 before the start" in done.stderr
    again = amber("--state-first", "--speed", speed, "--after", str(position(4)), "-n", "2", "--times", "2")
    assert ids(again.stdout.splitlines()) == [position(4), position(5), position(6)] * 2
    first = amber("--state-first", "--speed", speed)
    assert ids(first.stdout.splitlines()) == positions(10)


def test_a_broker_gets_how_things_stood_with_a_mark(path: Path, amber: Amber, broker: Mosquitto) -> None:
    fill(path, (entry(n, retain=n == 3) for n in range(6)))
    with subscriber(broker) as client:
        amber("--state-first", "--speed", "max", "--after", str(position(4)), "--to", broker.url)
        received = client.take(3)
    assert [(m.payload, m.retain) for m in received] == [(b"{3}", True), (b"{4}", False), (b"{5}", False)]
    assert [dict(m.user).get(STATE_MARK) for m in received] == ["true", None, None]


def test_a_broker_gets_the_topics_of_a_template(path: Path, amber: Amber, broker: Mosquitto) -> None:
    fill(path, [entry(0)])
    with subscriber(broker) as client:
        done = amber("--speed", "max", "--to", broker.url, "--topic-template", "test/{device}/{1}/{kind}")
        assert done.status == 0
        assert client.take(1)[0].topic == "test/thermo/devices/measurement"


def test_a_broker_gets_events_as_json_where_times_are_moved(path: Path, amber: Amber, broker: Mosquitto) -> None:
    """A payload's own times nobody can move; each event is a message then."""
    fill(path, [entry(0, events=2, qos=1)])
    with subscriber(broker) as client:
        amber("--retime", "--speed", "max", "--to", broker.url)
        received = client.take(2)
    events = [msgspec.json.decode(m.payload) for m in received]
    assert [event["id"] for event in events] == [position(1), position(1, 1)]
    assert all(
        datetime.now(UTC) - datetime.fromisoformat(event["received_at"]) < timedelta(hours=1) for event in events
    )
    assert [m.properties["ContentType"] for m in received] == ["application/json"] * 2
    assert [dict(m.user)[REPLAY_MARK] for m in received] == [str(position(1)), str(position(1, 1))]


def test_a_range_of_one_message_is_published_in_each_round(path: Path, amber: Amber, broker: Mosquitto) -> None:
    fill(path, [entry(0, events=2)])
    with subscriber(broker) as client:
        amber("--times", "3", "--speed", "max", "--to", broker.url)
        assert [m.payload for m in client.take(3)] == [b"{0}"] * 3
        assert client.empty()


def test_a_request_to_end_is_told_as_ctrl_c_is(path: Path, broker: Mosquitto) -> None:
    fill(path, [entry(0), entry(1, at=T0 + HOUR)])
    for options in ([], ["--to", broker.url]):
        with subscriber(broker) as client, started(path, *options) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            if options:
                client.take(1)
            else:
                process.stdout.readline()
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 143
            assert re.search(r"stopped, go on with --after (0|10000)\n$", process.stderr.read().decode())


def test_what_cannot_be_done_is_told_on_one_line(path: Path, amber: Amber) -> None:
    missing = amber()
    assert (missing.status, missing.stderr.count("\n")) == (1, 1)
    assert missing.stderr.startswith(f"amber: there is no store at {path}")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--speed", "0"], "'0' is no speed"),
        (["--speed", "fast"], "'fast' is no speed"),
        (["--max-gap", "soon"], "'soon' is no duration"),
        (["--to", "http://127.0.0.1"], "must begin with mqtt://"),
        (["--prefix", "old"], "standard output has no topics"),
        (["--to", "mqtt://127.0.0.1", "--prefix", "", "--same-topics"], "leave the other out"),
        (["--to", "mqtt://127.0.0.1", "--prefix", "/"], "write --same-topics"),
        (["--to", "mqtt://127.0.0.1", "--prefix", "a/#"], "cannot be part of a topic"),
        (["--to", "mqtt://127.0.0.1", "--topic-template", "a/{b}"], "no placeholder"),
        (["--to", "mqtt://127.0.0.1", "--topic-template", "a", "--prefix", "b"], "leave --prefix"),
        (["--to", "mqtt://127.0.0.1", "--topic-template", "a", "--same-topics"], "leave --prefix"),
        (["--topic-template", "a/{device}"], "standard output has no topics"),
        (["--rate", "0"], "'0' is no rate"),
        (["--rate", "inf"], "'inf' is no rate"),
        (["--loop", "--times", "2"], "leave the other out"),
        (["--times", "0"], "--times"),
        (["--restart"], "add --as NAME"),
        (["--topic", "a/#/b"], "no topic filter"),
    ],
)
def test_wrong_usage_is_told_before_anything_is_opened(amber: Amber, options: list[str], said: str) -> None:
    done = amber(*options)
    assert (done.status, done.stderr.count("\n")) == (2, 1)
    assert said in done.stderr


def test_speeds_are_numbers_above_zero_or_max() -> None:
    assert [parse_speed(text) for text in ("1", "10", "0.5", "1e3", "max")] == [1, 10, 0.5, 1_000, None]
    for wrong in ("", "0", "-1", "nan", "inf", "10x"):
        with pytest.raises(typer.BadParameter):
            parse_speed(wrong)


def test_a_prefix_is_made_of_whole_levels() -> None:
    assert parse_prefix(None, same_topics=False, to_broker=False) == "replay/"
    for text in ("old", "old/", "old//"):
        assert parse_prefix(text, same_topics=False, to_broker=True) == "old/"
