"""Looks at the first lines of a file to see what it holds, and opens it as that. Never reads a line itself."""

from __future__ import annotations

import io
from itertools import chain, islice
from typing import IO

import msgspec

from gateway.recordings import csv, exports, parquet
from gateway.recordings.lines import Line, Lines, each, numbered_lines
from gateway.recordings.messages import JsonMessages, decode_object
from gateway.recordings.mosquitto import is_spoken, leading_time, mosquitto_message, plain_message
from gateway.recordings.packing import Unpacked, beginning, packing_of
from gateway.recordings.record import Found, Options, Unfit, now

SAMPLE_LINES = 20


def records(raw: IO[bytes], options: Options, *, at_hand: bool) -> Found:
    """What is in a stream, in its order; `at_hand` is whether it can be gone back in and has an end.

    Raises Unfit and OSError.
    """
    packing = packing_of(raw)
    stream = io.BufferedReader(Unpacked(raw, packing), 1 << 20) if packing else raw
    if not packing and beginning(raw).startswith(b"PAR1"):
        if not at_hand:
            raise Unfit("holds Parquet, which is read from its end: give the file")
        return parquet.events(raw, options.message_bytes)
    lines = numbered_lines(stream)
    sample = list(islice(lines, SAMPLE_LINES if at_hand else 1))
    while True:
        try:
            return read_lines(chain(sample, lines), sample, options)
        except Unfit:  # who writes to standard input may do so slowly: more lines are waited for only in need
            more = [] if len(sample) >= SAMPLE_LINES else list(islice(lines, 1))
            if not more:
                raise
            sample += more


def read_lines(lines: Lines, sample: list[Line], options: Options) -> Found:
    """Raises Unfit where nothing says what the lines are."""
    texts = [text for _, text in sample if text]
    if texts and texts[0].startswith((b"\xff\xfe", b"\xfe\xff")):
        raise Unfit("is UTF-16: write it anew as UTF-8")
    kind = recognized(texts, options)
    if kind == "csv":
        return csv.events(lines, options.message_bytes)
    if kind == "events":
        return exports.events(lines, options.message_bytes)
    if kind == "messages":
        return each(lines, JsonMessages(options).message)
    if options.topic is not None:
        topic = options.topic
        return each(lines, lambda text: plain_message(topic, text, now()))
    timed = are_timed(texts)
    return each(lines, lambda text: mosquitto_message(text, timed=timed))


def are_timed(sample: list[bytes]) -> bool:
    """Whether messages begin with a time: most lines do, or the first, where payloads have line breaks."""
    first = leading_time(sample[0]) if sample else None
    if first is not None and is_spoken(first[1]):
        return True
    return 2 * sum(leading_time(text) is not None for text in sample) > len(sample)


def recognized(sample: list[bytes], options: Options) -> str:
    """csv, events, messages or mosquitto. Raises Unfit."""
    asked = options.format
    if sample and asked in ("auto", "events") and sample[0].startswith(b"id,message_id,"):
        return "csv"
    objects = [one for one in map(as_object, sample) if one is not None]
    is_export = any(one.keys() >= EVENT_KEYS for one in objects)
    if asked == "events":
        if sample and not is_export:
            raise Unfit("is no export of events: a CSV begins with the header, JSON lines have all fields")
        return "events"
    if asked != "auto":
        return asked
    if is_export:
        return "events"
    if any("event_id" in one and "reading" in one for one in objects) or any(
        text.startswith(b"event_id,") for text in sample[:1]
    ):
        raise Unfit("is an export of readings, which is for other programs: export events")
    if any("topic" in one for one in objects):
        return "messages"
    if objects and options.topic is None:
        raise Unfit("has JSON without a topic: give --topic")
    if objects and any("payload" in one or "payload_b64" in one for one in objects):
        return "messages"
    if options.topic is not None or not sample or 2 * sum(map(is_spoken, sample)) >= len(sample):
        return "mosquitto"
    raise Unfit(
        "is none that is known: an export of events (a CSV begins with its header), JSON lines of messages, or what "
        "`mosquitto_sub -v` writes; see --format"
    )


def as_object(text: bytes) -> dict[str, msgspec.Raw] | None:
    try:
        return decode_object(text)
    except (msgspec.MsgspecError, ValueError):
        return None


EVENT_KEYS = {"id", "message_id", "device", "kind", "observed_at", "readings"}
