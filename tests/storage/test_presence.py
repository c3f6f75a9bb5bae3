"""Claims about devices: what counts as being there, what is counted of each, and what an exchange does to it."""

from __future__ import annotations

import contextlib
import csv
import io
import json
from pathlib import Path

import pytest

from storage.event import EVENTS_PER_MESSAGE, Entry, Event, Kind, Rejection, Value
from storage.filters import Filters
from storage.history import Reader, StoredDevice
from storage.snapshot import OpenLog
from storage.summaries.past import COLUMNS, NotedRows
from storage.summaries.presence import Noting, told
from storage.times import iso
from tests.storage.histories import NOON, History
from tests.storage.lives import HOUR, SECOND, keep, measured, said
from tests.storage.test_append import rows
from tests.storage.test_latest import amber, drop_first_segment

JOINED = f"m.id = e.id / {EVENTS_PER_MESSAGE}"


def word(n: float, text: Value, device: str = "pump") -> Event:
    return measured(device, n, {"state": text}, kind="availability")


def value(n: float, device: str = "pump") -> Event:
    return measured(device, n, {"t": 1})


def pump(history: History, *entries: Entry, device: str = "pump") -> StoredDevice:
    """The device as a reader tells it alone, and as it tells it after a keeper: the same."""
    history.append(entries)
    with Reader(history.path) as reader:
        (alone,) = reader.devices(Filters(devices=(device,)))
        keep(history.path)
        (kept,) = reader.devices(Filters(devices=(device,)))
    assert alone == kept
    return kept


@pytest.mark.parametrize(
    ("kind", "readings", "online"),
    [
        ("birth", {}, True),
        ("birth", {"t": 1}, True),
        ("death", {"bdSeq": 7}, False),
        ("availability", {"state": "online"}, True),
        ("availability", {"LWT": "Offline"}, False),
        ("availability", {"state": "OFFLINE"}, False),
        ("availability", {"$state": "ready"}, True),
        ("availability", {"$state": "lost"}, False),
        ("availability", {"$state": "sleeping"}, True),
        ("availability", {"$online": False}, False),
        ("availability", {"value": False, "status": "Dead"}, False),
        ("availability", {"value": True, "status": "Alive"}, True),
        ("availability", {"status.reachable": 0}, False),
        ("availability", {"reachable": 1}, True),
        ("availability", {"stats.device": "offline"}, False),
        ("availability", {"connected": True, "type": "heating"}, True),
        ("availability", {"state": "connected", "id": "c44f", "mqtt": "openevse"}, True),
        ("availability", {"available": "stopped"}, False),
        ("availability", {"alive": "yes"}, True),
        ("availability", {"online": "0"}, False),
        ("availability", {"link": 1, "running": 3}, True),
        ("availability", {"online": False, "tst": 1_795_300_000}, False),
        ("availability", {"Ac.Power": None}, False),
        # They tell nothing of this kind.
        ("availability", {}, None),
        ("availability", {"heartbeat": 1_752_580_800}, None),
        ("availability", {"IsCyclic": False, "Status": 2}, None),
        ("availability", {"status": 1}, None),
        ("availability", {"online": 7}, None),
        ("availability", {"online": 1.0}, None),
        ("measurement", {"online": False}, None),
        ("state", {"state": "offline"}, None),
        ("command", {"state": "offline"}, None),
    ],
)
def test_words_that_tell_whether_a_device_is_there(
    *, kind: str, readings: dict[str, Value], online: bool | None
) -> None:
    assert told(kind, readings) is online


def test_a_device_is_counted_with_its_first_and_its_newest_event(new_history: History) -> None:
    new_history.append([said(1, value(0)), said(2, value(-HOUR / SECOND), value(2))])
    newest = measured("pump", 1, {"on": True}, kind="state", format="senml")
    assert pump(new_history, said(3, newest)) == StoredDevice(
        device="pump",
        online=None,
        online_since=None,
        events=4,
        readings=2,
        format="senml",
        first_received_at=NOON + SECOND,
        last_position=30_000,
        last_kind="state",
        last_observed_at=NOON + SECOND,
        last_received_at=NOON + 3 * SECOND,
    )


