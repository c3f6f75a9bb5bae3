"""Telegrams: what their CRC is, what it finds, and that the letter of a time tells the hour that comes twice."""

from __future__ import annotations

import pytest

from gateway.formats import Formats
from gateway.formats.families.p1 import crc16
from storage.event import Rejection
from tests.formats.messages import message


def telegram(letter: str = "W") -> bytes:
    lines = ["/ABC5\\20MTR-7", "", f"0-0:1.0.0(261025023000{letter})", "1-0:1.7.0(00.250*kW)", "!"]
    text = "\r\n".join(lines).encode()
    return text + b"%04X\r\n" % crc16(text)


@pytest.mark.parametrize(("data", "crc"), [(b"123456789", 0xBB3D), (b"", 0), (b"A", 0x30C0)])
def test_the_crc_is_that_of_the_standard(data: bytes, crc: int) -> None:
    assert crc16(data) == crc


@pytest.mark.parametrize(("letter", "utc"), [("S", 1_792_888_200_000_000), ("W", 1_792_891_800_000_000)])
def test_the_hour_that_comes_twice_is_told_by_its_letter(letter: str, utc: int) -> None:
    events = Formats().read(message(telegram(letter), "dsmr/raw"))
    assert not isinstance(events, Rejection)
    assert [(event.observed_at, event.from_device) for event in events] == [(utc, True)]


def test_a_bit_that_flips_behind_the_header_rejects_the_telegram() -> None:
    whole = telegram()
    formats = Formats()
    for at in range(len(b"/ABC5"), len(whole) - len(b"\r\n")):
        damaged = whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]
        assert isinstance(formats.read(message(damaged, "dsmr/raw")), Rejection), damaged
