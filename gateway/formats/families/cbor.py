"""CBOR maps and arrays (RFC 8949)."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import DecimalException
from io import BytesIO

import cbor2

from gateway.formats import json
from gateway.formats.body import Body
from gateway.formats.format import Format
from gateway.formats.natives import Natives
from storage.event import Event, Message

NAME = "cbor"

# Arrays and maps, none of which begins a text in UTF-8, and the tag that says: this is CBOR.
_STARTS = (*(bytes([first]) for first in range(0x80, 0xC0)), b"\xd9\xd9\xf7")


def read(message: Message, body: Body) -> Sequence[Event] | None:
    """What JSON of the same shape gives, where the whole payload is one map or array."""
    if not body.payload.startswith(_STARTS):
        return None
    rest = BytesIO(body.payload)
    try:
        document = cbor2.CBORDecoder(rest).decode()
    except (cbor2.CBORError, DecimalException, ValueError, RecursionError, OverflowError, TypeError, MemoryError):
        return None
    if rest.read(1) or not document or not isinstance(document, (dict, list)):
        return None
    return json.events(Natives(body.options).document(document), message, body, NAME)


FORMATS: tuple[Format, ...] = (Format(name=NAME, read=read, starts=_STARTS, content_types=("application/cbor",)),)
