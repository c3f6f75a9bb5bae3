"""What to do about a text that is no TOML: which key it is, and how it is written. Guesses; it never mends a file."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from typing import NamedTuple

from devices.fleets.locate import Path, line_of, locate
from devices.fleets.words import written

_QUOTED = re.compile(r""""(?:[^"\\]|\\.)*"(?!\s*[=.])|'[^']*'(?!\s*[=.])""")
_SET = re.compile(r"(?:^|[{,])\s*([A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*)\s*=\s*")
_HEADER = re.compile(r"\s*(\[\[?)\s*([^\[\]#]*?)\s*(?:\]|#|$)")
_WORD = re.compile(r"[^\s,\[\]{}#]+")
_UNSHOWN = 60
_READABLE = 2_000
"""Of the letters of a line: nobody writes longer ones by hand."""
_PROBE = '"\\u0000" = 0'
"""A key that no file has: where it lands tells the table of a line."""


class Fault(NamedTuple):
    """What the reader of TOML says. Line and column count from 1; a column of 0 is behind the end of the text."""

    finding: str
    line: int
    column: int


class _Scene(NamedTuple):
    """The line of a fault, and what of it can be told apart."""

    line: str
    at: int
    """Where the fault is in the line."""
    key: str
    """The key whose value is being given; empty if there is none."""
    value: str
    """All that stands behind its equals sign, without a comment."""
    within: bool
    """Whether the key stands in an inline table."""
    outer: str
    """The first key of the line."""
    rest: str
    """From the fault on."""


def remedy(text: str, fault: Fault) -> tuple[str, str]:
    """The key as a person would write it, and what to do; each empty where it cannot be told."""
    lines = text.split("\n")
    if len(lines[fault.line - 1]) > _READABLE:
        return "", ""
    scene = _scene(lines[fault.line - 1].rstrip("\r"), fault.column)
    before = "\n".join(lines[: fault.line - 1])
    table, places = _surroundings(before)
    finding = fault.finding.lower()
    if "overwrite" in finding or "declare" in finding or "duplicate" in finding:
        return _twice(scene, table, places, finding)
    if _is_broken_off(scene, finding):
        way, name = written((*table, *scene.outer.split("."))), _header(table, scene)
        return (
            way,
            f"an inline table stands on one line: join its lines, or write a table of its own: [{name}]",
        )
    return _way(scene, table), _cure(scene, finding)


def line_of_opening(text: str, finding: str) -> int:
    """Of what is never closed: the line in which it opens, for the reader only says that the text ended."""
    opening = "[" if "array" in finding or "value" in finding else "'" if "'" in finding and "]" not in finding else ""
    if opening == "[" and text.rfind("[") > text.rfind("]"):
        return text.count("\n", 0, text.rfind("[")) + 1
    if opening == "'":
        for number, line in enumerate(text.split("\n"), 1):
            if len(line) <= _READABLE and re.search(r"=[^#\"]*'", _masked(line)):
                return number
    return text.rstrip().count("\n") + 1


def _scene(line: str, column: int) -> _Scene:
    at = column - 1 if column else len(line)
    masked = _masked(line)
    found = [match for match in _SET.finditer(masked) if match.end() <= at or match.end() == len(line)]
    if not found:
        return _Scene(line, at, "", "", within=False, outer="", rest=line[at:])
    last = found[-1]
    begin, end = last.end(), masked.find("#", last.end())
    value = line[begin : end if end >= 0 else None].strip()
    return _Scene(line, at, last[1], value, within=last is not found[0], outer=found[0][1], rest=line[at:])


def _masked(line: str) -> str:
    """The line with whole texts blotted out: what stands in them is not TOML."""
    return _QUOTED.sub(lambda text: "Q" * len(text[0]), line)


def _surroundings(before: str) -> tuple[Path, Mapping[Path, int]]:
    """The table that a line after these lines is in, and where all is. Without quotes from what cannot be read."""
    probed = f"{before}\n{_PROBE}\n"
    try:
        tomllib.loads(probed)
    except (ValueError, RecursionError):
        return (), {}
    places = dict(locate(probed))
    way = next(way for way in places if way[-1] == "\0")
    return way[:-1], places


