"""Options: what cannot work is refused before anything connects, and the error says what to write instead."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mqtt5 import SubscribePacket, TopicFilter

from gateway.link.address import Address, parse_address
from gateway.link.errors import LinkError
from gateway.link.options import LinkOptions
from gateway.link.subscriptions import Subscription, check_subscription, parse_subscription


@pytest.mark.parametrize(
    ("text", "subscription"),
    [
        ("devices/#", Subscription("devices/#", 2)),
        ("a/#:1", Subscription("a/#", 1)),
        ("#:0", Subscription("#", 0)),
        ("+/state", Subscription("+/state", 2)),
        ("urn:dev:1/+", Subscription("urn:dev:1/+", 2)),
        ("a:12", Subscription("a:12", 2)),
        ("a:1:2", Subscription("a:1", 2)),
        ("/", Subscription("/", 2)),
        ("$SYS/#", Subscription("$SYS/#", 2)),
        ("$share/gateways/devices/#:1", Subscription("$share/gateways/devices/#", 1)),
    ],
)
def test_a_subscription_reads_as_written(text: str, subscription: Subscription) -> None:
    assert parse_subscription(text) == subscription
    assert parse_subscription(str(subscription)) == subscription


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("", "write # for every topic"),
        (":1", "write # for every topic"),
        ("a/#/b", "# must be the whole last level"),
        ("a#", "# must be the whole last level"),
        ("#/", "# must be the whole last level"),
        ("a/b+", "\\+ must be a whole level"),
        ("++", "\\+ must be a whole level"),
        ("a/b:3", "write a/b:0, :1 or :2"),
        ("a\0b", "leave it out"),
        ("x" * 65_536, "subscribe to a shorter one"),
        ("é" * 40_000, "subscribe to a shorter one"),
        ("a\ud800", "not valid UTF-8"),
        ("$share/g", "\\$share/GROUP/FILTER"),
        ("$share//a", "\\$share/GROUP/FILTER"),
        ("$share/+/a", "\\$share/GROUP/FILTER"),
        ("$share/g/", "write # for every topic"),
        ("$share/g/#/a", "# must be the whole last level"),
    ],
)
def test_a_filter_that_no_broker_takes_is_refused(text: str, remedy: str) -> None:
    with pytest.raises(LinkError, match=remedy):
        parse_subscription(text)


@given(st.text(st.sampled_from("a/+#$é \x01\ud800:") | st.characters(), max_size=12) | st.just("$share/g/+/#"))
def test_any_filter_that_we_take_can_be_sent(pattern: str) -> None:
    """The codec must not refuse later what was accepted at the start."""
    try:
        check_subscription((pattern, 2))
    except LinkError:
        return
    assert SubscribePacket(1, [TopicFilter(pattern)]).write()


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("mqtt://localhost", Address("mqtt", "localhost", 1883)),
        ("mqtts://broker.example", Address("mqtts", "broker.example", 8883)),
        ("mqtt://127.0.0.1:18830/", Address("mqtt", "127.0.0.1", 18_830)),
        ("mqtt://[::1]:1884", Address("mqtt", "::1", 1884)),
        ("MQTT://host", Address("mqtt", "host", 1883)),
        ("mqtt://me:p%40ss%3A@host", Address("mqtt", "host", 1883, "me", "p@ss:")),
        ("mqtt://me@host", Address("mqtt", "host", 1883, "me")),
    ],
)
def test_an_address_reads_as_written(url: str, address: Address) -> None:
    assert parse_address(url) == address


@pytest.mark.parametrize(
    ("url", "remedy"),
    [
        ("localhost:1883", "must begin with mqtt://"),
        ("http://host", "must begin with mqtt://"),
        ("ws://host/mqtt", "no WebSocket"),
        ("mqtt://", "must name a host"),
        ("mqtt://host:0", "a port above 0"),
        ("mqtt://host:99999", "write mqtt://host:1883"),
        ("mqtt://host:port", "write mqtt://host:1883"),
        ("mqtt://host/topic", "must end after host and port"),
        ("mqtt://host?x=1", "must end after host and port"),
        ("mqtt://" + "x" * 70, "write mqtt://host:1883"),
        ("", "must begin with mqtt://"),
    ],
)
def test_an_address_that_cannot_work_is_refused(url: str, remedy: str) -> None:
    with pytest.raises(LinkError, match=f"^broker '.*{remedy}"):  # as the setting is called
        parse_address(url)


GOOD: dict[str, Any] = {
    "broker_url": "mqtt://localhost",
    "client_id": "amber",
    "subscriptions": (Subscription("#"),),
}


@pytest.mark.parametrize(
    ("changes", "remedy"),
    [
        ({"client_id": ""}, "client_id is empty"),
        ({"client_id": "a\0"}, "client_id must have"),
        ({"username": "\ud800"}, "username is not valid UTF-8"),
        ({"subscriptions": ()}, "subscriptions is empty"),
        ({"subscriptions": (Subscription("a"), Subscription("a", 1))}, "twice: remove one"),
        ({"subscriptions": (("a/#/b", 1),)}, "whole last level"),
        ({"subscriptions": (("a", 3),)}, "QoS 3 does not exist"),
        ({"window_messages": 0}, "window_messages is 0"),
        ({"window_messages": 65_536}, "between 1 and 65535"),
        ({"session_expiry_s": 0}, "session_expiry_s is 0"),
        ({"keep_alive_s": 0}, "keep_alive_s is 0"),
        ({"connect_timeout_s": 0}, "connect_timeout_s is 0"),
        ({"max_backoff_s": float("nan")}, "max_backoff_s is nan"),
        ({"ca_file": "ca.pem"}, "write mqtts://"),
        ({"broker_url": "mqtts://host", "key_file": "key.pem"}, "key_file is set without cert_file"),
        ({"broker_url": "mqtt://me@host", "username": "me"}, "username is set twice"),
    ],
)
def test_options_that_cannot_work_are_refused_with_key_and_remedy(changes: dict[str, Any], remedy: str) -> None:
    LinkOptions(**GOOD)
    with pytest.raises(LinkError, match=remedy):
        LinkOptions(**(GOOD | changes))


@pytest.mark.parametrize(
    ("changes", "credentials"),
    [
        ({}, (None, None)),
        ({"broker_url": "mqtt://me:secret@host"}, ("me", "secret")),
        ({"username": "me", "password": "secret"}, ("me", "secret")),
        ({"broker_url": "mqtt://me@host", "password": "secret"}, ("me", "secret")),
    ],
)
def test_credentials_come_from_the_address_or_by_themselves(
    changes: dict[str, Any], credentials: tuple[str | None, str | None]
) -> None:
    assert LinkOptions(**(GOOD | changes)).credentials == credentials


def test_the_password_is_in_no_text_that_could_be_logged() -> None:
    options = LinkOptions(**(GOOD | {"broker_url": "mqtt://me:secret@host", "password": "secret"}))
    assert "secret" not in f"{options!r} {options} {options.address!r} {options.address}"
    with pytest.raises(LinkError) as caught:
        parse_address("mqtt://me:secret@host:port")
    assert "secret" not in str(caught.value)
