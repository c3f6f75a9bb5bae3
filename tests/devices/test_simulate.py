"""`amber simulate` against a real broker, seen by a listener that shares no code with it."""

from __future__ import annotations

import signal
from pathlib import Path

import msgspec
import pytest

from devices.address import Address
from devices.broker import Mosquitto
from devices.errors import DeviceError
from devices.fleet import Fleet, of_models
from devices.ledger import accounts
from devices.simulation import Run
from devices.simulation import simulate as play
from tests.devices.outside import finish, listening, numbers, simulate, start


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_every_event_published_arrives(broker: Mosquitto, qos: int) -> None:
    """Twenty devices at 20/s for 1 s are 400 events, whatever their phases."""
    with listening(broker) as listener:
        ended = simulate("--broker", broker.url, "--devices", 20, "--rate", 20, "--qos", qos, "--duration", "1s")
        listener.wait_for(lambda: len(listener.events()) == 400 and len(listener.heard) == 440)
    assert (ended.code, ended.err) == (0, "")
    acknowledged = 400 if qos else 0
    assert numbers(ended).items() >= {"published": 400, "acknowledged": acknowledged, "failed": 0}.items()
    assert numbers(ended).items() >= {"statuses": 40, "devices": 20}.items()
    assert {message.qos for message in listener.telemetry()} == {qos}
    for device in {device for device, _, _ in listener.events()}:
        assert [message.content["seq"] for message in listener.telemetry() if f"/{device}/" in message.topic] == [
            *range(20)
        ]


def test_the_same_seed_and_start_publish_the_same_bytes(broker: Mosquitto) -> None:
    twice = []
    for name in ("first", "second"):
        with listening(broker, name=name) as listener:
            simulate(
                "--broker", broker.url, "--devices", 4, "--rate", 40, "--duration", 0.5,
                "--seed", 7, "--start", "2026-11-22T09:00:00Z",
            )  # fmt: skip
            listener.wait_for(lambda: len(listener.telemetry()) == 80)
            twice.append(sorted(listener.telemetry()))
    assert twice[0] == twice[1]


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_in_good_order(broker: Mosquitto, sign: signal.Signals) -> None:
    """All is acknowledged, every device has said goodbye itself, and the broker keeps that."""
    with listening(broker) as listener:
        process = start("--broker", broker.url, "--devices", 5, "--rate", 20)
        listener.wait_for(lambda: len({device for device, _, _ in listener.events()}) == 5)
        assert set(listener.states().values()) == {"online"}
        process.send_signal(sign)
        ended = finish(process)
        listener.wait_for(lambda: [*listener.states().values()] == ["offline"] * 5)
    assert (ended.code, ended.err) == (0, "")
    told = numbers(ended)
    assert told["published"] == told["acknowledged"] == len(listener.events()) == len(listener.telemetry())
    assert told["failed"] == 0
    assert len(listener.heard) - len(listener.telemetry()) == told["statuses"] == 10  # and so no will

    with listening(broker, name="late", also_retained=True) as late:
        late.wait_for(lambda: len(late.heard) == 5)
        assert all(message.retain for message in late.heard)
        assert set(late.states().values()) == {"offline"}


def test_a_killed_device_is_reported_offline_by_its_will(broker: Mosquitto) -> None:
    with listening(broker) as listener:
        process = start("--broker", broker.url, "--devices", 5, "--rate", 5)
        listener.wait_for(lambda: [*listener.states().values()] == ["online"] * 5)
        process.kill()
        finish(process)
        listener.wait_for(lambda: [*listener.states().values()] == ["offline"] * 5)

    with listening(broker, name="late", also_retained=True) as late:
        late.wait_for(lambda: [*late.states().values()] == ["offline"] * 5)


@pytest.mark.parametrize("qos", [1, 2])
def test_events_outlive_a_restart_of_the_broker(broker: Mosquitto, tmp_path: Path, qos: int) -> None:
    """What was measured while it was away comes afterwards: none missing, and all acknowledged that arrived."""
    path = tmp_path / "ledger.jsonl"
    with listening(broker) as listener:
        process = start("--broker", broker.url, "--devices", 10, "--rate", 50, "--qos", qos, "--ledger", path)
        listener.wait_for(lambda: len(listener.events()) > 500)
        broker.stop()
        broker.start()
        listener.wait_for(lambda: list(listener.states().values()).count("online") == 10)
        seen = len(listener.events())
        listener.wait_for(lambda: len(listener.events()) > seen + 500)
        process.send_signal(signal.SIGINT)
        ended = finish(process)
        told = numbers(ended)
        listener.wait_for(lambda: len(listener.events()) == told["acknowledged"])
    assert ended.code == 0
    assert told["published"] == told["acknowledged"]
    assert told["failed"] == 0
    acked = {(*who, seq) for who, account in accounts(path).items() for seq in account.acked}
    assert acked == listener.events()
    for account in accounts(path).values():
        assert account.sent == account.acked == set(range(len(account.sent)))


