"""Finds what an append brings that the log has already: copies of events, and other events of their identity.

In doubt an event is kept. Nothing of the log is looked up for numbers that follow those before them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from storage import segments
from storage.conditions import as_json
from storage.event import EVENTS_PER_MESSAGE, Detail, Entry, Event, Location, Outcome, Rejection
from storage.identities import (
    Group,
    Identity,
    Recent,
    Sequences,
    identity,
    told_identity,
)
from storage.sequences import FIRST, Stated, decode_stated, is_far_behind

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from storage.catalog import Catalog
    from storage.event import Message
    from storage.segment import Segment
    from storage.sequences import Sequence as Numbers

SAME_MOMENT = 100
"""Of the events that a device observed at one moment so many are looked at, the latest first: a clock may stand."""

COPIED_WITHIN_US = 3_600_000_000
"""What bears no time of its device, and comes again later than so, is kept: a start may have the name of another."""

Pairs = tuple[tuple[str, str], ...]

Content = tuple[int, int, int | None, str, Pairs, Pairs, Location | None]
"""What makes two events the same: topic, kind, the device's time where it gave one, readings, units of its own, quality
and location. Without the topic two devices of one name, or two topics that count for themselves, would be one."""

Contents = dict[Content, tuple[int, int]]
"""The contents of one identity, each with the message of the append that brought it (or -1: it is in the log), and the
latest time that it was observed."""

Place = tuple[int, int]
"""Which message of an append, and which event of that."""

Kept = tuple["Message", "Sequence[Event | None] | Rejection"]
"""An entry of which some events are left out; the others stay in their places."""


class Sifted(msgspec.Struct):
    """An append without what the log has already."""

    entries: Sequence[Kept]
    gone: list[int] = []
    """Messages all of whose events are copies, by their places in what was to be appended."""
    duplicates: int = 0
    conflicts: int = 0
    counts: dict[tuple[int, str], list[int]] = {}
    """Duplicates and conflicts by device and boot, which is empty where the sender gave an id."""
    copies: list[tuple[int, int, str, bool]] = []
    """Place among the entries, place in the message, identity; whether it is kept, as a conflict."""
    recent: list[tuple[int, int]] = []
    """Hash of the identity, and place among what was to be appended."""

    def before(self, number: int) -> int:
        """How many of the first `number` messages are left."""
        return number - sum(1 for gone in self.gone if gone < number) if self.gone else number


class Looked(NamedTuple):
    """What a first look at an append tells."""

    known: dict[Place, tuple[int, int]]
    """The events whose number or id may be known, each with the time of the highest number before it, and what follows
    that."""
    recent: list[tuple[int, int]]
    """What is to be remembered of the others: hash of the identity, place of the message."""


class _Item(NamedTuple):
    """An event of the append that shares its group with one that may be known."""

    at: Place
    event: Event
    number: int


class Repeats:
    """The writer's knowledge of identities. What an append brings is only believed once that is committed."""

    def __init__(self, connection: Connection, catalog: Catalog) -> None:
        self.connection = connection
        self.catalog = catalog
        self.sequences = Sequences(connection)
        self.recent = Recent(connection)

    def use(self, catalog: Catalog) -> None:
        """Believe nothing of what a transaction that failed, or another process, has left in memory."""
        self.catalog = catalog
        self.sequences.forget()

    def sift(self, entries: Sequence[Entry]) -> Sifted:
        """The entries as they are to be written. Runs inside the append's transaction, before anything is."""
        looked = self._look(entries)
        return _Judgement(self, entries, looked).sifted() if looked.known else Sifted(entries, recent=looked.recent)

    def note(self, sifted: Sifted, last_message_id: int) -> None:
        """Enter what was left out and marked; `last_message_id` is the last before the append."""
        if sifted.copies:
            rows = [(last_message_id + 1 + n, *rest) for n, *rest in sifted.copies]
            self.connection.exec_driver_sql("INSERT INTO copies VALUES (?, ?, ?, ?)", rows)
        if sifted.counts:
            self.connection.exec_driver_sql(_COUNT, [(*boot, *counts) for boot, counts in sifted.counts.items()])

    def committed(self, sifted: Sifted, last_message_id: int) -> None:
        """Remember what the file would not find."""
        for key, n in sifted.recent:
            self.recent.note(key, last_message_id + 1 + sifted.before(n))

    def _look(self, entries: Sequence[Entry]) -> Looked:
        """Which events may be known. The numbers that are new are taken in at once."""
        known, recent = looked = Looked({}, [])
        came: set[int] = set()
        devices, sequences, rejection, n, caught_up = self.catalog.devices, self.sequences, Rejection, -1, False
        for _, outcome in entries:  # every event comes by here: what is written otherwise than elsewhere is quicker so
            n += 1
            if outcome.__class__ is rejection:
                continue
            place = -1
            for event in outcome:  # type: ignore[union-attr]
                place += 1
                detail = event.detail
                if detail is None:
                    continue
                if (boot := detail.boot) and (number := event.seq) is not None and number >= 0:
                    if not caught_up:
                        sequences.catch_up()
                        caught_up = True
                    key = devices[event.device], boot
                    sequence = sequences[key]
                    if number == sequence.next > sequence.before:  # as nearly all are
                        sequence.next, sequence.at = number + 1, event.observed_at
                    elif sequence.is_new(number, event.observed_at, by_device=event.from_device):
                        sequence.add(number, event.observed_at)
                    else:
                        known[n, place] = sequence.at, sequence.next
                        if not event.from_device:
                            self.recent.load()
                        continue
                    if not sequence.changed:
                        sequences.note(key, sequence)
                    if not event.from_device:
                        recent.append((hash(Identity(key, number)), n))
                elif detail.source_id:
                    self.recent.load()
                    hashed = hash(identity_of(event, self.catalog))
                    if hashed in self.recent or hashed in came:
                        known[n, place] = 0, 0
                    else:
                        came.add(hashed)
                        recent.append((hashed, n))
        if recent:
            self.recent.load()
        return looked