def _way(scene: _Scene, table: Path) -> str:
    """Of the key, as far as it is plain: in an inline table within another only the outer key is."""
    if not scene.key:
        return ""
    parts = tuple(scene.outer.split("."))
    opened = _masked(scene.line[: scene.at])
    if scene.within and opened.count("{") - opened.count("}") == 1 and "[" not in opened:
        parts += tuple(scene.key.split("."))
    return written((*table, *parts))


def _twice(scene: _Scene, table: Path, places: Mapping[Path, int], finding: str) -> tuple[str, str]:
    if scene.key and "duplicate" in finding:
        return _way(scene, table), "stands twice on this line: leave one out"
    if scene.key:
        way = (*table, *scene.outer.split("."))
        if way in places:
            return written(way), f"stands here twice, first in line {places[way]}: leave one out"
        return written(way), f"what it is part of has a value in line {line_of(way, places)}: leave one out"
    header = _HEADER.match(scene.line)
    return ("", "") if header is None else _header_twice(header, table, places)


def _header_twice(header: re.Match[str], table: Path, places: Mapping[Path, int]) -> tuple[str, str]:
    name = re.sub(r"\s*\.\s*", ".", header[2])
    first = next((line for way, line in places.items() if _named(way) == name), None)
    if first is None:
        return name, "stands here twice: leave one out"
    if name == "groups":
        return name, f"write [[groups]], in double brackets, each time: it is there already in line {first}"
    last = max(line for way, line in places.items() if _named(way) == name)
    if table and _named(table) == name:
        return name, "stands here twice: leave this header out"
    return name, f"is there already in line {last}: put all its keys in one place"


def _named(way: Path) -> str:
    """As a header has it: without places in arrays."""
    return ".".join(part for part in way if isinstance(part, str))


def _cure(scene: _Scene, finding: str) -> str:
    for cure in (_of_quotes, _of_brackets, _of_headers, _of_keys):
        if words := cure(scene, finding):
            return words
    return _of_value(scene, finding)


def _of_quotes(scene: _Scene, finding: str) -> str:
    if "hex value" in finding or "'\\'" in finding:
        return r"write \\ for a backslash, or put the text in single quotes"
    opening = scene.value[:1]
    if "unterminated" in finding and scene.value[:3] in ('"""', "'''"):
        return f"close the text with {scene.value[:3]}"
    unclosed = "illegal character" in finding or "unterminated" in finding or finding.startswith('expected "\'"')
    if not unclosed or (finding.startswith("illegal") and "\\n" not in finding and "\\r" not in finding):
        return "leave that character out, or write it as \\u and four digits" if unclosed else ""
    if opening and opening in "\"'" and _short(scene.value) and not set(scene.value[1:]) & set("\"'\\{},"):
        return f"close the quote: {scene.key} = {scene.value}{opening}"
    return "close the quote on the line where it opens"


def _of_brackets(scene: _Scene, finding: str) -> str:
    rest = scene.rest.lstrip()
    if "key part" in finding and _is_open(scene) and rest.startswith("}"):
        return "leave out the comma before the }"
    if "unclosed array" in finding and not rest:
        return "close the array with ]"
    return ""


def _is_broken_off(scene: _Scene, finding: str) -> bool:
    """Whether the line ends within an inline table."""
    ends = scene.rest.lstrip()[:1] in ("", "#")
    return ends and _is_open(scene) and ("key part" in finding or "inline table" in finding)


def _is_open(scene: _Scene) -> bool:
    before = _masked(scene.line[: scene.at])
    return bool(scene.key) and before.count("{") > before.count("}")


def _header(table: Path, scene: _Scene) -> str:
    return written(tuple(part for part in (*table, *scene.outer.split(".")) if isinstance(part, str)))


