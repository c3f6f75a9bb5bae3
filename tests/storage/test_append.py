"""Claims about what an append puts into the file, and what of it stays after a kill."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from storage import migrations, segments
from storage.engine import SCHEMA_VERSION, Lock, open_reader, open_writer, sqlite
from storage.errors import StoreBusy, StoreDamaged, StoreError
from storage.event import EVENTS_PER_MESSAGE, Detail, Entry, Event, Message, Properties, Rejection
from storage.history import Reader
from storage.store import Store, StoreOptions
from storage.writer import Writer

NOW = 1_763_802_000_000_000


def entry(n: int, *, device: str = "thermo", packet_id: int | None = None, **changes: object) -> Entry:
    packet_id = n + 1 if packet_id is None else packet_id
    message = Message(
        "devices/thermo/telemetry", b"{%d}" % n, 1, retain=False, received_at=NOW + n, packet_id=packet_id
    )
    fields: dict[str, object] = {"observed_at": NOW - n, "readings": {"temperature": n / 4}, "seq": n} | changes
    return message, [Event(device=device, kind="measurement", format="json", **fields)]  # type: ignore[arg-type]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "amber.db"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    store = Store(path, StoreOptions(segment_events=100, free_floor_bytes=0))
    yield store
    store.close()


def rows(path: Path, sql: str) -> list[tuple[object, ...]]:
    connection = sqlite.connect(path)
    try:
        return list(connection.execute(sql))
    finally:
        connection.close()


def test_what_is_appended_can_be_read_under_readable_names(store: Store, path: Path) -> None:
    message = Message(
        "a/b",
        b"\x00\xff",
        2,
        retain=True,
        received_at=1_763_802_000_000_001,
        packet_id=7,
        properties=Properties(user=(("site", "north"),)),
    )
    done = store.append([(message, [Event("d", "state", "json", -1, {"open": True}, from_device=True)])], 1)
    assert (done.messages, done.events, done.rejections, done.position) == (1, 1, 0, EVENTS_PER_MESSAGE)
    assert rows(path, "SELECT * FROM messages") == [
        (1, "a/b", "2025-11-22T09:00:00.000001Z", 2, 1, '{"user":[["site","north"]]}', b"\x00\xff")
    ]
    assert rows(path, "SELECT device, kind, time_source, topic, format, seq, readings FROM events") == [
        ("d", "state", "device", "a/b", "json", None, '{"open":true}')
    ]


def test_an_append_tells_the_position_of_its_last_event(store: Store) -> None:
    told = entry(1, detail=Detail(via="gateway"))
    for n, last in enumerate((entry(0), told, (entry(2)[0], []), (entry(3)[0], Rejection("empty")))):
        done = store.append([entry(0), told, entry(0), last], 1)
        assert done.position == (4 * n + (4 if n < 2 else 3)) * EVENTS_PER_MESSAGE


def test_a_message_that_nobody_could_read_is_kept_with_the_reason(store: Store, path: Path) -> None:
    message, _ = entry(0)
    done = store.append([(message, Rejection("it is empty", "json"))], 1)
    assert (done.messages, done.events, done.rejections) == (1, 0, 1)
    assert rows(path, "SELECT message_id, format, reason FROM rejections") == [(1, "json", "it is empty")]


def test_ids_tell_the_message_and_go_on_after_a_restart(path: Path) -> None:
    options = StoreOptions(segment_events=10, free_floor_bytes=0)
    for start in (0, 25):
        store = Store(path, options)
        store.append([entry(n) for n in range(start, start + 25)], 1)
        store.close()
    assert rows(path, "SELECT id, seq FROM events ORDER BY id") == [
        ((n + 1) * EVENTS_PER_MESSAGE, n) for n in range(50)
    ]


def test_a_segment_ends_when_it_is_full_and_knows_its_bounds(store: Store, path: Path) -> None:
    for start in range(0, 260, 20):
        store.append([entry(n, device=f"d{n % 7}") for n in range(start, start + 20)], 1)
    columns = "id, first_event_id, indexed_to, received_from, received_to, observed_from, observed_to"
    assert rows(path, f"SELECT {columns} FROM segments WHERE sealed_at IS NOT NULL") == [
        (1, EVENTS_PER_MESSAGE, 101 * EVENTS_PER_MESSAGE - 1, NOW, NOW + 99, NOW - 99, NOW),
        (2, 101 * EVENTS_PER_MESSAGE, 201 * EVENTS_PER_MESSAGE - 1, NOW + 100, NOW + 199, NOW - 199, NOW - 100),
    ]
    for segment in (1, 2):
        wanted = rows(path, f"SELECT device_id, observed_at, id FROM events_{segment} ORDER BY 1, 2, 3")
        assert rows(path, f"SELECT * FROM event_index_{segment}") == wanted
    assert rows(path, "SELECT count(*) FROM events") == [(260,)]


def test_the_index_follows_in_runs(path: Path) -> None:
    store = Store(path, StoreOptions(free_floor_bytes=0))
    run = segments.INDEX_RUN_EVENTS
    store.append([entry(n) for n in range(run - 1)], 1)
    assert rows(path, "SELECT indexed_to FROM segments") == [(EVENTS_PER_MESSAGE - 1,)]
    store.append([entry(run - 1)], 1)
    store.append([entry(run)], 1)
    store.close()
    assert rows(path, "SELECT indexed_to, events FROM segments") == [((run + 1) * EVENTS_PER_MESSAGE - 1, run)]
    assert rows(path, "SELECT count(*) FROM event_index_1") == [(run,)]


def test_a_series_keeps_its_unit_and_an_event_that_states_another_keeps_that(store: Store, path: Path) -> None:
    store.append([entry(0, units={"temperature": "Cel"}), entry(1), entry(2, device="other")], 1)
    store.append([entry(3, units={"temperature": "K"}, readings={"temperature": 1, "humidity": 2})], 1)
    assert rows(path, "SELECT device, reading, unit FROM series JOIN devices d ON d.id = device_id ORDER BY 1, 2") == [
        ("other", "temperature", None),
        ("thermo", "humidity", None),
        ("thermo", "temperature", "Cel"),
    ]
    store.append([entry(4, units={"temperature": "K"}), entry(5, units={"temperature": "Cel"}), entry(6)], 1)
    with Reader(path) as reader:
        units = [
            event.units.get("temperature") for page in reader.pages() for event in page if event.device == "thermo"
        ]
        lines = [msgspec.json.decode(line) for page in reader.line_pages() for line in page]
    assert units == ["Cel", "Cel", "K", "K", "Cel", "Cel"]
    assert [line["units"].get("temperature") for line in lines if line["device"] == "thermo"] == units
    assert all("detail" not in line for line in lines)


@pytest.mark.parametrize(
    "poison",
    [
        {"observed_at": 2**63},
        {"seq": 2**64},
        {"device": "\ud800"},
        {"readings": {"x": "\udfff"}},
        {"readings": {"x": object()}},
    ],
    ids=["time", "seq", "device", "reading", "type"],
)
def test_an_event_that_no_column_can_hold_costs_itself_only(path: Path, poison: dict[str, object]) -> None:
    writer = Writer(path, StoreOptions(free_floor_bytes=0))
    done = writer.append([entry(0), entry(1, **poison), entry(2)], 1).result()  # type: ignore[arg-type]
    writer.stop()
    assert (done.messages, done.events, done.rejections) == (3, 2, 1)
    assert rows(path, "SELECT seq FROM events") == [(0,), (2,)]
    (reason,) = rows(path, "SELECT reason FROM rejections")[0]
    assert str(reason).startswith("cannot be stored: ")


def test_an_append_is_there_whole_or_not_at_all(store: Store, path: Path) -> None:
    with pytest.raises(OverflowError):
        store.append([entry(0), entry(1, device="new"), entry(2, seq=2**64)], 1)
    assert rows(path, "SELECT count(*) FROM messages") == [(0,)]
    assert rows(path, "SELECT count(*) FROM devices") == [(0,)]
    store.append([entry(0, device="new")], 1)
    assert rows(path, "SELECT device, seq FROM events") == [("new", 0)]


def test_integers_beyond_64_bits_stay_exact_in_readings(store: Store, path: Path) -> None:
    store.append([entry(0, readings={"n": 2**63, "m": -(2**70)})], 1)
    assert rows(path, "SELECT readings FROM events") == [(f'{{"n":{2**63},"m":{-(2**70)}}}',)]


def test_a_session_goes_on_only_where_the_broker_resumed_it(store: Store) -> None:
    first = store.open_session("gateway", "mqtt://one", resumed=False)
    assert store.open_session("gateway", "mqtt://one", resumed=True) == first
    assert store.open_session("gateway", "mqtt://other", resumed=True) != first
    second = store.open_session("gateway", "mqtt://one", resumed=False)
    assert second != first
    assert store.open_session("gateway", "mqtt://one", resumed=True) == second


def test_the_last_messages_of_a_session_are_known_across_segments(store: Store) -> None:
    store.append([entry(n) for n in range(95)], 1)
    store.append([entry(n, packet_id=0) for n in range(95, 100)], 1)
    store.append([entry(n) for n in range(100, 120)], 1)
    store.append([entry(n) for n in range(120, 140)], 2)
    known = store.recent(1, 30)
    wanted = [*range(85, 95), *range(100, 120)]
    assert known == {n + 1: hash(("devices/thermo/telemetry", b"{%d}" % n)) for n in wanted}


def test_a_cursor_keeps_its_position(store: Store) -> None:
    assert store.cursor("sink") == 0
    for position in (7, 12):
        store.move_cursor("sink", position)
        assert store.cursor("sink") == position


def test_what_was_committed_is_there_after_a_kill(path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path\n"
        "from tests.storage.test_append import entry; from storage.store import Store, StoreOptions\n"
        "store = Store(Path(sys.argv[1]), StoreOptions(free_floor_bytes=0))\n"
        "for n in range(1000):\n"
        "    store.append([entry(n)], 1); os.write(1, b'%d\\n' % n)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, cwd=Path.cwd())
    assert child.stdout
    for _ in range(50):
        last = int(child.stdout.readline())
    child.send_signal(signal.SIGKILL)
    last = max([last, *map(int, child.stdout.read().split())])
    child.stdout.close()
    child.wait()
    stored = [row[0] for row in rows(path, "SELECT seq FROM events ORDER BY id")]
    assert stored == list(range(len(stored)))
    assert len(stored) > last


def test_a_store_has_one_writer(path: Path) -> None:
    writer = Writer(path, StoreOptions())
    with pytest.raises(StoreBusy, match=rf"in use by another gateway \(process {os.getpid()}\)"):
        Writer(path, StoreOptions())
    writer.stop()
    Writer(path, StoreOptions()).stop()


def test_a_file_that_is_no_store_is_refused_and_left_alone(path: Path) -> None:
    connection = sqlite.connect(path)
    connection.execute("CREATE TABLE mine (x)")
    connection.close()
    with pytest.raises(StoreDamaged, match="not an Amber store"):
        Store(path, StoreOptions())
    assert rows(path, "SELECT name FROM sqlite_master") == [("mine",)]


@pytest.mark.parametrize("content", [b"# Read me\n", b"\x00garbage" * 1000])
def test_no_lock_stays_beside_what_is_no_store(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(StoreDamaged):
        Writer(path, StoreOptions())
    assert [(file.name, file.read_bytes()) for file in path.parent.iterdir()] == [(path.name, content)]


def test_a_lock_that_was_there_before_stays_when_the_store_is_refused(path: Path) -> None:
    """Its next holder may be waiting with it open already."""
    Writer(path, StoreOptions()).stop()
    path.write_bytes(b"\x00garbage" * 1000)
    with pytest.raises(StoreDamaged):
        Writer(path, StoreOptions())
    lock = path.with_name(f"{path.name}.lock")
    assert lock.exists()
    Lock(path).release()  # and nobody holds it


def test_a_folder_is_no_store_and_nothing_is_made_beside_it(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    opening: list[Callable[[], object]] = [
        lambda: open_reader(folder),
        lambda: open_writer(folder),
        lambda: Lock(folder),
        lambda: Writer(folder, StoreOptions()),
    ]
    for one in opening:
        with pytest.raises(StoreError, match=r"folder is a folder: name a file$"):
            one()
    with pytest.raises(StoreError, match=r"^\. is a folder"):
        Writer(Path(), StoreOptions())
    assert list(tmp_path.iterdir()) == [folder]
    assert list(folder.iterdir()) == []


def test_a_file_of_garbage_is_refused(path: Path) -> None:
    path.write_bytes(b"\x00garbage" * 1000)
    with pytest.raises(StoreDamaged, match="damaged"):
        Store(path, StoreOptions())


def test_a_store_of_a_newer_version_is_refused(store: Store, path: Path) -> None:
    store.connection.exec_driver_sql("PRAGMA user_version=99")
    with pytest.raises(StoreDamaged, match="newer Amber"):
        Store(path, StoreOptions())


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="see that its folder exists"):
        Writer(tmp_path / "nowhere" / "amber.db", StoreOptions())


def test_the_settings_that_the_promise_rests_on_hold(store: Store) -> None:
    assert store.connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
    assert store.connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2


def test_a_migration_that_fails_half_way_leaves_the_store_as_it_was(path: Path) -> None:
    Store(path, StoreOptions(free_floor_bytes=0)).close()
    now = SCHEMA_VERSION

    def first(_: object) -> None:
        connection.exec_driver_sql("ALTER TABLE devices ADD COLUMN site TEXT")

    def second(_: object) -> None:
        raise KeyboardInterrupt

    connection = open_writer(path)
    try:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        with pytest.raises(KeyboardInterrupt):
            migrations.bring_up_to_date(connection, {now: first, now + 1: second}, wanted=now + 2)
        connection.rollback()
        assert connection.exec_driver_sql("PRAGMA user_version").scalar() == now
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        migrations.bring_up_to_date(connection, {now: first, now + 1: lambda _: None}, wanted=now + 2)
        connection.commit()
        assert connection.exec_driver_sql("PRAGMA user_version").scalar() == now + 2
        assert connection.exec_driver_sql("SELECT site FROM devices").all() == []
    finally:
        connection.close()
