"""Bytes to text and text to storable text; never guesses an encoding."""

from __future__ import annotations

import re

# Lone surrogates cannot be encoded as UTF-8, and PostgreSQL stores no NUL: both would fail a whole batch of inserts.
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
# Tab, line ends and the escape of terminal colours occur in texts; other control characters only in binary payloads.
_BINARY = re.compile("[\x00-\x08\x0e-\x1a\x1c-\x1f]")
_SPACE = " \t\r\n\v\f"


def decoded(payload: bytes) -> str:
    """UTF-8, or UTF-16 behind its byte order mark; without the mark, and without what C programs leave at the end.

    Raises ValueError with the reason.
    """
    encoding = "utf-16" if payload.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8"
    try:
        text = payload.decode(encoding).removeprefix("\ufeff").strip(_SPACE)
    except UnicodeDecodeError as fault:
        where = f"byte 0x{payload[fault.start]:02x} at {fault.start}" if fault.start < len(payload) else "the end"
        raise ValueError(f"{where} is not {encoding.upper()} text") from None
    return text.rstrip(_SPACE + "\0") or text


def binary_at(text: str) -> int | None:
    """Where a text holds what no text holds."""
    found = _BINARY.search(text)
    return found.start() if found else None


def storable(text: str) -> str:
    """The text with U+FFFD for what no store takes; the message keeps the original."""
    # What is printable holds neither, and that is quickly told.
    return text if text.isprintable() else _UNSTORABLE.sub("\ufffd", text)


def shortened(text: str, chars: int = 200) -> str:
    """A text for a reason: storable, on one line, and short."""
    line = " ".join(storable(text[: 2 * chars]).split())
    return line if len(line) <= chars else f"{line[:chars]}…"
