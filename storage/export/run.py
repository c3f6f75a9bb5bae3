"""Runs an export from its request to the file, which is whole or not there. Never changes the log."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import IO, Protocol

from storage.export.durable import writing
from storage.export.pages import Page, pages
from storage.export.parquet import ParquetParts, ParquetStream, join
from storage.export.request import Checkpoint, Done, Request
from storage.export.text import TextSink
from storage.export.unfinished import Unfinished


def write_stream(store: Path, request: Request, out: IO[bytes], done: Done, tick: Callable[[], None]) -> None:
    """All of it into a stream that cannot be gone back in."""
    sink = ParquetStream(out, request) if request.format == "parquet" else TextSink(out, request)
    for page in pages(store, request, done):
        sink.write(page)
        out.flush()
        note(done, page)
        tick()
    sink.settle(done)


def write_file(
    store: Path, unfinished: Unfinished, checkpoint: Checkpoint, tick: Callable[[], None], stop: Callable[[], bool]
) -> bool:
    """All that the checkpoint is short of, and then the file under its name; False where it was stopped before.

    `checkpoint.done` is kept up. Raises ExportError, StoreError; what is written by then can be gone on with.
    """
    request, done = checkpoint.request, checkpoint.done
    unfinished.clear(done)
    unfinished.remember(checkpoint)
    if not done.whole:
        sink = make_sink(unfinished, request, done)
        for page in pages(store, request, done):
            with writing(unfinished.part):
                sink.write(page)
            note(done, page)
            tick()
            if sink.due or stop():
                with writing(unfinished.part):
                    sink.settle(done)
                unfinished.remember(checkpoint)
            if stop():
                return False
        with writing(unfinished.part):
            sink.settle(done)
        done.whole = True
        unfinished.remember(checkpoint)
    whole = unfinished.part
    if request.format == "parquet" and done.parts == 1:
        whole = unfinished.part_number(1)
    elif request.format == "parquet":
        with writing(unfinished.part):
            join(unfinished, request, done)
    done.bytes = whole.stat().st_size
    unfinished.finish(whole)
    return True


def make_sink(unfinished: Unfinished, request: Request, done: Done) -> Sink:
    if request.format == "parquet":
        return ParquetParts(unfinished, request, done.parts)
    return TextSink(unfinished.out, request, at=done.bytes)


class Sink(Protocol):
    """Where pages go."""

    @property
    def due(self) -> bool:
        """Whether enough has been written to make sure of it."""

    def write(self, page: Page) -> None: ...

    def settle(self, done: Done) -> None:
        """Bring all that was written to the disk, and note in `done` how much that is."""


def note(done: Done, page: Page) -> None:
    done.position, done.events, done.rows = page.position, done.events + page.events, done.rows + page.rows