def test_the_ledger_agrees_with_what_a_listener_heard(broker: Mosquitto, tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    with listening(broker) as listener:
        ended = simulate("--broker", broker.url, "--devices", 10, "--rate", 40, "--duration", "0.5s", "--ledger", path)
        listener.wait_for(lambda: len(listener.events()) == 200)
    assert numbers(ended)["acknowledged"] == 200
    booked = accounts(path)
    assert {(*who, seq) for who, account in booked.items() for seq in account.sent} == listener.events()
    assert all(account.sent == account.acked for account in booked.values())


@pytest.mark.parametrize(("qos", "client"), [(0, "codec"), (1, "codec"), (1, "aiomqtt")])
def test_a_killed_simulation_has_sent_nothing_that_is_not_in_its_ledger(
    broker: Mosquitto, tmp_path: Path, qos: int, client: str
) -> None:
    path = tmp_path / "ledger.jsonl"
    with listening(broker) as listener:
        options = ["--devices", 10, "--rate", 100, "--qos", qos, "--client", client, "--ledger", path]
        process = start("--broker", broker.url, *options)
        listener.wait_for(lambda: len(listener.events()) > 300)
        process.kill()
        finish(process)
        listener.wait_for(lambda: [*listener.states().values()] == ["offline"] * 10)  # the wills come last
    booked = {(*who, seq) for who, account in accounts(path).items() for seq in account.sent}
    assert listener.events() <= booked


def test_at_qos_0_the_ledger_claims_no_acknowledgement(broker: Mosquitto, tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    simulate("--broker", broker.url, "--devices", 2, "--rate", 20, "--qos", 0, "--duration", "0.5s", "--ledger", path)
    assert [len(account.sent) for account in accounts(path).values()] == [10, 10]
    assert not any(account.acked for account in accounts(path).values())


@pytest.mark.parametrize("qos", [1, 2])
def test_what_the_broker_refuses_has_failed(tmp_path: Path, qos: int) -> None:
    """MQTT 5 says "not authorized" within the acknowledgement, where aiomqtt does not look."""
    acl = tmp_path / "acl"
    acl.write_text("topic write devices/thermo-0001/telemetry\ntopic write devices/+/status\n")
    with Mosquitto(tmp_path / "broker", extra=f"acl_file {acl}\n") as broker:
        ended = simulate(
            "--broker", broker.url, "--devices", 2, "--models", "thermometer",
            "--rate", 20, "--duration", "0.5s", "--qos", qos, "--ledger", tmp_path / "ledger.jsonl",
        )  # fmt: skip
    assert numbers(ended).items() >= {"published": 20, "acknowledged": 10, "failed": 10}.items()
    assert ended.err == "amber: 10 messages failed: devices/thermo-0002/telemetry refused: Not authorized\n"
    acked = {device: len(account.acked) for (device, _), account in accounts(tmp_path / "ledger.jsonl").items()}
    assert acked == {"thermo-0001": 10, "thermo-0002": 0}


def test_two_hundred_devices_share_one_process(broker: Mosquitto) -> None:
    with listening(broker) as listener:
        ended = simulate("--broker", broker.url, "--devices", 200, "--rate", 2, "--duration", "2s")
        listener.wait_for(lambda: len(listener.events()) == 800)
    assert numbers(ended).items() >= {"published": 800, "acknowledged": 800, "failed": 0, "statuses": 400}.items()
    assert broker.log().count(" as amber-device-") == 200  # each connected once


def test_a_persistent_session_is_not_for_every_client() -> None:
    """The packet ids of an earlier connection are unknown to aiomqtt: new messages would be taken for old ones."""
    (group,) = of_models(("door",), devices=1, rate=1.0, qos=1)
    fleet = Fleet(groups=(msgspec.structs.replace(group, session="persistent"),), start_us=0, seed="1")
    run = Run(address=Address("127.0.0.1", 1), client="aiomqtt")
    with pytest.raises(DeviceError, match="--client aiomqtt has clean sessions only"):
        play(fleet, run)