class _Judgement:
    """What becomes of the events of one append of which some may be known."""

    def __init__(self, writer: Repeats, entries: Sequence[Entry], looked: Looked) -> None:
        self.sequences = writer.sequences
        self.known, self._new = looked
        self._writer = writer
        self._catalog = writer.catalog
        self._entries = entries
        self.verdicts: dict[int, dict[int, bool]] = {}
        """By message and place: whether it is kept, as a conflict; else it is left out."""

    def sifted(self) -> Sifted:
        groups = self._groups()
        stored = Stored(self._writer.connection, self._wanted(groups), self._writer.recent)
        for group, items in groups.items():
            _Judge(self, group, items, stored).judge()
        return self._without_copies()

    def verdict(self, at: Place, *, conflict: bool) -> None:
        self.verdicts.setdefault(at[0], {})[at[1]] = conflict

    def remember(self, found: Identity, n: int) -> None:
        """Have what the file would not find looked for by its message."""
        self._new.append((hash(found), n))

    def _groups(self) -> dict[Group, list[_Item]]:
        """All events of the append, in order, of the groups in which something may be known."""
        entries = self._entries
        wanted = {
            found.group
            for n, place in self.known
            if (found := identity_of(entries[n][1][place], self._catalog))  # type: ignore[index]  # no rejections
        }
        groups: dict[Group, list[_Item]] = {group: [] for group in wanted}
        for n, (_, outcome) in enumerate(entries):
            for place, event in enumerate(() if isinstance(outcome, Rejection) else outcome):
                found = None if event.detail is None else identity_of(event, self._catalog)
                if found is not None and found.group in wanted:
                    groups[found.group].append(_Item((n, place), event, found.number))
        return groups

    def _wanted(self, groups: dict[Group, list[_Item]]) -> list[tuple[Identity, Event]]:
        return [
            (Identity(group, item.number), item.event)
            for group, items in groups.items()
            for item in items
            if item.at in self.known
        ]

    def content(self, item: _Item) -> Content:
        event, detail = item.event, item.event.detail or Detail()
        own = self._catalog.note_series(self._catalog.devices[event.device], event)
        return (
            self._catalog.topics[self._entries[item.at[0]][0].topic],
            self._catalog.words[event.kind],
            event.observed_at if event.from_device else None,  # the gateway's is another each time
            msgspec.json.encode(event.readings).decode(),
            _pairs({} if own is None else msgspec.json.decode(own, type=dict[str, str])),
            _pairs(detail.quality),
            detail.location,
        )

    def _without_copies(self) -> Sifted:
        sifted = Sifted([], recent=self._new)
        entries: list[Kept] = []
        for n, (message, outcome) in enumerate(self._entries):
            verdicts = self.verdicts.get(n)
            if verdicts is None or isinstance(outcome, Rejection):
                entries.append((message, outcome))
                continue
            self._count(sifted, outcome, verdicts)
            kept = [_kept(event, conflict=verdicts.get(place)) for place, event in enumerate(outcome)]
            if all(event is None for event in kept):
                sifted.gone.append(n)
                continue
            sifted.copies += [
                (len(entries), place, told_identity(outcome[place]) or "", conflict)
                for place, conflict in verdicts.items()
            ]
            entries.append((message, kept))
        sifted.entries = entries
        return sifted

    def _count(self, sifted: Sifted, outcome: Sequence[Event], verdicts: dict[int, bool]) -> None:
        for place, conflict in verdicts.items():
            found = identity_of(outcome[place], self._catalog)
            if found is not None:
                device_id, boot = found.group[0], found.group[1] if len(found.group) == 2 else ""
                sifted.counts.setdefault((device_id, boot), [0, 0])[conflict] += 1
        sifted.conflicts += sum(verdicts.values())
        sifted.duplicates += len(verdicts) - sum(verdicts.values())


