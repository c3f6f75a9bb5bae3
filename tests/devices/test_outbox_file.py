"""The durable outbox: what is kept is kept, whatever happens to the process; and the file is nobody else's."""

from __future__ import annotations

import asyncio
import resource
import signal
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from devices import cli
from devices.address import parse_address
from devices.broker import Mosquitto, _free_port
from devices.errors import DeviceError
from devices.fleet import Device, Fleet, asking_for_receipts, devices, of_models
from devices.ledger import accounts, read
from devices.outbox import Held
from devices.outbox_file import Claim, OutboxFile
from devices.outgoing import Outgoing, Publication
from devices.simulation import Run
from devices.simulation import simulate as play
from tests.devices.outside import finish, listening, numbers, simulate, start

FLEET = Fleet(groups=of_models(("thermometer",), devices=2, rate=1.0, qos=1), start_us=0, seed="1")
DEVICES: list[Device] = list(devices(FLEET))
MESSAGES = [
    Outgoing("5f3a", seq, seq, seq, Publication("t", b"\xff\x00", user=(("a", "b"),)), faults=("spike",))
    for seq in range(10)
]


def waiting(path: Path) -> int:
    """How many messages wait in a file that nobody uses."""
    with sqlite3.connect(path) as connection:
        (count,) = connection.execute("SELECT count(*) FROM messages").fetchone()
    connection.close()
    return int(count)


def kept(path: Path, messages: list[Outgoing], device: Device = DEVICES[0]) -> list[Held]:
    """Keep messages of a device, and return when they are on disk."""

    async def keep() -> list[Held]:
        with Claim(path) as claim, OutboxFile(claim) as outbox:
            outbox.start()
            shelf, done, told = outbox.shelf(device), asyncio.Event(), list[Held]()

            def hear(held: Held) -> None:
                assert threading.current_thread() is threading.main_thread()
                told.append(held)
                if len(told) == len(messages):
                    done.set()

            for message in messages:
                assert shelf.keep(Held(message), hear)
            await asyncio.wait_for(done.wait(), 5)
            return told

    return asyncio.run(keep())


def test_what_is_kept_comes_back_whole_and_in_order(tmp_path: Path) -> None:
    told = kept(tmp_path / "outbox.db", MESSAGES)
    assert [held.message for held in told] == MESSAGES
    with Claim(tmp_path / "outbox.db") as claim, OutboxFile(claim) as outbox:
        (left,) = outbox.left()
    assert (left.device, left.qos, left.receipts) == ("thermo-0001", 1, False)
    assert [held.message for held in left.held] == MESSAGES


def test_what_is_dropped_is_gone(tmp_path: Path) -> None:
    kept(tmp_path / "outbox.db", MESSAGES)

    async def drop() -> None:
        with Claim(tmp_path / "outbox.db") as claim, OutboxFile(claim) as outbox:
            left = outbox.left()
            outbox.start()
            for held in left[0].held[:4]:
                outbox.drop(held)

    asyncio.run(drop())
    assert waiting(tmp_path / "outbox.db") == 6


def test_a_full_file_refuses_and_has_room_again_when_something_is_settled(tmp_path: Path) -> None:
    async def keep() -> None:
        with Claim(tmp_path / "outbox.db") as claim, OutboxFile(claim, limit=2) as outbox:
            outbox.start()
            first, *others = [Held(message) for message in MESSAGES[:4]]
            shelf = outbox.shelf(DEVICES[0])
            assert [shelf.keep(held, lambda _: None) for held in (first, *others)] == [True, True, False, False]
            assert outbox.trouble == f"the outbox {tmp_path / 'outbox.db'} is full"
            shelf.drop(first)
            assert shelf.keep(others[1], lambda _: None)

    asyncio.run(keep())
    assert waiting(tmp_path / "outbox.db") == 2


