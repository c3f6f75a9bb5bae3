"""A payload that gzip, zlib, Zstandard, bzip2 or xz packed, told by its magic (RFC 1952, 1950, 8878); and in Base64."""

from __future__ import annotations

import base64
import binascii
import bz2
import lzma
import re
import zlib
from collections.abc import Callable, Sequence
from typing import Protocol

import zstandard

from gateway.formats.body import Body
from gateway.formats.format import Format, Unreadable
from storage.event import Event, Message

NAME = "compressed"

# A block of Zstandard is 128 KiB at most, and as little as four bytes: so much may come out at once.
_ZSTD_PIECE = 256
_ZSTD_WINDOW = 2**27
_XZ_MEMORY = 2**26

_BASE64 = re.compile(r"[A-Za-z0-9+/]+={0,2}")
_BASE64_STARTS = (b"H4sI", b"KLUv/", b"Qlpo", b"/Td6WFoA", b"eAF", b"eAE", b"eF4", b"eJ", b"eN")


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int = ..., /) -> bytes: ...


def read(message: Message, body: Body) -> Sequence[Event] | None:  # noqa: ARG001  what is inside has its own topic
    """The events of what is packed in it, under the name of its format."""
    payload = _packed(body)
    magic = next((magic for magic in _MAGIC if payload.startswith(magic)), None)
    if magic is None:
        return None
    name, opened = _MAGIC[magic]
    try:
        inner = _unpacked(opened, payload, magic, body.options.unpacked_bytes)
    except _FAULTS as fault:
        if body.text is not None and (payload is body.payload or name == "zlib"):  # a text that begins like it
            return None
        raise Unreadable(f"broken {name} data: {fault}") from None
    return body.read_inner(inner)


def _packed(body: Body) -> bytes:
    """The payload as bytes, out of Base64 where it looks like that."""
    if not body.payload.startswith(_BASE64_STARTS):
        return body.payload
    text = body.text
    if text is None or len(text) % 4 or not _BASE64.fullmatch(text):
        return b""
    try:
        return base64.b64decode(text)
    except binascii.Error:
        return b""


def _unpacked(opened: Callable[[], _Decompressor], payload: bytes, magic: bytes, most: int) -> bytes:
    """One stream after the other, as `gzip -c a b` writes them."""
    found = b""
    while payload:
        stream = opened()
        found += stream.decompress(payload, most + 1 - len(found))
        if len(found) > most:
            raise Unreadable(f"unpacks to more than {most} bytes (unpacked_bytes)")
        if not stream.eof:
            raise EOFError("it is cut off")
        payload = stream.unused_data.lstrip(b"\0")  # padding
        if payload and not payload.startswith(magic[:2]):
            raise ValueError(f"{len(payload)} bytes behind its end")
    return found


class _Zstandard:
    """A decompressor of `zstandard` with the bounded output of those of the standard library."""

    def __init__(self) -> None:
        self._stream = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW).decompressobj()
        self._rest = b""

    @property
    def eof(self) -> bool:
        return self._stream.eof

    @property
    def unused_data(self) -> bytes:
        return self._stream.unused_data + self._rest

    def decompress(self, data: bytes, max_length: int = -1, /) -> bytes:
        """A little more than `max_length` at most."""
        found = bytearray()
        for at in range(0, len(data), _ZSTD_PIECE):
            found += self._stream.decompress(data[at : at + _ZSTD_PIECE])
            if self._stream.eof or 0 <= max_length <= len(found):
                self._rest = data[at + _ZSTD_PIECE :]
                break
        return bytes(found)


def _gzip() -> _Decompressor:
    return zlib.decompressobj(31)


def _xz() -> _Decompressor:
    return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)


_ZLIB = ("zlib", zlib.decompressobj)
_MAGIC: dict[bytes, tuple[str, Callable[[], _Decompressor]]] = {
    b"\x1f\x8b\x08": ("gzip", _gzip),
    b"\x78\x01": _ZLIB,
    b"\x78\x5e": _ZLIB,
    b"\x78\x9c": _ZLIB,
    b"\x78\xda": _ZLIB,
    b"\x28\xb5\x2f\xfd": ("Zstandard", _Zstandard),
    b"BZh": ("bzip2", bz2.BZ2Decompressor),
    b"\xfd7zXZ\0": ("xz", _xz),
}
"""Name and decompressor of each. `x^` and `BZh` begin texts as well."""

_FAULTS = (zlib.error, lzma.LZMAError, zstandard.ZstdError, EOFError, OSError, ValueError)

FORMATS: tuple[Format, ...] = (Format(name=NAME, read=read, starts=(*_MAGIC, *_BASE64_STARTS)),)
