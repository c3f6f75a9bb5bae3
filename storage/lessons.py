"""What messages taught the formats, and what is to be read again for it. Runs inside the caller's transaction."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import msgspec
from sqlalchemy import delete, insert, select

from storage import schema
from storage.event import Fact, Lessons, PendingReread, Reread

if TYPE_CHECKING:
    from sqlalchemy import Connection


def learn(connection: Connection, lessons: Lessons, last_message_id: int, stored: Callable[[int], int] = int) -> None:
    """Enter what a batch of messages taught; `last_message_id` is the last before the batch.

    `stored` tells how many of the first so many messages of the batch are in the log.
    """
    learn_facts(connection, lessons.facts)
    for reread in lessons.rereads:
        topics = msgspec.json.encode(reread.topics).decode()
        values = {
            "format": reread.format,
            "topics": topics,
            "recent_messages": reread.recent_messages,
            "provisional_only": +reread.provisional_only,
            "up_to_message_id": last_message_id + stored(reread.before),
        }
        connection.execute(insert(schema.rereads).values(**values))


def learn_facts(connection: Connection, facts: Iterable[Fact]) -> None:
    """A fact with another value than before is a new one, and the last; with the same value it stays where it is."""
    newest: dict[tuple[str, str], str | None] = {}
    for fact in facts:
        newest.pop((fact.format, fact.key), None)
        newest[fact.format, fact.key] = fact.value
    # A first connect may bring tens of thousands: a statement built for each would take three seconds for ten thousand.
    outdated = [(*at, value) for at, value in newest.items()]
    if outdated:
        connection.exec_driver_sql("DELETE FROM facts WHERE format = ? AND key = ? AND value IS NOT ?", outdated)
    now = time.time_ns() // 1000
    known = [(*at, value, now) for at, value in newest.items() if value is not None]
    if known:
        connection.exec_driver_sql(_LEARN, known)


def known_facts(connection: Connection) -> list[Fact]:
    """All that is known, in the order in which it was learned."""
    facts = schema.facts
    rows = connection.execute(select(facts.c.format, facts.c.key, facts.c.value).order_by(facts.c.id))
    return [Fact(format, key, value) for format, key, value in rows]


def pending_rereads(connection: Connection) -> list[PendingReread]:
    """What is yet to be read again, oldest first."""
    rows = connection.execute(select(*schema.rereads.c).order_by(schema.rereads.c.id))
    return [
        PendingReread(id, Reread(format, msgspec.json.decode(topics, type=tuple[str, ...]), recent, bool(only)), up_to)
        for id, format, topics, recent, only, up_to in rows
    ]


def settle(connection: Connection, reread_id: int) -> None:
    """A reread is done; a second time says nothing new."""
    connection.execute(delete(schema.rereads).where(schema.rereads.c.id == reread_id))


def storable_lessons(lessons: Lessons) -> Lessons:
    """The lessons without those that no column can hold."""
    return Lessons(
        tuple(fact for fact in lessons.facts if _is_text(fact.format, fact.key, fact.value or "")),
        tuple(
            reread
            for reread in lessons.rereads
            if _is_text(reread.format, *reread.topics) and 0 <= reread.recent_messages < 2**63
        ),
    )


_LEARN = "INSERT INTO facts (format, key, value, learned_at) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING"


def _is_text(*texts: str) -> bool:
    try:
        "".join(texts).encode()
    except UnicodeEncodeError:
        return False
    return True
