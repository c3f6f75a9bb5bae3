"""What a fresh clone stands on: the locks, the wheel, `./run`, and the broker that the tests start."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
import tomllib
import zipfile
from pathlib import Path

import pytest
from typer.main import get_command

from devices.broker import BrokerError, Mosquitto
from gateway.__main__ import app

ROOT = Path(__file__).resolve().parent.parent
LOCKS = ("requirements.txt", "requirements-dev.txt")


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_names_no_place_to_fetch_from(lock: str) -> None:
    """Where packages come from is the user's business; the hashes say what they are."""
    lines = (ROOT / lock).read_text("utf-8").splitlines()
    assert [line for line in lines if re.search(r"://|^\s*-(?!-hash=)|index|find-links|(^|\s)/\w", line)] == []


@pytest.mark.parametrize("lock", LOCKS)
def test_every_locked_package_has_one_version_and_its_hashes(lock: str) -> None:
    pins = requirements(lock)
    assert len(pins) > 20
    for name, rest in pins.items():
        assert re.match(r"==\S+ (;.*)?--hash=sha256:[0-9a-f]{64}", rest), name


def test_the_locks_hold_all_that_pyproject_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    runtime = {first_word(line) for line in project["project"]["dependencies"]}
    dev = {first_word(line) for line in project["dependency-groups"]["dev"]}
    assert runtime <= requirements("requirements.txt").keys()
    assert runtime | dev <= requirements("requirements-dev.txt").keys()


def test_the_tests_run_on_the_versions_that_users_get() -> None:
    runtime, dev = (requirements(lock) for lock in LOCKS)
    assert {name: version(rest) for name, rest in runtime.items()} == {
        name: version(rest) for name, rest in dev.items() if name in runtime
    }


def test_the_words_that_run_keeps_for_itself_are_no_commands_of_amber() -> None:
    """`./run COMMAND` is `amber COMMAND`: one of its own words would hide the command of that name."""
    words = re.findall(r"^    ([a-z]+)\)$", (ROOT / "run").read_text("utf-8").partition("${1:-}")[2], re.MULTILINE)
    assert words == ["test", "lint", "bench", "lock", "demo"]
    assert {*words} & get_command(app).commands.keys() == {"demo"}  # type: ignore[attr-defined]


def test_the_wheel_holds_the_three_rooms_the_brokers_configuration_and_the_examples(tmp_path: Path) -> None:
    """PyPI knows other packages named `storage`: ours must not grow top-level names by accident."""
    build = [sys.executable, "-P", "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"gateway", "devices", "storage"}
    assert "devices/mosquitto.conf" in names
    assert "devices/examples/chaos.toml" in names


@pytest.mark.skipif(not (ROOT / ".venv/.amber").exists(), reason="only a clone that ./run has set up")
def test_run_keeps_the_users_folder_and_follows_links(tmp_path: Path) -> None:
    """From elsewhere, through a link, and with a `gateway` of the user's own in the way."""
    (tmp_path / "gateway.py").write_text("raise SystemExit('the wrong gateway')")
    (tmp_path / "amber").symlink_to(os.path.relpath(ROOT / "run", tmp_path.resolve()))
    ended = subprocess.run(["./amber", "--help"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "amber" in ended.stdout


def test_a_broker_answers_on_its_port(broker: Mosquitto) -> None:
    assert broker.url == f"mqtt://127.0.0.1:{broker.port}"
    assert answers(broker.port)


def test_a_broker_returns_on_the_same_port_after_a_kill_and_after_a_stop(broker: Mosquitto) -> None:
    for end in (broker.kill, broker.stop):
        port, pid = broker.port, broker.pid
        end()
        assert not answers(port)
        broker.start()
        assert broker.port == port
        assert broker.pid != pid
        assert answers(port)


def test_a_broker_that_has_just_started_can_be_stopped(broker: Mosquitto) -> None:
    """Mosquitto forgets a SIGTERM between saying that it runs and doing so: a start must outlast that."""
    for _ in range(50):
        broker.stop()
        broker.start()


def test_two_brokers_run_side_by_side(broker: Mosquitto, tmp_path: Path) -> None:
    with Mosquitto(tmp_path / "second") as second:
        assert second.port != broker.port
        assert answers(second.port)
        assert answers(broker.port)


def test_a_broker_moves_away_from_a_port_that_was_taken_meanwhile(tmp_path: Path) -> None:
    broker = Mosquitto(tmp_path)
    with Mosquitto(tmp_path / "faster", port=broker.port), broker:
        assert answers(broker.port)


def test_a_broker_that_cannot_start_says_why(broker: Mosquitto, tmp_path: Path) -> None:
    with pytest.raises(BrokerError, match="Address already in use"):
        Mosquitto(tmp_path / "same", port=broker.port).start()
    with pytest.raises(BrokerError, match="no_such_key"):
        Mosquitto(tmp_path / "wrong", extra="no_such_key 1").start()


def test_extra_lines_replace_ours(tmp_path: Path) -> None:
    with Mosquitto(tmp_path, extra="autosave_interval 77\n"):
        lines = (tmp_path / "mosquitto.conf").read_text("utf-8").splitlines()
    assert [line for line in lines if line.startswith("autosave_interval")] == ["autosave_interval 77"]


def test_a_broker_ends_with_a_killed_program_that_started_it(tmp_path: Path) -> None:
    """A test run or a demo that is killed leaves no broker behind."""
    program = (
        "import os, pathlib, sys, time\n"
        "from devices.broker import Mosquitto\n"
        "broker = Mosquitto(pathlib.Path(sys.argv[1]))\n"
        "broker.start()\n"
        "print(broker.port, flush=True)\n"
        "time.sleep(60)\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as starter:
        assert starter.stdout is not None
        port = int(starter.stdout.readline())
        with socket.create_connection(("127.0.0.1", port), timeout=10) as held:
            # A connection that the broker has not accepted yet would be reset by its end, not closed.
            held.sendall(b"\x10\x10\x00\x04MQTT\x04\x02\x00\x3c\x00\x04held")
            assert held.recv(4) == b"\x20\x02\x00\x00", "the broker accepts us"
            os.kill(starter.pid, signal.SIGKILL)
            assert held.recv(1) == b"", "the broker closes the connection by ending"
    soon = time.monotonic() + 10
    while answers(port):  # its sockets close one after the other
        assert time.monotonic() < soon


def answers(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(10)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def requirements(lock: str) -> dict[str, str]:
    """Each package of a lock, and the rest of its entry on one line."""
    text = (ROOT / lock).read_text("utf-8")
    entries = re.sub(r"\s*\\\n\s*", " ", text).splitlines()
    return {
        first_word(line): line.removeprefix(first_word(line))
        for line in entries
        if line and not line.lstrip().startswith("#")
    }


def first_word(requirement: str) -> str:
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert found is not None, requirement
    return found[0]


def version(rest: str) -> str:
    return rest.split(maxsplit=1)[0]
