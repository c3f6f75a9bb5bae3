"""Claims about `amber consume` and `amber consumers` as people and programs use them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import pty
import re
import signal
import socket
import sqlite3
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from email.message import Message as Headers
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from devices.broker import Mosquitto
from gateway import deliver
from gateway.__main__ import run
from gateway.consume_cli import shell_word, warnings_told
from gateway.deliver import Batch, Delivered, Feed, Manner, Stop, Trouble, Watch
from gateway.sinks import SinkError
from gateway.sinks.http import parse_header, parse_url, retry_after_s
from storage.consumers import Consumer
from storage.cursors import Cursors, reader_of
from storage.event import Entry, Event, Message, StoredEvent
from storage.filters import Filters
from tests.replay.filled import entry, fill, position, positions
from tests.storage.histories import History, message

ROOT = Path(__file__).resolve().parents[2]
WITHIN_S = 60.0
CAT = "import sys; sys.stdout.write(sys.stdin.read())"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "amber.db"


class Done(NamedTuple):
    status: int
    stdout: str
    stderr: str

    @property
    def ids(self) -> list[int]:
        return [json.loads(line)["id"] for line in self.stdout.splitlines()]


class Amber:
    """A command in this process, which saves the time that a start takes."""

    def __init__(self, path: Path, capture: pytest.CaptureFixture[str]) -> None:
        self._path = path
        self._capture = capture

    def __call__(self, *arguments: str) -> Done:
        status = run([*arguments, "--store", str(self._path)])
        return Done(status, *self._capture.readouterr())


@pytest.fixture
def amber(path: Path, capfd: pytest.CaptureFixture[str]) -> Amber:
    return Amber(path, capfd)


@contextmanager
def started(path: Path, *options: str, stderr: int = subprocess.PIPE) -> Iterator[subprocess.Popen[bytes]]:
    """`amber consume billing` in a process of its own, which ends with the block whatever happens in it."""
    command = [sys.executable, "-m", "gateway", "consume", "billing", "--store", str(path), *options]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=stderr, bufsize=0) as process:
        try:
            yield process
        finally:
            process.kill()


def script(folder: Path, text: str) -> str:
    """A command that runs some Python."""
    file = folder / "script.py"
    file.write_text(text)
    return f"{sys.executable} -I -S {file}"


def until(reached: Callable[[], bool]) -> None:
    patience = time.monotonic() + WITHIN_S
    while not reached():
        assert time.monotonic() < patience
        time.sleep(0.01)


def runs(process: int) -> bool:
    """Whether it does, and is no zombie that nobody has buried yet."""
    found = subprocess.run(["ps", "-o", "stat=", "-p", str(process)], capture_output=True, text=True, check=False)
    return found.stdout.strip()[:1] not in ("", "Z")


def position_of(path: Path, name: str = "billing") -> int:
    with Cursors(path) as cursors:
        cursor = cursors.get(name)
    return 0 if cursor is None else cursor.position


# --- standard output ---


def test_it_prints_what_was_not_confirmed_yet_and_then_says_how_it_went(path: Path, amber: Amber) -> None:
    fill(path, (entry(n) for n in range(2_500)))
    first = amber("consume", "billing", "--once", "--from", str(position(500)))
    assert first.status == 0
    assert first.ids == positions(2_500, first=501)
    said = r"consumed 2000 events in \d+\.\d s · \d+\.\d events/s · confirmed up to position 25000000\n"
    assert re.fullmatch(said, first.stderr)
    second = amber("consume", "billing", "--once", "--from", "beginning")
    assert second.stdout == ""
    assert second.stderr.startswith("consumer billing goes on after position 25000000\nconsumed 0 events in ")


def test_filters_choose_what_is_handed_on_and_are_remembered(path: Path, amber: Amber) -> None:
    fill(path, (entry(n, topic=f"rooms/{n % 2}") for n in range(20)))
    amber("consume", "billing", "--topic", "rooms/1", "--once", "--from", str(position(10)))
    amber("consumers", "reset", "billing", "--to", "beginning")
    assert amber("consume", "billing", "--once").ids == [position(n) for n in range(2, 21, 2)]
    other = amber("consume", "billing", "--once", "--topic", "rooms/0")
    assert other.status == 1
    assert other.stderr.startswith("amber: consumer billing asks for topics rooms/1, not for topics rooms/0: leave")
    assert other.stderr.endswith("or change them for good with --change-filters\n")
    amber("consumers", "reset", "billing", "--to", "beginning")
    assert len(amber("consume", "billing", "--once", "--change-filters").ids) == 20


def test_it_goes_on_until_it_is_told_to_end(path: Path) -> None:
    """What comes is printed and confirmed; the signal ends it in good order."""
    with History(path) as history:
        history.append([entry(0)])
        for sign in (signal.SIGINT, signal.SIGTERM):
            with started(path) as process:
                assert process.stdout is not None
                assert process.stderr is not None
                until(lambda: reader_of(path, "billing") is not None)
                history.append([entry(len(history.events))])
                while json.loads(process.stdout.readline())["id"] != history.position:
                    pass
                process.send_signal(sign)
                assert process.wait(WITHIN_S) == 0
                assert f"confirmed up to position {history.position}\n" in process.stderr.read().decode()
            assert position_of(path) == history.position


def without(path: Path, after: int) -> None:
    """Leave the log as a reread does that gives no events for its last messages any more."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DELETE FROM events_1 WHERE id > ?", (after,))


