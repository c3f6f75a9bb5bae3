"""Payloads that no device should send, and some do: named families, and mutations of good messages by seed."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from itertools import count

Family = Callable[[random.Random], bytes]


def hostile_payloads(n: int, seed: int = 0) -> list[bytes]:
    """`n` different payloads, the same ones for the same seed; each family has its turn before any has a second."""
    chance = random.Random(seed)
    found: dict[bytes, None] = {}
    for turn in count():
        for family in FAMILIES.values():
            found[family(chance)] = None
            if len(found) == n:
                return list(found)
        if turn > 20 * n:
            raise ValueError(f"the families give only {len(found)} different payloads")
    raise AssertionError


def named_payloads(seed: int = 0) -> Iterator[tuple[str, bytes]]:
    """One payload of each family, with its name."""
    chance = random.Random(seed)
    for name, family in FAMILIES.items():
        yield name, family(chance)


GOOD = (
    b'{"device":"bench-0042","seq":123456,"time":1763802000123456,"temperature":21.53,"humidity":40.2,"ok":true}',
    b'{"device":"thermo-0001","boot":"5f3a","seq":17,"time":"2026-11-22T09:00:00Z","readings":{"t":1},"units":{"t":"V"}}',
    b'{"ts":1763802000,"samples":[{"time":1763802000,"t":1},{"time":1763802001,"t":2}]}',
    '{"temperature":{"value":21.5,"unit":"°C"},"latitude":48.1,"longitude":11.6}'.encode(),
    b'[{"n":"a","v":1},{"n":"b","v":2}]',
    b"21.5",
    b"ON",
)
WORDS = ["device", "id", "seq", "time", "ts", "value", "unit", "units", "readings", "data", "name", "lat", "lon"]
LITERALS = ["NaN", "Infinity", "-Infinity", "1e999", "-1e999", "1e-999", "-0.0", "-0", "undefined", "0x1f", "01"]
SURROGATES = ("\\ud800", "\\udfff", "\\udc00\\ud800", "\\ud800x", "\\uD83D\\u0020")


def nested(chance: random.Random) -> bytes:
    depth = chance.choice((31, 32, 33, 64, 500, 900, 1_100, 5_000, 100_000))
    opened, inner, closed = chance.choice((("[", "", "]"), ('{"a":', "1", "}"), ('[{"data":', "1", "}]")))
    return (opened * depth + inner + closed * chance.choice((depth, depth - 1, 0))).encode()


def numbers(chance: random.Random) -> bytes:
    key, literal = chance.choice(WORDS), chance.choice(LITERALS)
    return f'{{"{key}":{literal},"x":{chance.randint(0, 99)}}}'.encode()


def great_integers(chance: random.Random) -> bytes:
    power = chance.choice((31, 32, 53, 63, 64, 65, 128, 1_023, 1_024, 1_030, 13_000, 20_000))
    number = chance.choice(("", "-")) + _digits(2**power + chance.randint(-2, 2))
    return f'{{"{chance.choice(WORDS)}":{number},"x":1}}'.encode()


def long_numbers(chance: random.Random) -> bytes:
    digits = str(chance.randint(1, 9)) * chance.choice((19, 20, 300, 310, 4_300, 4_301, 100_000))
    return (digits + chance.choice(("", ".", ".5", "e5", "e999999"))).encode()


def not_utf8(chance: random.Random) -> bytes:
    bad = chance.choice((b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82", b"\xfc", b"\x80"))
    good = chance.choice(GOOD)
    at = chance.randint(0, len(good))
    return good[:at] + bad + good[at:]


def surrogates(chance: random.Random) -> bytes:
    return f'{{"{chance.choice(WORDS)}":"{chance.choice(SURROGATES)}{chance.randint(0, 99)}","t":1}}'.encode()


def surrogate_keys(chance: random.Random) -> bytes:
    return f'{{"{chance.choice(SURROGATES)}{chance.choice(WORDS)}":{chance.randint(0, 99)}}}'.encode()


def nul(chance: random.Random) -> bytes:
    good = chance.choice(GOOD)
    at = chance.randint(0, len(good))
    return good[:at] + chance.choice((b"\0", b"\\u0000", b"\0" * 9)) + good[at:]


def nul_names(chance: random.Random) -> bytes:
    return f'{{"device":"a\\u0000{chance.randint(0, 99)}","x\\u0000":"\\u0000","units":{{"x\\u0000":"V"}}}}'.encode()


def byte_order_marks(chance: random.Random) -> bytes:
    good = chance.choice(GOOD).decode()
    encoding = chance.choice(("utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"))
    return (chance.choice(("", "\ufeff")) + good).encode(encoding)[: chance.randint(2, 400)]


def duplicates(chance: random.Random) -> bytes:
    key = chance.choice(WORDS)
    return f'{{"{key}":1,"{key}":"x","{key.upper()}":{chance.randint(0, 99)},"{key}":{{"{key}":2}}}}'.encode()


def blanks(chance: random.Random) -> bytes:
    return b"".join(chance.choices((b"", b" ", b"\n", b"\t", b"\r", b"\0", b"\xc2\xa0", b'""', b"{}", b"[]"), k=4))


def many_keys(chance: random.Random) -> bytes:
    return json.dumps({f"k{i}": i for i in range(chance.choice((999, 9_990, 10_000, 10_001, 20_000)))}).encode()


def many_elements(chance: random.Random) -> bytes:
    element = chance.choice(("1", "{}", '{"time":1763802000}', '{"name":"a","value":1}', "[]", "null"))
    array = f"[{','.join([element] * chance.choice((63, 65, 9_999, 10_001, 30_000)))}]"
    return chance.choice((array, f'{{"data":{array}}}', f'{{"x":{array},"device":"d"}}')).encode()


def long_texts(chance: random.Random) -> bytes:
    text = chance.choice(("x", "é", "😀", "\\n")) * chance.choice((511, 513, 4_097, 65_536, 65_537, 70_000))
    return chance.choice((text, f'{{"a":"{text}"}}', f'{{"{text}":1}}', f'{{"device":"{text}"}}', f'"{text}"')).encode()


def long_paths(chance: random.Random) -> bytes:
    key, depth = "k" * chance.choice((15, 16, 17, 100, 3_000)), chance.randint(2, 40)
    return (f'{{"{key}":' * depth + "1" + "}" * depth).encode()


def wrong_types(chance: random.Random) -> bytes:
    texts = ("", " ", "NaN", "2019-02-29T00:00:00Z", "9" * 30)
    values: tuple[object, ...] = (None, True, [], {}, [[]], [{}], {"value": {}}, -1, 2**63, 1e300, *texts)
    return json.dumps({key: chance.choice(values) for key in chance.sample(WORDS, chance.randint(1, 8))}).encode()


def strange_times(chance: random.Random) -> bytes:
    stamps = (
        0, -1, 1e18, 1e19, 2**63, 2**64, 10**11, 10**14, 10**17, 10**20, 4102444800, "1970-01-01T00:00:00Z",
        "2100-01-01T00:00:00Z", "9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59", "2026-11-22 09:00:00",
        "2026-11-22T09:00:00.1234567890Z", "2026-W47-7T09:00", "1763802000.5", "٢٠٢٦-١١-٢٢T٠٩:٠٠:٠٠Z", "24:00:00",
    )  # fmt: skip
    key = chance.choice(("time", "ts", "t", "date"))
    return json.dumps({key: chance.choice(stamps), "x": chance.random()}).encode()


def other_formats(chance: random.Random) -> bytes:
    return chance.choice(
        (
            b"\x1f\x8b\x08\x00" + chance.randbytes(20),
            b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "bbbb">]><a>&b;</a>',
            b"weather,place=here temperature=82 " + str(chance.randint(0, 10**18)).encode(),
            b"\x82\xa1a\x01\xa1b" + chance.randbytes(2),
            b"{{ states('sensor.x') }}" + chance.randbytes(1),
            b"[INFO] started " + str(chance.random()).encode(),
            b"a;b;c\n1;2;" + str(chance.random()).encode(),
        )
    )


def truncated(chance: random.Random) -> bytes:
    good = chance.choice(GOOD)
    return good[: chance.randint(0, len(good) - 1)]


def noise(chance: random.Random) -> bytes:
    return chance.randbytes(chance.choice((1, 2, 8, 64, 1_000)))


def mutated(chance: random.Random) -> bytes:
    payload = bytearray(chance.choice(GOOD))
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(payload))
        match chance.randrange(4):
            case 0:
                payload[at] = chance.randrange(256)
            case 1:
                payload[at:at] = chance.choice(LITERALS).encode()
            case 2:
                payload[at : at + chance.randint(1, 9)] = b""
            case _:
                payload[at:at] = payload[: chance.randint(0, len(payload))]
        payload = payload or bytearray(b"?")
    return bytes(payload)


def oversize(chance: random.Random) -> bytes:
    return b'{"x":"' + b"x" * chance.choice((1_048_569, 1_048_570, 1_100_000)) + b'"}'


FAMILIES: dict[str, Family] = {
    family.__name__: family
    for family in (
        nested, numbers, great_integers, long_numbers, not_utf8, surrogates, surrogate_keys, nul, nul_names,
        byte_order_marks, duplicates, blanks, many_keys, many_elements, long_texts, long_paths, wrong_types,
        strange_times, other_formats, truncated, noise, mutated,
    )
}  # fmt: skip
"""Without `oversize`, whose members are a megabyte each."""


def _digits(number: int) -> str:
    # str() refuses more than 4 300 digits; hexadecimal to decimal by hand would be slow: a repeated digit will do.
    return str(number) if number.bit_length() < 14_000 else "7" * (number.bit_length() * 3 // 10)