class _Judge:
    """Goes through the events of one group in the order in which they came."""

    def __init__(self, judgement: _Judgement, group: Group, items: list[_Item], stored: Stored) -> None:
        self._all = judgement
        self._group = group
        self._items = items
        self._stored = stored
        self._sequence = judgement.sequences[group] if len(group) == 2 else None
        self._numbers = {item.number for item in items if item.at in judgement.known}
        self._brought: dict[int, int] = {}  # which message of the append a number first came with
        self._anew = False  # what was taken in before this judgement was of an earlier round

    def judge(self) -> None:
        for item in self._items:
            if item.at in self._all.known:
                self._judge(item)
            else:
                self._pass(item)
        if self._sequence is not None and len(self._group) == 2:
            self._all.sequences.note(self._group, self._sequence)

    def _pass(self, item: _Item) -> None:
        """It is new; others may be held against it."""
        if item.number in self._numbers:
            self._contents(item)[self._all.content(item)] = item.at[0], item.event.observed_at
            self._brought[item.number] = item.at[0]
        if self._anew and self._sequence is not None:
            self._sequence.add(item.number, item.event.observed_at)

    def _judge(self, item: _Item) -> None:
        contents, mine = self._contents(item), self._all.content(item)
        if self._is_copy(item, contents.get(mine)):
            self._all.verdict(item.at, conflict=False)
            return
        if self._brought.get(item.number) != item.at[0]:  # else it is another part of what this message tells
            if self._is_new(item, others=bool(contents)):
                self._brought[item.number] = item.at[0]
            else:
                self._all.verdict(item.at, conflict=True)
        contents[mine] = item.at[0], item.event.observed_at
        if self._sequence is None or not item.event.from_device:
            self._all.remember(Identity(self._group, item.number), item.at[0])

    def _contents(self, item: _Item) -> Contents:
        """What the log and the append before it have of its identity."""
        return self._stored.contents.setdefault(Identity(self._group, item.number), {})

    def _is_copy(self, item: _Item, same: tuple[int, int] | None) -> bool:
        """Whether it is what has come before; what one message tells is all its own, however alike."""
        if same is None or same[0] == item.at[0]:
            return False
        event, sequence = item.event, self._sequence
        if event.from_device:
            return True
        of_another_round = sequence is not None and (
            item.number not in sequence or is_far_behind(item.number, self._highest(item, sequence)[1])
        )
        return abs(event.observed_at - same[1]) <= COPIED_WITHIN_US and not of_another_round

    def _highest(self, item: _Item, sequence: Numbers) -> tuple[int, int]:
        """When the highest number before it was observed, and what follows that."""
        return (sequence.at, sequence.next) if self._anew else self._all.known[item.at]

    def _is_new(self, item: _Item, *, others: bool) -> bool:
        """Whether an event that is no copy is the first of its identity."""
        sequence, number, at = self._sequence, item.number, item.event.observed_at
        if sequence is None:
            return not others
        if number not in sequence:
            sequence.add(number, at)
            return True
        highest_at, following = self._highest(item, sequence)
        if at > highest_at and (number == FIRST or is_far_behind(number, following)):
            sequence.begin_anew(number, at)
            self._anew = True
            return True
        return self._stored.is_gone(self._group[0], item.event)


