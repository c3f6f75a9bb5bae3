"""Several processes are one simulation: the same bytes, one count, one end."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from devices.address import Address
from devices.broker import Mosquitto, _free_port
from devices.errors import DeviceError
from devices.fleet import Fleet, of_models
from devices.ledger import accounts
from devices.models import MODELS
from devices.simulation import Run
from devices.simulation import simulate as play
from tests.devices.outside import command, finish, listening, numbers, simulate, start

FIXED = ["--devices", 7, "--rate", 20, "--duration", "0.5s", "--seed", 7, "--start", "2026-11-22T09:00:00Z"]


def workers_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def handles(pid: int, sign: signal.Signals) -> bool:
    """Whether a process has a handler of its own for a signal; the first one takes it away."""
    status = Path(f"/proc/{pid}/status").read_text()
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt:"))
    return int(caught.split()[1], 16) >> (sign - 1) & 1 == 1


def wait_until(claim: Callable[[], bool], within_s: float = 20) -> None:
    async def poll() -> None:
        async with asyncio.timeout(within_s):
            while not claim():
                await asyncio.sleep(0.02)

    asyncio.run(poll())


def test_any_number_of_workers_publishes_the_same_bytes(broker: Mosquitto, tmp_path: Path) -> None:
    """Seven devices are not shared out evenly; the ledger is one file, in whole lines."""
    heard = []
    for workers in (1, 3):
        ledger = tmp_path / f"{workers}.jsonl"
        with listening(broker, name=f"listener-{workers}") as listener:
            ended = simulate("--broker", broker.url, *FIXED, "--workers", workers, "--ledger", ledger)
            listener.wait_for(lambda: len(listener.telemetry()) == 70 and len(listener.heard) == 84)
        assert (ended.code, ended.err) == (0, "")
        expected = {"published": 70, "acknowledged": 70, "failed": 0, "statuses": 14, "devices": 7}
        assert numbers(ended).items() >= expected.items()
        heard.append(sorted(listener.telemetry()))
        assert {(*who, seq) for who, one in accounts(ledger).items() for seq in one.acked} == listener.events()
    assert heard[0] == heard[1]


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_all_of_them_in_good_order(broker: Mosquitto, sign: signal.Signals) -> None:
    """A terminal sends it to each process: whoever began the workers tells them, and only that counts."""
    with listening(broker) as listener:
        process = start("--broker", broker.url, "--devices", 4, "--rate", 20, "--workers", 2)
        listener.wait_for(lambda: len({device for device, _, _ in listener.events()}) == 4)
        for pid in [*workers_of(process.pid), process.pid]:
            os.kill(pid, sign)
        ended = finish(process)
        listener.wait_for(lambda: [*listener.states().values()] == ["offline"] * 4)
    assert (ended.code, ended.err) == (0, "")
    assert numbers(ended)["published"] == numbers(ended)["acknowledged"] == len(listener.events())
    assert numbers(ended)["statuses"] == 8  # and so no will


def test_a_second_signal_ends_them_at_once(broker: Mosquitto) -> None:
    """The broker sleeps, so that the orderly end would take its time."""
    with listening(broker) as listener:
        process = start("--broker", broker.url, "--devices", 4, "--rate", 20, "--workers", 2)
        listener.wait_for(lambda: len({device for device, _, _ in listener.events()}) == 4)
        workers = workers_of(process.pid)
        os.kill(broker.pid, signal.SIGSTOP)
        try:
            process.send_signal(signal.SIGINT)
            wait_until(lambda: not handles(process.pid, signal.SIGTERM))
            process.send_signal(signal.SIGINT)
            ended = finish(process)
            wait_until(lambda: not any(alive(pid) for pid in workers))
        finally:
            os.kill(broker.pid, signal.SIGCONT)
    assert ended.code != 0
    assert ended.out == ""
    assert "Traceback" not in ended.err


def test_a_worker_that_dies_is_told(broker: Mosquitto) -> None:
    """The others end in good order, and what is known is counted."""
    with listening(broker) as listener:
        process = start("--broker", broker.url, "--devices", 4, "--rate", 20, "--workers", 2)
        listener.wait_for(lambda: len({device for device, _, _ in listener.events()}) == 4)
        os.kill(workers_of(process.pid)[1], signal.SIGKILL)
        ended = finish(process)
        listener.wait_for(lambda: [*listener.states().values()] == ["offline"] * 4)
    assert ended.code == 1
    assert numbers(ended)["published"] > 0
    assert ended.err.endswith("amber: worker 2 ended by itself (signal 9): what it had not reported is not counted\n")


def test_no_worker_outlives_the_simulation(broker: Mosquitto, tmp_path: Path) -> None:
    """After a kill -9 the next simulation on the same outbox finds it free, and sends what is left."""
    options = ["--broker", broker.url, "--devices", 4, "--rate", 50, "--workers", 2, "--outbox", tmp_path / "outbox.db"]
    with listening(broker) as listener:
        process = start(*options)
        listener.wait_for(lambda: len({device for device, _, _ in listener.events()}) == 4)
        workers = workers_of(process.pid)
        process.kill()
        finish(process)
        wait_until(lambda: not any(alive(pid) for pid in workers))
        ended = simulate(*options, "--duration", "0.5s")
    assert (ended.code, ended.err) == (0, "")
    assert numbers(ended)["published"] >= 100


def alive(pid: int) -> bool:
    with suppress(OSError):
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    return False


def test_what_was_left_with_some_workers_is_sent_by_any_other_number(tmp_path: Path) -> None:
    port = _free_port()
    options = ["--broker", f"mqtt://127.0.0.1:{port}", "--outbox", tmp_path / "outbox.db", "--devices", 5, "--rate", 20]
    fleet = Fleet(groups=of_models([*MODELS], devices=5, rate=20.0, qos=1), start_us=0, seed="1", duration_s=0.5)
    with pytest.raises(DeviceError, match="no device could connect"):
        play(fleet, Run(Address("127.0.0.1", port), outbox=tmp_path / "outbox.db", workers=3, grace_s=0.2))
    with Mosquitto(tmp_path / "broker", port=port) as broker, listening(broker) as listener:
        ended = simulate(*options, "--workers", 2, "--duration", "0.5s")
        listener.wait_for(lambda: len(listener.events()) == 100)
    assert (ended.code, ended.err) == (0, "")
    assert numbers(ended).items() >= {"published": 100, "acknowledged": 100, "failed": 0}.items()


def test_the_error_of_one_is_the_error_of_all() -> None:
    ended = simulate("--broker", "mqtt://127.0.0.1:1", "--connect-timeout", "1s", "--workers", 2)
    assert (ended.code, ended.out) == (1, "")
    assert ended.err == "amber: no device could connect to mqtt://127.0.0.1:1 within 1 s: Connection refused\n"


def test_the_open_files_of_each_worker_are_enough(broker: Mosquitto) -> None:
    """Half of the devices, and a little: the limit is for one process."""
    shell = ["sh", "-c", 'ulimit -n 100; exec "$@"', "sh"]
    options = ["--broker", broker.url, "--devices", 60, "--rate", 20, "--duration", "0.5s"]
    alone = subprocess.run([*shell, *command(*options)], capture_output=True, text=True, check=False)
    shared = subprocess.run([*shell, *command(*options, "--workers", 2)], capture_output=True, text=True, check=False)
    assert "this needs 124 open files, and the system allows 100" in alone.stderr
    assert "acknowledged 600 " in shared.stdout
