"""TLS, against a real Mosquitto with certificates made for the test: what opens, and what each failure says."""

from __future__ import annotations

import asyncio
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiomqtt
import pytest

from devices.broker import Mosquitto
from gateway.link.codec import CodecLink
from gateway.link.options import LinkOptions
from tests.link.fakes import messages_from, options, until


def openssl(*words: str | Path) -> None:
    subprocess.run(["openssl", *words], check=True, capture_output=True)


def make_certificate(folder: Path, name: str, *, ca: str | None = None, days: int = 2) -> None:
    """NAME.pem and NAME.key, signed by another of them, or by itself."""
    signer: list[str | Path] = ["-CA", folder / f"{ca}.pem", "-CAkey", folder / f"{ca}.key"] if ca else []
    extension = ["-addext", "subjectAltName=IP:127.0.0.1"] if ca else []
    openssl(
        *(
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-subj",
            f"/CN={name}",
        ),
        *("-days", str(days), "-keyout", folder / f"{name}.key", "-out", folder / f"{name}.pem", *signer, *extension),
    )


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority, a server's and a client's certificate from it, and an authority that nobody asked."""
    folder = tmp_path_factory.mktemp("certificates")
    make_certificate(folder, "authority")
    make_certificate(folder, "stranger")
    make_certificate(folder, "server", ca="authority")
    make_certificate(folder, "gateway", ca="authority")
    return folder


@pytest.fixture
def tls_port(tmp_path: Path, certificates: Path) -> Iterator[int]:
    """Where a Mosquitto speaks TLS, and asks its clients for a certificate too."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    extra = (
        f"cafile {certificates / 'authority.pem'}\n"
        f"certfile {certificates / 'server.pem'}\n"
        f"keyfile {certificates / 'server.key'}\n"
        "require_certificate true\n"
    )
    with Mosquitto(tmp_path / "broker", extra=f"listener {port} 127.0.0.1\n{extra}"):
        yield port


def tls_options(port: int, certificates: Path, **changes: Any) -> LinkOptions:
    given: dict[str, Any] = {
        "ca_file": str(certificates / "authority.pem"),
        "cert_file": str(certificates / "gateway.pem"),
        "key_file": str(certificates / "gateway.key"),
    }
    return options(**({"url": f"mqtts://127.0.0.1:{port}"} | given | changes))


async def test_tls_with_certificates_on_both_sides_opens(tls_port: int, certificates: Path) -> None:
    """Messages come through, also past a window that makes it pause and read on again and again."""
    device_tls = aiomqtt.TLSParameters(
        str(certificates / "authority.pem"), str(certificates / "gateway.pem"), str(certificates / "gateway.key")
    )
    async with CodecLink(tls_options(tls_port, certificates, window_messages=10)) as link:
        await until(lambda: link.state.subscribed)
        async with aiomqtt.Client("127.0.0.1", tls_port, tls_params=device_tls) as device:
            await asyncio.gather(*(device.publish(f"n/{n}", bytes(2_000), qos=n % 2) for n in range(500)))
        messages = await messages_from(link, 500, ack=True)
        assert {message.topic for message in messages} == {f"n/{n}" for n in range(500)}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"ca_file": "stranger.pem"}, "its certificate was not accepted"),
        ({"ca_file": None}, "check ca_file and the host in the broker's address"),
        ({"cert_file": None, "key_file": None}, "check cert_file and key_file"),
        ({"cert_file": "stranger.pem", "key_file": "stranger.key"}, "check cert_file and key_file"),
        ({"ca_file": "nowhere.pem"}, "nowhere.pem cannot be read (No such file or directory): check ca_file"),
        ({"ca_file": "server.key"}, "check ca_file, cert_file and key_file"),
        ({"key_file": "stranger.key"}, "check ca_file, cert_file and key_file"),
    ],
)
async def test_what_is_wrong_with_a_certificate_says_what_to_check(
    tls_port: int, certificates: Path, changes: dict[str, str | None], sentence: str
) -> None:
    paths = {key: str(certificates / name) if name else None for key, name in changes.items()}
    async with CodecLink(tls_options(tls_port, certificates, **paths)) as link:
        await until(lambda: link.state.last_error)
        assert sentence in link.state.last_error
        assert not link.state.connected


async def test_a_certificate_for_another_host_is_not_accepted(tls_port: int, certificates: Path) -> None:
    wrong = f"mqtts://localhost:{tls_port}"
    async with CodecLink(tls_options(tls_port, certificates, url=wrong)) as link:
        await until(lambda: link.state.last_error)
        assert "check ca_file and the host in the broker's address" in link.state.last_error


async def test_tls_to_a_port_without_it_says_so(broker: Mosquitto, certificates: Path) -> None:
    async with CodecLink(tls_options(broker.port, certificates, connect_timeout_s=1)) as link:
        await until(lambda: link.state.last_error)
        assert "if that port speaks no TLS, write mqtt://" in link.state.last_error


async def test_no_tls_to_a_port_with_it_says_so(tls_port: int) -> None:
    async with CodecLink(options(f"mqtt://127.0.0.1:{tls_port}")) as link:
        await until(lambda: link.state.last_error)
        assert "mqtts://" in link.state.last_error
