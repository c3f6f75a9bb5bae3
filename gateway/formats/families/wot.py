"""W3C Web of Things: descriptions and the topics that their forms name (https://w3c.github.io/wot-binding-templates/bindings/protocols/mqtt/)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import takewhile
from urllib.parse import unquote

from gateway.formats import units
from gateway.formats.body import Body, Json
from gateway.formats.draft import Draft
from gateway.formats.format import Format, Lesson, Unreadable, named
from gateway.formats.topics import GENERIC_WORDS
from storage.event import Event, Kind, Message

NAME = "wot"

Object = dict[str, Json]

_KINDS: dict[str, Kind] = {"actions": "command", "events": "event"}
_INTERACTIONS = ("properties", "actions", "events")


def read(message: Message, body: Body) -> Sequence[Event] | None:
    """A description, or what is sent on a topic that a description names, or that is named as node-wot names them."""
    lesson = body.learned.get(NAME, message.topic)
    if isinstance(lesson, dict):
        device = lesson.get("device")
        return [_interaction(message, body, lesson, device if isinstance(device, str) else None)]
    document = body.document
    if isinstance(document, dict) and _is_description(document):
        return [_description(Draft(NAME, message, body), document)]
    levels = message.topic.split("/")
    # Others have JSON on such topics as well, and say what it is by its keys: Shelly BLU on `shelly-blu/events/<mac>`.
    ours = levels[1:2] == ["actions"] or (document is None and not body.json_fault)
    if ours and len(levels) == 3 and levels[1] in _KINDS and all(levels) and body.text is not None:
        return [_interaction(message, body, {"name": levels[2], "sort": levels[1]}, levels[0])]
    return None


def teach(message: Message, body: Body) -> Iterator[Lesson]:
    """For each topic of a description's forms: which interaction it carries, and in what unit."""
    document = body.document
    if not isinstance(document, dict) or not _is_description(document):
        return
    found: list[tuple[str, Object]] = [
        (topic, {"name": name, "sort": sort, "units": _units(name, affordance, sort), "written": written})
        for sort, name, affordance in _affordances(document)
        for topic, written in _topics(affordance.get("forms"))
        if topic != message.topic
    ]
    shared: Object = {"device": _device([topic for topic, _ in found]) or _name(document)}
    if isinstance(title := document.get("title"), str):
        shared["title"] = title
    for topic, value in found:
        yield Lesson(key=topic, value=shared | value, topics=(topic,))


# node-wot, the reference implementation, names its topics `<thing>/actions/<action>` and `<thing>/events/<event>`.
FORMATS: tuple[Format, ...] = (
    Format(
        name=NAME,
        read=read,
        topics=("+/actions/+", "+/events/+"),
        keys=(frozenset({"securityDefinitions", "security"}),),
        teach=teach,
        learned_topics=True,
    ),
)


def _is_description(node: Object) -> bool:
    context = node.get("@context")
    contexts = context if isinstance(context, list) else [context]
    known = any(isinstance(word, str) and "/wot/td" in word for word in contexts)
    return known or ("securityDefinitions" in node and any(isinstance(node.get(sort), dict) for sort in _INTERACTIONS))


def _affordances(document: Object) -> Iterator[tuple[str, str, Object]]:
    for sort in _INTERACTIONS:
        affordances = document.get(sort)
        for name, affordance in affordances.items() if isinstance(affordances, dict) else ():
            if isinstance(affordance, dict):
                yield sort, name, affordance


def _device(topics: Sequence[str]) -> str | None:
    """What all the topics of a Thing begin with ends in what they call it, as they do before the description comes."""
    paths = [topic.split("/")[:-1] for topic in topics]
    common = takewhile(lambda levels: len(set(levels)) == 1, zip(*paths, strict=False))
    named_so = [level for level, *_ in common if level and level.lower() not in GENERIC_WORDS]
    return named_so[-1] if named_so else None


