"""The documentation tells the truth: commands, options, settings and the README's examples."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from pydantic import BaseModel
from typer.main import get_command

from devices.broker import Mosquitto
from gateway.__main__ import app
from gateway.config import Config, RuleSection, load
from storage.event import Event, Message, Rejection
from storage.store import Store, StoreOptions

ROOT = Path(__file__).resolve().parent.parent
COMMANDS = get_command(app).commands  # type: ignore[attr-defined]
ENDLESS = ("demo", "run", "simulate")
"""What runs until it is stopped, or starts a broker: of these the words are checked, not the run."""


def read(name: str) -> str:
    return (ROOT / name).read_text("utf-8")


def settings() -> Iterator[tuple[str, str, object]]:
    """Section, key and default of every setting."""
    for name, field in Config.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            for key, inner in kind.model_fields.items():
                yield name, key, inner.default
        else:
            yield "", name, field.default


def examples(name: str) -> list[list[str]]:
    """The `./run …` lines of a document's console blocks, as arguments of `amber`."""
    blocks = re.findall(r"```console\n(.*?)```", read(name), re.DOTALL)
    lines = [line.removeprefix("$ ") for block in blocks for line in block.splitlines() if line.startswith("$ ./run ")]
    return [shlex.split(line.partition(" > ")[0], comments=True)[1:] for line in lines]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_documented(command: str) -> None:
    assert f"| `amber {command}` |" in read("docs/cli.md")


@pytest.mark.parametrize("command", ["events", "replay"])
def test_the_shared_options_are_documented(command: str) -> None:
    shared = {option for parameter in COMMANDS["events"].params for option in parameter.opts}
    shared &= {option for parameter in COMMANDS[command].params for option in parameter.opts}
    text = read("docs/cli.md")
    assert [option for option in shared if option not in text and option != "--limit"] == []


def test_no_command_is_documented_that_does_not_exist() -> None:
    told = set(re.findall(r"`(?:amber|\./run) ([a-z]+)", read("docs/cli.md") + read("README.md")))
    assert told - set(COMMANDS) - {"test", "bench", "check"} == set()


@pytest.mark.parametrize(("section", "key", "default"), list(settings()))
def test_every_setting_is_documented_with_its_default(section: str, key: str, default: object) -> None:
    text = read("docs/configuration.md")
    part = text.partition(f"\n## [{section}]\n")[2].partition("\n## ")[0] if section else text
    row = next(line for line in part.splitlines() if line.startswith(f"| `{key}` |"))
    cells = [cell.strip().strip("`") for cell in row.split("|")]
    shown = "—" if default in (None, "") else json.dumps(default) if isinstance(default, tuple) else str(default)
    assert cells[2] == shown
    assert cells[3] == "AMBER_" + "__".join(part for part in (section, key) if part).upper()


def test_the_example_configuration_works(tmp_path: Path) -> None:
    example = re.findall(r"```toml\n(.*?)```", read("docs/configuration.md"), re.DOTALL)[0]
    file = tmp_path / "amber.toml"
    file.write_text(example)
    config = load(file, {})
    assert config.link_options.address.tls
    assert config.store_options.free_floor_bytes == 500 << 20


def test_the_example_rules_work(tmp_path: Path) -> None:
    (example,) = [
        text for text in re.findall(r"```toml\n(.*?)```", read("docs/configuration.md"), re.DOTALL) if "[[r" in text
    ]
    file = tmp_path / "amber.toml"
    file.write_text(example)
    formats = load(file, {}).make_formats()
    payload = (
        b'{"machine":{"name":"kiln"},"meta":{"at":1763802000},"data":[{"id":"t1","v":980}],"status":{"text":"on"}}'
    )
    outcome = formats.read(Message("plant/x/report", payload, 0, retain=False, received_at=1_763_802_001_000_000))
    assert not isinstance(outcome, Rejection)
    assert [(event.device, event.readings) for event in outcome] == [("kiln", {"temperature": 980, "state": "on"})]


def test_every_key_of_a_rule_is_documented() -> None:
    text = read("docs/configuration.md").partition("\n## Rules\n")[2].partition("\n## ")[0]
    for key, field in RuleSection.model_fields.items():
        assert f"`{key}`" in text
        assert key.endswith("_path") or key in ("format", "readings") or str(field.description) in text


def test_the_event_in_the_readme_has_the_fields_of_every_event(history: Path) -> None:
    example = json.loads(re.findall(r"```json\n(.*?)```", read("README.md"), re.DOTALL)[0])
    line = amber(["events", "-n", "1", "--format", "jsonl"], history).stdout
    assert list(example) == list(json.loads(line))


@pytest.fixture
def history(tmp_path: Path) -> Path:
    """A store with a few events of now."""
    path = tmp_path / "amber.db"
    store = Store(path, StoreOptions(free_floor_bytes=0))
    now = int(time.time() * 1e6)
    entries = []
    for n in range(50):
        message = Message("plant/press/state", b"%d" % n, 0, retain=False, received_at=now + n)
        entries.append((message, [Event("thermo-0001", "measurement", "json", now + n, {"temperature": n})]))
    store.append(entries, 1)
    store.close()
    return path


def amber(arguments: list[str], store: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gateway", *arguments],
        cwd=store.parent,
        env={**os.environ, "AMBER_STORE": str(store), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )


def test_the_readme_has_the_two_commands() -> None:
    assert examples("README.md")[:2] == [["demo"], ["test"]]


class Taken(BaseHTTPRequestHandler):
    """Takes whatever it is sent."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing on standard error."""


@pytest.fixture
def taker() -> Iterator[str]:
    """The address of an HTTP server."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Taken) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}/events"
        server.shutdown()


@pytest.mark.parametrize("example", [one for one in examples("README.md") if one[0] in COMMANDS], ids=" ".join)
def test_the_examples_of_the_readme_run(example: list[str], history: Path, broker: Mosquitto, taker: str) -> None:
    addresses = {"mqtt": broker.url, "http": taker}
    arguments = [addresses[word[:4]] if "://" in word else word for word in example]
    if example[0] == "consume":
        arguments.append("--once")
    if example[0] in ENDLESS:
        assert "Usage: " in amber([*arguments, "--help"], history).stdout
    elif "--follow" in example:
        command = [sys.executable, "-m", "gateway", *arguments]
        env = {**os.environ, "AMBER_STORE": str(history)}
        with subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdout
            assert process.stderr
            assert process.stdout.readline()
            process.send_signal(signal.SIGINT)
            assert process.stderr.read() == b""
        assert process.returncode == 0
    else:
        done = amber(arguments, history)
        assert "Traceback" not in done.stderr
        assert done.stdout or {"--to", "-o"} & {*example} or example[0] in ("rejections", "backup")
