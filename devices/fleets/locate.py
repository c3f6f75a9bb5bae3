"""Where each key of a TOML text stands. Trusts that the text is TOML: it finds places, and never complains."""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_right
from collections.abc import Mapping

Path = tuple[str | int, ...]
"""The way to a value from the top: keys of tables, and places in arrays from 0."""

_SPACE = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_BLANK = re.compile(r"[ \t]*")
_PART = re.compile(r"""[ \t]*([A-Za-z0-9_-]+|"(?:[^"\\]|\\.)*"|'[^']*')[ \t]*""")
_STRING = re.compile(r'''"""(?:[^\\]|\\.)*?"""(?:""|")?|'{3}.*?'{3}(?:'{2}|')?|'[^']*'|"(?:[^"\\]|\\.)*"''', re.DOTALL)
_SCALAR = re.compile(r"[^,\]}#\r\n]*")


def locate(text: str) -> Mapping[Path, int]:
    """The line, from 1, of each key and each entry of an array; of a table that of its header or first mention."""
    return _Walk(text).lines


def line_of(path: Path, lines: Mapping[Path, int]) -> int:
    """The line of a key, or of the nearest table around it that there is."""
    return next((lines[path[:end]] for end in range(len(path), 0, -1) if path[:end] in lines), 1)


class _Walk:
    """One way through a text, from the top."""

    def __init__(self, text: str) -> None:
        self.lines: dict[Path, int] = {}
        self._text = text
        self._at = 0
        self._ends = [place for place, letter in enumerate(text) if letter == "\n"]
        self._last: dict[Path, int] = {}  # of each array of tables, the place of its last one
        self._document()

    def _document(self) -> None:
        table: Path = ()
        while self._skip(_SPACE) < len(self._text):
            if self._text.startswith("[[", self._at):
                table = self._header(2)
            elif self._text[self._at] == "[":
                table = self._header(1)
            else:
                self._pair(table)

    def _header(self, brackets: int) -> Path:
        """`[table]` or `[[tables]]`."""
        begin = self._at
        self._at += brackets
        *parents, name = self._key()
        self._at += brackets
        path: Path = ()
        for part in parents:
            path = self._newest((*path, part), begin)
        path = (*path, name)
        if brackets == 1:
            return self._newest(path, begin)
        self._note(path, begin)
        self._last[path] = self._last.get(path, -1) + 1
        path = (*path, self._last[path])
        self._note(path, begin)
        return path

    def _newest(self, path: Path, begin: int) -> Path:
        """What a part of a header means: a table, or the last one of an array of tables."""
        self._note(path, begin)
        return (*path, self._last[path]) if path in self._last else path

    def _pair(self, table: Path) -> None:
        """`key = value`, also within an inline table."""
        begin = self._at
        path = table
        for part in self._key():
            path = (*path, part)
            self._note(path, begin)
        self._at += 1  # the equals sign
        self._skip(_BLANK)
        self._value(path)

    def _value(self, path: Path) -> None:
        opening = self._text[self._at]
        if opening == "{":
            self._at += 1
            while self._text[self._skip(_SPACE)] != "}":
                self._pair(path)
                self._separator()
            self._at += 1
        elif opening == "[":
            self._at += 1
            place = 0
            while self._text[self._skip(_SPACE)] != "]":
                self._note((*path, place), self._at)
                self._value((*path, place))
                self._separator()
                place += 1
            self._at += 1
        else:
            self._skip(_STRING if opening in "\"'" else _SCALAR)

    def _separator(self) -> None:
        if self._text[self._skip(_SPACE)] == ",":
            self._at += 1

    def _key(self) -> list[str]:
        """The parts of a dotted key."""
        parts = []
        while found := _PART.match(self._text, self._at):
            self._at = found.end()
            parts.append(_bare(found[1]))
            if not self._text.startswith(".", self._at):
                break
            self._at += 1
        return parts

    def _skip(self, pattern: re.Pattern[str]) -> int:
        """Go past what is there of this; where that ends."""
        if found := pattern.match(self._text, self._at):
            self._at = found.end()
        return self._at

    def _note(self, path: Path, begin: int) -> None:
        self.lines.setdefault(path, bisect_right(self._ends, begin - 1) + 1)


def _bare(part: str) -> str:
    """A part of a key without its quotes and escapes."""
    return str(tomllib.loads(f"key = {part}")["key"]) if part[0] in "\"'" else part
