"""The payload of one message, opened once for all the formats that look at it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from gateway.formats import texts
from gateway.formats.options import Options
from gateway.formats.topics import Place
from storage.event import Event

Json = bool | int | float | str | list["Json"] | dict[str, "Json"] | None
Document = list[Json] | dict[str, Json] | None

# What JSON may begin with: white space and byte order marks as well.
_OPENINGS = frozenset(b"{[ \t\r\n\xef\xfe\xff")
# `[INFO] started` is a line of a log, `[{"` the start of an array.
_JSON = re.compile(r'\{|\[\s*[\[{"\]]')
_decode = msgspec.json.Decoder().decode


class Knowledge(Protocol):
    """What earlier messages taught; see `learned`."""

    def get(self, format: str, key: str) -> Json:
        """What a format was taught under a key, None where nothing; to be read, not changed."""


class _Ignorance:
    def get(self, format: str, key: str) -> Json:  # noqa: ARG002
        return None


class Body:
    """Text and JSON of a payload, each decoded when first asked for; a fault is a sentence, never an exception.

    `text_fault` says why there is no text, `json_fault` what is wrong with what looks like JSON. `learned` holds what
    earlier messages taught; `read_inner` reads a payload that was packed into this one, and raises Unreadable.
    """

    __slots__ = (
        "_document",
        "_document_known",
        "_text",
        "_text_known",
        "json_fault",
        "learned",
        "options",
        "payload",
        "place",
        "read_inner",
        "text_fault",
    )

    def __init__(
        self,
        payload: bytes,
        options: Options,
        place: Place,
        learned: Knowledge | None = None,
        read_inner: Callable[[bytes], Sequence[Event]] | None = None,
    ) -> None:
        self.payload = payload
        self.learned = learned or _Ignorance()
        self.read_inner = read_inner or _nothing_inside
        self.options = options
        self.place = place
        self.text_fault = ""
        self.json_fault = ""
        self._text: str | None = None
        self._text_known = False
        self._document: Document = None
        self._document_known = False

    @property
    def text(self) -> str | None:
        """The payload as trimmed text, None where it is binary."""
        text = self._decoded()
        if text is not None and (at := texts.binary_at(text)) is not None:
            self.text_fault = f"character 0x{ord(text[at]):02x} at {at} does not occur in text"
            return None
        return text

    @property
    def document(self) -> Document:
        """The payload as a JSON object or array, else None.

        NaN, Infinity and 1e999 are floats, which a reading cannot hold: it is bad. Of duplicate keys the last stays.
        """
        if not self._document_known:
            self._document_known = True
            document = self._parsed() if self.payload and self.payload[0] in _OPENINGS else None
            self._document = document if isinstance(document, (dict, list)) else None
        return self._document

    def _decoded(self) -> str | None:
        if not self._text_known:
            self._text_known = True
            try:
                self._text = texts.decoded(self.payload)
            except ValueError as fault:
                self.text_fault = str(fault)
        return self._text

    def _parsed(self) -> Json:
        try:
            return _decode(self.payload)  # type: ignore[no-any-return]
        except (msgspec.MsgspecError, ValueError, RecursionError):
            pass
        # msgspec refuses NaN, 1e999, lone surrogates and byte order marks: the standard library takes them.
        text = self._decoded()
        if text is None:
            self.json_fault = self.text_fault if self.payload.lstrip().startswith(b"{") else ""
            return None
        try:
            return json.loads(text, parse_constant=float, parse_int=_integer)  # type: ignore[no-any-return]
        except RecursionError:
            self.json_fault = f"nested deeper than {self.options.depth} levels (depth)"
        except json.JSONDecodeError as fault:
            if _JSON.match(text):
                self.json_fault = f"not valid JSON: {fault}"
        return None


def _nothing_inside(_: bytes) -> Sequence[Event]:
    return ()


def _integer(digits: str) -> int | None:
    return int(digits) if len(digits) <= 310 else None
