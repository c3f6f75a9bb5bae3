"""A TCP proxy on loopback that can be a bad network: it cuts, holds and slows what passes. Never looks into it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

CHUNK_BYTES = 1 << 16


class Proxy:
    """Passes bytes between whoever connects to `port` and `target`, both on loopback, in a thread of its own."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)
        self._flowing, self._stopping = asyncio.Event(), asyncio.Event()
        self._bytes_per_s: float | None = None
        self._connections = set[asyncio.Task[None]]()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()

    def cut(self) -> None:
        """Reset all connections: what is on the way in either direction is lost. New ones are welcome."""
        self._do(self._reset)

    def stall(self) -> None:
        """Let nothing pass, in either direction, on old connections and new ones, and tell nobody: half-open."""
        self._do(self._flowing.clear)

    def slow(self, bytes_per_s: float) -> None:
        """Let only so much pass on each connection in each direction."""
        self._do(lambda: self._let_pass(bytes_per_s))

    def flow(self) -> None:
        """Let everything pass again; what was held comes through."""
        self._do(lambda: self._let_pass(None))

    def _do(self, change: Callable[[], None]) -> None:
        """In the proxy's thread; on return it is done."""
        done = threading.Event()
        self._loop.call_soon_threadsafe(change)
        self._loop.call_soon_threadsafe(done.set)
        done.wait()

    def _let_pass(self, bytes_per_s: float | None) -> None:
        self._bytes_per_s = bytes_per_s
        self._flowing.set()

    def _reset(self) -> None:
        for connection in self._connections:
            connection.cancel()

    def _run(self) -> None:
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        self._flowing.set()
        server = await asyncio.start_server(self._connect, sock=self._server, limit=CHUNK_BYTES)
        await self._stopping.wait()
        server.close()
        self._reset()
        if self._connections:
            await asyncio.wait(self._connections)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  # for the type checker: a server runs this as a task
        self._connections.add(task)
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target, limit=CHUNK_BYTES)
        except OSError:
            _reset(writer)
        except asyncio.CancelledError:
            _reset(writer)
        else:
            await self._join(reader, writer, far_reader, far_writer)
        finally:
            self._connections.discard(task)

    async def _join(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        far_reader: asyncio.StreamReader,
        far_writer: asyncio.StreamWriter,
    ) -> None:
        """Until one end closes, which closes the other, or until it is cut, which resets both."""
        ways = [
            asyncio.create_task(self._pass_on(reader, far_writer)),
            asyncio.create_task(self._pass_on(far_reader, writer)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            for end in (writer, far_writer):
                end.close()
        except asyncio.CancelledError:
            for end in (writer, far_writer):
                _reset(end)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    async def _pass_on(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(self._portion()):
                await self._flowing.wait()
                if self._bytes_per_s is not None:
                    await asyncio.sleep(len(data) / self._bytes_per_s)
                sink.write(data)
                await sink.drain()

    def _portion(self) -> int:
        """A slow network passes little at a time: else it would hold much, then pass all of it at once."""
        return CHUNK_BYTES if self._bytes_per_s is None else max(1, int(self._bytes_per_s / 20))


def _reset(writer: asyncio.StreamWriter) -> None:
    """End it by RST, not by FIN: what was not yet sent is thrown away, and the other side hears of a fault."""
    with contextlib.suppress(OSError):
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