def _name(node: Object) -> str | None:
    return next((word for word in (node.get("id"), node.get("title")) if isinstance(word, str) and word.strip()), None)


def _description(draft: Draft, node: Object) -> Event:
    for key in ("id", "title", "description", "modified", "created"):
        if isinstance(node.get(key), str):
            draft.put(key, node[key])
    version = node.get("version")
    if isinstance(version, dict):
        draft.put("version", version)
    device = _name(node)
    if device is None:
        raise Unreadable("a Thing Description without a title")
    return draft.event(device, "discovery", vendor_type="td")


def _interaction(message: Message, body: Body, lesson: Object, device: str | None = None) -> Event:
    name, sort, title = str(lesson.get("name")), str(lesson.get("sort")), lesson.get("title")
    draft = Draft(NAME, message, body)
    if body.document is not None:
        draft.put(name, body.document)
    elif body.json_fault or body.text is None:
        raise Unreadable(body.json_fault or body.text_fault)
    elif body.text or sort == "properties":
        draft.put_scalar(name, body.text)
    _add_units(draft, lesson.get("units"))
    kind = "command" if lesson.get("written") else _KINDS.get(sort)
    vendor_type = f"{title} {sort}" if isinstance(title, str) else sort
    return draft.event(device or named(body.place.scalar_device, body), kind, vendor_type=vendor_type)


def _add_units(draft: Draft, named_units: Json) -> None:
    for name, unit in named_units.items() if isinstance(named_units, dict) else ():
        if name in draft.readings and isinstance(unit, str) and (code := units.code(unit)):
            draft.units[name] = code
            draft.unit_sources[name] = "learned"


def _units(name: str, affordance: Object, sort: str) -> dict[str, Json]:
    """The units of a value and of the members of an object, by reading name."""
    part = {"actions": "input", "events": "data"}.get(sort)
    schema = affordance.get(part) if part else affordance
    found: dict[str, Json] = {}
    if isinstance(schema, dict):
        members = schema.get("properties")
        schemas = {name: schema}
        for member, inner in members.items() if isinstance(members, dict) else ():
            if isinstance(inner, dict):
                schemas[f"{name}.{member}"] = inner
        for key, inner in schemas.items():
            if code := _code(inner.get("unit")):
                found[key] = code
    return found


def _code(unit: Json) -> str | None:
    """Descriptions write units as they like: `celsius`, `om2:degreeCelsius`, `qudt:DEG_C`, `Cel`."""
    if not isinstance(unit, str):
        return None
    local = unit.rpartition(":")[2].rpartition("/")[2].rpartition("#")[2] if ":" in unit else unit
    snake = "".join(f"_{sign.lower()}" if sign.isupper() else sign for sign in local).lstrip("_")
    words = (unit, local, local.lower(), snake)
    return next((code for word in words if (code := units.code(word))), None)


def _topics(forms: Json) -> Iterator[tuple[str, bool]]:
    """The topics of an interaction, without those that hold wildcards; and whether it is only written there."""
    operations: dict[str, set[str]] = {}
    for form in forms if isinstance(forms, list) else [forms]:
        if isinstance(form, dict):
            for topic in _topics_of(form):
                if topic and len(topic) <= 512 and not any(sign in topic for sign in "+#"):
                    operation = form.get("op")
                    given = operation if isinstance(operation, list) else [operation]
                    operations.setdefault(topic, set()).update(str(word) for word in given)
    for topic, words in operations.items():
        yield topic, words == {"writeproperty"}


def _topics_of(form: Object) -> list[str]:
    found = [form.get(key) for key in ("mqv:topic", "mqv:filter", "mqtt:topic", "mqtt:filter")]
    flat = [word for item in found for word in (item if isinstance(item, list) else [item]) if isinstance(word, str)]
    href = form.get("href")
    if not flat and isinstance(href, str) and href.startswith(("mqtt://", "mqtts://")):
        flat = [unquote(href.partition("://")[2].partition("/")[2])]  # as the first drafts had it
    return flat