@contextmanager
def no_room() -> Iterator[None]:
    """As on a full disk: no file grows beyond what the outbox has."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8_192, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def soon(claim: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not claim():
            await asyncio.sleep(0.01)


def test_a_full_disk_refuses_what_is_new_and_ends_nothing(tmp_path: Path) -> None:
    """What was begun to be kept is kept when there is room again, and told only then."""
    large = [Outgoing("5f3a", n, n, n, Publication("t", b"x" * 20_000)) for n in range(4)]

    async def keep() -> None:
        with Claim(tmp_path / "outbox.db") as claim, OutboxFile(claim) as outbox:
            failure, told = outbox.start(), list[int]()
            shelf = outbox.shelf(DEVICES[0])

            def keep(message: Outgoing) -> bool:
                return shelf.keep(Held(message), lambda held: told.append(held.message.seq))

            with no_room():
                assert keep(large[0])
                await soon(lambda: outbox.trouble != "")
                assert "cannot write the outbox" in outbox.trouble
                assert not keep(large[1])
            await soon(lambda: told == [0])
            assert outbox.trouble == ""
            assert keep(large[2])
            await soon(lambda: told == [0, 2])
            assert not failure.done()
            assert outbox.lost == 0

    asyncio.run(keep())
    assert waiting(tmp_path / "outbox.db") == 2


def test_what_found_no_room_to_the_end_is_lost_and_counted(tmp_path: Path) -> None:
    async def keep() -> OutboxFile:
        with Claim(tmp_path / "outbox.db") as claim, OutboxFile(claim) as outbox:
            outbox.start()
            shelf = outbox.shelf(DEVICES[0])
            resource.setrlimit(resource.RLIMIT_FSIZE, (8_192, before[1]))
            assert shelf.keep(Held(Outgoing("5f3a", 0, 0, 0, Publication("t", b"x" * 20_000))), lambda _: None)
            await soon(lambda: outbox.trouble != "")
        return outbox

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        assert asyncio.run(keep()).lost == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert waiting(tmp_path / "outbox.db") == 0


@pytest.mark.parametrize("replaced", [False, True])
def test_a_file_that_is_taken_away_ends_the_simulation(broker: Mosquitto, tmp_path: Path, replaced: bool) -> None:  # noqa: FBT001
    """What would be kept there now, nobody would ever find: it is not sent as if it were safe."""
    path = tmp_path / "outbox.db"
    with listening(broker) as listener:
        process = start("--broker", broker.url, "--devices", 2, "--rate", 20, "--outbox", path)
        listener.wait_for(lambda: len(listener.events()) > 10)
        path.rename(tmp_path / "elsewhere.db")
        if replaced:
            path.touch()
        ended = finish(process)
    assert (ended.code, ended.out) == (1, "")
    assert ended.err == f"amber: the outbox {path} was deleted or replaced: what waited in it is lost\n"


def test_one_file_cannot_be_ledger_and_outbox(tmp_path: Path) -> None:
    path = tmp_path / "both"
    ended = simulate("--outbox", path, "--ledger", path)
    assert (ended.code, ended.err.count("\n")) == (1, 1)
    assert "cannot be the ledger and the outbox" in ended.err
    assert not path.exists()


def foreign(path: Path) -> None:
    path.write_text("This is a shopping list, and long enough to be no empty database.\n" * 20)


def another(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE customers (name TEXT)")
    connection.close()


def damaged(path: Path) -> None:
    kept(path, [Outgoing("5f3a", n, n, n, Publication("t", b"x" * 500)) for n in range(200)])
    content = bytearray(path.read_bytes())
    content[4096 + 8 : 4096 + 200] = b"\xa5" * 192
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("make", "words"), [(foreign, "is not an outbox"), (another, "is not an outbox"), (damaged, "is damaged")]
)
def test_a_file_that_is_no_sound_outbox_is_one_line_and_exit_code_1(
    make: Callable[[Path], None], words: str, tmp_path: Path
) -> None:
    path = tmp_path / "outbox.db"
    make(path)
    before = path.read_bytes()
    ended = simulate("--broker", "mqtt://127.0.0.1:1", "--connect-timeout", "1s", "--outbox", path)
    assert (ended.code, ended.out) == (1, "")
    assert ended.err.startswith("amber: ")
    assert words in ended.err
    assert ended.err.count("\n") == 1
    assert path.read_bytes() == before


def test_a_folder_that_is_not_there_is_one_line_and_exit_code_1(tmp_path: Path) -> None:
    ended = simulate("--outbox", tmp_path / "none" / "outbox.db")
    assert (ended.code, ended.err.count("\n")) == (1, 1)
    assert "cannot open the outbox" in ended.err


def test_a_second_simulation_on_the_same_file_is_refused(broker: Mosquitto, tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    with listening(broker) as listener:
        first = start("--broker", broker.url, "--devices", 1, "--outbox", path)
        listener.wait_for(lambda: len(listener.events()) > 0)
        with pytest.raises(DeviceError, match="is in use by another simulation"):
            Claim(path, patience_s=0)
        first.send_signal(signal.SIGINT)
        assert finish(first).code == 0


def test_what_a_killed_simulation_had_not_settled_comes_first_under_its_old_identity(tmp_path: Path) -> None:
    """The broker is away while the first one measures; the second has other devices, and one of the same name."""
    path, ledger = tmp_path / "outbox.db", tmp_path / "ledger.jsonl"
    port = _free_port()
    options = ["--broker", f"mqtt://127.0.0.1:{port}", "--models", "thermometer", "--outbox", path]
    first = start(*options, "--devices", 3, "--rate", 50, "--connect-timeout", "60s")
    wait_until(lambda: path.exists() and count_beside(path) >= 60)
    first.kill()
    finish(first)
    left = waiting(path)
    assert left >= 60

    with Mosquitto(tmp_path / "broker", port=port) as broker, listening(broker) as listener:
        ended = simulate(*options, "--devices", 1, "--rate", 5, "--duration", "1s", "--ledger", ledger)
        listener.wait_for(lambda: len(listener.events()) == left + 5)
    assert (ended.code, ended.err) == (0, "")
    assert numbers(ended).items() >= {"published": left + 5, "acknowledged": left + 5, "failed": 0}.items()
    assert waiting(path) == 0
    boots = {device: [boot for name, boot in accounts(ledger) if name == device] for device, _ in accounts(ledger)}
    assert {device: len(boots) for device, boots in boots.items()} == {
        "thermo-0001": 2, "thermo-0002": 1, "thermo-0003": 1,
    }  # fmt: skip
    sent = [record for record in read(ledger) if record.device == "thermo-0001" and record.state == "sent"]
    old, new = list(dict.fromkeys(record.boot for record in sent))
    assert [record.boot for record in sent] == [old] * (len(sent) - 5) + [new] * 5
    assert [record.seq for record in sent] == [*range(len(sent) - 5), *range(5)]


def test_whatever_was_measured_arrives_though_the_simulation_is_killed_again_and_again(
    broker: Mosquitto, tmp_path: Path
) -> None:
    """Each start is a boot of its own: no sequence number is missing below the last one of it that arrived."""
    options = ["--broker", broker.url, "--devices", 4, "--rate", 100, "--outbox", tmp_path / "outbox.db"]
    with listening(broker) as listener:
        for kills in range(1, 4):
            process = start(*options)
            listener.wait_for(lambda: len(listener.events()) >= 150 * kills)  # noqa: B023
            process.kill()
            finish(process)
        ended = simulate(*options, "--duration", "0.5s")
        assert (ended.code, ended.err) == (0, "")
        listener.wait_for(lambda: len([*listener.states().values()]) == 4)
        seqs: dict[tuple[str, str], set[int]] = {}
        for device, boot, seq in listener.events():
            seqs.setdefault((device, boot), set()).add(seq)
    assert waiting(tmp_path / "outbox.db") == 0
    assert len({boot for _, boot in seqs}) == 16
    assert all(found == set(range(len(found))) for found in seqs.values())


def test_a_stand_in_ends_with_the_fleet_though_nobody_answers(broker: Mosquitto, tmp_path: Path) -> None:
    """What was to get a receipt still is, and no gateway is there to give one."""
    path = tmp_path / "outbox.db"
    kept(path, MESSAGES, next(devices(asking_for_receipts(FLEET))))
    doors = Fleet(groups=of_models(("door",), devices=1, rate=1.0, qos=1), start_us=0, seed="2", duration_s=0.5)
    counts = play(doors, Run(parse_address(broker.url), outbox=path, grace_s=0.2))
    assert counts.published >= 10
    assert (counts.acknowledged, counts.failed, counts.left) == (counts.published, 0, 10)
    assert waiting(path) == 10


def test_what_is_left_at_the_end_is_told_and_what_found_no_room(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With nobody to send to, the oldest wait for the next run, and have not failed."""
    path = tmp_path / "outbox.db"
    with Mosquitto(tmp_path / "broker") as broker:
        fleet = Fleet(groups=of_models(("door",), devices=1, rate=100.0, qos=1), start_us=0, seed="1", duration_s=1.5)
        run = Run(parse_address(broker.url), outbox=path, outbox_limit=20, grace_s=0.2)

        def kill() -> None:
            wait_until(lambda: "amber-device" in broker.log())
            broker.kill()

        killing = threading.Thread(target=kill)
        killing.start()
        counts = play(fleet, run)
        killing.join()
    assert waiting(path) == counts.left == 20
    assert counts.acknowledged + counts.failed + 20 == 150
    assert counts.failure == f"the outbox {path} is full"
    cli._tell_what_is_open(counts, path)
    failed, left = capsys.readouterr().err.splitlines()[-2:]
    assert failed == f"amber: {counts.failed} messages failed: the outbox {path} is full"
    assert left == f"amber: 20 messages wait in the outbox {path} for the next run"


def wait_until(claim: Callable[[], bool], within_s: float = 20) -> None:
    async def poll() -> None:
        async with asyncio.timeout(within_s):
            while not claim():
                await asyncio.sleep(0.02)

    asyncio.run(poll())


def count_beside(path: Path) -> int:
    """How many messages a simulation that is running has there."""
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        (count,) = connection.execute("SELECT count(*) FROM messages").fetchone()
    except sqlite3.OperationalError:
        return 0
    finally:
        connection.close()
    return int(count)
