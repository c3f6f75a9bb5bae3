"""What is known of each device: how much it has sent, its newest event, whether it is there. Never asks a device."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from operator import itemgetter
from typing import TYPE_CHECKING, Final

import msgspec

from storage.clocks import believed
from storage.conditions import as_json, devices_picked
from storage.event import EVENTS_PER_MESSAGE, Value
from storage.filters import Filters
from storage.names import Names
from storage.snapshot import OpenLog
from storage.summaries import FORGOTTEN, NOT_OF_THE_DEVICE, Noted
from storage.summaries.past import NotedRows, Past, Tallies
from storage.walk import Walk

if TYPE_CHECKING:
    from sqlalchemy import Connection

NAME = "amber.presence"

DEVICES_A_READ = 1_000
EVENTS_A_READ = 2_000

REMEMBERED_WORDS = 32
"""Of one device: some say every second that they are online."""


class StoredDevice(msgspec.Struct, frozen=True):
    """A device with its newest event by position, and all that was counted of it; times are microseconds.

    `online` is None where nothing it sent tells; else it has been so since `online_since`. `readings` is the number of
    its series.
    """

    device: str
    online: bool | None
    online_since: int | None
    events: int
    readings: int
    format: str
    first_received_at: int
    last_position: int
    last_kind: str
    last_observed_at: int
    last_received_at: int


class Known(msgspec.Struct):
    """A row of the table `presence`, without its device."""

    position: int
    events: int = 0
    first_received_at: int = 0
    last_received_at: int = 0
    last_event_id: int = 0
    last_observed_at: int = 0
    kind_id: int = 0
    format_id: int = 0
    online: int | None = None
    online_at: int | None = None
    said_at: int | None = None
    said_id: int | None = None

    def see_last(self, event: Noted) -> None:
        self.last_event_id, self.last_observed_at, self.last_received_at = (
            event.id,
            event.observed_at,
            event.received_at,
        )
        self.kind_id, self.format_id = event.kind_id, event.format_id

    def hear(self, word: Word) -> None:
        """Take in what tells whether the device is there: of two words the later counts, by the time they speak of."""
        online, at, id = word
        if online is None:  # any sign of life, which counts for nothing but to be back
            if self.online != 0 or at <= (self.said_at or 0):
                return
            online = True
        elif self.said_at is not None and self.said_id is not None and (at, id) < (self.said_at, self.said_id):
            return
        if self.online != online:
            self.online, self.online_at = int(online), at
        self.said_at, self.said_id = at, id


Word = tuple[bool | None, int, int]
"""Whether the device is there, None for a sign of life; as of when; and the event that says so."""


class Heard:
    """What was noted of one device and is yet to be written."""

    __slots__ = ("events", "first_received_at", "last", "words")

    def __init__(self, first: Noted) -> None:
        self.events = 0
        self.first_received_at = first.received_at
        self.last = first
        self.words: list[Word] = []

    def hear(self, word: Word) -> None:
        """Take in a word. Of many that say the same the first and the latest tell what there is to tell."""
        words = self.words
        if len(words) >= REMEMBERED_WORDS and words[-1][0] == words[-2][0] == word[0]:
            words[-1] = max(words[-1], word, key=itemgetter(1, 2))
        else:
            words.append(word)

    def add_to(self, known: Known | None, position: int) -> Known:
        """What is known of the device with this, in the place of what was known before."""
        known = known or Known(position, first_received_at=self.first_received_at)
        for word in self.words:
            known.hear(word)
        known.position = position
        known.events += self.events
        known.see_last(self.last)
        return known


class Noting(dict[int, Heard]):
    """What was noted of each device, by its id."""

    def __init__(self, log: OpenLog) -> None:
        super().__init__()
        self._retained = Retained(log)
        self.away: dict[int, int] = dict(log.rows("SELECT device_id, said_at FROM presence WHERE online = 0"))
        """Since when a sign of life of a device would be news: of all that are not there, and perhaps some that are."""

    def note(self, events: Iterable[Noted]) -> None:
        away, telling = self.away, TELLING_KINDS
        for event in events:
            device_id = event.device_id
            heard = self.get(device_id)
            if heard is None:
                heard = self[device_id] = Heard(event)
            heard.events += 1
            heard.last = event
            if event.kind in telling or device_id in away:
                word = self._word(event)
                if word is not None:
                    heard.hear(word)

    def _word(self, event: Noted) -> Word | None:
        device_id = event.device_id
        online = told(event.kind, event.readings)
        if online is not None:
            at = said_at(event, self._retained, online=online)
            if not online:
                self.away[device_id] = max(at, self.away.get(device_id, at))
            return online, at, event.id
        if event.kind in NOT_OF_THE_DEVICE or device_id not in self.away or event.received_at <= self.away[device_id]:
            return None
        if self._retained(event.id):
            return None
        del self.away[device_id]
        return None, event.received_at, event.id


class Retained:
    """Whether the broker had kept the message of an event: such a one tells nothing of now."""

    def __init__(self, log: OpenLog) -> None:
        self._log = log

    def __call__(self, event_id: int) -> bool:
        with self._log.snapshot():
            segment = next((one for one in reversed(self._log.segments) if one.first_event_id <= event_id), None)
            if segment is None:
                return False
            sql = f"SELECT retain FROM messages_{segment.id} WHERE id = :id"
            return any(retain for (retain,) in self._log.rows(sql, {"id": event_id // EVENTS_PER_MESSAGE}))


def said_at(event: Noted, retained: Retained, *, online: bool) -> int:
    """As of when a word on a device's presence counts: as old as it says, but for a will.

    A will bears the time at which its connection began, and so would stand before the word that the device is there:
    what says offline counts as of its arrival, unless the broker had kept it.
    """
    if online or retained(event.id):
        return believed(event.observed_at, event.received_at)
    return event.received_at


class Presence:
    """Keeps the table `presence`; a Summary."""

    name = NAME
    flush_s = 1.0

    def __init__(self, log: OpenLog) -> None:
        self._waiting = Noting(log)
        self._noted = NotedRows(log)
        self._retained = Retained(log)
        self._tallies: Tallies = {}
        self._tallied = 0

    def note(self, events: Sequence[Noted]) -> None:
        self._waiting.note(events)

    @property
    def pending(self) -> int:
        return len(self._waiting)

    def write(self, connection: Connection, position: int, rows: int) -> None:
        waiting = self._waiting
        heard = dict(waiting.popitem() for _ in range(min(rows, len(waiting))))
        sql = f"SELECT device_id, {FIELDS} FROM presence WHERE device_id IN (SELECT value FROM json_each(?))"
        kept = {device_id: Known(*row) for device_id, *row in connection.exec_driver_sql(sql, (as_json(list(heard)),))}
        for device_id, row in kept.items():
            if row.position >= position:  # written before a crash
                del heard[device_id]
        _put(connection, {id: one.add_to(kept.get(id), position) for id, one in heard.items()})

    def correct(self, connection: Connection, device_id: int, hours: Sequence[int], position: int) -> None:
        """Count the device's events anew, with those that retention has taken out, and look at its newest one.

        Whether it is there is told anew from the hours; from all its events where the one that told it last is lost.
        """
        past = Past(connection, self._noted, device_id)
        row = connection.exec_driver_sql(f"SELECT {FIELDS} FROM presence WHERE device_id = ?", (device_id,)).first()
        known = None if row is None else Known(*row)
        dropped: int = connection.exec_driver_sql(FORGOTTEN, {"device_id": device_id}).scalar() or 0
        tally = past.tally(position, self._tallies_of(device_id))
        first, last = (None if id is None else past.event(id) for id in (tally.first, tally.last))
        if known is None and first is None:
            return
        if not dropped and first is None:
            connection.exec_driver_sql("DELETE FROM presence WHERE device_id = ?", (device_id,))
            self._waiting.away.pop(device_id, None)
            return
        if first is not None and last is not None:
            if known is None or not dropped:
                known = known or Known(position)
                known.first_received_at = first.received_at
            known.see_last(last)
        assert known is not None  # noqa: S101 - else there was a first event
        known.events = dropped + tally.events
        self._listen(past, known, hours, position)
        _put(connection, {device_id: known})
        if known.online == 0 and known.said_at is not None:
            self._waiting.away[device_id] = known.said_at

    def _tallies_of(self, device_id: int) -> Tallies:
        """What is remembered of its segments; a device is corrected some hours at a time, and then never again soon."""
        if self._tallied != device_id:
            self._tallied = device_id
            self._tallies.clear()
        return self._tallies

    def _listen(self, past: Past, known: Known, hours: Sequence[int], position: int) -> None:
        if known.said_id is None or self._still_says(past, known):
            heard: Callable[..., Iterable[Noted]] = partial(past.of_hours, hours)
        else:
            known.online = known.online_at = known.said_at = known.said_id = None
            heard = past.all
        words = [
            (online, said_at(event, self._retained, online=online), event.id)
            for event in heard(TELLING_KINDS)
            if event.id <= position and (online := told(event.kind, event.readings)) is not None
        ]
        for word in sorted(words, key=itemgetter(2)):
            known.hear(word)
        if known.online != 0 or known.said_at is None:
            return
        if self._first_sign(heard(), known.said_at, position) is not None:  # an earlier one may be in other hours
            sign = self._first_sign(past.all(), known.said_at, position)
            if sign is not None:
                known.hear(sign)

    def _first_sign(self, events: Iterable[Noted], after: int, position: int) -> Word | None:
        signs = sorted(
            (event.id, event.received_at)
            for event in events
            if after < event.received_at and event.id <= position and _is_sign(event)
        )
        return next(((None, received_at, id) for id, received_at in signs if not self._retained(id)), None)

    def _still_says(self, past: Past, known: Known) -> bool:
        assert known.said_id is not None  # noqa: S101 - the caller has looked
        event = past.event(known.said_id)
        if event is None:
            return past.dropped(known.said_id)
        online = told(event.kind, event.readings)
        if online is None:
            return known.online == 1 and _is_sign(event) and event.received_at == known.said_at
        return online == known.online and said_at(event, self._retained, online=online) == known.said_at


def _is_sign(event: Noted) -> bool:
    return event.kind not in NOT_OF_THE_DEVICE and told(event.kind, event.readings) is None


def _put(connection: Connection, rows: Mapping[int, Known]) -> None:
    if rows:
        marks = ", ".join("?" * (1 + len(Known.__struct_fields__)))
        sql = f"INSERT OR REPLACE INTO presence (device_id, {FIELDS}) VALUES ({marks})"
        connection.exec_driver_sql(sql, [(id, *msgspec.structs.astuple(row)) for id, row in sorted(rows.items())])


def told(kind: str, readings: Mapping[str, Value]) -> bool | None:
    """Whether an event says that its device is there; None where it does not tell."""
    if kind == "birth":
        return True
    if kind == "death":
        return False
    if kind != "availability":
        return None
    words = [_word_of(name, value) for name, value in readings.items()]
    words += [WORDS.get(value.lower()) for value in readings.values() if type(value) is str]
    if readings and all(value is None for value in readings.values()):
        return False  # what was retained there has been deleted: the device is gone
    return next((word for word in words if word is not None), None)


def _word_of(name: str, value: Value) -> bool | None:
    """What a reading says whose name promises to tell."""
    last = _last(name)
    if last not in PRESENCE_NAMES:
        return None
    if type(value) is bool:
        return value
    if type(value) is str:
        text = value.lower()
        return WORDS.get(text, SHORT_WORDS.get(text))
    # A status is a number in many ways; 1 for online is not the usual one.
    return bool(value) if last not in ("status", "state") and type(value) is int and value in (0, 1) else None


def _last(name: str) -> str:
    for mark in ".$/":
        name = name.rpartition(mark)[2]
    return name.lower()


TELLING_KINDS: Final = "availability", "birth", "death"
"""Kinds of events that may tell whether a device is there."""

PRESENCE_NAMES: Final = frozenset(
    {
        *("status", "state", "availability", "available", "lwt", "online", "connected", "connection", "reachable"),
        *("alive", "link"),
    }
)
"""Last parts of the names of readings that tell whether a device is there, in lower case."""

_HERE = "online connected available alive ready init alert sleeping asleep awake reachable"
_AWAY = "offline disconnected unavailable dead lost unreachable stopped gone"
WORDS: Final = {**dict.fromkeys(_HERE.split(), True), **dict.fromkeys(_AWAY.split(), False)}
"""Texts that tell it, under whatever name."""

SHORT_WORDS: Final = {
    **dict.fromkeys(("1", "true", "yes", "on", "up"), True),
    **dict.fromkeys(("0", "false", "no", "off", "down"), False),
}
"""Texts that tell it where the name promises that."""

FIELDS: Final = ", ".join(Known.__struct_fields__)


def devices(log: OpenLog, filters: Filters) -> Iterator[StoredDevice]:
    """The devices that have events, by name, a thousand to a read. Of the filters those for devices apply."""
    see_answerable(filters)
    recent, since, position = _recent(log, filters)
    picked = devices_picked(log.rows, filters.devices)
    words = Names(log, "words", "word", str)
    sql, values = _DEVICES, dict[str, object]()
    if picked is not None:
        with log.snapshot():
            picked.refresh()
        sql += " AND substr(:devices, d.id, 1) = x'01'"
        values["devices"] = picked.bytes
    comparison, values["device"], values["limit"] = ">=", "", DEVICES_A_READ
    while True:
        with log.snapshot():
            rows = log.rows(f"{sql} AND d.device {comparison} :device ORDER BY d.device LIMIT :limit", values)
            series: dict[int, int] = dict(log.rows(_SERIES, {"ids": as_json([id for id, *_ in rows])}))
        for id, device, *row in rows:
            known = None if row[0] is None else Known(*row)
            heard = recent.get(id)
            # A row that was written meanwhile holds what was read here, and perhaps more.
            if heard is not None and (known is None or known.position <= since.get(id, since[EVERY])):
                known = heard.add_to(known, position)
            if known is not None:
                yield _stored(device, known, series.get(id, 0), words)
        if not rows:
            return
        comparison, values["device"] = ">", rows[-1][1]


EVERY: Final = 0
"""Stands for every device whose row goes no farther than the others: ids begin with 1."""


def _recent(log: OpenLog, filters: Filters) -> tuple[Noting, dict[int, int], int]:
    """What has come since the table was written, from which position on for which device, and up to which.

    After a crash some rows may go farther than the others.
    """
    found, noted = Noting(log), NotedRows(log)
    with log.snapshot():
        kept = log.rows("SELECT position FROM cursors WHERE name = :name", {"name": NAME})
        since = {EVERY: kept[0][0] if kept else 0}
        ahead = "SELECT device_id, position FROM presence WHERE position > :since"
        since.update(log.rows(ahead, {"since": since[EVERY]}))
        position = log.position
    walk = Walk(log, _NOTED, Filters(devices=filters.devices, after=since[EVERY], until_position=position))
    while not walk.done:
        events = noted(walk.step(EVENTS_A_READ))
        if len(since) > 1:
            events = [event for event in events if event.id > since.get(event.device_id, 0)]
        found.note(events)
    return found, since, position


def _stored(device: str, known: Known, series: int, words: Mapping[int, str]) -> StoredDevice:
    return StoredDevice(
        device=device,
        online=None if known.online is None else known.online == 1,
        online_since=known.online_at,
        events=known.events,
        readings=series,
        format=words[known.format_id],
        first_received_at=known.first_received_at,
        last_position=known.last_event_id,
        last_kind=words[known.kind_id],
        last_observed_at=known.last_observed_at,
        last_received_at=known.last_received_at,
    )


def see_answerable(filters: Filters) -> None:
    """Raises ValueError for what devices cannot be chosen by."""
    if filters != Filters(devices=filters.devices):
        raise ValueError("devices are kept by name: they cannot be chosen by what they sent")


# The readings of other events tell nothing here.
_NOTED = (
    "e.id, e.device_id, e.kind_id, e.format_id, e.observed_at, m.received_at,"
    " iif(e.kind_id = (SELECT id FROM words WHERE word = 'availability'), e.readings, '{}'), NULL"
)
_DEVICES = (
    f"SELECT d.id, d.device, {', '.join(f'p.{field}' for field in Known.__struct_fields__)} FROM devices AS d"
    " LEFT JOIN presence AS p ON p.device_id = d.id WHERE true"
)
_SERIES = (
    "SELECT device_id, count(*) FROM series WHERE device_id IN (SELECT value FROM json_each(:ids)) GROUP BY device_id"
)
