"""EMQX Neuron's tags, its status, and what is written to it: https://docs.emqx.com/en/neuronex/latest/."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from gateway.formats.body import Body, Json
from gateway.formats.draft import Draft
from gateway.formats.format import Format, Unreadable, named
from storage.event import Event, Kind, Message

NAME = "neuron_modbus"

Object = dict[str, Json]

_ANSWERS = re.compile(r"([^/]+)/(?:read|write)/resp$")
_PARTS = frozenset({"node", "group", "timestamp", "tags", "values", "errors", "metas"})


def read(message: Message, body: Body) -> Sequence[Event] | None:
    """The tags of a group, the states of nodes, or a request to write."""
    document = body.document
    if not isinstance(document, dict):
        if body.json_fault and message.topic.startswith("/neuron/"):
            raise Unreadable(body.json_fault)
        return None
    draft = Draft(NAME, message, body)
    if _holds_tags(document):
        return [_tags(draft, document)]
    if _is_request(document):
        return [_request(draft, document)]
    if _holds_states(document):
        return list(_states(draft, document))
    if _is_answer(document):
        return [_answer(draft, body, document, message.topic)]
    stamp = document.get("timestamp")
    if message.topic.startswith("/neuron/") and type(stamp) is int and (inner := _with_node(document)) is not None:
        return [_custom(draft, inner, stamp)]
    return None


def _holds_tags(document: Object) -> bool:
    return (
        isinstance(document.get("node"), str)
        and isinstance(document.get("group"), str)
        and type(document.get("timestamp")) is int
        and (isinstance(document.get("values"), dict) or _is_named(document.get("tags"), "name"))
    )


def _is_request(document: Object) -> bool:
    """To read a group, or to write one or more of its tags."""
    if not all(isinstance(document.get(key), str) for key in ("uuid", "node", "group")):
        return False
    one = isinstance(document.get("tag"), str) and "value" in document
    return one or _is_named(document.get("tags"), "tag") or document.keys() == {"uuid", "node", "group"}


def _holds_states(document: Object) -> bool:
    return type(document.get("timestamp")) is int and _is_named(document.get("states"), "node")


def _is_answer(document: Object) -> bool:
    """To a request, whose node and group only its `uuid` can tell."""
    if not isinstance(document.get("uuid"), str):
        return False
    if document.keys() == {"uuid", "error"}:
        return type(document["error"]) is int
    return document.keys() <= {"uuid", "tags", "error"} and _is_named(document.get("tags"), "name")


def _is_named(items: Json, key: str) -> bool:
    return (
        isinstance(items, list)
        and bool(items)
        and all(isinstance(item, dict) and isinstance(item.get(key), str) for item in items)
    )


def _tags(draft: Draft, document: Object) -> Event:
    """What could not be read has an error code, which is not its value."""
    _put_tags(draft, document.get("tags"))
    _put_all(draft, document.get("values"))
    if isinstance(errors := document.get("errors"), dict):
        for name in errors:
            draft.put_missing(name, "bad")
    for key, node in document.items():
        if key not in _PARTS:
            draft.put(key, node)
    return draft.event(_device(document), stamp=document["timestamp"])


def _put_tags(draft: Draft, tags: Json) -> None:
    for tag in tags if isinstance(tags, list) else ():
        if isinstance(tag, dict) and isinstance(name := tag.get("name"), str):
            if "value" in tag:
                draft.put(name, tag["value"])
            else:
                draft.put_missing(name, "bad")


def _put_all(draft: Draft, values: Json) -> None:
    if isinstance(values, dict):
        for name, node in values.items():
            draft.put(name, node)


def _request(draft: Draft, document: Object) -> Event:
    if isinstance(tag := document.get("tag"), str):
        draft.put(tag, document.get("value"))
    elif isinstance(tags := document.get("tags"), list):
        for item in tags:
            if isinstance(item, dict):
                draft.put(str(item["tag"]), item.get("value"))
    return draft.event(_device(document), "command", source_id=str(document["uuid"]))


def _states(draft: Draft, document: Object) -> Iterator[Event]:
    """`link` is 1 where the node has reached its device, `running` is 3 where it is started."""
    states = document["states"]
    for state in states if isinstance(states, list) else ():
        if isinstance(state, dict):
            for key, node in state.items():
                if key != "node":
                    draft.put(key, node)
            yield draft.event(str(state["node"]), "availability", stamp=document["timestamp"])


def _answer(draft: Draft, body: Body, document: Object, topic: str) -> Event:
    """The topic names the node of Neuron that answers: `/neuron/<node>/read/resp`."""
    _put_tags(draft, document.get("tags"))
    if "error" in document:
        draft.put("error", document["error"])
    found = _ANSWERS.search(topic)
    kind: Kind | None = "event" if "error" in document else None
    return draft.event(found[1] if found else named(body.place.device, body), kind, source_id=str(document["uuid"]))


# What users lay out as they like, with the node and the group somewhere in it


def _with_node(document: Object, depth: int = 0) -> Object | None:
    """The object that names the node and the group; levels of a custom format are three at most."""
    if isinstance(document.get("node"), str) and isinstance(document.get("group"), str):
        return document
    inner = (_with_node(node, depth + 1) for node in document.values() if isinstance(node, dict) and depth < 3)
    return next((node for node in inner if node is not None), None)


def _custom(draft: Draft, document: Object, timestamp: Json) -> Event:
    for key, node in document.items():
        if _is_named(node, "name"):
            _put_tags(draft, node)
        elif isinstance(node, dict) and "error" in key:
            for name in node:
                draft.put_missing(name, "bad")
        elif key.endswith("values"):
            _put_all(draft, node)
        elif key not in _PARTS:
            draft.put(key, node)
    return draft.event(_device(document), stamp=timestamp)


def _device(document: Object) -> str:
    """Groups are read each at its own interval; tags of two groups may have one name."""
    return f"{document['node']}/{document['group']}"


FORMATS: tuple[Format, ...] = (
    Format(
        name=NAME,
        read=read,
        topics=("/neuron/#",),
        keys=(
            frozenset({"node", "group", "timestamp", "values"}),
            frozenset({"node", "group", "timestamp", "tags"}),
            frozenset({"node", "group", "uuid"}),
            frozenset({"uuid", "tags"}),
            frozenset({"uuid", "error"}),
            frozenset({"timestamp", "states"}),
        ),
    ),
)
