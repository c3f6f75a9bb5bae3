"""Writes pages as text, compressed or not. Never looks into them."""

from __future__ import annotations

import time
import zlib
from typing import IO, Protocol

from storage.export.durable import sync
from storage.export.pages import Page
from storage.export.request import Compression, Done, Request
from storage.export.rows import SHAPES, csv_text

CHECKPOINT_S = 3.0
CHECKPOINT_BYTES = 256 << 20
"""So much is written at most, before compression, until it is made sure of: what a killed export has to do again."""


class TextSink:
    """JSON lines or CSV. What is compressed is so in pieces, each closed when it is made sure of: they add up."""

    def __init__(self, out: IO[bytes], request: Request, *, at: int | None = None) -> None:
        """`at` is where in a file it begins, None in a stream."""
        self._out = out
        self._durable = at is not None
        self._compression = request.compression
        self._press: Press | None = None
        self._header = ""
        if request.format == "csv" and not at:
            self._header = csv_text([SHAPES[request.rows].header(payload=request.payload)])
        self._waiting = 0
        self._due_at = time.monotonic() + CHECKPOINT_S

    @property
    def due(self) -> bool:
        return self._waiting >= CHECKPOINT_BYTES or time.monotonic() >= self._due_at

    def write(self, page: Page) -> None:
        self._put(f"{self._header}{page.text}".encode())
        self._header = ""

    def settle(self, done: Done) -> None:
        if self._header:
            self._put(self._header.encode())
            self._header = ""
        if self._press is not None:
            self._out.write(self._press.flush())
            self._press = None
        self._out.flush()
        if self._durable:
            sync(self._out)
            done.bytes = self._out.tell()
        self._waiting, self._due_at = 0, time.monotonic() + CHECKPOINT_S

    def _put(self, data: bytes) -> None:
        self._waiting += len(data)
        if self._compression:
            if self._press is None:
                self._press = make_press(self._compression)
            data = self._press.compress(data)
        self._out.write(data)


class Press(Protocol):
    """A compressor of one piece."""

    def compress(self, data: bytes, /) -> bytes: ...

    def flush(self) -> bytes: ...


def make_press(compression: Compression) -> Press:
    if compression == "gz":
        return zlib.compressobj(6, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    import zstandard

    return zstandard.ZstdCompressor(level=3).compressobj()