class Shortening:
    """A target, and a sink, during whose first batch the log becomes shorter."""

    def __init__(self, path: Path) -> None:
        self.confirmed = 0
        self._path = path

    def take(self, batch: Batch) -> None:
        assert batch.last == position(1)
        without(self._path, position(1))

    async def send(self, batch: Sequence[tuple[StoredEvent, Message]]) -> None:
        without(self._path, position(1))
        self.confirmed = batch[-1][0].id


class ShorteningTarget(Shortening):
    def settle(self) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class ShorteningSink(Shortening):
    async def settle(self) -> None:
        """Nothing."""


async def test_once_ends_also_where_the_log_ends_earlier_meanwhile(path: Path, tmp_path: Path) -> None:
    other = fill(tmp_path / "other.db", (entry(n) for n in range(3)))
    fill(path, (entry(n) for n in range(3)))
    manner = Manner(batch_events=1, once=True)
    with Stop() as stop:
        watch = Watch(stop, Trouble(lambda _: None), Delivered(), lambda _: None)
        with Consumer(path, "billing") as consumer:
            deliver.deliver(consumer, ShorteningTarget(path), manner, watch)
            assert consumer.position == position(1)
        with Consumer(other, "billing") as consumer:
            await Feed(consumer, manner, watch).run(ShorteningSink(other))
            assert consumer.position == position(1)


def test_whoever_reads_may_stop(path: Path) -> None:
    fill(path, (entry(n) for n in range(50_000)))
    with started(path) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(WITHIN_S) == 0
        assert re.fullmatch(r"consumed \d+ events in .*\n", process.stderr.read().decode())
    assert position_of(path) < position(50_000)


def test_a_terminal_sees_a_line_that_moves(path: Path) -> None:
    fill(path, (entry(n) for n in range(10)))
    ours, theirs = pty.openpty()
    with started(path, "--exec", "cat", stderr=theirs) as process:
        os.close(theirs)
        said = b""
        while b"10 events in" not in said:
            said += os.read(ours, 1_000)
        process.send_signal(signal.SIGTERM)
        assert process.wait(WITHIN_S) == 0
    os.close(ours)
    assert re.search(rb"\r\x1b\[K10 events in \d+\.\d s", said)


# --- commands ---


def test_a_command_gets_each_batch_and_what_it_is(path: Path, amber: Amber, tmp_path: Path) -> None:
    fill(path, (entry(n) for n in range(25)))
    tells = script(
        tmp_path,
        "import os, sys\n"
        "print(*(os.environ['AMBER_' + name] for name in ('CONSUMER', 'FIRST_POSITION', 'LAST_POSITION', 'EVENTS')),"
        " len(sys.stdin.readlines()))",
    )
    done = amber("consume", "billing", "--exec", tells, "--batch", "10", "--once")
    assert done.status == 0
    assert done.stdout.splitlines() == [
        "billing 10000 100000 10 10",
        "billing 110000 200000 10 10",
        "billing 210000 250000 5 5",
    ]
    assert position_of(path) == position(25)


FAILS_TWICE = """
import os, sys
tries = len(sys.argv) and os.open(sys.argv[1], os.O_RDWR | os.O_APPEND | os.O_CREAT)
os.write(tries, b".")
if os.fstat(tries).st_size <= 2:
    sys.exit(3)
sys.stdout.write(sys.stdin.read())
"""


def test_a_batch_that_fails_comes_again_and_this_is_told_once(path: Path, amber: Amber, tmp_path: Path) -> None:
    fill(path, (entry(n) for n in range(15)))
    command = f"{script(tmp_path, FAILS_TWICE)} {tmp_path / 'tries'}"
    done = amber("consume", "billing", "--exec", command, "--batch", "10", "--once")
    assert done.ids == positions(15)
    failed, again, _ = done.stderr.splitlines()
    assert failed.endswith(" ended with status 3; trying again, nothing is passed over")
    assert again == "taken after 3 tries: going on"


