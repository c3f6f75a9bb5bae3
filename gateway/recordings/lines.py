"""The lines of a stream with their numbers. Never holds one that is too long to be a message."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import IO

import msgspec

from gateway.recordings.record import Fault, Found, Record
from storage.event import Message

LINE_BYTES = 64 << 20
"""A longer line is no message: it is passed over, not held in memory."""


Line = tuple[int, bytes | None]
"""A line's number, counted from 1, and the line without its end; None is one that is too long."""

Lines = Iterable[Line]

TOO_LONG = f"is longer than {LINE_BYTES >> 20} MB"


def numbered_lines(stream: IO[bytes]) -> Iterator[Line]:
    number = 0
    while line := stream.readline(LINE_BYTES):
        number += 1
        if len(line) == LINE_BYTES and not line.endswith(b"\n"):
            while (rest := stream.readline(LINE_BYTES)) and not rest.endswith(b"\n"):
                pass
            yield number, None
            continue
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        yield number, line.removesuffix(b"\n")


def each(lines: Lines, read: Callable[[bytes], Message]) -> Found:
    """A record of each line that is not blank, or what is wrong with it."""
    for number, text in lines:
        if text is None:
            yield Fault(number, TOO_LONG)
            continue
        if not text.strip():
            continue
        try:
            yield Record(number, read(text))
        except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError) as fault:
            yield Fault(number, str(fault))
