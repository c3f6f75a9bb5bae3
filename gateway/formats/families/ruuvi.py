"""Ruuvi Gateway: the Bluetooth advertisements of RuuviTags and Ruuvi Airs, decoded, and the gateway's own status.

https://docs.ruuvi.com/ruuvi-gateway-firmware/data-formats and
https://docs.ruuvi.com/communication/bluetooth-advertisements
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from struct import Struct

from gateway.formats.body import Body, Json
from gateway.formats.draft import Draft
from gateway.formats.format import Format, Unreadable
from gateway.formats.nodes import members, number, opened, text, unquoted
from storage.event import Event, Message

NAME = "ruuvi_gateway"

Object = dict[str, Json]

_MAC = re.compile(r"[0-9A-Fa-f]{2}(?::[0-9A-Fa-f]{2}){5}")


def read(message: Message, body: Body) -> Sequence[Event] | None:
    """One event of each advertisement that the gateway relays, or of its own status."""
    levels = message.topic.split("/")
    document = opened(body, certain=levels[0] == "ruuvi")
    if document is None:
        return None
    draft = Draft(NAME, message, body)
    if levels[-1] == "gw_status" or "DEVICE_ADDR" in document:
        return _status(draft, document, levels)
    if (gateway := text(document.get("gw_mac"))) and isinstance(document.get("data"), str):
        return [_advertisement(draft, document, gateway, levels[-1])]
    if gateway and "dataFormat" in document:
        return [_advertisement(draft, document, gateway, levels[-1])]
    batch = members(document.get("data"))
    tags = members(batch.get("tags"))
    if (gateway := text(batch.get("gw_mac"))) and tags:
        return [_advertisement(draft, members(tag), gateway, mac) for mac, tag in tags.items()]
    return None


def _advertisement(draft: Draft, heard: Object, gateway: str, last: str) -> Event:
    if (rssi := number(heard.get("rssi"))) is not None:
        draft.put_value("rssi", rssi, "dBm", source="format")
    if (count := number(heard.get("cnt"))) is not None:
        draft.put("cnt", count)
    relayed = heard.get("data")
    sequence, mac = _put_relayed(draft, relayed) if isinstance(relayed, str) else (None, None)
    if sequence is None and not isinstance(relayed, str):
        sequence = _put_decoded(draft, heard)
    device = last if _MAC.fullmatch(last) else mac or text(heard.get("id")) or last or gateway
    stamp = heard.get("ts") or heard.get("timestamp")
    return draft.event(
        device,
        "measurement",
        stamp=unquoted(stamp),
        seq=sequence,
        via=gateway,
        vendor_type="advertisement",
        placed=False,
    )


_DECODED_UNITS = {
    "accelX": "[g]",
    "accelY": "[g]",
    "accelZ": "[g]",
    "CO2": "ppm",
    "humidity": "%",
    "luminosity": "lx",
    "PM1": "ug/m3",
    "PM10": "ug/m3",
    "PM2.5": "ug/m3",
    "PM4": "ug/m3",
    "pressure": "Pa",
    "temperature": "Cel",
    "txPower": "dBm",
    "voltage": "V",
}
_ENVELOPE = frozenset({"aoa", "cnt", "coords", "data", "gw_mac", "gwts", "id", "rssi", "timestamp", "ts"})


def _put_decoded(draft: Draft, heard: Object) -> int | None:
    """What a gateway has decoded by itself."""
    for key, value in heard.items():
        if isinstance(value, (dict, list)) or key in _ENVELOPE:
            continue
        draft.put_value(key, value, _DECODED_UNITS.get(key), source="format")
    sequence = heard.get("measurementSequenceNumber")
    return sequence if type(sequence) is int else None


def _put_relayed(draft: Draft, relayed: str) -> tuple[int | None, str | None]:
    """Sequence and address of the advertisement; one that is not Ruuvi's is kept as it is."""
    try:
        raw = bytes.fromhex(relayed)
    except ValueError:
        raise Unreadable(f"data is not hexadecimal: {relayed[:40]}") from None
    for content in _manufacturer_data(raw):
        decode = _FORMATS.get(content[:1])
        if decode is not None and len(content) >= _LENGTHS[content[0]]:
            return decode(draft, content)
    draft.put("data", relayed)
    return None, None


def _manufacturer_data(raw: bytes) -> Iterator[bytes]:
    """What stands behind Ruuvi's company identifier, 0x0499, in the structures of an advertisement."""
    at = 0
    while at + 1 < len(raw) and raw[at]:
        content = raw[at + 1 : at + 1 + raw[at]]
        if content[:3] == b"\xff\x99\x04":
            yield content[3:]
        at += 1 + raw[at]


def _put_scaled(
    draft: Draft, name: str, raw: int, *, unavailable: int, scale: float = 1, unit: str | None = None
) -> None:
    """A value by its resolution; what stands for "not available" is no value."""
    if raw == unavailable:
        draft.put_missing(name, "bad", unit)
    else:
        value = raw if scale == 1 else round(raw * scale, 4)
        draft.put_value(name, value, unit, source="format")


def _put_climate(draft: Draft, temperature: int, humidity: int, pressure: int) -> None:
    _put_scaled(draft, "temperature", temperature, unavailable=-32768, scale=0.005, unit="Cel")
    _put_scaled(draft, "humidity", humidity, unavailable=0xFFFF, scale=0.0025, unit="%")
    if pressure == 0xFFFF:
        draft.put_missing("pressure", "bad", "Pa")
    else:
        draft.put_value("pressure", pressure + 50_000, "Pa", source="format")


def _put_acceleration(draft: Draft, *axes: int) -> None:
    for axis, value in zip("xyz", axes, strict=True):
        _put_scaled(draft, f"acceleration_{axis}", value, unavailable=-32768, unit="m[g]")