def test_it_gives_up_where_that_is_wanted(path: Path, amber: Amber) -> None:
    fill(path, (entry(n) for n in range(15)))
    done = amber("consume", "billing", "--exec", "false", "--tries", "2", "--once")
    assert done.status == 1
    assert "amber: false ended with status 1; given up after 2 tries, nothing is lost: start again" in done.stderr
    assert position_of(path) == 0


def test_once_gives_up_by_itself_and_says_what_stays(path: Path, amber: Amber, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deliver, "FIRST_WAIT_S", 0.001)
    fill(path, (entry(n) for n in range(3)))
    for to in (("--exec", "false"), ("--to", "mqtt://127.0.0.1:1")):
        done = amber("consume", "billing", *to, "--once")
        assert done.status == 1
        assert "given up after 5 tries" in done.stderr.splitlines()[-1]
        assert done.stderr.splitlines()[-2].endswith(
            "consumer billing stays at position 0 and holds retention: amber consumers remove billing"
        )
        amber("consumers", "remove", "billing")


def test_only_a_first_try_that_fails_leaves_something_to_remove(path: Path, amber: Amber) -> None:
    fill(path, (entry(n) for n in range(3)))
    assert "stays at" not in amber("consume", "billing", "--from", "now", "--once").stderr
    assert "stays at" not in amber("consume", "other", "--exec", "true", "--once").stderr
    assert "stays at" not in amber("consume", "billing", "--exec", "false", "--tries", "1", "--once").stderr


@pytest.mark.parametrize(
    ("command", "word"),
    [
        ("cat | head -1", "|"),
        ("cat > events.jsonl", ">"),
        ("cat >> events.jsonl", ">>"),
        ("cat 2>&1 file", "2>&1"),
        ("cat 2> file", "2>"),
        ("wc < 'a b'", "<"),
        ("true && false", "&&"),
        ("true || false", "||"),
        ("true ; false", ";"),
        ("cat &", "&"),
        ("| cat", "|"),
        ("grep '|' | wc", "|"),
        ("grep '|'", None),
        ('grep ";"', None),
        (r"grep \| file", None),
        (r"""sh -c "echo \"a\" | cat" """, None),
        ("sh -c 'cat | head -1; true'", None),
        ("curl http://a/?b=c&d=e", None),
        ("head -1", None),
    ],
)
def test_what_only_a_shell_understands_is_refused(command: str, word: str | None) -> None:
    assert shell_word(command) == word


def test_a_command_that_takes_too_long_is_ended_with_all_that_it_started(
    path: Path, amber: Amber, tmp_path: Path
) -> None:
    fill(path, [entry(0)])
    alive = tmp_path / "alive"
    command = f"sh -c 'sleep 60 & echo $! > {alive}; wait'"
    done = amber("consume", "billing", "--exec", command, "--timeout", "2s", "--tries", "1", "--once")
    assert "sh did not end within 2 s; given up after one try" in done.stderr
    until(lambda: not runs(int(alive.read_text())))


def test_the_first_signal_lets_the_command_end_and_the_second_does_not(path: Path, tmp_path: Path) -> None:
    """Ctrl-C at a terminal reaches all of the group: the command is not in it."""
    fill(path, (entry(n) for n in range(3)))
    begun, go = tmp_path / "begun", tmp_path / "go"
    waits = script(
        tmp_path,
        f"import os, sys, time\nopen({str(begun)!r}, 'w')\n"
        f"while not os.path.exists({str(go)!r}): time.sleep(0.01)\nsys.stdout.write(sys.stdin.read())",
    )
    with started(path, "--exec", waits, "--batch", "1") as process:
        until(begun.exists)
        process.send_signal(signal.SIGINT)
        go.touch()
        assert process.wait(WITHIN_S) == 0
    assert position_of(path) == position(1)
    go.unlink()
    begun.unlink()
    with started(path, "--exec", waits, "--batch", "1") as process:
        assert process.stderr is not None
        until(begun.exists)
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGTERM)  # two of a kind that come together are one
        assert process.wait(WITHIN_S) == 130
        assert b"Traceback" not in process.stderr.read()
    assert position_of(path) == position(1)


