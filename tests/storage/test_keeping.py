"""Claims about the keeper: each event is summed up once, whatever is killed when, and exchanged ones are made good."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from random import Random

import pytest
from sqlalchemy import Connection

from storage.engine import sqlite
from storage.errors import StoreBusy, StoreError, StoreGone
from storage.snapshot import OpenLog
from storage.summaries import HOUR_US, Noted, SeriesIds, keeping
from storage.summaries.keeping import Keeper
from tests.storage.histories import NOON, History, entries, outcome
from tests.storage.test_append import rows


class Killed(BaseException):
    """The process ends here."""


class Tally:
    """Counts the events of each device: adding up what is there, so an event told twice would count twice."""

    name = "tally"
    flush_s = 0.0
    writes_until_killed: int | None = None

    def __init__(self, log: OpenLog) -> None:
        connection = sqlite.connect(log.path)
        connection.execute("CREATE TABLE IF NOT EXISTS tally (device_id PRIMARY KEY, position, events)")
        connection.close()
        self._waiting: Counter[int] = Counter()
        self.corrected: list[tuple[int, tuple[int, ...]]] = []

    def note(self, events: Sequence[Noted]) -> None:
        self._waiting.update(event.device_id for event in events)

    @property
    def pending(self) -> int:
        return len(self._waiting)

    def write(self, connection: Connection, position: int, rows: int) -> None:
        for device_id, events in list(self._waiting.items())[: max(rows // 1000, 1)]:
            connection.exec_driver_sql(
                "INSERT INTO tally VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET position = excluded.position,"
                " events = events + excluded.events WHERE excluded.position > position",
                (device_id, position, events),
            )
            del self._waiting[device_id]
        if Tally.writes_until_killed is not None:
            Tally.writes_until_killed -= 1
            if Tally.writes_until_killed < 0:
                raise Killed

    def correct(self, connection: Connection, device_id: int, hours: Sequence[int], position: int) -> None:
        assert not self._waiting
        self.corrected.append((device_id, tuple(hours)))
        segments = connection.exec_driver_sql("SELECT id FROM segments").scalars().all()
        events = sum(
            connection.exec_driver_sql(
                f"SELECT count(*) FROM events_{n} WHERE device_id = ? AND id <= ?", (device_id, position)
            ).scalar_one()
            for n in segments
        )
        connection.exec_driver_sql("DELETE FROM tally WHERE device_id = ?", (device_id,))
        if events:
            connection.exec_driver_sql("INSERT INTO tally VALUES (?, ?, ?)", (device_id, position, events))


@pytest.fixture(autouse=True)
def _unharmed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tally, "writes_until_killed", None)
    monkeypatch.setattr(keeping, "PAGE_EVENTS", 17)
    monkeypatch.setattr(keeping, "WRITTEN_ROWS", 3_000)


def counted(history: History) -> dict[str, int]:
    sql = "SELECT device, events FROM tally JOIN devices ON devices.id = device_id"
    return {str(device): int(str(events)) for device, events in rows(history.path, sql)}


def expected(history: History) -> dict[str, int]:
    return dict(Counter(event.device for event in history.events))


def test_each_event_is_summed_up_once(new_history: History) -> None:
    random = Random(1)
    with Keeper(new_history.path, [Tally]) as keeper:
        for number in range(0, 600, 60):
            new_history.append(entries(random, 60, number))
            keeper.catch_up()
            assert counted(new_history) == expected(new_history)
    name = rows(new_history.path, "SELECT name, kind, position, flushing_to FROM cursors")
    assert name == [("tally", "summary", new_history.position, None)]


@pytest.mark.parametrize("seed", range(5))
def test_a_keeper_killed_between_any_steps_counts_nothing_twice(new_history: History, seed: int) -> None:
    random, number, killed = Random(seed), 0, 0
    while killed < 8:
        new_history.append(entries(random, 40, number))
        number += 40
        Tally.writes_until_killed = random.randrange(12)
        try:
            with Keeper(new_history.path, [Tally]) as keeper:
                keeper.catch_up()
        except Killed:
            killed += 1
    Tally.writes_until_killed = None
    with Keeper(new_history.path, [Tally]) as keeper:
        keeper.catch_up()
    assert counted(new_history) == expected(new_history)


def test_a_killed_keeper_takes_up_what_has_lost_its_end_since(
    new_history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "PAGE_EVENTS", 1_000)
    new_history.append(entries(Random(2), 40))
    Tally.writes_until_killed = 1
    with Keeper(new_history.path, [Tally]) as keeper, pytest.raises(Killed):
        keeper.catch_up()
    Tally.writes_until_killed = None
    new_history.replace([(id, []) for id in range(30, 41)])
    with Keeper(new_history.path, [Tally]) as keeper:
        keeper.catch_up()
    assert counted(new_history) == expected(new_history)


def test_exchanged_events_are_corrected_for_the_hours_they_left_and_came_to(new_history: History) -> None:
    random = Random(3)
    new_history.append(entries(random, 300))
    with Keeper(new_history.path, [Tally]) as keeper:
        keeper.catch_up()
        new_history.append(entries(random, 50, 300))
        new_history.replace([(id, outcome(random, NOON + id * 1_000_000)) for id in range(1, 341, 3)])
        new_history.append(entries(random, 50, 350))
        keeper.catch_up()
        assert counted(new_history) == expected(new_history)
        tally = keeper._kept[0].summary
        assert isinstance(tally, Tally)
        assert tally.corrected
    assert rows(new_history.path, "SELECT * FROM corrections") == []


def test_the_hour_of_a_time_is_that_before_it_also_before_1970(new_history: History) -> None:
    random = Random(4)
    new_history.append(entries(random, 400))
    before = {event.observed_at for event in new_history.events}
    new_history.replace([(id, []) for id in range(1, 401)])
    hours = {int(str(hour)) for (hour,) in rows(new_history.path, "SELECT DISTINCT hour FROM corrections")}
    assert hours == {at // HOUR_US for at in before}
    assert min(hours) < 0


def test_it_runs_until_it_is_told_to_stop_and_writes_what_it_noted(new_history: History) -> None:
    stop = threading.Event()
    with Keeper(new_history.path, [Tally]) as keeper:
        thread = threading.Thread(target=keeper.run, args=(stop,))
        thread.start()
        new_history.append(entries(Random(5), 100))
        while rows(new_history.path, "SELECT position FROM cursors") != [(new_history.position,)]:
            assert thread.is_alive()
        stop.set()
        thread.join()
    assert counted(new_history) == expected(new_history)


def test_one_keeper_at_a_time(new_history: History) -> None:
    with Keeper(new_history.path, []), pytest.raises(StoreBusy, match="another keeper"):
        Keeper(new_history.path, [])
    Keeper(new_history.path, []).__exit__(None, None, None)


def test_a_store_that_is_not_there_is_refused_and_one_that_goes_is_noticed(new_history: History) -> None:
    with pytest.raises(StoreError, match="there is no store"):
        Keeper(new_history.path.with_name("none.db"), [])
    with Keeper(new_history.path, [Tally]) as keeper:
        keeper.catch_up()
        new_history.path.rename(new_history.path.with_name("moved.db"))
        with pytest.raises(StoreGone):
            keeper.catch_up()


class Dusting:
    """A chore that wants to be done again at once, twice."""

    def __init__(self) -> None:
        self.done = 0

    def step(self, connection: Connection, log: OpenLog) -> float:
        assert log.path.exists()
        connection.exec_driver_sql("SELECT 1").one()
        self.done += 1
        return 0.0 if self.done < 3 else 3_600.0


def test_chores_are_done_when_they_want_to_be(new_history: History) -> None:
    chore = Dusting()
    with Keeper(new_history.path, [], [chore]) as keeper:
        while chore.done < 3:
            keeper.step()
        for _ in range(10):
            keeper.step()
    assert chore.done == 3


def test_without_room_nothing_is_summed_up_but_chores_are_done_until_there_is_room_again(
    new_history: History, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    new_history.append(entries(Random(7), 60))
    chore, floor = Dusting(), 1 << 60
    with Keeper(new_history.path, [Tally], [chore], free_floor_bytes=floor) as keeper:
        while chore.done < 3:
            assert not keeper.step()
        assert counted(new_history) == {}
        assert len([line for line in caplog.messages if "must stay free" in line]) == 1
        monkeypatch.setattr(keeper, "_free_floor_bytes", 0)
        keeper.catch_up()
    assert counted(new_history) == expected(new_history)


def test_series_are_found_when_they_come(new_history: History) -> None:
    random = Random(6)
    log = OpenLog(new_history.path)
    ids = SeriesIds(log)
    for number in range(0, 200, 50):
        new_history.append(entries(random, 50, number))
        for device_id, reading, id in rows(new_history.path, "SELECT device_id, reading, id FROM series"):
            assert ids.of(int(str(device_id)), str(reading)) == id
    log.close()
