"""A broker's URL is read as it is meant, or refused in words that keep the password."""

from __future__ import annotations

import pytest

from devices.address import Address, parse_address
from devices.errors import DeviceError


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("mqtt://127.0.0.1:1883", Address("127.0.0.1", 1883)),
        ("mqtt://broker", Address("broker", 1883)),
        ("mqtts://broker/", Address("broker", 8883, tls=True)),
        ("MQTT://Broker:99", Address("broker", 99)),
        ("mqtt://ann:s%40crets%2F@broker", Address("broker", 1883, user="ann", password="s@crets/")),
        ("mqtt://ann@broker", Address("broker", 1883, user="ann")),
        ("mqtt://[::1]:1884", Address("::1", 1884)),
    ],
)
def test_a_broker_url_is_read(url: str, address: Address) -> None:
    assert parse_address(url) == address


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:1883",
        "localhost",
        "http://ann:hunter2@broker",
        "mqtt://",
        "mqtt://:1883",
        "mqtt://broker:0",
        "mqtt://broker:65536",
        "mqtt://broker:eighteen",
        "mqtt://ann:hunter2:more",
        "mqtt://ann:hunter2@broker/topic",
        "mqtt://broker?qos=1",
        "mqtt://[::1",
        f"mqtt://{'a' * 64}.example",
    ],
)
def test_what_is_no_broker_url_is_refused_in_one_line(url: str) -> None:
    with pytest.raises(DeviceError) as refused:
        parse_address(url)
    assert "mqtt://127.0.0.1:1883" in str(refused.value)
    assert "\n" not in str(refused.value)
    assert "hunter2" not in str(refused.value)


def test_an_address_as_text_shows_neither_user_nor_password() -> None:
    assert str(parse_address("mqtts://ann:hunter2@[::1]:8884")) == "mqtts://[::1]:8884"