def test_a_signal_ends_the_wait_before_the_next_try(path: Path) -> None:
    fill(path, [entry(0)])
    with started(path, "--exec", "false") as process:
        assert process.stderr is not None
        assert b"false ended with status 1; trying again" in process.stderr.readline()
        process.send_signal(signal.SIGTERM)
        assert process.wait(WITHIN_S) == 0
        assert b"consumer billing stays at position 0 and holds retention" in process.stderr.read()


def test_a_command_may_end_before_it_has_read_all(path: Path, amber: Amber) -> None:
    fill(path, (entry(n) for n in range(3_000)))
    assert amber("consume", "billing", "--exec", "true", "--batch", "3000", "--once").status == 0
    assert position_of(path) == position(3_000)


def test_the_same_trouble_is_told_once_in_a_while() -> None:
    said: list[str] = []
    trouble = Trouble(said.append)
    for _ in range(5):
        trouble.note("it rains")
        trouble.note("it snows")
        trouble.over(2)
    assert said == [
        "it rains; trying again, nothing is passed over",
        "it snows; trying again, nothing is passed over",
        "taken after 3 tries: going on",
    ]


# --- servers ---


class Request(NamedTuple):
    path: str
    headers: Headers
    body: bytes


Answer = Callable[[int], tuple[int, dict[str, str], bytes] | None]
"""What the n-th request is answered with, or None: the connection is closed."""


