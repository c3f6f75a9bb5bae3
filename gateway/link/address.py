"""Where the broker is: `mqtt://` and `mqtts://` addresses as people write them."""

from __future__ import annotations

from urllib.parse import unquote, urlsplit

import msgspec

from gateway.link.errors import LinkError

PORTS = {"mqtt": 1883, "mqtts": 8883}


class Address(msgspec.Struct, frozen=True):
    """A broker's address. `str(address)` never shows the password."""

    scheme: str
    host: str
    port: int
    username: str | None = None
    password: str | None = None

    @property
    def tls(self) -> bool:
        return self.scheme == "mqtts"

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"

    def __repr__(self) -> str:
        return f"Address({str(self)!r})"


def parse_address(url: str) -> Address:
    """Read `mqtt://[user[:password]@]host[:port]`, or `mqtts://` for TLS. Raises LinkError."""
    try:
        parts = urlsplit(url)
        port = parts.port
        host = parts.hostname or ""
        host.encode("idna")
    except ValueError as error:  # UnicodeError, from a host name that cannot be one, is a ValueError
        raise LinkError(f"broker {_shown(url)!r} is not an address ({error}): write mqtt://host:1883") from None
    if parts.scheme in ("ws", "wss"):
        raise LinkError(f"broker {_shown(url)!r}: this link has no WebSocket; use mqtt:// or mqtts://")
    if parts.scheme not in PORTS:
        raise LinkError(f"broker {_shown(url)!r} must begin with mqtt:// or, for TLS, mqtts://")
    if not host or port == 0:
        raise LinkError(f"broker {_shown(url)!r} must name a host, and a port above 0: write mqtt://host:1883")
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise LinkError(f"broker {_shown(url)!r} must end after host and port: write mqtt://host:1883")
    return Address(parts.scheme, host, port or PORTS[parts.scheme], _decoded(parts.username), _decoded(parts.password))


def _decoded(text: str | None) -> str | None:
    return None if text is None else unquote(text)


def _shown(url: str) -> str:
    """The address without user and password, for errors get logged."""
    head, at, tail = url.rpartition("@")
    return f"{head.partition('://')[0]}://…@{tail}" if at else url
