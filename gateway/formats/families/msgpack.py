"""MessagePack maps and arrays: https://github.com/msgpack/msgpack/blob/master/spec.md."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from gateway.formats import json
from gateway.formats.body import Body
from gateway.formats.format import Format
from gateway.formats.natives import Natives
from storage.event import Event, Message

NAME = "msgpack"

# No text in UTF-8 begins with these bytes of small maps and arrays; with the others it may.
_SMALL = tuple(bytes([first]) for first in range(0x80, 0xA0))
_LARGE = (b"\xdc", b"\xdd", b"\xde", b"\xdf")

_decode = msgspec.msgpack.Decoder().decode


def read(message: Message, body: Body) -> Sequence[Event] | None:
    """What JSON of the same shape gives, where the whole payload is one map or array."""
    if not body.payload.startswith(_SMALL) and (not body.payload.startswith(_LARGE) or body.text is not None):
        return None
    try:
        document = _decode(body.payload)
    except (msgspec.MsgspecError, ValueError, RecursionError, OverflowError):
        return None
    if not document or not isinstance(document, (dict, list)):
        return None
    return json.events(Natives(body.options).document(document), message, body, NAME)


FORMATS: tuple[Format, ...] = (
    Format(
        name=NAME,
        read=read,
        starts=(*_SMALL, *_LARGE),
        content_types=("application/msgpack", "application/x-msgpack", "application/vnd.msgpack"),
    ),
)