class Stored:
    """What the log has of identities that were asked for."""

    def __init__(self, connection: Connection, wanted: Sequence[tuple[Identity, Event]], recent: Recent) -> None:
        self._connection = connection
        self._wanted = {found for found, _ in wanted}
        self.contents: dict[Identity, Contents] = {}
        self._segments = segments.present(connection)
        numbered = [(found, event) for found, event in wanted if len(found.group) == 2]
        moments = {(found.group[0], event.observed_at) for found, event in numbered if event.from_device}
        messages = {id for found in self._wanted for id in recent.get(hash(found), ())}
        for segment in self._segments:
            self._take(self._at(segment, moments))
            self._take(self._of_messages(segment, messages))
        self._take(self._behind_the_index(moments))

    def is_gone(self, device_id: int, event: Event) -> bool:
        """Whether retention has taken out events of the device, and the event is older than all that is left."""
        forgotten = self._connection.exec_driver_sql(_FORGOTTEN, (device_id,)).first()
        oldest = [segment.observed_from for segment in self._segments if segment.observed_from is not None]
        return (
            forgotten is not None and event.from_device and event.observed_at < min(oldest, default=event.observed_at)
        )

    def _at(self, segment: Segment, moments: set[tuple[int, int]]) -> Iterable[Row]:
        """What the devices observed at these moments, by the index."""
        first, last = segment.observed_from, segment.observed_to
        if first is None or last is None:
            return ()
        within = [moment for moment in moments if first <= moment[1] <= last]
        if not within:
            return ()
        found = self._connection.exec_driver_sql(_AT.format(n=segment.id), (as_json(within), SAME_MOMENT))
        ids = [id for (listed,) in found for id in _decode_ids(listed)]
        return self._connection.exec_driver_sql(_BY_ID.format(n=segment.id), (as_json(ids),)) if ids else ()

    def _of_messages(self, segment: Segment, messages: set[int]) -> Iterable[Row]:
        after = [later.first_message_id for later in self._segments if later.id > segment.id]
        within = [id for id in messages if segment.first_message_id <= id < min(after, default=id + 1)]
        return self._connection.exec_driver_sql(_OF_MESSAGES.format(n=segment.id), (as_json(within),)) if within else ()

    def _behind_the_index(self, moments: set[tuple[int, int]]) -> Iterable[Row]:
        newest = self._segments[-1]
        values = newest.indexed_to, as_json(list(moments))
        return self._connection.exec_driver_sql(_BEHIND.format(n=newest.id), values) if moments else ()

    def _take(self, rows: Iterable[Row]) -> None:
        for device_id, kind_id, observed_at, from_device, seq, readings, detail, topic_id in rows:
            stated = decode_stated(detail)
            found = identity(device_id, kind_id, seq, stated)
            if found in self._wanted:
                same = readings, _pairs(stated.units), _pairs(stated.quality), stated.location
                mine = topic_id, kind_id, observed_at if from_device else None, *same
                contents = self.contents.setdefault(found, {})
                contents[mine] = -1, max(observed_at, contents.get(mine, (-1, observed_at))[1])


