"""Unpacks gzip and Zstandard on the way. Never knows what is inside."""

from __future__ import annotations

import io
import zlib
from typing import IO, Any, Protocol

from gateway.recordings.record import Unfit

PACKED_CHUNK = 4096
"""Small, since a few bytes may unpack to very many."""


def beginning(raw: IO[bytes]) -> bytes:
    """The first bytes, which are still to be read."""
    peek = getattr(raw, "peek", None)
    return b"" if peek is None else bytes(peek(4)[:4])


def packing_of(raw: IO[bytes]) -> str | None:
    first = beginning(raw)
    if first.startswith(b"\x1f\x8b"):
        return "gzip"
    return "zstd" if first.startswith(b"\x28\xb5\x2f\xfd") else None


class Unpacker(Protocol):
    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, /) -> bytes: ...


class Unpacked(io.RawIOBase):
    """What a gzip or Zstandard stream of any number of members holds. Raises Unfit where it is broken."""

    def __init__(self, raw: IO[bytes], packing: str) -> None:
        self._raw = raw
        self._packing = packing
        self._member: Unpacker | None = None
        self._packed = self._waiting = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._waiting:
            self._packed = self._packed or self._raw.read(PACKED_CHUNK)
            if not self._packed:
                if self._member is not None:
                    raise Unfit(f"is broken: it ends within {self._packing}")
                return 0
            self._waiting = self._unpack(self._packed)
        size = min(len(buffer), len(self._waiting))
        buffer[:size], self._waiting = self._waiting[:size], self._waiting[size:]
        return size

    def _unpack(self, packed: bytes) -> bytes:
        if self._member is None:
            self._member = make_unpacker(self._packing)
        try:
            found = self._member.decompress(packed)
        except Exception as fault:
            if isinstance(fault, zlib.error) or type(fault).__name__ == "ZstdError":
                raise Unfit(f"is broken: {fault}") from None
            raise
        self._packed = b""
        if self._member.eof:
            self._packed = self._member.unused_data
            self._member = None
        return found


def make_unpacker(packing: str) -> Unpacker:
    if packing == "gzip":
        return zlib.decompressobj(16 + zlib.MAX_WBITS)
    import zstandard

    return zstandard.ZstdDecompressor().decompressobj()
