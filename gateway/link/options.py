"""What a link needs to know, checked before anything connects."""

from __future__ import annotations

import msgspec

from gateway.link.address import Address, parse_address
from gateway.link.errors import LinkError
from gateway.link.subscriptions import MAX_BYTES, Subscription, check_subscription

DAY_S = 86_400


class LinkOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Where to connect, as whom, and what to ask for. Values that cannot work raise LinkError, naming the key.

    `client_id` names the session in which the broker keeps what has not been acknowledged: it must stay the same
    from one start to the next, and no two gateways may share it. `window_messages` bounds how many unacknowledged
    messages the broker may have on the way (MQTT 5 Receive Maximum), and how many may wait here.
    """

    broker_url: str
    client_id: str
    subscriptions: tuple[Subscription, ...]
    window_messages: int = 20_000
    window_bytes: int = 64 * 1024 * 1024
    session_expiry_s: int = 30 * DAY_S
    keep_alive_s: int = 30
    connect_timeout_s: float = 10.0
    close_timeout_s: float = 5.0
    username: str | None = None
    password: str | None = None
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    first_backoff_s: float = 0.5
    max_backoff_s: float = 30.0
    settled_after_s: float = 60.0
    """A connection that has held this long counts as good, and the next loss as the first. Longer than max_backoff_s:
    of two gateways that fight for one client id, each holds for as long as the other waits."""

    def __post_init__(self) -> None:
        address = self.address
        if address.username is not None and self.username is not None:
            raise LinkError("username is set twice, in broker and by itself: remove one")
        if (self.ca_file or self.cert_file or self.key_file) and not address.tls:
            raise LinkError(f"ca_file, cert_file and key_file need TLS, but broker is {address}: write mqtts://")
        if self.key_file and not self.cert_file:
            raise LinkError("key_file is set without cert_file: set both, or neither")
        _check_text("client_id", self.client_id)
        if not self.client_id:
            raise LinkError("client_id is empty: give the gateway a name of its own, the same at every start")
        for key in ("username", "password"):
            _check_text(key, getattr(self, key) or "")
        _check_subscriptions(self.subscriptions)
        _check_between("window_messages", self.window_messages, 1, 65_535)
        _check_between("window_bytes", self.window_bytes, 1, float("inf"))
        # 0 would let the broker forget, at every loss of the connection, what it has not yet delivered.
        _check_between("session_expiry_s", self.session_expiry_s, 60, 0xFFFFFFFF)
        _check_between("keep_alive_s", self.keep_alive_s, 1, 65_535)
        for key in ("connect_timeout_s", "close_timeout_s", "first_backoff_s", "max_backoff_s", "settled_after_s"):
            _check_between(key, getattr(self, key), 0.001, DAY_S)

    def __repr__(self) -> str:
        return f"LinkOptions({self.address}, client_id={self.client_id!r}, …)"  # the password must not reach a log

    @property
    def address(self) -> Address:
        return parse_address(self.broker_url)

    @property
    def credentials(self) -> tuple[str | None, str | None]:
        """User name and password, from wherever they were given."""
        address = self.address
        return self.username or address.username, self.password or address.password


def _check_subscriptions(subscriptions: tuple[Subscription, ...]) -> None:
    if not subscriptions:
        raise LinkError("subscriptions is empty: name at least one topic filter, or # for every topic")
    seen = set()
    for subscription in subscriptions:
        check_subscription(subscription)
        if subscription[0] in seen:
            raise LinkError(f"subscription {subscription[0]!r} is there twice: remove one")
        seen.add(subscription[0])


def _check_text(key: str, text: str) -> None:
    """What MQTT can carry as a string (MQTT 5.0, section 1.5.4)."""
    try:
        size_bytes = len(text.encode())
    except UnicodeEncodeError:
        raise LinkError(f"{key} is not valid UTF-8: write it anew") from None
    if size_bytes > MAX_BYTES or "\0" in text:
        raise LinkError(f"{key} must have at most {MAX_BYTES} bytes and no NUL: shorten it")


def _check_between(key: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise LinkError(f"{key} is {value}: it must lie between {low} and {high}")