@pytest.mark.parametrize(
    ("entries", "online", "since"),
    [
        ([said(1, value(1))], None, None),
        ([said(1, word(1, "online"))], True, 1),
        ([said(1, word(1, "online")), said(2, word(2, "online")), said(3, value(3))], True, 1),
        ([said(1, word(1, "online")), said(2, word(2, "offline"))], False, 2),
        ([said(1, word(1, "online")), said(2, word(2, "offline")), said(3, word(3, "online"))], True, 3),
        ([said(1, word(1, "offline")), said(2, value(2)), said(3, value(3))], True, 2),
        # A late burst is a sign of life as well; what the broker has kept is not, nor what the device is told.
        ([said(1, word(1, "offline")), said(9, value(-100))], True, 9),
        ([said(1, word(1, "offline")), said(2, value(2), retain=True)], False, 1),
        ([said(1, word(1, "offline")), said(2, value(2), retain=True), said(3, value(3))], True, 3),
        ([said(1, word(1, "offline")), said(2, measured("pump", 2, {"t": 1}, kind="command"))], False, 1),
        # By the time that a word speaks of.
        ([said(5, word(5, "online")), said(6, word(3, "offline"), retain=True)], True, 5),
        # A will bears the time of its connection's beginning.
        ([said(5, word(5, "online")), said(6, word(3, "offline"))], False, 6),
        ([said(5, word(5, "offline")), said(6, word(3, "online"))], False, 5),
        # The will is delivered again: it is as good as new.
        ([said(1, word(1, "offline")), said(2, value(2)), said(3, word(3, "offline"), retain=True)], False, 3),
        ([said(2, word(2, "offline")), said(1, value(1), at=NOON + SECOND)], False, 2),
    ],
)
def test_a_device_is_what_it_last_said_or_back_when_it_speaks(
    *, new_history: History, entries: list[Entry], online: bool | None, since: int | None
) -> None:
    """The same whether all comes at once, or a keeper writes after each message."""
    for device in ("pump", "lamp"):
        renamed = [
            (message, [Event(device, e.kind, e.format, e.observed_at, e.readings) for e in events])  # type: ignore[union-attr]
            for message, events in entries
        ]
        found = None
        for group in [renamed] if device == "pump" else [[entry] for entry in renamed]:
            found = pump(new_history, *group, device=device)
        assert found
        assert (found.online, found.online_since) == (online, None if since is None else NOON + since * SECOND)


def test_a_device_that_says_all_the_time_that_it_is_online_costs_no_memory(new_history: History) -> None:
    talk = [said(n, word(n, "online" if n != 50 else "offline")) for n in range(1, 300)]
    new_history.append(talk)
    with contextlib.closing(OpenLog(new_history.path)) as log:
        noting = Noting(log)
        noting.note(NotedRows(log)(log.rows(f"SELECT {COLUMNS} FROM events_1 AS e JOIN messages_1 AS m ON {JOINED}")))
    ((_, heard),) = noting.items()
    assert len(heard.words) < 40
    found = pump(new_history)
    assert (found.online, found.online_since, found.events) == (True, NOON + 51 * SECOND, 299)


def test_a_device_whose_events_have_all_gone_to_another_name_is_not_listed(new_history: History) -> None:
    new_history.append([said(n, value(n)) for n in range(1, 4)])
    keep(new_history.path)
    new_history.replace([(n, [value(n, "lamp")]) for n in range(1, 4)])
    keep(new_history.path)
    with Reader(new_history.path) as reader:
        assert [(one.device, one.events) for one in reader.devices()] == [("lamp", 3)]
    new_history.append([said(4, value(4))])
    assert pump(new_history).events == 1


def test_an_exchange_counts_anew(new_history: History) -> None:
    new_history.append([said(n, value(n)) for n in range(1, 6)])
    keep(new_history.path)
    new_history.replace([(1, Rejection("no")), (2, [value(2), value(2)]), (5, [value(5, "lamp")])])
    keep(new_history.path)
    found = pump(new_history)
    assert (found.events, found.first_received_at, found.last_position) == (4, NOON + 2 * SECOND, 40_000)


@pytest.mark.parametrize(
    ("message_id", "becomes", "online", "since"),
    [
        (2, [value(2)], True, 1),
        (2, [word(2, "online")], True, 1),
        (2, [], True, 1),
        (1, [word(1, "offline")], False, 2),
        (3, [word(3, "online")], True, 3),
        (3, [value(3)], True, 3),
    ],
)
def test_an_exchange_may_change_whether_a_device_is_there(
    *, new_history: History, message_id: int, becomes: list[Event], online: bool, since: int
) -> None:
    command: Kind = "command"
    new_history.append([said(1, word(1, "online")), said(2, word(2, "offline"))])
    new_history.append([said(3, measured("pump", 3, {}, kind=command))])
    keep(new_history.path)
    new_history.replace([(message_id, becomes)])
    keep(new_history.path)
    found = pump(new_history)
    assert (found.online, found.online_since) == (online, NOON + since * SECOND)