def identity_of(event: Event, catalog: Catalog) -> Identity | None:
    """The identity of an event that is to be written."""
    detail = event.detail
    if detail is None:
        return None
    stated = Stated(detail.boot, detail.source_id, detail.vendor_type, detail.via)
    return identity(catalog.devices[event.device], catalog.words[event.kind], event.seq, stated)


def _kept(event: Event, *, conflict: bool | None) -> Event | None:
    """The event as it is to be written; None where it is left out."""
    if conflict is None:
        return event
    return _marked(event) if conflict else None


def _marked(event: Event) -> Event:
    detail = msgspec.structs.replace(event.detail or Detail(), conflict=True)
    return msgspec.structs.replace(event, detail=detail)


def without_copies(outcome: Outcome, copies: Sequence[tuple[int, str, int]]) -> Sequence[Event | None] | Rejection:
    """What became of a message that was read again, less what was left out of it, and marked where it was marked.

    `copies` are place, identity and whether it was kept. An event that calls itself otherwise now, or stands where it
    cannot be told from others, is kept as it is.
    """
    if isinstance(outcome, Rejection):
        return outcome
    found: list[Event | None] = [*outcome]
    told = [told_identity(event) for event in outcome]
    for place, name, conflict in copies:
        at = place if place < len(told) and told[place] == name else told.index(name) if told.count(name) == 1 else None
        if at is not None:
            found[at] = _marked(outcome[at]) if conflict else None
    return found


def _pairs(words: Mapping[str, str]) -> Pairs:
    return tuple(sorted(words.items()))


Row = Any
"""Device, kind, time of observation, whose time that is, number, readings, detail, topic."""

_decode_ids = msgspec.json.Decoder(list[int]).decode

_COLUMNS = (
    "e.device_id, e.kind_id, e.observed_at, e.from_device, e.seq, e.readings, e.detail,"
    f" (SELECT m.topic_id FROM messages_{{n}} AS m WHERE m.id = e.id / {EVENTS_PER_MESSAGE})"
)
_AT = (
    "SELECT (SELECT json_group_array(event_id) FROM (SELECT event_id FROM event_index_{n}"
    " WHERE device_id = wanted.value ->> 0 AND observed_at = wanted.value ->> 1 ORDER BY event_id DESC LIMIT ?2))"
    " FROM json_each(?1) AS wanted"
)
_BY_ID = (
    f"SELECT {_COLUMNS} FROM json_each(?) AS wanted CROSS JOIN events_{{n}} AS e ON e.id = wanted.value"
    " WHERE e.detail IS NOT NULL"
)
_OF_MESSAGES = (
    f"SELECT {_COLUMNS} FROM json_each(?) AS wanted CROSS JOIN events_{{n}} AS e"
    f" ON e.id BETWEEN wanted.value * {EVENTS_PER_MESSAGE} AND wanted.value * {EVENTS_PER_MESSAGE}"
    f" + {EVENTS_PER_MESSAGE - 1} WHERE e.detail IS NOT NULL"
)
_BEHIND = (
    f"SELECT {_COLUMNS} FROM events_{{n}} AS e WHERE e.id > ? AND e.detail IS NOT NULL"
    " AND (e.device_id, e.observed_at) IN (SELECT value ->> 0, value ->> 1 FROM json_each(?))"
)
_FORGOTTEN = "SELECT 1 FROM forgotten WHERE device_id = ?"
_COUNT = (
    "INSERT INTO copy_counts VALUES (?, ?, ?, ?) ON CONFLICT (device_id, boot) DO UPDATE SET"
    " duplicates = duplicates + excluded.duplicates, conflicts = conflicts + excluded.conflicts"
)
