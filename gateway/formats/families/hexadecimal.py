"""Bytes as hexadecimal text, which only their device can explain (RFC 4648, section 8), and JSON behind such a text."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence

from gateway.formats.body import Body
from gateway.formats.draft import Draft
from gateway.formats.format import Format, Unreadable, named
from storage.event import Event, Message

NAME = "binary_hex"

_MARKED = re.compile(r"0[xX](?:[0-9a-fA-F]{2})+")
_HEX = re.compile(r"(?:[0-9a-fA-F]{2})+")
_BASE64 = re.compile(r"[A-Za-z0-9+/]+={0,2}")


def read(message: Message, body: Body) -> Sequence[Event] | None:
    """What is in it, where that is JSON or compressed; else the text as it stands: only its device can explain it."""
    text = body.text
    if text is None:
        return None
    if packed := _packed(text):
        try:
            return body.read_inner(packed) or None
        except Unreadable:
            return None
    if not _MARKED.fullmatch(text):
        return None
    draft = Draft(NAME, message, body)
    draft.put(body.place.scalar_name, text)
    return [draft.event(named(body.place.scalar_device, body), body.place.kind)]


def _packed(text: str) -> bytes:
    digits = text[2:] if text[:2] in ("0x", "0X") else text
    try:
        if digits[:4] in ("7b22", "7B22", "1f8b", "1F8B") and _HEX.fullmatch(digits):
            return bytes.fromhex(digits)
        if text[:3] in ("eyJ", "W3s") and len(text) % 4 == 0 and _BASE64.fullmatch(text):
            return base64.b64decode(text)
    except binascii.Error:
        pass
    return b""


FORMATS: tuple[Format, ...] = (
    Format(name=NAME, read=read, starts=(b"0x", b"0X", b"7b22", b"7B22", b"1f8b", b"1F8B", b"eyJ", b"W3s")),
)