def _of_headers(scene: _Scene, finding: str) -> str:
    header = _HEADER.match(scene.line)
    if header is None or scene.key:
        return ""
    if "declaration" in finding and _short(header[2]) and header[2]:
        return f"write {header[1]}{header[2]}{']' * len(header[1])}"
    return 'a header is words with points between them: [groups.signals], or ["a b"] with quotes for other letters'


def _of_keys(scene: _Scene, finding: str) -> str:
    if "after a key" in finding:
        before, rest = scene.line[: scene.at].strip(), scene.rest.lstrip(" \t:").strip()
        if "=" in rest and not scene.key:
            name = scene.line.partition("=")[0].strip()
            plain = _short(name) and not set(name) & set("\"'")
            return "a key of letters other than a to z, or of more than one word, stands in quotes" + (
                f": {_text(name)} = …" if plain else ""
            )
        if not rest or not _short(rest) or scene.key or "{" in before:
            return "write key = value"
        return f"write {before} = {rest if _is_toml(rest) else _text(rest)}"
    if "invalid statement" in finding or "key part" in finding:
        if scene.rest.startswith("="):
            return "write a key before the ="
        word = re.match(r"[^\s=.,{}]+", scene.rest)
        return f"a key of other letters than a to z stands in quotes: {_text(word[0])} = …" if word else ""
    return ""


def _of_value(scene: _Scene, finding: str) -> str:
    if not scene.key:
        return _of_word(_word(scene), "") if "value" in finding or "array" in finding else ""
    given = f"{scene.key} = "
    if not scene.value:
        return f"write a value behind the =: {given}…"
    if scene.value.startswith("["):
        return _of_word(_word(scene), "") or "write commas between the values, and a ] at the end"
    if re.search(r"\s[\w-]+\s*=", _masked(scene.value)) and not scene.within and "{" not in scene.value:
        return "each key has a line of its own"
    if scene.value[0] in "\"'" and "expected newline" in finding:
        return "a key has one value: leave out what follows it, or write an array [ … ]"
    word = scene.value if not scene.within else re.split(r"[,}]", scene.value)[0].strip()
    return _of_word(word, given)


def _word(scene: _Scene) -> str:
    """The word in which the fault is."""
    return next((found[0] for found in _WORD.finditer(scene.line) if found.start() <= scene.at < found.end()), "")


def _of_word(word: str, given: str) -> str:
    """What to write in place of a word that is no value."""
    if not word or not _short(word) or word[0] in "\"'[{" or _is_toml(word):
        return ""
    if word[0] in "“”„‟‘’‚«»`":
        return f"write straight quotes: {given}{_text(word.strip('“”„‟‘’‚«»`'))}"
    if word.lower() in ("true", "false"):
        return f"write it small: {given}{word.lower()}"
    if word.lower() in ("yes", "no", "on", "off"):
        return f"write true or false, or a text in quotes: {given}{_text(word)}"
    if number := _number(word):
        return f"write {given}{number}"
    if re.match(r"[+-]?\.?\d", word):
        return f"write it in quotes: {given}{_text(word)}"
    return f"texts stand in quotes: {given}{_text(word)}" if re.match(r"\w|[^\x00-\x7f]|[/$@%]", word) else ""


def _number(word: str) -> str:
    """The number that was meant."""
    if found := re.fullmatch(r"([+-]?)(\d*)[.,](\d*)", word):
        return f"{found[1]}{found[2].lstrip('0') or '0'}.{found[3] or '0'}"
    if re.fullmatch(r"[+-]?0\d+", word):
        return str(int(word))
    if found := re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)\s*%", word):
        return f"{float(found[1]) / 100:g}"
    return ""


def _short(text: str) -> bool:
    return len(text) <= _UNSHOWN


def _text(word: str) -> str:
    return json.dumps(word, ensure_ascii=False)


def _is_toml(value: str) -> bool:
    try:
        return bool(tomllib.loads(f"key = {value}"))
    except (ValueError, RecursionError):
        return False
