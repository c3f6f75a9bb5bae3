"""OwnTracks: where phones and trackers are, and what else their apps say.

https://owntracks.org/booklet/tech/json/
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gateway.formats.body import Body, Json
from gateway.formats.draft import Draft
from gateway.formats.format import Format, Unreadable
from gateway.formats.nodes import number, objects, unquoted
from storage.event import Event, Kind, Message

NAME = "owntracks"

Object = dict[str, Json]

_UNITS = {
    "acc": "m",
    "aiv": "V",
    "alt": "m",
    "batt": "%",
    "cog": "deg",
    "dist": "m",
    "doff": "s",
    "don": "s",
    "flvl": "%",
    "hmc": "s",
    "lat": "deg",
    "lon": "deg",
    "odometer": "km",
    "p": "kPa",
    "rad": "m",
    "rpm": "rpm",
    "rssi": "dBm",
    "trip": "m",
    "ubatt": "V",
    "uext": "V",
    "vac": "m",
    "vel": "km/h",
}
_PROBE = "temp_c-"  # of a numbered analogue input
_SUFFIXES = frozenset(
    {"beacon", "cmd", "dump", "event", "info", "msg", "request", "status", "step", "waypoint", "waypoints"}
)
# A configuration holds the credentials of the app; a face is a picture.
_UNSAID = frozenset({"_type", "topic", "password", "tlsClientCrtPassword", "encryptionKey", "face"})


def read(message: Message, body: Body) -> Sequence[Event] | None:
    """One event of a message that names one of the documented types."""
    document = body.document
    if document is None:
        return _no_json(message, body)
    sort = document.get("_type") if isinstance(document, dict) else None
    if not isinstance(document, dict) or not isinstance(sort, str):
        return None
    kind = _KINDS.get(sort)
    if kind is None:
        return None
    # Over HTTP there is no topic: the payload bears it.
    topic = document.get("topic")
    device = _device(topic if isinstance(topic, str) and topic else message.topic)
    draft = Draft(NAME, message, body)
    _CONTENTS.get(sort, _put_content)(draft, document)
    return [
        draft.event(
            device,
            kind,
            stamp=unquoted(document.get("tst")) if sort in _STAMPED else None,
            vendor_type=sort,
            placed=sort in ("location", "transition"),
        )
    ]


def _no_json(message: Message, body: Body) -> Sequence[Event] | None:
    """A text, or the empty payload by which a card or a will is taken back: the device is known all the same."""
    levels = message.topic.split("/")
    if levels[0] != "owntracks":
        return None
    if body.json_fault:
        raise Unreadable(body.json_fault)
    if len(levels) < 3 or body.text is None:
        return None
    draft = Draft(NAME, message, body)
    if body.text:
        draft.put("text", body.text)
    kind: Kind = "command" if levels[-1] == "cmd" else "other"
    return [draft.event(_device(message.topic), kind)]


def _device(topic: str) -> str:
    """`jane/phone`: user and device, whatever the prefix."""
    levels = [level for level in topic.split("/") if level]
    if len(levels) > 2 and levels[-1] in _SUFFIXES:
        levels.pop()
    return "/".join(levels[-2:]) or "unknown"


_KINDS: dict[str, Kind] = {
    "beacon": "measurement",
    "card": "other",
    "cmd": "command",
    "configuration": "state",
    "dump": "state",
    "encrypted": "other",
    "location": "location",
    "lbs": "other",
    "lwt": "availability",
    "msg": "other",
    "request": "command",
    "status": "state",
    "steps": "measurement",
    "transition": "event",
    "waypoint": "other",
    "waypoints": "other",
}
# The `tst` of a waypoint is when it was made, that of a will when the app had connected.
_STAMPED = frozenset({"beacon", "location", "steps", "transition"})


def _put_content(draft: Draft, document: Object) -> None:
    _put(draft, "", document, "tst")


def _put_all(draft: Draft, document: Object) -> None:
    _put(draft, "", document, "")


def _put(draft: Draft, path: str, document: Object, unsaid: str) -> None:
    for key, value in document.items():
        if key in _UNSAID or key == unsaid:
            continue
        unit = _UNITS.get(key) or ("Cel" if key.startswith(_PROBE) else None)
        if isinstance(value, dict) and not path:  # the configuration in a dump or a command
            _put(draft, f"{key}.", value, "")
        elif isinstance(value, (dict, list)):
            draft.put(f"{path}{key}", value)
        else:
            plain = unquoted(value) if unit else value
            draft.put_value(f"{path}{key}", _scalar(plain), unit, source="format")


def _scalar(value: Json) -> bool | float | str | None:
    return None if isinstance(value, (dict, list)) else value


def _put_steps(draft: Draft, document: Object) -> None:
    # `from` and `to` are the times between which was counted; -1 says that nothing can be.
    if (steps := number(document.get("steps"))) is not None and steps >= 0:
        draft.put("steps", steps)
    else:
        draft.put_missing("steps", "bad" if steps is not None else None)


def _put_waypoints(draft: Draft, document: Object) -> None:
    for at, waypoint in enumerate(objects(document.get("waypoints"))):
        _put(draft, f"waypoints.{at}.", waypoint, "")
    _put(draft, "", {key: value for key, value in document.items() if key != "waypoints"}, "")


def _put_will(draft: Draft, document: Object) -> None:
    draft.put("online", node=False)
    if "tst" in document:
        draft.put("tst", document["tst"])


def _put_nothing(draft: Draft, document: Object) -> None:
    """A ciphertext says nothing; the message keeps it."""


_CONTENTS: dict[str, Callable[[Draft, Object], None]] = {
    "configuration": _put_waypoints,
    "dump": _put_waypoints,
    "cmd": _put_all,
    "encrypted": _put_nothing,
    "lwt": _put_will,
    "steps": _put_steps,
    "waypoint": _put_all,
    "waypoints": _put_waypoints,
}

FORMATS: tuple[Format, ...] = (Format(name=NAME, read=read, topics=("owntracks/#",), keys=(frozenset({"_type"}),)),)