def test_after_an_exchange_a_device_may_still_come_back(new_history: History) -> None:
    new_history.append([said(1, word(1, "on-line"))])
    keep(new_history.path)
    new_history.replace([(1, [word(1, "offline")])])
    keep(new_history.path)
    assert pump(new_history, said(2, value(2))).online is True


def test_the_first_sign_of_life_counts_in_whatever_order_its_hours_are_corrected(
    new_history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage.summaries.keeping.CORRECTED_HOURS", 1)
    away = measured("pump", 1, {}, kind="death")
    new_history.append([said(1, away), said(2), said(3), said(4, value(4, "lamp"))])
    keep(new_history.path)
    new_history.replace([(2, [value(2 + 7_200)]), (3, [value(3)])])
    keep(new_history.path)
    with Reader(new_history.path) as reader:
        found = {one.device: one for one in reader.devices()}["pump"]
    assert (found.online, found.online_since) == (True, NOON + 2 * SECOND)


def test_what_retention_has_dropped_stays_counted(tmp_path: Path) -> None:
    with History(tmp_path / "amber.db", segment_events=5) as history:
        for n in range(1, 41):
            history.append([said(n, value(n) if n > 1 else word(1, "online"))])
        history.append([said(41, value(41, "lamp"))])
        keep(history.path)
        history.writer.submit(drop_first_segment).result()
        history.replace([(40, Rejection("no")), (41, Rejection("no"))])
        keep(history.path)
        found = pump(history)
        assert (found.events, found.first_received_at) == (39, NOON + SECOND)
        assert (found.last_position, found.online) == (390_000, True)
        with Reader(history.path) as reader:
            assert [one.device for one in reader.devices()] == ["pump"]


def test_a_device_stays_listed_when_retention_has_dropped_all_it_had(tmp_path: Path) -> None:
    with History(tmp_path / "amber.db", segment_events=5) as history:
        history.append([said(1, value(1, "lamp"))])
        for n in range(2, 30):
            history.append([said(n, value(n))])
        keep(history.path)
        history.writer.submit(drop_first_segment).result()
        with Reader(history.path) as reader:
            assert [one.device for one in reader.devices()] == ["lamp", "pump"]


def test_many_devices_are_read_in_blocks_and_chosen_by_name(
    new_history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage.summaries.presence.DEVICES_A_READ", 30)
    names = [f"d{number}" for number in range(250)]
    new_history.append([said(1, value(1, name)) for name in names])
    for _ in range(2):
        with Reader(new_history.path) as reader:
            assert [device.device for device in reader.devices()] == sorted(names)
            assert [device.device for device in reader.devices(Filters(devices=("d2?9",)))] == [
                f"d2{n}9" for n in range(5)
            ]
        keep(new_history.path)
    assert rows(new_history.path, "SELECT count(*), sum(events) FROM presence") == [(250, 250)]


@pytest.mark.parametrize("filters", [Filters(readings=("t",)), Filters(since=1), Filters(topics=("#",))])
def test_what_devices_cannot_be_chosen_by_is_refused(new_history: History, filters: Filters) -> None:
    with Reader(new_history.path) as reader, pytest.raises(ValueError, match="cannot be chosen"):
        next(reader.devices(filters))


def test_devices_prints_each(new_history: History) -> None:
    new_history.append([said(1, word(1, "online"), value(1, "lamp"), word(1, "offline", "\x1bdoor"))])
    new_history.append([said(2, value(2), retain=True)])

    def lines(*options: str) -> list[str]:
        shown = amber("devices", *options, store=new_history.path)
        assert shown.exit_code == 0
        return shown.stdout.splitlines()

    for _ in range(2):
        (found,) = map(json.loads, lines("--format", "jsonl", "--device", "pump"))
        assert found == {
            "device": "pump",
            "last_position": 20_000,
            "last_kind": "measurement",
            "last_observed_at": iso(NOON + 2 * SECOND),
            "last_received_at": iso(NOON + 2 * SECOND),
            "online": True,
            "online_since": iso(NOON + SECOND),
            "events": 2,
            "readings": 2,
            "format": "json",
            "first_received_at": iso(NOON + SECOND),
        }
        assert [json.loads(line)["device"] for line in lines("--format", "jsonl", "--offline")] == ["\x1bdoor"]
        records = list(csv.DictReader(io.StringIO("\n".join(lines("--format", "csv")))))
        assert [record["online"] for record in records] == ["false", "", "true"]
        assert [line.split()[:2] for line in lines()] == [
            *(["device", "online"], ["\\x1bdoor", "no"], ["lamp", "-"], ["pump", "yes"])
        ]
        keep(new_history.path)
