"""How a trial is going: one live line on a terminal, elsewhere a line now and then. On standard error only."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from devices.ledger import Record
from gateway.proving.plan import Plan
from gateway.proving.torture import Run
from storage.history import Reader

PLAIN_EVERY_S = 15.0
READ_BYTES = 1 << 20

Key = tuple[str, str, int, int, int]


class Unanswered:
    """Which messages of a ledger wait for an answer: read on from where the last look ended."""

    def __init__(self, ledger: Path) -> None:
        self._ledger = ledger
        self._position = 0
        self._decoder = msgspec.json.Decoder(Record)
        self._keys = set[Key]()

    def count(self) -> int:
        """At QoS 1 and 2; at QoS 0 no answer ever comes."""
        try:
            with self._ledger.open("rb") as file:
                file.seek(self._position)
                while lines := file.read(READ_BYTES):
                    whole = lines.rpartition(b"\n")[0]
                    if not whole:
                        break
                    self._position += len(whole) + 1
                    file.seek(self._position)
                    for line in whole.splitlines():
                        self._note(line)
        except FileNotFoundError:
            pass
        return len(self._keys)

    def _note(self, line: bytes) -> None:
        try:
            record = self._decoder.decode(line)
        except ValueError:  # the half line of a simulation that was killed; whoever judges the ledger looks closer
            return
        key = record.device, record.boot, record.seq, record.part, record.copy
        if record.state != "sent":
            self._keys.discard(key)
        elif record.qos:
            self._keys.add(key)


class Progress:
    """Says so, and takes the live line away at its end."""

    def __init__(self, plan: Plan, ledger: Path) -> None:
        self._seconds, self._disturbances = plan.seconds, len(plan.disturbances)
        self._unanswered = Unanswered(ledger)
        self._live = sys.stderr.isatty()
        self._said_at = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()

    def show(self, reader: Reader, run: Run) -> None:
        """How far it is."""
        now, stored, unanswered = time.monotonic(), reader.status().messages, self._unanswered.count()
        elapsed = f"{run.now_s():.0f} of {self._seconds:.0f} s"
        parts = [
            elapsed,
            f"disturbances {run.done} of {self._disturbances}",
            f"stored {stored:,}",
            f"unacknowledged {unanswered:,}",
        ]
        line = " · ".join([*parts, run.last] if run.last else parts)
        if self._live:
            sys.stderr.write(f"\r{line[:118]}\x1b[K")
        elif now - self._said_at >= PLAIN_EVERY_S:
            self._said_at = now
            sys.stderr.write(f"{line}\n")
        sys.stderr.flush()