@contextmanager
def server(answer: Answer) -> Iterator[tuple[str, list[Request]]]:
    requests: list[Request] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            requests.append(Request(self.path, self.headers, body))
            answered = answer(len(requests))
            if answered is None:
                self.close_connection = True
                return
            status, headers, text = answered
            self.send_response(status)
            for name, value in {"Content-Length": str(len(text)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, format: str, *values: object) -> None:
            """Nothing."""

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            """Nothing: clients go as they like."""

    with Quiet(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"127.0.0.1:{listening.server_port}", requests
        finally:
            listening.shutdown()
            thread.join()


def posted(requests: Sequence[Request]) -> list[list[int]]:
    return [[json.loads(line)["id"] for line in request.body.splitlines()] for request in requests]


def test_a_server_gets_each_batch_and_what_it_is(path: Path, amber: Amber) -> None:
    fill(path, (entry(n) for n in range(25)))
    with server(lambda _: (200, {}, b"ok")) as (at, requests):
        url = f"http://user:p%40ss@{at}/in?key=1"
        done = amber("consume", "billing", "--to", url, "--batch", "10", "--once", "--header", "X-Team: red")
    assert done.status == 0, done.stderr
    assert posted(requests) == [positions(10), positions(20, first=11), positions(25, first=21)]
    request = requests[2]
    assert request.path == "/in?key=1"
    wanted = {
        "Content-Type": "application/x-ndjson",
        "Authorization": "Basic dXNlcjpwQHNz",
        "Amber-Consumer": "billing",
        "Amber-First-Position": "210000",
        "Amber-Last-Position": "250000",
        "Amber-Events": "5",
        "X-Team": "red",
    }
    assert {name: request.headers[name] for name in wanted} == wanted


@pytest.mark.parametrize(
    ("refusal", "said"),
    [
        ((503, {}, b"later"), "answers 503 Service Unavailable; trying again"),
        ((429, {"Retry-After": "0"}, b""), "answers 429 Too Many Requests; trying again"),
        (
            (422, {}, b"no such\x1b[2J field\n"),
            r"answers 422 Unprocessable \w+ \(no such\\x1b\[2J field\): it will not take this batch until that is",
        ),
        ((301, {"Location": "/new"}, b""), "answers 301 Moved Permanently: give --to the address .*, /new; trying"),
        (None, r"cannot be reached \(Remote end closed connection without response\); trying again"),
    ],
)
def test_what_a_server_does_not_take_comes_again(
    path: Path, amber: Amber, refusal: tuple[int, dict[str, str], bytes] | None, said: str
) -> None:
    fill(path, (entry(n) for n in range(5)))
    with server(lambda n: refusal if n <= 2 else (204, {}, b"")) as (at, requests):
        done = amber("consume", "billing", "--to", f"http://{at}/in?key=secret", "--once")
    assert posted(requests) == [positions(5)] * 3
    told, again, _ = done.stderr.splitlines()
    assert re.match(rf"http://{re.escape(at)}/in {said}", told)
    assert again == "taken after 3 tries: going on"


def test_a_connection_that_was_closed_while_it_was_idle_is_no_trouble(path: Path, amber: Amber) -> None:
    fill(path, (entry(n) for n in range(4)))
    with server(lambda n: None if n == 2 else (200, {}, b"")) as (at, requests):
        done = amber("consume", "billing", "--to", f"http://{at}", "--batch", "2", "--once")
    assert posted(requests) == [positions(2), positions(4, first=3), positions(4, first=3)]
    assert len(done.stderr.splitlines()) == 1


def test_an_answer_is_not_waited_for_longer_than_told(path: Path, amber: Amber) -> None:
    fill(path, [entry(0)])
    done_with = threading.Event()
    with server(lambda _: (200, {}, b"x" * done_with.wait(WITHIN_S))) as (at, _):
        options = "--timeout", "200ms", "--tries", "1", "--once"
        done = amber("consume", "billing", "--to", f"http://{at}/in", *options)
        done_with.set()
    assert f"http://{at}/in did not answer within 0.2 s; given up" in done.stderr


def test_an_answer_counts_that_comes_before_all_is_sent(path: Path, amber: Amber) -> None:
    """Servers close the connection on what is too large for them."""
    fill(path, (entry(n) for n in range(12_000)))
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def refuse() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(1)
                connection.sendall(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\n\r\n")

        thread = threading.Thread(target=refuse)
        thread.start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        done = amber("consume", "billing", "--to", url, "--batch", "12000", "--tries", "1", "--once")
        thread.join()
    assert f"{url} answers 413 Content Too Large: it will not take this batch" in done.stderr


@contextmanager
def answering(answer: Callable[[socket.socket], None]) -> Iterator[int]:
    """The port of a server that answers as it likes, each connection on a thread of its own, until the block ends."""
    over = threading.Event()

    def accept() -> None:
        while not over.is_set():
            with contextlib.suppress(OSError):
                connection, _ = listening.accept()
                threading.Thread(target=serve, args=(connection,), daemon=True).start()

    def serve(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            answer(connection)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            over.set()
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()


def in_pieces(connection: socket.socket, text: bytes) -> None:
    """Each piece soon after the one before, and no end to them."""
    while True:
        time.sleep(0.01)
        connection.sendall(text)


@pytest.mark.parametrize(
    ("begin", "piece"),
    [(b"HTTP/1.1 200 OK\r\n", b"X-Still: there\r\n"), (b"HTTP/1.1 500 No\r\nContent-Length: 9999\r\n\r\n", b"x")],
)
def test_an_answer_in_pieces_is_not_waited_for_longer_either(
    path: Path, amber: Amber, begin: bytes, piece: bytes
) -> None:
    fill(path, [entry(0)])

    def answer(connection: socket.socket) -> None:
        connection.sendall(begin)
        in_pieces(connection, piece)

    with answering(answer) as port:
        options = "--timeout", "200ms", "--tries", "1", "--once"
        done = amber("consume", "billing", "--to", f"http://127.0.0.1:{port}/in", *options)
    assert "/in did not answer within 0.2 s; given up" in done.stderr


@pytest.mark.parametrize("broken", [b"Content-Length: 9999\r\n\r\nx", b"Transfer-Encoding: chunked\r\n\r\nzz"])
def test_what_comes_after_a_success_does_not_undo_it(path: Path, amber: Amber, broken: bytes) -> None:
    """Else the batch would come again for ever."""
    fill(path, (entry(n) for n in range(4)))

    def answer(connection: socket.socket) -> None:
        connection.recv(100_000)
        connection.sendall(b"HTTP/1.1 200 OK\r\n" + broken)

    with answering(answer) as port:
        options = "--batch", "2", "--tries", "1", "--once"
        done = amber("consume", "billing", "--to", f"http://127.0.0.1:{port}/in", *options)
    assert (done.status, position_of(path)) == (0, position(4))


def test_a_server_that_breaks_tls_off_is_told_so(path: Path, amber: Amber) -> None:
    fill(path, [entry(0)])

    def reset(connection: socket.socket) -> None:
        connection.recv(1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    with answering(reset) as port:
        done = amber("consume", "billing", "--to", f"https://127.0.0.1:{port}/", "--tries", "1", "--once")
    assert "cannot be reached (Connection reset by peer); given up" in done.stderr


def test_a_server_that_is_not_there_is_named(path: Path, amber: Amber) -> None:
    fill(path, [entry(0)])
    done = amber("consume", "billing", "--to", "http://127.0.0.1:1/in", "--tries", "1", "--once")
    assert "amber: http://127.0.0.1:1/in cannot be reached (Connection refused); given up after one try" in done.stderr


def test_retry_after_is_a_number_or_a_date() -> None:
    assert retry_after_s(None) == retry_after_s("soon") == retry_after_s("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    assert retry_after_s("17") == 17
    assert retry_after_s("Fri, 31 Dec 2999 23:59:59 GMT") > 1e9


# --- brokers ---


@contextmanager
def heard(broker: Mosquitto) -> Iterator[list[tuple[str, bytes]]]:
    """What comes at a broker, by another client."""
    messages: list[tuple[str, bytes]] = []
    ready = threading.Event()
    client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
    client.on_subscribe = lambda *_: ready.set()
    client.on_message = lambda _client, _data, message: messages.append((message.topic, bytes(message.payload)))
    client.connect("127.0.0.1", broker.port)
    client.subscribe("#", qos=1)
    client.loop_start()
    assert ready.wait(WITHIN_S)
    try:
        yield messages
    finally:
        client.disconnect()
        client.loop_stop()


def test_a_broker_gets_the_messages_confirmed_as_it_acknowledges_them(
    path: Path, amber: Amber, broker: Mosquitto
) -> None:
    fill(path, (entry(n, events=2, topic=f"t/{n}") for n in range(300)))
    with heard(broker) as messages:
        done = amber("consume", "billing", "--to", broker.url, "--prefix", "copy", "--once")
        assert done.status == 0, done.stderr
        until(lambda: len(messages) == 300)
        amber("consume", "other", "--to", broker.url, "--topic-template", "all/{device}/{2}", "--once")
        until(lambda: len(messages) == 600)
    assert messages[:300] == [(f"copy/t/{n}", b"{%d}" % n) for n in range(300)]
    assert messages[300:] == [(f"all/thermo/{n}", b"{%d}" % n) for n in range(300)]
    assert position_of(path) == position(300, 1)


def test_a_broker_that_goes_away_is_waited_for(path: Path, broker: Mosquitto) -> None:
    """Whatever was not acknowledged is published again; nothing is passed over."""
    with History(path) as history, started(path, "--to", broker.url, "--same-topics", "--topic", "t/#") as process:
        assert process.stderr is not None
        with heard(broker) as messages:
            history.append([entry(0, topic="t/0")])
            until(lambda: len(messages) == 1 and position_of(path) == history.position)
        broker.kill()
        assert b"; trying again, nothing is passed over\n" in process.stderr.readline()
        history.append([entry(1, topic="t/1")])
        broker.start()
        until(lambda: position_of(path) == history.position)
        process.send_signal(signal.SIGTERM)
        assert process.wait(WITHIN_S) == 0


class Acknowledging:
    """A sink that has its events acknowledged up to a position, and breaks when it is sent what comes after another."""

    def __init__(self, acknowledged: int, broken: int) -> None:
        self.confirmed = 0
        self.sent: list[int] = []
        self._acknowledged = acknowledged
        self._broken = broken

    async def send(self, batch: Sequence[tuple[StoredEvent, Message]]) -> None:
        self.sent += [event.id for event, _ in batch]
        if self.sent[-1] > self._broken:
            raise SinkError("the connection has ended")
        self.confirmed = min(self.sent[-1], self._acknowledged)

    async def settle(self) -> None:
        """Nothing: it is asked at the end, when all is acknowledged."""


async def test_only_what_a_broker_has_acknowledged_is_confirmed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next connection gets the rest, what had been sent before among it."""
    monkeypatch.setattr(deliver, "CONFIRM_S", 0.0)
    fill(path, (entry(n) for n in range(40)))
    with Consumer(path, "billing") as consumer, Stop() as stop:
        watch = Watch(stop, Trouble(lambda _: None), Delivered(), lambda _: None)
        feed = Feed(consumer, Manner(batch_events=10, once=True), watch)
        with pytest.raises(SinkError):
            await feed.run(Acknowledging(position(12), position(25)))
        assert consumer.position == position(12)
        await feed.give_up()
        sink = Acknowledging(position(40), position(40))
        await feed.run(sink)
        assert feed.done
        assert sink.sent == positions(40, first=13)
        assert consumer.position == position(40)


class Silent:
    """A sink that takes nothing, and asks us to end meanwhile."""

    confirmed = 0

    async def send(self, batch: Sequence[tuple[StoredEvent, Message]]) -> None:
        assert batch
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.Event().wait()

    async def settle(self) -> None:
        """Never asked."""


async def test_a_broker_that_acknowledges_nothing_does_not_hold_up_the_end(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deliver, "SETTLE_S", 0.01)
    fill(path, [entry(0)])
    with Consumer(path, "billing") as consumer, Stop() as stop:
        feed = Feed(
            consumer, Manner(batch_events=10), Watch(stop, Trouble(lambda _: None), Delivered(), lambda _: None)
        )
        with pytest.raises(TimeoutError):
            await feed.run(Silent())
        assert consumer.position == 0


def test_a_broker_that_is_not_there_is_named(path: Path, amber: Amber) -> None:
    fill(path, [entry(0)])
    done = amber("consume", "billing", "--to", "mqtt://127.0.0.1:1", "--tries", "2", "--once")
    assert done.status == 1
    assert "mqtt://127.0.0.1:1 cannot be reached" in done.stderr.splitlines()[-1]
    assert done.stderr.splitlines()[-1].endswith("given up after 2 tries, nothing is lost: start again")


# --- two of one name ---


def test_the_second_of_a_name_is_refused_or_waits(path: Path, amber: Amber) -> None:
    fill(path, [entry(0)])
    with Consumer(path, "billing"):
        refused = amber("consume", "billing", "--once")
        assert refused.status == 1
        assert f"in use by another reader of cursor billing (process {os.getpid()})" in refused.stderr
        with started(path, "--wait", "--once") as process:
            assert process.stderr is not None
            told = process.stderr.readline().decode()
            assert told.startswith("waiting: ")
            assert told.endswith(f"(process {os.getpid()})\n")
            process.send_signal(signal.SIGTERM)
            assert process.wait(WITHIN_S) == 0
        waiting = subprocess.Popen(
            [sys.executable, "-m", "gateway", "consume", "billing", "--store", path, "--wait", "--once"],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert waiting.stderr is not None
        assert waiting.stderr.readline().startswith(b"waiting: ")
    printed, _ = waiting.communicate(timeout=WITHIN_S)
    assert json.loads(printed)["id"] == position(1)


# --- what is there ---


def test_the_consumers_are_listed(path: Path, amber: Amber) -> None:
    fill(path, (entry(n) for n in range(5)))
    assert amber("consumers").stdout == "name  kind  position  behind  moved  runs  filters\n"
    with Consumer(path, "billing", Filters(devices=("thermo",))):
        table = amber("consumers").stdout.splitlines()
        (row,) = json.loads(amber("consumers", "--format", "json").stdout)
    columns = rf"billing  consumer  0 +5 events  \d s ago  process {os.getpid()} +devices thermo"
    assert re.fullmatch(columns, table[1])
    assert row["process"] == os.getpid()
    assert row["filters"] == {"devices": ["thermo"]}
    assert (row["position"], row["events_behind"], row["messages_behind"]) == (0, 5, 5)
    assert amber("consumers", "--format", "csv").stdout.splitlines()[1].startswith("billing,consumer,0,5,5,")


def test_what_a_replay_asks_for_is_listed_in_the_same_words(path: Path, amber: Amber) -> None:
    fill(path, (entry(n) for n in range(2)))
    options = "--kind", "measurement", "--after", str(position(1)), "-n", "1"
    amber("replay", "--speed", "max", "--as", "again", *options)
    amber("replay", "--speed", "max", "--as", "all")
    rows = json.loads(amber("consumers", "--format", "json").stdout)
    assert [row["filters"] for row in rows] == [
        {"kinds": ["measurement"], "after": position(1), "until_position": position(2)},
        None,
    ]
    again, whole = amber("consumers").stdout.splitlines()[1:]
    assert again.endswith(f"kinds measurement; after {position(1)}; up to {position(2)}")
    assert re.fullmatch(r"all +replay +20000 +0 events +0 s ago +- +-", whole)


def test_times_in_what_is_asked_for_are_those_that_people_read(path: Path, amber: Amber) -> None:
    fill(path, (entry(n) for n in range(2)))
    amber("replay", "--speed", "max", "--as", "again", "--since", "2020-01-01T00:00:00Z")
    (row,) = json.loads(amber("consumers", "--format", "json").stdout)
    assert row["filters"]["since"] == "2020-01-01T00:00:00.000000Z"


def test_one_is_reset_and_removed(path: Path, amber: Amber) -> None:
    fill(path, (entry(n) for n in range(5)))
    amber("consume", "billing", "--once")
    done = amber("consumers", "reset", "billing", "--to", "20000")
    assert done.stdout == "consumer billing was at 50000, and is at 20000\n"
    assert run(["consumers", "--store", str(path), "reset", "billing", "--to", "now"]) == 0
    assert position_of(path) == position(5)
    assert amber("consumers", "remove", "billing").stdout.endswith("consumer billing is removed\n")
    assert amber("consumers", "remove", "billing").status == 1
    amber("replay", "--speed", "max", "--as", "again")
    assert amber("consumers", "reset", "again", "--to", "beginning").stdout.startswith("replay again was at 50000")
    assert amber("consumers", "remove", "again").stdout == "replay again is removed\n"
    assert list(path.parent.glob("*.cursor")) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["consume", "a b"], "'a b' is no name"),
        (["consume", "amber.latest"], "is Amber's own"),
        (["consume", "x", "--from", "tomorrowish"], "is no place in the log"),
        (["consume", "x", "--from", "9" * 30], "does not fit 64 bits"),
        (["consume", "x", "--exec", "no-such-command"], "there is no command 'no-such-command'"),
        (["consume", "x", "--exec", "echo 'a"], "cannot be split into words"),
        (["consume", "x", "--exec", " "], "there is no command in it"),
        (["consume", "x", "--exec", "cat | head -1"], "| is a shell's own, and there is no shell between: write sh -c"),
        (["consume", "x", "--kind", "foo"], "there is no kind 'foo': take measurement, state,"),
        (["consume", "x", "--exec", "cat", "--to", "http://a"], "only one of the two"),
        (["consume", "x", "--to", "somewhere"], "'somewhere' is no target"),
        (["consume", "x", "--to", "ftp://somewhere"], "is no target: write -, http://"),
        (["consume", "x", "--to", "http://some where/"], "it must name a host"),
        (["consume", "x", "--to", "http:///path"], "must name a host"),
        (["consume", "x", "--to", "http://a:99999/"], "is not an address"),
        (["consume", "x", "--to", "http://a/ü"], "must be written with %"),
        (["consume", "x", "--to", "http://a", "--header", "no header"], "it is no header"),
        (["consume", "x", "--header", "A: b"], "it means nothing for where the events go"),
        (["consume", "x", "--timeout", "1s"], "it means nothing for where the events go"),
        (["consume", "x", "--to", "mqtt://a", "--linger", "1s"], "it means nothing for where the events go"),
        (["consume", "x", "--prefix", "a"], "standard output has no topics"),
        (["consume", "x", "--linger", "a while"], "is no duration"),
        (["consume", "x", "--exec", "cat", "--timeout", "0s"], "is no duration from 0.001 s"),
        (["consume", "x", "--batch", "0"], "Invalid value for '--batch'"),
        (["consume", "x", "--topic", "a/#/b"], "is no topic filter"),
        (["consumers", "reset", "amber.latest", "--to", "now"], "is Amber's own: it cannot be reset or removed"),
        (["consumers", "remove", "amber.latest"], "is Amber's own"),
    ],
)
def test_what_cannot_be_meant_is_wrong_usage(amber: Amber, arguments: list[str], said: str) -> None:
    done = amber(*arguments)
    assert done.status == 2
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_time_to_come_is_wrong_usage(path: Path, amber: Amber) -> None:
    fill(path, [entry(0)])
    for command in (["consume", "x", "--from"], ["consumers", "reset", "billing", "--to"]):
        Consumer(path, "billing").close()
        done = amber(*command, "2999-01-01")
        assert done.status == 2
        assert "is yet to come: write now" in done.stderr


def test_urls_and_headers_are_read() -> None:
    url = parse_url("https://[::1]:8443?x=1")
    assert (url.tls, url.host, url.port, url.path, str(url)) == (True, "::1", 8443, "/?x=1", "https://[::1]:8443")
    assert parse_header("Authorization: Bearer a:b ") == ("Authorization", "Bearer a:b")
    for wrong in ("A b: c", ": c", "A: b\r\nC: d", "A: ☃"):
        with pytest.raises(ValueError, match="it is no header"):
            parse_header(wrong)


def test_odd_texts_come_whole(path: Path, amber: Amber) -> None:
    odd: Entry = message('t/"\n', b"\xff"), [Event('a"\nü\0', "state", "json", -1, {"\\": "\n", "x": None})]
    fill(path, [odd])
    (event,) = [json.loads(line) for line in amber("consume", "billing", "--exec", "cat", "--once").stdout.splitlines()]
    assert (event["device"], event["readings"]) == ('a"\nü\0', {"\\": "\n", "x": None})


def test_waits_grow_and_end() -> None:
    waits = [deliver._wait_s(failures) for failures in (1, 3, 1_000)]
    assert waits[0] <= deliver.FIRST_WAIT_S < waits[1] * 2
    assert deliver.LONGEST_WAIT_S / 2 <= waits[2] <= deliver.LONGEST_WAIT_S


def test_what_the_log_has_to_say_of_a_consumer_is_told() -> None:
    said: list[str] = []
    with warnings_told(said.append):
        logging.getLogger("amber.consumer").warning("it has missed %d messages", 3)
    logging.getLogger("amber.consumer").debug("nothing")
    assert said == ["it has missed 3 messages"]
