"""What the command says when it cannot do what it is asked to, and what it costs to ask."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from devices import cli
from devices.broker import Mosquitto, _free_port
from devices.models import MODELS
from tests.devices.outside import Finished, command, numbers, simulate


@pytest.mark.parametrize("arguments", [["--help"], ["simulate", "--help"]])
def test_the_name_of_the_only_command_may_be_left_out(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["devices", *arguments])
    assert cli.main() == 0
    assert "--connect-timeout" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--broker", "localhost:1883"], "mqtt://127.0.0.1:1883"),
        (["--qos", "3"], "less than or equal to 2"),
        (["--qos", "many"], "--qos"),
        (["--devices", "0"], "--devices"),
        (["--rate", "0"], "--rate"),
        (["--rate", "nan"], "--rate"),
        (["--models", "thermometer,toaster"], "thermometer, meter, door, tracker"),
        (["--duration", "soon"], "30s, 5m or 1h"),
        (["--duration", "0"], "30s, 5m or 1h"),
        (["--connect-timeout=-1s"], "30s, 5m or 1h"),
        (["--start", "yesterday"], "2026-11-22T09:00:00Z"),
        (["--start", "9999-12-31T23:59:59Z"], "9000"),
        (["--ca-file", "ca.pem"], "mqtts://"),
        (["--nonesuch"], "--nonesuch"),
        (["left over"], "left over"),
    ],
)
def test_a_usage_error_is_one_line_and_exit_code_2(
    options: list[str], words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["devices", *options])
    assert cli.main() == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("amber: ")
    assert words in said.err
    assert said.err.count("\n") == 1


def test_a_broker_out_of_reach_is_one_line_and_exit_code_1() -> None:
    ended = simulate("--broker", "mqtt://127.0.0.1:1", "--connect-timeout", "1s")
    assert ended == Finished(
        1, "", "amber: no device could connect to mqtt://127.0.0.1:1 within 1 s: Connection refused\n"
    )


def test_passwords_are_checked_by_the_broker(tmp_path: Path) -> None:
    passwords = tmp_path / "passwords"
    passwords.touch(0o600)
    subprocess.run(["mosquitto_passwd", "-b", passwords, "ann", "s:cret/"], check=True, stderr=subprocess.DEVNULL)
    with Mosquitto(tmp_path / "broker", extra=f"allow_anonymous false\npassword_file {passwords}\n") as broker:
        known = broker.url.replace("//", "//ann:s%3Acret%2F@")
        assert simulate("--broker", known, "--devices", 1, "--duration", "0.1s").code == 0
        unknown = broker.url.replace("//", "//ann:hunter2@")
        ended = simulate("--broker", unknown, "--connect-timeout", "1s")
    assert ended == Finished(1, "", f"amber: no device could connect to {broker.url} within 1 s: Not authorized\n")


def test_mqtts_trusts_the_authority_it_is_given_and_no_other(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
         "-keyout", key, "-out", certificate, "-subj", "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    port = _free_port()
    extra = f"listener {port} 127.0.0.1\ncertfile {certificate}\nkeyfile {key}\n"
    with Mosquitto(tmp_path / "broker", extra=extra):
        options = [
            "--broker",
            f"mqtts://127.0.0.1:{port}",
            "--devices",
            "3",
            "--rate",
            "20",
            "--duration",
            "0.5s",
            "--connect-timeout",
            "1s",
        ]
        trusted = simulate(*options, "--ca-file", certificate)
        # without -W error: paho leaves the socket of a failed handshake to the garbage collector
        foreign = subprocess.run(
            [sys.executable, "-m", "devices", *options], capture_output=True, text=True, check=False
        )
    assert numbers(trusted)["acknowledged"] == 30
    assert foreign.returncode == 1
    assert "certificate verify failed" in foreign.stderr
    assert foreign.stderr.count("\n") == 1


def test_an_unreadable_ca_file_is_one_line_and_exit_code_1(tmp_path: Path) -> None:
    ended = simulate("--broker", "mqtts://127.0.0.1", "--ca-file", tmp_path / "none.pem")
    assert ended.code == 1
    assert ended.err.startswith("amber: cannot read the CA file")
    assert ended.err.count("\n") == 1


def test_too_few_open_files_are_told_before_anything_starts() -> None:
    ended = subprocess.run(
        ["sh", "-c", 'ulimit -n 100; exec "$@"', "sh", *command("--devices", 1_000)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 1
    assert ended.stderr.startswith("amber: this needs 1064 open files, and the system allows 100: ")
    assert ended.stderr.count("\n") == 1


def test_a_low_soft_limit_is_raised_as_far_as_it_must(broker: Mosquitto) -> None:
    ended = subprocess.run(
        ["sh", "-c", 'ulimit -Sn 30; exec "$@"', "sh",
         *command("--broker", broker.url, "--devices", 40, "--rate", 20, "--duration", "0.5s")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "acknowledged 400 " in ended.stdout


def test_a_ledger_that_cannot_be_written_is_one_line_and_exit_code_1(broker: Mosquitto) -> None:
    ended = simulate("--broker", broker.url, "--ledger", "/dev/full")
    assert ended == Finished(1, "", "amber: cannot write the ledger /dev/full: No space left on device\n")


def test_the_door_imports_nothing_heavy() -> None:
    """`amber --help` must not wait for what only a simulation needs."""
    program = "import sys, devices.cli; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert not {"aiomqtt", "asyncio", "msgspec", "pytimeparse2"} & {*loaded}


def test_the_joint_command_can_take_the_door_in() -> None:
    app = typer.Typer()
    app.command()(lambda: None)
    cli.register(app)
    with pytest.raises(typer.TyperException, match="less than or equal to 2"):
        app(["simulate", "--qos", "3"], standalone_mode=False)


def test_the_models_offered_are_all_there_are() -> None:
    assert inspect.signature(cli.simulate).parameters["models"].default == ",".join(MODELS)
