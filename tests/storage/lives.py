"""Histories of few devices that live: come, go, measure, send late, have odd clocks. Beside them the plain truth."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from random import Random
from typing import NamedTuple

import msgspec

from storage.event import Detail, Entry, Event, Kind, Message, Outcome, Rejection, StoredEvent, Value
from storage.snapshot import OpenLog
from storage.summaries import Summary
from storage.summaries.keeping import Keeper
from storage.summaries.latest import Latest
from storage.summaries.presence import Presence, told
from tests.storage.histories import NOON

SECOND = 1_000_000
HOUR = 3_600 * SECOND
DEVICES = "pump", "lamp", "pumpe", ""
READINGS = "temperature", "state", "", 'a"b'
KINDS: tuple[Kind, ...] = ("measurement", "measurement", "state", "availability", "birth", "death", "command")
SKEWS = (0, 0, 0, -SECOND, -90 * SECOND, -2 * HOUR, 48 * HOUR, 10**18, -(2**63) - NOON, 2**62 - NOON)
NOT_SET = 5 * SECOND


def keeper(path: Path, summaries: Sequence[Callable[[OpenLog], Summary]] = (Latest, Presence)) -> Keeper:
    return Keeper(path, summaries)


def keep(path: Path) -> None:
    """Let a keeper come, do its work and go."""
    with keeper(path) as kept:
        kept.catch_up()


def said(n: int, *events: Event, retain: bool = False, at: int | None = None) -> Entry:
    """The n-th message, n seconds after noon."""
    return Message("t", b"%d" % n, 0, retain, NOON + n * SECOND if at is None else at), events


def measured(device: str, n: float, readings: dict[str, Value], *, kind: Kind = "measurement", **more: object) -> Event:
    """What was observed n seconds after noon."""
    return msgspec.structs.replace(Event(device, kind, "json", NOON + int(n * SECOND), readings), **more)


def living(random: Random, count: int, first: int) -> list[Entry]:
    return [_said(random, number) for number in range(first, first + count)]


def _said(random: Random, number: int) -> Entry:
    received_at = NOON + number * random.choice((SECOND, SECOND, SECOND - 1)) + random.choice((0, 0, -20 * SECOND))
    return (
        Message("t", b"%d" % number, 0, random.random() < 0.2, received_at),
        lived(random, received_at),
    )


def lived(random: Random, received_at: int) -> Outcome:
    """What became of a message: now and then nothing, or more than one event."""
    if random.random() < 0.1:
        return Rejection("no")
    return [_lived(random, received_at) for _ in range(random.choice((1, 1, 1, 2)))]


def _lived(random: Random, received_at: int) -> Event:
    kind = random.choice(KINDS)
    names = random.sample(READINGS, random.randrange(len(READINGS)))
    values: tuple[Value, ...] = (21.5, 7, True, None, "online", "offline", '"x', -0.0)
    observed_at = NOT_SET if random.random() < 0.1 else received_at + random.choice(SKEWS)
    return Event(
        device=random.choice(DEVICES),
        kind=kind,
        format=random.choice(("json", "senml")),
        observed_at=max(observed_at, -(2**63)),
        readings={name: random.choice(values) for name in names},
        detail=Detail(quality={"temperature": "bad"}) if random.random() < 0.2 else None,
    )


class Truth(NamedTuple):
    """What is known of a device, told by looking at all its events."""

    events: int
    first_received_at: int
    last_position: int
    online: bool | None
    online_since: int | None


def at(event: StoredEvent) -> int:
    set_since = 978_307_200_000_000
    return min(event.observed_at, event.received_at) if event.observed_at >= set_since else event.received_at


def newest_values(events: Iterable[StoredEvent]) -> dict[tuple[str, str], tuple[int, int, str, str | None]]:
    """Device and reading → event id, at, value and quality of the newest."""
    found: dict[tuple[str, str], tuple[int, int, str, str | None]] = {}
    for event in events:
        detail = msgspec.json.decode(event.detail or "{}")
        for reading, value in msgspec.json.decode(event.readings).items():
            known = found.get((event.device, reading))
            if event.kind != "command" and (known is None or (at(event), event.id) > (known[1], known[0])):
                text = msgspec.json.encode(value).decode()
                quality = detail.get("quality", {}).get(reading, "missing" if value is None else None)
                found[event.device, reading] = event.id, at(event), text, quality
    return found


def truths(events: Iterable[StoredEvent]) -> dict[str, Truth]:
    found: dict[str, Truth] = {}
    said_last: dict[str, tuple[int, int]] = {}
    for event in events:
        before = found.get(event.device, Truth(0, event.received_at, 0, None, None))
        online, since = before.online, before.online_since
        last = said_last.get(event.device, (-(2**63), 0))
        word = told(event.kind, msgspec.json.decode(event.readings))
        if word is not None:
            told_at = at(event) if word or event.retain else event.received_at  # a will is older than what it says
            counts = (told_at, event.id) > last
        else:
            sign = online is False and event.kind != "command" and not event.retain
            word, told_at, counts = True, event.received_at, sign and event.received_at > last[0]
        if counts:
            said_last[event.device] = told_at, event.id
            online, since = (word, told_at) if word != online else (online, since)
        found[event.device] = Truth(before.events + 1, before.first_received_at, event.id, online, since)
    return found
