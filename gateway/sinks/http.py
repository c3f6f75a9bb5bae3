"""Posts events to a web server. Never takes a batch for delivered that was not answered with success."""

from __future__ import annotations

import base64
import contextlib
import email.utils
import http.client
import io
import re
import socket
import ssl
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes, urlsplit

import msgspec

from gateway.deliver import Batch, NotTaken
from storage.render import shown

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

TIMEOUT_S = 30.0
READ_BYTES = 64 << 10
"""Of an answer: what is longer costs the connection."""

SHOWN_CHARACTERS = 160
LATER = frozenset({408, 425, 429})
"""What a server answers when it may take the same another time; and all from 500."""

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[\t -~\x80-\xff]*")


class Url(msgspec.Struct, frozen=True):
    """Where to post. `str(url)` shows neither password nor query."""

    tls: bool
    host: str
    port: int
    path: str
    shown: str
    authorization: str | None = None

    def __str__(self) -> str:
        return self.shown


def parse_url(text: str) -> Url:
    """Read `http[s]://[user:password@]host[:port][/path][?query]`. Raises ValueError."""
    try:
        parts = urlsplit(text)
        port = parts.port
        host = (parts.hostname or "").encode("idna").decode()
    except ValueError as error:
        raise ValueError(f"it is not an address ({error}): write http://host/path") from None
    if parts.scheme not in ("http", "https") or not re.fullmatch("[!-~]+", host) or port == 0:
        raise ValueError("it must name a host: write http://host/path")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if not re.fullmatch("[!-~]+", path):
        raise ValueError("path and query must be written with %: no spaces, no letters but those of ASCII")
    bracketed = f"[{host}]" if ":" in host else host
    shown = f"{parts.scheme}://{bracketed}{f':{port}' if port else ''}{parts.path}"
    authorization = None
    if parts.username is not None:
        secret = unquote_to_bytes(parts.username) + b":" + unquote_to_bytes(parts.password or "")
        authorization = f"Basic {base64.b64encode(secret).decode()}"
    tls = parts.scheme == "https"
    return Url(tls, host, port or (443 if tls else 80), path, shown, authorization)


def parse_header(text: str) -> tuple[str, str]:
    """Read `Name: value`. Raises ValueError."""
    name, colon, value = text.partition(":")
    value = value.strip()
    if not colon or not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
        raise ValueError("it is no header: write 'Name: value'")
    return name, value


class Post:
    """A server that has taken a batch when it answers 2xx. One connection serves as long as it lasts."""

    def __init__(self, url: Url, headers: Sequence[tuple[str, str]] = (), timeout_s: float = TIMEOUT_S) -> None:
        self._url = url
        self._headers = dict(headers)
        if url.authorization is not None:
            self._headers.setdefault("Authorization", url.authorization)
        self._timeout_s = timeout_s
        self._tls = ssl.create_default_context() if url.tls else None
        self._connection: http.client.HTTPConnection | None = None

    def take(self, batch: Batch) -> None:
        headers = {**about(batch), **self._headers}
        try:
            answer, text = self._post(batch.body, headers)
        except TimeoutError:
            self.close()
            raise NotTaken(f"{self._url} did not answer within {self._timeout_s:g} s") from None
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise NotTaken(f"{self._url} cannot be reached ({_cause(error)})") from error
        except BaseException:
            self.close()
            raise
        if not success(answer):
            raise NotTaken(refusal(self._url, answer, text), retry_after_s(answer.getheader("Retry-After")))

    def settle(self) -> None:
        """Nothing: what was answered with success is taken."""

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _post(self, body: bytes, headers: Mapping[str, str]) -> tuple[http.client.HTTPResponse, bytes]:
        if self._connection is not None:
            try:
                return self._request(self._connection, body, headers)
            except (ConnectionError, http.client.BadStatusLine):  # it was closed while it was idle
                self.close()
        self._connection = self._connect()
        return self._request(self._connection, body, headers)

    def _request(
        self, connection: http.client.HTTPConnection, body: bytes, headers: Mapping[str, str]
    ) -> tuple[http.client.HTTPResponse, bytes]:
        if connection.sock is None:
            connection.connect()
        connection.sock.settimeout(self._timeout_s)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it may have answered before it has read all
            connection.request("POST", self._url.path, body, dict(headers))
        answer = connection.getresponse()
        text = b""
        try:
            text = answer.read(READ_BYTES)
        except (OSError, http.client.HTTPException):
            if not success(answer):
                raise
        if not answer.isclosed():
            self.close()
        return answer, text

    def _connect(self) -> http.client.HTTPConnection:
        host, port = self._url.host, self._url.port
        if self._tls is None:
            connection = http.client.HTTPConnection(host, port, timeout=self._timeout_s)
        else:
            connection = http.client.HTTPSConnection(host, port, timeout=self._timeout_s, context=self._tls)
        connection.response_class = Answer
        return connection


class Answer(http.client.HTTPResponse):
    """An answer that has to be there, whole, within the socket's timeout, which by itself is for each piece of it."""

    def __init__(self, sock: socket.socket, *arguments: Any, **more: Any) -> None:
        super().__init__(sock, *arguments, **more)
        self.fp.close()
        self.fp = io.BufferedReader(_InTime(sock))


class _InTime(io.RawIOBase):
    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._raw = sock.makefile("rb", buffering=0)
        self._end_s = time.monotonic() + (sock.gettimeout() or 0.0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int | None:
        left_s = self._end_s - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        self._sock.settimeout(left_s)
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


def success(answer: http.client.HTTPResponse) -> bool:
    return 200 <= answer.status < 300


def about(batch: Batch) -> dict[str, str]:
    """What a batch is, for the head of a request."""
    return {
        "Content-Type": "application/x-ndjson",
        "User-Agent": "amber",
        "Amber-Consumer": batch.consumer,
        "Amber-First-Position": str(batch.first),
        "Amber-Last-Position": str(batch.last),
        "Amber-Events": str(len(batch.lines)),
    }


def refusal(url: Url, answer: http.client.HTTPResponse, text: bytes) -> str:
    """An answer that is no success, in words."""
    why = shown(f"{url} answers {answer.status} {answer.reason}".rstrip())
    if 300 <= answer.status < 400:
        return (
            f"{why}: give --to the address that it points to, {shown(answer.getheader('Location') or 'which it hides')}"
        )
    if answer.status in LATER or answer.status >= 500:
        return why
    said = shown(" ".join(text.decode(errors="replace").split())[:SHOWN_CHARACTERS])
    return f"{why}{f' ({said})' if said else ''}: it will not take this batch until that is mended"


def retry_after_s(value: str | None) -> float:
    """Seconds of a Retry-After, which is a number of them or a date (RFC 9110, section 10.2.3); 0 where it is none."""
    if value is None:
        return 0.0
    if re.fullmatch(r"\d{1,9}", value.strip()):
        return float(value)
    try:
        return max(email.utils.parsedate_to_datetime(value).timestamp() - time.time(), 0.0)
    except (ValueError, OverflowError):
        return 0.0


def _cause(error: Exception) -> str:
    """Without the names of classes, where there is anything else to say."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return shown(f"its certificate is not trusted: {error.verify_message}")
    return shown(getattr(error, "strerror", None) or str(error) or type(error).__name__)
