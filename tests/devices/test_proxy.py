"""The proxy is the bad network that it is asked to be."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from devices.proxy import Proxy


@pytest.fixture
def echo() -> Iterator[int]:
    """The port of a server that sends back what it gets."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=accept, args=(server,), daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


def accept(server: socket.socket) -> None:
    try:
        while True:
            threading.Thread(target=answer, args=(server.accept()[0],), daemon=True).start()
    except OSError:
        pass


def answer(connection: socket.socket) -> None:
    with connection:
        try:
            while data := connection.recv(1 << 16):
                connection.sendall(data)
        except OSError:
            pass


def connect(proxy: Proxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=20)


def receive(connection: socket.socket, size: int) -> bytes:
    got = b""
    while len(got) < size:
        got += connection.recv(size - len(got)) or pytest.fail("it ended early")
    return got


def test_it_passes_everything_on_in_both_directions(echo: int) -> None:
    sent = bytes(range(256)) * 4_000
    with Proxy(echo) as proxy, connect(proxy) as connection:
        sender = threading.Thread(target=connection.sendall, args=(sent,))
        sender.start()
        assert receive(connection, len(sent)) == sent
        sender.join()


def test_a_cut_connection_is_reset_and_the_next_one_works(echo: int) -> None:
    with Proxy(echo) as proxy:
        with connect(proxy) as connection:
            connection.sendall(b"x")
            assert receive(connection, 1) == b"x"
            proxy.cut()
            with pytest.raises(ConnectionResetError):
                connection.recv(1)
        with connect(proxy) as connection:
            connection.sendall(b"y")
            assert receive(connection, 1) == b"y"


def test_while_it_stalls_nothing_passes_and_nothing_is_lost(echo: int) -> None:
    with Proxy(echo) as proxy, connect(proxy) as connection:
        connection.sendall(b"a")
        assert receive(connection, 1) == b"a"
        proxy.stall()
        connection.sendall(b"b")
        connection.settimeout(0.2)
        with pytest.raises(TimeoutError):
            connection.recv(1)
        connection.settimeout(20)
        proxy.flow()
        assert receive(connection, 1) == b"b"


def test_a_stalled_connection_can_be_cut(echo: int) -> None:
    with Proxy(echo) as proxy, connect(proxy) as connection:
        connection.sendall(b"a")
        assert receive(connection, 1) == b"a"
        proxy.stall()
        connection.sendall(b"b")
        proxy.cut()
        with pytest.raises(ConnectionResetError):
            connection.recv(1)


def test_a_slow_network_passes_everything_in_the_end(echo: int) -> None:
    with Proxy(echo) as proxy, connect(proxy) as connection:
        proxy.slow(20_000)
        connection.sendall(bytes(10_000))
        assert receive(connection, 10_000) == bytes(10_000)


def test_where_nobody_listens_a_connection_is_reset() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with Proxy(port) as proxy, pytest.raises(ConnectionResetError), connect(proxy) as connection:
        connection.recv(1)


def test_an_end_is_passed_on(echo: int) -> None:
    with Proxy(echo) as proxy, connect(proxy) as connection:
        connection.sendall(b"x")
        assert receive(connection, 1) == b"x"
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1) == b""