_RAW_V1 = Struct(">xBBBHhhhH").unpack_from
_RAW_V2 = Struct(">xhHHhhhHBH6s").unpack_from
_V6 = Struct(">xhHHHHBBBxBB3s").unpack_from
_E1 = Struct(">xhHHHHHHHBB3s3x3sB5x6s").unpack_from


def _raw_v1(draft: Draft, content: bytes) -> tuple[int | None, str | None]:
    """Format 3: the temperature is a sign and a magnitude of whole and hundredth degrees."""
    humidity, whole, hundredths, pressure, x, y, z, battery = _RAW_V1(content)
    degrees = (whole & 0x7F) + hundredths / 100
    draft.put_value("temperature", round(-degrees if whole & 0x80 else degrees, 2), "Cel", source="format")
    draft.put_value("humidity", humidity / 2, "%", source="format")
    draft.put_value("pressure", pressure + 50_000, "Pa", source="format")
    _put_acceleration(draft, x, y, z)
    draft.put_value("battery", battery / 1_000, "V", source="format")
    return None, None


def _raw_v2(draft: Draft, content: bytes) -> tuple[int | None, str | None]:
    temperature, humidity, pressure, x, y, z, power, movements, sequence, mac = _RAW_V2(content)
    _put_climate(draft, temperature, humidity, pressure)
    _put_acceleration(draft, x, y, z)
    volts, watts = power >> 5, power & 0x1F
    if volts == 0x7FF:
        draft.put_missing("battery", "bad", "V")
    else:
        draft.put_value("battery", (volts + 1_600) / 1_000, "V", source="format")
    if watts == 0x1F:
        draft.put_missing("tx_power", "bad", "dBm")
    else:
        draft.put_value("tx_power", 2 * watts - 40, "dBm", source="format")
    _put_scaled(draft, "movement_counter", movements, unavailable=0xFF)
    return None if sequence == 0xFFFF else sequence, _address(mac)


def _put_gases(draft: Draft, co2: int, voc: int, nox: int, flags: int) -> None:
    _put_scaled(draft, "co2", co2, unavailable=0xFFFF, unit="ppm")
    _put_scaled(draft, "voc", voc << 1 | flags >> 6 & 1, unavailable=0x1FF)
    _put_scaled(draft, "nox", nox << 1 | flags >> 7, unavailable=0x1FF)
    draft.put("calibrating", bool(flags & 1))


def _v6(draft: Draft, content: bytes) -> tuple[int | None, str | None]:
    """Format 6: the sequence is the last byte of the one in E1, and the address has but three."""
    temperature, humidity, pressure, pm2_5, co2, voc, nox, light, sequence, flags, _ = _V6(content)
    _put_climate(draft, temperature, humidity, pressure)
    _put_scaled(draft, "pm2_5", pm2_5, unavailable=0xFFFF, scale=0.1, unit="ug/m3")
    _put_gases(draft, co2, voc, nox, flags)
    if light == 0xFF:
        draft.put_missing("luminosity", "bad", "lx")
    else:
        draft.put_value("luminosity", round(math.exp(light * _LIGHT_STEP) - 1, 2), "lx", source="format")
    draft.put("measurement_sequence", sequence)
    return None, None


_LIGHT_STEP = math.log(65_536) / 254


def _e1(draft: Draft, content: bytes) -> tuple[int | None, str | None]:
    temperature, humidity, pressure, *particles, co2, voc, nox, light, sequence, flags, mac = _E1(content)
    _put_climate(draft, temperature, humidity, pressure)
    for name, particle in zip(("pm1_0", "pm2_5", "pm4_0", "pm10_0"), particles, strict=True):
        _put_scaled(draft, name, particle, unavailable=0xFFFF, scale=0.1, unit="ug/m3")
    _put_gases(draft, co2, voc, nox, flags)
    _put_scaled(draft, "luminosity", int.from_bytes(light, "big"), unavailable=0xFFFFFF, scale=0.01, unit="lx")
    counted = int.from_bytes(sequence, "big")
    return None if counted == 0xFFFFFF else counted, _address(mac)


def _address(mac: bytes) -> str | None:
    return None if mac == b"\xff" * 6 else mac.hex(":").upper()


_FORMATS: dict[bytes, Callable[[Draft, bytes], tuple[int | None, str | None]]] = {
    b"\x03": _raw_v1,
    b"\x05": _raw_v2,
    b"\x06": _v6,
    b"\xe1": _e1,
}
_LENGTHS = {0x03: 14, 0x05: 24, 0x06: 20, 0xE1: 40}


def _status(draft: Draft, document: Object, levels: list[str]) -> Sequence[Event] | None:
    """Its numbers are quoted; the sensors it lists are other devices."""
    device = text(document.get("DEVICE_ADDR")) or (levels[-2] if len(levels) > 1 else None)
    if not device:
        return None
    if document.get("state") in ("online", "offline"):
        draft.put("state", document["state"])
        return [draft.event(device, "availability", vendor_type="gw_status")]
    if "DEVICE_ADDR" not in document:
        return None
    for key, value in document.items():
        if key == "UPTIME":
            draft.put_value(key, number(value), "s", source="format")
        elif key != "DEVICE_ADDR":
            draft.put(key, unquoted(value))
    return [draft.event(device, "state", vendor_type="gw_status")]


FORMATS: tuple[Format, ...] = (
    Format(
        name=NAME,
        read=read,
        topics=("ruuvi/#", "#/gw_status"),
        keys=(frozenset({"gw_mac", "data"}), frozenset({"gw_mac", "rssi"}), frozenset({"DEVICE_ADDR", "ESP_FW"})),
    ),
)
