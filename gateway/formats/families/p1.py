"""P1 telegrams of Dutch, Belgian, Luxembourgian and Swedish smart meters: OBIS codes, values, units, and a CRC.

By the DSMR P1 Companion Standard 5.0.2, https://www.netbeheernederland.nl/dossiers/slimme-meter-15.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from functools import cache

from gateway.formats.body import Body
from gateway.formats.draft import Draft
from gateway.formats.format import Unreadable
from storage.event import Event, Message

NAME = "dsmr_p1"

_HEADER = re.compile(r"/([A-Za-z]{3}[0-9][^\r\n]*)")
# A name, what its first group holds (a number with a unit, or else), and further groups.
_LINE = re.compile(
    r"^([0-9]{1,3}-[0-9]{1,3}:[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3})"
    r"\((?:([+-]?[0-9]+(?:\.[0-9]+)?)\*([A-Za-z0-9]{1,8})|([^()\r\n]*))\)((?:\s*\([^()\r\n]*\))*)",
    re.MULTILINE,
)
_GROUP = re.compile(r"\(([^()]*)\)")
_END = re.compile(r"^!([0-9A-Fa-f]{4})?\s*\Z", re.MULTILINE)
_MOMENT = re.compile(r"([0-9]{2})([0-9]{2})([0-9]{2})([0-9]{2})([0-9]{2})([0-9]{2})([SWsw]?)")
_MEASURED = re.compile(r"([+-]?[0-9]+(?:\.[0-9]+)?)\*([A-Za-z0-9]{1,8})")
# Winter and summer time, in all four countries.
_OFFSETS = {"W": "+01:00", "S": "+02:00", "": ""}
_CLOCK = "0-0:1.0.0"
_MOST_DIGITS = 15
Line = tuple[str, str, str, str, str]
# Leading zeros are padding here; elsewhere a value without a unit is a text: a serial number, a version, a message.
_COUNTED = re.compile(
    r"0-0:96\.7\.\d+|1-0:99\.97\.0|1-0:(?:32|52|72)\.(?:32|36)\.0|0-0:96\.14\.0|0-\d+:(?:24\.[14]\.0|96\.3\.10)"
)


def read_telegram(message: Message, body: Body, text: str, device: str) -> list[Event] | None:
    """An event of each meter and each time that a telegram speaks of; Unreadable where it is damaged."""
    header = _HEADER.match(text)
    lines = _LINE.findall(text) if header else []
    if header is None or not lines:
        return None
    end = _END.search(text)
    if end is None:
        raise Unreadable("the telegram has no end: a line with ! and its CRC")
    if end[1]:
        _check(body.payload, int(end[1], 16))
    draft = Draft(NAME, message, body)
    draft.put("header", header[1])
    return list(_events(draft, device, lines))


def _events(draft: Draft, device: str, lines: list[Line]) -> Iterator[Event]:
    """The meter at its own time, then each meter behind it at theirs."""
    stamp = None
    stamped: list[tuple[str, str, str]] = []
    behind: dict[str, list[tuple[str, list[str]]]] = {}
    for name, number, unit, text, rest in lines:
        if name[:2] == "0-" and name[:4] != "0-0:":
            behind.setdefault(name.partition(":")[0], []).append((name, _groups(number, unit, text, rest)))
        elif unit and not rest:
            draft.put_value(name, _number(number), unit)
        elif name == _CLOCK:
            stamp = _moment(text)
        elif not rest:
            _put_text(draft, name, name, text)
        elif (moment := _moment(text)) and len(groups := _GROUP.findall(rest)) == 1:
            stamped.append((name, groups[0], moment))
        else:
            _put(draft, name, _groups(number, unit, text, rest))
    yield draft.event(device, "measurement", stamp=stamp)
    for name, group, moment in stamped:  # the peak of the month
        _put(draft, name, [group])
        yield draft.event(device, "measurement", stamp=moment)
    for channel, entries in behind.items():
        yield _of_channel(draft, f"{device}/{channel}", entries, device)


def _groups(number: str, unit: str, text: str, rest: str) -> list[str]:
    first = f"{number}*{unit}" if unit else text
    return [first, *_GROUP.findall(rest)] if rest else [first]


def _number(digits: str) -> float:
    return float(digits) if "." in digits or len(digits) > _MOST_DIGITS else int(digits)


def _of_channel(draft: Draft, device: str, entries: list[tuple[str, list[str]]], via: str) -> Event:
    """A gas, water or heat meter; its last value is up to an hour older than the telegram."""
    stamp = None
    for name, groups in entries:
        moment = _moment(groups[0])
        stamp = moment or stamp
        if moment and name.endswith("24.3.0") and len(groups) >= 7:
            name_within, unit, value = groups[-3:]
            _put(draft, name_within if ":" in name_within else name, [f"{value}*{unit}"])
        else:
            _put(draft, name, groups[1:] if moment else groups)
    return draft.event(device, stamp=stamp, via=via)


def _put(draft: Draft, name: str, groups: list[str]) -> None:
    for at, group in enumerate(groups):
        where = f"{name}.{at}" if at else name
        if measured := _MEASURED.fullmatch(group):
            draft.put_value(where, _number(measured[1]), measured[2])
        else:
            _put_text(draft, name, where, group)


def _put_text(draft: Draft, name: str, where: str, text: str) -> None:
    counted = text.isdecimal() and len(text) <= _MOST_DIGITS and _COUNTED.fullmatch(name)
    draft.put(where, int(text) if counted else text or None)


def _moment(group: str) -> str | None:
    """ISO 8601 of YYMMDDhhmmss and a letter; older meters give no letter, and so no zone."""
    found = _MOMENT.fullmatch(group)
    if found is None:
        return None
    year, month, day, hour, minute, second, letter = found.groups()
    return f"20{year}-{month}-{day}T{hour}:{minute}:{second}{_OFFSETS[letter.upper()]}"


def _check(payload: bytes, wanted: int) -> None:
    """Compare the CRC, from / to ! inclusive. Some publishers have made one byte of each line end, or two of a byte."""
    telegram = payload[payload.index(b"/") : payload.rindex(b"!") + 1]
    if crc16(telegram) == wanted:
        return
    sent = telegram.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    if crc16(sent) == wanted or (not sent.isascii() and crc16(_bytewise(sent)) == wanted):
        return
    raise Unreadable(f"the telegram was damaged: its CRC is {crc16(telegram):04X}, and should be {wanted:04X}")


def _bytewise(telegram: bytes) -> bytes:
    """A byte for each character, as the meter has them."""
    return telegram.decode("utf-8", "replace").encode("latin-1", "replace")


def crc16(data: bytes) -> int:
    """CRC-16/ARC: polynomial x¹⁶+x¹⁵+x²+1, reflected, from 0."""
    table = _crc_table()
    crc = 0
    for word in struct.unpack_from(f"<{len(data) // 2}H", data):
        crc = table[crc ^ word]
    return _shifted(crc ^ data[-1], 8) if len(data) % 2 else crc


@cache
def _crc_table() -> list[int]:
    # Two bytes a step, as a telegram a second from each of many meters is to be checked: two fifths of a millisecond
    # otherwise. The table of 16 bits is made of that of 8.
    bytewise = [_shifted(byte, 8) for byte in range(256)]
    return [bytewise[(word >> 8) ^ (low := bytewise[word & 0xFF]) & 0xFF] ^ (low >> 8) for word in range(65_536)]


def _shifted(crc: int, bits: int) -> int:
    for _ in range(bits):
        crc = crc >> 1 ^ 0xA001 if crc & 1 else crc >> 1
    return crc
