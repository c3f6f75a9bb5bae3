"""A private Mosquitto for the demo, the tests and the benchmarks: our mosquitto.conf on a free port of this machine."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self

READY_WITHIN_S = 30.0
"""How long a start may take: Mosquitto reads all that it kept before it listens."""

STOPPED_WITHIN_S = 60.0
"""How long a stop may take: Mosquitto writes all that it holds before it exits."""

_PORTS = range(20_000, 32_000)
"""Below the ephemeral ports: there, while the broker is down, an outgoing connection could take its port
(a client that retries on loopback can even connect to itself)."""

_OFF_THE_PATH = ("/usr/sbin", "/usr/local/sbin", "/opt/homebrew/sbin")
"""Where packages put mosquitto, and users' PATHs do not look."""


class BrokerError(Exception):
    """Mosquitto is missing, or did not start; the text says why and what to do."""


class Mosquitto:
    """One Mosquitto process, with its configuration, its persistence and its log in `folder`.

    It may be started again after `stop` or `kill`: on the same port, with what it kept. `extra` holds more lines
    of configuration; a key given there replaces ours. Should this process be killed, the broker goes with it.
    """

    def __init__(self, folder: Path, *, port: int | None = None, extra: str = "") -> None:
        self.folder = folder
        self.port = port or _free_port()
        self._may_move = port is None
        self._extra = extra
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        return f"mqtt://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        if self._process is None:
            raise BrokerError("the broker is not running")
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it runs; not where it was stopped or killed, nor where it ended by itself."""
        return self._process is not None and self._process.poll() is None

    def log(self) -> str:
        """All that it has said since the first start."""
        path = self.folder / "mosquitto.log"
        return path.read_text("utf-8", "replace") if path.exists() else ""

    def start(self) -> None:
        """Start it; on return it listens. Raises BrokerError with the end of its log if it does not."""
        if self._process is not None and self._process.poll() is None:
            raise BrokerError(f"the broker is already running, as process {self._process.pid}")
        self._forget()
        said = self._try()
        while said is not None and self._may_move and "in use" in said:
            self.port = _free_port()
            said = self._try()
        self._may_move = False
        if said is None:
            return
        last = "\n".join(said.splitlines()[-10:]) or "(it said nothing)"
        raise BrokerError(f"mosquitto did not start on 127.0.0.1:{self.port}. Its last words:\n{last}")

    def stop(self) -> None:
        """End it in good order: it writes what it holds, then exits. Does nothing if it is not running."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a crash would: what it had not yet saved is gone."""
        self._end(signal.SIGKILL)

    def _try(self) -> str | None:
        """One attempt to start. None when it listens, else what it said instead."""
        self.folder.mkdir(parents=True, exist_ok=True)
        configuration = self.folder / "mosquitto.conf"
        configuration.write_text(_rewritten(_our_configuration(), self.folder, self.port, self._extra), "utf-8")
        before = len(self.log())
        # A file, for a pipe that nobody drains would stop the broker. A group of its own, so that Ctrl-C
        # reaches only the program that started it, which then stops it in its turn.
        with (self.folder / "mosquitto.log").open("ab") as log:
            self._process = subprocess.Popen(
                [_executable(), "-c", str(configuration)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                process_group=0,
            )
        self._guard = guard(self._process.pid)
        deadline = time.monotonic() + READY_WITHIN_S
        while self._process.poll() is None and time.monotonic() < deadline:
            # Its own word comes first, said once it listens: an answer on the port might be somebody else's. The answer
            # must follow: between that word and its main loop, Mosquitto forgets a SIGTERM that it gets.
            if " running\n" in self.log()[before:] and _answers(self.port):
                return None
            time.sleep(0.005)
        self.kill()
        return self.log()[before:]

    def _end(self, sign: signal.Signals) -> None:
        if self._process is None:
            return
        self._process.send_signal(sign)
        try:
            self._process.wait(STOPPED_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise BrokerError(f"mosquitto did not stop within {STOPPED_WITHIN_S:.0f} s and was killed") from None
        finally:
            self._forget()

    def _forget(self) -> None:
        if self._guard is not None:
            self._guard.kill()
            self._guard.communicate()
        self._process = self._guard = None


def _executable() -> str:
    """Where mosquitto is on this machine."""
    places = os.pathsep.join((os.environ.get("PATH", os.defpath), *_OFF_THE_PATH))
    found = shutil.which("mosquitto", path=places)
    if found is None:
        raise BrokerError(
            "mosquitto is not installed: apt-get install mosquitto (Debian, Ubuntu), "
            "dnf install mosquitto (Fedora) or brew install mosquitto (macOS)"
        )
    return found


def _free_port() -> int:
    """A port that nobody listens on now; somebody may yet be faster."""
    for port in random.sample(_PORTS, 100):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise BrokerError(f"no free port between {_PORTS.start} and {_PORTS.stop}")


def _answers(port: int) -> bool:
    """Whether it answers an MQTT 3.1.1 CONNECT; a refusal will do, and where TLS is spoken, an end or a reset."""
    try:
        with socket.create_connection(("127.0.0.1", port), READY_WITHIN_S) as connection:
            connection.sendall(b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x0a\x00\x00")
            if connection.recv(4):
                connection.sendall(b"\xe0\x00")
    except (ConnectionRefusedError, TimeoutError):
        return False
    except ConnectionError:
        return True
    return True


def _our_configuration() -> str:
    """The mosquitto.conf of the clone, or the copy of it that the wheel carries."""
    here = Path(__file__).resolve().parent
    for path in (here.parent / "mosquitto.conf", here / "mosquitto.conf"):
        if path.is_file():
            return path.read_text("utf-8")
    raise BrokerError(f"mosquitto.conf is missing beside {here}: clone or install Amber again")


def _rewritten(configuration: str, folder: Path, port: int, extra: str) -> str:
    """The same configuration for one private broker."""
    private = f"listener {port} 127.0.0.1\npersistence_location {folder.resolve()}\nlog_dest stderr\n"
    if os.geteuid() == 0:
        # Else it becomes the user mosquitto, who cannot write into root's folders.
        private += "user root\n"
    replaced = {_key(line) for line in (private + extra).splitlines()} - {""}
    kept = [line for line in configuration.splitlines() if _key(line) not in replaced]
    return "\n".join([*kept, "", private + extra, ""])


def _key(line: str) -> str:
    """The key of one line of configuration; empty for comments and blank lines."""
    return "" if line.startswith("#") else line.partition(" ")[0].strip()


def guard(pid: int) -> subprocess.Popen[bytes]:
    """A shell that waits for our end of its pipe to close, as it does however we die, and then kills the process.

    Linux's parent-death signal would come when the starting *thread* ends, and macOS has none.
    """
    return subprocess.Popen(["/bin/sh", "-c", f"read -r _; kill -9 {pid}"], stdin=subprocess.PIPE, process_group=0)
