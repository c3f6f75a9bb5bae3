"""Where the broker is: a URL, read and checked."""

from __future__ import annotations

from urllib.parse import unquote, urlsplit

import msgspec

from devices.errors import DeviceError

DEFAULT_URL = "mqtt://127.0.0.1:1883"

_PORTS = {"mqtt": 1883, "mqtts": 8883}


class Address(msgspec.Struct, frozen=True):
    """A broker, and who we are to it. As text it has no password."""

    host: str
    port: int
    tls: bool = False
    user: str | None = None
    password: str | None = None

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"mqtt{'s' * self.tls}://{host}:{self.port}"


def parse_address(url: str) -> Address:
    """Read mqtt[s]://[user[:password]@]host[:port]. What it complains of never shows the password."""
    try:
        parts = urlsplit(url.strip())
        port = parts.port
        host = (parts.hostname or "").encode("idna").decode()
    except ValueError:  # its words may quote a part of the password
        raise DeviceError(f"this is not a broker URL: {_EXPECTED}") from None
    if parts.scheme not in _PORTS:
        raise DeviceError(f"a broker URL begins with mqtt:// or mqtts://: {_EXPECTED}")
    if not host:
        raise DeviceError(f"the broker URL names no host: {_EXPECTED}")
    if port == 0:
        raise DeviceError(f"port 0 is nobody's: {_EXPECTED}")
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise DeviceError(f"a broker URL ends with the port: {_EXPECTED}")
    return Address(
        host=host,
        port=port or _PORTS[parts.scheme],
        tls=parts.scheme == "mqtts",
        user=unquote(parts.username) if parts.username else None,
        password=unquote(parts.password) if parts.password else None,
    )


_EXPECTED = "write it as mqtt://host:port, for example mqtt://127.0.0.1:1883"
