"""Messages that are nearly right: those of the golden cases, with something about each made wrong."""

from __future__ import annotations

import json
import random
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from storage.event import Message, Properties
from tests.formats.test_cases import CASES, Case

MOST_SEED_BYTES = 20_000

ODD: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2**31, 2**53 + 1, 2**63, -(2**63) - 1, 10**400, 0.0, -0.0, 1e308, 1e-320, 327.67),
    *(float("nan"), float("inf")),
    *(
        "",
        " ",
        "0",
        "-1",
        "NaN",
        "true",
        "null",
        "1e999",
        "08:00",
        "2026-02-30T25:61:61",
        "\ud800",
        "\0",
        "°C",
        "$",
        "/",
    ),
    *("x" * 600, "9" * 400, "a.b[0].{{ c }}", "=1;DROP", "%s%n", "../..", "😀" * 40),
    *([], {}, [[]], [None], {"": ""}, {"value": None}, {"a": {"b": {"c": {}}}}, list(range(80)), [{"n": 1}, 2, "x"]),
)
ODD_LEVELS = ("", " ", "$SYS", "set", "get", "state", "x" * 300, "12", "a.b", "0", "é", "{{}}", "%2f")
WORDS = (
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b"=",
    b" ",
    b"\n",
    b"\0",
    b"\xff",
    b"|",
    b"#",
    b"<",
    b"&",
    b"\x1f\x8b",
    b'"',
    b"-",
)


@cache
def seeds(folder: Path = CASES) -> tuple[tuple[str, Message], ...]:
    """The family and the message of each golden case, and of what comes before it."""
    found = []
    for path in sorted(folder.rglob("*.json")):
        case = msgspec.json.decode(path.read_bytes(), type=Case)
        found += [(path.parent.name, sent.message()) for sent in (*case.before, case)]
    return tuple((family, sent) for family, sent in found if len(sent.payload) <= MOST_SEED_BYTES)


@cache
def families() -> tuple[str, ...]:
    return tuple(dict.fromkeys(family for family, _ in seeds()))


@cache
def vocabulary(family: str) -> tuple[str, ...]:
    """The keys that stand anywhere in the JSON of a family's cases."""
    words: dict[str, None] = {}
    for known, sent in seeds():
        if known == family:
            _collect(_document(sent.payload), words)
    return tuple(words) or ("value",)


def mutant(rng: random.Random, sent: Message, others: tuple[tuple[str, Message], ...]) -> Message:
    """The message with one to three things wrong."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        sent = rng.choice(_WRONGS)(rng, sent, others)
    return sent


def wrong_json(rng: random.Random, document: Any, words: tuple[str, ...]) -> Any:
    """A JSON document with one node exchanged, renamed, dropped, doubled or wrapped."""
    if isinstance(document, dict) and document and rng.random() < 0.8:
        key = rng.choice(list(document))
        what = rng.random()
        if what < 0.15:
            return {k: v for k, v in document.items() if k != key}
        if what < 0.3:
            return {**document, rng.choice(words): document[key]}
        return {**document, key: wrong_json(rng, document[key], words)}
    if isinstance(document, list) and document and rng.random() < 0.8:
        at = rng.randrange(len(document))
        if rng.random() < 0.2:
            return document + document[at:]
        return [*document[:at], wrong_json(rng, document[at], words), *document[at + 1 :]]
    return rng.choice((rng.choice(ODD), [document], {rng.choice(words): document}, str(document)[:100]))


def _wrong_node(rng: random.Random, sent: Message, others: tuple[tuple[str, Message], ...]) -> Message:
    document = _document(sent.payload)
    if document is None:
        return _wrong_bytes(rng, sent, others)
    words = tuple(document) if isinstance(document, dict) and document else ("value",)
    text = json.dumps(wrong_json(rng, document, words), ensure_ascii=rng.random() < 0.5)
    return msgspec.structs.replace(sent, payload=text.encode("utf-8", "surrogatepass"))


def _wrong_bytes(rng: random.Random, sent: Message, _others: tuple[tuple[str, Message], ...]) -> Message:
    payload = sent.payload
    at = rng.randrange(len(payload) + 1)
    to = min(len(payload), at + rng.choice((0, 1, 2, 8, 64)))
    cut = payload[at:to]
    put = rng.choice((b"", cut + cut, rng.randbytes(len(cut) or 1), rng.choice(WORDS), cut * 40))
    changed = payload[:at] if rng.random() < 0.2 else payload[:at] + put + payload[to:]
    return msgspec.structs.replace(sent, payload=changed)


def _wrong_topic(rng: random.Random, sent: Message, _others: tuple[tuple[str, Message], ...]) -> Message:
    levels = sent.topic.split("/")
    at = rng.randrange(len(levels))
    level = rng.choice((*ODD_LEVELS, *levels))
    changed = rng.choice((levels[:at] + levels[at + 1 :], [*levels[:at], level, *levels[at:]], [*levels[:at], level]))
    return msgspec.structs.replace(sent, topic="/".join(changed))


def _strange_payload(rng: random.Random, sent: Message, others: tuple[tuple[str, Message], ...]) -> Message:
    return msgspec.structs.replace(sent, payload=rng.choice(others)[1].payload)


def _strange_properties(rng: random.Random, sent: Message, others: tuple[tuple[str, Message], ...]) -> Message:
    marked = [other.properties for _, other in others if other.properties is not None]
    odd = Properties(content_type=str(rng.choice(ODD_LEVELS)), user=(("id", ""), ("type", "\0"), ("time", "x")))
    return msgspec.structs.replace(sent, properties=rng.choice([None, odd, *marked[:20]]))


_WRONGS = (
    _wrong_node,
    _wrong_node,
    _wrong_node,
    _wrong_bytes,
    _wrong_bytes,
    _wrong_topic,
    _strange_payload,
    _strange_properties,
)


def _document(payload: bytes) -> Any:
    try:
        document = json.loads(payload)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, (dict, list)) else None


def _collect(node: Any, words: dict[str, None]) -> None:
    if isinstance(node, dict):
        words.update(dict.fromkeys(node))
        node = list(node.values())
    if isinstance(node, list):
        for inner in node[:50]:
            _collect(inner, words)
